//! What a session tells as it goes: progress, and why something takes longer or nobody answers.

use std::time::Duration;

use super::{NAMED, Session};
use crate::drive::outcome::{Event, ExitStatus, HostResult, HostState, Outcome, Progress};
use crate::id::HostName;
use crate::proto::sender::hosts::Host;
use crate::units::ByteSize;
use crate::wire::HostStage;
use crate::wire::seal::OpenError;

/// So many of the words are told that hosts give for waiting.
const MAX_WAITS: usize = 16;
/// How often progress is told.
const TELL: Duration = Duration::from_millis(100);

impl Session<'_> {
    /// The outcome of a session without the hosts that were expected.
    pub(super) fn nobody(
        &self,
        found: &[HostName],
        members: usize,
        missing: &[HostName],
    ) -> Option<Outcome> {
        let spec = &self.options.spec;
        let count = match &spec.targets.expect {
            Some(crate::spec::Expect::Count(n)) => *n as usize,
            _ => 0,
        };

        let links = self.endpoint.links();
        let (error, hint) = if found.is_empty() && members == 0 {
            let at = format!("{} on {}", links.group(), links.names());
            let hint = "is the daemon running on the hosts, on this network, with the same --group and --port? \
                        Does --interface name the right one, and does the switch pass multicast?";
            (
                format!("no hosts answered at {at}"),
                self.strange().unwrap_or_else(|| hint.to_string()),
            )
        } else if found.is_empty() {
            let hint = "see `makuo members` for the trees that they have";
            let which = if spec.targets.hosts.is_empty() {
                ""
            } else {
                " among the targets"
            };
            (
                format!(
                    "{members} hosts answered, none has the tree {}{which}",
                    spec.tree
                ),
                hint.to_string(),
            )
        } else if !missing.is_empty() {
            let names: Vec<&str> = missing.iter().map(HostName::as_str).collect();
            (
                format!("expected hosts did not answer: {}", names.join(", ")),
                "see `makuo members`".to_string(),
            )
        } else if found.len() < count {
            let names: Vec<&str> = found.iter().map(HostName::as_str).collect();
            (
                format!(
                    "{} of {count} expected hosts answered: {}",
                    found.len(),
                    names.join(", ")
                ),
                "see `makuo members`".into(),
            )
        } else {
            return None;
        };

        let mut outcome = Outcome::new(self.options.purpose, spec.tree.clone());
        outcome.hosts = missing
            .iter()
            .map(|n| HostResult::new(n.clone(), HostState::Absent))
            .collect();
        let mut outcome = outcome.settle();
        outcome.exit = ExitStatus::Refused;

        outcome.took = self.clock.now().since(self.began);
        (outcome.error, outcome.hint) = (Some(error), Some(hint));
        Some(outcome)
    }

    /// What to do when somebody speaks and is not heard.
    fn strange(&self) -> Option<String> {
        let strangers = self.endpoint.strangers();
        let kind = [
            OpenError::Sealed,
            OpenError::Wrong,
            OpenError::Plain,
            OpenError::Version,
        ]
        .into_iter()
        .find(|k| strangers.count(*k) > 0)?;

        Some(
            match kind {
                OpenError::Sealed => {
                    "somebody there speaks with a group key: give --group-key, or network.group_key in makuo.toml"
                }
                OpenError::Wrong => "somebody there speaks with another group key than this one: is it the hosts'?",
                OpenError::Version => "somebody there speaks another wire format: is makuo of the same age everywhere?",
                _ => "somebody there speaks without a group key: do the hosts have it, and were they restarted since?",
            }
            .to_string(),
        )
    }

    /// Datagrams that the interface does not take any more will never arrive: nobody is to wait for them in silence.
    pub(super) fn tell_trouble(&mut self) {
        let Some(trouble) = self.endpoint.take_trouble() else {
            return;
        };
        self.observer.event(&Event::Note(trouble.clone()));
        if self.announced.is_some() {
            self.machine.abort(self.clock.now(), &trouble);
        }
    }

    /// A host has the tree of a sender that is gone, perhaps a deploy that was killed: it gives way soon.
    pub(super) fn tell_wait(&mut self, host: &Host) {
        let Some(text) = host
            .text
            .as_ref()
            .filter(|_| host.stage == Some(HostStage::Joined))
        else {
            return;
        };

        if self.waits.len() < MAX_WAITS && self.waits.insert(text.clone()) {
            self.observer.event(&Event::Note(format!(
                "{}: {text}",
                self.machine.shown(host)
            )));
        }
    }

    /// Hosts that could not read in time: nothing is missing, but it took longer than it had to.
    pub(super) fn tell_drops(&mut self) {
        let lossy = self.machine.hosts().filter(|h| h.dropped > 0);
        let mut hosts: Vec<String> = lossy
            .map(|h| format!("{} dropped {}", self.machine.shown(h), h.dropped))
            .collect();
        if hosts.is_empty() {
            return;
        }

        hosts.sort();
        if hosts.len() > NAMED {
            let more = hosts.len() - NAMED;
            hosts.truncate(NAMED);
            hosts.push(format!("{more} more hosts did, too"));
        }

        let advice = "raise net.core.rmem_max there, or set a rate";
        let note = format!(
            "packets lost in receive buffers: {}; {advice}",
            hosts.join(", ")
        );

        self.observer.event(&Event::Note(note));
    }

    pub(super) fn tell_progress(&mut self) {
        let now = self.clock.now();
        if self.announced.is_none() || now.since(self.told) < TELL {
            return;
        }

        self.told = now;
        let (mut total, mut ready, mut targets) = (0, 0, 0);
        for host in self.machine.hosts() {
            total = total.max(host.summary.map_or(0, |s| s.fetch));
            targets += 1;
            ready += usize::from(host.is_good(false));
        }

        let sent = self
            .machine
            .hosts()
            .filter(|h| !h.lost)
            .map(|h| h.received)
            .max()
            .unwrap_or(0);

        let (sent, total) = (ByteSize(sent.min(total)), ByteSize(total));
        self.observer.event(&Event::Progress(Progress {
            sent,
            total,
            rate: self.machine.rate(),
            ready,
            targets,
        }));
    }
}
