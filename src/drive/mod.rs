//! Where the protocol meets network, disk and clock.
//!
//! | place | owns |
//! |---|---|
//! | [`endpoint`], [`reopen`] | a machine's sockets; links reopened after a network change |
//! | [`unheard`], `silence` | peers whose datagrams do not open; why nobody answers |
//! | [`host`] | the receiver machine of a daemon, with its trees |
//! | [`deploy`] | the sender machine of a command, with its source and key |
//! | [`adhoc`] | releases of parts of a running host's own trees |
//! | [`catch_up`] | releases passed on to hosts that missed them |
//! | [`repository`] | releases published to a store, and taken from there |
//! | [`kept`] | entries and files of a kept release, and the differences of two |
//! | [`survey`] | questions to all hosts, without a session |
//! | [`checkup`] | measurements of hosts and of the paths to them |
//! | [`drift`] | a host's list of differences |
//! | [`clock`], [`log_limit`], `unproven` | time, the rate limit of log lines, unproven beacons |
//! | `rate_window` | the measured rate of a transfer |

pub mod adhoc;
pub mod catch_up;
pub mod checkup;
pub mod clock;
pub mod deploy;
pub mod drift;
pub mod endpoint;
pub mod host;
pub mod kept;
pub mod log_limit;
pub mod peers;
mod rate_window;
pub mod reopen;
pub mod repository;
mod silence;
pub mod survey;
pub mod unheard;
mod unproven;

#[cfg(test)]
mod tests;
