//! A sender: one session from discovery to the last host's answer.
//!
//! | phase | what happens | leaves when |
//! |---|---|---|
//! | Discovering | solicits; hosts answer | as many answered as the hosts themselves know of, or time is up |
//! | Waiting | the release is being made and signed | [`Sender::announce`] |
//! | Serving | announces; merges wants; streams; repairs | every target is ready, out or lost; or an audit is compared |
//! | Collecting | an audit only: fetches each distinct drift report once | all are here |
//! | Signing | the order is being signed | `Signed` |
//! | Ordering | repeats the order; still serves hosts that are not ready | every host has answered or is lost |
//! | Closed | | |

pub mod drift;
pub mod hosts;
pub mod stream;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::id::{Generation, HostName, InstanceId, Serial, SessionId, TreeName};
use crate::manifest::{Intent, Release};
use crate::proto::control::Control;
use crate::proto::effort::Demand;
use crate::proto::members::{Member, Table};
use crate::proto::rate::{Controller, Pacer};
use crate::proto::receiver::matches_name;
use crate::proto::{Dest, RangeSet, Transmit, alive_interval, spread};
use crate::units::{Moment, Quorum, Rate};
use crate::wire::fragment::Reassembly;
use crate::wire::message::{Announce, Hello, Order, OrderKind, SignedOrder, Status};
use crate::wire::{DATA_OVERHEAD, Datagram, HostStage, Message, Phase as WirePhase};

use drift::Collection;
use hosts::{Host, Hosts};
use stream::{Stats, Stream};

/// Discovery ends after this, whoever has answered.
const DISCOVERY: Duration = Duration::from_millis(1500);
/// Discovery without any answer, or with fewer than expected, ends after this.
const DISCOVERY_EMPTY: Duration = Duration::from_millis(3000);
/// Hosts that have just started do not know of each other yet: nobody new for this long means that all have answered.
const QUIET: Duration = Duration::from_millis(30);
/// The first wait between solicits, announcements and orders; doubled each time.
const REPEAT: Duration = Duration::from_millis(60);
/// The longest wait between them.
const REPEAT_MAX: Duration = Duration::from_secs(1);
/// The first wait between heartbeats after data; doubled each time.
const HEARTBEAT: Duration = Duration::from_millis(10);
/// The longest wait between heartbeats.
const HEARTBEAT_MAX: Duration = Duration::from_millis(500);
/// The least time for hosts to ask for the same nodes, so that they are sent once.
const MERGE_NODES: Duration = Duration::from_millis(4);
/// The least time that hosts which are still comparing are waited for before blocks are sent.
const MERGE_BLOCKS: Duration = Duration::from_millis(250);
/// The longest.
const MERGE_BLOCKS_MAX: Duration = Duration::from_secs(10);
/// A quorum that is reached waits this long for others that make progress.
const STRAGGLERS: Duration = Duration::from_secs(3);
/// How many times its patience a host that is alive may work without progress before the decision.
const WORKING: u32 = 10;
/// Farewells, against loss.
const FAREWELLS: u32 = 3;

/// Which hosts a person expects.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Expect {
    /// At least so many.
    pub count: usize,
    /// These among them.
    pub names: Vec<HostName>,
}

/// What a session is to be.
#[derive(Debug, Clone)]
pub struct SenderSetup {
    /// The sender's host.
    pub name: HostName,
    /// This process.
    pub instance: InstanceId,
    /// The seed of everything random.
    pub seed: u64,
    /// The most bytes of a datagram.
    pub datagram: usize,
    /// The tree.
    pub tree: TreeName,
    /// Lists of globs on host names: a target matches one of each list; no list is every host that has the tree.
    pub targets: Vec<Vec<String>>,
    /// Whom we expect.
    pub expect: Expect,
    /// How many have to be ready.
    pub quorum: Quorum,
    /// How long a host may be silent.
    pub patience: Duration,
    /// The most that is sent.
    pub ceiling: Option<Rate>,
    /// Whether hosts read every file again.
    pub checksum: bool,
}

/// What a sender asks of its disk and its key.
#[derive(Debug, Clone)]
pub enum Request {
    /// Pack a generation out of the first of these ordinals, see [`crate::proto::generation`]; compressed as hard as
    /// the demand allows.
    Pack(Generation, RangeSet, Demand),
    /// Sign the order.
    Sign(Arc<[u8]>),
}

/// What disk and key answer.
#[derive(Debug, Clone)]
pub enum Reply {
    /// The ordinals that are in the payload, at least one; or why the source cannot be read.
    Packed(Result<(RangeSet, Arc<[u8]>), String>),
    /// The order's bytes and signature.
    Signed(Result<(Arc<[u8]>, Vec<u8>), String>),
}

/// What a sender tells.
#[derive(Debug, Clone)]
pub enum Notice {
    /// Discovery is over: the targets, and the highest serial that a host has accepted, as far as it is believed.
    Discovered {
        /// Hosts that have the tree and match the targets.
        targets: Vec<(HostName, SocketAddr)>,
        /// Hosts alive in all.
        members: usize,
        /// The highest serial.
        serial: Serial,
        /// Expected names that did not answer.
        missing: Vec<HostName>,
    },
    /// A host moved on.
    Host(Host),
    /// A host was silent for too long.
    Lost(HostName),
    /// The decision.
    Decided(OrderKind, String),
    /// The session is over.
    Finished,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
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
    at: Moment,
}

/// One session of a sender.
#[derive(Debug)]
pub struct Sender {
    setup: SenderSetup,
    session: SessionId,
    control: Control,
    reassembly: Reassembly,
    table: Table,
    hosts: Hosts,
    phase: Phase,
    began: Moment,
    /// When a host was heard for the first time.
    newest: Moment,
    /// When the machine last looked at what is due.
    ticked: Moment,
    offer: Option<Offer>,
    order: Option<SignedOrder>,
    stream: Stream,
    /// The data counter at which there was nothing more to send, last.
    idle: u64,
    /// There was nothing to send when the last generation came.
    waited: bool,
    /// When something wanted was first seen while the stream was idle.
    held: Option<Moment>,
    controller: Controller,
    pacer: Pacer,
    drift: Collection,
    repeat: (Moment, Duration),
    heartbeat: (Moment, Duration),
    failure: Option<String>,
    decision: Option<OrderKind>,
    requests: VecDeque<Request>,
    notices: VecDeque<Notice>,
}

impl Sender {
    /// A sender that begins to discover.
    pub fn new(now: Moment, setup: SenderSetup) -> Self {
        let mut rng = fastrand::Rng::with_seed(setup.seed);
        let session = SessionId(rng.u64(..));
        let symbol = setup.datagram.saturating_sub(DATA_OVERHEAD).clamp(64, 65_000) as u16;
        Self {
            control: Control::new(setup.instance, setup.datagram),
            reassembly: Reassembly::default(),
            table: Table::default(),
            hosts: Hosts::default(),
            phase: Phase::Discovering,
            began: now,
            newest: now,
            ticked: Moment(0),
            offer: None,
            order: None,
            stream: Stream::new(session, symbol),
            idle: 0,
            waited: false,
            held: None,
            controller: Controller::new(now, setup.ceiling),
            pacer: Pacer::new(now),
            drift: Collection::default(),
            repeat: (now, REPEAT),
            heartbeat: (now, HEARTBEAT),
            failure: None,
            decision: None,
            requests: VecDeque::new(),
            notices: VecDeque::new(),
            session,
            setup,
        }
    }

    /// The session's number.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// All members that answered.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.table.iter().map(|(_, m)| m)
    }

    /// The hosts of the session.
    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.hosts.iter().map(|(_, h)| h)
    }

    /// What went out.
    pub fn stats(&self) -> Stats {
        self.stream.stats()
    }

    /// The present rate.
    pub fn rate(&self) -> Rate {
        self.controller.rate()
    }

    /// The drift reports that were collected, by identity.
    pub fn drift_reports(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.drift.reports()
    }

    /// What was decided.
    pub fn decision(&self) -> Option<OrderKind> {
        self.decision
    }

    /// Why the sender itself failed.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Offers the release; discovery must be over.
    pub fn announce(&mut self, now: Moment, release: Release, signature: Vec<u8>) {
        self.phase = Phase::Serving;
        self.hosts.begin(now);
        self.offer = Some(Offer { release, signature, at: now });
        self.repeat = (now, REPEAT);
        self.tick(now);
    }

    /// Ends the session without a commit: hosts keep what they have.
    pub fn abort(&mut self, now: Moment, why: &str) {
        match self.phase {
            Phase::Serving | Phase::Collecting => {
                self.failure.get_or_insert_with(|| why.to_string());
                match self.is_audit() {
                    // Nothing is staged anywhere: there is nothing to abort.
                    true => self.finish(now),
                    false => self.decide(OrderKind::Abort, why),
                }
            }
            Phase::Discovering | Phase::Waiting => self.finish(now),
            _ => {}
        }
    }

    fn is_audit(&self) -> bool {
        self.offer.as_ref().is_some_and(|o| o.release.header().intent == Intent::Audit)
    }

    /// Takes a datagram.
    pub fn handle_datagram(&mut self, now: Moment, from: SocketAddr, bytes: &[u8]) {
        if let Ok(Datagram::Control(front, piece)) = Datagram::parse(bytes)
            && front.source != self.setup.instance
            && let Some(whole) = self.reassembly.add(now, front.source, piece)
            && let Ok(message) = Message::decode(&whole)
        {
            self.message(now, from, front.source, message);
            self.tick(now);
        }
    }

    fn message(&mut self, now: Moment, from: SocketAddr, source: InstanceId, message: Message) {
        match message {
            Message::Hello(hello) => self.hello(now, from, source, hello),
            Message::Bye(_) => {
                self.table.left(source);
                if self.hosts.left(source)
                    && let Some(host) = self.hosts.get(source)
                {
                    self.notices.push_back(Notice::Lost(host.name.clone()));
                }
            }
            Message::State(state) if state.session == self.session => {
                self.ack(source, from, state.number);
                if self.hosts.state(now, source, from, state)
                    && let Some(host) = self.hosts.get(source)
                {
                    self.notices.push_back(Notice::Host(host.clone()));
                }
            }
            Message::Want(want) if want.session == self.session => {
                self.ack(source, from, want.number);
                self.want(now, source, &want);
            }
            Message::Nack(nack) if nack.session == self.session && self.hosts.get(source).is_some() => {
                nack.missing.iter().for_each(|m| self.stream.missing(m, nack.seen));
            }
            Message::Report(report) if report.session == self.session => {
                if let Some(sample) = self.hosts.report(now, source, report, self.idle) {
                    self.controller.sample(now, sample);
                }
            }
            Message::DriftPart(part) if part.session == self.session => self.drift.part(source, &part),
            _ => {}
        }
    }

    fn ack(&mut self, source: InstanceId, from: SocketAddr, number: u32) {
        if number != 0 && source != self.setup.instance {
            self.control.send(Dest::Host(from), &Message::Ack(self.session, number));
        }
    }

    fn hello(&mut self, now: Moment, from: SocketAddr, source: InstanceId, hello: Hello) {
        let is_target = self.is_target(&hello);
        if is_target && matches!(self.phase, Phase::Discovering | Phase::Waiting) {
            let serial = hello.trees.iter().find(|t| t.tree == self.setup.tree).map(|t| t.serial);
            self.hosts.expect(now, source, hello.name.clone(), from, serial.unwrap_or_default());
        }
        if self.table.heard(now, from, source, hello) {
            self.newest = now;
        }
    }

    fn is_target(&self, hello: &Hello) -> bool {
        hello.trees.iter().any(|t| t.tree == self.setup.tree)
            && self.setup.targets.iter().all(|list| list.iter().any(|t| matches_name(t, hello.name.as_str())))
    }

    fn want(&mut self, now: Moment, source: InstanceId, want: &crate::wire::message::Want) {
        let (Some(offer), Some(host)) = (&self.offer, self.hosts.get_mut(source)) else { return };
        host.heard = now;
        let root = offer.release.header().root;
        let nodes = want.ranges.0.first().is_none_or(|r| r.start < root.nodes);
        if !want.more {
            host.asked = if nodes { (true, host.asked.1) } else { (true, true) };
        }
        self.stream.want(want, root.nodes + root.blocks);
        if !self.stream.pending().is_empty() {
            self.held.get_or_insert(now);
        }
    }

    /// Takes an answer.
    pub fn handle_reply(&mut self, now: Moment, reply: Reply) {
        match reply {
            Reply::Packed(Ok((ordinals, payload))) => {
                self.waited = !self.stream.has_data();
                self.stream.packed(ordinals, payload);
            }
            Reply::Packed(Err(why)) => {
                self.stream.packed(RangeSet::default(), Arc::from([]));
                self.stream.stop();
                self.abort(now, &why);
            }
            Reply::Signed(Ok((order, signature))) => {
                if let Phase::Signing(kind) = self.phase {
                    self.phase = Phase::Ordering(kind);
                    self.order = Some(SignedOrder { order: order.to_vec(), signature });
                    self.repeat = (now, REPEAT / 2);
                }
            }
            Reply::Signed(Err(why)) => {
                self.failure.get_or_insert(why);
                self.decision = None;
                self.finish(now);
            }
        }
        self.tick(now);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Moment) {
        self.tick(now);
    }

    fn tick(&mut self, now: Moment) {
        self.ticked = now;
        match self.phase {
            Phase::Discovering => self.discover(now),
            Phase::Serving => {
                self.repeat_announcement(now);
                self.lose(now);
                self.serve(now);
                self.weigh(now);
            }
            Phase::Collecting => {
                self.lose(now);
                self.beat(now);
                self.drift.handle_timeout(now, self.session, &self.hosts, &mut self.control);
                if self.drift.is_done() {
                    self.finish(now);
                }
            }
            Phase::Signing(_) => self.beat(now),
            Phase::Ordering(_) => {
                self.lose(now);
                // After an abort the stream is stopped: only the heartbeat is left of this.
                self.serve(now);
                self.repeat_order(now);
            }
            Phase::Farewell(left) => self.say_farewell(now, left),
            Phase::Waiting | Phase::Closed => {}
        }
    }

    fn discover(&mut self, now: Moment) {
        if self.repeat.0 <= now {
            self.control.send(Dest::Group, &Message::Solicit);
            self.again(now);
        }
        let waited = now.since(self.began);
        let (found, missing) = (self.hosts.len(), self.missing_names());
        let enough = found > 0 && found >= self.setup.expect.count && missing.is_empty();
        let all = self.table.len() >= self.table.claimed() && now.since(self.newest) >= QUIET;
        if (enough && (all || waited >= DISCOVERY)) || waited >= DISCOVERY_EMPTY {
            self.phase = Phase::Waiting;
            self.notices.push_back(Notice::Discovered {
                targets: self.hosts.iter().map(|(_, h)| (h.name.clone(), h.address)).collect(),
                members: self.table.len(),
                serial: believed(self.hosts.iter().map(|(_, h)| h.serial).collect()),
                missing,
            });
        }
    }

    fn missing_names(&self) -> Vec<HostName> {
        let known = |name: &&HostName| !self.hosts.iter().any(|(_, h)| h.name == **name);
        self.setup.expect.names.iter().filter(known).cloned().collect()
    }

    /// Moves the time of the next repetition.
    fn again(&mut self, now: Moment) {
        self.repeat = (now + self.repeat.1, (self.repeat.1 * 2).min(REPEAT_MAX));
    }

    fn repeat_announcement(&mut self, now: Moment) {
        let Some(offer) = self.offer.as_ref().filter(|_| self.repeat.0 <= now) else { return };
        let announce = Announce {
            session: self.session,
            sender: self.setup.name.clone(),
            header: offer.release.bytes().to_vec(),
            signature: offer.signature.clone(),
            symbol: (self.stream.segment() - DATA_OVERHEAD) as u16,
            hosts: self.hosts.len() as u32,
            checksum: self.setup.checksum,
        };
        self.control.send(Dest::Group, &Message::Announce(announce));
        self.again(now);
    }

    fn repeat_order(&mut self, now: Moment) {
        if self.hosts.iter().all(|(_, h)| h.has_answered()) {
            return self.finish(now);
        }
        if let Some(order) = self.order.clone().filter(|_| self.repeat.0 <= now) {
            self.control.send(Dest::Group, &Message::Order(order));
            self.again(now);
        }
    }

    /// How long a host may be silent, and how long alive without progress. Before the decision a host may hash a large
    /// tree without a word of progress; after it, who is not ready only keeps the others' report waiting.
    fn patience(&self) -> (Duration, Duration) {
        let patience = self.setup.patience.max(alive_interval(self.hosts.len() as u32) * 4);
        match self.phase {
            Phase::Ordering(_) => (patience, patience),
            _ => (patience, patience * WORKING),
        }
    }

    fn lose(&mut self, now: Moment) {
        let (patience, stuck) = self.patience();
        let lost = self.hosts.expire(now, patience, stuck);
        self.notices.extend(lost.into_iter().map(Notice::Lost));
    }

    fn serve(&mut self, now: Moment) {
        if !self.stream.pending().is_empty() {
            self.held.get_or_insert(now);
        }
        if self.may_pack(now)
            && let Some((generation, ordinals)) = self.stream.to_pack()
        {
            let demand = Demand { rate: self.controller.rate(), waited: self.waited };
            self.requests.push_back(Request::Pack(generation, ordinals, demand));
        }
        if self.stream.pending().is_empty() {
            self.held = None;
        }
        self.beat(now);
    }

    /// Whether the wants of all hosts that are about to ask are merged, or were waited for long enough.
    fn may_pack(&self, now: Moment) -> bool {
        if self.stream.has_data() {
            return true;
        }
        self.merge_until().is_some_and(|until| until <= now)
    }

    fn merge_until(&self) -> Option<Moment> {
        let (offer, held) = (self.offer.as_ref()?, self.held?);
        let nodes = offer.release.header().root.nodes;
        let is_nodes = self.stream.pending().first().is_some_and(|first| first < nodes);
        let least = spread(self.hosts.len() as u32);
        let mut live = self.hosts.iter().map(|(_, h)| h).filter(|h| !h.lost);
        Some(match is_nodes {
            true if live.any(|h| h.stage.is_none_or(|s| s <= HostStage::Fetching && !h.asked.0)) => {
                held + least + MERGE_BLOCKS
            }
            true if self.hosts.len() > 1 => held + least + MERGE_NODES,
            true => held,
            false if live.any(is_comparing) => {
                let needed = held.since(offer.at) * 2 + MERGE_BLOCKS;
                held + least + needed.min(MERGE_BLOCKS_MAX)
            }
            false => held,
        })
    }

    /// Says where the stream is: soon after data, then ever more seldom.
    fn beat(&mut self, now: Moment) {
        if self.stream.has_data() {
            self.heartbeat = (now + HEARTBEAT, HEARTBEAT);
            return;
        }
        if self.heartbeat.0 <= now {
            self.heartbeat = (now + self.heartbeat.1, (self.heartbeat.1 * 2).min(HEARTBEAT_MAX));
            self.send_status(match self.phase {
                Phase::Ordering(_) | Phase::Signing(_) => WirePhase::Ordering,
                _ => WirePhase::Serving,
            });
        }
    }

    fn send_status(&mut self, phase: WirePhase) {
        let status = Status {
            session: self.session,
            phase,
            sent: self.stream.sent(),
            hosts: self.hosts.len() as u32,
            counter: self.stream.counter(),
        };
        self.control.send(Dest::Group, &Message::Status(status));
    }

    /// Decides when it is time.
    fn weigh(&mut self, now: Moment) {
        let audit = self.is_audit();
        let open = self.hosts.iter().filter(|(_, h)| !h.is_settled(audit)).map(|(_, h)| h);
        let newest = open.map(|h| h.progress).max();
        if audit {
            if newest.is_none() {
                self.drift = Collection::new(&self.hosts);
                self.phase = Phase::Collecting;
                self.tick(now);
            }
            return;
        }
        let ready = self.hosts.iter().filter(|(_, h)| h.is_good(false)).count();
        let needed = self.setup.quorum.of(self.hosts.len());
        let waiting = newest.is_some_and(|at| self.setup.quorum == Quorum::All || now.since(at) < STRAGGLERS);
        if (waiting && ready < self.hosts.len()) || (newest.is_some() && ready < needed) {
            return;
        }
        if ready >= needed {
            self.decide(OrderKind::Commit, &format!("{ready} of {} hosts are ready", self.hosts.len()));
        } else {
            let text = format!("{ready} of {} hosts are ready, {needed} are required", self.hosts.len());
            self.decide(OrderKind::Abort, &text);
        }
    }

    fn decide(&mut self, kind: OrderKind, why: &str) {
        let Some(offer) = &self.offer else { return };
        self.phase = Phase::Signing(kind);
        if kind == OrderKind::Abort {
            self.stream.stop();
        }
        self.decision = Some(kind);
        let order = Order { session: self.session, release: offer.release.id(), kind };
        self.requests.push_back(Request::Sign(order.encode().into()));
        self.notices.push_back(Notice::Decided(kind, why.to_string()));
    }

    fn finish(&mut self, now: Moment) {
        self.phase = Phase::Farewell(FAREWELLS);
        self.repeat = (now, HEARTBEAT);
        self.tick(now);
    }

    fn say_farewell(&mut self, now: Moment, left: u32) {
        if self.repeat.0 > now {
            return;
        }
        if self.offer.is_some() {
            self.send_status(WirePhase::Closed);
        }
        self.repeat.0 = now + HEARTBEAT;
        self.phase = if left > 1 && self.offer.is_some() { Phase::Farewell(left - 1) } else { Phase::Closed };
        if self.phase == Phase::Closed {
            self.notices.push_back(Notice::Finished);
        }
    }

    /// The next datagrams to send, written into `out`: messages first, then data as pace and window allow.
    pub fn poll_transmit(&mut self, now: Moment, out: &mut Vec<u8>) -> Option<Transmit> {
        if let Some(transmit) = self.control.poll(out) {
            return Some(transmit);
        }
        if !matches!(self.phase, Phase::Serving | Phase::Ordering(_)) || self.pacer.due() > now || !self.may_send(now) {
            return None;
        }
        let sent = (now.0 / 1000) as u32;
        if !self.stream.write(self.setup.instance, sent, out) {
            return None;
        }
        self.pacer.sent(now, out.len(), self.controller.rate(), self.controller.has_ceiling());
        if !self.stream.has_data() {
            // The last of what there is: say so at once, so that a loss at the end is noticed.
            self.heartbeat = (now, HEARTBEAT);
            self.idle = self.stream.counter();
        }
        Some(Transmit { dest: Dest::Group, segment: self.stream.segment() })
    }

    fn may_send(&self, now: Moment) -> bool {
        self.stream.has_repairs()
            || (self.stream.has_data() && self.hosts.window(now, self.stream.counter(), self.stream.segment()) > 0)
    }

    /// The next request.
    pub fn poll_request(&mut self) -> Option<Request> {
        self.requests.pop_front()
    }

    /// The next thing to tell.
    pub fn poll_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// When [`Sender::handle_timeout`] or [`Sender::poll_transmit`] is due; `None` when nothing is until something comes.
    pub fn poll_timeout(&self, now: Moment) -> Option<Moment> {
        let serving = matches!(self.phase, Phase::Serving | Phase::Ordering(_));
        let data = (serving && self.stream.has_data()).then(|| {
            // A closed window opens with a report; look again soon in case that none comes.
            if self.may_send(now) { self.pacer.due() } else { now + HEARTBEAT }
        });
        let (patience, stuck) = self.patience();
        let waiting = serving || self.phase == Phase::Collecting;
        let lost = waiting.then(|| self.hosts.timeout(patience, stuck)).flatten();
        let straggler = (serving && self.setup.quorum != Quorum::All).then(|| now + HEARTBEAT_MAX);
        let beat = (!self.stream.has_data()).then_some(self.heartbeat.0);
        let own = match self.phase {
            Phase::Discovering => {
                let ends = [self.newest + QUIET, self.began + DISCOVERY, self.began + DISCOVERY_EMPTY];
                ends.into_iter().filter(|&at| at > self.ticked).chain([self.repeat.0]).min()
            }
            Phase::Serving => [Some(self.repeat.0), beat, self.merge_due()].into_iter().flatten().min(),
            Phase::Ordering(_) => [Some(self.repeat.0), beat, self.merge_due()].into_iter().flatten().min(),
            Phase::Collecting => [self.drift.timeout(now), beat].into_iter().flatten().min(),
            Phase::Signing(_) => beat,
            Phase::Farewell(_) => Some(self.repeat.0),
            Phase::Waiting | Phase::Closed => None,
        };
        [own, data, lost, straggler].into_iter().flatten().min()
    }

    fn merge_due(&self) -> Option<Moment> {
        self.merge_until().filter(|&until| until > self.ticked)
    }
}

fn is_comparing(host: &Host) -> bool {
    match host.stage {
        None => true,
        Some(HostStage::Staging) => host.summary.is_some_and(|s| s.fetch > 0) && !host.asked.1,
        Some(stage) => stage < HostStage::Staging,
    }
}

/// How far beyond the next lower believed one a serial that a single host claims is believed.
const MAX_SERIAL_STEP: u64 = 1 << 32;

/// The highest of the serials that hosts claim, but that one liar cannot use up all numbers: the next release has to
/// be above it. Two hosts that say the same are believed.
fn believed(mut claims: Vec<Serial>) -> Serial {
    claims.sort();
    let mut highest = Serial(0);
    for (i, claim) in claims.iter().enumerate() {
        let twice = claims.get(i + 1) == Some(claim);
        if twice || claim.0 - highest.0 <= MAX_SERIAL_STEP {
            highest = *claim;
        }
    }
    highest
}

#[cfg(test)]
mod serials {
    use super::*;

    fn highest(claims: &[u64]) -> u64 {
        believed(claims.iter().map(|c| Serial(*c)).collect()).0
    }

    #[test]
    fn one_liar_is_not_believed_and_two_witnesses_are() {
        let far = MAX_SERIAL_STEP * 5;
        assert_eq!(highest(&[]), 0);
        assert_eq!(highest(&[7, 3, 7]), 7);
        assert_eq!(highest(&[u64::MAX, 7]), 7);
        assert_eq!(highest(&[u64::MAX, u64::MAX - 1, 7]), 7);
        assert_eq!(highest(&[far, 7, far]), far);
        assert_eq!(highest(&[far, 7, far, far + 1]), far + 1);
        assert_eq!(highest(&[7, 7 + MAX_SERIAL_STEP, 7 + MAX_SERIAL_STEP * 2]), 7 + MAX_SERIAL_STEP * 2);
        assert_eq!(highest(&[8 + MAX_SERIAL_STEP, 7]), 7);
    }
}
