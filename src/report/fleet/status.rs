//! The standing of each host: a row for people, a line for scripts.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;

use super::buried::buried;
use crate::id::Labels;
use crate::outcome::{Standing, Survey};
use crate::report::paint::Tint;
use crate::report::table::{Cell, TextTable};
use crate::report::words;
use crate::units::shown_duration;
use crate::wire::query::{Drifted, Stale};

/// Formats one row for each host and tree.
pub(in crate::report) fn standings(standings: &[Standing]) -> TextTable {
    let mut table = TextTable::new(&[]);
    for standing in standings {
        let running = standing.status.as_ref().and_then(|status| status.running);
        let tint = match (&standing.status, standing.at_work()) {
            (None, _) => Tint::Bad,
            (_, true) => Tint::Note,
            _ => Tint::Plain,
        };
        table.row(vec![
            Cell::new(standing.named.to_string(), Tint::Strong),
            words::release(&standing.tree, running).into(),
            Cell::new(doing(standing), tint),
            Cell::new(staged(standing).unwrap_or_default(), Tint::Note),
            Cell::new(held(standing).unwrap_or_default(), Tint::Warn),
            Cell::new(words::missed(standing).unwrap_or_default(), Tint::Warn),
            Cell::new(
                standing.tombstone.as_ref().map(buried).unwrap_or_default(),
                Tint::Bad,
            ),
            Cell::new(split(standing), Tint::Bad),
            Cell::new(stale(standing).map(old).unwrap_or_default(), Tint::Warn),
            Cell::new(
                drifted(standing).map(mended).unwrap_or_default(),
                Tint::Warn,
            ),
            Cell::new(repository(standing).unwrap_or_default(), Tint::Warn),
            Cell::new(trouble(standing).unwrap_or_default(), Tint::Bad),
        ]);
    }

    table
}

/// Formats "split: another www@2 on web3".
fn split(standing: &Standing) -> String {
    let running = standing.status.as_ref().and_then(|status| status.running);
    match standing.split.is_empty() {
        true => String::new(),
        false => {
            let release = words::release(&standing.tree, running);
            format!(
                "split: another {release} on {}",
                words::hosts(&standing.split)
            )
        }
    }
}

/// Formats "idle", "staging www@13 from ci", "no answer".
fn doing(standing: &Standing) -> String {
    match standing.status.as_ref().map(|status| &status.work) {
        None => "no answer".to_string(),
        Some(None) => "idle".to_string(),
        Some(Some(work)) => {
            let release = words::release(&standing.tree, Some(work.serial));
            let fetch = work.fetch.map(words::fetch_progress);
            let fetch = fetch.map(|fetch| format!(": {fetch}")).unwrap_or_default();
            format!(
                "{} {release} from {}{fetch}",
                words::safe(&work.word),
                work.sender
            )
        }
    }
}

/// Formats "www@14 staged 5 min ago, expires in 2 d".
fn staged(standing: &Standing) -> Option<String> {
    let staged = standing.status.as_ref()?.staged.as_ref()?;
    let release = words::release(&standing.tree, Some(staged.serial));
    let left = staged
        .left
        .map(|left| format!(", expires in {}", words::age(left)));
    Some(format!(
        "{release} staged {} ago{}",
        words::age(staged.age),
        left.unwrap_or_default()
    ))
}

/// Formats "held by ops for 3 h: database move".
fn held(standing: &Standing) -> Option<String> {
    let held = standing.status.as_ref()?.held.as_ref()?;
    Some(words::safe(&format!(
        "held by {} for {}: {}",
        held.by,
        words::age(held.left),
        held.why
    )))
}

fn stale(standing: &Standing) -> Option<Stale> {
    standing.status.as_ref()?.stale
}

/// Formats "old: made 40 d ago, max_age is 30 d".
fn old(Stale { age, max_age }: Stale) -> String {
    format!(
        "old: made {} ago, max_age is {}",
        words::age(age),
        shown_duration(Duration::from_secs(max_age))
    )
}

fn drifted(standing: &Standing) -> Option<Drifted> {
    standing.status.as_ref()?.drifted
}

/// Formats "drifted 3 times, repaired 2: 4 paths are not as its release says".
fn mended(
    Drifted {
        drifted,
        repaired,
        paths,
        ..
    }: Drifted,
) -> String {
    let now = match paths.unwrap_or_default() {
        0 => String::new(),
        1 => ": 1 path is not as its release says".to_string(),
        paths => format!(
            ": {} are not as its release says",
            words::plural_count(paths, "path", "paths")
        ),
    };

    match drifted.max(repaired) {
        0 => String::new(),
        times => format!(
            "drifted {}, repaired {repaired}{now}",
            words::plural_count(times, "time", "times")
        ),
    }
}

/// Formats "repository, for 2 h: the head is stale since 2026-11-28 09:00 UTC".
fn repository(standing: &Standing) -> Option<String> {
    let trouble = standing.status.as_ref()?.repository.as_ref()?;
    let text = words::safe(&trouble.text);
    Some(format!(
        "repository, for {}: {text}",
        words::age(trouble.age)
    ))
}

/// Formats "www@13 5 min ago: no space left", with the first line of the error.
fn trouble(standing: &Standing) -> Option<String> {
    let trouble = standing.status.as_ref()?.trouble.as_ref()?;
    let release = words::release(&standing.tree, Some(trouble.serial));
    let mut lines = trouble.text.lines();
    let first = words::safe(lines.next().unwrap_or_default());
    let more = if lines.next().is_some() { " ..." } else { "" };

    Some(format!(
        "{release} {} ago: {first}{more}",
        words::age(trouble.age)
    ))
}

/// Formats the number of hosts, and of hosts that need attention.
pub(in crate::report) fn summary(standings: &[Standing]) -> String {
    let all = words::count(count(standings, |_| true) as u64, "host");
    let behind = match count(standings, Standing::is_behind) {
        0 => "none behind".to_string(),
        n => format!("{n} behind"),
    };

    let silent = match count(standings, |s| s.status.is_none()) {
        0 => String::new(),
        n => format!(", {n} without an answer"),
    };

    let old = match count(standings, |s| stale(s).is_some()) {
        0 => String::new(),
        n => format!(", {n} with an old release"),
    };

    let failed = match count(standings, Standing::has_failed) {
        0 => String::new(),
        n => format!(", {n} failed"),
    };

    let buried = match count(standings, |s| s.tombstone.is_some()) {
        0 => String::new(),
        n => format!(", {n} with a release that was taken back or stopped"),
    };

    let split = match count(standings, |s| !s.split.is_empty()) {
        0 => String::new(),
        n => format!(", {n} split by two releases of one number"),
    };

    let staged = match count(standings, |s| staged(s).is_some()) {
        0 => String::new(),
        n => format!(", {n} with a staged release"),
    };

    let held = match count(standings, |s| held(s).is_some()) {
        0 => String::new(),
        n => format!(", {n} held"),
    };

    format!("{all}, {behind}{failed}{buried}{split}{old}{staged}{held}{silent}")
}

/// Counts hosts; two hosts of the same name are two.
fn count(standings: &[Standing], of: impl Fn(&Standing) -> bool) -> usize {
    let of = standings.iter().filter(|s| of(s));
    of.map(|s| (s.host.as_str(), s.address))
        .collect::<BTreeSet<_>>()
        .len()
}

fn hosts(standings: &[Standing], of: impl Fn(&Standing) -> bool) -> BTreeSet<String> {
    standings
        .iter()
        .filter(|s| of(s))
        .map(|s| s.named.to_string())
        .collect()
}

fn hosts_behind(standings: &[Standing]) -> BTreeSet<String> {
    hosts(standings, Standing::is_behind)
}

fn hosts_with_old(standings: &[Standing]) -> BTreeSet<String> {
    hosts(standings, |s| stale(s).is_some())
}

/// Standing of a host, for scripts.
///
/// The order of the fields is part of the format, so the struct stays flat.
#[derive(Serialize)]
pub(in crate::report) struct StandingLine<'a> {
    event: &'static str,
    host: &'a str,
    address: String,
    tree: &'a str,
    serial: Option<u64>,
    state: &'a str,
    at_work: Option<AtWork<'a>>,
    behind: bool,
    newest: Option<u64>,
    taken_back: bool,
    stopped: bool,
    split: bool,
    stranded: bool,
    lacks: Option<u64>,
    lacks_parts: Vec<u64>,
    stale: Option<Old>,
    drift: Option<DriftChecks>,
    error: Option<&'a str>,
    error_serial: Option<u64>,
    error_age: Option<u64>,
    repository_error: Option<&'a str>,
    repository_error_age: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Labels::is_empty")]
    labels: &'a Labels,
    staged: Option<StagedLine>,
    held: Option<HeldLine<'a>>,
}

/// Hold of the tree, with the seconds left.
#[derive(Serialize)]
struct HeldLine<'a> {
    by: &'a str,
    why: &'a str,
    left: u64,
}

/// Release that the host keeps staged; times in seconds.
#[derive(Serialize)]
struct StagedLine {
    serial: u64,
    age: u64,
    expires_in: Option<u64>,
}

#[derive(Serialize)]
struct AtWork<'a> {
    serial: u64,
    sender: &'a str,
    bytes_fetch: Option<u64>,
    bytes_left: Option<u64>,
}

/// Drift checks of the host since its start.
#[derive(Serialize)]
struct DriftChecks {
    looks: u64,
    drifted: u64,
    repaired: u64,
    paths: u64,
}

/// Ages in seconds.
#[derive(Serialize)]
struct Old {
    age: u64,
    max_age: u64,
}

impl<'a> StandingLine<'a> {
    pub(in crate::report) fn new(standing: &'a Standing) -> Self {
        let status = standing.status.as_ref();
        let work = status.and_then(|t| t.work.as_ref());
        let trouble = status.and_then(|t| t.trouble.as_ref());
        let repository = status.and_then(|t| t.repository.as_ref());

        Self {
            event: "host",
            host: standing.host.as_str(),
            address: standing.address.to_string(),
            tree: standing.tree.as_str(),
            serial: status.and_then(|t| t.running).map(|s| s.0),
            state: work.map_or(if status.is_some() { "idle" } else { "silent" }, |w| {
                &w.word
            }),
            at_work: work.map(|w| AtWork {
                serial: w.serial.0,
                sender: w.sender.as_str(),
                bytes_fetch: w.fetch.map(|fetch| fetch.total),
                bytes_left: w.fetch.map(|fetch| fetch.left),
            }),
            behind: standing.behind.is_some(),
            newest: standing.behind.map(|s| s.0),
            taken_back: standing.tombstone.is_some_and(|stone| stone.revert),
            stopped: standing.tombstone.is_some_and(|stone| !stone.revert),
            split: !standing.split.is_empty(),
            stranded: standing.stranded,
            lacks: standing.lacks.map(|s| s.0),
            lacks_parts: standing.lacks_parts.iter().map(|s| s.0).collect(),
            stale: stale(standing).map(|Stale { age, max_age }| Old { age, max_age }),
            drift: drifted(standing).map(|status| DriftChecks {
                looks: status.looks,
                drifted: status.drifted,
                repaired: status.repaired,
                paths: status.paths.unwrap_or_default(),
            }),
            error: trouble.map(|t| t.text.as_str()),
            error_serial: trouble.map(|t| t.serial.0),
            error_age: trouble.map(|t| t.age),
            repository_error: repository.map(|t| t.text.as_str()),
            repository_error_age: repository.map(|t| t.age),
            message: status.and_then(|t| Some(t.message.as_ref()?.to_string())),
            labels: &standing.labels,
            staged: status
                .and_then(|t| t.staged.as_ref())
                .map(|staged| StagedLine {
                    serial: staged.serial.0,
                    age: staged.age,
                    expires_in: staged.left,
                }),
            held: status.and_then(|t| t.held.as_ref()).map(|held| HeldLine {
                by: &held.by,
                why: &held.why,
                left: held.left,
            }),
        }
    }
}

/// Fields of a status's result.
#[derive(Serialize)]
pub(in crate::report) struct StatusResult {
    hosts: usize,
    behind: BTreeSet<String>,
    stale: BTreeSet<String>,
    silent: BTreeSet<String>,
    failed: BTreeSet<String>,
    drifted: BTreeSet<String>,
    strangers: usize,
}

impl StatusResult {
    pub(in crate::report) fn new(survey: &Survey<Vec<Standing>>) -> Self {
        let standings = &survey.found;
        Self {
            hosts: count(standings, |_| true),
            behind: hosts_behind(standings),
            stale: hosts_with_old(standings),
            silent: hosts(standings, |s| s.status.is_none()),
            failed: hosts(standings, Standing::has_failed),
            drifted: hosts(standings, Standing::has_drift),
            strangers: survey.strangers.len(),
        }
    }
}
