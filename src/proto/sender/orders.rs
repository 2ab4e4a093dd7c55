//! Orders of a session: the decision, the batches, and the revert.
//!
//! Once enough hosts are ready, each batch is first ordered to run its `before` hooks (`Prepare`,
//! only if a host has one), and then to commit. The next batch follows once all hosts of a batch
//! have answered well. A host that fails or falls silent after the first commit ends the
//! rollout: no further batch commits, or every host reverts.
//!
//! A session that stages gives one order at that point and ends: hosts keep the release. A later
//! session commits it in the same way, or aborts it at once.

use std::time::Duration;

use super::decision::failed_host;
use super::fate::Fate;
use super::hosts::Host;
use super::phase::{Farewell, Ordering, SenderPhase};
use super::{Sender, SenderNotice, SenderRequest, SessionGoal};
use crate::proto::{Dest, alive_interval};
use crate::units::Moment;
use crate::wire::message::{Order, OrderKind, SignedOrder};
use crate::wire::{HostStage, Message, StatusPhase};

/// Time for which a release is offered that no host turns out to lack.
const GRANT_OFFER: Duration = Duration::from_secs(3);
/// Silence after which an unready host is excluded from a commit, as a multiple of the interval
/// between signs of life.
const SILENT_INTERVALS: u32 = 4;

impl Sender {
    /// Ends the session as early as possible. Before a commit hosts keep their present release;
    /// afterwards this acts like a failure.
    pub fn abort(&mut self, now: Moment, why: &str) {
        match self.phase {
            SenderPhase::Serving(_) | SenderPhase::Collecting(_) => {
                self.decision.on_failure(why);

                // In an audit nothing is staged anywhere; with a grant each host commits on its
                // own; a release that was staged before stays staged.
                let offer = &self.offer;
                if offer.is_audit() || offer.is_granted() || offer.is_of_staged() {
                    self.finish(now);
                } else {
                    self.decide(OrderKind::Abort, why);
                }
            }
            SenderPhase::Ordering(ordering) => match ordering.kind {
                OrderKind::Prepare => self.fail(now, why),
                OrderKind::Commit if self.decision.reacts_to_failure() => self.fail(now, why),
                OrderKind::Commit | OrderKind::Abort | OrderKind::Revert | OrderKind::Stage => {}
            },
            SenderPhase::Discovering(_) | SenderPhase::Waiting => self.finish(now),
            SenderPhase::Signing(_) | SenderPhase::Farewell(_) | SenderPhase::Closed => {}
        }
    }

    /// The order that committed the release, unless another order followed.
    pub fn committed_by(&self) -> Option<&SignedOrder> {
        self.decision.committed_by(&self.hosts)
    }

    /// Decides, if the time has come.
    pub(super) fn decide_if_due(&mut self, now: Moment) {
        if self.offer.is_granted() {
            return self.finish_granted_if_due(now);
        }

        if self.decision.goal() == SessionGoal::AbortStaged {
            return self.abort_staged_if_due();
        }

        let audit = self.offer.is_audit();
        let slow = self.serving.flow().receivers().slow();
        let newest = self.decision.newest_progress(audit, &self.hosts, slow);
        if audit {
            if newest.is_none() {
                self.collect(now);
            }
            return;
        }

        if !self.decision.is_due(now, newest, &self.hosts) {
            return;
        }

        if !self.decision.vote(&self.hosts).is_enough() {
            self.decide_without_quorum(now);
        } else if self.decision.needs_lists() && self.drift.is_none() {
            self.collect(now);
        } else if self.decision.goal() == SessionGoal::Stage {
            self.decide(OrderKind::Stage, &self.vote_text());
        } else {
            self.start_commit(now);
        }
    }

    /// Ends a session without enough ready hosts. A release that was staged before stays staged.
    fn decide_without_quorum(&mut self, now: Moment) {
        let why = self.vote_text();
        if self.offer.is_of_staged() {
            self.decision.on_failure(&why);
            self.finish(now);
        } else {
            self.decide(OrderKind::Abort, &why);
        }
    }

    /// Aborts a staged release once every host has checked the offer or is lost. A host that heard
    /// the order first would refuse the offer.
    fn abort_staged_if_due(&mut self) {
        let has_answered = |host: &Host| host.is_lost() || host.stage > Some(HostStage::Joined);
        if self.hosts.iter().all(|(_, host)| has_answered(host)) {
            self.decide(OrderKind::Abort, "ordered by its sender");
        }
    }

    /// Ends a session without orders once no host needs the release: all have committed, refused or
    /// are gone.
    fn finish_granted_if_due(&mut self, now: Moment) {
        let unheard = self.hosts.is_empty()
            && matches!(self.phase, SenderPhase::Serving(announced)
                if now.since(announced.since) < GRANT_OFFER);
        if !unheard && !self.decision.is_needed(now, &self.hosts) {
            self.finish(now);
        }
    }

    /// Starts the first batch. Its order excludes hosts that have fallen silent.
    fn start_commit(&mut self, now: Moment) {
        let silence = alive_interval(self.hosts.len() as u32) * SILENT_INTERVALS;
        let silent = self.hosts.drop_silent(now, silence);
        self.outputs.notify_lost(silent);
        self.decision.plan_batches(&self.hosts, &self.audience);
        self.start_batch(now);
    }

    fn start_batch(&mut self, now: Moment) {
        // While the previous batch committed, hosts of later ones may have been lost.
        if !self.decision.vote(&self.hosts).is_enough() {
            return self.fail(now, &self.vote_text());
        }

        self.decide(self.decision.first_order(&self.hosts), &self.vote_text());
    }

    fn vote_text(&self) -> String {
        self.decision.vote_text(&self.hosts)
    }

    fn decide(&mut self, kind: OrderKind, why: &str) {
        if self.offer.release().is_none() {
            return;
        }

        self.phase = SenderPhase::Signing(kind);

        // A beacon from before this order shows nothing of its outcome.
        self.audience.renew_nonce();
        self.hosts.forget_beacons();
        if matches!(kind, OrderKind::Abort | OrderKind::Revert) {
            self.serving.flow_mut().stream_mut().stop();
        }

        if kind == OrderKind::Commit {
            let batches = &self.decision.issued().batches;
            self.hosts.mark_ordered(|host| batches.has(host));
        }

        let Some(addressed) = self.decision.address(kind, &self.offer, &self.hosts) else {
            return;
        };

        let bytes = addressed.order.encode().into();
        self.outputs.request(SenderRequest::Sign(bytes));
        self.decision.issued_mut().issue(addressed);
        self.outputs
            .notify(SenderNotice::Decided(kind, why.to_string()));
    }

    /// Takes the signed order, or the reason why signing failed.
    pub(super) fn on_signed(&mut self, now: Moment, signed: Result<SignedOrder, String>) {
        match (signed, self.phase) {
            (Ok(order), SenderPhase::Signing(kind)) => {
                self.phase = SenderPhase::Ordering(Ordering::new(now, kind));
                self.decision.issued_mut().on_signed(order);
            }
            (Ok(_), _) => {}
            (Err(why), _) => {
                self.decision.on_failure(&why);
                self.decision.issued_mut().withdraw();
                self.finish(now);
            }
        }
    }

    /// Repeats the order until every addressed host has answered, then continues.
    pub(super) fn resend_order(&mut self, now: Moment, mut ordering: Ordering) {
        let kind = ordering.kind;
        if kind == OrderKind::Commit
            && let Some(why) = failed_host(&self.hosts)
            && self.decision.reacts_to_failure()
        {
            return self.fail(now, &why);
        }

        if !self.decision.is_open(kind, &self.hosts) && !self.still_asking(now, &mut ordering) {
            return self.on_all_answered(now, kind);
        }

        if ordering.resend.is_due(now)
            && let Some(order) = self.decision.issued().signed().cloned()
        {
            self.decision.issued_mut().on_sent();
            self.send_order(now, &ordering, order);
            ordering.is_repeated = true;
            ordering.resend.advance(now + self.audience.repeat_wait());
        }

        self.phase = SenderPhase::Ordering(ordering);
    }

    /// Sends the order: first to all, then to those that have not followed yet.
    fn send_order(&mut self, now: Moment, ordering: &Ordering, order: SignedOrder) {
        let kind = ordering.kind;
        let is_of_batch = matches!(kind, OrderKind::Prepare | OrderKind::Commit);
        let issued = self.decision.issued();
        let has_it =
            |host: &Host| host.has_followed(kind) || (is_of_batch && !issued.is_addressed(host));

        let dests = match ordering.is_repeated {
            true => self.audience.dests(now, &self.hosts, has_it),
            false => vec![Dest::Group],
        };
        let message = Message::Order(order);
        let control = &mut self.outputs.control;
        for dest in dests {
            control.send(dest, &message);
            if ordering.asking_until.is_some() {
                // A restarted daemon knows no order, but its beacon shows its release.
                self.audience.solicit(control, dest, false);
            }
        }
    }

    /// Returns whether to keep asking hosts that may have followed an order, although no answer
    /// arrived. All others have answered the last order.
    fn still_asking(&self, now: Moment, ordering: &mut Ordering) -> bool {
        let unknown = |h: &Host| self.fate(h) == Fate::Unknown;
        if !self.decision.is_last_order(ordering.kind)
            || !self.hosts.iter().any(|(_, h)| unknown(h))
        {
            return false;
        }

        if ordering.asking_until.is_none() {
            ordering.ask_until(now, now + self.decision.last_ask());
        }

        ordering.asking_until.is_some_and(|until| now < until)
    }

    /// Continues after every host has answered the order.
    fn on_all_answered(&mut self, now: Moment, kind: OrderKind) {
        match kind {
            OrderKind::Prepare if self.decision.vote(&self.hosts).is_enough() => {
                self.decide(OrderKind::Commit, &self.vote_text());
            }
            OrderKind::Prepare => self.fail(now, &self.vote_text()),
            OrderKind::Commit if !self.decision.is_last_order(kind) => {
                self.decision.issued_mut().batches.advance();
                self.start_batch(now);
            }
            OrderKind::Commit | OrderKind::Abort | OrderKind::Revert | OrderKind::Stage => {
                self.finish(now);
            }
        }
    }

    /// Reacts to a failed host. A release that was staged before stays staged, unless a host was
    /// ordered to commit it.
    fn fail(&mut self, now: Moment, why: &str) {
        self.decision.on_failure(why);
        let has_begun = self.hosts.iter().any(|(_, host)| host.ordered);
        if self.offer.is_of_staged() && !has_begun {
            return self.finish(now);
        }
        self.decide(self.decision.order_after_failure(&self.hosts), why);
    }

    /// Ends the session with farewells.
    pub(super) fn finish(&mut self, now: Moment) {
        self.phase = SenderPhase::Farewell(Farewell::new(now));
        self.tick(now);
    }

    /// Repeats the order to commit a release that was staged before, if it is for all hosts: those
    /// that have the release take no part, and keep the order for hosts that were away.
    fn repeat_open_order(&mut self) {
        let of_staged = self.committed_by().filter(|_| self.offer.is_of_staged());
        let is_for_all = |signed: &&SignedOrder| {
            Order::decode(&signed.order).is_some_and(|order| order.commits_everywhere())
        };
        if let Some(order) = of_staged.filter(is_for_all).cloned() {
            let message = Message::Order(order);
            self.outputs.control.send(Dest::Group, &message);
        }
    }

    /// Sends a due farewell; without an announced release the session closes at once.
    pub(super) fn send_farewell(&mut self, now: Moment, farewell: Farewell) {
        if farewell.due > now {
            return;
        }

        let is_announced = self.offer.release().is_some();
        if is_announced {
            self.repeat_open_order();
            self.send_status(now, StatusPhase::Closed);
        }

        match farewell.next(now).filter(|_| is_announced) {
            Some(next) => self.phase = SenderPhase::Farewell(next),
            None => {
                self.phase = SenderPhase::Closed;
                self.outputs.notify(SenderNotice::Finished);
            }
        }
    }
}
