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

mod batches;
mod discovery;
pub mod drift;
mod effects;
pub mod fate;
pub mod flow;
pub mod generation;
mod heartbeat;
mod host;
pub mod hosts;
mod issued;
mod orders;
mod phase;
mod proofs;
pub mod receiver_reports;
mod repeat_timer;
mod serving;
mod setup;
pub mod stream;
mod want_window;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::id::{HostName, InstanceId, Nonce, Serial, SessionId};
use crate::keys::KnownHosts;
use crate::manifest::{Intent, Release};
use crate::proto::control::Control;
use crate::proto::datagram_size::min_datagram;
use crate::proto::members::{Member, Table};
use crate::proto::receiver::matches_name;
use crate::proto::{Dest, RangeSet, Transmit};
use crate::units::{Moment, Rate};
use crate::wire::fragment::Reassembly;
use crate::wire::message::{OrderKind, ReceiverReport, SignedOrder, StageReport};
use crate::wire::{Datagram, Message};

pub use effects::{SenderNotice, SenderReply, SenderRequest};
pub use setup::{ExpectedHosts, SenderSetup};

use drift::DriftCollection;
use flow::{Flow, FlowSetup};
use heartbeat::Heartbeat;
use hosts::{Host, Hosts};
use issued::IssuedOrders;
use phase::{Announced, Discovery, SenderPhase};
use proofs::Proofs;
use stream::SendStats;
use want_window::WantWindow;

#[derive(Debug)]
struct Offer {
    release: Release,
    signature: Vec<u8>,
}

/// One session of a sender.
#[derive(Debug)]
pub struct Sender {
    setup: SenderSetup,
    session: SessionId,
    phase: SenderPhase,
    /// Time of the last tick.
    ticked: Moment,
    failure: Option<String>,
    requests: VecDeque<SenderRequest>,
    notices: VecDeque<SenderNotice>,

    // Messages
    control: Control,
    reassembly: Reassembly,
    heartbeat: Heartbeat,

    // Hosts
    table: Table,
    hosts: Hosts,
    proofs: Proofs,
    /// Time of the last scan of all hosts.
    swept: Moment,

    // Data
    offer: Option<Offer>,
    /// Lowest serial that a host must have to take a partial release.
    lowest_serial: Option<Serial>,
    flow: Flow,
    wants: WantWindow,
    /// Passes over the hosts so far; slow hosts are served in a later one.
    pass: u32,

    // Decision
    drift: DriftCollection,
    /// Set once the drift reports were requested.
    listed: bool,
    issued: IssuedOrders,
}

impl Sender {
    /// Creates a sender that starts with discovery.
    pub fn new(now: Moment, mut setup: SenderSetup) -> Self {
        let mut rng = fastrand::Rng::with_seed(setup.seed);
        let session = SessionId(rng.u64(..));
        let flow = FlowSetup {
            session,
            datagram: setup.datagram,
            instance: setup.instance,
            room: setup.room,
            overhead: setup.overhead,
            ceiling: setup.ceiling,
            floor: setup.floor,
            seed: rng.u64(..),
        };

        let known = std::mem::take(&mut setup.known_hosts);

        Self {
            session,
            phase: SenderPhase::Discovering(Discovery::new(now)),
            ticked: Moment(0),
            failure: None,
            requests: VecDeque::new(),
            notices: VecDeque::new(),
            control: Control::new(setup.instance, setup.datagram, setup.room),
            reassembly: Reassembly::default(),
            heartbeat: Heartbeat::new(now),
            table: Table::default(),
            hosts: Hosts::new(known, setup.strict),
            proofs: Proofs::new(setup.seed),
            swept: now,
            offer: None,
            lowest_serial: None,
            flow: Flow::new(now, flow),
            wants: WantWindow::new(now),
            pass: 0,
            drift: DriftCollection::default(),
            listed: false,
            issued: IssuedOrders::default(),
            setup,
        }
    }

    /// Session identifier.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// All members that answered.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.table.iter().map(|(_, m)| m)
    }

    /// Hosts of the session.
    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.hosts.iter().map(|(_, h)| h)
    }

    /// Keys that hosts had before.
    pub fn known_hosts(&self) -> &KnownHosts {
        self.hosts.known()
    }

    /// Traffic so far.
    pub fn stats(&self) -> SendStats {
        self.flow.stats()
    }

    /// Present rate.
    pub fn rate(&self) -> Rate {
        self.flow.rate()
    }

    /// Complete drift reports, by identity.
    pub fn drift_reports(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.drift.reports()
    }

    /// The decision.
    pub fn decision(&self) -> Option<OrderKind> {
        self.issued.decision()
    }

    /// Reason of the sender's own failure.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Offers the partial release only to hosts with at least serial `oldest`. Others, including
    /// late ones, catch up first.
    pub fn requires(&mut self, oldest: Serial) {
        self.lowest_serial = Some(oldest);
    }

    /// Offers the release; call after discovery.
    pub fn announce(&mut self, now: Moment, release: Release, signature: Vec<u8>) {
        self.phase = SenderPhase::Serving(Announced::new(now));
        self.hosts.begin(now);
        self.fit_datagrams();
        self.offer = Some(Offer { release, signature });
        self.wants.on_informed(now);

        self.tick(now);
    }

    /// Reduces the session's datagrams to the narrowest path.
    fn fit_datagrams(&mut self) {
        let Some((host, takes)) = self.hosts.narrowest() else {
            return;
        };

        let datagram = usize::from(takes).max(min_datagram(self.setup.room));
        if datagram < self.setup.datagram {
            self.notices.push_back(SenderNotice::Narrow {
                datagram,
                host: host.clone(),
            });
            self.flow.fit_datagram(datagram);
            self.control.fit(datagram);
        }
    }

    /// Fetches the differences after every host has compared.
    fn collect(&mut self, now: Moment) {
        let SenderPhase::Serving(announced) = self.phase else {
            return;
        };

        self.listed = true;
        self.drift = DriftCollection::new(&self.hosts);
        self.phase = SenderPhase::Collecting(announced);
        self.tick(now);
    }

    /// Continues a deploy with the commit after its lists are complete.
    fn resume_serving(&mut self, now: Moment, announced: Announced) {
        self.phase = SenderPhase::Serving(announced);
        self.decide_if_due(now);
    }

    /// Returns whether hosts commit by an order that came with the release.
    fn is_granted(&self) -> bool {
        self.setup.grant.is_some()
    }

    fn is_audit(&self) -> bool {
        self.offer
            .as_ref()
            .is_some_and(|o| o.release.header().intent == Intent::Audit)
    }

    /// Takes a datagram.
    pub fn handle_datagram(&mut self, now: Moment, from: SocketAddr, bytes: &[u8]) {
        if let Ok(Datagram::Control(front, piece)) = Datagram::parse(bytes)
            && front.source != self.setup.instance
            && let Some(whole) = self.reassembly.add(now, front.source, piece)
            && let Ok(message) = Message::decode(&whole)
        {
            self.on_message(now, from, front.source, message);
            self.tick(now);
        }
    }

    fn on_message(&mut self, now: Moment, from: SocketAddr, source: InstanceId, message: Message) {
        match message {
            Message::Hello(hello) => self.on_hello(now, from, source, hello),
            Message::Bye(_) => self.on_bye(from, source),
            Message::State(state)
                if state.session == self.session
                    && self.accepts_state(now, source, from, &state.name) =>
            {
                self.on_state(now, from, source, state);
            }

            Message::Want(want) if self.is_from_host(now, source, from, want.session) => {
                let number = want.number;
                if self.on_want(now, source, want) {
                    self.ack(source, from, number, None);
                }
            }
            Message::Nack(nack) if self.is_from_host(now, source, from, nack.session) => {
                self.flow.on_nack(now, source, &nack, self.hosts.len());
            }
            Message::Report(report) if self.is_from_host(now, source, from, report.session) => {
                self.on_report(now, source, report);
            }
            Message::DriftPart(part) if self.is_from_host(now, source, from, part.session) => {
                self.drift.on_part(source, &part);
            }
            _ => {}
        }
    }

    /// Returns whether a message belongs to this session and comes from a host's own address.
    fn is_from_host(
        &mut self,
        now: Moment,
        source: InstanceId,
        from: SocketAddr,
        session: SessionId,
    ) -> bool {
        session == self.session && self.hosts.on_sign_of_life(now, source, from)
    }

    fn on_bye(&mut self, from: SocketAddr, source: InstanceId) {
        self.table.on_bye(source, from);
        if self.hosts.is_at(source, from)
            && self.hosts.on_bye(source, self.awaited())
            && let Some(host) = self.hosts.get(source)
        {
            self.notices.push_back(SenderNotice::Lost(host.clone()));
        }
    }

    fn on_state(&mut self, now: Moment, from: SocketAddr, source: InstanceId, state: StageReport) {
        let number = state.number;
        let nonce = state.nonce;
        let taken = self
            .hosts
            .on_state(now, source, from, state, self.is_audit());
        self.report_other_keys();

        match taken {
            // An unsigned answer is none.
            None => {
                if self.hosts.drop_unsigned(source)
                    && let Some(host) = self.hosts.get(source)
                {
                    self.notices.push_back(SenderNotice::Lost(host.clone()));
                }
            }
            Some(changed) => {
                self.ack(source, from, number, nonce);
                let host = self.hosts.get(source).filter(|_| changed);
                self.notices.extend(host.cloned().map(SenderNotice::Host));
            }
        }
    }

    fn on_report(&mut self, now: Moment, source: InstanceId, report: ReceiverReport) {
        if self.flow.on_report(now, source, report)
            && let Some(host) = self.hosts.get(source)
        {
            let rate = Rate(self.flow.receivers().received(source));
            self.notices
                .push_back(SenderNotice::Slow(host.name.clone(), rate));
        }
    }

    /// Reports hosts with other keys than their names had before.
    fn report_other_keys(&mut self) {
        for (instance, other) in self.hosts.take_other_keys() {
            self.notices.push_back(SenderNotice::OtherKey(other));
            let excluded = self.hosts.get(instance).filter(|host| host.excluded);
            self.notices
                .extend(excluded.cloned().map(SenderNotice::Lost));
        }
    }

    /// Acknowledges a host's message and proves that this sender is alive.
    fn ack(&mut self, source: InstanceId, from: SocketAddr, number: u32, nonce: Option<Nonce>) {
        if (number != 0 || nonce.is_some()) && source != self.setup.instance {
            self.control
                .send(Dest::Host(from), &Message::Ack(self.session, number, nonce));
        }
    }

    /// Returns whether a host of this name is a target.
    fn is_named(&self, name: &HostName) -> bool {
        self.setup
            .targets
            .iter()
            .all(|list| list.iter().any(|t| matches_name(t, name.as_str())))
    }

    /// Returns whether to accept a host's state: from a target, and from the host's own address.
    fn accepts_state(
        &mut self,
        now: Moment,
        source: InstanceId,
        from: SocketAddr,
        name: &HostName,
    ) -> bool {
        let known = self.hosts.get(source).is_some();
        let is_host = source != self.setup.instance && self.setup.without != Some(source);
        is_host && self.is_named(name) && (!known || self.hosts.on_sign_of_life(now, source, from))
    }

    /// Takes a reply.
    pub fn handle_reply(&mut self, now: Moment, reply: SenderReply) {
        match reply {
            SenderReply::Packed(Ok((ordinals, payload))) => {
                let starved = !self.flow.stream().has_data();
                self.wants.on_packed(starved);
                let nodes = self
                    .offer
                    .as_ref()
                    .map_or(0, |o| o.release.header().root.nodes);
                if ordinals.first().is_some_and(|first| first < nodes) {
                    self.wants.on_informed(now);
                }
                self.flow.on_packed(ordinals, payload);
            }
            SenderReply::Packed(Err(why)) if self.is_granted() => {
                // Send the readable part; other sources may have the rest.
                self.flow.on_packed(RangeSet::default(), Arc::default());
                self.flow.stream_mut().mark_unreadable();
                self.failure.get_or_insert(why);
            }
            SenderReply::Packed(Err(why)) => {
                self.flow.on_packed(RangeSet::default(), Arc::default());
                self.flow.stream_mut().stop();
                self.abort(now, &why);
            }
            SenderReply::Signed(signed) => {
                let order = signed.map(|(order, signature)| SignedOrder {
                    order: order.to_vec(),
                    signature,
                    hosts: self.issued.named().cloned(),
                });
                self.on_signed(now, order);
            }
        }

        self.tick(now);
    }

    /// Performs due work.
    pub fn handle_timeout(&mut self, now: Moment) {
        self.tick(now);
    }

    fn tick(&mut self, now: Moment) {
        self.ticked = now;

        match self.phase {
            SenderPhase::Discovering(discovery) => self.solicit_hosts(now, discovery),
            SenderPhase::Serving(_) => {
                self.resend_announcement(now);
                self.serve(now);
                if self.sweep(now) {
                    self.start_second_pass(now);
                    self.decide_if_due(now);
                }
            }
            SenderPhase::Collecting(announced) => {
                self.sweep(now);
                self.heartbeat_if_due(now);
                self.drift
                    .handle_timeout(now, self.session, &self.hosts, &mut self.control);

                match (self.drift.is_done(), self.is_audit()) {
                    (true, true) => self.finish(now),
                    (true, false) => self.resume_serving(now, announced),
                    (false, _) => {}
                }
            }
            SenderPhase::Signing(_) => self.heartbeat_if_due(now),
            SenderPhase::Ordering(ordering) => {
                // After an abort the stream is stopped, so only the heartbeat remains.
                self.serve(now);
                if self.sweep(now) {
                    self.start_second_pass(now);
                }
                self.resend_order(now, ordering);
            }
            SenderPhase::Farewell(farewell) => self.send_farewell(now, farewell),
            SenderPhase::Waiting | SenderPhase::Closed => {}
        }
    }

    /// Writes the next datagrams into `out`: messages first, then data as pace and window allow.
    pub fn poll_transmit(&mut self, now: Moment, out: &mut Vec<u8>) -> Option<Transmit> {
        if let Some(transmit) = self.control.poll(out) {
            self.flow.charge(now, out.len());
            return Some(transmit);
        }

        if !self.is_flowing() {
            return None;
        }

        let transmit = self.flow.poll(now, out)?;
        if !self.flow.stream().has_data() {
            // Report the end of the data at once, so that a loss at the end is noticed.
            self.heartbeat.on_end_of_data(now);
        }

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
        self.requests.pop_front()
    }

    /// Returns the next notice.
    pub fn poll_notice(&mut self) -> Option<SenderNotice> {
        self.notices.pop_front()
    }

    /// Time at which [`Sender::handle_timeout`] or [`Sender::poll_transmit`] is due; `None` if only
    /// an event continues the session.
    pub fn poll_timeout(&self, now: Moment) -> Option<Moment> {
        let data = self.is_flowing().then(|| self.flow.timeout(now)).flatten();
        let sweeps = self.is_flowing() || matches!(self.phase, SenderPhase::Collecting(_));
        let sweep = sweeps.then(|| self.sweep_due());
        let beat = Some(self.heartbeat.due(self.flow.stream().has_data()));

        let earliest = |dues: [Option<Moment>; 3]| dues.into_iter().flatten().min();
        let own = match &self.phase {
            SenderPhase::Discovering(discovery) => Some(self.discovery_timeout(discovery)),
            SenderPhase::Serving(announced) => {
                earliest([Some(announced.resend.due()), beat, self.window_timeout()])
            }
            SenderPhase::Ordering(ordering) => {
                earliest([Some(ordering.resend.due()), beat, self.window_timeout()])
            }
            SenderPhase::Collecting(_) => earliest([self.drift.timeout(now), beat, None]),
            SenderPhase::Signing(_) => beat,
            SenderPhase::Farewell(farewell) => Some(farewell.due),
            SenderPhase::Waiting | SenderPhase::Closed => None,
        };

        earliest([own, data, sweep])
    }
}
