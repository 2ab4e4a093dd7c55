//! The state machine of a host: dispatches datagrams, replies of the disk and timers.

mod members;
mod offers;
mod replies;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::disk::DiskRequest;
use super::effects::Effects;
use super::generations::SymbolCounts;
use super::notice::HostNotice;
use super::relay_load::RelayLoad;
use super::releases::FleetReleases;
use super::session::Session;
use super::sessions::Sessions;
use super::setup::{HostSetup, SessionHost};
use super::targets::MatcherBudget;
use crate::id::{InstanceId, Labels, SessionId, TreeName};
use crate::proto::control::Control;
use crate::proto::counting::ProbeCounter;
use crate::proto::members::{Presence, Table};
use crate::proto::queries::QueryQueue;
use crate::proto::{Dest, Transmit};
use crate::units::Moment;
use crate::wire::datagram::{DatagramError, is_relayed};
use crate::wire::fragment::Reassembly;
use crate::wire::message::{Order, Pull};
use crate::wire::query::{Query, QueryAnswer, TreeActivity};
use crate::wire::relay::RelayTargets;
use crate::wire::{Datagram, Front, Message};

/// State machine of one host, without input or output of its own.
#[derive(Debug)]
pub struct Receiver {
    host: SessionHost,
    control: Control,
    presence: Presence,
    queries: QueryQueue,
    counter: ProbeCounter,
    reassembly: Reassembly,
    sessions: Sessions,
    releases: FleetReleases,
    effects: Effects,
    rng: fastrand::Rng,
    matcher_budget: MatcherBudget,
    warned_version: bool,
    /// Packets lost in the receive buffer since the start.
    dropped: u64,
    /// Datagrams to pass on that were dropped since the start.
    unrelayed: u64,
    /// Lost symbols and repairs since they were taken.
    symbols: SymbolCounts,
}

impl Receiver {
    /// Creates a host that starts at `now`.
    pub fn new(now: Moment, setup: HostSetup) -> Self {
        let HostSetup {
            host,
            mut trees,
            trust,
            seed,
            datagram,
            room,
        } = setup;

        let mut control = Control::new(host.key.instance(), datagram, room);
        let mut presence = Presence::new(
            now,
            host.name.clone(),
            trees.states.clone(),
            trust,
            seed ^ 1,
            &mut control,
        );

        presence.set_shown(std::mem::take(&mut trees.shown));
        presence.set_identity(host.key.identity());
        presence.set_labels(now, host.labels.clone());

        Self {
            host,
            control,
            presence,
            queries: QueryQueue::new(now, seed ^ 2),
            counter: ProbeCounter::new(now, seed ^ 3),
            reassembly: Reassembly::default(),
            sessions: Sessions::default(),
            releases: FleetReleases::new(now, trees, seed),
            effects: Effects::default(),
            rng: fastrand::Rng::with_seed(seed),
            matcher_budget: MatcherBudget::default(),
            warned_version: false,
            dropped: 0,
            unrelayed: 0,
            symbols: SymbolCounts::default(),
        }
    }

    /// Changes the labels of this host.
    pub fn set_labels(&mut self, now: Moment, labels: Labels) {
        self.presence.set_labels(now, labels.clone());
        self.host.labels = labels;
        self.releases.forget_unfit();
    }

    /// Returns the known members.
    pub fn members(&self) -> &Table {
        self.presence.table()
    }

    /// Returns the id of this process.
    pub fn instance(&self) -> InstanceId {
        self.host.key.instance()
    }

    /// Returns the number of sessions.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Returns true if no verified session holds `tree`.
    pub fn is_idle(&self, tree: &TreeName) -> bool {
        self.sessions.is_idle(tree)
    }

    /// Ignores `session`: a sender in this process reads this host's own tree.
    pub fn ignore(&mut self, session: SessionId) {
        self.sessions.ignore(session);
    }

    /// Assumes a fleet of `hosts` hosts before hearing from them, for simulations without beacons.
    pub fn assume_fleet(&mut self, hosts: u32) {
        self.presence.assume_fleet(hosts);
    }

    /// Returns whether this host passes on what others passed on to it.
    pub fn is_second_hop(&self) -> bool {
        self.sessions.iter().any(Session::is_second_hop)
    }

    /// Solicits a host that has just been found where multicast does not reach.
    pub fn meet(&mut self, host: SocketAddr) {
        self.presence.meet(host, &mut self.control);
    }

    /// Forgets a host that does not answer any more where multicast does not reach: its beacons are
    /// rare there.
    pub fn on_gone(&mut self, host: SocketAddr) {
        self.presence.on_gone(host);
    }

    /// Sets the number of hosts that get each beacon by unicast.
    pub fn set_copies(&mut self, copies: usize) {
        self.presence.set_copies(copies);
    }

    /// Sets the peers recently heard without the group key of this host; beacons name them.
    pub fn set_unheard(&mut self, strangers: impl Iterator<Item = IpAddr>) {
        self.presence.set_strangers(strangers);
    }

    /// Records that the receive buffer lost `total` packets since the start, for reports to
    /// senders.
    pub fn set_dropped(&mut self, total: u64) {
        let more = total.saturating_sub(std::mem::replace(&mut self.dropped, total));
        for session in self.sessions.iter_mut() {
            session.count_dropped(more);
        }
    }

    /// Records what this host has yet to pass on, for reports to senders.
    pub fn set_relay_load(&mut self, load: RelayLoad) {
        let more = load
            .dropped
            .saturating_sub(std::mem::replace(&mut self.unrelayed, load.dropped));
        for session in self.sessions.iter_mut().filter(|s| s.targets().is_some()) {
            session.on_relay_load(more, load.wait);
        }
    }

    /// Handles a datagram; `is_peer` if the process at `from` is known there. `arrival` is the
    /// kernel's receive time in microseconds of any steady clock. Returns the hosts to pass it on
    /// to, for new data of a session whose release this host found rightful.
    pub fn handle_datagram(
        &mut self,
        now: Moment,
        (from, is_peer): (SocketAddr, bool),
        bytes: &[u8],
        arrival: u64,
    ) -> Option<Arc<RelayTargets>> {
        let mut targets = None;
        match Datagram::parse(bytes) {
            Ok(Datagram::Data(front, symbol)) => {
                // Hot path: most symbols have no consequence yet.
                let session = self.sessions.get_mut(symbol.header.session)?;

                if !session.sender().is(front.source) {
                    return None;
                }

                let counter = front.counter;
                // Hosts pass on what the sender sent, so its address answers for theirs.
                let is_relayed = is_relayed(bytes);
                let from = match is_relayed && is_peer {
                    true => session.sender().address().ip(),
                    false => from.ip(),
                };
                if is_relayed {
                    session.on_relayed();
                }
                let is_new =
                    session.on_data(now, from, counter, &symbol, arrival, &mut self.control);
                if is_new && is_relayed {
                    targets = session.targets().cloned();
                }

                if session.is_calm() {
                    return targets;
                }
            }
            Ok(Datagram::Control(front, piece)) => {
                if let Some(whole) = self.reassembly.add(now, front.source, piece)
                    && let Ok(message) = Message::decode(&whole)
                {
                    self.on_message(now, from, front, message);
                }
            }
            Err(DatagramError::Version(version)) if !self.warned_version => {
                self.warned_version = true;
                self.effects.notify(HostNotice::Version(version, from));
            }
            Ok(Datagram::Peer(..)) | Err(_) => {}
        }

        self.settle();
        targets
    }

    fn on_message(&mut self, now: Moment, from: SocketAddr, front: Front, message: Message) {
        match message {
            Message::Announce(announce) => self.on_announce(now, from, front, announce),
            Message::Ack(id, number, echo) => self.with(now, from, front, id, |session, _| {
                session.on_ack(now, number, echo);
            }),
            Message::Status(status) => {
                self.with(now, from, front, status.session, |session, _| {
                    session.on_status(now, &status);
                });
            }
            Message::Order(order) => {
                let mut followed = false;
                if let Some(decoded) = Order::decode(&order.order) {
                    self.with(now, from, front, decoded.session, |session, _| {
                        followed = session.may_go_back();
                        session.on_order(order.clone());
                    });
                }
                if let Some(request) = self.releases.on_order(now, order, followed) {
                    self.effects.request(request);
                }
            }
            Message::Targets(targets) => {
                self.with(now, from, front, targets.session, |session, _| {
                    session.on_targets(now, targets);
                });
            }
            Message::DriftAsk(id, offset) => {
                self.with(now, from, front, id, |session, control| {
                    session.send_drift(now, offset, control);
                });
            }

            Message::Query(ask) => {
                let hosts = self.presence.table().len() as u32;
                self.queries.handle(now, from, ask, hosts);
            }
            Message::Counted(probe) => self.counter.on_probe(front.source, &probe),
            Message::CountAsk(ask) => {
                let own = (self.instance(), self.presence.table().len() as u32);
                let asker = (front.source, from);
                self.counter.on_request(now, asker, &ask, own);
            }
            Message::Pull(pull) => {
                let idle = |tree: &_| self.sessions.is_idle(tree);
                if let Some(header) = self.releases.on_pull(now, from, pull, idle) {
                    self.control.send(Dest::Group, &header);
                }
            }
            Message::Header(header) => {
                if let Some(request) = self.releases.on_header(&header) {
                    self.effects.request(request);
                }
            }

            presence => {
                self.presence.handle(now, from, front.source, &presence);
                self.releases.check_soon(now);
            }
        }
    }

    /// Applies `act` to a session if the message comes from its sender.
    fn with(
        &mut self,
        now: Moment,
        from: SocketAddr,
        front: Front,
        id: SessionId,
        act: impl FnOnce(&mut Session, &mut Control),
    ) {
        if let Some(session) = self.sessions.get_mut(id)
            && session.accepts(now, front.source, from)
        {
            session.on_message(now, front.counter);
            act(session, &mut self.control);
        }
    }

    /// Runs all timers that are due.
    pub fn handle_timeout(&mut self, now: Moment) {
        self.presence.handle_timeout(now, &mut self.control);
        self.counter
            .handle_timeout(now, self.dropped, &mut self.control);
        self.check_members(now);

        for session in self.sessions.iter_mut() {
            session.handle_timeout(now, &mut self.control, self.host.patience);
        }

        self.settle();
    }

    /// Returns the due time of the next [`Receiver::handle_timeout`].
    pub fn poll_timeout(&self, now: Moment) -> Moment {
        let sessions = self
            .sessions
            .iter()
            .map(|s| s.timeout(now, self.host.patience));

        let own = [
            self.releases.timeout(),
            self.queries.timeout(),
            self.counter.timeout(),
        ];

        sessions
            .chain(own.into_iter().flatten())
            .fold(self.presence.timeout(), Moment::min)
    }

    /// Collects requests and notices of the sessions and drops closed sessions.
    fn settle(&mut self) {
        let effects = &mut self.effects;
        let symbols = &mut self.symbols;
        self.sessions.retain(|session| {
            session.take_effects(effects);
            symbols.add(session.take_symbol_counts());
            let is_over = session.is_finished();
            if is_over {
                effects.notify(session.summary());
            }
            !is_over
        });
    }

    /// Returns whether an order is in progress, and whether a sender has yet to acknowledge an
    /// outcome.
    pub fn orders(&self) -> (bool, bool) {
        (
            self.sessions.iter().any(Session::is_ordering),
            self.sessions.iter().any(Session::is_unheard),
        )
    }

    /// Queues a goodbye; the caller sends the remaining datagrams afterwards.
    pub fn leave(&mut self) {
        self.presence.leave(&mut self.control);
    }

    /// Writes the next datagrams to send into `out`.
    pub fn poll_transmit(&mut self, out: &mut Vec<u8>) -> Option<Transmit> {
        self.control.poll(out)
    }

    /// Returns the next request to the disk.
    pub fn poll_request(&mut self) -> Option<DiskRequest> {
        self.effects.next_request()
    }

    /// Returns the next release to offer to hosts that lack it, and the address of one.
    pub fn poll_pull(&mut self) -> Option<(SocketAddr, Pull)> {
        self.releases.next_pull()
    }

    /// Returns the next due query and its sender; [`Receiver::answer`] sends the answer.
    pub fn poll_query(&mut self, now: Moment) -> Option<(SocketAddr, Query)> {
        self.queries.due(now)
    }

    /// Sends the answer to a query.
    pub fn answer(&mut self, to: SocketAddr, answer: QueryAnswer) {
        self.control.send(Dest::Host(to), &Message::Answer(answer));
    }

    /// Returns the next notice.
    pub fn poll_notice(&mut self) -> Option<HostNotice> {
        self.effects.next_notice()
    }

    /// Returns the work in progress on `tree`.
    pub fn work_on(&self, tree: &TreeName) -> Option<TreeActivity> {
        self.sessions
            .iter()
            .find(|s| s.tree() == tree && s.is_at_work())
            .map(Session::work)
    }

    /// Returns whether the work in progress on `tree` catches up with a release of others.
    pub fn catches_up(&self, tree: &TreeName) -> bool {
        let mut at_work = self.sessions.iter().filter(|s| s.is_at_work());
        at_work.any(|s| s.tree() == tree && s.is_granted())
    }

    /// Takes the counts of lost symbols and of repairs.
    pub fn take_symbol_counts(&mut self) -> SymbolCounts {
        std::mem::take(&mut self.symbols)
    }

    /// Approximate number of buffered bytes received from others, bounded for any input.
    pub fn held(&self) -> usize {
        let sessions: usize = self.sessions.iter().map(Session::held).sum();
        sessions + self.reassembly.held() + self.control.queued_bytes()
    }

    /// Returns true if no datagram, request or notice is queued.
    pub fn is_calm(&self) -> bool {
        self.control.is_empty() && self.effects.is_empty()
    }
}
