//! makuo puts a signed release of a file tree on every server of a network at once.
//!
//! This is the map of the house. A room knows only rooms that stand above it in this list; `tests/it/architecture.rs`
//! holds the order.
//!
//! | room | owns |
//! |---|---|
//! | [`error`], [`id`], [`units`] | the one error that people see; newtypes for every id and quantity |
//! | [`strict`] | key files and configurations, opened where nobody else could have changed them |
//! | `sync` | locks that outlive a panic |
//! | [`helper`] | processes beside the daemon: how they begin, live and talk |
//! | [`block`] | SHA-256 names, content-defined chunking, compressed frames |
//! | [`packed`] | long lists in little memory |
//! | [`fec`] | coded symbols that make up for lost ones: a random linear code over GF(256); pure |
//! | [`manifest`] | entries, pages, the signed header, rules and excludes |
//! | [`hook`] | a host's own commands around a commit |
//! | [`spec`], [`config`] | the two files that people write |
//! | [`keys`] | signing, verifying, who may do what |
//! | [`diff`] | what a host has to do to become the release; pure |
//! | [`wire`] | the bytes of every datagram |
//! | [`proto`] | the session: sender, receiver, members; state machines without clock, file or socket |
//! | [`tree`] | the disk: scan, index, stage, journal, commit, undo |
//! | [`net`] | multicast sockets, interfaces, batches |
//! | [`drive`] | the only place where proto meets net, tree and the clock |
//! | [`report`] | results for people and for scripts |
//! | [`watch`] | the live mode: a release for each quiet batch of changes of a source |
//! | [`face`] | the old face: makuosan's flags, its console, msync |
//! | [`daemon`], [`cli`] | a configuration to a running host; arguments to an exit code |
//! | [`fuzz`] | the doors through which fuzzing reaches every decoder |
//! | [`sim`] | a deterministic network of many hosts for the machines of proto |
//!
//! **The way of the data.** [`drive::deploy`] scans the source ([`tree::scan`]), builds the manifest
//! ([`manifest::build`]), signs its header ([`keys`]) and runs a [`proto::sender::Sender`]. On every host
//! [`drive::host`] runs a [`proto::receiver::Receiver`]; what that asks of the disk, [`drive::disk`] answers: check the
//! signature, say which manifest nodes are missing, compare ([`diff`]), stage and verify blocks ([`tree::stage`]),
//! commit ([`tree::Tree`]). A dry run and an audit walk the same way and end after the comparison.
//!
//! **Choices worth knowing.**
//! - Entries are sorted as a depth-first walk meets them (path bytes with `/` lowest), not by plain bytes: sorted walks,
//!   manifests and indexes merge without a sort, and a directory is followed by what it contains.
//! - The page list of a manifest is itself a tree of nodes, so that the signed header names one root and fits a
//!   datagram whatever the size of the tree; see [`manifest`].
//! - The index of a scan *is* a manifest ([`tree::index`]): its pages are what a sender sends and what a host compares
//!   again. Two states of a tree, or two releases, differ where they do not share pages ([`manifest::pages`]); a host
//!   that compares the same tree again reads only those ([`diff::Memory`]).
//! - Nodes and blocks share one space of ordinals, and wants are ranges of it: pages travel exactly as blocks do.
//! - What a commit replaced becomes kept content of the release before, by one rename of its undo directory: going back
//!   takes blocks from there as it does from the tree, and is else a release like any other.
//! - A host that missed a release makes it up by the same session as any other, with a member as its sender: the header's
//!   signature and the signed order that committed it elsewhere come with the announcement, so that nothing new is signed
//!   and each host commits by itself ([`drive::serve`]). Drift is mended in the same way.
//! - Who watches a source says where it may have changed ([`tree::scan::Hints`]), and hosts look where the releases differ;
//!   everything else is taken to be as the index says. A deploy, and `repair`, look everywhere.
//! - Plans and journals of a million paths are kept [`packed`]: memory follows what is in flight.
//! - A seal says who may speak, not when. A word counts from a process that repeats a nonce: of a command, of a host for
//!   its sender, of other beacons ([`proto::freshness`]).
//! - Counters of control and data datagrams are separate: loss is measured on data, which goes to all.

pub mod error;
pub mod helper;
pub mod id;
pub mod strict;
pub(crate) mod sync;
pub mod units;

pub mod block;
pub mod fec;
pub mod manifest;
pub mod packed;

pub mod hook;

pub mod spec;

pub mod config;

pub mod keys;

pub mod diff;

pub mod wire;

pub mod proto;

pub mod tree;

pub mod net;

pub mod drive;

pub mod report;

pub mod watch;

pub mod face;

pub mod daemon;

pub mod cli;

#[doc(hidden)]
pub mod fuzz;

pub mod sim;

pub use error::{Error, Kind, Result};
