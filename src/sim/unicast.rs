//! Networks where multicast does not reach all: each node sends all copies of its datagrams over
//! its uplink, and hosts pass on relayed data, by the rules of `drive::endpoint`.
//!
//! The roster is not simulated: each node knows all others but the unlisted ones, and forgets none
//! that is down. The sender may hear late of a host that was started again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::node::NodeId;
use crate::id::{InstanceId, SegmentId};
use crate::proto::receiver::RelayLoad;
use crate::proto::roster::{Hop, ReachedHost, TargetLookup};
use crate::proto::sender::reach::RosterView;
use crate::units::{Moment, Rate};
use crate::wire::datagram::set_direct;
use crate::wire::relay::RelayTargets;

/// Bytes that the network adds to each datagram.
pub(super) const OVERHEAD: usize = 46;
/// Bound on the bytes that wait to be passed on, all copies counted, see `drive::endpoint::relay`.
const MAX_RELAY_BYTES: usize = 16 << 20;
/// Time after which a train is passed on no more.
const MAX_RELAY_WAIT: Duration = Duration::from_millis(100);
/// Datagrams of a train.
const MAX_TRAIN: usize = 32;
/// Destinations that get their copy at once, see `drive::endpoint::send_buffer`.
const MAX_COPIES: usize = 32;
/// Interval after which as many others get theirs.
const COPIES_INTERVAL: Duration = Duration::from_millis(1);

/// A network where multicast does not reach all.
#[derive(Debug, Clone, Default)]
pub struct UnicastSetup {
    /// Uplink of every node.
    pub uplink: UplinkSetup,
    /// Uplinks that differ from the rest.
    pub uplinks: BTreeMap<NodeId, UplinkSetup>,
    /// Segments of the nodes with multicast: those with the same number hear each other.
    pub segments: BTreeMap<NodeId, u64>,
    /// Time after which the sender knows the new process of a host.
    pub stale: Duration,
    /// Hosts that are in no roster.
    pub unlisted: BTreeSet<NodeId>,
}

/// Link out of one node.
#[derive(Debug, Clone, Copy)]
pub struct UplinkSetup {
    /// Rate, and capacity of the queue in bytes; `None` sends at once.
    pub rate: Option<(Rate, u64)>,
    /// Whether a full queue drops datagrams, like a switch; otherwise the node waits for room, as
    /// for its own interface.
    pub drops: bool,
}

impl Default for UplinkSetup {
    fn default() -> Self {
        Self {
            // The send buffer of a link.
            rate: Some((Rate(1_000_000_000), 256 << 10)),
            drops: false,
        }
    }
}

/// Bytes of datagrams that left a node, without the headers of the network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SentBytes {
    /// Its own data, each copy.
    pub data: u64,
    /// Its own messages, each copy.
    pub control: u64,
    /// Data of others, each copy.
    pub relayed: u64,
}

impl SentBytes {
    /// Returns the sum.
    pub fn total(self) -> u64 {
        self.data + self.control + self.relayed
    }
}

/// Kind of a train.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TrainKind {
    Data,
    Control,
    Relayed,
}

/// Destination of one copy.
#[derive(Debug, Clone)]
pub(super) enum CopyTo {
    /// One node.
    Node(NodeId),
    /// All other nodes of the segment, by multicast.
    Segment(Arc<[NodeId]>),
}

impl CopyTo {
    fn nodes(&self) -> &[NodeId] {
        match self {
            Self::Node(node) => std::slice::from_ref(node),
            Self::Segment(nodes) => nodes,
        }
    }
}

/// Datagrams with the destinations that have yet to get them, the next one at the end.
#[derive(Debug)]
pub(super) struct PendingTrain {
    pub(super) kind: TrainKind,
    /// Node that made or sent it.
    pub(super) from: NodeId,
    /// Targets of relayed datagrams.
    pub(super) targets: Option<Arc<RelayTargets>>,
    pub(super) datagrams: Vec<Arc<[u8]>>,
    pub(super) to: Vec<CopyTo>,
    /// True once a copy was sent.
    pub(super) is_begun: bool,
    /// Time of the first datagram.
    pub(super) since: Moment,
}

impl PendingTrain {
    /// Bytes of one copy.
    fn bytes(&self) -> usize {
        self.datagrams.iter().map(|datagram| datagram.len()).sum()
    }
}

/// A datagram that has left its node.
#[derive(Debug)]
pub(super) struct DepartedCopy {
    pub(super) at: Moment,
    pub(super) to: NodeId,
    pub(super) bytes: Arc<[u8]>,
}

/// The sending side of all nodes.
#[derive(Debug)]
pub(super) struct Uplinks {
    nodes: Vec<Uplink>,
    /// All hosts that have run.
    roster: Vec<ReachedHost>,
    /// Number of changes of the roster.
    version: u64,
    /// New processes that the sender does not know yet.
    unknown: Vec<(Moment, ReachedHost)>,
    stale: Duration,
    segments: BTreeMap<NodeId, u64>,
    unlisted: BTreeSet<NodeId>,
    /// Nodes that multicast reaches no longer.
    deaf: BTreeSet<NodeId>,
    /// Running processes by node.
    instances: BTreeMap<NodeId, InstanceId>,
}

/// The sending side of one node.
#[derive(Debug)]
struct Uplink {
    setup: UplinkSetup,
    /// Time at which the last queued byte will have left.
    busy: Moment,
    own: Option<PendingTrain>,
    relayed: VecDeque<PendingTrain>,
    /// Bytes of the trains to pass on, each copy counted.
    waiting: usize,
    load: RelayLoad,
    addresses: TargetLookup,
    /// Time before which no further copies go.
    resume: Moment,
    /// Time at which the node last meant to try again.
    retry: Moment,
    sent: SentBytes,
}

impl Uplinks {
    /// Creates the uplinks of the sender and `hosts` hosts.
    pub(super) fn new(setup: &UnicastSetup, hosts: usize) -> Self {
        let uplink = |node| Uplink {
            setup: *setup.uplinks.get(&node).unwrap_or(&setup.uplink),
            busy: Moment(0),
            own: None,
            relayed: VecDeque::new(),
            waiting: 0,
            load: RelayLoad::default(),
            addresses: TargetLookup::default(),
            resume: Moment(0),
            retry: Moment(0),
            sent: SentBytes::default(),
        };

        Self {
            nodes: NodeId::all(hosts).map(uplink).collect(),
            roster: Vec::new(),
            version: 1,
            unknown: Vec::new(),
            stale: setup.stale,
            segments: setup.segments.clone(),
            unlisted: setup.unlisted.clone(),
            deaf: BTreeSet::new(),
            instances: BTreeMap::new(),
        }
    }

    /// The roster of the sender.
    pub(super) fn roster(&mut self, now: Moment) -> RosterView<'_> {
        let is_known = |(at, _): &mut (Moment, _)| *at <= now;
        let known: Vec<_> = self.unknown.extract_if(.., is_known).collect();
        for (_, host) in known {
            self.list(host);
        }

        RosterView {
            version: self.version,
            multicast: self.segments.contains_key(&NodeId::SENDER),
            hosts: &self.roster,
            distant: self.roster.iter().filter(|host| !host.hears).count(),
        }
    }

    /// Records the process that runs on a node.
    pub(super) fn set_instance(&mut self, now: Moment, node: NodeId, instance: InstanceId) {
        self.instances.insert(node, instance);
        if self.unlisted.contains(&node) {
            return;
        }

        let address = node.address();
        let segment = self.segments.get(&node);
        let host = ReachedHost {
            address,
            instance,
            segment: segment.copied().map(SegmentId),
            hears: segment.is_some() && segment == self.segments.get(&NodeId::SENDER),
        };

        match self.roster.iter().any(|host| host.address == address) {
            true => self.unknown.push((now + self.stale, host)),
            false => self.list(host),
        }
    }

    fn list(&mut self, host: ReachedHost) {
        self.version += 1;
        let mut all = self.roster.iter_mut();
        match all.find(|known| known.address == host.address) {
            Some(known) => *known = host,
            None => self.roster.push(host),
        }
    }

    /// The other nodes of a node's segment, if there are any.
    pub(super) fn segment(&self, node: NodeId) -> Option<CopyTo> {
        let own = self.segments.get(&node)?;
        let others = self.segments.iter();
        let is_reached = |other: &NodeId| *other != node && !self.deaf.contains(other);
        let others = others.filter(|(other, segment)| is_reached(other) && *segment == own);
        let others: Arc<[NodeId]> = others.map(|(other, _)| *other).collect();
        (!others.is_empty()).then_some(CopyTo::Segment(others))
    }

    /// Returns whether two nodes are in one segment.
    pub(super) fn are_near(&self, [one, other]: [NodeId; 2]) -> bool {
        let segment = self.segments.get(&one);
        segment.is_some() && segment == self.segments.get(&other)
    }

    /// Bytes that left a node.
    pub(super) fn sent(&self, node: NodeId) -> SentBytes {
        self.nodes[node.index()].sent
    }

    /// Replaces the uplink of a node.
    pub(super) fn set(&mut self, node: NodeId, setup: UplinkSetup) {
        self.nodes[node.index()].setup = setup;
    }

    /// Lets no multicast reach a node any more.
    pub(super) fn deafen(&mut self, node: NodeId) {
        self.deaf.insert(node);
    }

    /// Drops all that waits at a node.
    pub(super) fn clear(&mut self, node: NodeId) {
        let uplink = &mut self.nodes[node.index()];
        uplink.own = None;
        uplink.relayed.clear();
        uplink.waiting = 0;
    }

    /// Returns whether a node's own datagrams have all left it.
    pub(super) fn is_sent(&self, node: NodeId) -> bool {
        self.nodes[node.index()].own.is_none()
    }

    /// Takes a node's own datagrams; the ones before have left it.
    pub(super) fn push_own(&mut self, node: NodeId, train: PendingTrain) {
        self.nodes[node.index()].own = Some(train);
    }

    /// Takes a datagram that came from `from` and that `node` passes on to `targets`.
    pub(super) fn push_relayed(
        &mut self,
        now: Moment,
        node: NodeId,
        from: NodeId,
        bytes: &Arc<[u8]>,
        targets: Arc<RelayTargets>,
    ) {
        let instance = |node| self.instances.get(&node).copied();
        let listed = instance(from).filter(|_| !self.unlisted.contains(&from));
        let hop = match from.is_sender() {
            true => Some(Hop::First),
            false => listed.map(Hop::Second),
        };
        let (Some(own), Some(hop)) = (instance(node), hop) else {
            return;
        };
        if !hop.is_passed_on(&targets) {
            return;
        }

        let segment = match targets.multicast {
            true => self.segment(node),
            false => None,
        };
        let uplink = &mut self.nodes[node.index()];
        let roster = (self.version, &self.roster[..]);
        let found = uplink.addresses.find(&targets, roster, own);
        let heads = found.heads.iter().filter(|_| hop == Hop::First);
        let to = heads.chain(&found.group).filter_map(|at| NodeId::at(*at));
        let to: Vec<CopyTo> = to.map(CopyTo::Node).chain(segment).collect();
        let copies = bytes.len() * to.len();
        if uplink.waiting + copies > MAX_RELAY_BYTES {
            return uplink.load.on_dropped(1);
        }

        uplink.waiting += copies;
        if let Some(last) = uplink.relayed.back_mut()
            && !last.is_begun
            && last.datagrams.len() < MAX_TRAIN
            && last.from == from
            && last
                .targets
                .as_ref()
                .is_some_and(|last| Arc::ptr_eq(last, &targets))
        {
            return last.datagrams.push(Arc::clone(bytes));
        }

        uplink.relayed.push_back(PendingTrain {
            kind: TrainKind::Relayed,
            from,
            targets: Some(Arc::clone(&targets)),
            datagrams: vec![Arc::clone(bytes)],
            is_begun: false,
            to,
            since: now,
        });
    }

    /// Takes the load of a host as a relay.
    pub(super) fn take_load(&mut self, node: NodeId) -> RelayLoad {
        self.nodes[node.index()].load.take()
    }

    /// Sends a node's own datagrams; returns the time to try again if there is no room.
    pub(super) fn send_own(
        &mut self,
        now: Moment,
        node: NodeId,
        out: &mut Vec<DepartedCopy>,
    ) -> Option<Moment> {
        self.nodes[node.index()].send_own(now, out)
    }

    /// Passes on what a node has to; returns the time to try again if there is no room.
    pub(super) fn send_relayed(
        &mut self,
        now: Moment,
        node: NodeId,
        out: &mut Vec<DepartedCopy>,
    ) -> Option<Moment> {
        self.nodes[node.index()].send_relayed(now, out)
    }

    /// Lets a node wait until `retry`. Returns false if it waits already, and no longer.
    pub(super) fn begins_wait(&mut self, now: Moment, node: NodeId, retry: Moment) -> bool {
        let last = &mut self.nodes[node.index()].retry;
        let begins = *last <= now || retry < *last;
        if begins {
            *last = retry;
        }
        begins
    }
}

impl Uplink {
    /// Sends the own datagrams; returns the time to try again if there is no room.
    fn send_own(&mut self, now: Moment, out: &mut Vec<DepartedCopy>) -> Option<Moment> {
        let mut train = self.own.take()?;
        let mut copies = 0;
        let wait = loop {
            let to = train.to.last().cloned()?;

            if copies == MAX_COPIES {
                self.resume = now + COPIES_INTERVAL;
            }
            if now < self.resume {
                break self.resume;
            }
            if let Some(wait) = self.wait_for_room(now) {
                break wait;
            }

            self.copy(now, &train, &to, out);
            train.to.pop();
            copies += 1;
        };

        self.own = Some(train);
        Some(wait)
    }

    /// Passes datagrams on; returns the time to try again if there is no room.
    fn send_relayed(&mut self, now: Moment, out: &mut Vec<DepartedCopy>) -> Option<Moment> {
        while let Some(mut train) = self.relayed.pop_front() {
            let bytes = train.bytes();
            let wait = now.since(train.since);
            if !train.is_begun {
                self.load.on_wait(wait);
                if wait > MAX_RELAY_WAIT {
                    self.load.on_dropped(train.datagrams.len());
                    self.waiting -= bytes * train.to.len();
                    continue;
                }
            }

            while let Some(to) = train.to.last().cloned() {
                if let Some(wait) = self.wait_for_room(now) {
                    self.relayed.push_front(train);
                    return Some(wait);
                }
                self.copy(now, &train, &to, out);
                train.to.pop();
                train.is_begun = true;
                self.waiting -= bytes;
            }
        }

        None
    }

    /// Returns the time at which half of a full queue has left; `None` if there is room.
    fn wait_for_room(&self, now: Moment) -> Option<Moment> {
        let (rate, queue) = self.setup.rate.filter(|_| !self.setup.drops)?;
        let queued = rate.bytes_in(self.busy.since(now));
        let excess = queued.checked_sub(queue / 2).filter(|_| queued >= queue)?;
        Some(now + rate.time_for(excess).max(Duration::from_micros(1)))
    }

    /// Sends one copy of a train.
    fn copy(
        &mut self,
        now: Moment,
        train: &PendingTrain,
        to: &CopyTo,
        out: &mut Vec<DepartedCopy>,
    ) {
        for datagram in &train.datagrams {
            // Hosts that hear the sender pass nothing on.
            let datagram = match (train.kind, to) {
                (TrainKind::Data, CopyTo::Segment(_)) => direct(datagram),
                _ => Arc::clone(datagram),
            };
            let bytes = datagram.len() as u64;
            *match train.kind {
                TrainKind::Data => &mut self.sent.data,
                TrainKind::Control => &mut self.sent.control,
                TrainKind::Relayed => &mut self.sent.relayed,
            } += bytes;
            let Some(at) = self.leave(now, bytes + OVERHEAD as u64) else {
                continue;
            };
            out.extend(to.nodes().iter().map(|&to| DepartedCopy {
                at,
                to,
                bytes: Arc::clone(&datagram),
            }));
        }
    }

    /// Returns the time at which a datagram of `bytes` has left; `None` if it is dropped.
    fn leave(&mut self, now: Moment, bytes: u64) -> Option<Moment> {
        let Some((rate, queue)) = self.setup.rate else {
            return Some(now);
        };

        if self.setup.drops && rate.bytes_in(self.busy.since(now)) + bytes > queue {
            return None;
        }

        self.busy = self.busy.max(now) + rate.time_for(bytes);
        Some(self.busy)
    }
}

/// The datagram as data that nobody passes on.
fn direct(datagram: &Arc<[u8]>) -> Arc<[u8]> {
    let mut bytes = datagram.to_vec();
    set_direct(&mut bytes);
    bytes.into()
}
