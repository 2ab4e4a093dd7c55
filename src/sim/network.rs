//! The network: a queue of things to come, and what each does to the machines.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::disk::{Disk, Offer};
use super::feedback::{Feedback, Kind, is_counted};
use super::link::{Link, State, forge};
use crate::block::frame::Level;
use crate::id::{HostName, InstanceId};
use crate::keys::{HostKey, KnownHosts};
use crate::proto::generation::TARGET_BYTES;
use crate::proto::members::Trust;
use crate::proto::receiver::{self, HostSetup, Receiver};
use crate::proto::sender::{self, ExpectedHosts, Sender, SenderNotice, SenderSetup};
use crate::proto::{Dest, Transmit};
use crate::units::{Floor, Moment, Quorum, Rate};
use crate::wire::{Datagram, HostStage};

/// What a simulation is to be.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The seed of everything.
    pub seed: u64,
    /// How many hosts there are.
    pub hosts: usize,
    /// The way into every host.
    pub link: Link,
    /// The way into some hosts (from 1), where it is another one.
    pub links: BTreeMap<usize, Link>,
    /// How many must be ready.
    pub quorum: Quorum,
    /// The batches of the commit.
    pub batches: Vec<Quorum>,
    /// Whether all go back when one fails.
    pub revert: bool,
    /// How long a silent host or sender is waited for.
    pub patience: Duration,
    /// The sender's ceiling.
    pub ceiling: Option<Rate>,
    /// How hard the sender compresses.
    pub compress: Option<Level>,
    /// The longest that a disk takes to answer.
    pub disk: Duration,
    /// How long it takes to make and sign the release.
    pub prepare: Duration,
    /// Bytes of a datagram.
    pub datagram: usize,
    /// What the packer aims at, in bytes of a generation.
    pub generation: usize,
    /// Whether hosts do not hear each other, and only know how many they are: or a simulation of thousands is all
    /// beacons.
    pub strangers: bool,
    /// Whether disks read back blocks that are here already.
    pub recall: bool,
    /// Whether it is watched how much memory hosts hold.
    pub watch_memory: bool,
    /// Whether the release was committed elsewhere, and hosts that missed it commit by that order.
    pub granted: bool,
    /// Whether that begins only when a host asks one that has the release for it: the sender stands for that one.
    pub pulled: bool,
    /// Whether somebody records what is sent.
    pub record: bool,
    /// The keys that hosts had before.
    pub known_hosts: KnownHosts,
    /// Whether a host with another key has no part in the session.
    pub strict: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            seed: 1,
            hosts: 3,
            link: Link::default(),
            links: BTreeMap::new(),
            quorum: Quorum::All,
            batches: Vec::new(),
            revert: false,
            patience: Duration::from_secs(10),
            ceiling: Some(Rate(1_000_000_000)),
            compress: None,
            disk: Duration::from_millis(3),
            prepare: Duration::ZERO,
            datagram: 1472,
            generation: TARGET_BYTES,
            strangers: false,
            recall: true,
            watch_memory: false,
            granted: false,
            pulled: false,
            record: false,
            known_hosts: KnownHosts::default(),
            strict: false,
        }
    }
}

#[derive(Debug)]
enum Event {
    /// A datagram arrives at places (0 is the sender).
    Datagram {
        to: Vec<u32>,
        from: usize,
        bytes: Arc<[u8]>,
    },
    /// A disk answers.
    HostReply {
        host: usize,
        life: u32,
        reply: receiver::DiskReply,
    },
    /// The sender's disk answers.
    SenderReply(sender::SenderReply),
    /// The release is signed.
    Prepared,
    /// Something is due at a place.
    Timer(usize),
    /// A host crashes, or starts again.
    Power { host: usize, on: bool },
}

struct Host {
    machine: Option<Receiver>,
    disk: Disk,
    link: State,
    /// Counts the lives of the host: what an earlier life asked of the disk is not answered to a later one.
    life: u32,
    /// The datagrams that it sent to the sender, as a real network would count them.
    feedback: u64,
    /// Requests are answered in order.
    disk_free: Moment,
}

/// What a host does about a datagram.
#[derive(Debug, Clone, Copy)]
enum Then {
    Nothing,
    /// Something is due then.
    Due(Moment),
    /// It has something to say, to ask or to tell.
    Says,
}

impl Host {
    fn take(&mut self, now: Moment, from: SocketAddr, bytes: &[u8]) -> Then {
        let Some(machine) = &mut self.machine else {
            return Then::Nothing;
        };

        machine.handle_datagram(now, from, bytes, now.0 / 1000);
        if machine.is_calm() {
            Then::Due(machine.poll_timeout(now))
        } else {
            Then::Says
        }
    }
}

/// What the key of a host is made from.
pub(super) fn own_seed(host: usize) -> [u8; 32] {
    crate::block::BlockHash::of(&host.to_be_bytes()).0
}

/// So many hosts are worth a thread when a datagram comes to all.
const WORTH_A_THREAD: usize = 500;

/// A sender, its hosts and the links between them.
pub struct Network {
    setup: Setup,
    now: Moment,
    queue: Queue,
    rng: fastrand::Rng,
    sender: Sender,
    offer: Offer,
    sender_link: State,
    hosts: Vec<Host>,
    /// From where to where nothing passes.
    cuts: BTreeSet<(usize, usize)>,
    /// When something is due at each place.
    timers: Vec<Option<Moment>>,
    /// When the sender heard of each host that it is ready.
    ready: BTreeMap<usize, Moment>,
    heard: Feedback,
    /// Memory for what a machine sends, and for what hosts do about a datagram.
    out: Vec<u8>,
    then: Vec<Then>,
    threads: usize,
    announced: Moment,
    /// The most bytes that a host held at any time, when that is watched.
    pub most_held: usize,
    /// What the sender told, in order.
    pub notices: Vec<SenderNotice>,
    /// What was sent, when that is recorded.
    pub recording: Recording,
    /// The longest time between two control words of the sender to all, since it announced.
    pub longest_pause: Duration,
    spoke: Option<Moment>,
    finished: bool,
    /// The sender has not begun.
    dormant: bool,
}

impl Network {
    /// A network on which a sender begins to deploy `offer`.
    pub fn new(setup: Setup, offer: Offer) -> Self {
        let mut rng = fastrand::Rng::with_seed(setup.seed);
        let now = Moment(1_000_000_000);
        let sender = Sender::new(
            now,
            SenderSetup {
                name: name(0),
                instance: InstanceId(rng.u64(1..)),
                seed: rng.u64(..),
                datagram: setup.datagram,
                room: 0,
                tree: super::disk::tree(),
                targets: Vec::new(),
                without: None,
                lists: false,
                expect: ExpectedHosts::default(),
                known_hosts: setup.known_hosts.clone(),
                strict: setup.strict,
                known: 0,
                quorum: setup.quorum,
                batches: setup.batches.clone(),
                revert: setup.revert,
                patience: setup.patience,
                overhead: 46,
                ceiling: setup.ceiling,
                floor: Floor::default(),
                checksum: false,
                quick: false,
                recheck: false,
                grant: setup.granted.then(|| offer.grant()),
                fleet: if setup.granted { setup.hosts as u32 } else { 0 },
                follows: None,
                only: None,
            },
        );

        let hosts = (1..=setup.hosts)
            .map(|host| Host {
                machine: None,
                disk: Disk::sharing(&offer, setup.recall),
                link: State::new(setup.links.get(&host).unwrap_or(&setup.link).clone()),
                life: 0,
                feedback: 0,
                disk_free: now,
            })
            .collect();

        let mut network = Self {
            sender_link: State::new(setup.link.clone()),
            setup,
            now,
            queue: Queue::default(),
            rng,
            sender,
            offer,
            hosts,
            cuts: BTreeSet::new(),
            timers: Vec::new(),
            ready: BTreeMap::new(),
            heard: Feedback::default(),
            out: Vec::new(),
            then: Vec::new(),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            announced: now,
            most_held: 0,
            notices: Vec::new(),
            recording: Recording::default(),
            longest_pause: Duration::ZERO,
            spoke: None,
            finished: false,
            dormant: false,
        };

        network.dormant = network.setup.pulled;
        network.timers = vec![None; network.hosts.len() + 1];
        for host in 1..=network.hosts.len() {
            network.start(host);
        }

        if network.setup.granted && !network.dormant {
            // Nobody is looked for.
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

    /// The disk of host `host` (from 1), for looking at and tampering with.
    pub fn disk(&mut self, host: usize) -> &mut Disk {
        &mut self.hosts[host - 1].disk
    }

    /// The same when there is such a host.
    pub fn host(&mut self, host: usize) -> Option<&mut Disk> {
        self.hosts
            .get_mut(host.checked_sub(1)?)
            .map(|host| &mut host.disk)
    }

    /// The sender.
    pub fn sender(&self) -> &Sender {
        &self.sender
    }

    /// The present time.
    pub fn now(&self) -> Moment {
        self.now
    }

    /// Datagrams that each host sent to the sender.
    pub fn feedback(&self) -> impl Iterator<Item = u64> + '_ {
        self.hosts.iter().map(|h| h.feedback)
    }

    /// How many datagrams hosts sent to the sender from the announcement on.
    pub fn feedback_count(&self) -> usize {
        self.heard.count(self.announced)
    }

    /// The most of them within `window`; of one kind, or of all.
    pub fn feedback_peak(&self, window: Duration, kind: Option<Kind>) -> usize {
        self.heard.peak(self.announced, window, kind)
    }

    /// When the sender heard of each host that it is ready.
    pub fn ready_at(&self) -> &BTreeMap<usize, Moment> {
        &self.ready
    }

    /// How long the session took, from the announcement on.
    pub fn took(&self) -> Duration {
        self.now.since(self.announced)
    }

    /// Changes the way into host `host`.
    pub fn set_link(&mut self, host: usize, link: Link) {
        self.hosts[host - 1].link.link = link;
    }

    /// Lets nothing pass from one place to another (0 is the sender) any more, or everything again.
    pub fn cut(&mut self, from: usize, to: usize, cut: bool) {
        match cut {
            true => self.cuts.insert((from, to)),
            false => self.cuts.remove(&(from, to)),
        };
    }

    /// Host `host` crashes, or starts again, after `after`.
    pub fn power(&mut self, host: usize, on: bool, after: Duration) {
        self.at(self.now + after, Event::Power { host, on });
    }

    /// Somebody sends a recording to all, under the addresses of those whose words it has: as it was, within the time
    /// `within`, and once more in any order.
    pub fn replay(&mut self, recording: &Recording, within: Duration) {
        let to: Vec<u32> = (0..=self.hosts.len() as u32).collect();
        let count = recording.0.len().max(1) as f64;
        for (nth, (from, bytes)) in recording.0.iter().enumerate() {
            for part in [nth as f64 / count, self.rng.f64()] {
                let event = Event::Datagram {
                    to: to.clone(),
                    from: *from,
                    bytes: Arc::clone(bytes),
                };
                self.at(self.now + within.mul_f64(part), event);
            }
        }
    }

    /// Somebody sends a datagram to all under the address of host `from`.
    pub fn forge(&mut self, from: usize, bytes: &[u8]) {
        let to = (0..=self.hosts.len() as u32)
            .filter(|to| *to as usize != from)
            .collect();
        self.at(
            self.now,
            Event::Datagram {
                to,
                from,
                bytes: bytes.into(),
            },
        );
    }

    /// A person ends the session early.
    pub fn interrupt(&mut self) {
        self.sender.abort(self.now, "interrupted");
        self.drain(0);
    }

    /// Runs until the sender has finished and the network is quiet for `linger`, at most for `limit`; says whether
    /// the sender has finished.
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

    fn at(&mut self, when: Moment, event: Event) {
        self.queue.push(when, event);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Datagram { to, from, bytes } => self.arrive(&to, from, &bytes),
            Event::HostReply { host, life, reply } => {
                let slot = &mut self.hosts[host - 1];
                if slot.life == life
                    && let Some(machine) = &mut slot.machine
                {
                    let committed = matches!(reply, receiver::DiskReply::Ordered(..));
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
            Event::SenderReply(reply) => {
                self.sender.handle_reply(self.now, reply);
                self.drain(0);
            }
            Event::Prepared => {
                self.spoke = Some(self.now);
                self.announce();
                self.drain(0);
            }
            Event::Timer(place) => self.timer(place),
            Event::Power { host, on: true } => self.start(host),
            Event::Power { host, on: false } => {
                let slot = &mut self.hosts[host - 1];
                slot.machine = None;
                slot.life += 1;
                slot.disk.crash();
            }
        }
    }

    /// A datagram arrives at places, which rise. Machines take it beside each other; what they do about it comes after
    /// that, in order.
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

        let mut then = std::mem::take(&mut self.then);
        then.resize(hosts.len(), Then::Nothing);
        let share = hosts.len().div_ceil(self.threads).max(WORTH_A_THREAD);
        std::thread::scope(|scope| {
            let (mut rest, mut first) = (&mut self.hosts[..], 1);
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
                // The last part is ours.
                match parts.peek() {
                    Some(_) => drop(scope.spawn(work)),
                    None => work(),
                }
            }
        });

        for (&place, then) in hosts.iter().zip(then.drain(..)) {
            match then {
                Then::Nothing => {}
                Then::Due(due) => self.schedule(place as usize, due),
                Then::Says => self.drain(place as usize),
            }
        }

        self.then = then;
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
        let (key, seed) = (
            HostKey::new(own_seed(host), self.rng.u64(1..)),
            self.rng.u64(..),
        );
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
                name: name(host),
                trees: vec![slot.disk.state()],
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
                key,
                shown: BTreeMap::new(),
                headers: slot.disk.headers(),
                trust: Trust::Proven,
                seed,
                datagram: self.setup.datagram,
                room: 0,
                patience: self.setup.patience,
                window: 4 << 20,
            },
        ));

        machine.assume_fleet(fleet);
        self.drain(host);
    }

    /// Lets a machine say all that it has to say.
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

    /// Something is due at a place.
    fn schedule(&mut self, place: usize, due: Moment) {
        let due = due.max(self.now + Duration::from_micros(1));
        if self.timers[place].is_none_or(|at| due < at || at <= self.now) {
            self.timers[place] = Some(due);
            self.at(due, Event::Timer(place));
        }
    }

    fn drain_sender(&mut self) {
        while let Some(request) = self.sender.poll_request() {
            let reply = match request {
                sender::SenderRequest::Pack(_, ordinals, _) => {
                    let (target, level) = (self.setup.generation, self.setup.compress);
                    sender::SenderReply::Packed(Ok(self.offer.pack(&ordinals, target, level)))
                }
                sender::SenderRequest::Sign(order) => {
                    let signature = super::disk::signature(&order);
                    sender::SenderReply::Signed(Ok((order, signature)))
                }
            };
            let when = self.now + self.setup.disk.mul_f64(self.rng.f64());
            self.at(when, Event::SenderReply(reply));
        }

        while let Some(notice) = self.sender.poll_notice() {
            let (discovered, over) = (
                matches!(notice, SenderNotice::Discovered { .. }),
                matches!(notice, SenderNotice::Finished),
            );
            if let SenderNotice::Host(host) = &notice
                && host.stage == Some(HostStage::Ready)
            {
                self.ready.insert(place(host.address), self.now);
            }
            self.notices.push(notice);
            self.finished |= over;
            if discovered && self.sender.hosts().next().is_some() {
                self.at(self.now + self.setup.prepare, Event::Prepared);
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
                    Event::HostReply {
                        host,
                        life: slot.life,
                        reply,
                    },
                );
            }
        }

        if is_pulled && std::mem::take(&mut self.dormant) {
            self.at(self.now, Event::Prepared);
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
                && let Some(spoke) = &mut self.spoke
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

    /// Passes a datagram on to places; those where it arrives at the same moment share an event.
    fn pass(&mut self, from: usize, to: impl Iterator<Item = usize>, bytes: &Arc<[u8]>) {
        let mut arrivals: Vec<(Moment, u32)> = Vec::with_capacity(to.size_hint().0);
        for to in to {
            if self.cuts.contains(&(from, to)) {
                continue;
            }
            if to == 0 && from > 0 && is_counted(bytes, self.setup.datagram) {
                self.hosts[from - 1].feedback += 1;
                let nodes = self.offer.release.header().root.nodes;
                self.heard.said(self.now, Kind::of(bytes, nodes));
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
                    Event::Datagram {
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
                    Event::Datagram {
                        to: vec![to as u32],
                        from,
                        bytes: Arc::clone(bytes),
                    },
                );
            }
        }

        // Mostly they are in order already: the sort is a look then.
        arrivals.sort_by_key(|(when, _)| *when);
        for same in arrivals.chunk_by(|a, b| a.0 == b.0) {
            let to = same.iter().map(|(_, to)| *to).collect();
            self.at(
                same[0].0,
                Event::Datagram {
                    to,
                    from,
                    bytes: Arc::clone(bytes),
                },
            );
        }
    }
}

/// What somebody recorded on a network: who sent it, and what.
#[derive(Debug, Clone, Default)]
pub struct Recording(Vec<(usize, Arc<[u8]>)>);

impl Recording {
    /// What was sent from a place (0 is the sender), in order.
    pub fn of(&self, from: usize) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0
            .iter()
            .filter(move |(place, _)| *place == from)
            .map(|(_, bytes)| &bytes[..])
    }

    /// Both, one after the other.
    pub fn and(mut self, other: &Recording) -> Self {
        self.0.extend(other.0.iter().cloned());
        self
    }
}

/// What is to come, by time and then in the order in which it was queued.
#[derive(Debug, Default)]
struct Queue {
    order: BinaryHeap<Reverse<(Moment, u64, usize)>>,
    events: Vec<Option<Event>>,
    free: Vec<usize>,
    queued: u64,
}

impl Queue {
    fn push(&mut self, when: Moment, event: Event) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.events.push(None);
            self.events.len() - 1
        });
        self.events[place] = Some(event);
        self.queued += 1;
        self.order.push(Reverse((when, self.queued, place)));
    }

    fn next_at(&self) -> Option<Moment> {
        self.order.peek().map(|Reverse((at, ..))| *at)
    }

    fn pop(&mut self) -> Option<Event> {
        let Reverse((_, _, place)) = self.order.pop()?;
        self.free.push(place);
        self.events[place].take()
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
