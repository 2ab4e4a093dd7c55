//! Wording of a session's outcome for people: rows of hosts, summaries and failures.

use std::collections::HashMap;

use super::paint::{Painter, Tint};
use super::table::Cell;
use super::words;
use crate::id::NamedHost;
use crate::outcome::{
    BatchResult, DriftKind, DriftLine, ExitStatus, HostResult, HostState, Outcome, Purpose,
};
use crate::units::{ByteSize, printable};

pub(super) fn tint_of(state: HostState) -> Tint {
    match state {
        HostState::Committed | HostState::Unchanged => Tint::Good,
        HostState::Absent | HostState::Aborted | HostState::Reverted => Tint::Warn,
        HostState::Refused | HostState::Failed | HostState::Unhealthy | HostState::Stuck => {
            Tint::Bad
        }
        HostState::Torn | HostState::Unknown => Tint::Bad,
        HostState::Joined | HostState::Diffed | HostState::Staging => Tint::Plain,
        HostState::Ready | HostState::Prepared | HostState::Checking => Tint::Plain,
        HostState::Staged => Tint::Note,
    }
}

/// Hosts of one row: those without work of their own to show, and with the same result.
pub(super) fn host_rows(outcome: &Outcome) -> Vec<(&HostResult, Vec<NamedHost>)> {
    let mut rows: Vec<(&HostResult, Vec<NamedHost>)> = Vec::new();
    let mut at = HashMap::new();

    for host in &outcome.hosts {
        let same = (host.state, host.serial, host.error.as_deref());
        let row = match at.get(&same) {
            Some(&row) if !has_worked(host) => row,
            _ => {
                at.insert(same, rows.len());
                rows.push((host, Vec::new()));
                rows.len() - 1
            }
        };
        rows[row].1.push(host.named());
    }

    rows
}

/// Returns true if the deploy wrote to the tree of the host.
fn has_worked(host: &HostResult) -> bool {
    host.state.has_release() && host.state != HostState::Unchanged
}

/// Builds a row: hosts, state, release, written, deleted, received, time, reason.
pub(super) fn host_row(outcome: &Outcome, host: &HostResult, hosts: &[NamedHost]) -> Vec<Cell> {
    let when_worked = |text: String| {
        Cell::from(if has_worked(host) {
            text
        } else {
            String::new()
        })
    };

    vec![
        words::hosts(hosts).into(),
        Cell::new(host.state.word(), tint_of(host.state)),
        host.serial
            .map(|serial| words::release(&outcome.tree, Some(serial)))
            .unwrap_or_default()
            .into(),
        when_worked(format!("{} written", host.files_written)),
        when_worked(format!("{} deleted", host.files_deleted)),
        when_worked(host.bytes_received.to_string()),
        when_worked(words::seconds(host.took)),
        // The output of a command follows below.
        Cell::new(
            words::safe(
                host.error
                    .as_deref()
                    .and_then(|e| e.lines().next())
                    .unwrap_or_default(),
            ),
            tint_of(host.state),
        ),
    ]
}

/// ` >f.st...... content css/site.css`
pub(super) fn drift_line(line: &DriftLine, painter: Painter) -> String {
    path_line(line, line.what.word(), painter)
}

/// A difference of a release from an earlier one, in its own words.
pub(super) fn change_line(line: &DriftLine, painter: Painter) -> String {
    let word = match line.what {
        DriftKind::Missing => "new",
        DriftKind::Extra => "deleted",
        other => other.word(),
    };
    path_line(line, word, painter)
}

fn path_line(line: &DriftLine, word: &str, painter: Painter) -> String {
    let tint = match line.what {
        DriftKind::Missing => Tint::Good,
        DriftKind::Extra => Tint::Bad,
        _ => Tint::Warn,
    };

    let word = painter.paint(tint, &format!("{word:<7}"));
    format!(
        "  {:<11}  {word}  {}",
        words::safe(&line.itemized),
        printable(&line.path)
    )
}

pub(super) fn deploy_summary(o: &Outcome) -> String {
    let have = o.hosts.iter().filter(|h| h.state.has_release()).count();
    let rate = o.rate.map(|r| format!(" at {r}")).unwrap_or_default();
    let unknown = match o
        .hosts
        .iter()
        .filter(|h| h.state == HostState::Unknown)
        .count()
    {
        0 => String::new(),
        n => format!(", {n} unknown"),
    };

    format!(
        "{}: {have} of {}{unknown}; {} written, {} deleted; \
         sent {} for a release of {}{rate} in {}; {} repaired",
        words::rollback(&o.tree, o.serial, o.rollback_to),
        words::count(o.hosts.len() as u64, "host"),
        words::count(o.files_written, "file"),
        o.files_deleted,
        o.bytes_sent,
        o.bytes_release,
        words::seconds(o.took),
        words::plural_count(o.repaired, "loss", "losses"),
    )
}

/// Formats "batch 1 of 3 has it, web2-web5 wait: `makuo promote www@2 --batch 2` commits the next
/// one".
pub(super) fn batch_summary(o: &Outcome) -> Option<String> {
    let batch = o.batch.as_ref().filter(|batch| batch.is_paused)?;
    let waiting = o.hosts.iter().filter(|h| h.state == HostState::Staged);
    let waiting: Vec<NamedHost> = waiting.map(HostResult::named).collect();
    let wait = if waiting.len() == 1 { "waits" } else { "wait" };
    Some(format!(
        "batch {} of {} has it, {} {wait}: `{}` commits the next one",
        batch.number,
        batch.of,
        words::hosts(&waiting),
        promote_command(o, batch)
    ))
}

/// The command that commits the batch after this one, and no other.
pub(super) fn promote_command(o: &Outcome, batch: &BatchResult) -> String {
    let release = words::release(&o.tree, o.serial);
    format!("makuo promote {release} --batch {}", batch.number + 1)
}

/// Summary of a session that stages a release, or aborts a staged one.
pub(super) fn staged_summary(o: &Outcome) -> String {
    let is_reached = |h: &&HostResult| o.is_reached(h.state);
    let done = o.hosts.iter().filter(is_reached).count();
    let release = words::release(&o.tree, o.serial);
    let hosts = words::count(o.hosts.len() as u64, "host");
    let took = words::seconds(o.took);
    match o.purpose {
        Purpose::Abort => format!("{release}: aborted on {done} of {hosts} in {took}"),
        _ => format!(
            "{release}: staged on {done} of {hosts}, and not committed; sent {} for a release of \
             {} in {took}",
            o.bytes_sent, o.bytes_release
        ),
    }
}

pub(super) fn audit_summary(o: &Outcome) -> String {
    let differ = o.drift.iter().filter(|g| !g.is_empty());
    let differ: u64 = differ.map(|g| g.hosts.len() as u64).sum();
    let hosts = words::count(o.hosts.len() as u64, "host");
    let size = ByteSize(o.bytes_release.0);
    match o.purpose {
        Purpose::DryRun => {
            format!(
                "{}: {differ} of {hosts} would change; release of {size}; nothing was changed",
                o.tree
            )
        }
        _ => format!("{}: {differ} of {hosts} differ; source of {size}", o.tree),
    }
}

/// Returns the hosts that answered an audit and are in no group.
pub(super) fn without_drift(o: &Outcome) -> Vec<NamedHost> {
    let drifts = |host: &NamedHost| {
        let mut groups = o.drift.iter().filter(|g| !g.is_empty());
        groups.any(|g| g.hosts.contains(host))
    };
    o.hosts
        .iter()
        .filter(|h| !h.state.is_trouble())
        .map(HostResult::named)
        .filter(|h| !drifts(h))
        .collect()
}

pub(super) fn trouble_text(o: &Outcome) -> String {
    let release = words::release(&o.tree, o.serial);
    let good = |h: &&HostResult| o.is_reached(h.state);

    let done: Vec<NamedHost> = o.hosts.iter().filter(good).map(HostResult::named).collect();
    let mut lines = vec![match (o.exit, o.purpose) {
        (ExitStatus::Mixed, Purpose::Deploy) => mixed_text(o, &release),
        (ExitStatus::Mixed, Purpose::Stage) => {
            format!("mixed: some hosts keep {release} staged, others do not")
        }
        (ExitStatus::Mixed, Purpose::Abort) => {
            format!("mixed: {release} is aborted on some hosts, and not known to be on others")
        }
        (ExitStatus::Mixed, _) => "mixed: some hosts answered, others did not".to_string(),
        // The reason includes the number of answers.
        (_, Purpose::Stage) if !o.hosts.is_empty() => {
            format!("{release} was not staged: no host changed")
        }
        (_, Purpose::Abort) if !o.hosts.is_empty() => format!("{release} was not aborted"),
        (_, Purpose::Deploy | Purpose::Stage | Purpose::Abort) if o.hosts.is_empty() => {
            format!("{} was offered to no host", o.tree)
        }
        (_, Purpose::Deploy) if o.hosts.iter().any(|h| h.state == HostState::Reverted) => {
            format!("{release} was taken back: no host has it")
        }
        (_, Purpose::Deploy) => format!("{release} was not deployed: no host changed"),
        _ => format!("no host could be compared with {}", o.tree),
    }];

    if let Some(error) = o.error.as_deref().and_then(|e| e.lines().next()) {
        lines[0] = format!("{} ({error})", lines[0]);
    }

    if let (Some(key), true) = (
        &o.fingerprint,
        o.hosts.iter().any(|h| h.state == HostState::Refused),
    ) {
        lines.push(format!("  signed by {key}"));
    }

    if !done.is_empty() {
        lines.push(format!(
            "  {}: {}",
            match o.purpose {
                Purpose::Deploy => "have it",
                Purpose::Stage => "keep it staged",
                Purpose::Abort => "aborted it",
                Purpose::DryRun | Purpose::Diff => "answered",
            },
            words::hosts(&done)
        ));
    }

    for (host, hosts) in host_rows(o).iter().filter(|(host, _)| !good(host)) {
        let why = host
            .error
            .as_deref()
            .map(|e| format!(": {}", words::quoted(e)))
            .unwrap_or_default();
        lines.push(format!(
            "  {} {}{why}",
            words::hosts(hosts),
            host.state.word()
        ));
    }

    if let Some((url, why)) = unpublished(o).filter(|_| !is_only_unpublished(o)) {
        lines.push(format!("  not published to {url}: {}", words::quoted(why)));
    }

    lines.join("\n")
}

/// URL of the repository that lacks the release, and the reason.
fn unpublished(o: &Outcome) -> Option<(&str, &str)> {
    let repository = o.repository.as_ref()?;
    Some((&repository.url, repository.error.as_deref()?))
}

/// Returns whether every host is well, and only the repository lacks the release.
fn is_only_unpublished(o: &Outcome) -> bool {
    let is_well = o.hosts.iter().all(|h| h.state.is_well());
    is_well && o.error.is_none() && unpublished(o).is_some()
}

/// Describes the hosts' releases after a deploy that failed somewhere.
fn mixed_text(o: &Outcome, release: &str) -> String {
    let count = |of: fn(HostState) -> bool| o.hosts.iter().filter(|h| of(h.state)).count();
    let has = count(HostState::has_release);
    let torn = count(|s| s == HostState::Torn);
    let unknown = count(|s| s == HostState::Unknown);
    let before = count(HostState::is_as_before);
    let hosts = |n: usize| words::count(n as u64, "host");

    if let Some((url, why)) = unpublished(o).filter(|_| is_only_unpublished(o)) {
        return format!(
            "every host has {release}, and it is not published to {url}: {}",
            words::quoted(why)
        );
    }

    match (has, before, torn, unknown) {
        (_, 0, 0, 0) if o.hosts.iter().all(|h| h.state.is_well()) => {
            format!("every host has {release}")
        }
        (_, 0, 0, 0) => format!("every host has {release}, and not every host is well"),
        (_, _, 0, 0) => format!("mixed: some hosts have {release}, others do not"),
        (0, _, 0, _) => format!(
            "it is not known whether {} changed: none is known to have {release}",
            hosts(unknown)
        ),
        _ => {
            let parts = [
                (has, format!("{} with {release}", hosts(has))),
                (before, format!("{} without", hosts(before))),
                (torn, format!("{} part new, part old", hosts(torn))),
                (unknown, format!("{} unknown", hosts(unknown))),
            ];
            let said: Vec<String> = parts
                .into_iter()
                .filter(|(n, _)| *n > 0)
                .map(|(_, text)| text)
                .collect();
            format!("mixed: {}", said.join(", "))
        }
    }
}
