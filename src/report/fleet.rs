//! Output of `makuo log` and `makuo status`: rows and notes for people, lines for scripts.
//!
//! Pure; knows neither stream nor colour.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;

use super::paint::Tint;
use super::table::{Align, Cell, TextTable};
use super::words;
use crate::id::NamedHost;
use crate::keys::shown_time;
use crate::outcome::{LogRelease, ReleaseLog, Standing};
use crate::units::shown_duration;
use crate::wire::message::Tombstone;
use crate::wire::query::{Drifted, Stale};

/// Characters of a fingerprint that distinguish keys.
const SHORT_KEY: usize = "SHA256:".len() + 10;

/// Formats one row for each release, the newest first, with a mark on running releases.
pub(super) fn releases(log: &ReleaseLog) -> TextTable {
    let mut table = TextTable::new(&[
        Align::Left,
        Align::Left,
        Align::Left,
        Align::Left,
        Align::Right,
        Align::Right,
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
            .map(|hosts| format!("kept by {hosts}"))
            .unwrap_or_default()
            .into(),
    ]
}

/// Formats host names: "web1, web2", or "all 5".
fn some(log: &ReleaseLog, hosts: &[NamedHost]) -> Option<String> {
    match hosts.len() {
        0 => None,
        1 => Some(words::list(hosts)),
        n if n == log.hosts.len() => Some(format!("all {n}")),
        _ => Some(words::list(hosts)),
    }
}

/// Formats notes beyond the rows, and totals.
pub(super) fn log_notes(log: &ReleaseLog) -> Vec<String> {
    let mut notes = Vec::new();
    let without = log.without();
    if !without.is_empty() {
        notes.push(format!("without a release: {}", words::list(&without)));
    }

    if !log.silent.is_empty() {
        notes.push(format!("did not answer: {}", words::list(&log.silent)));
    }

    let releases = words::count(log.releases.len() as u64, "release");
    notes.push(format!(
        "{}: {releases} on {}",
        log.tree,
        words::count(log.hosts.len() as u64, "host")
    ));

    notes
}

/// Formats one row for each host and tree.
pub(super) fn standings(standings: &[Standing]) -> TextTable {
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
            Cell::new(missed(standing).unwrap_or_default(), Tint::Warn),
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
            Cell::new(trouble(standing).unwrap_or_default(), Tint::Bad),
        ]);
    }

    table
}

/// Describes the tombstone of a running release.
fn buried(stone: &Tombstone) -> &'static str {
    if stone.revert {
        "was taken back"
    } else {
        "was stopped"
    }
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
                words::list(&standing.split)
            )
        }
    }
}

/// Formats "behind: newest is www@13", or the missing rest under a partial release.
fn missed(standing: &Standing) -> Option<String> {
    let release = |serial| words::release(&standing.tree, Some(serial));
    if let Some(whole) = standing.lacks {
        return Some(format!(
            "lacks {}, which its release is a part of: deploy the whole tree",
            release(whole)
        ));
    }

    if !standing.lacks_parts.is_empty() {
        let parts: Vec<String> = standing
            .lacks_parts
            .iter()
            .map(|&serial| release(serial))
            .collect();
        return Some(format!(
            "lacks {}, sent to others before: send it again, or deploy the whole tree",
            parts.join(", ")
        ));
    }

    let newest = release(standing.behind?);
    Some(match standing.stranded {
        true => format!(
            "behind: newest is {newest}, a part, and no host keeps the whole tree: deploy it"
        ),
        false => format!("behind: newest is {newest}"),
    })
}

/// Formats "idle", "staging www@13 from ci", "no answer".
fn doing(standing: &Standing) -> String {
    match standing.status.as_ref().map(|status| &status.work) {
        None => "no answer".to_string(),
        Some(None) => "idle".to_string(),
        Some(Some(work)) => {
            let release = words::release(&standing.tree, Some(work.serial));
            format!("{} {release} from {}", words::safe(&work.word), work.sender)
        }
    }
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
pub(super) fn summary(standings: &[Standing]) -> String {
    let all = words::count(count(standings, |_| true) as u64, "host");
    let behind = match count(standings, is_behind) {
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

    let buried = match count(standings, |s| s.tombstone.is_some()) {
        0 => String::new(),
        n => format!(", {n} with a release that was taken back or stopped"),
    };

    let split = match count(standings, |s| !s.split.is_empty()) {
        0 => String::new(),
        n => format!(", {n} split by two releases of one number"),
    };

    format!("{all}, {behind}{buried}{split}{old}{silent}")
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
    hosts(standings, is_behind)
}

fn hosts_with_old(standings: &[Standing]) -> BTreeSet<String> {
    hosts(standings, |s| stale(s).is_some())
}

/// Returns true if a release, or a part of one, is missing.
fn is_behind(standing: &Standing) -> bool {
    standing.behind.is_some() || standing.lacks.is_some() || !standing.lacks_parts.is_empty()
}

fn names(hosts: &[NamedHost]) -> Vec<String> {
    hosts.iter().map(ToString::to_string).collect()
}

/// A release of a log, for scripts.
#[derive(Serialize)]
pub(super) struct ReleaseLine<'a> {
    event: &'static str,
    tree: &'a str,
    serial: u64,
    release: String,
    created: i64,
    key: Option<&'a str>,
    entries: u64,
    bytes: u64,
    part: bool,
    running: Vec<String>,
    kept: Vec<String>,
    taken_back: bool,
    stopped: bool,
    split: bool,
}

impl<'a> ReleaseLine<'a> {
    pub(super) fn new(log: &'a ReleaseLog, release: &'a LogRelease) -> Self {
        Self {
            event: "release",
            tree: log.tree.as_str(),
            serial: release.serial.0,
            release: release.id.to_string(),
            created: release.created.0,
            key: release.key.as_deref(),
            entries: release.entries,
            bytes: release.bytes.0,
            part: release.part,
            running: names(&release.running),
            kept: names(&release.kept),
            taken_back: release.tombstone.is_some_and(|stone| stone.revert),
            stopped: release.tombstone.is_some_and(|stone| !stone.revert),
            split: log.is_split(release),
        }
    }
}

/// Fields of a log's result.
#[derive(Serialize)]
pub(super) struct LogResult<'a> {
    tree: &'a str,
    serial: Option<u64>,
    releases: usize,
    hosts: Vec<String>,
    without: Vec<String>,
    silent: Vec<String>,
}

impl<'a> LogResult<'a> {
    pub(super) fn new(log: &'a ReleaseLog) -> Self {
        Self {
            tree: log.tree.as_str(),
            serial: log.newest().map(|s| s.0),
            releases: log.releases.len(),
            hosts: names(&log.hosts),
            without: log.without().into_iter().map(ToString::to_string).collect(),
            silent: names(&log.silent),
        }
    }
}

/// Standing of a host, for scripts.
#[derive(Serialize)]
pub(super) struct StandingLine<'a> {
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
}

#[derive(Serialize)]
struct AtWork<'a> {
    serial: u64,
    sender: &'a str,
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
    pub(super) fn new(standing: &'a Standing) -> Self {
        let status = standing.status.as_ref();
        let work = status.and_then(|t| t.work.as_ref());
        let trouble = status.and_then(|t| t.trouble.as_ref());

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
        }
    }
}

/// Fields of a status's result.
#[derive(Serialize)]
pub(super) struct StatusResult {
    hosts: usize,
    behind: BTreeSet<String>,
    stale: BTreeSet<String>,
    silent: BTreeSet<String>,
}

impl StatusResult {
    pub(super) fn new(standings: &[Standing]) -> Self {
        Self {
            hosts: count(standings, |_| true),
            behind: hosts_behind(standings),
            stale: hosts_with_old(standings),
            silent: hosts(standings, |s| s.status.is_none()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::paint::Painter;
    use super::super::sample::{SharedBuffer, host};
    use super::super::{Human, Json, Verbosity};
    use super::*;
    use crate::block::BlockHash;
    use crate::id::{Serial, TreeName};
    use crate::manifest::ReleaseId;
    use crate::outcome::TreeStatus;
    use crate::units::{ByteSize, WallTime};
    use crate::wire::query::{TreeActivity, Trouble};

    fn tree() -> TreeName {
        TreeName::new("www").expect("legal")
    }

    fn log() -> ReleaseLog {
        let some = |names: &[&str]| {
            names
                .iter()
                .map(|n| host(n).into())
                .collect::<Vec<NamedHost>>()
        };

        let release = |serial: u64, running: &[&str], kept: &[&str]| LogRelease {
            serial: Serial(serial),
            id: ReleaseId(BlockHash::of(&serial.to_be_bytes())),
            tombstone: None,
            created: WallTime(1_801_418_400 + serial as i64 * 60),
            key: (serial != 15)
                .then(|| "SHA256:nThbg6kXUpJWGl7E1IGOCspRomTxdCARLviKw6E5SY8".to_string()),
            entries: serial * 100,
            bytes: ByteSize(serial * 2_000_000),
            content: BlockHash::of(&serial.to_be_bytes()),
            part: serial == 15,
            shown: Vec::new(),
            buried: Vec::new(),
            running: some(running),
            kept: some(kept),
        };

        let all = ["web1", "web2", "web3"];
        let releases = vec![
            release(17, &["web1", "web2"], &all[..2]),
            release(16, &["web3"], &all),
            release(15, &[], &["web2"]),
        ];

        ReleaseLog {
            tree: tree(),
            hosts: some(&all),
            silent: some(&["web9"]),
            unshown: Vec::new(),
            releases,
        }
    }

    fn fleet() -> Vec<Standing> {
        let standing = |name: &str, status: Option<TreeStatus>, behind: Option<u64>| Standing {
            host: host(name),
            named: host(name).into(),
            address: "10.0.0.2:5000".parse().expect("legal"),
            tree: tree(),
            status,
            behind: behind.map(Serial),
            tombstone: None,
            split: Vec::new(),
            stranded: false,
            lacks: None,
            lacks_parts: Vec::new(),
        };

        let status = |running: u64| TreeStatus {
            running: Some(Serial(running)),
            work: None,
            trouble: None,
            stale: None,
            drifted: None,
            sent: None,
        };

        let work = TreeActivity {
            word: "staging".into(),
            serial: Serial(18),
            sender: host("ci"),
        };

        let text = "health check curl failed: exit status 22\n  refused".to_string();
        let stale = Stale {
            age: 40 * 86_400 + 7,
            max_age: 30 * 86_400,
        };

        let trouble = Trouble {
            serial: Serial(17),
            age: 310,
            text,
        };

        vec![
            standing("web1", Some(status(17)), None),
            standing(
                "web2",
                Some(TreeStatus {
                    work: Some(work),
                    stale: Some(stale),
                    ..status(17)
                }),
                None,
            ),
            standing(
                "web3",
                Some(TreeStatus {
                    trouble: Some(trouble),
                    ..status(16)
                }),
                Some(17),
            ),
            standing(
                "web4",
                Some(TreeStatus {
                    running: None,
                    ..status(0)
                }),
                Some(17),
            ),
            standing("web5", None, None),
        ]
    }

    fn human(tell: impl FnOnce(&mut Human)) -> String {
        let out = SharedBuffer::default();
        let talk = SharedBuffer::default();
        tell(&mut Human::to(
            Box::new(out.clone()),
            Box::new(talk.clone()),
            Painter::PLAIN,
            Verbosity::Normal,
        ));
        format!("{}--- stderr\n{}", out.text(), talk.text())
    }

    fn json(tell: impl FnOnce(&mut Json)) -> String {
        let out = SharedBuffer::default();
        tell(&mut Json::to(Box::new(out.clone())));
        out.text()
    }

    #[test]
    fn a_log() {
        insta::assert_snapshot!(human(|h| h.log(&log())));
    }

    #[test]
    fn a_log_for_scripts() {
        insta::assert_snapshot!(json(|j| j.log(&log())));
    }

    #[test]
    fn a_status() {
        insta::assert_snapshot!(human(|h| h.status(&fleet())));
        assert_eq!(summary(&fleet()[..1]), "1 host, none behind");
    }

    #[test]
    fn a_status_for_scripts() {
        insta::assert_snapshot!(json(|j| j.status(&fleet())));
    }

    #[test]
    fn all_hosts_are_told_by_their_number() {
        let mut log = log();
        log.releases[0].running.push(host("web3").into());
        let table = releases(&log).lines(Painter::PLAIN);
        assert!(table[0].contains("runs on all 3 "), "{table:?}");
    }

    #[test]
    fn hosts_of_one_name_have_their_addresses_everywhere() {
        let one = NamedHost {
            name: host("web3"),
            address: Some([10, 0, 0, 4].into()),
        };

        let mut log = log();
        log.releases[1].running = vec![one.clone()];
        log.silent = vec![one.clone()];
        let shown = human(|h| h.log(&log));

        assert!(
            shown.contains("runs on web3 (10.0.0.4)")
                && shown.contains("did not answer: web3 (10.0.0.4)"),
            "{shown}"
        );

        assert!(json(|j| j.log(&log)).contains(r#""running":["web3 (10.0.0.4)"]"#));
        let mut fleet = fleet();
        fleet[2].named = one.clone();
        fleet[0].split = vec![one];
        let shown = human(|h| h.status(&fleet));

        assert!(
            shown.contains("split: another www@17 on web3 (10.0.0.4)"),
            "{shown}"
        );

        assert!(json(|j| j.status(&fleet)).contains(r#""behind":["web3 (10.0.0.4)","web4"]"#));
    }

    #[test]
    fn a_part_that_a_host_lacks_is_told() {
        let mut fleet = fleet();
        fleet[0].lacks_parts = vec![Serial(14), Serial(16)];
        let shown = human(|h| h.status(&fleet[..1]));
        assert!(
            shown.contains("lacks www@14, www@16, sent to others before")
                && shown.contains("1 behind"),
            "{shown}"
        );
        assert!(json(|j| j.status(&fleet[..1])).contains(r#""lacks_parts":[14,16]"#));
    }
}
