//! Notes on a session: delays, and the reason if no host answers.

use std::time::Duration;

use super::options::DeployOptions;
use crate::drive::endpoint::GroupEndpoint;
use crate::drive::silence::silence;
use crate::id::{HostName, Labels, Serial, TreeName, matches_host};
use crate::outcome::{ExitStatus, HostResult, HostState, Outcome, Silence};
use crate::proto::sender::Sender;
use crate::proto::sender::hosts::Host;
use crate::spec::{Expect, Spec};
use crate::wire::HostStage;

/// Largest number of hosts named in one note.
const MAX_NOTED_HOSTS: usize = 8;

/// Outcome of a session without its expected hosts; `None` if all answered.
pub(super) fn missing_hosts(
    options: &DeployOptions,
    endpoint: &GroupEndpoint,
    found: &[HostName],
    members: &[(HostName, Labels)],
    missing: &[HostName],
    took: Duration,
    remedy: String,
) -> Option<Outcome> {
    let (error, hint) = if found.is_empty() && members.is_empty() {
        let Silence { error, hint } = silence(endpoint);
        (error, hint)
    } else if found.is_empty() {
        no_target(options, members)
    } else {
        too_few(&options.spec, found, missing)?
    };
    let hint = match options.spec.targets.expect {
        Some(Expect::Known) if !found.is_empty() && !missing.is_empty() => {
            format!("see `makuo members`; {remedy}")
        }
        _ => hint,
    };

    let mut outcome = Outcome::new(options.purpose, options.spec.tree.clone());
    outcome.hosts = missing
        .iter()
        .map(|n| HostResult::new(n.clone(), HostState::Absent))
        .collect();
    let mut outcome = outcome.settle();
    outcome.exit = ExitStatus::Refused;

    outcome.took = took;
    outcome.error = Some(error);
    outcome.hint = Some(hint);
    Some(outcome)
}

/// Error and hint if hosts answered, none of them a target.
fn no_target(options: &DeployOptions, members: &[(HostName, Labels)]) -> (String, String) {
    let tree = &options.spec.tree;
    let lists = options.lists();
    let is_selected = |(name, labels): &&(HostName, Labels)| {
        let selects = |pattern: &String| matches_host(pattern, name, Some(labels));
        lists.iter().all(|list| list.iter().any(selects))
    };

    let selected: Vec<&(HostName, Labels)> = members.iter().filter(is_selected).collect();
    if selected.is_empty() {
        let patterns: Vec<String> = lists.iter().map(|list| list.join(", ")).collect();
        let has_label = patterns.iter().any(|pattern| pattern.contains('='));
        let (verb, what) = match has_label {
            true => ("matches", "names and labels"),
            false => ("is named", "names"),
        };
        return (
            format!(
                "no host {verb} {}; these answered: {}",
                patterns.join(" and "),
                first_names(members.iter().map(|(name, _)| name))
            ),
            format!("see `makuo members` for the {what} of hosts"),
        );
    }

    (
        format!(
            "no host has the tree {tree}; these answered: {}",
            first_names(selected.into_iter().map(|(name, _)| name))
        ),
        "see `makuo members` for the trees that hosts have".to_string(),
    )
}

/// Returns the first names in order, and how many more there are.
fn first_names<'a>(hosts: impl Iterator<Item = &'a HostName>) -> String {
    let mut hosts: Vec<&HostName> = hosts.collect();
    hosts.sort_unstable();
    let mut names: Vec<&str> = hosts.into_iter().map(HostName::as_str).collect();
    let more = names.len().saturating_sub(MAX_NOTED_HOSTS);
    names.truncate(MAX_NOTED_HOSTS);

    match more {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

/// Error and hint if some expected hosts are missing; `None` if there are enough.
fn too_few(spec: &Spec, found: &[HostName], missing: &[HostName]) -> Option<(String, String)> {
    let names = |hosts: &[HostName]| {
        let names: Vec<&str> = hosts.iter().map(HostName::as_str).collect();
        names.join(", ")
    };

    let error = match &spec.targets.expect {
        _ if !missing.is_empty() => format!("expected hosts did not answer: {}", names(missing)),
        Some(Expect::Count(count)) if found.len() < *count as usize => format!(
            "{} of {count} expected hosts answered: {}",
            found.len(),
            names(found)
        ),
        _ => return None,
    };

    Some((error, "see `makuo members`".to_string()))
}

/// Reason of a joined host's wait: the sender before is gone, such as a deploy that was killed.
pub(super) fn waits_for(host: &Host) -> Option<&str> {
    host.text
        .as_deref()
        .filter(|_| host.stage == Some(HostStage::Joined))
}

/// Names the hosts too slow to read all datagrams. Repair replaced them, but the transfer took
/// longer.
pub(super) fn drops(machine: &Sender) -> Option<String> {
    let lossy = machine.hosts().filter(|h| h.transfer.dropped > 0);
    let mut hosts: Vec<String> = lossy
        .map(|h| format!("{} dropped {}", machine.shown(h), h.transfer.dropped))
        .collect();
    if hosts.is_empty() {
        return None;
    }

    hosts.sort();
    if hosts.len() > MAX_NOTED_HOSTS {
        let more = hosts.len() - MAX_NOTED_HOSTS;
        hosts.truncate(MAX_NOTED_HOSTS);
        hosts.push(format!("{more} more hosts did, too"));
    }

    let advice = "raise net.core.rmem_max there, or set a rate";
    Some(format!(
        "packets lost in receive buffers: {}; {advice}",
        hosts.join(", ")
    ))
}

/// Names the hosts that did not keep the release `to`, so that a rollback cannot serve them.
pub(super) fn without_data(machine: &Sender, tree: &TreeName, to: Serial, why: &str) -> String {
    let wants = |h: &&Host| {
        !h.is_lost()
            && h.summary
                .map_or(h.stage == Some(HostStage::Fetching), |s| s.fetch > 0)
    };

    let names = first_names(machine.hosts().filter(wants).map(|h| &h.name));
    format!(
        "{names} did not keep all of {tree}@{to}: {why}; \
         run the rollback on a host that kept it, or deploy"
    )
}
