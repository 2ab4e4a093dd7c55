//! makuo deploys a signed release of a file tree to all servers of a network at once.
//!
//! This is the map of the code. A room (a top-level module) uses only rooms above it in this list;
//! `tests/it/architecture.rs` enforces the order.
//!
//! | room | owns |
//! |---|---|
//! | [`error`], [`id`], [`units`] | the error that people see; newtypes for ids and quantities |
//! | [`strict`] | key files and configurations, safe from changes by others |
//! | `sync` | locks that outlive a panic |
//! | `recent` | a small cache of the values used last |
//! | [`helper`] | processes beside the daemon: their start, lifetime and communication |
//! | [`block`] | SHA-256 names, content-defined chunking, compressed frames |
//! | [`packed`] | long lists in little memory |
//! | [`fec`] | coded symbols that replace lost ones: a random linear code over GF(256); pure |
//! | [`manifest`] | entries, pages, the signed header, rules and excludes |
//! | [`hook`] | a host's own commands around a commit |
//! | [`spec`], [`config`] | the two files that people write |
//! | [`keys`] | signatures, verification, permissions |
//! | [`diff`] | the plan that turns a host's tree into the release; pure |
//! | [`wire`] | the bytes of every datagram |
//! | [`repository`] | releases on a store that is not trusted: formats and machines, without I/O |
//! | [`proto`] | the session: state machines without clock, file or socket |
//! | [`tree`] | the disk: scan, index, stage, journal, commit, undo |
//! | [`metrics`] | counters of a running host, and the text in which Prometheus reads them |
//! | [`net`] | multicast sockets, interfaces, batches |
//! | [`store`] | the client of repositories: buckets, web servers, directories |
//! | [`outcome`] | results of sessions and surveys as plain data, and the exit code |
//! | [`doctor`] | verdicts of the search for the cause of a trouble; pure |
//! | [`drive`] | the only place where proto meets net, tree and the clock |
//! | [`report`] | results for people and for scripts |
//! | [`watch`] | the live mode: a release for each quiet batch of changes of a source |
//! | [`face`] | the old interface: makuosan's flags, its console, msync |
//! | [`web`] | the daemon's HTTP server: metrics, health and pages |
//! | [`daemon`], [`cli`] | from a configuration to a running host; from arguments to an exit code |
//! | [`fuzz`] | entry points for fuzzing every decoder |
//! | [`sim`] | a deterministic network of many hosts for the state machines of proto |
//!
//! **The path of the data.** [`drive::deploy`] scans the source ([`tree::scan`]), builds the
//! manifest ([`manifest::build`]), signs its header ([`keys`]) and runs a
//! [`proto::sender::Sender`]. On every host [`drive::host`] runs a [`proto::receiver::Receiver`].
//! Its requests to the disk are served by a thread for each tree: check the signature, list missing
//! manifest nodes, compare ([`diff`]), stage and verify blocks ([`tree::stage`]), commit
//! ([`tree::Tree`]). A dry run and an audit follow the same path and end after the comparison.
//!
//! **Design choices.**
//! - Entries are sorted in the order of a depth-first walk (path bytes with `/` lowest), not by
//!   plain bytes: sorted walks, manifests and indexes merge without a sort, and a directory is
//!   followed by its contents.
//! - The page list of a manifest is itself a tree of nodes, so the signed header names one root and
//!   fits a datagram for trees of any size; see [`manifest`].
//! - The index of a scan *is* a manifest ([`tree::index`]): its pages are sent by a sender and
//!   compared again by a host. Two states of a tree, or two releases, differ only in pages that
//!   they do not share ([`manifest::pages`]); a host that compares the same tree again reads only
//!   those ([`diff::Memory`]).
//! - Nodes and blocks share one space of ordinals, and wants are ranges of it: pages travel exactly
//!   as blocks do.
//! - A commit turns replaced content into kept content of the release before, by one rename of its
//!   undo directory. A rollback takes blocks from there as well as from the tree, and is otherwise
//!   a release like any other.
//! - A repository on a store has no table of its blocks: their places form a tree beside the
//!   manifest, and releases share it where they share the manifest ([`repository`]). A small change
//!   is one pack and one head, and a host reads all of it by two requests.
//! - A host that missed a release catches up by an ordinary session with another member as the
//!   sender. The announcement carries the header's signature and the signed order that committed
//!   the release elsewhere, so nothing new is signed and each host commits by itself
//!   ([`drive::catch_up`]). Drift is repaired in the same way.
//! - A watcher of a source reports where it may have changed ([`tree::scan::Hints`]), and hosts
//!   scan where the releases differ; everything else is assumed to match the index. A deploy, and
//!   `repair`, scan everything.
//! - Plans and journals of a million paths are kept [`packed`]: memory follows the data in flight.
//! - A seal authenticates the group, not the time. A message counts only from a process that
//!   repeats a nonce: of a command, of a host for its sender, of other beacons
//!   ([`proto::freshness`]).
//! - Counters of control and data datagrams are separate: loss is measured on data, which goes to
//!   all hosts.

pub mod error;
pub mod helper;
pub mod id;
pub(crate) mod recent;
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

pub mod repository;

pub mod proto;

pub mod tree;

pub mod metrics;

pub mod net;

pub mod store;

pub mod outcome;

pub mod doctor;

pub mod drive;

pub mod report;

pub mod watch;

pub mod face;

pub mod web;

pub mod daemon;

pub mod cli;

#[doc(hidden)]
pub mod fuzz;

pub mod sim;

#[cfg(test)]
#[path = "../tests/support/skip.rs"]
mod skip;

pub use error::{Error, Kind, Result};
