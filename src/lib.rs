//! makuo puts a signed release of a file tree on every server of a network at once.
//!
//! This is the map of the house. A room knows only rooms that stand above it in this list; `tests/architecture.rs`
//! holds the order.

pub mod error;
pub mod id;
pub mod units;

pub mod block;
pub mod manifest;

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

pub mod daemon;

pub mod cli;

pub mod sim;

pub use error::{Error, Kind, Result};
