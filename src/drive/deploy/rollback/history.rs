//! The distinct releases of a tree, by content, and the hosts of each.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::block::BlockHash;
use crate::id::{Labels, NamedHost, Serial, TreeName};
use crate::outcome::ReleaseLog;
use crate::tree::KeptRelease;

/// The distinct releases of a tree, the newest first.
pub(super) struct RollbackHistory<'a> {
    pub(super) tree: &'a TreeName,
    pub(super) releases: Vec<DistinctContent>,
    pub(super) unshown: &'a [NamedHost],
    labels: &'a BTreeMap<NamedHost, Labels>,
}

/// All releases with one content.
pub(super) struct DistinctContent {
    pub(super) content: BlockHash,
    pub(super) part: bool,
    /// Serials, the newest first.
    pub(super) serials: Vec<Serial>,
    pub(super) running: BTreeSet<String>,
    running_as: BTreeSet<Serial>,
    pub(super) kept: BTreeSet<String>,
    /// Hosts with a tombstone for each; `None` if no host has one.
    pub(super) buried: Option<BTreeSet<String>>,
}

/// Name of this machine's state when no host answers.
const THIS_MACHINE: &str = "this machine";

impl<'a> RollbackHistory<'a> {
    /// Merges the releases of the fleet and of this machine, by content.
    pub(super) fn of(log: &'a ReleaseLog, local: &[KeptRelease]) -> Self {
        let mut history = Self {
            tree: &log.tree,
            releases: Vec::new(),
            unshown: &log.unshown,
            labels: &log.labels,
        };

        for release in &log.releases {
            let distinct = history.add(release.content, release.serial, release.part);
            let buried: BTreeSet<String> = release.buried.iter().map(ToString::to_string).collect();
            let all = distinct.buried.get_or_insert_with(|| buried.clone());
            all.retain(|host| buried.contains(host));
            distinct
                .kept
                .extend(release.kept.iter().map(ToString::to_string));
            if !release.shown.is_empty() {
                distinct
                    .running
                    .extend(release.shown.iter().map(ToString::to_string));
                distinct.running_as.insert(release.serial);
            }
        }

        for release in local {
            let distinct = history.add(release.content, release.serial, release.part);
            if log.releases.is_empty() {
                distinct.kept.insert(THIS_MACHINE.to_string());
                distinct
                    .running
                    .extend(release.running.then(|| THIS_MACHINE.to_string()));
                distinct
                    .running_as
                    .extend(release.running.then_some(release.serial));
            }
        }

        for release in &mut history.releases {
            release
                .serials
                .sort_unstable_by_key(|&serial| Reverse(serial));
            release.serials.dedup();
        }

        history
            .releases
            .sort_by_key(|release| Reverse(release.serials.first().copied()));

        history
    }

    /// The entry of `content`, with `serial` added.
    fn add(&mut self, content: BlockHash, serial: Serial, part: bool) -> &mut DistinctContent {
        let at = self
            .releases
            .iter()
            .position(|r| r.content == content)
            .unwrap_or_else(|| {
                self.releases.push(DistinctContent {
                    content,
                    part,
                    serials: Vec::new(),
                    running: BTreeSet::new(),
                    running_as: BTreeSet::new(),
                    kept: BTreeSet::new(),
                    buried: None,
                });
                self.releases.len() - 1
            });

        self.releases[at].serials.push(serial);
        &mut self.releases[at]
    }

    /// Labels of a host, as shown to people; `None` if it is unknown.
    pub(super) fn labels_of(&self, shown: &str) -> Option<&Labels> {
        let mut labels = self.labels.iter();
        let known = labels.find(|(host, _)| host.to_string() == shown);
        known.map(|(_, labels)| labels)
    }

    /// Running serials, the newest first.
    pub(super) fn running(&self) -> Vec<Serial> {
        let all: BTreeSet<Serial> = self
            .releases
            .iter()
            .flat_map(|r| r.running_as.iter().copied())
            .collect();
        all.into_iter().rev().collect()
    }

    /// Lists the available releases as a hint.
    pub(super) fn kept(&self) -> String {
        let all: BTreeSet<Serial> = self
            .releases
            .iter()
            .flat_map(|r| r.serials.iter().copied())
            .collect();

        let kept = match all.is_empty() {
            true => format!("no host keeps any release of {}", self.tree),
            false => format!(
                "kept are {}",
                all.iter()
                    .map(Serial::to_string)
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        };

        format!("{kept}; `keep` in a host's configuration says how many it keeps")
    }
}

impl DistinctContent {
    /// Highest serial under which hosts run the content.
    pub(super) fn newest_running(&self) -> Serial {
        self.running_as.last().copied().unwrap_or_default()
    }
}

/// Largest number of hosts named in one message.
const MAX_NAMED_KEEPERS: usize = 8;

/// Lists the names of hosts, of many only the first ones.
pub(super) fn words(hosts: &BTreeSet<String>) -> String {
    let mut names: Vec<String> = hosts.iter().take(MAX_NAMED_KEEPERS).cloned().collect();
    if hosts.len() > MAX_NAMED_KEEPERS {
        names.push(format!("{} more", hosts.len() - MAX_NAMED_KEEPERS));
    }
    names.join(", ")
}
