//! When hosts commit: the decision, the batches, and the way back.
//!
//! Once enough hosts are ready, each batch is asked first what its hosts run before a commit (`Prepare`, only when one of
//! them runs something) and then ordered to commit; the next one follows when all of it have answered well. A host that
//! fails, or falls silent, after the first commit ends that: no further batch commits, or every host goes back.

use std::collections::BTreeSet;
use std::time::Duration;

use super::fate::Fate;
use super::hosts::Host;
use super::{FAREWELL_GAP, FAREWELLS, Notice, Phase, REPEAT, Request, Sender};
use crate::id::HostName;
use crate::proto::{Dest, alive_interval};
use crate::units::{Moment, Quorum};
use crate::wire::message::{HostSet, MAX_NAMED, Order, OrderKind, SignedOrder};
use crate::wire::{HostStage, Message, Phase as WirePhase};

/// A quorum that is reached waits this long for others that make progress.
const STRAGGLERS: Duration = Duration::from_secs(3);
/// A release that nobody lacks after all is offered for this long.
const UNHEARD: Duration = Duration::from_secs(3);
/// A host that lacks what the sender lacks, too, is given this long for everything else.
const STALLED: Duration = Duration::from_secs(3);
/// Hosts that may have followed an order unheard are asked again for this long before the session ends.
const ASK_AGAIN: Duration = Duration::from_secs(3);
/// A host that is not ready and has been silent for so many times what it lets pass between signs of life has no part in
/// a commit that goes on without it.
const SILENT: u32 = 4;
/// How many times its patience a host that is alive may work without progress before the decision.
const WORKING: u32 = 10;

/// The batches of a commit, in the order of the hosts' names.
#[derive(Debug, Default)]
pub(super) struct Batches {
    /// The last host of each batch but the last one, which takes in everybody.
    bounds: Vec<HostName>,
    /// The present one.
    at: usize,
}

impl Batches {
    /// Batches of `sizes` of `hosts`, and a last one for the rest.
    fn plan(sizes: &[Quorum], mut hosts: Vec<HostName>) -> Self {
        hosts.sort();
        let (mut bounds, mut end) = (Vec::new(), 0);
        for size in sizes {
            let first = end;
            end += size.of(hosts.len());
            // Whoever is last anyway needs no batch of his own.
            if end >= hosts.len() {
                break;
            }
            // An order names only so many hosts: a larger batch is ordered in parts.
            let parts = (first + MAX_NAMED..end).step_by(MAX_NAMED).chain([end]);
            bounds.extend(parts.filter_map(|end| hosts.get(end - 1).cloned()));
        }

        Self { bounds, at: 0 }
    }

    /// The last host of the present batch; none when it is the last batch.
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
    /// Ends the session as early as it can be: before a commit hosts keep what they have; after it, as a failure does.
    pub fn abort(&mut self, now: Moment, why: &str) {
        match self.phase {
            Phase::Serving | Phase::Collecting => {
                self.failure.get_or_insert_with(|| why.to_string());
                match self.is_audit() || self.is_granted() {
                    // Nothing is staged anywhere, or each host goes its own way: there is nothing to abort.
                    true => self.finish(now),
                    false => self.decide(OrderKind::Abort, why),
                }
            }
            Phase::Ordering(OrderKind::Prepare) => self.fail(why),
            Phase::Ordering(OrderKind::Commit) if self.setup.revert || !self.batches.is_last() => {
                self.fail(why)
            }
            Phase::Discovering | Phase::Waiting => self.finish(now),
            _ => {}
        }
    }

    /// The order by which hosts committed the release, when no other followed.
    pub fn committed_by(&self) -> Option<&SignedOrder> {
        let has = |h: &Host| h.ordered && h.stage.is_some_and(HostStage::has_release);
        let done =
            self.decision == Some(OrderKind::Commit) && self.hosts.iter().any(|(_, h)| has(h));
        self.order.as_ref().filter(|_| done)
    }

    /// Decides when it is time.
    pub(super) fn weigh(&mut self, now: Moment) {
        if self.is_granted() {
            return self.weigh_granted(now);
        }

        let audit = self.is_audit();
        let slow = self.flow.readings().slow();
        let all = self.setup.quorum == Quorum::All;
        let open = self.hosts.iter().filter(|(_, h)| !h.is_settled(audit));

        // Who is served later is waited for only when nobody may be missing.
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
        let waiting = newest.is_some_and(|at| all || now.since(at) < STRAGGLERS);
        if (waiting && ready < self.hosts.len()) || (newest.is_some() && ready < needed) {
            return;
        }

        if ready >= needed && self.setup.lists && !self.listed {
            self.collect(now);
        } else if ready >= needed {
            // The order is not for hosts that have fallen silent.
            let silent = self
                .hosts
                .give_up(now, alive_interval(self.hosts.len() as u32) * SILENT);
            self.notices.extend(silent.into_iter().map(Notice::Lost));
            self.batches = Batches::plan(
                &self.setup.batches,
                self.hosts.iter().map(|(_, h)| h.name.clone()).collect(),
            );
            self.begin_batch();
        } else {
            self.decide(OrderKind::Abort, &self.count());
        }
    }

    /// Ends a session without orders when nobody needs it: all have the release, cannot take it or are gone.
    fn weigh_granted(&mut self, now: Moment) {
        // Who gets no further, when not all can be given, gets the rest elsewhere.
        let stalled = |h: &Host| self.failure.is_some() && now.since(h.progress) >= STALLED;
        let open = self
            .hosts
            .iter()
            .any(|(_, h)| !h.has_answered(OrderKind::Commit) && !stalled(h));
        let unheard = self.hosts.is_empty() && now.since(self.began) < UNHEARD;
        if !open && !unheard {
            self.finish(now);
        }
    }

    /// How many hosts can commit or have, and how many must.
    fn vote(&self) -> (usize, usize) {
        let ready = self.hosts.iter().filter(|(_, h)| h.is_good(false)).count();
        (ready, self.setup.quorum.of(self.hosts.voters()))
    }

    fn count(&self) -> String {
        let ((ready, needed), all) = (self.vote(), self.hosts.len());
        match ready >= needed {
            true => format!("{ready} of {all} hosts are ready"),
            false => format!("{ready} of {all} hosts are ready, {needed} are required"),
        }
    }

    /// Whether the present order to prepare or commit is for the host.
    fn takes_part(&self, host: &Host) -> bool {
        // The last batch leaves out the hosts that are named.
        self.named
            .as_ref()
            .is_none_or(|named| named.has(&host.name) != self.batches.is_last())
    }

    fn begin_batch(&mut self) {
        // While one batch was at it, hosts of the next ones may have been lost.
        let (ready, needed) = self.vote();
        if ready < needed {
            return self.fail(&self.count());
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

        self.decide(kind, &self.count());
    }

    fn decide(&mut self, kind: OrderKind, why: &str) {
        let Some(offer) = &self.offer else { return };
        self.phase = Phase::Signing(kind);

        // A beacon from before this order shows nothing of what became of the order.
        self.nonce = self.nonces.draw();
        self.hosts.forget_beacons();
        if matches!(kind, OrderKind::Abort | OrderKind::Revert) {
            self.flow.stream_mut().stop();
        }

        self.decision = Some(kind);
        if kind == OrderKind::Commit {
            self.hosts.order(|host| self.batches.has(host));
        }

        let mut order = Order::new(self.session, &offer.release, kind);
        self.named = None;
        if matches!(kind, OrderKind::Commit | OrderKind::Prepare) {
            let hosts = || self.hosts.iter().map(|(_, host)| host);
            if let Some(last) = self.batches.up_to() {
                // By name: a host that is away now must not take the release of a batch that fails.
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
            } else if let Some(silent) = self.silent() {
                order.except = Some(silent.hash());
                self.named = Some(silent);
            }
        }

        self.requests
            .push_back(Request::Sign(order.encode().into()));
        self.unsent = Some(order);
        self.asking = None;

        self.notices
            .push_back(Notice::Decided(kind, why.to_string()));
    }

    /// The hosts that are lost and were not ordered to commit yet: what they have is known as long as they are not.
    fn silent(&self) -> Option<HostSet> {
        let is_out = |h: &Host| h.lost && !h.ordered;
        let others: BTreeSet<&HostName> = self
            .hosts
            .iter()
            .filter(|(_, h)| !is_out(h))
            .map(|(_, h)| &h.name)
            .collect();

        // A name that a host has which takes part is that host's.
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

    /// The order is signed, or cannot be.
    pub(super) fn signed(&mut self, now: Moment, signed: Result<SignedOrder, String>) {
        match (signed, self.phase) {
            (Ok(order), Phase::Signing(kind)) => {
                self.phase = Phase::Ordering(kind);
                self.order = Some(order);
                self.repeat = (now, REPEAT / 2);
            }
            (Ok(_), _) => {}
            (Err(why), _) => {
                self.failure.get_or_insert(why);
                self.decision = None;
                self.finish(now);
            }
        }
    }

    /// Repeats the order until everybody whom it is for has answered, and goes on from there.
    pub(super) fn follow_order(&mut self, now: Moment, kind: OrderKind) {
        if kind == OrderKind::Commit
            && let Some(why) = self.trouble()
            && (self.setup.revert || !self.batches.is_last())
        {
            return self.fail(&why);
        }

        let open = |h: &Host| match kind {
            OrderKind::Prepare | OrderKind::Commit => self.takes_part(h) && !h.has_answered(kind),
            OrderKind::Abort | OrderKind::Revert => !h.has_answered(kind),
        };

        if !self.hosts.iter().any(|(_, h)| open(h)) && !self.asks_again(now, kind) {
            return self.answered(now, kind);
        }

        if let Some(order) = self.order.clone().filter(|_| self.repeat.0 <= now) {
            self.sent
                .extend(self.unsent.take().map(|order| (order, self.named.clone())));
            self.control.send(Dest::Group, &Message::Order(order));
            if self.asking.is_some() {
                // A daemon that was restarted knows no order: its beacon says what it has.
                self.solicit(Dest::Group, false);
            }
            self.again(now);
        }
    }

    /// Whether hosts that may have followed an order unheard are still asked. Everybody else has answered the last one.
    fn asks_again(&mut self, now: Moment, kind: OrderKind) -> bool {
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
            self.asking = Some(now + ASK_AGAIN.min(self.setup.patience));
            self.repeat = (now, REPEAT);
        }

        self.asking.is_some_and(|until| now < until)
    }

    /// Everybody has answered the order.
    fn answered(&mut self, now: Moment, kind: OrderKind) {
        match kind {
            OrderKind::Prepare => match self.vote() {
                (ready, needed) if ready >= needed => self.decide(OrderKind::Commit, &self.count()),
                _ => self.fail(&self.count()),
            },
            OrderKind::Commit if !self.batches.is_last() => {
                self.batches.at += 1;
                self.begin_batch();
            }
            OrderKind::Commit | OrderKind::Abort | OrderKind::Revert => self.finish(now),
        }
    }

    /// What went wrong at a host once it was ordered to commit: the host, and what it says.
    fn trouble(&self) -> Option<String> {
        self.hosts
            .iter()
            .filter(|(_, h)| h.ordered)
            .find_map(|(_, h)| {
                let why = match h.stage {
                    Some(HostStage::Unhealthy) => "it is not healthy",
                    Some(HostStage::Failed) => "it failed",
                    stage if h.lost && stage != Some(HostStage::Committed) => {
                        "did not answer any more"
                    }
                    _ => return None,
                };
                Some(format!(
                    "{}: {}",
                    self.hosts.shown(h),
                    h.text.as_deref().unwrap_or(why)
                ))
            })
    }

    /// A host failed: everyone goes back, or nobody else goes on.
    fn fail(&mut self, why: &str) {
        self.failure.get_or_insert_with(|| why.to_string());
        let begun = self.hosts.iter().any(|(_, h)| h.ordered);

        // Those that have the release keep it when it is not reverted: an abort is for the others.
        self.decide(
            if begun && self.setup.revert {
                OrderKind::Revert
            } else {
                OrderKind::Abort
            },
            why,
        );
    }

    /// How long a host may be silent, and how long alive without progress. Before the decision a host may hash a large
    /// tree without a word of progress; after it, who is not ready only keeps the others' report waiting.
    pub(super) fn patience(&self) -> (Duration, Duration) {
        let patience = self
            .setup
            .patience
            .max(alive_interval(self.hosts.len() as u32) * 4);

        match self.phase {
            Phase::Ordering(_) => (patience, patience),
            _ => (patience, patience * WORKING),
        }
    }

    pub(super) fn finish(&mut self, now: Moment) {
        self.phase = Phase::Farewell(FAREWELLS);
        self.repeat = (now, FAREWELL_GAP);
        self.tick(now);
    }

    pub(super) fn say_farewell(&mut self, now: Moment, left: u32) {
        if self.repeat.0 > now {
            return;
        }

        if self.offer.is_some() {
            self.send_status(now, WirePhase::Closed);
        }

        self.repeat.0 = now + FAREWELL_GAP;
        self.phase = if left > 1 && self.offer.is_some() {
            Phase::Farewell(left - 1)
        } else {
            Phase::Closed
        };

        if self.phase == Phase::Closed {
            self.notices.push_back(Notice::Finished);
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
        let (one, half) = (Quorum::Count(1), Quorum::Share(5_000));
        assert_eq!(bounds(&[], 5), [""; 0]);
        assert_eq!(bounds(&[one], 5), ["web1"]);
        assert_eq!(bounds(&[one, half], 5), ["web1", "web4"]);
        assert_eq!(bounds(&[one, one, one, one, one, one], 3), ["web1", "web2"]);
        assert_eq!(bounds(&[Quorum::All, one], 5), [""; 0]);
        assert_eq!(bounds(&[half], 1), [""; 0]);

        assert_eq!(bounds(&[one], 0), [""; 0]);
    }
}
