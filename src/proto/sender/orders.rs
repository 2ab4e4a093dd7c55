//! Orders of a session: the decision, the batches, and the revert.
//!
//! Once enough hosts are ready, each batch is first ordered to run its `before` hooks (`Prepare`,
//! only if a host has one), and then to commit. The next batch follows once all hosts of a batch
//! have answered well. A host that fails or falls silent after the first commit ends the
//! rollout: no further batch commits, or every host reverts.

use std::collections::BTreeSet;
use std::time::Duration;

use super::batches::Batches;
use super::fate::Fate;
use super::hosts::{Host, Patience};
use super::phase::{Farewell, Ordering, SenderPhase};
use super::{Sender, SenderNotice, SenderRequest};
use crate::id::HostName;
use crate::proto::{Dest, alive_interval};
use crate::units::{Moment, Quorum};
use crate::wire::message::{HostSet, MAX_NAMED_HOSTS, Order, OrderKind, SignedOrder};
use crate::wire::{HostStage, Message, StatusPhase};

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

/// Hosts counted for a quorum.
#[derive(Debug, Clone, Copy)]
struct ReadyCount {
    /// Hosts that can commit or have.
    ready: usize,
    /// Hosts required.
    needed: usize,
}

impl ReadyCount {
    fn is_enough(self) -> bool {
        self.ready >= self.needed
    }
}

impl Sender {
    /// Ends the session as early as possible. Before a commit hosts keep their present release;
    /// afterwards this acts like a failure.
    pub fn abort(&mut self, now: Moment, why: &str) {
        match self.phase {
            SenderPhase::Serving(_) | SenderPhase::Collecting(_) => {
                self.failure.get_or_insert_with(|| why.to_string());

                // In an audit nothing is staged anywhere, and with a grant each host commits on its
                // own: there is nothing to abort.
                if self.is_audit() || self.is_granted() {
                    self.finish(now);
                } else {
                    self.decide(OrderKind::Abort, why);
                }
            }
            SenderPhase::Ordering(ordering) => match ordering.kind {
                OrderKind::Prepare => self.fail(why),
                OrderKind::Commit if self.reacts_to_failure() => self.fail(why),
                OrderKind::Commit | OrderKind::Abort | OrderKind::Revert => {}
            },
            SenderPhase::Discovering(_) | SenderPhase::Waiting => self.finish(now),
            SenderPhase::Signing(_) | SenderPhase::Farewell(_) | SenderPhase::Closed => {}
        }
    }

    /// The order that committed the release, unless another order followed.
    pub fn committed_by(&self) -> Option<&SignedOrder> {
        let has = |h: &Host| h.ordered && h.stage.is_some_and(HostStage::has_release);
        let committed = self.issued.decision() == Some(OrderKind::Commit)
            && self.hosts.iter().any(|(_, h)| has(h));
        self.issued.signed().filter(|_| committed)
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

        let vote = self.vote();
        let waiting = newest.is_some_and(|at| all || now.since(at) < STRAGGLER_WAIT);
        if (waiting && vote.ready < self.hosts.len()) || (newest.is_some() && !vote.is_enough()) {
            return;
        }

        if !vote.is_enough() {
            self.decide(OrderKind::Abort, &self.vote_text());
        } else if self.setup.lists && !self.listed {
            self.collect(now);
        } else {
            // The order excludes hosts that have fallen silent.
            let silent = self.hosts.drop_silent(
                now,
                alive_interval(self.hosts.len() as u32) * SILENT_INTERVALS,
            );
            self.notices
                .extend(silent.into_iter().map(SenderNotice::Lost));
            self.issued.batches = Batches::plan(
                &self.setup.batches,
                self.hosts.iter().map(|(_, h)| h.name.clone()).collect(),
            );
            self.start_batch();
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
        let unheard = self.hosts.is_empty()
            && matches!(self.phase, SenderPhase::Serving(announced)
                if now.since(announced.since) < GRANT_OFFER);
        if !open && !unheard {
            self.finish(now);
        }
    }

    /// Counts the hosts that can commit or have, and the required hosts.
    fn vote(&self) -> ReadyCount {
        ReadyCount {
            ready: self.hosts.iter().filter(|(_, h)| h.is_good(false)).count(),
            needed: self.setup.quorum.of(self.hosts.voters()),
        }
    }

    fn vote_text(&self) -> String {
        let vote = self.vote();
        let ReadyCount { ready, needed } = vote;
        let all = self.hosts.len();
        match vote.is_enough() {
            true => format!("{ready} of {all} hosts are ready"),
            false => format!("{ready} of {all} hosts are ready, {needed} are required"),
        }
    }

    /// Returns whether a failed commit ends the rollout: by a revert, or by dropping later batches.
    fn reacts_to_failure(&self) -> bool {
        self.setup.revert || !self.issued.batches.is_last()
    }

    fn start_batch(&mut self) {
        // While the previous batch committed, hosts of later ones may have been lost.
        if !self.vote().is_enough() {
            return self.fail(&self.vote_text());
        }

        let votes = |h: &Host| {
            h.stage == Some(HostStage::Ready) && h.summary.is_some_and(|s| s.votes == Some(true))
        };

        let has_votes = self
            .hosts
            .iter()
            .any(|(_, h)| self.issued.batches.has(h) && !h.lost && votes(h));
        let kind = if has_votes {
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
        self.proofs.renew_nonce();
        self.hosts.forget_beacons();
        if matches!(kind, OrderKind::Abort | OrderKind::Revert) {
            self.flow.stream_mut().stop();
        }

        if kind == OrderKind::Commit {
            self.hosts
                .mark_ordered(|host| self.issued.batches.has(host));
        }

        let mut order = Order::new(self.session, &offer.release, kind);
        let mut named = None;
        if matches!(kind, OrderKind::Commit | OrderKind::Prepare) {
            if let Some(last) = self.issued.batches.up_to() {
                // By name: a host that is away now must not take the release of a failing batch.
                let hosts = self.batch_hosts();
                order.up_to = Some(last.clone());
                order.hosts = Some(hosts.hash());
                named = Some(hosts);
            } else if let Some(excluded) = self.excluded_hosts() {
                order.except = Some(excluded.hash());
                named = Some(excluded);
            }
        }

        self.requests
            .push_back(SenderRequest::Sign(order.encode().into()));
        self.issued.issue(order, named);
        self.notices
            .push_back(SenderNotice::Decided(kind, why.to_string()));
    }

    /// Returns the hosts of the present batch that can commit.
    fn batch_hosts(&self) -> HostSet {
        let hosts = self.hosts.iter().map(|(_, host)| host);
        HostSet::of(
            hosts
                .filter(|h| self.issued.batches.has(h) && h.is_good(false))
                .map(|h| &h.name),
        )
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
        (1..=MAX_NAMED_HOSTS)
            .contains(&silent.len())
            .then(|| HostSet::of(silent.into_iter()))
    }

    /// Takes the signed order, or the reason why signing failed.
    pub(super) fn on_signed(&mut self, now: Moment, signed: Result<SignedOrder, String>) {
        match (signed, self.phase) {
            (Ok(order), SenderPhase::Signing(kind)) => {
                self.phase = SenderPhase::Ordering(Ordering::new(now, kind));
                self.issued.on_signed(order);
            }
            (Ok(_), _) => {}
            (Err(why), _) => {
                self.failure.get_or_insert(why);
                self.issued.withdraw();
                self.finish(now);
            }
        }
    }

    /// Repeats the order until every addressed host has answered, then continues.
    pub(super) fn resend_order(&mut self, now: Moment, mut ordering: Ordering) {
        let kind = ordering.kind;
        if kind == OrderKind::Commit
            && let Some(why) = self.failed_host()
            && self.reacts_to_failure()
        {
            return self.fail(&why);
        }

        let open = |h: &Host| match kind {
            OrderKind::Prepare | OrderKind::Commit => {
                self.issued.is_addressed(h) && !h.has_answered(kind)
            }
            OrderKind::Abort | OrderKind::Revert => !h.has_answered(kind),
        };

        if !self.hosts.iter().any(|(_, h)| open(h)) && !self.still_asking(now, &mut ordering) {
            return self.on_all_answered(now, kind);
        }

        if let Some(order) = self.issued.signed().cloned()
            && ordering.resend.is_due(now)
        {
            self.issued.on_sent();
            self.control.send(Dest::Group, &Message::Order(order));
            if ordering.asking_until.is_some() {
                // A restarted daemon knows no order, but its beacon shows its release.
                self.solicit(Dest::Group, false);
            }
            ordering.resend.advance(now);
        }

        self.phase = SenderPhase::Ordering(ordering);
    }

    /// Returns whether to keep asking hosts that may have followed an order unheard. All others
    /// have answered the last order.
    fn still_asking(&self, now: Moment, ordering: &mut Ordering) -> bool {
        let last = match ordering.kind {
            OrderKind::Prepare => false,
            OrderKind::Commit => self.issued.batches.is_last(),
            OrderKind::Abort | OrderKind::Revert => true,
        };

        let unknown = |h: &Host| self.fate(h) == Fate::Unknown;
        if !last || !self.hosts.iter().any(|(_, h)| unknown(h)) {
            return false;
        }

        if ordering.asking_until.is_none() {
            ordering.ask_until(now, now + LAST_ASK.min(self.setup.patience));
        }

        ordering.asking_until.is_some_and(|until| now < until)
    }

    /// Continues after every host has answered the order.
    fn on_all_answered(&mut self, now: Moment, kind: OrderKind) {
        match kind {
            OrderKind::Prepare if self.vote().is_enough() => {
                self.decide(OrderKind::Commit, &self.vote_text());
            }
            OrderKind::Prepare => self.fail(&self.vote_text()),
            OrderKind::Commit if !self.issued.batches.is_last() => {
                self.issued.batches.advance();
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

    /// Returns the patience with a silent or stuck host. Before the decision a host may hash a
    /// large tree without reporting progress; afterwards an unready host only delays the report of
    /// the others.
    pub(super) fn patience(&self) -> Patience {
        let silent = self
            .setup
            .patience
            .max(alive_interval(self.hosts.len() as u32) * 4);
        let factor = match self.phase {
            SenderPhase::Ordering(_) => 1,
            _ => WORKING_FACTOR,
        };

        Patience {
            silent,
            stuck: silent * factor,
        }
    }

    /// Ends the session with farewells.
    pub(super) fn finish(&mut self, now: Moment) {
        self.phase = SenderPhase::Farewell(Farewell::new(now));
        self.tick(now);
    }

    /// Sends a due farewell; without an announced release the session closes at once.
    pub(super) fn send_farewell(&mut self, now: Moment, farewell: Farewell) {
        if farewell.due > now {
            return;
        }

        let is_announced = self.offer.is_some();
        if is_announced {
            self.send_status(now, StatusPhase::Closed);
        }

        match farewell.next(now).filter(|_| is_announced) {
            Some(next) => self.phase = SenderPhase::Farewell(next),
            None => {
                self.phase = SenderPhase::Closed;
                self.notices.push_back(SenderNotice::Finished);
            }
        }
    }
}
