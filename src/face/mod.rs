//! The interface of makuosan's users: its command lines and console, on top of makuo's own
//! sessions.
//!
//! [`command`] and [`response`] are the console's lines, without IO; [`console`] serves them on TCP
//! and on a unix socket; [`password`] protects the console, and [`peer`] identifies local clients.
//! [`makuosan`] and [`msync`] are the flags of the two old programs, [`client`] is msync's side of
//! the console. Nothing here sends: a command becomes a request that [`crate::drive::adhoc`] runs.

pub mod client;
pub mod command;
pub mod console;
mod differences;
pub mod makuosan;
pub mod msync;
pub mod password;
pub mod peer;
pub mod response;
pub mod socket;
pub mod syslog;

/// Exit code of a wrong command line of either old program.
pub const USAGE: u8 = 2;

/// Prints the parse error of either old program's command line, or the requested help or version;
/// returns the exit code.
pub fn not_parsed(error: &clap::Error) -> u8 {
    // A closed output is no failure.
    let _ = error.print();
    let asked = matches!(
        error.kind(),
        clap::error::ErrorKind::DisplayHelp | clap::error::ErrorKind::DisplayVersion
    );
    if asked { 0 } else { USAGE }
}
