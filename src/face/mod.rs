//! The old face: what makuosan's users type and what they are answered, over makuo's own way of sending.
//!
//! [`command`] and [`answer`] are the console's lines, without IO; [`console`] serves them on TCP and on a unix socket;
//! [`password`] guards it. [`makuosan`] and [`msync`] are the flags of the two old programs, [`client`] is what msync
//! says to a console. Nothing here sends: a command becomes a wish that [`crate::drive::desk`] fulfils.

pub mod answer;
pub mod client;
pub mod command;
pub mod console;
pub mod makuosan;
pub mod msync;
pub mod password;
pub mod socket;
pub mod syslog;
