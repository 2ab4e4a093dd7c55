//! Formats the console's responses as lines. Pure.
//!
//! No line begins like the prompt, and msync takes none for a heartbeat.

use std::path::Path;

use super::command::Files;
use super::differences::Differences;
use crate::Error;
use crate::drive::adhoc::AdhocAction;
use crate::id::NamedHost;
use crate::outcome::{DriftGroup, HostState, MemberInfo, Outcome};
use crate::report::words::safe;
use crate::units::printable;

/// Prompt of a daemon that waits for a command.
pub const PROMPT: &[u8] = b"> ";
/// Prompt for the password.
pub const PASSWORD: &[u8] = b"password: \x1bE";
/// Heartbeat during a command.
pub const HEARTBEAT: &str = "alive";
/// Form of [`PASSWORD`] for the oldest clients.
pub const OLD_PASSWORD: &[u8] = b"password: \x1b]E";

/// Encodes a line: safe on a terminal, and distinct from prompts and heartbeats.
pub fn line(text: &str) -> Vec<u8> {
    let mut line = safe(text).replace('\n', "; ");
    if line.starts_with("> ") || line.starts_with(HEARTBEAT) {
        let first = line.remove(0);
        line.insert_str(0, &format!("\\x{:02x}", u32::from(first)));
    }
    line.push('\n');
    line.into_bytes()
}

/// Lists the other hosts.
pub fn members(members: &[MemberInfo]) -> Vec<String> {
    let address = |m: &MemberInfo| m.address.ip().to_string();
    let name_width = members
        .iter()
        .map(|m| m.host.as_str().len())
        .max()
        .unwrap_or(0);

    let address_width = members.iter().map(|m| address(m).len()).max().unwrap_or(0);
    let one = |m: &MemberInfo| {
        format!(
            "{:<name_width$} {:<address_width$} (Ver{})",
            m.host,
            address(m),
            m.version
        )
    };

    let total = format!("Total: {} members", members.len());
    members.iter().map(one).chain([total]).collect()
}

/// Data of the response to `status`.
#[derive(Debug)]
pub struct ConsoleStatus<'a> {
    /// Process number of the daemon.
    pub process: u32,
    /// Base directory.
    pub base: &'a Path,
    /// Running commands of other connections.
    pub commands: Vec<(usize, String)>,
    /// Number of the daemon's own sessions.
    pub sending: usize,
    /// Number of joined sessions of others.
    pub receiving: usize,
}

/// Formats a status.
pub fn status(status: &ConsoleStatus<'_>) -> Vec<String> {
    let mut lines = vec![
        format!("process: {}", status.process),
        format!("version: {}", env!("CARGO_PKG_VERSION")),
        format!(
            "basedir: {}/",
            printable(status.base.as_os_str().as_encoded_bytes()).trim_end_matches('/')
        ),
        format!("command: {}", status.commands.len()),
    ];

    lines.extend(
        status
            .commands
            .iter()
            .map(|(number, command)| format!("  {number}> {command}")),
    );

    lines.push(format!("send op: {}", status.sending));
    lines.push(format!("recv op: {}", status.receiving));
    lines
}

/// Formats a failure on one line.
pub fn failure(error: &Error) -> String {
    match error.hint_text() {
        Some(hint) => format!("error: {error} ({hint})"),
        None => format!("error: {error}"),
    }
}

/// Formats the outcome of a command with files, as detailed as `level` demands. `all` holds the
/// release's files, for a level that lists unchanged files as well.
pub fn outcome(files: &Files, outcome: &Outcome, all: &[Vec<u8>], level: u8) -> Vec<String> {
    let well = outcome
        .hosts
        .iter()
        .filter(|h| !is_bad(h.state))
        .map(|h| h.named());
    let well: Vec<NamedHost> = well.collect();
    let differences = Differences::of(&outcome.drift, &well);
    let mut lines = match files.deed {
        AdhocAction::Check => differences.compared(&well, all, level),
        AdhocAction::Prune => differences.pruned(files.dry_run),
        AdhocAction::Send | AdhocAction::Sync => differences.updated(files, &well, all, level),
    };

    lines.extend(cut(&outcome.drift));
    lines.extend(troubles(outcome));
    lines
}

fn is_bad(state: HostState) -> bool {
    state.is_trouble()
}

/// Lists failures with their hosts.
fn troubles(outcome: &Outcome) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for host in outcome.hosts.iter().filter(|h| is_bad(h.state)) {
        let why = host
            .error
            .as_deref()
            .map(|why| format!(": {why}"))
            .unwrap_or_default();
        lines.push(format!(
            "error: {} {}{why}",
            host.named(),
            host.state.word()
        ));
    }

    let reported = |error: &str| {
        outcome
            .hosts
            .iter()
            .any(|h| h.error.as_deref().is_some_and(|e| error.contains(e)))
    };

    if let Some(error) = outcome
        .error
        .as_deref()
        .filter(|e| lines.is_empty() || !reported(e))
    {
        let hint = outcome
            .hint
            .as_deref()
            .map(|h| format!(" ({h})"))
            .unwrap_or_default();
        lines.push(format!("error: {error}{hint}"));
    }

    if lines.is_empty() && outcome.exit.code() > 1 {
        lines.push("error: not all hosts have it".into());
    }

    lines
}

/// Notes lists that were too long to send.
fn cut(groups: &[DriftGroup]) -> Vec<String> {
    let missing = |g: &DriftGroup| g.total().saturating_sub(g.lines.len() as u64);
    // No lines: the command did not request them.
    match groups
        .iter()
        .filter(|g| !g.lines.is_empty())
        .map(missing)
        .max()
    {
        Some(more) if more > 0 => vec![format!("... and {more} more")],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
