//! Output of `makuo log`, `makuo status` and `makuo members`: rows and notes for people, lines for
//! scripts.
//!
//! Pure; knows neither stream nor colour.

mod buried;
mod log;
mod members;
mod rollout;
mod status;

pub(super) use log::{LogResult, ReleaseLine, log_notes, releases};
pub(super) use members::members;
pub(super) use rollout::{RolloutLine, rollout_note};
pub(super) use status::{StandingLine, StatusResult, standings, summary};

#[cfg(test)]
mod tests;
