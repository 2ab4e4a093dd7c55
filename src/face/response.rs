//! Formats the console's responses as lines. Pure.
//!
//! No line begins like the prompt, and msync takes none for a heartbeat.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::command::Files;
use crate::Error;
use crate::drive::adhoc::AdhocAction;
use crate::id::NamedHost;
use crate::manifest::path::compare;
use crate::outcome::{DriftGroup, DriftKind, DriftLine, HostState, MemberInfo, Outcome};
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
/// Lowest log level that names each host that gets a file.
pub const UPDATES: u8 = 1;
/// Lowest log level that also names each host that already has a file.
pub const SKIPS: u8 = 2;

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

/// A path in the order of a walk.
#[derive(Debug, PartialEq, Eq)]
struct Sorted<'a>(&'a [u8]);

impl Ord for Sorted<'_> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        compare(self.0, other.0)
    }
}

impl PartialOrd for Sorted<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Differences by path, with their hosts.
struct Differences<'a> {
    changed: BTreeMap<Sorted<'a>, BTreeSet<&'a NamedHost>>,
    content: BTreeMap<Sorted<'a>, BTreeSet<&'a NamedHost>>,
    extra: BTreeMap<Sorted<'a>, BTreeSet<&'a NamedHost>>,
}

impl<'a> Differences<'a> {
    fn of(groups: &'a [DriftGroup], well: &[NamedHost]) -> Self {
        let (changed, content, extra) = Default::default();
        let mut all = Self {
            changed,
            content,
            extra,
        };

        for group in groups {
            let mut before: Option<&[u8]> = None;
            let hosts = || group.hosts.iter().filter(|h| well.contains(h));
            // From the end, so that the content of a directory comes first.
            for line in group.lines.iter().rev() {
                let holds = before.is_some_and(|b| crate::manifest::path::is_within(b, &line.path));
                before = Some(&line.path);
                match line.what {
                    DriftKind::Extra => all
                        .extra
                        .entry(Sorted(&line.path))
                        .or_default()
                        .extend(hosts()),
                    _ if is_silent(line, holds) => continue,
                    DriftKind::Missing | DriftKind::Kind | DriftKind::Content | DriftKind::Link
                        if !is_dir(line) =>
                    {
                        all.content
                            .entry(Sorted(&line.path))
                            .or_default()
                            .extend(hosts());
                        all.changed
                            .entry(Sorted(&line.path))
                            .or_default()
                            .extend(hosts());
                    }
                    _ => all
                        .changed
                        .entry(Sorted(&line.path))
                        .or_default()
                        .extend(hosts()),
                }
            }
        }

        for map in [&mut all.changed, &mut all.content, &mut all.extra] {
            map.retain(|_, hosts| !hosts.is_empty());
        }

        all
    }

    fn updated(
        &self,
        files: &Files,
        well: &[NamedHost],
        all: &[Vec<u8>],
        level: u8,
    ) -> Vec<String> {
        let dry = if files.dry_run { "(dryrun) " } else { "" };
        let mut lines = Vec::new();
        if level < UPDATES {
            if files.dry_run {
                lines.extend(
                    self.changed
                        .keys()
                        .map(|p| format!("{dry}[update:{}]", printable(p.0))),
                );
                if files.deed == AdhocAction::Sync {
                    lines.extend(
                        self.extra
                            .keys()
                            .rev()
                            .map(|p| format!("{dry}[delete:{}]", printable(p.0))),
                    );
                }
            }
            return lines;
        }

        let none = BTreeSet::new();
        let skips = all.iter().filter(|_| level >= SKIPS).map(|p| Sorted(p));
        let paths: BTreeSet<Sorted<'_>> = self
            .changed
            .keys()
            .map(|p| Sorted(p.0))
            .chain(skips)
            .collect();

        let mut hosts: Vec<&NamedHost> = well.iter().collect();
        hosts.sort_unstable();
        for path in &paths {
            let updated = self.changed.get(&Sorted(path.0)).unwrap_or(&none);
            for host in &hosts {
                match updated.contains(host) {
                    true => lines.push(format!("{dry}update {host}:{}", printable(path.0))),
                    false if level >= SKIPS => {
                        lines.push(format!("{dry}skip   {host}:{}", printable(path.0)))
                    }
                    false => {}
                }
            }
        }

        if files.deed == AdhocAction::Sync {
            lines.extend(self.pruned(files.dry_run));
        }

        lines
    }

    fn pruned(&self, dry_run: bool) -> Vec<String> {
        let dry = if dry_run { "(dryrun) " } else { "" };
        let line = |path: &Sorted<'_>, host: &NamedHost| {
            format!("{dry}delete {host}:{}", printable(path.0))
        };

        // The content of a directory goes before the directory.
        let one = |(path, hosts): (&Sorted<'a>, &BTreeSet<&'a NamedHost>)| {
            hosts
                .iter()
                .map(|host| line(path, host))
                .collect::<Vec<_>>()
        };

        self.extra.iter().rev().flat_map(one).collect()
    }

    fn compared(&self, well: &[NamedHost], all: &[Vec<u8>], level: u8) -> Vec<String> {
        let none = BTreeSet::new();
        let fine = all.iter().filter(|_| level >= UPDATES).map(|p| Sorted(p));
        let paths: BTreeSet<Sorted<'_>> = self
            .content
            .keys()
            .map(|p| Sorted(p.0))
            .chain(fine)
            .collect();

        let mut lines = Vec::new();
        for path in &paths {
            let differs = self.content.get(&Sorted(path.0)).unwrap_or(&none);
            for host in well {
                match differs.contains(host) {
                    true => lines.push(format!("{host}: NG {}", printable(path.0))),
                    false if level >= UPDATES => {
                        lines.push(format!("{host}: OK {}", printable(path.0)))
                    }
                    false => {}
                }
            }
        }

        lines
    }
}

fn is_dir(line: &DriftLine) -> bool {
    line.itemized.as_bytes().get(1) == Some(&b'd')
}

/// Returns true to omit a directory: only entries inside change, not the directory itself.
fn is_silent(line: &DriftLine, holds_another: bool) -> bool {
    is_dir(line)
        && (line.what == DriftKind::Time || line.what == DriftKind::Missing && holds_another)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{HostName, TreeName};
    use crate::outcome::{ExitStatus, HostResult, MemberTree, Purpose};

    fn name(name: &str) -> HostName {
        HostName::new(name).unwrap()
    }

    fn files(deed: AdhocAction, dry_run: bool) -> Files {
        Files {
            deed,
            dry_run,
            recurse: true,
            target: None,
            group: None,
            paths: Vec::new(),
        }
    }

    fn group(hosts: &[&str], lines: &[(&str, &str, DriftKind)]) -> DriftGroup {
        let line = |(path, itemized, what): &(&str, &str, DriftKind)| DriftLine {
            path: path.as_bytes().to_vec(),
            itemized: itemized.to_string(),
            what: *what,
        };

        DriftGroup::new(
            hosts.iter().map(|h| name(h)).collect(),
            lines.iter().map(line).collect(),
        )
    }

    fn an_outcome(drift: Vec<DriftGroup>) -> Outcome {
        let mut outcome = Outcome::new(Purpose::Deploy, TreeName::new("default").unwrap());
        outcome.hosts = ["mk2", "mk3"]
            .map(|h| HostResult::new(name(h), HostState::Committed))
            .into();
        outcome.drift = drift;
        outcome.exit = ExitStatus::Success;
        outcome
    }

    #[test]
    fn members_stand_in_columns() {
        let member = |host: &str, address: &str| MemberInfo {
            host: name(host),
            address: address.parse().unwrap(),
            version: "1.3.6".into(),
            trees: Vec::<MemberTree>::new(),
        };

        let all = [
            member("mk2", "10.0.0.2:5000"),
            member("web10", "10.0.0.13:5000"),
        ];
        assert_eq!(
            members(&all),
            [
                "mk2   10.0.0.2  (Ver1.3.6)",
                "web10 10.0.0.13 (Ver1.3.6)",
                "Total: 2 members"
            ]
        );
    }

    #[test]
    fn a_directory_is_told_for_its_own_sake_only() {
        let lines = [
            ("a", "cd+++++++++", DriftKind::Missing),
            ("a/b", "cd+++++++++", DriftKind::Missing),
            ("a/b/file", ">f+++++++++", DriftKind::Missing),
            ("empty", "cd+++++++++", DriftKind::Missing),
            ("moved", ".d..t......", DriftKind::Time),
            ("shut", ".d...p.....", DriftKind::Mode),
        ];

        let outcome = an_outcome(vec![group(&["mk2"], &lines)]);
        let reported = super::outcome(&files(AdhocAction::Send, true), &outcome, &[], 0);
        assert_eq!(
            reported,
            [
                "(dryrun) [update:a/b/file]",
                "(dryrun) [update:empty]",
                "(dryrun) [update:shut]"
            ]
        );

        assert_eq!(
            super::outcome(&files(AdhocAction::Check, false), &outcome, &[], 0),
            ["mk2: NG a/b/file"]
        );
    }

    #[test]
    fn the_level_says_how_much_is_told() {
        let extra = [
            ("d", "*deleting", DriftKind::Extra),
            ("d/x", "*deleting", DriftKind::Extra),
        ];
        let changed = [("f", ">fcst......", DriftKind::Content)];
        let outcome = an_outcome(vec![group(&["mk2"], &changed), group(&["mk3"], &extra)]);
        let all = [b"f".to_vec()];

        let reported = |deed, dry, level| super::outcome(&files(deed, dry), &outcome, &all, level);
        assert_eq!(reported(AdhocAction::Sync, false, 0), Vec::<String>::new());
        assert_eq!(
            reported(AdhocAction::Sync, true, 0),
            [
                "(dryrun) [update:f]",
                "(dryrun) [delete:d/x]",
                "(dryrun) [delete:d]"
            ]
        );

        assert_eq!(
            reported(AdhocAction::Sync, false, 1),
            ["update mk2:f", "delete mk3:d/x", "delete mk3:d"]
        );
        assert_eq!(
            reported(AdhocAction::Send, false, 2),
            ["update mk2:f", "skip   mk3:f"]
        );

        assert_eq!(
            reported(AdhocAction::Prune, false, 0),
            ["delete mk3:d/x", "delete mk3:d"]
        );
    }

    #[test]
    fn what_went_wrong_is_named() {
        let mut outcome = an_outcome(vec![group(
            &["mk3"],
            &[("f", ">f+++++++++", DriftKind::Missing)],
        )]);
        outcome.hosts[1].state = HostState::Refused;
        outcome.hosts[1].error = Some("no space left".into());
        outcome.exit = ExitStatus::Mixed;

        assert_eq!(
            super::outcome(&files(AdhocAction::Send, false), &outcome, &[], 1),
            ["error: mk3 refused: no space left"]
        );
        outcome.hosts.clear();
        (outcome.error, outcome.hint) = (Some("no hosts answered".into()), Some("look".into()));

        assert_eq!(
            super::outcome(&files(AdhocAction::Send, false), &outcome, &[], 1),
            ["error: no hosts answered (look)"]
        );
    }

    #[test]
    fn no_line_is_taken_for_a_prompt_or_a_sign_of_life() {
        assert_eq!(line("> x"), b"\\x3e x\n");
        assert_eq!(line("alive"), b"\\x61live\n");
        assert_eq!(line("a\u{1b}[0m\nb"), b"a\\u{1b}[0m; b\n");
        assert_eq!(line(">x"), b">x\n");
    }
}
