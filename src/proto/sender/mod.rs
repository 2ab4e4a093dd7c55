//! A sender: one session, from discovery to the last host's answer.
//!
//! Phases, each with its own data in [`SenderPhase`]:
//! - **Discovering**: solicits, and hosts answer. Ends when as many hosts have answered as the
//!   members claim to exist, or at the timeout.
//! - **Waiting**: the caller builds and signs the release. Ends with [`Sender::announce`].
//! - **Serving**: announces, merges wants, streams and repairs. Ends when every target is ready,
//!   out or lost; in an audit, when all have compared.
//! - **Collecting**: audits, and deploys on request, fetch each distinct drift report once. Ends
//!   when all reports are complete.
//! - **Signing**: the caller signs the order.
//! - **Ordering**: repeats the order, and still serves hosts that are not ready. Ends when every
//!   addressed host has answered or is lost; then the next batch follows, or the session ends (see
//!   [`orders`]).
//! - **Farewell**: sends a few farewells.
//! - **Closed**.

mod audience;
mod batches;
mod coded;
mod course;
mod decision;
mod discovery;
pub mod drift;
mod effects;
pub mod fate;
pub mod flow;
pub mod generation;
mod heartbeat;
mod host;
mod host_stats;
pub mod hosts;
mod issued;
mod key_check;
mod messages;
mod name_index;
mod offer;
mod orders;
mod phase;
mod proofs;
pub mod reach;
pub mod receiver_reports;
pub mod relays;
mod repeat_timer;
pub mod reporters;
mod serving;
mod setup;
mod step;
pub mod stream;
mod trial;
mod unicast_group;
mod want_window;

use crate::id::{InstanceId, Serial, SessionId};
use crate::keys::KnownHosts;
use crate::proto::Transmit;
use crate::proto::control::Control;
use crate::proto::members::Member;
use crate::units::{Moment, Rate};
use crate::wire::fragment::Reassembly;
use crate::wire::message::{Hello, OrderKind, SignedOrder, TreeState};

pub use batches::Batches;
pub use effects::{OrderSignature, PackedPayload, SenderNotice, SenderReply, SenderRequest};
pub use step::SessionStep;

pub use setup::{
    CommitRules, CompareRules, DatagramSizes, ExpectedHosts, KeyRules, RateLimits, ReleaseGrant,
    SenderSetup, SessionGoal, TargetRules,
};

use audience::Audience;
use decision::Decision;
use discovery::Discovery;
use drift::DriftCollection;
use effects::SenderOutputs;
use flow::{Flow, FlowSetup};
use hosts::{Host, Hosts};
use offer::Offer;
use phase::SenderPhase;
use proofs::Proofs;
use reach::{DataTargets, Reach, RosterView};
use serving::ContentService;
use stream::SendStats;

/// One session of a sender.
#[derive(Debug)]
pub struct Sender {
    session: SessionId,
    /// This process.
    instance: InstanceId,
    /// Sizes of datagrams on this machine's interface.
    sizes: DatagramSizes,
    phase: SenderPhase,
    /// Time of the last tick.
    ticked: Moment,
    reassembly: Reassembly,
    outputs: SenderOutputs,

    // Hosts
    audience: Audience,
    hosts: Hosts,
    reach: Reach,

    // Content
    offer: Offer,
    serving: ContentService,
    /// Drift reports, once requested.
    drift: Option<DriftCollection>,

    // Orders
    decision: Decision,
}

impl Sender {
    /// Creates a sender that starts with discovery.
    pub fn new(now: Moment, setup: SenderSetup) -> Self {
        let SenderSetup {
            instance, sizes, ..
        } = setup;

        let mut rng = fastrand::Rng::with_seed(setup.seed);
        let session = SessionId(rng.u64(..));
        let flow = FlowSetup {
            session,
            instance,
            sizes,
            rates: setup.rates,
            seed: rng.u64(..),
        };

        let control = Control::new(instance, sizes.datagram, sizes.room);
        let asking = setup.grant.as_ref().map(|grant| grant.asking.clone());
        let asking = asking.unwrap_or_default();
        Self {
            session,
            instance,
            sizes,
            phase: SenderPhase::Discovering(Discovery::new(now)),
            ticked: Moment(0),
            reassembly: Reassembly::default(),
            outputs: SenderOutputs::new(control),
            audience: Audience::new(setup.targets, Proofs::new(setup.seed), asking),
            hosts: Hosts::new(now, setup.keys),
            reach: Reach::new(session),
            offer: Offer::new(session, setup.name, setup.compare, setup.grant)
                .only_staged(setup.commit.goal.is_of_staged()),
            serving: ContentService::new(now, session, Flow::new(now, flow)),
            drift: None,
            decision: Decision::new(setup.commit, setup.patience),
        }
    }

    /// Session identifier.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// All members that answered.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.audience.members()
    }

    /// Hosts of the session.
    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.hosts.iter().map(|(_, h)| h)
    }

    /// Returns the state of the tree that each target claims.
    pub fn target_states(&self) -> impl Iterator<Item = (InstanceId, &Hello, &TreeState)> {
        self.hosts.iter().filter_map(|(&id, _)| {
            let hello = self.audience.hello_of(id)?;
            Some((id, hello, self.audience.state_of(id)?))
        })
    }

    /// Keys that hosts had before.
    pub fn known_hosts(&self) -> &KnownHosts {
        self.hosts.known()
    }

    /// Traffic so far.
    pub fn stats(&self) -> SendStats {
        self.serving.flow().stats()
    }

    /// Present rate.
    pub fn rate(&self) -> Rate {
        self.serving.flow().rate()
    }

    /// Complete drift reports, by identity.
    pub fn drift_reports(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.drift.iter().flat_map(DriftCollection::reports)
    }

    /// The decision.
    pub fn decision(&self) -> Option<OrderKind> {
        self.decision.issued().decision()
    }

    /// Returns whether the session is about a release that hosts keep staged.
    pub fn is_of_staged(&self) -> bool {
        self.offer.is_of_staged()
    }

    /// Reason of the sender's own failure.
    pub fn failure(&self) -> Option<&str> {
        self.decision.failure()
    }

    /// Offers the partial release only to hosts with at least serial `oldest`. Others, including
    /// late ones, catch up first.
    pub fn requires(&mut self, oldest: Serial) {
        self.offer.requires(oldest);
    }

    /// Takes a reply.
    pub fn handle_reply(&mut self, now: Moment, reply: SenderReply) {
        match reply {
            SenderReply::Packed(Ok(packed)) => {
                self.serving.on_packed(now, packed, &self.offer);
            }
            SenderReply::Packed(Err(why)) if self.offer.is_granted() => {
                // Send the readable part; other sources may have the rest.
                self.serving.on_unreadable(now);
                self.serving.flow_mut().stream_mut().mark_unreadable();
                self.decision.on_failure(&why);
            }
            SenderReply::Packed(Err(why)) => {
                self.serving.on_unreadable(now);
                self.serving.flow_mut().stream_mut().stop();
                self.abort(now, &why);
            }
            SenderReply::Signed(signed) => {
                let order = signed.map(|signed| SignedOrder {
                    order: signed.order.to_vec(),
                    signature: signed.signature,
                    hosts: self.decision.issued().named().cloned(),
                });
                self.on_signed(now, order);
            }
        }

        self.tick(now);
    }

    /// Takes the present roster and plans the ways to all hosts. Without a roster all are reached
    /// by multicast.
    pub fn set_roster(&mut self, now: Moment, roster: RosterView<'_>) {
        if self.reach.learn(now, roster) {
            let (apart, hearing) = self.reach.unicast_group();
            self.audience.set_unicast(apart, hearing);
            let copies = roster.distant + usize::from(roster.multicast);
            self.serving.flow_mut().set_message_copies(copies);
        }
        if self.is_flowing() && self.reach.is_due(now, self.hosts.len()) {
            self.plan_relays(now);
        }
    }

    fn plan_relays(&mut self, now: Moment) {
        let receivers = self.serving.flow().receivers();
        let is_served = |id, host: &Host| {
            let is_present = host.is_present(now, self.hosts.len()) && !receivers.is_away(now, id);
            is_present && !host.is_settled(false) && !receivers.is_slow(id)
        };
        if self.reach.plan(now, &self.hosts, is_served) {
            self.serving.flow_mut().set_reach(&self.reach);
        }

        let fetch = |host: &Host| host.summary.map_or(0, |summary| summary.fetch);
        let fetch = self.hosts.iter().map(|(_, host)| fetch(host)).max();
        let flow = self.serving.flow_mut();
        let has_content = !flow.stream().is_stopped();
        if !has_content || !flow.is_worth_relays(fetch.unwrap_or(0)) {
            return self.reach.schedule(now, false);
        }

        self.reach.tell(now, &self.hosts, &mut self.outputs.control);
        flow.choose_relays(now, &self.reach, &self.hosts);
    }

    /// Destinations of data for the group, and the number of their choice. `None` if all hosts are
    /// reached by multicast.
    pub fn data_targets(&self) -> Option<(u32, &DataTargets)> {
        let number = self.reach.data_number();
        (number > 0).then(|| (number, self.reach.data()))
    }

    /// Performs due work.
    pub fn handle_timeout(&mut self, now: Moment) {
        self.tick(now);
    }

    /// Writes the next datagrams into `out`: messages first, then data as pace and window allow.
    pub fn poll_transmit(&mut self, now: Moment, out: &mut Vec<u8>) -> Option<Transmit> {
        if let Some(transmit) = self.outputs.control.poll(out) {
            let flow = self.serving.flow_mut();
            flow.charge(now, out.len(), transmit.dest);
            return Some(transmit);
        }

        if !self.is_flowing() {
            return None;
        }

        let transmit = self.serving.flow_mut().poll(now, out)?;
        self.serving.on_sent(now);

        Some(transmit)
    }

    fn is_flowing(&self) -> bool {
        matches!(
            self.phase,
            SenderPhase::Serving(_) | SenderPhase::Ordering(_)
        )
    }

    /// Returns the next request.
    pub fn poll_request(&mut self) -> Option<SenderRequest> {
        self.outputs.poll_request()
    }

    /// Returns the next notice.
    pub fn poll_notice(&mut self) -> Option<SenderNotice> {
        self.outputs.poll_notice()
    }

    /// Time at which [`Sender::handle_timeout`] or [`Sender::poll_transmit`] is due; `None` if only
    /// an event continues the session.
    pub fn poll_timeout(&self, now: Moment) -> Option<Moment> {
        let flow = self.serving.flow();
        let data = self.is_flowing().then(|| flow.timeout(now)).flatten();
        let sweeps = self.is_flowing() || matches!(self.phase, SenderPhase::Collecting(_));
        let sweep = sweeps.then(|| self.hosts.sweep_due());
        let plan = self.reach.timeout().filter(|_| self.is_flowing());
        let beat = Some(self.serving.heartbeat_due());
        let window = || {
            self.serving
                .window_timeout(self.ticked, &self.offer, &self.hosts)
        };

        let earliest = |dues: [Option<Moment>; 3]| dues.into_iter().flatten().min();
        let own = match &self.phase {
            SenderPhase::Discovering(discovery) => {
                Some(discovery.timeout(self.ticked, &self.audience))
            }
            SenderPhase::Serving(announced) => {
                earliest([Some(announced.resend.due()), beat, window()])
            }
            SenderPhase::Ordering(ordering) => {
                earliest([Some(ordering.resend.due()), beat, window()])
            }
            SenderPhase::Collecting(_) => {
                let drift = self.drift.as_ref().and_then(|drift| drift.timeout(now));
                earliest([drift, beat, None])
            }
            SenderPhase::Signing(_) => beat,
            SenderPhase::Farewell(farewell) => Some(farewell.due),
            SenderPhase::Waiting | SenderPhase::Closed => None,
        };

        [own, data, sweep, plan].into_iter().flatten().min()
    }
}
