//! Output of `makuo log` and `makuo status`: rows and notes for people, lines for scripts.
//!
//! Pure; knows neither stream nor colour.

mod buried;
mod log;
mod status;

pub(super) use log::{LogResult, ReleaseLine, log_notes, releases};
pub(super) use status::{StandingLine, StatusResult, standings, summary};

#[cfg(test)]
mod tests;
