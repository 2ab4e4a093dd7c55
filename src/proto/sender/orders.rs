//! Orders of a session: the decision, the batches, and the revert.
//!
//! Once enough hosts are ready, each batch is first ordered to run its checks before a commit
//! (`Prepare`, only if a host has any), and then to commit. The next batch follows once all hosts
//! of a batch have answered well. A host that fails or falls silent after the first commit ends the
//! rollout: no further batch commits, or every host reverts.

use std::collections::BTreeSet;
use std::time::Duration;

use super::fate::Fate;
use super::hosts::Host;
use super::{
    FAREWELL_GAP, FAREWELLS, FIRST_RESEND, Sender, SenderNotice, SenderPhase, SenderRequest,
};
use crate::id::HostName;
use crate::proto::{Dest, alive_interval};
use crate::units::{Moment, Quorum};
use crate::wire::message::{HostSet, MAX_NAMED, Order, OrderKind, SignedOrder};
use crate::wire::{HostStage, Message, Phase};

/// Time that a reached quorum waits for further hosts with progress.
const STRAGGLER_WAIT: Duration = Duration::from_secs(3);
/// Time for which a release is offered that no host turns out to lack.
const GRANT_OFFER: Duration = Duration::from_secs(3);
/// Time for everything else at a host that lacks the same blocks as the sender.
const STALLED_AFTER: Duration = Duration::from_secs(3);
/// Time before the end of the session for asking hosts again that may have followed an order
/// unheard.
const LAST_ASK: Duration = Duration::from_secs(3);
/// Silence after which an unready host is excluded from a commit, as a multiple of the interval
/// between signs of life.
const SILENT_INTERVALS: u32 = 4;
/// Time without progress granted to a live host before the decision, as a multiple of the patience.
const WORKING_FACTOR: u32 = 10;

/// Batches of a commit, in the order of host names.
#[derive(Debug, Default)]
pub(super) struct Batches {
    /// Last host of each batch except the final one, which covers everyone.
    bounds: Vec<HostName>,
    /// Index of the present batch.
    at: usize,
}

impl Batches {
    /// Plans batches of the given `sizes`, and a final one for the rest.
    fn plan(sizes: &[Quorum], mut hosts: Vec<HostName>) -> Self {
        hosts.sort();
        let mut bounds = Vec::new();
        let mut end = 0;
        for size in sizes {
            let first = end;
            end += size.of(hosts.len());
            // The final batch covers these hosts anyway.
            if end >= hosts.len() {
                break;
            }
            // An order names a bounded number of hosts, so a larger batch is split.
            let parts = (first + MAX_NAMED..end).step_by(MAX_NAMED).chain([end]);
            bounds.extend(parts.filter_map(|end| hosts.get(end - 1).cloned()));
        }

        Self { bounds, at: 0 }
    }

    /// Last host of the present batch; `None` for the final batch.
    fn up_to(&self) -> Option<&HostName> {
        self.bounds.get(self.at)
    }

    fn has(&self, host: &Host) -> bool {
        self.up_to().is_none_or(|last| host.name <= *last)
    }

    fn is_last(&self) -> bool {
        self.at >= self.bounds.len()
    }
}

impl Sender {
    /// Ends the session as early as possible. Before a commit hosts keep their present release;
    /// afterwards this acts like a failure.
    pub fn abort(&mut self, now: Moment, why: &str) {
        match self.phase {
            SenderPhase::Serving | SenderPhase::Collecting => {
                self.failure.get_or_insert_with(|| why.to_string());
                match self.is_audit() || self.is_granted() {
                    // Nothing is staged anywhere, or each host commits on its own: there is nothing
                    // to abort.
                    true => self.finish(now),
                    false => self.decide(OrderKind::Abort, why),
                }
            }
            SenderPhase::Ordering(OrderKind::Prepare) => self.fail(why),
            SenderPhase::Ordering(OrderKind::Commit)
                if self.setup.revert || !self.batches.is_last() =>
            {
                self.fail(why)
            }
            SenderPhase::Discovering | SenderPhase::Waiting => self.finish(now),
            _ => {}
        }
    }

    /// The order that committed the release, unless another order followed.
    pub fn committed_by(&self) -> Option<&SignedOrder> {
        let has = |h: &Host| h.ordered && h.stage.is_some_and(HostStage::has_release);
        let done =
            self.decision == Some(OrderKind::Commit) && self.hosts.iter().any(|(_, h)| has(h));
        self.order.as_ref().filter(|_| done)
    }

    /// Decides, if the time has come.
    pub(super) fn decide_if_due(&mut self, now: Moment) {
        if self.is_granted() {
            return self.finish_granted_if_due(now);
        }

        let audit = self.is_audit();
        let slow = self.flow.receivers().slow();
        let all = self.setup.quorum == Quorum::All;
        let open = self.hosts.iter().filter(|(_, h)| !h.is_settled(audit));

        // Slow hosts are awaited only if every host is required.
        let newest = open
            .filter(|(id, _)| all || !slow.contains(id))
            .map(|(_, h)| h.progress)
            .max();

        if audit {
            if newest.is_none() {
                self.collect(now);
            }
            return;
        }

        let (ready, needed) = self.vote();
        let waiting = newest.is_some_and(|at| all || now.since(at) < STRAGGLER_WAIT);
        if (waiting && ready < self.hosts.len()) || (newest.is_some() && ready < needed) {
            return;
        }

        if ready >= needed && self.setup.lists && !self.listed {
            self.collect(now);
        } else if ready >= needed {
            // The order excludes hosts that have fallen silent.
            let silent = self.hosts.drop_silent(
                now,
                alive_interval(self.hosts.len() as u32) * SILENT_INTERVALS,
            );
            self.notices
                .extend(silent.into_iter().map(SenderNotice::Lost));
            self.batches = Batches::plan(
                &self.setup.batches,
                self.hosts.iter().map(|(_, h)| h.name.clone()).collect(),
            );
            self.start_batch();
        } else {
            self.decide(OrderKind::Abort, &self.vote_text());
        }
    }

    /// Ends a session without orders once no host needs the release: all have committed, refused or
    /// are gone.
    fn finish_granted_if_due(&mut self, now: Moment) {
        // If some blocks are unreadable here, a stalled host gets the rest elsewhere.
        let stalled = |h: &Host| self.failure.is_some() && now.since(h.progress) >= STALLED_AFTER;
        let open = self
            .hosts
            .iter()
            .any(|(_, h)| !h.has_answered(OrderKind::Commit) && !stalled(h));
        let unheard = self.hosts.is_empty() && now.since(self.began) < GRANT_OFFER;
        if !open && !unheard {
            self.finish(now);
        }
    }

    /// Returns the number of hosts that can commit or have, and the required number.
    fn vote(&self) -> (usize, usize) {
        let ready = self.hosts.iter().filter(|(_, h)| h.is_good(false)).count();
        (ready, self.setup.quorum.of(self.hosts.voters()))
    }

    fn vote_text(&self) -> String {
        let ((ready, needed), all) = (self.vote(), self.hosts.len());
        match ready >= needed {
            true => format!("{ready} of {all} hosts are ready"),
            false => format!("{ready} of {all} hosts are ready, {needed} are required"),
        }
    }

    /// Returns whether the present order to prepare or commit is for the host.
    fn is_addressed(&self, host: &Host) -> bool {
        // The final batch excludes the named hosts.
        self.named
            .as_ref()
            .is_none_or(|named| named.has(&host.name) != self.batches.is_last())
    }

    fn start_batch(&mut self) {
        // During the last batch, hosts of later ones may have been lost.
        let (ready, needed) = self.vote();
        if ready < needed {
            return self.fail(&self.vote_text());
        }

        let votes = |h: &Host| {
            h.stage == Some(HostStage::Ready) && h.summary.is_some_and(|s| s.votes == Some(true))
        };

        let asks = self
            .hosts
            .iter()
            .any(|(_, h)| self.batches.has(h) && !h.lost && votes(h));
        let kind = if asks {
            OrderKind::Prepare
        } else {
            OrderKind::Commit
        };

        self.decide(kind, &self.vote_text());
    }

    fn decide(&mut self, kind: OrderKind, why: &str) {
        let Some(offer) = &self.offer else { return };
        self.phase = SenderPhase::Signing(kind);

        // A beacon from before this order shows nothing of its outcome.
        self.nonce = self.nonces.draw();
        self.hosts.forget_beacons();
        if matches!(kind, OrderKind::Abort | OrderKind::Revert) {
            self.flow.stream_mut().stop();
        }

        self.decision = Some(kind);
        if kind == OrderKind::Commit {
            self.hosts.mark_ordered(|host| self.batches.has(host));
        }

        let mut order = Order::new(self.session, &offer.release, kind);
        self.named = None;
        if matches!(kind, OrderKind::Commit | OrderKind::Prepare) {
            let hosts = || self.hosts.iter().map(|(_, host)| host);
            if let Some(last) = self.batches.up_to() {
                // By name: a host that is away now must not take the release of a failing batch.
                let named = HostSet::of(
                    hosts()
                        .filter(|h| self.batches.has(h) && h.is_good(false))
                        .map(|h| &h.name),
                );
                order = Order {
                    up_to: Some(last.clone()),
                    hosts: Some(named.hash()),
                    ..order
                };
                self.named = Some(named);
            } else if let Some(silent) = self.excluded_hosts() {
                order.except = Some(silent.hash());
                self.named = Some(silent);
            }
        }

        self.requests
            .push_back(SenderRequest::Sign(order.encode().into()));
        self.unsent = Some(order);
        self.asking = None;

        self.notices
            .push_back(SenderNotice::Decided(kind, why.to_string()));
    }

    /// Returns the hosts that are lost and were never ordered to commit. Excluding them keeps their
    /// state known.
    fn excluded_hosts(&self) -> Option<HostSet> {
        let is_out = |h: &Host| h.lost && !h.ordered;
        let others: BTreeSet<&HostName> = self
            .hosts
            .iter()
            .filter(|(_, h)| !is_out(h))
            .map(|(_, h)| &h.name)
            .collect();

        // A name shared with a participating host belongs to that host.
        let silent = self
            .hosts
            .iter()
            .filter(|(_, h)| is_out(h))
            .map(|(_, h)| &h.name);

        let silent: Vec<&HostName> = silent.filter(|name| !others.contains(name)).collect();
        (1..=MAX_NAMED)
            .contains(&silent.len())
            .then(|| HostSet::of(silent.into_iter()))
    }

    /// Takes the signed order, or the reason why signing failed.
    pub(super) fn on_signed(&mut self, now: Moment, signed: Result<SignedOrder, String>) {
        match (signed, self.phase) {
            (Ok(order), SenderPhase::Signing(kind)) => {
                self.phase = SenderPhase::Ordering(kind);
                self.order = Some(order);
                self.repeat = (now, FIRST_RESEND / 2);
            }
            (Ok(_), _) => {}
            (Err(why), _) => {
                self.failure.get_or_insert(why);
                self.decision = None;
                self.finish(now);
            }
        }
    }

    /// Repeats the order until every addressed host has answered, then continues.
    pub(super) fn resend_order(&mut self, now: Moment, kind: OrderKind) {
        if kind == OrderKind::Commit
            && let Some(why) = self.failed_host()
            && (self.setup.revert || !self.batches.is_last())
        {
            return self.fail(&why);
        }

        let open = |h: &Host| match kind {
            OrderKind::Prepare | OrderKind::Commit => self.is_addressed(h) && !h.has_answered(kind),
            OrderKind::Abort | OrderKind::Revert => !h.has_answered(kind),
        };

        if !self.hosts.iter().any(|(_, h)| open(h)) && !self.still_asking(now, kind) {
            return self.on_all_answered(now, kind);
        }

        if let Some(order) = self.order.clone().filter(|_| self.repeat.0 <= now) {
            self.sent
                .extend(self.unsent.take().map(|order| (order, self.named.clone())));
            self.control.send(Dest::Group, &Message::Order(order));
            if self.asking.is_some() {
                // A restarted daemon knows no order, but its beacon shows its release.
                self.solicit(Dest::Group, false);
            }
            self.again(now);
        }
    }

    /// Returns whether to keep asking hosts that may have followed an order unheard. All others
    /// have answered the last order.
    fn still_asking(&mut self, now: Moment, kind: OrderKind) -> bool {
        let last = match kind {
            OrderKind::Prepare => false,
            OrderKind::Commit => self.batches.is_last(),
            OrderKind::Abort | OrderKind::Revert => true,
        };

        if !last
            || !self
                .hosts
                .iter()
                .any(|(_, h)| self.fate(h) == Fate::Unknown)
        {
            return false;
        }

        if self.asking.is_none() {
            self.asking = Some(now + LAST_ASK.min(self.setup.patience));
            self.repeat = (now, FIRST_RESEND);
        }

        self.asking.is_some_and(|until| now < until)
    }

    /// Continues after every host has answered the order.
    fn on_all_answered(&mut self, now: Moment, kind: OrderKind) {
        match kind {
            OrderKind::Prepare => match self.vote() {
                (ready, needed) if ready >= needed => {
                    self.decide(OrderKind::Commit, &self.vote_text())
                }
                _ => self.fail(&self.vote_text()),
            },
            OrderKind::Commit if !self.batches.is_last() => {
                self.batches.at += 1;
                self.start_batch();
            }
            OrderKind::Commit | OrderKind::Abort | OrderKind::Revert => self.finish(now),
        }
    }

    /// Returns a failure after a commit order: the host, and its explanation.
    fn failed_host(&self) -> Option<String> {
        self.hosts
            .iter()
            .filter(|(_, h)| h.ordered)
            .find_map(|(_, h)| {
                let why = match h.stage {
                    Some(HostStage::Unhealthy) => "is not healthy",
                    Some(HostStage::Failed) => "failed",
                    stage if h.lost && stage != Some(HostStage::Committed) => "stopped answering",
                    _ => return None,
                };
                Some(format!(
                    "{}: {}",
                    self.hosts.shown(h),
                    h.text.as_deref().unwrap_or(why)
                ))
            })
    }

    /// Reacts to a failed host: every host reverts, or no further host commits.
    fn fail(&mut self, why: &str) {
        self.failure.get_or_insert_with(|| why.to_string());
        let begun = self.hosts.iter().any(|(_, h)| h.ordered);

        // Without a revert, hosts keep the release: an abort addresses the others.
        self.decide(
            if begun && self.setup.revert {
                OrderKind::Revert
            } else {
                OrderKind::Abort
            },
            why,
        );
    }

    /// Returns the tolerated silence, and the tolerated time without progress. Before the decision
    /// a host may hash a large tree without reporting progress; afterwards an unready host only
    /// delays the report of the others.
    pub(super) fn patience(&self) -> (Duration, Duration) {
        let patience = self
            .setup
            .patience
            .max(alive_interval(self.hosts.len() as u32) * 4);

        match self.phase {
            SenderPhase::Ordering(_) => (patience, patience),
            _ => (patience, patience * WORKING_FACTOR),
        }
    }

    pub(super) fn finish(&mut self, now: Moment) {
        self.phase = SenderPhase::Farewell(FAREWELLS);
        self.repeat = (now, FAREWELL_GAP);
        self.tick(now);
    }

    pub(super) fn send_farewell(&mut self, now: Moment, left: u32) {
        if self.repeat.0 > now {
            return;
        }

        if self.offer.is_some() {
            self.send_status(now, Phase::Closed);
        }

        self.repeat.0 = now + FAREWELL_GAP;
        self.phase = if left > 1 && self.offer.is_some() {
            SenderPhase::Farewell(left - 1)
        } else {
            SenderPhase::Closed
        };

        if self.phase == SenderPhase::Closed {
            self.notices.push_back(SenderNotice::Finished);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(sizes: &[Quorum], hosts: usize) -> Vec<String> {
        let hosts = (1..=hosts)
            .rev()
            .map(|n| HostName::new(&format!("web{n}")).expect("legal"))
            .collect();
        Batches::plan(sizes, hosts)
            .bounds
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn batches_follow_the_order_of_names_and_the_last_takes_in_everybody() {
        let one = Quorum::Count(1);
        let half = Quorum::Share(5_000);
        assert_eq!(bounds(&[], 5), [""; 0]);
        assert_eq!(bounds(&[one], 5), ["web1"]);
        assert_eq!(bounds(&[one, half], 5), ["web1", "web4"]);
        assert_eq!(bounds(&[one, one, one, one, one, one], 3), ["web1", "web2"]);
        assert_eq!(bounds(&[Quorum::All, one], 5), [""; 0]);
        assert_eq!(bounds(&[half], 1), [""; 0]);

        assert_eq!(bounds(&[one], 0), [""; 0]);
    }
}
