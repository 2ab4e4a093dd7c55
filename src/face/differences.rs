//! Differences between hosts and this one, by path, and the lines that show them.

use std::collections::{BTreeMap, BTreeSet};

use super::command::Files;
use crate::drive::adhoc::AdhocAction;
use crate::id::NamedHost;
use crate::manifest::path::compare;
use crate::outcome::{DriftGroup, DriftKind, DriftLine};
use crate::units::printable;

/// Lowest log level that names each host that gets a file.
pub const UPDATES: u8 = 1;
/// Lowest log level that also names each host that already has a file.
pub const SKIPS: u8 = 2;

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
pub(super) struct Differences<'a> {
    changed: BTreeMap<Sorted<'a>, BTreeSet<&'a NamedHost>>,
    content: BTreeMap<Sorted<'a>, BTreeSet<&'a NamedHost>>,
    extra: BTreeMap<Sorted<'a>, BTreeSet<&'a NamedHost>>,
}

impl<'a> Differences<'a> {
    pub(super) fn of(groups: &'a [DriftGroup], well: &[NamedHost]) -> Self {
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

    pub(super) fn updated(
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

    pub(super) fn pruned(&self, dry_run: bool) -> Vec<String> {
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

    pub(super) fn compared(&self, well: &[NamedHost], all: &[Vec<u8>], level: u8) -> Vec<String> {
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
