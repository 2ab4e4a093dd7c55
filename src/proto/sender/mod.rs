//! A sender: one session, from discovery to the last host's answer.
//!
//! Phases, each with its own data in `SenderPhase`:
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

mod discovery;
pub mod drift;
mod effects;
pub mod fate;
pub mod flow;
pub mod generation;
pub mod hosts;
mod orders;
pub mod receiver_reports;
pub mod stream;
mod want_window;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::block::BlockHash;
use crate::id::{HostName, InstanceId, Nonce, Serial, SessionId, TreeName};
use crate::keys::KnownHosts;
use crate::manifest::{Intent, Release};
use crate::proto::compression::Demand;
use crate::proto::control::Control;
use crate::proto::datagram_size::min_datagram;
use crate::proto::freshness::Nonces;
use crate::proto::members::{Member, Table};
use crate::proto::receiver::matches_name;
use crate::proto::{Dest, RangeSet, Transmit, slot_interval};
use crate::units::{Floor, Moment, Quorum, Rate};
use crate::wire::fragment::Reassembly;
use crate::wire::message::{Announce, HostSet, Order, OrderKind, Shown, SignedOrder, Status, Want};
use crate::wire::{DATA_OVERHEAD, Datagram, HostStage, Message, Phase};

pub use effects::{SenderNotice, SenderReply, SenderRequest};

use drift::DriftCollection;
use flow::{Flow, FlowSetup};
use hosts::{Host, Hosts};
use orders::Batches;
use stream::SendStats;

/// Timeout of discovery, however many hosts have answered.
const DISCOVERY_TIMEOUT: Duration = Duration::from_millis(1500);
/// Timeout of discovery without any answer, or with fewer hosts than expected.
const DISCOVERY_TIMEOUT_EMPTY: Duration = Duration::from_millis(3000);
/// Time without new hosts after which all have answered: hosts that have just started do not know
/// each other yet.
const SETTLED_AFTER: Duration = Duration::from_millis(30);
/// Solicits to send before concluding that the largest datagrams do not reach a host.
const MIN_SOLICITS: u32 = 2;
/// First wait between solicits, announcements and orders; doubled each time.
const FIRST_RESEND: Duration = Duration::from_millis(60);
/// Longest wait between solicits, announcements and orders.
const MAX_RESEND: Duration = Duration::from_secs(1);
/// First wait between heartbeats after data; doubled each time.
const FIRST_HEARTBEAT: Duration = Duration::from_millis(10);
/// Longest wait between heartbeats.
const MAX_HEARTBEAT: Duration = Duration::from_millis(500);
/// Wait between heartbeats during data, which is no sign of life: twice within the silence that a
/// host tolerates.
const HEARTBEAT_WITH_DATA: Duration = Duration::from_millis(250);
/// Interval between scans for lost hosts and for a decision, if nothing happens.
const SWEEP_INTERVAL: Duration = Duration::from_millis(20);
/// Shortest interval between two scans, for each host beyond [`SWEEP_SMALL_FLEET`].
const SWEEP_PER_HOST: Duration = Duration::from_micros(1);
/// Largest fleet that is scanned at every change of a host.
const SWEEP_SMALL_FLEET: u32 = 64;
/// Number of farewells, against loss. A host that receives none closes its session later by itself.
const FAREWELLS: u32 = 3;
/// Wait between farewells.
const FAREWELL_GAP: Duration = Duration::from_millis(2);

/// Hosts that the user expects.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ExpectedHosts {
    /// Smallest number of hosts.
    pub count: usize,
    /// Names that must be among them.
    pub names: Vec<HostName>,
}

/// Parameters of a session.
#[derive(Debug, Clone)]
pub struct SenderSetup {
    /// Name of the sender's host.
    pub name: HostName,
    /// This process.
    pub instance: InstanceId,
    /// Seed of all randomness.
    pub seed: u64,
    /// Largest datagram, in bytes.
    pub datagram: usize,
    /// Tree of the release.
    pub tree: TreeName,
    /// Lists of globs on host names: a target matches one of each list. Without lists every host
    /// with the tree is a target.
    pub targets: Vec<Vec<String>>,
    /// A host excluded from the targets under any name: the one in this process, with the source as
    /// its tree.
    pub without: Option<InstanceId>,
    /// Fetch the lists of differences before a commit as well, not only in an audit.
    pub lists: bool,
    /// Expected hosts.
    pub expect: ExpectedHosts,
    /// Keys that hosts had before.
    pub known_hosts: KnownHosts,
    /// Exclude a host with another key than its name had before.
    pub strict: bool,
    /// Hosts in the preceding session a moment ago; 0 if unknown.
    pub known: usize,
    /// Hosts required to be ready.
    pub quorum: Quorum,
    /// Hosts that commit in the first batch, the second and so on; the rest commits in a last one.
    pub batches: Vec<Quorum>,
    /// Revert every host if one fails after the first commit.
    pub revert: bool,
    /// Silence after which a host is lost.
    pub patience: Duration,
    /// Bytes left free behind every datagram, see [`crate::wire::seal`].
    pub room: usize,
    /// Bytes added to each datagram by the network, sealing included.
    pub overhead: usize,
    /// Upper bound of the rate, overhead of the network included.
    pub ceiling: Option<Rate>,
    /// Rate below which a host is served after the others.
    pub floor: Floor,
    /// Make hosts read every file again.
    pub checksum: bool,
    /// Make hosts compare only the differences between their release and this one.
    pub quick: bool,
    /// Make hosts run their health checks even without changes.
    pub recheck: bool,
    /// Order by which the release was committed elsewhere. Hosts that lack the release commit by
    /// this order, each on its own, and no order is signed. Discovery is skipped: such hosts answer
    /// the announcement.
    pub grant: Option<SignedOrder>,
    /// Fleet size to assume before any host is heard.
    pub fleet: u32,
    /// For a partial release committed elsewhere: the serial that a host must run to take it.
    pub follows: Option<Serial>,
    /// The only host that such a release is offered to.
    pub only: Option<HostName>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SenderPhase {
    Discovering,
    Waiting,
    Serving,
    Collecting,
    Signing(OrderKind),
    Ordering(OrderKind),
    Farewell(u32),
    Closed,
}

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
    nonces: Nonces,
    /// Nonce that a live host echoes.
    nonce: Nonce,
    /// Hosts solicited individually a moment ago.
    challenged: VecDeque<(SocketAddr, Moment)>,
    /// Targets whose beacons proved nothing.
    unproven: BTreeSet<(HostName, IpAddr)>,
    /// Proofs of the serials that hosts claim.
    shown: BTreeMap<(Serial, BlockHash), Shown>,
    control: Control,
    reassembly: Reassembly,
    table: Table,
    hosts: Hosts,
    phase: SenderPhase,
    began: Moment,
    /// Solicits sent.
    solicits: u32,
    /// Time of the last solicit.
    solicited: Moment,
    /// Time at which a host was heard for the first time.
    newest: Moment,
    /// Time of the last tick.
    ticked: Moment,
    /// Time of the last scan of all hosts.
    swept: Moment,
    offer: Option<Offer>,
    order: Option<SignedOrder>,
    /// The present order, until first sent.
    unsent: Option<Order>,
    /// Orders sent, each with the named hosts.
    sent: Vec<(Order, Option<HostSet>)>,
    /// Deadline for asking hosts again that may have followed an order unheard.
    asking: Option<Moment>,
    /// Set when nothing was left to send as the last generation arrived.
    waited: bool,
    flow: Flow,
    /// Passes over the hosts so far; slow hosts are served in a later one.
    pass: u32,
    /// Time of the first pending want while the stream was idle.
    held: Option<Moment>,
    /// Time since which hosts can derive their next wants, from the announcement and later from
    /// manifest nodes.
    informed: Moment,
    drift: DriftCollection,
    listed: bool,
    repeat: (Moment, Duration),
    heartbeat: (Moment, Duration),
    /// Lowest serial that a host must have to take a partial release.
    after: Option<Serial>,
    /// Time of the last status.
    reported: Moment,
    failure: Option<String>,
    decision: Option<OrderKind>,
    batches: Batches,
    /// Hosts named by the present order; `None` for all.
    named: Option<HostSet>,
    requests: VecDeque<SenderRequest>,
    notices: VecDeque<SenderNotice>,
}

impl Sender {
    /// Creates a sender that starts with discovery.
    pub fn new(now: Moment, mut setup: SenderSetup) -> Self {
        let mut rng = fastrand::Rng::with_seed(setup.seed);
        let session = SessionId(rng.u64(..));
        let mut nonces = Nonces::new(setup.seed);
        Self {
            nonce: nonces.draw(),
            nonces,
            challenged: VecDeque::new(),
            unproven: BTreeSet::new(),
            shown: BTreeMap::new(),
            control: Control::new(setup.instance, setup.datagram, setup.room),
            reassembly: Reassembly::default(),
            table: Table::default(),
            hosts: Hosts::new(std::mem::take(&mut setup.known_hosts), setup.strict),
            phase: SenderPhase::Discovering,
            began: now,
            solicits: 0,
            solicited: now,
            newest: now,
            ticked: Moment(0),
            offer: None,
            order: None,
            unsent: None,
            sent: Vec::new(),
            asking: None,
            waited: false,
            flow: Flow::new(
                now,
                FlowSetup {
                    session,
                    datagram: setup.datagram,
                    instance: setup.instance,
                    room: setup.room,
                    overhead: setup.overhead,
                    ceiling: setup.ceiling,
                    floor: setup.floor,
                    seed: rng.u64(..),
                },
            ),
            pass: 0,
            held: None,
            informed: now,
            swept: now,
            drift: DriftCollection::default(),
            listed: false,
            repeat: (now, FIRST_RESEND),
            heartbeat: (now, FIRST_HEARTBEAT),
            after: None,
            reported: now,
            failure: None,
            decision: None,
            batches: Batches::default(),
            named: None,
            requests: VecDeque::new(),
            notices: VecDeque::new(),
            session,
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
        self.decision
    }

    /// Reason of the sender's own failure.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Offers the partial release only to hosts with at least serial `oldest`. Others, including
    /// late ones, catch up first.
    pub fn requires(&mut self, oldest: Serial) {
        self.after = Some(oldest);
    }

    /// Offers the release; call after discovery.
    pub fn announce(&mut self, now: Moment, release: Release, signature: Vec<u8>) {
        self.phase = SenderPhase::Serving;
        self.hosts.begin(now);
        self.fit_datagrams();
        self.offer = Some(Offer { release, signature });
        self.informed = now;
        self.began = now;
        self.repeat = (now, FIRST_RESEND);

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
        self.listed = true;
        self.drift = DriftCollection::new(&self.hosts);
        self.phase = SenderPhase::Collecting;
        self.tick(now);
    }

    /// Continues a deploy with the commit after its lists are complete.
    fn resume_serving(&mut self, now: Moment) {
        self.phase = SenderPhase::Serving;
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
            Message::Bye(_) => {
                self.table.farewell(source, from);
                if self.hosts.is_at(source, from)
                    && self.hosts.on_bye(source, self.awaited())
                    && let Some(host) = self.hosts.get(source)
                {
                    self.notices.push_back(SenderNotice::Lost(host.clone()));
                }
            }
            Message::State(state)
                if state.session == self.session
                    && self.accepts_state(now, source, from, &state.name) =>
            {
                let number = state.number;
                let nonce = state.nonce;
                let audit = self.is_audit();
                let taken = self.hosts.on_state(now, source, from, state, audit);
                self.report_other_keys();
                match taken {
                    // An unsigned answer is none.
                    None => {
                        let host = self
                            .hosts
                            .drop_unsigned(source)
                            .then(|| self.hosts.get(source))
                            .flatten();
                        self.notices.extend(host.cloned().map(SenderNotice::Lost));
                    }
                    Some(changed) => {
                        self.ack(source, from, number, nonce);
                        let host = self.hosts.get(source).filter(|_| changed);
                        self.notices.extend(host.cloned().map(SenderNotice::Host));
                    }
                }
            }
            Message::Want(want)
                if want.session == self.session
                    && self.hosts.on_sign_of_life(now, source, from) =>
            {
                let number = want.number;
                if self.on_want(now, source, want) {
                    self.ack(source, from, number, None);
                }
            }
            Message::Nack(nack)
                if nack.session == self.session
                    && self.hosts.on_sign_of_life(now, source, from) =>
            {
                self.flow.on_nack(now, source, &nack, self.hosts.len());
            }
            Message::Report(report)
                if report.session == self.session
                    && self.hosts.on_sign_of_life(now, source, from) =>
            {
                if self.flow.on_report(now, source, report)
                    && let Some(host) = self.hosts.get(source)
                {
                    let rate = Rate(self.flow.receivers().received(source));
                    self.notices
                        .push_back(SenderNotice::Slow(host.name.clone(), rate));
                }
            }
            Message::DriftPart(part)
                if part.session == self.session
                    && self.hosts.on_sign_of_life(now, source, from) =>
            {
                self.drift.on_part(source, &part)
            }
            _ => {}
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

    /// Takes a host's want: manifest nodes until the host has compared, then blocks if the host
    /// lacks any. An audit serves nodes only. Returns false for wants beyond that.
    fn on_want(&mut self, now: Moment, source: InstanceId, mut want: Want) -> bool {
        let audit = self.is_audit();
        let (Some(offer), Some(host)) = (&self.offer, self.hosts.get_mut(source)) else {
            return false;
        };

        let root = offer.release.header().root;
        let lacks = want
            .fetch
            .or(host.summary.map(|summary| summary.fetch))
            .unwrap_or_default()
            > 0;

        let all = if lacks && !audit {
            root.nodes + root.blocks
        } else {
            root.nodes
        };

        let is_done = host.stage.is_some_and(|stage| stage >= HostStage::Ready);
        want.ranges.0.retain(|range| range.start < all);
        if want.ranges.0.is_empty() || is_done {
            return false;
        }

        let nodes = want.ranges.0.first().is_none_or(|r| r.start < root.nodes);

        if !want.more {
            host.asked = if nodes {
                (true, host.asked.1)
            } else {
                (true, true)
            };
        }

        self.flow.on_want(source, &want, all);
        if !self.flow.stream().pending().is_empty() {
            self.held.get_or_insert(now);
        }

        true
    }

    /// Takes a reply.
    pub fn handle_reply(&mut self, now: Moment, reply: SenderReply) {
        match reply {
            SenderReply::Packed(Ok((ordinals, payload))) => {
                self.waited = !self.flow.stream().has_data();
                let nodes = self
                    .offer
                    .as_ref()
                    .map_or(0, |o| o.release.header().root.nodes);
                if ordinals.first().is_some_and(|first| first < nodes) {
                    self.informed = now;
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
                    hosts: self.named.clone(),
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
            SenderPhase::Discovering => self.solicit_hosts(now),
            SenderPhase::Serving => {
                self.resend_announcement(now);
                self.serve(now);
                if self.sweep(now) {
                    self.start_second_pass(now);
                    self.decide_if_due(now);
                }
            }
            SenderPhase::Collecting => {
                self.sweep(now);
                self.heartbeat_if_due(now);
                self.drift
                    .handle_timeout(now, self.session, &self.hosts, &mut self.control);
                if self.drift.is_done() {
                    match self.is_audit() {
                        true => self.finish(now),
                        false => self.resume_serving(now),
                    }
                }
            }
            SenderPhase::Signing(_) => self.heartbeat_if_due(now),
            SenderPhase::Ordering(kind) => {
                // After an abort the stream is stopped, so only the heartbeat remains.
                self.serve(now);
                if self.sweep(now) {
                    self.start_second_pass(now);
                }
                self.resend_order(now, kind);
            }
            SenderPhase::Farewell(left) => self.send_farewell(now, left),
            SenderPhase::Waiting | SenderPhase::Closed => {}
        }
    }

    /// Schedules the next repetition.
    fn again(&mut self, now: Moment) {
        self.repeat = (now + self.repeat.1, (self.repeat.1 * 2).min(MAX_RESEND));
    }

    fn resend_announcement(&mut self, now: Moment) {
        let Some(offer) = self.offer.as_ref().filter(|_| self.repeat.0 <= now) else {
            return;
        };

        let announce = Announce {
            session: self.session,
            sender: self.setup.name.clone(),
            header: offer.release.bytes().to_vec(),
            signature: offer.signature.clone(),
            symbol: (self.flow.stream().segment() - DATA_OVERHEAD) as u16,
            hosts: (self.hosts.len() as u32).max(self.setup.fleet),
            checksum: self.setup.checksum,
            quick: Some(true).filter(|_| self.setup.quick),
            recheck: Some(true).filter(|_| self.setup.recheck),
            grant: self.setup.grant.clone(),
            follows: self.setup.follows,
            only: self.setup.only.clone(),
            proves: Some(true),
            after: self.after,
        };

        self.control.send(Dest::Group, &Message::Announce(announce));
        self.again(now);
    }

    /// Scans all hosts after a change or at the interval: marks silent ones as lost and chooses
    /// reporters. Returns whether a scan was due.
    fn sweep(&mut self, now: Moment) -> bool {
        if now < self.sweep_due() {
            return false;
        }

        self.hosts.take_changed();
        self.swept = now;
        let (patience, stuck) = self.patience();
        let lost = self.hosts.expire(now, patience, stuck, self.awaited());
        self.notices
            .extend(lost.into_iter().map(SenderNotice::Lost));
        let slow = self.flow.receivers().slow();
        let fetching = self
            .hosts
            .iter()
            .filter(|(id, h)| !h.is_settled(false) && !slow.contains(id))
            .count();

        self.flow.set_fetching(fetching);
        if self.flow.choose_reporters(now, self.hosts.ids()) {
            self.send_status(now, self.wire_phase());
        }

        true
    }

    /// The order that hosts have to answer.
    fn awaited(&self) -> OrderKind {
        if let SenderPhase::Ordering(kind) = self.phase {
            kind
        } else {
            OrderKind::Commit
        }
    }

    /// Time of the next scan: soon after a change, but in a large fleet not at every message.
    fn sweep_due(&self) -> Moment {
        let least = SWEEP_PER_HOST * (self.hosts.len() as u32).saturating_sub(SWEEP_SMALL_FLEET);
        self.swept
            + if self.hosts.has_changed() {
                least.min(SWEEP_INTERVAL)
            } else {
                SWEEP_INTERVAL
            }
    }

    /// Serves the slow hosts once all others are done.
    fn start_second_pass(&mut self, now: Moment) {
        let slow = self.flow.receivers().slow();
        let open = |(id, h): (&InstanceId, &Host)| !h.is_settled(false) && !slow.contains(id);
        if slow.is_empty() || self.hosts.iter().any(open) {
            return;
        }

        self.flow.readmit(now);
        self.pass += 1;
        self.send_status(now, self.wire_phase());
    }

    fn wire_phase(&self) -> Phase {
        match self.phase {
            SenderPhase::Ordering(_) | SenderPhase::Signing(_) => Phase::Ordering,
            _ => Phase::Serving,
        }
    }

    fn serve(&mut self, now: Moment) {
        self.flow.handle_timeout(now);
        if !self.flow.stream().pending().is_empty() {
            self.held.get_or_insert(now);
        }

        if self.may_pack(now)
            && let Some((generation, ordinals)) = self.flow.stream_mut().next_to_pack()
        {
            let demand = Demand {
                rate: self.flow.rate(),
                waited: self.waited,
            };
            self.requests
                .push_back(SenderRequest::Pack(generation, ordinals, demand));
        }

        if self.flow.stream().pending().is_empty() {
            self.held = None;
        }

        self.heartbeat_if_due(now);
    }

    /// Returns whether the wants of all hosts about to ask are merged, or the wait is over.
    fn may_pack(&self, now: Moment) -> bool {
        // Repairs are no reason to pack: others may need the repaired blocks before they can ask.
        if self.flow.stream().is_fresh() {
            return true;
        }
        self.window_closes().is_some_and(|until| until <= now)
    }

    fn window_closes(&self) -> Option<Moment> {
        let offer = self.offer.as_ref()?;
        let held = self.held?;
        let nodes = offer.release.header().root.nodes;
        let is_nodes = self
            .flow
            .stream()
            .pending()
            .first()
            .is_some_and(|first| first < nodes);

        let working = self
            .hosts
            .iter()
            .filter(|(id, h)| !h.lost && !self.flow.receivers().is_slow(**id));

        Some(want_window::closes_at(
            self.ticked,
            self.informed,
            held,
            is_nodes,
            self.hosts.len() as u32,
            working.map(|(_, h)| h),
        ))
    }

    /// Sends the position of the stream: at even intervals during data, soon after data, then ever
    /// more rarely.
    fn heartbeat_if_due(&mut self, now: Moment) {
        if self.flow.stream().has_data() {
            self.heartbeat = (now + FIRST_HEARTBEAT, FIRST_HEARTBEAT);
            if self.reported + HEARTBEAT_WITH_DATA <= now {
                self.send_status(now, self.wire_phase());
            }
            return;
        }

        if self.heartbeat.0 <= now {
            self.heartbeat = (
                now + self.heartbeat.1,
                (self.heartbeat.1 * 2).min(MAX_HEARTBEAT),
            );
            self.send_status(now, self.wire_phase());
        }
    }

    fn send_status(&mut self, now: Moment, phase: Phase) {
        self.reported = now;
        let status = Status {
            session: self.session,
            phase,
            sent: self.flow.stream().sent(),
            hosts: self.hosts.len() as u32,
            counter: self.flow.stream().counter(),
            pass: self.pass,
            reporters: self.flow.receivers().reporters().to_vec(),
        };

        self.control.send(Dest::Group, &Message::Status(status));
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
            self.heartbeat = (now, FIRST_HEARTBEAT);
        }

        Some(transmit)
    }

    fn is_flowing(&self) -> bool {
        matches!(self.phase, SenderPhase::Serving | SenderPhase::Ordering(_))
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
        let sweep =
            (self.is_flowing() || self.phase == SenderPhase::Collecting).then(|| self.sweep_due());
        let beat = if self.flow.stream().has_data() {
            self.reported + HEARTBEAT_WITH_DATA
        } else {
            self.heartbeat.0
        };

        let beat = Some(beat);
        let own = match self.phase {
            SenderPhase::Discovering => {
                let turns = slot_interval(self.table.claimed() as u32) * 2;
                let most = self.began + DISCOVERY_TIMEOUT + turns;
                let empty = self.began + DISCOVERY_TIMEOUT_EMPTY + turns;
                let ends = [
                    self.newest + SETTLED_AFTER,
                    self.solicited + SETTLED_AFTER,
                    most,
                    empty,
                ];
                ends.into_iter()
                    .filter(|&at| at > self.ticked)
                    .chain([self.repeat.0])
                    .min()
            }
            SenderPhase::Serving => [Some(self.repeat.0), beat, self.window_timeout()]
                .into_iter()
                .flatten()
                .min(),
            SenderPhase::Ordering(_) => [Some(self.repeat.0), beat, self.window_timeout()]
                .into_iter()
                .flatten()
                .min(),
            SenderPhase::Collecting => [self.drift.timeout(now), beat].into_iter().flatten().min(),
            SenderPhase::Signing(_) => beat,
            SenderPhase::Farewell(_) => Some(self.repeat.0),
            SenderPhase::Waiting | SenderPhase::Closed => None,
        };

        [own, data, sweep].into_iter().flatten().min()
    }

    fn window_timeout(&self) -> Option<Moment> {
        if self.flow.stream().is_fresh() {
            return None;
        }
        self.window_closes().filter(|&until| until > self.ticked)
    }
}
