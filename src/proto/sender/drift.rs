//! Collects drift reports: of each group of hosts with the same differences, one host is asked for
//! the list.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::{InstanceId, SessionId};
use crate::proto::RangeSet;
use crate::proto::control::Control;
use crate::proto::{Dest, sender::hosts::Hosts};
use crate::units::Moment;
use crate::wire::Message;
use crate::wire::message::{DRIFT_PARTS, DriftPart, MAX_DRIFT_PART};

/// Largest report, in bytes.
pub const MAX_DRIFT: u64 = 64 << 20;
/// Wait before a request is repeated.
const ASK_INTERVAL: Duration = Duration::from_millis(60);
/// Bound on all reports together, in bytes.
const MAX_DRIFT_TOGETHER: u64 = 256 << 20;
/// Bytes in one answer.
const ANSWER_BYTES: u64 = DRIFT_PARTS * MAX_DRIFT_PART as u64;
/// Unanswered requests after which another host of the group is asked.
const MAX_UNANSWERED: u32 = 50;

#[derive(Debug)]
struct DriftSource {
    host: InstanceId,
    /// Others with the same drift, asked if the first falls silent.
    others: Vec<InstanceId>,
    bytes: Vec<u8>,
    missing: RangeSet,
    asked: Option<Moment>,
    /// End of the last requested range.
    answer: u64,
    tries: u32,
}

impl DriftSource {
    fn is_given_up(&self) -> bool {
        self.tries > MAX_UNANSWERED && self.others.is_empty()
    }
}

/// Reports by identity.
#[derive(Debug, Default)]
pub struct DriftCollection {
    groups: BTreeMap<u64, DriftSource>,
}

impl DriftCollection {
    /// Starts from the summaries of the hosts.
    pub fn new(hosts: &Hosts) -> Self {
        let mut groups: BTreeMap<u64, DriftSource> = BTreeMap::new();
        let mut room = MAX_DRIFT_TOGETHER;
        for (&host, state) in hosts.iter().filter(|(_, h)| !h.is_lost()) {
            let Some(summary) = state.summary.filter(|s| s.drift != 0) else {
                continue;
            };
            if let Some(group) = groups.get_mut(&summary.drift) {
                group.others.push(host);
                continue;
            }
            let bytes = summary.drift_bytes.min(MAX_DRIFT).min(room);
            room -= bytes;
            groups.insert(
                summary.drift,
                DriftSource {
                    host,
                    others: Vec::new(),
                    bytes: vec![0; bytes as usize],
                    missing: RangeSet::from_iter([0..bytes]),
                    asked: None,
                    answer: 0,
                    tries: 0,
                },
            );
        }

        Self { groups }
    }

    /// Returns whether every report is complete or given up.
    pub fn is_done(&self) -> bool {
        self.groups
            .values()
            .all(|g| g.missing.is_empty() || g.is_given_up())
    }

    /// Returns the complete reports.
    pub fn reports(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.groups
            .iter()
            .filter(|(_, g)| g.missing.is_empty())
            .map(|(&id, g)| (id, g.bytes.as_slice()))
    }

    /// Takes a part.
    pub fn on_part(&mut self, from: InstanceId, part: &DriftPart) {
        for group in self.groups.values_mut().filter(|g| g.host == from) {
            let end = part.offset.saturating_add(part.bytes.len() as u64);
            if end > group.bytes.len() as u64 {
                continue;
            }

            group.bytes[part.offset as usize..end as usize].copy_from_slice(&part.bytes);
            let before = group.missing.len();
            group.missing.remove(part.offset..end);
            if group.missing.len() < before {
                group.tries = 0;
            }

            let next = group.missing.first();
            if next.is_some_and(|first| first >= group.answer) {
                // The whole range has arrived: request the next one at once.
                group.asked = None;
            }
        }
    }

    /// Sends due requests.
    pub fn handle_timeout(
        &mut self,
        now: Moment,
        session: SessionId,
        hosts: &Hosts,
        control: &mut Control,
    ) {
        for group in self.groups.values_mut() {
            let Some(first) = group.missing.first() else {
                continue;
            };

            if group.tries > MAX_UNANSWERED
                && let Some(other) = group.others.pop()
            {
                group.host = other;
                group.tries = 0;
            }

            if group.tries > MAX_UNANSWERED
                || group.asked.is_some_and(|at| now.since(at) < ASK_INTERVAL)
            {
                continue;
            }

            group.tries += 1;
            group.asked = Some(now);
            group.answer = first + ANSWER_BYTES;
            if let Some(host) = hosts.get(group.host) {
                control.send(Dest::Host(host.address), &Message::DriftAsk(session, first));
            }
        }
    }

    /// Time of the next request.
    pub fn timeout(&self, now: Moment) -> Option<Moment> {
        let open = self
            .groups
            .values()
            .filter(|g| !g.missing.is_empty() && !g.is_given_up());
        open.map(|g| g.asked.map_or(now, |at| at + ASK_INTERVAL))
            .min()
    }
}
