//! The decision of a session: when enough hosts are ready, which order comes next, and which hosts
//! an order names.

use std::collections::BTreeSet;
use std::time::Duration;

use super::audience::Audience;
use super::batches::Batches;
use super::hosts::{Host, Hosts, Patience};
use super::issued::{AddressedOrder, IssuedOrders};
use super::offer::Offer;
use super::setup::{CommitRules, SessionGoal};
use crate::id::{HostName, InstanceId};
use crate::proto::alive_interval;
use crate::units::{Moment, Quorum};
use crate::wire::HostStage;
use crate::wire::message::{HostSet, MAX_NAMED_HOSTS, OrderKind, SignedOrder};

/// Time that a reached quorum waits for further hosts with progress.
const STRAGGLER_WAIT: Duration = Duration::from_secs(3);
/// Time for everything else at a host that lacks the same blocks as the sender.
const STALLED_AFTER: Duration = Duration::from_secs(3);
/// Longest time to keep asking hosts that may have followed the last order, although no answer
/// arrived.
const LAST_ASK: Duration = Duration::from_secs(3);
/// Time without progress granted to a live host before the decision, as a multiple of the patience.
const WORKING_FACTOR: u32 = 10;

/// Hosts counted for a quorum.
#[derive(Debug, Clone, Copy)]
pub struct ReadyCount {
    /// Hosts that can commit or have.
    ready: usize,
    /// Hosts required.
    needed: usize,
}

impl ReadyCount {
    /// Returns whether the quorum is reached.
    pub fn is_enough(self) -> bool {
        self.ready >= self.needed
    }
}

/// Rules of the decision, and its orders.
#[derive(Debug)]
pub struct Decision {
    rules: CommitRules,
    /// Silence after which a host is lost.
    patience: Duration,
    issued: IssuedOrders,
    /// Reason of the sender's own failure.
    failure: Option<String>,
}

impl Decision {
    /// Creates the state of a session without orders.
    pub fn new(rules: CommitRules, patience: Duration) -> Self {
        Self {
            rules,
            patience,
            issued: IssuedOrders::default(),
            failure: None,
        }
    }

    /// Orders issued so far.
    pub fn issued(&self) -> &IssuedOrders {
        &self.issued
    }

    /// Mutable access to the issued orders.
    pub fn issued_mut(&mut self) -> &mut IssuedOrders {
        &mut self.issued
    }

    /// Reason of the sender's own failure.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Records a failure; the first one stays.
    pub fn on_failure(&mut self, why: &str) {
        self.failure.get_or_insert_with(|| why.to_string());
    }

    /// Returns whether the lists of differences are fetched before the commit.
    pub fn needs_lists(&self) -> bool {
        self.rules.lists
    }

    /// Order that the session works toward.
    pub fn goal(&self) -> SessionGoal {
        self.rules.goal
    }

    /// Returns whether hosts are to commit in the session.
    pub fn commits(&self) -> bool {
        matches!(
            self.rules.goal,
            SessionGoal::Commit | SessionGoal::CommitStaged
        )
    }

    /// Returns whether hosts have to be able to keep a release staged.
    pub fn needs_keepers(&self) -> bool {
        self.rules.goal != SessionGoal::Commit
    }

    /// The order that committed the release, unless another order followed.
    pub fn committed_by(&self, hosts: &Hosts) -> Option<&SignedOrder> {
        let has = |h: &Host| h.ordered && h.stage.is_some_and(HostStage::has_release);
        let committed =
            self.issued.decision() == Some(OrderKind::Commit) && hosts.iter().any(|(_, h)| has(h));
        self.issued.signed().filter(|_| committed)
    }

    /// Returns the time of the newest progress among awaited hosts; `None` once all are settled.
    pub fn newest_progress(
        &self,
        audit: bool,
        hosts: &Hosts,
        slow: &BTreeSet<InstanceId>,
    ) -> Option<Moment> {
        // Slow hosts are awaited only if every host is required.
        let all = self.requires_all();
        hosts
            .iter()
            .filter(|(id, h)| !h.is_settled(audit) && (all || !slow.contains(id)))
            .map(|(_, h)| h.progress)
            .max()
    }

    /// Returns whether to decide now, with the `newest` progress of an unsettled host.
    pub fn is_due(&self, now: Moment, newest: Option<Moment>, hosts: &Hosts) -> bool {
        let Some(newest) = newest else { return true };
        let vote = self.vote(hosts);
        let waits = self.requires_all() || now.since(newest) < STRAGGLER_WAIT;
        let is_complete = !waits || vote.ready >= hosts.len();
        is_complete && vote.is_enough()
    }

    fn requires_all(&self) -> bool {
        self.rules.quorum == Quorum::All
    }

    /// Returns whether some host still needs a release committed elsewhere.
    pub fn is_needed(&self, now: Moment, hosts: &Hosts) -> bool {
        // If some blocks are unreadable here, a stalled host gets the rest elsewhere.
        let stalled = |h: &Host| self.failure.is_some() && now.since(h.progress) >= STALLED_AFTER;
        hosts
            .iter()
            .any(|(_, h)| !h.has_answered(OrderKind::Commit) && !stalled(h))
    }

    /// Counts the hosts that can commit or have, and the required hosts.
    pub fn vote(&self, hosts: &Hosts) -> ReadyCount {
        ReadyCount {
            ready: hosts.iter().filter(|(_, h)| h.is_good(false)).count(),
            needed: self.rules.quorum.of(hosts.voters()),
        }
    }

    /// Describes the vote.
    pub fn vote_text(&self, hosts: &Hosts) -> String {
        let vote = self.vote(hosts);
        let ReadyCount { ready, needed } = vote;
        let all = hosts.len();
        match vote.is_enough() {
            true => format!("{ready} of {all} hosts are ready"),
            false => format!("{ready} of {all} hosts are ready, {needed} are required"),
        }
    }

    /// Plans the batches of the commit, with the labels of the hosts in the `audience`.
    pub fn plan_batches(&mut self, hosts: &Hosts, audience: &Audience) {
        let labelled = |(id, host): (&InstanceId, &Host)| {
            let labels = audience.hello_of(*id).map(|hello| hello.labels().clone());
            (host.name.clone(), labels.unwrap_or_default())
        };
        let hosts = hosts.iter().map(labelled).collect();
        self.issued.batches = Batches::plan(&self.rules.batches, hosts);
    }

    /// Returns the first order to the present batch: to prepare if a host has hooks.
    pub fn first_order(&self, hosts: &Hosts) -> OrderKind {
        let votes = |h: &Host| {
            h.stage == Some(HostStage::Ready) && h.summary.is_some_and(|s| s.votes == Some(true))
        };

        let has_votes = hosts
            .iter()
            .any(|(_, h)| self.issued.batches.has(h) && !h.is_lost() && votes(h));
        if has_votes {
            OrderKind::Prepare
        } else {
            OrderKind::Commit
        }
    }

    /// Returns whether a failed commit ends the rollout: by a revert, or by dropping later batches.
    pub fn reacts_to_failure(&self) -> bool {
        self.rules.revert || !self.issued.batches.is_last()
    }

    /// Returns the order after a failure: every host reverts, or no further host commits.
    pub fn order_after_failure(&self, hosts: &Hosts) -> OrderKind {
        let begun = hosts.iter().any(|(_, h)| h.ordered);

        // Without a revert, hosts keep the release: an abort addresses the others.
        if begun && self.rules.revert {
            OrderKind::Revert
        } else {
            OrderKind::Abort
        }
    }

    /// Returns the order to issue next, with its named hosts.
    pub fn address(&self, kind: OrderKind, offer: &Offer, hosts: &Hosts) -> Option<AddressedOrder> {
        let mut order = offer.order(kind)?;
        let mut named = None;
        if matches!(kind, OrderKind::Commit | OrderKind::Prepare) {
            let batches = &self.issued.batches;
            if !batches.is_last() {
                // By name: a host that is away now must not take the release of a failing batch.
                let hosts = self.batch_hosts(hosts);
                order.up_to = Some(batches.up_to());
                order.hosts = Some(hosts.hash());
                named = Some(hosts);
            } else if self.rules.names {
                // An older host knows only the range, which must not include others.
                let good = hosts.iter().filter(|(_, host)| host.is_good(false));
                order.up_to = good.map(|(_, host)| host.name.clone()).min();
                // A host that is held takes the release afterwards, by this order.
                let meant = hosts.iter().filter(|(_, h)| !h.is_lost() || h.ordered);
                let hosts = HostSet::of(meant.map(|(_, h)| &h.name));
                order.hosts = Some(hosts.hash());
                named = Some(hosts);
            } else if let Some(excluded) = excluded_hosts(hosts) {
                order.except = Some(excluded.hash());
                named = Some(excluded);
            }
        }

        Some(AddressedOrder { order, named })
    }

    /// Returns the hosts of the present batch that can commit.
    fn batch_hosts(&self, hosts: &Hosts) -> HostSet {
        let hosts = hosts.iter().map(|(_, host)| host);
        HostSet::of(
            hosts
                .filter(|h| self.issued.batches.has(h) && h.is_good(false))
                .map(|h| &h.name),
        )
    }

    /// Returns whether a host still has to answer the present order.
    pub fn is_open(&self, kind: OrderKind, hosts: &Hosts) -> bool {
        hosts.iter().any(|(_, h)| self.awaits(kind, h))
    }

    /// Returns whether the host still has to answer the present order.
    pub fn awaits(&self, kind: OrderKind, host: &Host) -> bool {
        let is_addressed = match kind {
            OrderKind::Prepare | OrderKind::Commit => self.issued.is_addressed(host),
            OrderKind::Abort | OrderKind::Revert | OrderKind::Stage => true,
        };
        is_addressed && !host.has_answered(kind)
    }

    /// Returns whether no order follows this one, once all hosts have answered.
    pub fn is_last_order(&self, kind: OrderKind) -> bool {
        match kind {
            OrderKind::Prepare => false,
            OrderKind::Commit => self.issued.batches.is_last(),
            OrderKind::Abort | OrderKind::Revert | OrderKind::Stage => true,
        }
    }

    /// How long to keep asking hosts that may have followed the last order, although no answer
    /// arrived.
    pub fn last_ask(&self) -> Duration {
        LAST_ASK.min(self.patience)
    }

    /// Returns the patience with a silent or stuck host. Before the decision a host may hash a
    /// large tree without reporting progress; once orders are out, `is_ordering`, an unready host
    /// only delays the report of the others.
    pub fn patience(&self, is_ordering: bool, hosts: &Hosts) -> Patience {
        let silent = self.patience.max(alive_interval(hosts.len() as u32) * 4);
        let factor = if is_ordering { 1 } else { WORKING_FACTOR };
        Patience {
            silent,
            stuck: silent * factor,
        }
    }
}

/// Returns the hosts that are lost and were never ordered to commit. Excluding them keeps their
/// state known.
fn excluded_hosts(hosts: &Hosts) -> Option<HostSet> {
    let is_out = |h: &Host| h.is_lost() && !h.ordered;
    let others: BTreeSet<&HostName> = hosts
        .iter()
        .filter(|(_, h)| !is_out(h))
        .map(|(_, h)| &h.name)
        .collect();

    // A name shared with a participating host belongs to that host.
    let silent: Vec<&HostName> = hosts
        .iter()
        .filter(|(_, h)| is_out(h))
        .map(|(_, h)| &h.name)
        .filter(|name| !others.contains(name))
        .collect();

    (1..=MAX_NAMED_HOSTS)
        .contains(&silent.len())
        .then(|| HostSet::of(silent.into_iter()))
}

/// Returns a failure after a commit order: the host, and its explanation.
pub fn failed_host(hosts: &Hosts) -> Option<String> {
    hosts.iter().filter(|(_, h)| h.ordered).find_map(|(_, h)| {
        let why = match h.stage {
            Some(HostStage::Unhealthy) => "is not healthy",
            Some(HostStage::Failed) => "failed",
            stage if h.is_lost() && stage != Some(HostStage::Committed) => "stopped answering",
            _ => return None,
        };

        let text = h.text.as_deref().unwrap_or(why);
        Some(format!("{}: {text}", hosts.shown(h)))
    })
}
