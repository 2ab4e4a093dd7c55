//! The state of a fleet as the page and its JSON show it: trees as rows, hosts grouped by state.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::outcome::Standing;
use crate::report::words;
use crate::units::{printable, shown_age, shown_duration};
use crate::wire::query::FetchProgress;

/// State of a tree on a host, the ones that need somebody first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum HostWord {
    Failed,
    Split,
    Reverted,
    Incomplete,
    Behind,
    Silent,
    Drifted,
    Stale,
    Working,
    Empty,
    Current,
}

impl HostWord {
    /// The state as text.
    pub(super) fn word(self) -> &'static str {
        match self {
            HostWord::Failed => "failed",
            HostWord::Split => "split",
            HostWord::Reverted => "reverted",
            HostWord::Incomplete => "incomplete",
            HostWord::Behind => "behind",
            HostWord::Silent => "silent",
            HostWord::Drifted => "drifted",
            HostWord::Stale => "stale",
            HostWord::Working => "working",
            HostWord::Empty => "empty",
            HostWord::Current => "current",
        }
    }

    /// A sign whose shape differs from that of the others.
    pub(super) fn sign(self) -> &'static str {
        match self {
            HostWord::Failed => "✗",
            HostWord::Split => "⑂",
            HostWord::Reverted => "↩",
            HostWord::Incomplete => "◐",
            HostWord::Behind => "↓",
            HostWord::Silent => "?",
            HostWord::Drifted => "≠",
            HostWord::Stale => "⧖",
            HostWord::Working => "…",
            HostWord::Empty => "○",
            HostWord::Current => "✓",
        }
    }

    fn of(standing: &Standing) -> Self {
        let Some(status) = &standing.status else {
            return HostWord::Silent;
        };

        let has_drift = status.drifted.is_some_and(|d| d.paths > Some(0));
        let lacks = standing.lacks.is_some() || !standing.lacks_parts.is_empty();
        match () {
            () if status.work.is_some() => HostWord::Working,
            () if status.trouble.is_some() => HostWord::Failed,
            () if !standing.split.is_empty() => HostWord::Split,
            () if standing.tombstone.is_some() => HostWord::Reverted,
            () if lacks => HostWord::Incomplete,
            () if standing.behind.is_some() => HostWord::Behind,
            () if has_drift => HostWord::Drifted,
            () if status.stale.is_some() || status.repository.is_some() => HostWord::Stale,
            () if status.running.is_none() && status.sent.is_none() => HostWord::Empty,
            () => HostWord::Current,
        }
    }
}

/// All trees of a fleet.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(super) struct FleetView {
    /// Number of hosts with a tree.
    pub(super) hosts: usize,
    pub(super) trees: Vec<TreeView>,
}

/// A tree with its hosts in groups.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct TreeView {
    pub(super) tree: String,
    /// Newest release that a host runs.
    pub(super) newest: Option<u64>,
    pub(super) hosts: usize,
    pub(super) groups: Vec<HostGroup>,
}

/// Hosts in one state, with the same release.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct HostGroup {
    pub(super) state: HostWord,
    /// Release that they run.
    pub(super) serial: Option<u64>,
    /// Reason for the state, without times.
    pub(super) reason: Option<String>,
    /// Progress of the host that has the most bytes left to fetch.
    pub(super) percent: Option<u8>,
    pub(super) bytes_left: Option<u64>,
    pub(super) hosts: Vec<String>,
}

/// A host with its trees.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct HostView {
    pub(super) host: String,
    pub(super) address: Option<String>,
    pub(super) trees: Vec<HostTreeView>,
}

/// A tree on a host.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct HostTreeView {
    pub(super) tree: String,
    pub(super) address: String,
    pub(super) state: HostWord,
    pub(super) serial: Option<u64>,
    /// Everything there is to say.
    pub(super) notes: Vec<String>,
}

impl FleetView {
    /// The view of these standings.
    pub(super) fn of(standings: &[Standing]) -> Self {
        let hosts: BTreeSet<_> = standings.iter().map(|s| s.address).collect();
        let mut trees: BTreeMap<&str, Vec<&Standing>> = BTreeMap::new();
        for standing in standings {
            let tree = trees.entry(standing.tree.as_str()).or_default();
            tree.push(standing);
        }

        Self {
            hosts: hosts.len(),
            trees: trees.iter().map(|(name, all)| tree(name, all)).collect(),
        }
    }
}

fn tree(name: &str, standings: &[&Standing]) -> TreeView {
    let mut groups: BTreeMap<_, Vec<&Standing>> = BTreeMap::new();
    for standing in standings {
        let key = (HostWord::of(standing), serial(standing), reason(standing));
        groups.entry(key).or_default().push(standing);
    }

    let group = |((state, serial, reason), members): (_, Vec<&Standing>)| {
        let fetches = members.iter().filter_map(|standing| fetch(standing));
        let last = fetches.max_by_key(|fetch| fetch.left);
        HostGroup {
            state,
            serial,
            reason,
            percent: last.map(FetchProgress::percent),
            bytes_left: last.map(|fetch| fetch.left),
            hosts: members.iter().map(|s| s.named.to_string()).collect(),
        }
    };
    let is_good = |standing: &&&Standing| standing.tombstone.is_none();
    TreeView {
        tree: name.to_string(),
        newest: standings
            .iter()
            .filter(is_good)
            .filter_map(|s| serial(s))
            .max(),
        hosts: standings.len(),
        groups: groups.into_iter().map(group).collect(),
    }
}

/// The view of a host with its trees; `None` without any.
pub(super) fn host(name: &str, standings: &[Standing]) -> Option<HostView> {
    let own = standings.iter().filter(|s| s.host.as_str() == name);
    let trees: Vec<HostTreeView> = own
        .map(|standing| HostTreeView {
            tree: standing.tree.to_string(),
            address: standing.address.to_string(),
            state: HostWord::of(standing),
            serial: serial(standing),
            notes: notes(standing),
        })
        .collect();

    (!trees.is_empty()).then(|| HostView {
        host: name.to_string(),
        address: trees.first().map(|tree| tree.address.clone()),
        trees,
    })
}

fn serial(standing: &Standing) -> Option<u64> {
    let status = standing.status.as_ref()?;
    Some(status.running.max(status.sent)?.0)
}

fn fetch(standing: &Standing) -> Option<FetchProgress> {
    standing.status.as_ref()?.work.as_ref()?.fetch
}

/// Reason for the state, the same for all hosts that have it.
fn reason(standing: &Standing) -> Option<String> {
    let status = standing.status.as_ref()?;
    let word = HostWord::of(standing);

    Some(match word {
        HostWord::Working => {
            let work = status.work.as_ref()?;
            let (tree, serial) = (&standing.tree, work.serial);
            let sender = printable(work.sender.as_str().as_bytes());
            format!(
                "{} {tree}@{serial} from {sender}",
                printable(work.word.as_bytes())
            )
        }
        HostWord::Failed => {
            let trouble = status.trouble.as_ref()?;
            let text = printable(trouble.text.as_bytes());
            format!("{}@{}: {text}", standing.tree, trouble.serial)
        }
        HostWord::Split => "hosts run another release of the same serial".to_string(),
        HostWord::Reverted => "its sender took the release back".to_string(),
        HostWord::Incomplete | HostWord::Behind => words::missed(standing)?,
        HostWord::Stale => match (&status.stale, &status.repository) {
            (None, Some(trouble)) => format!("repository: {}", printable(trouble.text.as_bytes())),
            _ => "the release is older than max_age allows".to_string(),
        },
        HostWord::Drifted => "paths differ from the release".to_string(),
        HostWord::Silent | HostWord::Empty | HostWord::Current => return None,
    })
}

/// Everything about a tree on a host, with times.
fn notes(standing: &Standing) -> Vec<String> {
    // A failure is told below, with its time.
    let reason = reason(standing).filter(|_| HostWord::of(standing) != HostWord::Failed);
    let mut notes: Vec<String> = reason.into_iter().collect();
    notes.extend(fetch(standing).map(words::fetch_progress));
    let Some(status) = &standing.status else {
        notes.push("it is alive and did not answer".into());
        return notes;
    };

    if let Some(trouble) = &status.trouble {
        let (ago, text) = (shown_age(trouble.age), printable(trouble.text.as_bytes()));
        notes.push(format!(
            "{ago} ago, {}@{}: {text}",
            standing.tree, trouble.serial
        ));
    }
    if let Some(stale) = status.stale {
        let max = shown_duration(std::time::Duration::from_secs(stale.max_age));
        let age = shown_age(stale.age);
        notes.push(format!(
            "the release was made {age} ago, and max_age is {max}"
        ));
    }
    if let Some(drifted) = status.drifted {
        let paths = drifted.paths.unwrap_or_default();
        notes.push(format!(
            "drift in {} of {} checks, repaired {} times; paths that differ now: {paths}",
            drifted.drifted, drifted.looks, drifted.repaired
        ));
    }
    if let Some(trouble) = &status.repository {
        let (age, text) = (shown_age(trouble.age), printable(trouble.text.as_bytes()));
        notes.push(format!("repository, for {age}: {text}"));
    }

    notes
}
