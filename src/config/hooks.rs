//! Parses the hook keys of a tree into [`Hooks`].

use std::time::Duration;

use super::*;
use crate::hook::{self, Health, Hooks};
use crate::spec::document::{Field, Section};
use crate::spec::read_command;
use crate::units::parse_duration;

/// Longest time limit; a deploy should not wait longer.
const MAX_TIME: Duration = Duration::from_secs(24 * 3600);
/// Shortest time limit.
const MIN_TIME: Duration = Duration::from_millis(1);

/// Takes the hook keys out of a `[[tree]]`.
pub(super) fn hooks(section: &mut Section) -> Result<Hooks> {
    let time = |section: &mut Section, key: &str, usual: Duration| {
        section
            .take(key)
            .map_or(Ok(usual), |field| read_time(&field))
    };

    let limit = time(section, "hook_timeout", hook::DEFAULT_TIMEOUT)?;
    let one_try = time(section, "health_timeout", hook::DEFAULT_TRY)?;
    let interval = time(section, "health_interval", hook::DEFAULT_INTERVAL)?;
    let deadline = time(section, "health_deadline", hook::DEFAULT_DEADLINE)?;
    let command = |section: &mut Section, key: &str, limit: Duration| {
        section
            .take(key)
            .map(|field| read_command(field, limit))
            .transpose()
    };

    let before = command(section, "before", limit)?;
    let after = command(section, "after", limit)?;
    let health = command(section, "health", one_try)?.map(|command| Health {
        command,
        interval,
        deadline,
    });

    Ok(Hooks {
        before,
        after,
        health,
        helper: None,
    })
}

fn read_time(field: &Field) -> Result<Duration> {
    let time = parse_duration(field.text()?).map_err(|e| field.wrong(e))?;
    if (MIN_TIME..=MAX_TIME).contains(&time) {
        return Ok(time);
    }
    Err(field.wrong("write a time from 1ms to 24h, such as \"30s\""))
}
