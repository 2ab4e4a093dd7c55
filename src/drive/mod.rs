//! Where the protocol meets network, disk and clock.
//!
//! [`endpoint`] carries a machine's datagrams and [`reopen`] keeps its links open, [`host`] runs the receiver machine for a daemon, [`disk`] answers its
//! requests from real trees (`admission` looks at offers before anything is done for them, `rights` says whether a release may be put there, `session` and `recall` work until all is
//! staged, `switch` from there on; `spared` is what a rollback leaves alone), [`deploy`] runs the sender machine for a command, [`source`] answers its requests from
//! a scanned directory, [`rollback`] finds an earlier release to put again. [`desk`] releases parts of a running host's
//! own trees; [`serve`] passes its releases on to hosts that missed them; `inspect` looks whether a tree drifted. [`members`] and [`log`] look around without a session. [`outcome`] is what sessions tell; `known_hosts` are the keys of hosts between sessions, [`own_key`] is this host's own; [`strangers`] are
//! those whose datagrams do not open, `ages` are those of releases, [`quiet`] keeps what anybody can cause from flooding
//! the log.

mod admission;
mod ages;
mod answers;
mod ask;
pub mod clock;
pub mod deploy;
pub mod desk;
pub mod disk;
pub mod drift;
pub mod drops;
pub mod endpoint;
pub mod host;
mod inspect;
mod known_hosts;
mod lines;
pub mod log;
mod look;
pub mod members;
pub mod outcome;
pub mod own_key;
mod paths;
pub mod quiet;
mod recall;
pub mod reopen;
mod rights;
pub mod rollback;
mod serials;
pub mod serve;
mod session;
pub mod source;
mod spared;
pub mod strangers;
mod switch;
mod tombstones;
pub mod trees;
mod unproven;

#[cfg(test)]
mod tests;
