//! The tests of the built binary, and those that hold rules of the project: one crate, so that the library is linked once.
//! `cargo test --test it watch::` runs the tests of one file.

#[path = "../support/mod.rs"]
mod support;

/// The network of `fleet` and `network`, which run in `unicast` once more.
const NETWORK: support::NetworkKind = support::NetworkKind::Multicast;

mod adhoc;
mod adversary;
mod architecture;
mod browser;
mod capture;
mod catchup;
mod circles;
mod cli;
#[cfg(feature = "store")]
mod collect;
mod completions;
mod confine;
mod console;
mod demo;
mod dependencies;
mod differential;
mod doctor;
mod documents;
mod everyday;
mod examples;
mod figures;
mod fleet;
mod guides;
mod history;
mod hold;
mod init;
mod interfaces;
mod kill;
mod liars;
mod loopback;
mod makuosan;
mod metrics;
mod mounted;
mod names;
mod network;
mod odd;
mod operators;
mod outside;
mod package;
mod page;
mod partitions;
mod promote;
mod races;
mod readers;
#[cfg(feature = "store")]
mod renewals;
mod replay;
mod repository;
mod rivals;
mod rollback;
mod sealed;
mod seeds;
mod service;
mod siege;
mod staged;
mod status;
#[cfg(feature = "store")]
mod stores;
mod strangers;
mod style;
mod terminal;
mod unicast;
mod versions;
mod watch;
mod words;
