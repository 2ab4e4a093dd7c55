//! The wording of progress, for rows of any width or one line.
//!
//! Pure. Parts that do not fit are left out, the least important first; no row is wider than asked.

use std::time::Duration;

use super::super::terminal::Size;
use super::super::words;
use crate::outcome::{HostState, PendingHost, ProgressReport, SessionPhase};

/// Most rows for hosts, on a tall terminal.
const MAX_HOST_ROWS: usize = 5;
/// Most hosts in a line.
const MAX_LINE_HOSTS: usize = 3;
/// Columns of a bar, its ends included.
const BAR_COLUMNS: std::ops::RangeInclusive<usize> = 12..=42;
/// Time without progress that is worth a word.
const WORTH_A_WORD: Duration = Duration::from_secs(3);
/// Gap between the parts of a row.
const GAP: &str = "  ";

/// Returns the rows for the progress: the phase, the tally, then the hosts furthest behind.
pub(super) fn rows(progress: &ProgressReport, size: Size) -> Vec<String> {
    let mut rows = vec![head(progress, size.columns)];
    let tail = join(&tally(progress), ", ", size.columns);
    if !tail.is_empty() && size.rows > 1 {
        rows.push(tail);
    }

    let room = (size.rows / 3).saturating_sub(rows.len());
    let room = room.min(MAX_HOST_ROWS);
    let shown = match progress.waiting {
        waiting if waiting <= room => progress.pending.len().min(room),
        _ => progress.pending.len().min(room.saturating_sub(1)),
    };
    let names = progress.pending[..shown].iter();
    let width = names.clone().map(|host| host.host.to_string().len()).max();
    rows.extend(names.map(|host| {
        let width = width.unwrap_or(0);
        let row = format!(
            "{GAP}{:width$}{GAP}{}",
            host.host.to_string(),
            activity(host)
        );
        cut(&row, size.columns)
    }));

    let more = progress.waiting.saturating_sub(shown);
    if shown > 0 && more > 0 {
        let more = words::count(more as u64, "more host");
        rows.push(cut(&format!("{GAP}and {more}"), size.columns));
    }

    rows
}

/// Returns the progress as one line.
pub(super) fn line(progress: &ProgressReport) -> String {
    let mut parts = vec![head_parts(progress).join(", ")];
    parts.extend(tally(progress));

    let shown = progress.pending.len().min(MAX_LINE_HOSTS);
    let hosts: Vec<String> = progress.pending[..shown]
        .iter()
        .map(|host| format!("{} ({})", host.host, activity(host)))
        .collect();
    if !hosts.is_empty() {
        let more = match progress.waiting.saturating_sub(shown) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        parts.push(format!("waiting for {}{more}", hosts.join(", ")));
    }

    let word = title(progress.phase);
    parts.retain(|part| !part.is_empty());
    match parts.is_empty() {
        true => word,
        false => format!("{word}: {}", parts.join("; ")),
    }
}

/// Returns `text` in at most `columns` columns.
pub(super) fn cut(text: &str, columns: usize) -> String {
    let text = text.lines().next().unwrap_or_default();
    if width(text) <= columns {
        return text.to_string();
    }

    let mut shown = String::new();
    let mut used = 1;
    for c in text.chars() {
        used += width_of(c);
        if used > columns {
            break;
        }
        shown.push(c);
    }
    shown.push('…');
    shown
}

/// Columns of `text` at most: characters beyond ASCII may take two.
pub(super) fn width(text: &str) -> usize {
    text.chars().map(width_of).sum()
}

fn width_of(c: char) -> usize {
    if c.is_ascii() || c == '…' { 1 } else { 2 }
}

/// First row: the phase, a bar, and figures.
fn head(progress: &ProgressReport, columns: usize) -> String {
    let word = title(progress.phase);
    let figures = head_parts(progress);
    let mut taken = figures.len();
    let row = |taken: usize| {
        let parts = std::iter::once(&word).chain(&figures[..taken]);
        parts.cloned().collect::<Vec<_>>().join(GAP)
    };
    while taken > 0 && width(&row(taken)) > columns {
        taken -= 1;
    }

    let row = row(taken);
    let left = columns.saturating_sub(width(&row) + GAP.len());
    if !has_bytes(progress) || left < *BAR_COLUMNS.start() || taken < figures.len() {
        return cut(&row, columns);
    }

    let bar = bar(progress, left.min(*BAR_COLUMNS.end()));
    let figures = figures[..taken].join(GAP);
    [word, bar, figures].join(GAP)
}

/// `[=====>    ]`
fn bar(progress: &ProgressReport, columns: usize) -> String {
    let inside = columns - 2;
    let done = share(progress) as usize * inside / 100;
    let head = if done < inside { ">" } else { "" };
    format!("[{:<inside$}]", "=".repeat(done) + head)
}

fn has_bytes(progress: &ProgressReport) -> bool {
    let is_sending = matches!(
        progress.phase,
        SessionPhase::Sending | SessionPhase::Publishing
    );
    is_sending && progress.total.0 > 0
}

/// Per cent done.
fn share(progress: &ProgressReport) -> u64 {
    let sent = u128::from(progress.sent.0.min(progress.total.0)) * 100;
    let share = sent.checked_div(u128::from(progress.total.0));
    share.unwrap_or(100) as u64
}

/// "committing, batch 2 of 3"
pub(super) fn title(phase: SessionPhase) -> String {
    let word = match phase {
        SessionPhase::Staging => "putting blocks together",
        SessionPhase::Checking { .. } => "checking health",
        SessionPhase::Preparing => "running commands before the commit",
        SessionPhase::Reverting => "going back",
        other => other.word(),
    };
    match phase.batch() {
        Some((batch, of)) => format!("{word}, batch {batch} of {of}"),
        None => word.to_string(),
    }
}

/// Figures of the phase, the most important first.
fn head_parts(progress: &ProgressReport) -> Vec<String> {
    if let SessionPhase::Scanning { entries, bytes } = progress.phase {
        return match entries {
            0 => Vec::new(),
            _ => vec![
                words::plural_count(entries, "entry", "entries"),
                format!("{bytes} read"),
            ],
        };
    }
    if !has_bytes(progress) {
        return Vec::new();
    }

    let mut parts = vec![format!("{} %", share(progress))];
    parts.extend(progress.measured.map(|rate| rate.to_string()));
    parts.extend(
        progress
            .left
            .map(|left| format!("{} left", words::age(left.as_secs()))),
    );
    parts.push(format!("{} of {}", progress.sent, progress.total));
    parts
}

/// How far the hosts are, the time, and losses; the most important first.
fn tally(progress: &ProgressReport) -> Vec<String> {
    let mut parts = Vec::new();
    let targets = words::count(progress.targets as u64, "host");
    match progress.phase {
        SessionPhase::Scanning { .. } | SessionPhase::Discovering | SessionPhase::Publishing => {}
        _ if progress.targets == 0 => {}
        SessionPhase::Comparing | SessionPhase::Sending | SessionPhase::Staging => {
            parts.push(format!("{} of {targets} ready", progress.ready));
        }
        _ => match progress.waiting {
            0 => {}
            waiting => parts.push(format!("waiting for {waiting} of {targets}")),
        },
    }

    if progress.elapsed >= Duration::from_secs(1) {
        parts.push(format!("after {}", words::age(progress.elapsed.as_secs())));
    }
    if progress.repaired > 0 {
        let losses = words::plural_count(progress.repaired, "loss", "losses");
        parts.push(format!("{losses} repaired"));
    }
    parts
}

/// What a host does.
fn activity(host: &PendingHost) -> String {
    let doing = match (host.state, host.percent) {
        (_, Some(percent)) if percent < 100 => format!("{percent} %"),
        (_, Some(_)) => "putting blocks together".to_string(),
        (HostState::Absent, _) => "has not answered".to_string(),
        (HostState::Joined, _) => "comparing".to_string(),
        (HostState::Checking, _) => "checking health".to_string(),
        (state, _) => state.word().to_string(),
    };

    let since = match host.state {
        _ if host.since < WORTH_A_WORD => String::new(),
        HostState::Checking => format!(", for {}", words::age(host.since.as_secs())),
        _ => format!(", no progress for {}", words::age(host.since.as_secs())),
    };

    let why = host.why.as_deref().unwrap_or_default();
    match why.lines().next() {
        Some(why) => format!("{doing}{since}: {}", words::safe(why)),
        None => format!("{doing}{since}"),
    }
}

/// Joins as many of the first `parts` as fit.
fn join(parts: &[String], gap: &str, columns: usize) -> String {
    let mut taken = parts.len();
    while taken > 1 && width(&parts[..taken].join(gap)) > columns {
        taken -= 1;
    }
    cut(&parts[..taken].join(gap), columns)
}

#[cfg(test)]
mod tests;

#[cfg(test)]
pub(super) use tests::sample;
