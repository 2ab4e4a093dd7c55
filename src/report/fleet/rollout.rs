//! Rollouts that wait for somebody's word: a note for people, a line for scripts.

use serde::Serialize;

use crate::id::NamedHost;
use crate::outcome::PausedRollout;
use crate::report::words;

/// Formats "www@2 is on web1; batch 2 of 3 is next, with web2-web4: `makuo promote www@2 --batch
/// 2`".
pub(in crate::report) fn rollout_note(rollout: &PausedRollout) -> String {
    let PausedRollout {
        tree, having, next, ..
    } = rollout;
    let release = words::release(tree, Some(rollout.serial));
    let place = match having.is_empty() {
        true => "is committed nowhere".to_string(),
        false => format!("is on {}", words::hosts(having)),
    };
    if !rollout.newer.is_empty() {
        let newer = words::hosts(&rollout.newer);
        return format!(
            "{release} {place}, and a newer release on {newer}: `makuo abort {release}` drops it"
        );
    }

    let number = next.number;
    let of = next.of;
    if next.needed > next.hosts.len() && next.failing.is_empty() && !next.checking.is_empty() {
        let hosts = words::hosts(&next.checking);
        return format!(
            "{release} {place}; batch {number} of {of} still runs its checks on {hosts}"
        );
    }
    if next.needed > next.hosts.len() && next.failing.is_empty() {
        let silent = words::hosts(&next.unknown);
        return format!("{release} {place}; batch {number} of {of}: no answer of {silent}");
    }
    if next.needed > next.hosts.len() {
        let failing = words::hosts(&next.failing);
        return format!("{release} {place}; batch {number} of {of} fails its checks on {failing}");
    }

    let hosts = words::hosts(&next.hosts);
    format!(
        "{release} {place}; batch {number} of {of} is next, with {hosts}: `makuo promote {release} \
         --batch {number}`"
    )
}

/// A rollout for scripts.
#[derive(Serialize)]
pub(in crate::report) struct RolloutLine<'a> {
    event: &'static str,
    tree: &'a str,
    serial: u64,
    batch: usize,
    batches: usize,
    next: Vec<String>,
    having: Vec<String>,
    failing: Vec<String>,
    newer: Vec<String>,
    waiting: Vec<String>,
}

impl<'a> RolloutLine<'a> {
    pub(in crate::report) fn new(rollout: &'a PausedRollout) -> Self {
        let names = |hosts: &[NamedHost]| hosts.iter().map(ToString::to_string).collect();
        let next = &rollout.next;
        Self {
            event: "rollout",
            tree: rollout.tree.as_str(),
            serial: rollout.serial.0,
            batch: next.number,
            batches: next.of,
            next: names(&next.hosts),
            having: names(&rollout.having),
            failing: names(&next.failing),
            newer: names(&rollout.newer),
            waiting: names(&next.waiting),
        }
    }
}
