//! Hosts of makuo, a network between them, and comparisons of their trees, for tests of the built
//! binary.
//!
//! A [`Lab`] uses the loopback interface or a switch of network namespaces. All resources are
//! released on drop, even after a panic: namespaces live as long as their holder processes, which
//! exit at the end of their input.
#![allow(dead_code, reason = "every test takes what it needs")]
#![allow(unused_imports, reason = "every test takes what it needs")]

pub mod adversary;
pub mod beside;
pub mod browser;
pub mod bucket;
pub mod capture;
pub mod document;
pub mod files;
pub mod host;
pub mod http;
pub mod judge;
pub mod lab;
pub mod machines;
pub mod middleman;
pub mod old;
pub mod pace;
pub mod place;
pub mod run;
pub mod scrape;
pub mod servers;
pub mod skip;
pub mod terminal;
pub mod wait;

pub use adversary::Adversary;
pub use beside::{Beside, recording};
pub use browser::Browser;
pub use capture::{Capture, Packet};
pub use document::{Block, Document};
pub use files::{Noise, append, copy, read, write};
pub use host::Host;
pub use http::{Answer, Question, serve_by};
pub use judge::{differences, differences_without, same, same_within};
pub use lab::{DELETE, Lab};
pub use machines::Machines;
pub use middleman::{Middleman, Mishap, Passed, Toll};
pub use old::{Old, Plain};
pub use pace::{Pace, pace};
pub use place::{NetworkKind, Place, Switch};
pub use run::{Ran, Running, copy_program};
pub use servers::{BUCKET, Moto, Nginx, moto, nginx};
pub use skip::skipped;
pub use terminal::Terminal;
pub use wait::{Stopwatch, pause, until};

/// Returns true if the tests run as root.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}
