//! The releases of a log: a row for people, a line for scripts.

use serde::Serialize;

use super::buried::buried;
use crate::id::NamedHost;
use crate::keys::shown_time;
use crate::outcome::{LogRelease, ReleaseLog, Survey};
use crate::report::paint::Tint;
use crate::report::release_summary::{ReleaseSummary, names};
use crate::report::table::{Align, Cell, TextTable};
use crate::report::words;

/// Characters of a fingerprint that distinguish keys.
const SHORT_KEY: usize = "SHA256:".len() + 10;

/// Formats one row for each release, the newest first, with a mark on running releases.
pub(in crate::report) fn releases(log: &ReleaseLog) -> TextTable {
    let mut table = TextTable::new(&[
        Align::Left,
        Align::Left,
        Align::Left,
        Align::Left,
        Align::Right,
        Align::Right,
        Align::Left,
        Align::Left,
    ]);
    log.releases
        .iter()
        .for_each(|release| table.row(release_row(log, release)));
    table
}

fn release_row(log: &ReleaseLog, release: &LogRelease) -> Vec<Cell> {
    let newest = log.is_newest(release);
    let well = newest && release.tombstone.is_none() && !log.is_split(release);
    let (mark, tint) = match (release.running.is_empty(), well) {
        (true, _) => ("", Tint::Plain),
        (false, true) => ("*", Tint::Good),
        (false, false) => ("*", Tint::Warn),
    };

    let behind = match &release.tombstone {
        Some(stone) => format!(" ({})", buried(stone)),
        None if log.is_split(release) => " (split)".to_string(),
        None if newest => String::new(),
        None => " (behind)".to_string(),
    };

    let running = some(log, &release.running)
        .map(|hosts| format!("runs on {hosts}{behind}"))
        .unwrap_or_default();
    let part = if release.part { " of a part" } else { "" };
    let key = release
        .key
        .as_deref()
        .map_or("signature broken".to_string(), |key| {
            words::safe(&key.chars().take(SHORT_KEY).collect::<String>())
        });

    vec![
        Cell::new(mark, tint),
        Cell::new(
            words::release(&log.tree, Some(release.serial)),
            Tint::Strong,
        ),
        shown_time(release.created).into(),
        Cell::new(
            key,
            if release.key.is_some() {
                Tint::Plain
            } else {
                Tint::Bad
            },
        ),
        format!(
            "{}{part}",
            words::plural_count(release.entries, "entry", "entries")
        )
        .into(),
        release.bytes.to_string().into(),
        Cell::new(running, tint),
        some(log, &release.kept)
            .map(|hosts| format!("kept by {hosts}{}", pinned(log, release)))
            .unwrap_or_default()
            .into(),
        release
            .message
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default()
            .into(),
    ]
}

/// ", pinned on web2"
fn pinned(log: &ReleaseLog, release: &LogRelease) -> String {
    let hosts = some(log, &release.pinned);
    hosts.map_or(String::new(), |hosts| format!(", pinned on {hosts}"))
}

/// Formats host names: "web1, web2", or "all 5".
fn some(log: &ReleaseLog, hosts: &[NamedHost]) -> Option<String> {
    match hosts.len() {
        0 => None,
        1 => Some(words::hosts(hosts)),
        n if n == log.hosts.len() => Some(format!("all {n}")),
        _ => Some(words::hosts(hosts)),
    }
}

/// Formats notes beyond the rows, and totals.
pub(in crate::report) fn log_notes(log: &ReleaseLog) -> Vec<String> {
    let mut notes = Vec::new();
    let without = log.without();
    if !without.is_empty() {
        notes.push(format!("without a release: {}", words::hosts(&without)));
    }

    if !log.silent.is_empty() {
        notes.push(format!("did not answer: {}", words::hosts(&log.silent)));
    }

    let releases = words::count(log.releases.len() as u64, "release");
    notes.push(format!(
        "{}: {releases} on {}",
        log.tree,
        words::count(log.hosts.len() as u64, "host")
    ));

    notes
}

/// A release of a log, for scripts.
#[derive(Serialize)]
pub(in crate::report) struct ReleaseLine<'a> {
    event: &'static str,
    tree: &'a str,
    release: String,
    #[serde(flatten)]
    summary: ReleaseSummary,
    taken_back: bool,
    stopped: bool,
    split: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pinned: Vec<String>,
}

impl<'a> ReleaseLine<'a> {
    pub(in crate::report) fn new(log: &'a ReleaseLog, release: &'a LogRelease) -> Self {
        Self {
            event: "release",
            tree: log.tree.as_str(),
            release: release.id.to_string(),
            summary: ReleaseSummary::of(release),
            taken_back: release.tombstone.is_some_and(|stone| stone.revert),
            stopped: release.tombstone.is_some_and(|stone| !stone.revert),
            split: log.is_split(release),
            message: release.message.as_ref().map(ToString::to_string),
            pinned: names(&release.pinned),
        }
    }
}

/// Fields of a log's result.
#[derive(Serialize)]
pub(in crate::report) struct LogResult<'a> {
    tree: &'a str,
    serial: Option<u64>,
    releases: usize,
    hosts: Vec<String>,
    without: Vec<String>,
    silent: Vec<String>,
    strangers: usize,
}

impl<'a> LogResult<'a> {
    pub(in crate::report) fn new(survey: &'a Survey<ReleaseLog>) -> Self {
        let log = &survey.found;
        Self {
            tree: log.tree.as_str(),
            serial: log.newest().map(|s| s.0),
            releases: log.releases.len(),
            hosts: names(&log.hosts),
            without: names(&log.without()),
            silent: names(&log.silent),
            strangers: survey.strangers.len(),
        }
    }
}
