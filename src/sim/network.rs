//! The simulated network: a queue of future events, and their effects on the state machines.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::disk::{SimDisk, SimOffer};
use super::event::{EventQueue, NetworkEvent};
use super::feedback::{Feedback, FeedbackKind, is_counted};
use super::link::{LinkSetup, LinkState, forge};
use super::recording::Recording;
use super::setup::NetworkSetup;
use crate::id::{HostName, InstanceId};
use crate::keys::HostKey;
use crate::proto::members::Trust;
use crate::proto::receiver::{self, HostSetup, HostTrees, Receiver, SessionHost};
use crate::proto::sender::{
    self, CommitRules, CompareRules, DatagramSizes, KeyRules, RateLimits, ReleaseGrant, Sender,
    SenderNotice, SenderSetup, TargetRules,
};
use crate::proto::{Dest, Transmit};
use crate::units::Moment;
use crate::wire::{Datagram, HostStage};

struct SimHost {
    machine: Option<Receiver>,
    disk: SimDisk,
    link: LinkState,
    /// Number of starts of the host: answers to requests of an earlier life are dropped.
    life: u32,
    /// Datagrams sent to the sender, counted as in a real network.
    feedback: u64,
    /// Time at which the disk takes the next request; requests are answered in order.
    disk_free: Moment,
}

/// Reaction of a host to a datagram.
#[derive(Debug, Clone, Copy)]
enum Reaction {
    Nothing,
    /// A timer at this time.
    Due(Moment),
    /// Output to collect: datagrams, requests or notices.
    Says,
}

impl SimHost {
    fn take(&mut self, now: Moment, from: SocketAddr, bytes: &[u8]) -> Reaction {
        let Some(machine) = &mut self.machine else {
            return Reaction::Nothing;
        };

        machine.handle_datagram(now, from, bytes, now.0 / 1000);
        if machine.is_calm() {
            Reaction::Due(machine.poll_timeout(now))
        } else {
            Reaction::Says
        }
    }
}

/// Returns the seed of a host's key.
pub(super) fn own_seed(host: usize) -> [u8; 32] {
    crate::block::BlockHash::of(&host.to_be_bytes()).0
}

/// Number of hosts that justify a thread for a datagram to all.
const HOSTS_A_THREAD: usize = 500;

/// A sender, its hosts and the links between them.
pub struct Network {
    setup: NetworkSetup,
    now: Moment,
    queue: EventQueue,
    rng: fastrand::Rng,
    sender: Sender,
    offer: SimOffer,
    sender_link: LinkState,
    hosts: Vec<SimHost>,
    /// Blocked directions: from one node to another.
    cuts: BTreeSet<(usize, usize)>,
    /// Next timer of each node.
    timers: Vec<Option<Moment>>,
    /// Time at which the sender learned that a host is ready.
    ready: BTreeMap<usize, Moment>,
    feedback: Feedback,
    /// Reused buffers for a machine's datagrams, and for the hosts' reactions to a datagram.
    out: Vec<u8>,
    reactions: Vec<Reaction>,
    threads: usize,
    announced: Moment,
    /// Largest number of bytes that a host held at any time, if tracked.
    pub most_held: usize,
    /// Notices of the sender, in order.
    pub notices: Vec<SenderNotice>,
    /// All datagrams, if recorded.
    pub recording: Recording,
    /// Longest time between two control messages of the sender to all, since its announcement.
    pub longest_pause: Duration,
    last_control: Option<Moment>,
    finished: bool,
    /// True until the sender begins.
    dormant: bool,
}

impl Network {
    /// Creates a network on which a sender begins to deploy `offer`.
    pub fn new(setup: NetworkSetup, offer: SimOffer) -> Self {
        let mut rng = fastrand::Rng::with_seed(setup.seed);
        let now = Moment(1_000_000_000);
        let sender = Sender::new(
            now,
            SenderSetup {
                name: name(0),
                instance: InstanceId(rng.u64(1..)),
                seed: rng.u64(..),
                sizes: DatagramSizes {
                    datagram: setup.datagram,
                    room: 0,
                    overhead: 46,
                },
                rates: RateLimits {
                    ceiling: setup.ceiling,
                    ..RateLimits::default()
                },
                targets: TargetRules::all_of(super::disk::tree()),
                keys: KeyRules {
                    known: setup.known_hosts.clone(),
                    strict: setup.strict,
                },
                commit: CommitRules {
                    quorum: setup.quorum,
                    batches: setup.batches.clone(),
                    revert: setup.revert,
                    lists: false,
                },
                patience: setup.patience,
                compare: CompareRules::default(),
                grant: setup.granted.then(|| ReleaseGrant {
                    order: offer.grant(),
                    fleet: setup.hosts as u32,
                    follows: None,
                    only: None,
                }),
            },
        );

        let hosts = (1..=setup.hosts)
            .map(|host| SimHost {
                machine: None,
                disk: SimDisk::sharing(&offer, setup.recall),
                link: LinkState::new(setup.links.get(&host).unwrap_or(&setup.link).clone()),
                life: 0,
                feedback: 0,
                disk_free: now,
            })
            .collect();

        let mut network = Self {
            sender_link: LinkState::new(setup.link.clone()),
            setup,
            now,
            queue: EventQueue::default(),
            rng,
            sender,
            offer,
            hosts,
            cuts: BTreeSet::new(),
            timers: Vec::new(),
            ready: BTreeMap::new(),
            feedback: Feedback::default(),
            out: Vec::new(),
            reactions: Vec::new(),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            announced: now,
            most_held: 0,
            notices: Vec::new(),
            recording: Recording::default(),
            longest_pause: Duration::ZERO,
            last_control: None,
            finished: false,
            dormant: false,
        };

        network.dormant = network.setup.pulled;
        network.timers = vec![None; network.hosts.len() + 1];
        for host in 1..=network.hosts.len() {
            network.start(host);
        }

        if network.setup.granted && !network.dormant {
            // Discovery is skipped.
            network.announce();
        }

        if !network.dormant {
            network.drain(0);
        }

        network
    }

    fn announce(&mut self) {
        self.announced = self.now;
        let signature = super::disk::signature(self.offer.release.bytes());
        self.sender
            .announce(self.now, self.offer.release.clone(), signature);
    }

    /// Returns the disk of host `host` (from 1), to inspect or alter.
    pub fn disk(&mut self, host: usize) -> &mut SimDisk {
        &mut self.hosts[host - 1].disk
    }

    /// Same as [`Network::disk`]; `None` without such a host.
    pub fn host(&mut self, host: usize) -> Option<&mut SimDisk> {
        self.hosts
            .get_mut(host.checked_sub(1)?)
            .map(|host| &mut host.disk)
    }

    /// Returns the sender.
    pub fn sender(&self) -> &Sender {
        &self.sender
    }

    /// Returns the present time.
    pub fn now(&self) -> Moment {
        self.now
    }

    /// Returns the number of datagrams from each host to the sender.
    pub fn feedback(&self) -> impl Iterator<Item = u64> + '_ {
        self.hosts.iter().map(|h| h.feedback)
    }

    /// Returns the number of datagrams from hosts to the sender since the announcement.
    pub fn feedback_count(&self) -> usize {
        self.feedback.count(self.announced)
    }

    /// Returns the largest number of such datagrams within `window`; of one kind, or of all.
    pub fn feedback_peak(&self, window: Duration, kind: Option<FeedbackKind>) -> usize {
        self.feedback.peak(self.announced, window, kind)
    }

    /// Returns the time at which the sender learned that each host is ready.
    pub fn ready_at(&self) -> &BTreeMap<usize, Moment> {
        &self.ready
    }

    /// Returns the duration of the session since the announcement.
    pub fn took(&self) -> Duration {
        self.now.since(self.announced)
    }

    /// Replaces the link into host `host`.
    pub fn set_link(&mut self, host: usize, link: LinkSetup) {
        self.hosts[host - 1].link.link = link;
    }

    /// Blocks all datagrams from one node to another (0 is the sender), or unblocks them.
    pub fn cut(&mut self, from: usize, to: usize, cut: bool) {
        match cut {
            true => self.cuts.insert((from, to)),
            false => self.cuts.remove(&(from, to)),
        };
    }

    /// Crashes host `host`, or starts it again, after `after`.
    pub fn power(&mut self, host: usize, on: bool, after: Duration) {
        self.at(self.now + after, NetworkEvent::Power { host, on });
    }

    /// Replays a recording to all nodes under the recorded addresses: in its order within the time
    /// `within`, and once more in random order.
    pub fn replay(&mut self, recording: &Recording, within: Duration) {
        let to: Vec<u32> = (0..=self.hosts.len() as u32).collect();
        let count = recording.0.len().max(1) as f64;
        for (nth, (from, bytes)) in recording.0.iter().enumerate() {
            for part in [nth as f64 / count, self.rng.f64()] {
                let event = NetworkEvent::Datagram {
                    to: to.clone(),
                    from: *from,
                    bytes: Arc::clone(bytes),
                };
                self.at(self.now + within.mul_f64(part), event);
            }
        }
    }

    /// Sends a datagram to all nodes under the address of host `from`.
    pub fn forge(&mut self, from: usize, bytes: &[u8]) {
        let to = (0..=self.hosts.len() as u32)
            .filter(|to| *to as usize != from)
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
        self.sender.abort(self.now, "interrupted");
        self.drain(0);
    }

    /// Runs until the sender has finished and the network is quiet for `linger`, at most for
    /// `limit`. Returns true if the sender has finished.
    pub fn run(&mut self, limit: Duration, linger: Duration) -> bool {
        let end = self.now + limit;
        let mut quiet = None;
        while let Some(at) = self.queue.next_at() {
            if self.finished {
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

        self.finished
    }

    fn at(&mut self, when: Moment, event: NetworkEvent) {
        self.queue.push(when, event);
    }

    fn happen(&mut self, event: NetworkEvent) {
        match event {
            NetworkEvent::Datagram { to, from, bytes } => self.arrive(&to, from, &bytes),
            NetworkEvent::HostReply { host, life, reply } => {
                let slot = &mut self.hosts[host - 1];
                if slot.life == life
                    && let Some(machine) = &mut slot.machine
                {
                    let committed = matches!(
                        reply,
                        receiver::DiskReply::Session(_, receiver::Answer::Ordered(_))
                    );
                    machine.handle_reply(self.now, reply);
                    if committed {
                        machine.handle_reply(
                            self.now,
                            receiver::DiskReply::Headers(slot.disk.headers()),
                        );
                        machine.handle_reply(
                            self.now,
                            receiver::DiskReply::Trees(vec![slot.disk.state()]),
                        );
                    }
                    self.drain(host);
                }
            }
            NetworkEvent::SenderReply(reply) => {
                self.sender.handle_reply(self.now, reply);
                self.drain(0);
            }
            NetworkEvent::Prepared => {
                self.last_control = Some(self.now);
                self.announce();
                self.drain(0);
            }
            NetworkEvent::Timer(place) => self.timer(place),
            NetworkEvent::Power { host, on: true } => self.start(host),
            NetworkEvent::Power { host, on: false } => {
                let slot = &mut self.hosts[host - 1];
                slot.machine = None;
                slot.life += 1;
                slot.disk.crash();
            }
        }
    }

    /// Delivers a datagram to nodes in ascending order. Machines handle the datagram in parallel;
    /// their reactions follow in order.
    fn arrive(&mut self, to: &[u32], from: usize, bytes: &[u8]) {
        let now = self.now;
        let hosts = match to {
            [0, hosts @ ..] if self.dormant => hosts,
            [0, hosts @ ..] => {
                self.sender.handle_datagram(now, address(from), bytes);
                self.drain(0);
                hosts
            }
            hosts => hosts,
        };

        let mut then = std::mem::take(&mut self.reactions);
        then.resize(hosts.len(), Reaction::Nothing);
        let share = hosts.len().div_ceil(self.threads).max(HOSTS_A_THREAD);
        std::thread::scope(|scope| {
            let mut rest = &mut self.hosts[..];
            let mut first = 1;
            let mut parts = hosts.chunks(share).zip(then.chunks_mut(share)).peekable();
            while let Some((places, then)) = parts.next() {
                let end = places.last().map_or(0, |&last| last as usize + 1) - first;
                let (part, others) = std::mem::take(&mut rest).split_at_mut(end);
                let offset = first;
                first += end;
                rest = others;
                let work = move || {
                    for (&place, then) in places.iter().zip(then) {
                        *then = part[place as usize - offset].take(now, address(from), bytes);
                    }
                };
                // This thread takes the last part.
                match parts.peek() {
                    Some(_) => drop(scope.spawn(work)),
                    None => work(),
                }
            }
        });

        for (&place, then) in hosts.iter().zip(then.drain(..)) {
            match then {
                Reaction::Nothing => {}
                Reaction::Due(due) => self.schedule(place as usize, due),
                Reaction::Says => self.drain(place as usize),
            }
        }

        self.reactions = then;
    }

    fn timer(&mut self, place: usize) {
        if self.timers[place].is_none_or(|due| due > self.now) {
            return;
        }

        self.timers[place] = None;
        if place == 0 {
            self.sender.handle_timeout(self.now);
        } else if let Some(machine) = &mut self.hosts[place - 1].machine {
            machine.handle_timeout(self.now);
        }

        self.drain(place);
    }

    fn start(&mut self, host: usize) {
        let key = HostKey::new(own_seed(host), self.rng.u64(1..));
        let seed = self.rng.u64(..);
        let fleet = if self.setup.strangers {
            self.hosts.len() as u32
        } else {
            0
        };

        let slot = &mut self.hosts[host - 1];
        slot.life += 1;
        let machine = slot.machine.insert(Receiver::new(
            self.now,
            HostSetup {
                host: SessionHost {
                    name: name(host),
                    key,
                    patience: self.setup.patience,
                    window: 4 << 20,
                },
                trees: HostTrees {
                    states: vec![slot.disk.state()],
                    takes: if self.setup.granted {
                        [super::disk::tree()].into()
                    } else {
                        Default::default()
                    },
                    gives: if self.setup.pulled {
                        [super::disk::tree()].into()
                    } else {
                        Default::default()
                    },
                    tombstones: slot.disk.tombstones.clone(),
                    shown: BTreeMap::new(),
                    headers: slot.disk.headers(),
                },
                trust: Trust::Proven,
                seed,
                datagram: self.setup.datagram,
                room: 0,
            },
        ));

        machine.assume_fleet(fleet);
        self.drain(host);
    }

    /// Collects all output of a machine.
    fn drain(&mut self, place: usize) {
        let mut out = std::mem::take(&mut self.out);
        loop {
            let transmit = match place {
                0 => self.sender.poll_transmit(self.now, &mut out),
                host => self.hosts[host - 1]
                    .machine
                    .as_mut()
                    .and_then(|m| m.poll_transmit(&mut out)),
            };
            let Some(transmit) = transmit else { break };
            self.send(place, transmit, &out);
        }

        self.out = out;
        match place {
            0 => self.drain_sender(),
            host => self.drain_host(host),
        }

        let due = match place {
            0 => self.sender.poll_timeout(self.now),
            host => self.hosts[host - 1]
                .machine
                .as_ref()
                .map(|m| m.poll_timeout(self.now)),
        };

        if let Some(due) = due {
            self.schedule(place, due);
        }
    }

    /// Sets a timer of a node.
    fn schedule(&mut self, place: usize, due: Moment) {
        let due = due.max(self.now + Duration::from_micros(1));
        if self.timers[place].is_none_or(|at| due < at || at <= self.now) {
            self.timers[place] = Some(due);
            self.at(due, NetworkEvent::Timer(place));
        }
    }

    fn drain_sender(&mut self) {
        while let Some(request) = self.sender.poll_request() {
            let reply = match request {
                sender::SenderRequest::Pack(_, ordinals, _) => {
                    let target = self.setup.generation;
                    let level = self.setup.compress;
                    sender::SenderReply::Packed(Ok(self.offer.pack(&ordinals, target, level)))
                }
                sender::SenderRequest::Sign(order) => {
                    let signature = super::disk::signature(&order);
                    sender::SenderReply::Signed(Ok((order, signature)))
                }
            };
            let when = self.now + self.setup.disk.mul_f64(self.rng.f64());
            self.at(when, NetworkEvent::SenderReply(reply));
        }

        while let Some(notice) = self.sender.poll_notice() {
            let discovered = matches!(notice, SenderNotice::Discovered { .. });
            let over = matches!(notice, SenderNotice::Finished);
            if let SenderNotice::Host(host) = &notice
                && host.stage == Some(HostStage::Ready)
            {
                self.ready.insert(place(host.address), self.now);
            }
            self.notices.push(notice);
            self.finished |= over;
            if discovered && self.sender.hosts().next().is_some() {
                self.at(self.now + self.setup.prepare, NetworkEvent::Prepared);
            } else if discovered {
                self.finished = true;
            }
        }
    }

    fn drain_host(&mut self, host: usize) {
        let slot = &mut self.hosts[host - 1];
        let Some(machine) = &mut slot.machine else {
            return;
        };

        if self.setup.watch_memory {
            self.most_held = self.most_held.max(machine.held());
        }

        while machine.poll_notice().is_some() {}
        let is_pulled = std::iter::from_fn(|| machine.poll_pull()).count() > 0;
        while let Some(request) = machine.poll_request() {
            slot.disk_free = slot.disk_free.max(self.now) + self.setup.disk.mul_f64(self.rng.f64());
            if let Some(reply) = slot.disk.answer(request) {
                self.queue.push(
                    slot.disk_free,
                    NetworkEvent::HostReply {
                        host,
                        life: slot.life,
                        reply,
                    },
                );
            }
        }

        if is_pulled && std::mem::take(&mut self.dormant) {
            self.at(self.now, NetworkEvent::Prepared);
        }
    }

    fn send(&mut self, from: usize, transmit: Transmit, out: &[u8]) {
        let all = if from > 0 && self.setup.strangers {
            0
        } else {
            self.hosts.len()
        };

        for bytes in out.chunks(transmit.segment) {
            let bytes: Arc<[u8]> = bytes.into();
            if self.setup.record {
                self.recording.0.push((from, Arc::clone(&bytes)));
            }
            if from == 0
                && transmit.dest == Dest::Group
                && matches!(Datagram::parse(&bytes), Ok(Datagram::Control(..)))
                && let Some(spoke) = &mut self.last_control
            {
                self.longest_pause = self.longest_pause.max(self.now.since(*spoke));
                *spoke = self.now;
            }
            match transmit.dest {
                Dest::Group => self.pass(from, (0..=all).filter(|&to| to != from), &bytes),
                Dest::Host(to) => self.pass(from, std::iter::once(place(to)), &bytes),
            }
        }
    }

    /// Sends a datagram over the links to nodes; arrivals at the same moment share an event.
    fn pass(&mut self, from: usize, to: impl Iterator<Item = usize>, bytes: &Arc<[u8]>) {
        let mut arrivals: Vec<(Moment, u32)> = Vec::with_capacity(to.size_hint().0);
        for to in to {
            if self.cuts.contains(&(from, to)) {
                continue;
            }
            if to == 0 && from > 0 && is_counted(bytes, self.setup.datagram) {
                self.hosts[from - 1].feedback += 1;
                let nodes = self.offer.release.header().root.nodes;
                self.feedback
                    .record(self.now, FeedbackKind::of(bytes, nodes));
            }
            let link = match to {
                0 => &mut self.sender_link,
                host if host <= self.hosts.len() => &mut self.hosts[host - 1].link,
                _ => continue,
            };
            let forged = link.link.forged;
            let [when, again] = link.pass(self.now, bytes.len(), &mut self.rng);
            if forged > 0.0 && self.rng.f64() < forged {
                let bytes: Arc<[u8]> = forge(bytes, &mut self.rng).into();
                self.queue.push(
                    self.now,
                    NetworkEvent::Datagram {
                        to: vec![to as u32],
                        from,
                        bytes,
                    },
                );
            }
            arrivals.extend(when.map(|when| (when, to as u32)));
            if let Some(again) = again {
                self.queue.push(
                    again,
                    NetworkEvent::Datagram {
                        to: vec![to as u32],
                        from,
                        bytes: Arc::clone(bytes),
                    },
                );
            }
        }

        // Arrivals are mostly in order already, and the sort is then one pass.
        arrivals.sort_by_key(|(when, _)| *when);
        for same in arrivals.chunk_by(|a, b| a.0 == b.0) {
            let to = same.iter().map(|(_, to)| *to).collect();
            self.at(
                same[0].0,
                NetworkEvent::Datagram {
                    to,
                    from,
                    bytes: Arc::clone(bytes),
                },
            );
        }
    }
}

fn name(host: usize) -> HostName {
    HostName::new(&format!("mk{host}")).expect("legal")
}

fn address(host: usize) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::from(0x0a4d_0000 + host as u32)), 5000)
}

fn place(address: SocketAddr) -> usize {
    match address.ip() {
        IpAddr::V4(ip) => (u32::from(ip) - 0x0a4d_0000) as usize,
        IpAddr::V6(_) => usize::MAX,
    }
}
