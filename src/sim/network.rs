//! The simulated network: a queue of future events, and their effects on the state machines.

mod sending;

use std::sync::Arc;
use std::time::Duration;

use super::crowd::Crowd;
use super::disk::SimDisk;
use super::event::{EventQueue, NetworkEvent};
use super::feedback::FeedbackKind;
use super::host::{Reaction, SimHost, StartSeeds};
use super::link::LinkSetup;
use super::log::NetworkLog;
use super::node::NodeId;
use super::offer::SimOffer;
use super::recording::Recording;
use super::sender::SimSender;
use super::setup::{NetworkSetup, SessionStart};
use super::stopped::StoppedNodes;
use super::unicast::{SentBytes, UplinkSetup, Uplinks};
use super::wires::{Passing, Wires};
use crate::proto::sender::Sender;
use crate::units::Moment;

/// A sender, its hosts and the links between them.
pub struct Network {
    setup: NetworkSetup,
    now: Moment,
    queue: EventQueue,
    rng: fastrand::Rng,
    sender: SimSender,
    hosts: Crowd,
    wires: Wires,
    /// Sending side of all nodes of a network without multicast.
    uplinks: Option<Uplinks>,
    stopped: StoppedNodes,
    /// Next timer of each node.
    timers: Vec<Option<Moment>>,
    /// Observations so far.
    pub log: NetworkLog,
    /// Reused buffer for a machine's datagrams.
    out: Vec<u8>,
}

impl Network {
    /// Creates a network on which a sender begins to deploy `offer`.
    pub fn new(setup: NetworkSetup, offer: SimOffer) -> Self {
        let mut rng = fastrand::Rng::with_seed(setup.seed);
        let now = Moment(1_000_000_000);
        let disk = SimDisk::sharing(&offer, setup.recall);
        let host = |number| SimHost::new(now, number, disk.clone(), setup.unicast.is_some());

        let mut network = Self {
            now,
            queue: EventQueue::default(),
            sender: SimSender::new(now, &setup, offer, &mut rng),
            rng,
            hosts: Crowd::new((1..=setup.hosts).map(host).collect()),
            wires: Wires::new(&setup),
            uplinks: (setup.unicast.as_ref()).map(|unicast| Uplinks::new(unicast, setup.hosts)),
            stopped: StoppedNodes::default(),
            timers: vec![None; setup.hosts + 1],
            log: NetworkLog::default(),
            out: Vec::new(),
            setup,
        };

        for host in 1..=network.hosts.len() {
            network.start(host);
        }

        match network.setup.start {
            SessionStart::Discovery => network.drain(NodeId::SENDER),
            SessionStart::Granted => {
                if let Some(uplinks) = &mut network.uplinks {
                    network.sender.set_roster(now, uplinks.roster(now));
                }
                network.sender.announce(now);
                network.drain(NodeId::SENDER);
            }
            SessionStart::Pulled => {}
        }

        network
    }

    /// Returns the disk of host `host` (from 1), to inspect or alter.
    pub fn disk(&mut self, host: usize) -> &mut SimDisk {
        &mut self.hosts.get(host).disk
    }

    /// Same as [`Network::disk`]; `None` without such a host.
    pub fn host(&mut self, host: usize) -> Option<&mut SimDisk> {
        (1..=self.hosts.len())
            .contains(&host)
            .then(|| self.disk(host))
    }

    /// Returns the sender.
    pub fn sender(&self) -> &Sender {
        &self.sender.machine
    }

    /// Returns the present time.
    pub fn now(&self) -> Moment {
        self.now
    }

    /// Returns the number of datagrams from each host to the sender.
    pub fn feedback(&self) -> impl Iterator<Item = u64> + '_ {
        (1..=self.hosts.len()).map(|host| self.log.feedback.of(host))
    }

    /// Returns the largest number of datagrams to the sender within `window`, since the
    /// announcement; of one kind, or of all.
    pub fn feedback_peak(&self, window: Duration, kind: Option<FeedbackKind>) -> usize {
        let announced = self.sender.announced();
        self.log.feedback.peak(announced, window, kind)
    }

    /// Returns the time of the first announcement.
    pub fn announced(&self) -> Moment {
        self.sender.announced()
    }

    /// Returns the duration of the session since the announcement.
    pub fn took(&self) -> Duration {
        self.now.since(self.announced())
    }

    /// Replaces the link into host `host`.
    pub fn set_link(&mut self, host: usize, link: LinkSetup) {
        self.wires.set_link(NodeId::host(host), link);
    }

    /// Blocks all datagrams from one node to another, or unblocks them.
    pub fn cut(&mut self, from: NodeId, to: NodeId, cut: bool) {
        self.wires.cut(from, to, cut);
    }

    /// Loses a share of the datagrams from one node to another.
    pub fn lose(&mut self, from: NodeId, to: NodeId, share: f64) {
        self.wires.lose(from, to, share);
    }

    /// Replaces the uplink of a node of a network without multicast.
    pub fn set_uplink(&mut self, node: NodeId, uplink: UplinkSetup) {
        if let Some(uplinks) = &mut self.uplinks {
            uplinks.set(node, uplink);
        }
    }

    /// Lets no multicast reach host `host` of a network with segments any more.
    pub fn deafen(&mut self, host: usize) {
        if let Some(uplinks) = &mut self.uplinks {
            uplinks.deafen(NodeId::host(host));
        }
    }

    /// Returns the bytes that left a node of a network without multicast.
    pub fn sent(&self, node: NodeId) -> SentBytes {
        let uplinks = self.uplinks.as_ref();
        uplinks.map_or_else(SentBytes::default, |uplinks| uplinks.sent(node))
    }

    /// Stops the process of host `host`, or lets it go on, after `after`. What comes meanwhile
    /// waits in its receive buffer.
    pub fn stop(&mut self, host: usize, on: bool, after: Duration) {
        self.pause(NodeId::host(host), on, after);
    }

    /// Same for any node.
    pub fn pause(&mut self, node: NodeId, on: bool, after: Duration) {
        self.at(self.now + after, NetworkEvent::Stop { node, on });
    }

    /// Delays the datagrams from one node to another by `late`.
    pub fn delay(&mut self, from: NodeId, to: NodeId, late: Duration) {
        self.wires.delay(from, to, late);
    }

    /// Crashes host `host`, or starts it again, after `after`.
    pub fn power(&mut self, host: usize, on: bool, after: Duration) {
        self.at(self.now + after, NetworkEvent::Power { host, on });
    }

    /// Replays a recording to all nodes under the recorded addresses: in its order within the time
    /// `within`, and once more in random order.
    pub fn replay(&mut self, recording: &Recording, within: Duration) {
        let to: Vec<NodeId> = NodeId::all(self.hosts.len()).collect();
        let count = recording.datagrams().len().max(1) as f64;
        for (nth, datagram) in recording.datagrams().iter().enumerate() {
            for part in [nth as f64 / count, self.rng.f64()] {
                let event = NetworkEvent::Datagram {
                    to: to.clone(),
                    from: datagram.from,
                    bytes: Arc::clone(&datagram.bytes),
                };
                self.at(self.now + within.mul_f64(part), event);
            }
        }
    }

    /// Sends a datagram to all nodes under the address of node `from`.
    pub fn forge(&mut self, from: NodeId, bytes: &[u8]) {
        let to = NodeId::all(self.hosts.len())
            .filter(|to| *to != from)
            .collect();
        self.at(
            self.now,
            NetworkEvent::Datagram {
                to,
                from,
                bytes: bytes.into(),
            },
        );
    }

    /// Interrupts the session, as an operator would.
    pub fn interrupt(&mut self) {
        self.sender.machine.abort(self.now, "interrupted");
        self.drain(NodeId::SENDER);
    }

    /// Runs until the sender has finished and the network is quiet for `linger`, at most for
    /// `limit`. Returns true if the sender has finished.
    pub fn run(&mut self, limit: Duration, linger: Duration) -> bool {
        let end = self.now + limit;
        let mut quiet = None;
        while let Some(at) = self.queue.next_at() {
            if self.sender.is_finished() {
                let until = *quiet.get_or_insert(self.now + linger);
                if at > until {
                    break;
                }
            }
            if at > end {
                self.now = end;
                break;
            }
            let Some(event) = self.queue.pop() else {
                continue;
            };
            self.now = self.now.max(at);
            self.happen(event);
        }

        self.sender.is_finished()
    }

    fn at(&mut self, when: Moment, event: NetworkEvent) {
        self.queue.push(when, event);
    }

    fn happen(&mut self, event: NetworkEvent) {
        let Some(event) = self.stopped.filter(event) else {
            return;
        };

        match event {
            NetworkEvent::Datagram { to, from, bytes } => self.arrive(&to, from, &bytes),
            NetworkEvent::HostReply { host, life, reply } => {
                if self.hosts.get(host).on_reply(self.now, life, reply) {
                    self.drain(NodeId::host(host));
                }
            }
            NetworkEvent::SenderReply(reply) => {
                self.sender.machine.handle_reply(self.now, reply);
                self.drain(NodeId::SENDER);
            }
            NetworkEvent::Prepared => {
                self.log.on_announced(self.now);
                self.sender.announce(self.now);
                self.drain(NodeId::SENDER);
            }
            NetworkEvent::Departed { to, from, bytes } => {
                self.pass(self.now, &Passing { from, bytes }, [to].into_iter());
            }
            NetworkEvent::Timer(node) => self.timer(node),
            NetworkEvent::Room(node) => self.drain(node),
            NetworkEvent::Stop { node, on: true } => self.stopped.stop(node),
            NetworkEvent::Stop { node, on: false } => {
                for event in self.stopped.go_on(node) {
                    self.at(self.now, event);
                }
            }
            NetworkEvent::Power { host, on: true } => self.start(host),
            NetworkEvent::Power { host, on: false } => {
                self.hosts.get(host).crash();
                if let Some(uplinks) = &mut self.uplinks {
                    uplinks.clear(NodeId::host(host));
                }
            }
        }
    }

    /// Delivers a datagram to nodes in ascending order. The reactions of hosts follow in order.
    fn arrive(&mut self, to: &[NodeId], from: NodeId, bytes: &Arc<[u8]>) {
        let hosts = match to {
            [NodeId::SENDER, hosts @ ..] => {
                if !self.sender.is_dormant() {
                    self.sender.take(self.now, from.address(), bytes);
                    self.drain(NodeId::SENDER);
                }
                hosts
            }
            hosts => hosts,
        };

        let mut reactions = self.hosts.take(self.now, hosts, from, bytes);
        for (&node, then) in hosts.iter().zip(reactions.drain(..)) {
            match then {
                Reaction::Nothing => {}
                Reaction::Due(due) => self.schedule(node, due),
                Reaction::Says => self.drain(node),
                Reaction::PassesOn(targets) => {
                    if let Some(uplinks) = &mut self.uplinks {
                        uplinks.push_relayed(self.now, node, from, bytes, targets);
                    }
                    self.drain(node);
                }
            }
        }

        self.hosts.reuse(reactions);
    }

    fn timer(&mut self, node: NodeId) {
        let timer = &mut self.timers[node.index()];
        if timer.is_none_or(|due| due > self.now) {
            return;
        }

        *timer = None;
        match node.host_number() {
            None => self.sender.machine.handle_timeout(self.now),
            Some(host) => self.hosts.get(host).handle_timeout(self.now),
        }

        self.drain(node);
    }

    fn start(&mut self, host: usize) {
        let seeds = StartSeeds {
            process: self.rng.u64(1..),
            machine: self.rng.u64(..),
        };

        let fleet = if self.setup.strangers {
            self.hosts.len() as u32
        } else {
            0
        };

        self.hosts
            .get(host)
            .start(self.now, &self.setup, fleet, seeds);
        if let Some(uplinks) = &mut self.uplinks
            && let Some(instance) = self.hosts.get(host).instance()
        {
            uplinks.set_instance(self.now, NodeId::host(host), instance);
        }
        self.drain(NodeId::host(host));
    }

    /// Collects all output of a machine.
    fn drain(&mut self, node: NodeId) {
        let mut out = std::mem::take(&mut self.out);
        let is_sent = match self.uplinks.take() {
            None => {
                while let Some(transmit) = self.poll_transmit(node, &mut out) {
                    self.send(node, transmit, &out);
                }
                true
            }
            Some(mut uplinks) => {
                let is_sent = self.flush(node, &mut uplinks, &mut out);
                self.uplinks = Some(uplinks);
                is_sent
            }
        };

        self.out = out;
        let due = match node.host_number() {
            None => {
                self.drain_sender();
                self.sender.machine.poll_timeout(self.now)
            }
            Some(host) => {
                self.drain_host(host);
                self.hosts.get(host).timeout(self.now)
            }
        };

        // While a node waits for room, its timers wait as well.
        if let Some(due) = due.filter(|_| is_sent) {
            self.schedule(node, due);
        }
    }

    /// Sets a timer of a node.
    fn schedule(&mut self, node: NodeId, due: Moment) {
        let due = due.max(self.now + Duration::from_micros(1));
        let timer = &mut self.timers[node.index()];
        if timer.is_none_or(|at| due < at || at <= self.now) {
            *timer = Some(due);
            self.at(due, NetworkEvent::Timer(node));
        }
    }

    fn drain_sender(&mut self) {
        let now = self.now;
        while let Some((when, reply)) = self.sender.poll_reply(now, &self.setup, &mut self.rng) {
            self.queue.push(when, reply);
        }

        if self.sender.take_notices(now, &mut self.log) {
            self.at(now + self.setup.prepare, NetworkEvent::Prepared);
        }
    }

    fn drain_host(&mut self, number: usize) {
        let host = self.hosts.get(number);
        if self.setup.observe.memory {
            self.log.most_held = self.log.most_held.max(host.held());
        }

        let is_pulled = host.take_pulls();
        while let Some((when, reply)) = host.poll_reply(self.now, self.setup.disk, &mut self.rng) {
            self.queue.push(when, reply);
        }

        if is_pulled && self.sender.wake() {
            self.at(self.now, NetworkEvent::Prepared);
        }
    }
}
