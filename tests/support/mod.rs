//! Hosts of makuo, a network between them, and a judge of their trees, for the tests of the built binary.
//!
//! A [`Lab`] is on the loopback interface or on a switch made of network namespaces. Everything in it ends with it, also
//! when a test panics: namespaces live as long as the processes that hold them, and those end with their input.
#![allow(dead_code, reason = "every test takes what it needs")]
#![allow(unused_imports, reason = "every test takes what it needs")]

pub mod adversary;
pub mod beside;
pub mod capture;
pub mod files;
pub mod host;
pub mod judge;
pub mod lab;
pub mod old;
pub mod pace;
pub mod place;
pub mod run;
pub mod wait;

pub use adversary::Adversary;
pub use beside::{Beside, recording};
pub use capture::{Capture, Packet};
pub use files::{Noise, append, copy, read, write};
pub use host::Host;
pub use judge::{differences, differences_without, same, same_within};
pub use lab::{DELETE, Lab};
pub use old::{Old, Plain};
pub use pace::{Pace, pace};
pub use place::{Place, Switch};
pub use run::{Ran, Running};
pub use wait::{Stopwatch, pause, until};

/// Whether the tests run as root.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Says that a test did not run, and why.
pub fn skipped(why: &str) {
    println!("skipped: {why}");
    eprintln!("skipped: {why}");
}
