//! Tests of the roster in a small simulated network: delay, loss, churn, forged messages.

mod bounds;
mod segments;

use std::collections::BTreeSet;

use super::exchange::may_be_listed;
use super::*;
use crate::id::{Nonce, SegmentId};
use crate::wire::Datagram;
use crate::wire::peer::{MAX_LISTED_PEERS, Ping, Pong};

/// One-way delay of every datagram.
const DELAY: Duration = Duration::from_millis(1);
/// IPv4 and UDP headers, and the seal.
const HEADERS: usize = 28 + 20;

/// Rosters that send to each other.
struct Mesh {
    now: Moment,
    rosters: BTreeMap<SocketAddr, Roster>,
    /// Time at which each roster has something to do.
    due: BTreeSet<(Moment, SocketAddr)>,
    /// The same by address.
    due_of: BTreeMap<SocketAddr, Moment>,
    /// Datagrams under way by time of arrival and number.
    flying: BTreeMap<(Moment, u64), FlyingDatagram>,
    /// Multicast segments by process; the others have no multicast.
    segments: BTreeMap<SocketAddr, u32>,
    /// Processes that multicast does not reach.
    deaf: BTreeSet<SocketAddr>,
    sent: u64,
    /// Pings sent to the group.
    group_pings: u64,
    /// Bytes sent by each address.
    bytes: BTreeMap<SocketAddr, usize>,
    /// Datagrams sent to each address.
    received: BTreeMap<SocketAddr, usize>,
    loss: f64,
    rng: fastrand::Rng,
}

/// A datagram under way.
struct FlyingDatagram {
    from: SocketAddr,
    to: SocketAddr,
    /// Sent to the group.
    group: bool,
    bytes: Vec<u8>,
}

fn address(n: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, (n >> 8) as u8, n as u8], 5001))
}

impl Mesh {
    fn new(seed: u64, loss: f64) -> Self {
        Self {
            now: Moment(1_000_000_000_000),
            rosters: BTreeMap::new(),
            due: BTreeSet::new(),
            due_of: BTreeMap::new(),
            flying: BTreeMap::new(),
            segments: BTreeMap::new(),
            deaf: BTreeSet::new(),
            sent: 0,
            group_pings: 0,
            bytes: BTreeMap::new(),
            received: BTreeMap::new(),
            loss,
            rng: fastrand::Rng::with_seed(seed),
        }
    }

    /// Starts a process at an address.
    fn start(&mut self, at: SocketAddr, ways_in: &[SocketAddr], host: bool) {
        self.start_named(at, ways_in, host, None);
    }

    /// Starts a process with a configured segment.
    fn start_named(
        &mut self,
        at: SocketAddr,
        ways_in: &[SocketAddr],
        host: bool,
        named: Option<SegmentId>,
    ) {
        let setup = RosterSetup {
            instance: InstanceId(self.rng.u64(..)),
            seed: self.rng.u64(..),
            room: 0,
            host,
            segment: SegmentSetup {
                multicast: self.segments.contains_key(&at),
                named,
            },
        };
        let mut roster = Roster::new(self.now, setup);
        roster.set_own(self.now, vec![at]);
        roster.configure(self.now, ways_in);
        self.rosters.insert(at, roster);
        self.wake(at, self.now);
    }

    /// Sets the time of a roster's next turn.
    fn wake(&mut self, at: SocketAddr, due: Moment) {
        if let Some(before) = self.due_of.insert(at, due) {
            self.due.remove(&(before, at));
        }
        self.due.insert((due, at));
    }

    /// Lets each due roster send.
    fn collect(&mut self) {
        let mut out = Vec::new();
        while let Some(&(at, from)) = self.due.first()
            && at <= self.now
        {
            self.due.pop_first();
            let Some(roster) = self.rosters.get_mut(&from) else {
                continue;
            };
            roster.handle_timeout(self.now);
            while let Some(transmit) = roster.poll_transmit(&mut out) {
                *self.bytes.entry(from).or_default() += out.len() + HEADERS;
                let group = transmit.dest == Dest::Group;
                self.group_pings += u64::from(group);
                let to = match transmit.dest {
                    Dest::Host(to) => vec![to],
                    Dest::Group => hearers(&self.segments, &self.deaf, from),
                    Dest::Multicast | Dest::Relay(_) => panic!("no data"),
                };

                for to in to {
                    self.sent += 1;
                    *self.received.entry(to).or_default() += 1;
                    if self.rng.f64() >= self.loss {
                        let bytes = out.clone();
                        let datagram = FlyingDatagram {
                            from,
                            to,
                            group,
                            bytes,
                        };
                        self.flying.insert((self.now + DELAY, self.sent), datagram);
                    }
                }
            }
            let next = roster.timeout().max(self.now + DELAY);
            self.wake(from, next);
        }
    }

    fn deliver(&mut self, datagram: &FlyingDatagram) {
        let Ok(Datagram::Peer(front, message)) = Datagram::parse(&datagram.bytes) else {
            panic!("a peer datagram")
        };
        if let Some(roster) = self.rosters.get_mut(&datagram.to) {
            match datagram.group {
                true => roster.hear(self.now, datagram.from, front.source, message),
                false => roster.handle(self.now, datagram.from, front.source, message),
            }
            self.wake(datagram.to, self.now);
        }
    }

    /// Runs until `until` is true, at most for `longest`; returns the time it took.
    fn run_until(&mut self, longest: Duration, until: impl Fn(&Self) -> bool) -> Duration {
        let began = self.now;
        loop {
            self.collect();
            if until(self) || self.now.since(began) >= longest {
                return self.now.since(began);
            }

            let arrival = self.flying.keys().next().map(|(at, _)| *at);
            let due = self.due.first().map(|(at, _)| *at);
            let next = arrival
                .into_iter()
                .chain(due)
                .min()
                .unwrap_or(began + longest);
            self.now = next.max(self.now).min(began + longest);

            while let Some(entry) = self.flying.first_entry()
                && entry.key().0 <= self.now
            {
                let datagram = entry.remove();
                self.deliver(&datagram);
            }
        }
    }

    fn run(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    /// Returns whether each process knows all the hosts but itself, and nothing else.
    fn is_complete(&self) -> bool {
        let hosts: BTreeSet<SocketAddr> = self
            .rosters
            .iter()
            .filter(|(_, roster)| roster.setup.host)
            .map(|(at, _)| *at)
            .collect();

        self.rosters.iter().all(|(at, roster)| {
            let known: BTreeSet<_> = roster.hosts().iter().copied().collect();
            known.len() == roster.hosts().len()
                && known
                    .iter()
                    .chain([at].into_iter().filter(|at| hosts.contains(at)))
                    .copied()
                    .collect::<BTreeSet<_>>()
                    == hosts
        })
    }
}

/// Processes that hear the multicast of `from`.
fn hearers(
    segments: &BTreeMap<SocketAddr, u32>,
    deaf: &BTreeSet<SocketAddr>,
    from: SocketAddr,
) -> Vec<SocketAddr> {
    let segment = segments.get(&from);
    segments
        .iter()
        .filter(|(to, of)| Some(*of) == segment && **to != from && !deaf.contains(to))
        .map(|(to, _)| *to)
        .collect()
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn one_way_in_is_enough_and_hosts_that_go_are_forgotten() {
    for seed in 0..20 {
        let loss = [0.0, 0.1][seed as usize % 2];
        let mut mesh = Mesh::new(seed, loss);
        let all = 12;
        for n in 0..all {
            // Each knows one other: the first host, or the one before.
            let way_in = address(if seed % 4 < 2 { 0 } else { n.max(1) - 1 });
            mesh.start(address(n), &[way_in], true);
        }

        let took = mesh.run_until(seconds(30), Mesh::is_complete);
        assert!(mesh.is_complete(), "seed {seed}");
        assert!(
            loss > 0.0 || took < Duration::from_millis(600),
            "seed {seed}: {took:?}"
        );

        // One ends, one returns at another address, and the way in is among those that end.
        mesh.rosters.remove(&address(0));
        mesh.rosters.remove(&address(5));
        mesh.start(address(100), &[address(1)], true);
        mesh.run_until(seconds(60), Mesh::is_complete);
        assert!(mesh.is_complete(), "seed {seed}");
        let gone = mesh
            .rosters
            .get_mut(&address(1))
            .expect("there")
            .take_gone();
        assert!(
            [0, 5].iter().all(|n| gone.contains(&address(*n))),
            "seed {seed}: {gone:?}"
        );

        // A host is not lost to a few lost answers.
        let until = mesh.now + seconds(60);
        while mesh.now < until {
            mesh.run(seconds(1));
            assert!(loss > 0.0 || mesh.is_complete(), "seed {seed}");
        }
    }
}

#[test]
fn a_configured_host_is_found_whenever_it_starts() {
    let mut mesh = Mesh::new(1, 0.0);
    mesh.start(address(0), &[address(1)], true);
    mesh.run(seconds(100));
    assert_eq!(mesh.rosters[&address(0)].hosts(), []);
    assert!(mesh.rosters[&address(0)].is_settled());

    mesh.start(address(1), &[], true);
    mesh.run(seconds(6));
    assert!(mesh.is_complete());
    assert_eq!(
        mesh.rosters.get_mut(&address(0)).expect("there").take_new(),
        [address(1)]
    );
}

#[test]
fn a_command_finds_all_hosts_of_a_large_fleet_and_a_host_pays_little() {
    // `MAKUO_ROSTER=1000` takes a minute without optimization.
    let all = std::env::var("MAKUO_ROSTER").map_or(250, |n| n.parse().expect("a number"));
    let mut mesh = Mesh::new(3, 0.0);
    for n in 0..all {
        mesh.start(address(n), &[address(0), address(1)], true);
    }
    mesh.run(seconds(10));
    assert!(mesh.is_complete());

    mesh.run(seconds(300));
    mesh.bytes.clear();
    let time = 250;
    mesh.run(seconds(time));
    assert!(mesh.is_complete());
    for (host, bytes) in &mesh.bytes {
        let rate = *bytes as u64 * 8 / time;
        assert!(rate < 8_000, "{host}: {rate} bit/s");
    }

    let command = SocketAddr::from(([10, 1, 0, 1], 40_000));
    mesh.start(command, &[address(7)], false);
    let took = mesh.run_until(seconds(10), |mesh| mesh.rosters[&command].is_settled());
    assert_eq!(mesh.rosters[&command].hosts().len(), all, "after {took:?}");
    assert!(took < Duration::from_millis(100), "{took:?}");
}

#[test]
fn neither_a_forged_list_nor_a_replay_makes_a_stranger_a_peer() {
    let mut mesh = Mesh::new(5, 0.0);
    for n in 0..8 {
        mesh.start(address(n), &[address(0)], true);
    }
    mesh.run(seconds(10));
    assert!(mesh.is_complete());

    let stranger = SocketAddr::from(([192, 0, 2, 1], 53));
    let liar = address(9);
    mesh.start(liar, &[address(0)], true);
    mesh.run(seconds(1));

    // Recorded exchanges arrive again, from the stranger's address.
    let recorded: Vec<_> = {
        mesh.collect();

        let now = mesh.now;
        let ping = mesh.rosters[&address(1)].challenge.nonce(now, address(0));
        [
            PeerMessage::Ping(Ping {
                nonce: ping,
                echo: Some(mesh.rosters[&address(0)].challenge.nonce(now, address(1))),
                host: true,
                list: true,
                heard: None,
                segment: None,
                interval: None,
            }),
            PeerMessage::Pong(Pong {
                echo: mesh.rosters[&address(0)].challenge.nonce(now, address(1)),
                nonce: ping,
                host: true,
                known: 9,
                peers: vec![stranger],
                heard: None,
                segment: None,
            }),
        ]
        .iter()
        .map(PeerMessage::encode)
        .collect()
    };
    let before = mesh.received.get(&stranger).copied().unwrap_or_default();
    for _ in 0..100 {
        for message in &recorded {
            let now = mesh.now;
            let host = mesh.rosters.get_mut(&address(0)).expect("there");
            host.handle(now, stranger, InstanceId(1), message);
        }
    }

    // A member lists the stranger again and again, to all hosts.
    for _ in 0..120 {
        mesh.run(seconds(1));
        let now = mesh.now;
        for n in 0..8 {
            let host = mesh.rosters.get_mut(&address(n)).expect("there");
            let pong = PeerMessage::Pong(Pong {
                echo: host.challenge.nonce(now, liar),
                nonce: Nonce(1),
                host: true,
                known: 10_000,
                peers: vec![stranger; MAX_LISTED_PEERS],
                heard: None,
                segment: None,
            });
            host.handle(now, liar, InstanceId(2), &pong.encode());
        }
    }

    for n in 0..8 {
        let host = &mesh.rosters[&address(n)];
        assert!(!host.proven().contains(&stranger), "{n}");
    }

    // A few pings a minute from each host, and one answer to each replayed ping.
    let sent = mesh.received.get(&stranger).copied().unwrap_or_default() - before;
    assert!(sent <= 8 + 8 * 3 * 6, "{sent}");
}

#[test]
fn a_host_with_a_new_address_is_known_by_it_at_once() {
    for new in [address(0), address(200)] {
        let mut mesh = Mesh::new(10, 0.0);
        for n in 1..5 {
            mesh.start(address(n), &[address(1)], true);
        }
        mesh.run(seconds(100));

        // The new address comes before or behind the old one in each list.
        let mut moved = mesh.rosters.remove(&address(3)).expect("there");
        moved.set_own(mesh.now, vec![new]);
        mesh.rosters.insert(new, moved);
        mesh.wake(new, mesh.now);
        mesh.run(Duration::from_millis(20));
        assert!(mesh.is_complete(), "{new}");
    }
}

#[test]
fn datagrams_from_a_false_address_hide_no_host() {
    let mut mesh = Mesh::new(8, 0.0);
    for n in 0..4 {
        mesh.start(address(n), &[address(0)], true);
    }
    mesh.run(seconds(10));
    assert!(mesh.is_complete());

    // Messages of another host and of the host itself, from the address of a third one.
    let instance = |n: usize| mesh.rosters[&address(n)].setup.instance;
    let replayed = [(instance(1), address(2)), (instance(0), address(3))];
    for _ in 0..100 {
        mesh.run(seconds(1));
        let now = mesh.now;
        let host = mesh.rosters.get_mut(&address(0)).expect("there");
        for (source, from) in replayed {
            let own = PeerMessage::Ping(Ping {
                nonce: host.challenge.nonce(now, from),
                echo: None,
                host: true,
                list: false,
                heard: None,
                segment: None,
                interval: None,
            });
            host.handle(now, from, source, &own.encode());
        }
        host.relist(now);
        let hosts = [1, 2, 3].map(address);
        assert_eq!(mesh.rosters[&address(0)].hosts(), hosts);
    }

    assert_eq!(mesh.rosters[&address(0)].own, [address(0)]);
}

#[test]
fn the_list_of_a_liar_keeps_no_new_host_out() {
    let mut mesh = Mesh::new(9, 0.0);
    for n in 0..3 {
        mesh.start(address(n), &[address(0)], true);
    }
    mesh.run(seconds(10));

    let liar = address(2);
    for round in 0..300 {
        let now = mesh.now;
        let host = mesh.rosters.get_mut(&address(0)).expect("there");
        let listed =
            |n: u32| SocketAddr::from(((0x0b00_0000_u32 + round * 40 + n).to_be_bytes(), 5001));
        let pong = PeerMessage::Pong(Pong {
            echo: host.challenge.nonce(now, liar),
            nonce: Nonce(1),
            host: true,
            known: 10_000,
            peers: (0..40).map(listed).collect(),
            heard: None,
            segment: None,
        });
        host.handle(now, liar, InstanceId(2), &pong.encode());
    }
    assert!(mesh.rosters[&address(0)].peers.len() <= MAX_PEERS);

    mesh.start(address(9), &[address(0)], true);
    mesh.run(seconds(1));
    assert!(mesh.rosters[&address(0)].hosts().contains(&address(9)));
}

#[test]
fn random_messages_leave_the_roster_and_its_answers_bounded() {
    for seed in 0..3 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut now = Moment(1_000_000_000_000);
        let setup = RosterSetup {
            instance: InstanceId(1),
            seed,
            room: 0,
            host: true,
            segment: SegmentSetup {
                multicast: rng.bool(),
                named: None,
            },
        };
        let mut roster = Roster::new(now, setup);
        roster.configure(now, &[address(0)]);

        for round in 0..2000 {
            now = now + Duration::from_millis(rng.u64(0..50));
            let from = random_address(&mut rng);
            let bytes = random_message(&mut rng, &roster, now, from);
            let source = InstanceId(rng.u64(0..20));
            match rng.bool() {
                true => roster.handle(now, from, source, &bytes),
                false => roster.hear(now, from, source, &bytes),
            }
            // Answers to one message, a ping and its list.
            assert!(roster.out.len() <= 1, "seed {seed}");
            if round % 20 == 0 {
                roster.handle_timeout(now);
            }

            let mut out = Vec::new();
            while roster.poll_transmit(&mut out).is_some() {
                assert!(out.len() + 64 <= 1232, "seed {seed}: {}", out.len());
            }
            assert!(roster.peers.len() <= MAX_PEERS, "seed {seed}");
            assert!(roster.lists.new.len() <= MAX_PEERS, "seed {seed}");
        }

        let proven = roster
            .peers
            .values()
            .filter(|p| p.state == PeerState::Proven);
        assert!(proven.count() > 0, "seed {seed}: nothing was accepted");
    }
}

/// Returns one of few addresses, or any.
fn random_address(rng: &mut fastrand::Rng) -> SocketAddr {
    match rng.u8(0..4) {
        0 => SocketAddr::from((rng.u32(..).to_be_bytes(), rng.u16(..))),
        1 => SocketAddr::from((rng.u128(..).to_be_bytes(), rng.u16(..))),
        _ => address(rng.usize(0..300)),
    }
}

/// Returns a message with nonces that may prove the address `from`, or random bytes.
fn random_message(
    rng: &mut fastrand::Rng,
    roster: &Roster,
    now: Moment,
    from: SocketAddr,
) -> Vec<u8> {
    let echo = match rng.bool() {
        true => roster.challenge.nonce(now, from),
        false => Nonce(rng.u64(..)),
    };
    let nonce = Nonce(rng.u64(..));
    let (host, list) = (rng.bool(), rng.bool());
    let message = match rng.u8(0..8) {
        0 => return (0..rng.usize(0..100)).map(|_| rng.u8(..)).collect(),
        1 => PeerMessage::Leave(echo),
        2..5 => PeerMessage::Ping(Ping {
            nonce,
            echo: rng.bool().then_some(echo),
            host,
            list,
            heard: rng.bool().then_some(nonce),
            segment: rng.bool().then(|| SegmentId(rng.u64(0..4))),
            interval: rng.bool().then(|| rng.u32(..)),
        }),
        _ => PeerMessage::Pong(Pong {
            echo,
            nonce,
            host,
            known: rng.u32(..),
            peers: (0..rng.usize(0..=MAX_LISTED_PEERS))
                .map(|_| random_address(rng))
                .collect(),
            heard: rng.bool().then_some(echo),
            segment: rng.bool().then(|| SegmentId(rng.u64(0..4))),
        }),
    };

    message.encode()
}

#[test]
fn a_flood_of_pings_is_bounded_and_keeps_no_new_host_out() {
    let mut mesh = Mesh::new(6, 0.0);
    mesh.start(address(0), &[], true);
    mesh.run(seconds(1));

    for round in 0..20_u32 {
        let now = mesh.now;
        let host = mesh.rosters.get_mut(&address(0)).expect("there");
        // From a few addresses, or from a new one each time.
        for n in 0..5000_u32 {
            let n = if round % 2 == 0 {
                n % 20
            } else {
                round * 5000 + n
            };
            let from = SocketAddr::from(((0x0b00_0000_u32 + n).to_be_bytes(), 5001));
            let ping = PeerMessage::Ping(Ping {
                nonce: Nonce(u64::from(n)),
                echo: Some(Nonce(1)),
                host: true,
                list: true,
                heard: None,
                segment: None,
                interval: None,
            });
            host.handle(now, from, InstanceId(3), &ping.encode());
        }

        if round % 2 == 0 {
            mesh.start(address(round as usize / 2 + 1), &[address(0)], true);
        }
        // An unlucky host shares a flooded counter, and is answered in the next period.
        mesh.run(seconds(2));
        assert!(round % 2 == 1 || mesh.is_complete(), "round {round}");
    }

    let host = &mesh.rosters[&address(0)];
    assert!(
        host.peers.len() <= 12,
        "no address without proof is remembered"
    );
    let strangers = mesh
        .received
        .iter()
        .filter(|(to, _)| to.ip().to_string().starts_with("11."));
    assert!(strangers.map(|(_, n)| n).sum::<usize>() <= 20 * 2048);
}

#[test]
fn addresses_that_mean_nothing_elsewhere_are_not_listed() {
    let of = |text: &str| text.parse::<SocketAddr>().expect("legal");
    assert!(may_be_listed(of("10.0.0.1:1"), of("10.0.0.2:1")));
    assert!(may_be_listed(of("127.0.0.1:1"), of("127.0.0.1:2")));
    assert!(!may_be_listed(of("127.0.0.1:1"), of("10.0.0.2:1")));
    assert!(!may_be_listed(of("[fe80::1]:1"), of("[fe80::2]:1")));

    let mut mesh = Mesh::new(7, 0.0);
    let useless = [
        "0.0.0.0:1",
        "224.0.0.1:1",
        "255.255.255.255:1",
        "10.0.0.1:0",
    ];
    mesh.start(address(0), &useless.map(of), true);
    mesh.run(seconds(5));
    assert!(mesh.received.is_empty());
}

#[test]
fn an_address_of_a_family_without_a_link_is_never_pinged_and_holds_up_no_start() {
    let mut mesh = Mesh::new(1, 0.0);
    let other: SocketAddr = "[fd00::1]:5001".parse().unwrap();
    mesh.start(address(0), &[other], true);
    let roster = mesh.rosters.get_mut(&address(0)).unwrap();
    let mut out = Vec::new();
    roster.handle_timeout(mesh.now);
    assert_eq!(roster.poll_transmit(&mut out), None);
    assert!(roster.is_settled());

    roster.configure(mesh.now, &[other, address(1)]);
    roster.handle_timeout(mesh.now);
    let ping = roster.poll_transmit(&mut out).expect("a ping");
    assert_eq!(ping.dest, Dest::Host(address(1)));
    assert!(!roster.is_settled());
}
