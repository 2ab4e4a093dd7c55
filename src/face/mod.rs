//! The old face: what makuosan's users type and what they are answered, over makuo's own way of sending.
//!
//! [`command`] and [`answer`] are the console's lines, without IO; [`console`] serves them on TCP and on a unix socket;
//! [`password`] guards it, and [`peer`] knows local clients. [`makuosan`] and [`msync`] are the flags of the two old programs, [`client`] is what msync
//! says to a console. Nothing here sends: a command becomes a wish that [`crate::drive::adhoc`] fulfils.

pub mod answer;
pub mod client;
pub mod command;
pub mod console;
pub mod makuosan;
pub mod msync;
pub mod password;
pub mod peer;
pub mod socket;
pub mod syslog;

/// The exit code of a wrong command line of either old program.
pub const USAGE: u8 = 2;

/// Prints why a command line of either old program was not parsed, or what it asked for (help, version); gives the exit
/// code.
pub fn not_parsed(error: &clap::Error) -> u8 {
    // Output that nobody reads any more is no failure.
    let _ = error.print();
    let asked = matches!(
        error.kind(),
        clap::error::ErrorKind::DisplayHelp | clap::error::ErrorKind::DisplayVersion
    );
    if asked { 0 } else { USAGE }
}
