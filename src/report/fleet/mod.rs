//! Output of `makuo log`, `makuo status` and `makuo members`: rows and notes for people, lines for
//! scripts.
//!
//! Pure; knows neither stream nor colour.

mod log;
mod members;
mod status;

use crate::wire::message::Tombstone;

pub(super) use log::{LogResult, ReleaseLine, log_notes, releases};
pub(super) use members::members;
pub(super) use status::{StandingLine, StatusResult, standings, summary};

/// Describes the tombstone of a running release.
fn buried(stone: &Tombstone) -> &'static str {
    if stone.revert {
        "was taken back"
    } else {
        "was stopped"
    }
}

#[cfg(test)]
mod tests;
