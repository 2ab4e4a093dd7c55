//! A sender: one session from discovery to the last host's answer.
//!
//! | phase | what happens | leaves when |
//! |---|---|---|
//! | Discovering | solicits; hosts answer | as many answered as the hosts themselves know of, or time is up |
//! | Waiting | the release is being made and signed | [`Sender::announce`] |
//! | Serving | announces; merges wants; streams; repairs | every target is ready, out or lost; or an audit is compared |
//! | Collecting | an audit, or a deploy that is asked to: fetches each distinct drift report once | all are here |
//! | Signing | the order is being signed | `Signed` |
//! | Ordering | repeats the order; still serves hosts that are not ready | every host whom it is for has answered or is lost; then the next batch is asked, or all is over ([`orders`]) |
//! | Closed | | |

mod discovery;
pub mod drift;
mod effects;
pub mod fate;
pub mod flow;
pub mod hosts;
mod merge;
mod orders;
pub mod outgoing;
pub mod readings;
pub mod stream;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::block::BlockHash;
use crate::id::{HostName, InstanceId, Nonce, Serial, SessionId, TreeName};
use crate::keys::KnownHosts;
use crate::manifest::{Intent, Release};
use crate::proto::control::Control;
use crate::proto::effort::Demand;
use crate::proto::freshness::Nonces;
use crate::proto::members::{Member, Table};
use crate::proto::path::least;
use crate::proto::receiver::matches_name;
use crate::proto::{Dest, RangeSet, Transmit, turn};
use crate::units::{Floor, Moment, Quorum, Rate};
use crate::wire::fragment::Reassembly;
use crate::wire::message::{Announce, HostSet, Order, OrderKind, Shown, SignedOrder, Status, Want};
use crate::wire::{DATA_OVERHEAD, Datagram, HostStage, Message, Phase as WirePhase};

pub use effects::{Notice, Reply, Request};

use drift::Collection;
use flow::{Flow, FlowSetup};
use hosts::{Host, Hosts};
use orders::Batches;
use stream::Stats;

/// Discovery ends after this, whoever has answered.
const DISCOVERY: Duration = Duration::from_millis(1500);
/// Discovery without any answer, or with fewer than expected, ends after this.
const DISCOVERY_EMPTY: Duration = Duration::from_millis(3000);
/// Hosts that have just started do not know of each other yet: nobody new for this long means that all have answered.
const QUIET: Duration = Duration::from_millis(30);
/// So many solicits are sent before a host is believed that the largest datagrams do not reach it.
const MEASURE: u32 = 2;
/// The first wait between solicits, announcements and orders; doubled each time.
const REPEAT: Duration = Duration::from_millis(60);
/// The longest wait between them.
const REPEAT_MAX: Duration = Duration::from_secs(1);
/// The first wait between heartbeats after data; doubled each time.
const HEARTBEAT: Duration = Duration::from_millis(10);
/// The longest wait between heartbeats.
const HEARTBEAT_MAX: Duration = Duration::from_millis(500);
/// The wait between heartbeats beside data, which is no sign of life: twice within what a host takes for silence.
const HEARTBEAT_BESIDE: Duration = Duration::from_millis(250);
/// How often it is looked whether hosts are lost and whether it is time to decide, when nothing happens.
const SWEEP: Duration = Duration::from_millis(20);
/// The least time between two looks, for each host beyond [`SWEEP_AT_ONCE`].
const SWEEP_EACH: Duration = Duration::from_micros(1);
/// A fleet of up to so many hosts is looked at whenever one of them changed.
const SWEEP_AT_ONCE: u32 = 64;
/// Farewells, against loss; a host that hears none closes its session by itself, later.
const FAREWELLS: u32 = 3;
/// The wait between them.
const FAREWELL_GAP: Duration = Duration::from_millis(2);

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
    /// A host that is no target whatever its name: the one that shares this process and has the source as its tree.
    pub without: Option<InstanceId>,
    /// Whether the lists of differences are fetched before a commit, too, as an audit fetches them.
    pub lists: bool,
    /// Whom we expect.
    pub expect: Expect,
    /// The keys that hosts had before.
    pub known_hosts: KnownHosts,
    /// Whether a host with another key than its name had before has no part in the session.
    pub strict: bool,
    /// So many hosts took part in the session before this one, a moment ago; 0: nobody knows.
    pub known: usize,
    /// How many have to be ready.
    pub quorum: Quorum,
    /// How many commit in the first batch, the second and so on; the rest in a last one.
    pub batches: Vec<Quorum>,
    /// Whether every host goes back when one fails once the commit has begun.
    pub revert: bool,
    /// How long a host may be silent.
    pub patience: Duration,
    /// Bytes that are left free behind every datagram, see [`crate::wire::seal`].
    pub room: usize,
    /// Bytes that the network adds to each datagram, sealing included.
    pub overhead: usize,
    /// The most that is sent, with what the network adds.
    pub ceiling: Option<Rate>,
    /// Below which a host is served after the others.
    pub floor: Floor,
    /// Whether hosts read every file again.
    pub checksum: bool,
    /// Whether hosts look only at what differs between their release and this one.
    pub quick: bool,
    /// Whether hosts run their health checks also where nothing changes.
    pub recheck: bool,
    /// The order by which the release was committed elsewhere: hosts that lack it commit by it, each by itself, and no
    /// order is signed. Nobody is looked for: whoever lacks it answers the announcement.
    pub grant: Option<SignedOrder>,
    /// Reckon with so many hosts before they are heard.
    pub fleet: u32,
    /// Of a release that was committed elsewhere and is of a part: what a host has to run to take it.
    pub follows: Option<Serial>,
    /// The only host that such a release is offered to.
    pub only: Option<HostName>,
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
}

/// One session of a sender.
#[derive(Debug)]
pub struct Sender {
    setup: SenderSetup,
    session: SessionId,
    nonces: Nonces,
    /// What hosts repeat that are there now.
    nonce: Nonce,
    /// The hosts that were asked alone of late.
    challenged: VecDeque<(SocketAddr, Moment)>,
    /// Hosts that would be targets and prove nothing.
    unproven: BTreeSet<(HostName, IpAddr)>,
    /// What shows the serials that hosts claim.
    shown: BTreeMap<(Serial, BlockHash), Shown>,
    control: Control,
    reassembly: Reassembly,
    table: Table,
    hosts: Hosts,
    phase: Phase,
    began: Moment,
    /// Solicits sent.
    solicits: u32,
    /// When the last one was.
    solicited: Moment,
    /// When a host was heard for the first time.
    newest: Moment,
    /// When the machine last looked at what is due.
    ticked: Moment,
    /// When it last looked at all hosts.
    swept: Moment,
    offer: Option<Offer>,
    order: Option<SignedOrder>,
    /// The present order, until it is sent for the first time.
    unsent: Option<Order>,
    /// The orders that were sent, and the hosts that they name.
    sent: Vec<(Order, Option<HostSet>)>,
    /// Until when hosts that may have followed an order unheard are asked again.
    asking: Option<Moment>,
    /// There was nothing to send when the last generation came.
    waited: bool,
    flow: Flow,
    /// Counts the passes over the hosts: the slow ones are served in a later one.
    pass: u32,
    /// When something wanted was first seen while the stream was idle.
    held: Option<Moment>,
    /// Since when hosts have what they need to say what they want next: the announcement, then nodes of the manifest.
    informed: Moment,
    drift: Collection,
    listed: bool,
    repeat: (Moment, Duration),
    heartbeat: (Moment, Duration),
    /// What a host has to have at least to take a part of the tree.
    after: Option<Serial>,
    /// When the last status was sent.
    reported: Moment,
    failure: Option<String>,
    decision: Option<OrderKind>,
    batches: Batches,
    /// The hosts that the present order names; none: it is for all.
    named: Option<HostSet>,
    requests: VecDeque<Request>,
    notices: VecDeque<Notice>,
}

impl Sender {
    /// A sender that begins to discover.
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
            phase: Phase::Discovering,
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
            drift: Collection::default(),
            listed: false,
            repeat: (now, REPEAT),
            heartbeat: (now, HEARTBEAT),
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

    /// The keys that hosts had before.
    pub fn known_hosts(&self) -> &KnownHosts {
        self.hosts.known()
    }

    /// What went out.
    pub fn stats(&self) -> Stats {
        self.flow.stats()
    }

    /// The present rate.
    pub fn rate(&self) -> Rate {
        self.flow.rate()
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

    /// Offers the release, which is of a part of the tree, only to hosts that have at least `oldest`: others, also those
    /// that come later, take first what they missed.
    pub fn requires(&mut self, oldest: Serial) {
        self.after = Some(oldest);
    }

    /// Offers the release; discovery must be over.
    pub fn announce(&mut self, now: Moment, release: Release, signature: Vec<u8>) {
        self.phase = Phase::Serving;
        self.hosts.begin(now);
        self.fit();
        self.offer = Some(Offer { release, signature });
        self.informed = now;
        self.began = now;
        self.repeat = (now, REPEAT);

        self.tick(now);
    }

    /// Makes the session's datagrams as small as the narrowest path needs.
    fn fit(&mut self) {
        let Some((host, takes)) = self.hosts.narrowest() else {
            return;
        };

        let datagram = usize::from(takes).max(least(self.setup.room));
        if datagram < self.setup.datagram {
            self.notices.push_back(Notice::Narrow {
                datagram,
                host: host.clone(),
            });
            self.flow.fit(datagram);
            self.control.fit(datagram);
        }
    }

    /// Every host has been compared: what differs is fetched from them.
    fn collect(&mut self, now: Moment) {
        self.listed = true;
        self.drift = Collection::new(&self.hosts);
        self.phase = Phase::Collecting;
        self.tick(now);
    }

    /// The lists of a deploy are here: on to the commit.
    fn go_on(&mut self, now: Moment) {
        self.phase = Phase::Serving;
        self.weigh(now);
    }

    /// Whether hosts commit by an order that came with the release.
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
            self.message(now, from, front.source, message);
            self.tick(now);
        }
    }

    fn message(&mut self, now: Moment, from: SocketAddr, source: InstanceId, message: Message) {
        match message {
            Message::Hello(hello) => self.hello(now, from, source, hello),
            Message::Bye(_) => {
                self.table.farewell(source, from);
                if self.hosts.is_at(source, from)
                    && self.hosts.left(source, self.awaited())
                    && let Some(host) = self.hosts.get(source)
                {
                    self.notices.push_back(Notice::Lost(host.clone()));
                }
            }
            Message::State(state)
                if state.session == self.session
                    && self.may_say(now, source, from, &state.name) =>
            {
                let (number, nonce, audit) = (state.number, state.nonce, self.is_audit());
                let taken = self.hosts.state(now, source, from, state, audit);
                self.tell_other_keys();
                match taken {
                    // What nobody signed is no answer.
                    None => {
                        let host = self
                            .hosts
                            .distrust(source)
                            .then(|| self.hosts.get(source))
                            .flatten();
                        self.notices.extend(host.cloned().map(Notice::Lost));
                    }
                    Some(changed) => {
                        self.ack(source, from, number, nonce);
                        let host = self.hosts.get(source).filter(|_| changed);
                        self.notices.extend(host.cloned().map(Notice::Host));
                    }
                }
            }
            Message::Want(want)
                if want.session == self.session && self.hosts.heard(now, source, from) =>
            {
                let number = want.number;
                if self.want(now, source, want) {
                    self.ack(source, from, number, None);
                }
            }
            Message::Nack(nack)
                if nack.session == self.session && self.hosts.heard(now, source, from) =>
            {
                self.flow.nack(now, source, &nack, self.hosts.len());
            }
            Message::Report(report)
                if report.session == self.session && self.hosts.heard(now, source, from) =>
            {
                if self.flow.report(now, source, report)
                    && let Some(host) = self.hosts.get(source)
                {
                    let rate = Rate(self.flow.readings().received(source));
                    self.notices
                        .push_back(Notice::Slow(host.name.clone(), rate));
                }
            }
            Message::DriftPart(part)
                if part.session == self.session && self.hosts.heard(now, source, from) =>
            {
                self.drift.part(source, &part)
            }
            _ => {}
        }
    }

    /// Tells of hosts that show other keys than their names had before.
    fn tell_other_keys(&mut self) {
        for (instance, other) in self.hosts.take_others() {
            self.notices.push_back(Notice::OtherKey(other));
            let barred = self.hosts.get(instance).filter(|host| host.barred);
            self.notices.extend(barred.cloned().map(Notice::Lost));
        }
    }

    /// Tells a host that it was heard, and shows that this sender is there now.
    fn ack(&mut self, source: InstanceId, from: SocketAddr, number: u32, nonce: Option<Nonce>) {
        if (number != 0 || nonce.is_some()) && source != self.setup.instance {
            self.control
                .send(Dest::Host(from), &Message::Ack(self.session, number, nonce));
        }
    }

    /// Whether a host of this name is a target.
    fn is_named(&self, name: &HostName) -> bool {
        self.setup
            .targets
            .iter()
            .all(|list| list.iter().any(|t| matches_name(t, name.as_str())))
    }

    /// Whether a host's word about itself counts: it is a target, and speaks from its own address.
    fn may_say(
        &mut self,
        now: Moment,
        source: InstanceId,
        from: SocketAddr,
        name: &HostName,
    ) -> bool {
        let known = self.hosts.get(source).is_some();
        let is_host = source != self.setup.instance && self.setup.without != Some(source);
        is_host && self.is_named(name) && (!known || self.hosts.heard(now, source, from))
    }

    /// A host asks for what it lacks: nodes of the manifest until it has compared, then blocks, when it said that it lacks
    /// some. In an audit there is nothing to fetch but nodes. False when it may not have what it asks for.
    fn want(&mut self, now: Moment, source: InstanceId, mut want: Want) -> bool {
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

        self.flow.want(source, &want, all);
        if !self.flow.stream().pending().is_empty() {
            self.held.get_or_insert(now);
        }

        true
    }

    /// Takes an answer.
    pub fn handle_reply(&mut self, now: Moment, reply: Reply) {
        match reply {
            Reply::Packed(Ok((ordinals, payload))) => {
                self.waited = !self.flow.stream().has_data();
                let nodes = self
                    .offer
                    .as_ref()
                    .map_or(0, |o| o.release.header().root.nodes);
                if ordinals.first().is_some_and(|first| first < nodes) {
                    self.informed = now;
                }
                self.flow.packed(ordinals, payload);
            }
            Reply::Packed(Err(why)) if self.is_granted() => {
                // What could be read is sent; others may have the rest.
                self.flow.packed(RangeSet::default(), Arc::default());
                self.flow.stream_mut().leave_pending();
                self.failure.get_or_insert(why);
            }
            Reply::Packed(Err(why)) => {
                self.flow.packed(RangeSet::default(), Arc::default());
                self.flow.stream_mut().stop();
                self.abort(now, &why);
            }
            Reply::Signed(signed) => {
                let order = signed.map(|(order, signature)| SignedOrder {
                    order: order.to_vec(),
                    signature,
                    hosts: self.named.clone(),
                });
                self.signed(now, order);
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
                self.serve(now);
                if self.sweep(now) {
                    self.second_pass(now);
                    self.weigh(now);
                }
            }
            Phase::Collecting => {
                self.sweep(now);
                self.beat(now);
                self.drift
                    .handle_timeout(now, self.session, &self.hosts, &mut self.control);
                if self.drift.is_done() {
                    match self.is_audit() {
                        true => self.finish(now),
                        false => self.go_on(now),
                    }
                }
            }
            Phase::Signing(_) => self.beat(now),
            Phase::Ordering(kind) => {
                // After an abort the stream is stopped: only the heartbeat is left of this.
                self.serve(now);
                if self.sweep(now) {
                    self.second_pass(now);
                }
                self.follow_order(now, kind);
            }
            Phase::Farewell(left) => self.say_farewell(now, left),
            Phase::Waiting | Phase::Closed => {}
        }
    }

    /// Moves the time of the next repetition.
    fn again(&mut self, now: Moment) {
        self.repeat = (now + self.repeat.1, (self.repeat.1 * 2).min(REPEAT_MAX));
    }

    fn repeat_announcement(&mut self, now: Moment) {
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

    /// Looks at all hosts, when one of them changed or it is time to: who was silent for too long is lost, and others
    /// are chosen to report. Says whether it looked.
    fn sweep(&mut self, now: Moment) -> bool {
        if now < self.sweep_due() {
            return false;
        }

        self.hosts.take_changed();
        self.swept = now;
        let (patience, stuck) = self.patience();
        let lost = self.hosts.expire(now, patience, stuck, self.awaited());
        self.notices.extend(lost.into_iter().map(Notice::Lost));
        let slow = self.flow.readings().slow();
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

    /// The order whose answers are waited for.
    fn awaited(&self) -> OrderKind {
        if let Phase::Ordering(kind) = self.phase {
            kind
        } else {
            OrderKind::Commit
        }
    }

    /// When all hosts are looked at next: soon when one of them changed, yet in a large fleet not at every word.
    fn sweep_due(&self) -> Moment {
        let least = SWEEP_EACH * (self.hosts.len() as u32).saturating_sub(SWEEP_AT_ONCE);
        self.swept
            + if self.hosts.has_changed() {
                least.min(SWEEP)
            } else {
                SWEEP
            }
    }

    /// When all others are served, the slow hosts are.
    fn second_pass(&mut self, now: Moment) {
        let slow = self.flow.readings().slow();
        let open = |(id, h): (&InstanceId, &Host)| !h.is_settled(false) && !slow.contains(id);
        if slow.is_empty() || self.hosts.iter().any(open) {
            return;
        }

        self.flow.readmit(now);
        self.pass += 1;
        self.send_status(now, self.wire_phase());
    }

    fn wire_phase(&self) -> WirePhase {
        match self.phase {
            Phase::Ordering(_) | Phase::Signing(_) => WirePhase::Ordering,
            _ => WirePhase::Serving,
        }
    }

    fn serve(&mut self, now: Moment) {
        self.flow.handle_timeout(now);
        if !self.flow.stream().pending().is_empty() {
            self.held.get_or_insert(now);
        }

        if self.may_pack(now)
            && let Some((generation, ordinals)) = self.flow.stream_mut().to_pack()
        {
            let demand = Demand {
                rate: self.flow.rate(),
                waited: self.waited,
            };
            self.requests
                .push_back(Request::Pack(generation, ordinals, demand));
        }

        if self.flow.stream().pending().is_empty() {
            self.held = None;
        }

        self.beat(now);
    }

    /// Whether the wants of all hosts that are about to ask are merged, or were waited for long enough.
    fn may_pack(&self, now: Moment) -> bool {
        // Repairs are no reason: what is mended may be what others still need before they can ask.
        if self.flow.stream().is_fresh() {
            return true;
        }
        self.merge_until().is_some_and(|until| until <= now)
    }

    fn merge_until(&self) -> Option<Moment> {
        let (offer, held) = (self.offer.as_ref()?, self.held?);
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
            .filter(|(id, h)| !h.lost && !self.flow.readings().is_slow(**id));

        Some(merge::until(
            self.ticked,
            self.informed,
            held,
            is_nodes,
            self.hosts.len() as u32,
            working.map(|(_, h)| h),
        ))
    }

    /// Says where the stream is: evenly beside data, soon after it, then ever more seldom.
    fn beat(&mut self, now: Moment) {
        if self.flow.stream().has_data() {
            self.heartbeat = (now + HEARTBEAT, HEARTBEAT);
            if self.reported + HEARTBEAT_BESIDE <= now {
                self.send_status(now, self.wire_phase());
            }
            return;
        }

        if self.heartbeat.0 <= now {
            self.heartbeat = (
                now + self.heartbeat.1,
                (self.heartbeat.1 * 2).min(HEARTBEAT_MAX),
            );
            self.send_status(now, self.wire_phase());
        }
    }

    fn send_status(&mut self, now: Moment, phase: WirePhase) {
        self.reported = now;
        let status = Status {
            session: self.session,
            phase,
            sent: self.flow.stream().sent(),
            hosts: self.hosts.len() as u32,
            counter: self.flow.stream().counter(),
            pass: self.pass,
            reporters: self.flow.readings().reporters().to_vec(),
        };

        self.control.send(Dest::Group, &Message::Status(status));
    }

    /// The next datagrams to send, written into `out`: messages first, then data as pace and window allow.
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
            // The last of what there is: say so at once, so that a loss at the end is noticed.
            self.heartbeat = (now, HEARTBEAT);
        }

        Some(transmit)
    }

    fn is_flowing(&self) -> bool {
        matches!(self.phase, Phase::Serving | Phase::Ordering(_))
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
        let data = self.is_flowing().then(|| self.flow.timeout(now)).flatten();
        let sweep =
            (self.is_flowing() || self.phase == Phase::Collecting).then(|| self.sweep_due());
        let beat = if self.flow.stream().has_data() {
            self.reported + HEARTBEAT_BESIDE
        } else {
            self.heartbeat.0
        };

        let beat = Some(beat);
        let own = match self.phase {
            Phase::Discovering => {
                let turns = turn(self.table.claimed() as u32) * 2;
                let (most, empty) = (
                    self.began + DISCOVERY + turns,
                    self.began + DISCOVERY_EMPTY + turns,
                );
                let ends = [self.newest + QUIET, self.solicited + QUIET, most, empty];
                ends.into_iter()
                    .filter(|&at| at > self.ticked)
                    .chain([self.repeat.0])
                    .min()
            }
            Phase::Serving => [Some(self.repeat.0), beat, self.merge_due()]
                .into_iter()
                .flatten()
                .min(),
            Phase::Ordering(_) => [Some(self.repeat.0), beat, self.merge_due()]
                .into_iter()
                .flatten()
                .min(),
            Phase::Collecting => [self.drift.timeout(now), beat].into_iter().flatten().min(),
            Phase::Signing(_) => beat,
            Phase::Farewell(_) => Some(self.repeat.0),
            Phase::Waiting | Phase::Closed => None,
        };

        [own, data, sweep].into_iter().flatten().min()
    }

    fn merge_due(&self) -> Option<Moment> {
        if self.flow.stream().is_fresh() {
            return None;
        }
        self.merge_until().filter(|&until| until > self.ticked)
    }
}
