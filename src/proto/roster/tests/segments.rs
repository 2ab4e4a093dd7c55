//! Segments with multicast, joined by unicast: who hears whom, and the labels.

use super::*;
use crate::id::SegmentName;

/// Longest time until all agree, of a segment of a few hosts that lose a tenth of the datagrams.
const AGREEMENT: Duration = Duration::from_secs(90);

impl Mesh {
    /// Two segments of four hosts each; the first host is the way in of all.
    fn of_two_segments(seed: u64, loss: f64) -> Self {
        let mut mesh = Self::new(seed, loss);
        for n in 0..8 {
            mesh.segments.insert(address(n), n as u32 / 4);
            mesh.start(address(n), &[address(0)], true);
        }
        mesh
    }

    fn at(&self, n: usize) -> &Roster {
        &self.rosters[&address(n)]
    }

    fn instance(&self, at: SocketAddr) -> InstanceId {
        self.rosters[&at].setup.instance
    }

    /// Returns whether the multicast of `from` reaches `to`.
    fn reaches(&self, from: SocketAddr, to: SocketAddr) -> bool {
        let [of, at] = [from, to].map(|address| self.segments.get(&address));
        from != to && of.is_some() && of == at && !self.deaf.contains(&to)
    }

    /// Label that a host should have: the lowest of the hosts with multicast both ways.
    fn label(&self, at: SocketAddr) -> Option<SegmentId> {
        let is_near = |other: &SocketAddr| {
            self.rosters[other].setup.host && self.reaches(at, *other) && self.reaches(*other, at)
        };
        let near: Vec<_> = self.rosters.keys().copied().filter(is_near).collect();
        let all = near.iter().copied().chain([at]);
        let lowest = all.map(|at| SegmentId::of(self.instance(at))).min();
        lowest.filter(|_| !near.is_empty())
    }

    /// Returns whether `at` has the right facts of all hosts.
    fn is_right_at(&self, at: SocketAddr) -> bool {
        let others = self
            .rosters
            .iter()
            .filter(|(other, roster)| roster.setup.host && **other != at);
        let expected: Vec<ReachedHost> = others
            .map(|(&address, roster)| ReachedHost {
                address,
                instance: roster.setup.instance,
                segment: self.label(address),
                hears: self.reaches(at, address),
            })
            .collect();

        self.rosters[&at].reached() == expected
    }

    /// Returns whether each process has the right facts of all hosts.
    fn is_right(&self) -> bool {
        self.rosters.keys().all(|at| self.is_right_at(*at))
    }

    fn runs_until_right(&mut self, why: &str) {
        let until = self.now + AGREEMENT;
        while !self.is_right() && self.now < until {
            self.run(seconds(1));
        }

        for (at, roster) in &self.rosters {
            assert!(
                self.is_right_at(*at),
                "{why}: {at} has {:#?}",
                roster.reached()
            );
        }
    }
}

#[test]
fn two_segments_agree_on_their_labels_and_on_who_hears_whom() {
    for seed in 0..10 {
        let loss = [0.0, 0.1][seed as usize % 2];
        let mut mesh = Mesh::of_two_segments(seed, loss);
        mesh.runs_until_right(&format!("seed {seed}"));

        let labels: BTreeSet<_> = (0..8).map(|n| mesh.label(address(n))).collect();
        assert_eq!(labels.len(), 2);
        let distant: Vec<_> = (4..8).map(address).collect();
        assert_eq!(mesh.at(0).distant(), distant);

        let until = mesh.now + seconds(60);
        while mesh.now < until && loss == 0.0 {
            mesh.run(seconds(1));
            assert!(mesh.is_right(), "seed {seed}");
        }
    }
}

#[test]
fn a_command_knows_who_hears_it_when_it_has_settled() {
    for (seed, (way_in, segment)) in (20..).zip([(0, 0), (0, 1), (5, 0), (5, 1)]) {
        let mut mesh = Mesh::of_two_segments(seed, 0.0);
        mesh.runs_until_right("before");

        let command = SocketAddr::from(([10, 1, 0, 1], 40_000));
        mesh.segments.insert(command, segment);
        mesh.start(command, &[address(way_in)], false);
        let took = mesh.run_until(seconds(10), |mesh| mesh.rosters[&command].is_settled());
        assert!(mesh.is_right_at(command), "{:#?}", mesh.rosters[&command]);
        assert!(took < Duration::from_millis(100), "{took:?}");

        // A command without multicast hears nobody, and nobody hears it.
        let apart = SocketAddr::from(([10, 1, 0, 2], 40_000));
        mesh.start(apart, &[address(way_in)], false);
        mesh.run_until(seconds(10), |mesh| mesh.rosters[&apart].is_settled());
        assert!(mesh.is_right_at(apart));
        assert_eq!(mesh.rosters[&apart].segment.label(), None);
        assert!(!mesh.received.contains_key(&address(99)));
    }
}

#[test]
fn hosts_of_a_segment_need_no_configuration() {
    let mut mesh = Mesh::of_two_segments(30, 0.0);
    mesh.segments.insert(address(9), 1);
    mesh.start(address(9), &[], true);
    mesh.runs_until_right("without a way in");
}

#[test]
fn multicast_in_one_direction_makes_no_segment() {
    let mut mesh = Mesh::of_two_segments(31, 0.0);
    mesh.deaf.insert(address(1));
    mesh.runs_until_right("deaf");
    assert!(mesh.reaches(address(1), address(0)) && !mesh.reaches(address(0), address(1)));
    assert_eq!(mesh.label(address(1)), None);
}

#[test]
fn a_segment_is_split_and_joined_and_its_hosts_restart() {
    for seed in 40..46 {
        let loss = [0.0, 0.1][seed as usize % 2];
        let mut mesh = Mesh::of_two_segments(seed, loss);
        mesh.runs_until_right("before");

        mesh.segments.insert(address(0), 7);
        mesh.segments.insert(address(2), 7);
        mesh.runs_until_right("split");

        mesh.segments.insert(address(0), 0);
        mesh.segments.insert(address(2), 0);
        mesh.runs_until_right("joined");

        // At its address is another process, without notice.
        let lowest = (0..4)
            .map(address)
            .min_by_key(|at| SegmentId::of(mesh.instance(*at)))
            .expect("four");
        mesh.start(lowest, &[address(4)], true);
        mesh.runs_until_right("restarted");
    }
}

#[test]
fn a_configured_word_decides_who_is_near() {
    let word = |name| SegmentId::named(&SegmentName::new(name).expect("legal"));
    assert_eq!(word("fra1"), word("fra1"));
    assert!(word("fra1") != word("fra2") && word("fra1").is_named());

    // All hear each other; the last one has no word.
    let words = [Some("fra1"), Some("fra1"), Some("fra2"), None].map(|name| name.map(word));
    let mut mesh = Mesh::new(50, 0.0);
    for (n, named) in words.into_iter().enumerate() {
        mesh.segments.insert(address(n), 0);
        mesh.start_named(address(n), &[address(0)], true, named);
    }
    mesh.run(seconds(20));

    for (at, own) in words.into_iter().enumerate() {
        let facts: Vec<_> = mesh.at(at).reached().iter().collect();
        assert_eq!(facts.len(), 3);
        for host in facts {
            let of = (0..4).find(|n| address(*n) == host.address).expect("ours");
            let apart = own.zip(words[of]).is_some_and(|(own, other)| own != other);
            assert_eq!(host.hears, !apart, "{at} of {of}");
            assert_eq!(host.segment.filter(|s| s.is_named()), words[of]);
        }
    }
}

#[test]
fn a_word_without_multicast_says_nothing() {
    let word = SegmentId::named(&SegmentName::new("fra1").expect("legal"));
    let mut mesh = Mesh::new(51, 0.0);
    for n in 0..2 {
        mesh.start_named(address(n), &[address(0)], true, Some(word));
    }
    mesh.run(seconds(5));
    assert_eq!(mesh.at(0).reached().len(), 1);
    assert_eq!(mesh.at(0).reached()[0].segment, None);
    assert_eq!(mesh.at(0).distant(), [address(1)]);
}

#[test]
fn messages_from_addresses_without_proof_change_nothing() {
    let mut mesh = Mesh::of_two_segments(60, 0.0);
    mesh.runs_until_right("before");
    mesh.received.clear();

    let stranger = SocketAddr::from(([192, 0, 2, 1], 53));
    for _ in 0..20 {
        let now = mesh.now;
        let own = mesh.instance(address(0));
        let heard = mesh.at(1).segment.heard(now, own, address(0));
        assert!(heard.is_some());
        let host = mesh.rosters.get_mut(&address(0)).expect("there");
        let forged = |echo| {
            let ping = Ping {
                nonce: Nonce(6),
                echo: Some(echo),
                host: true,
                list: true,
                heard,
                segment: Some(SegmentId(1)),
                interval: Some(u32::MAX),
            };
            let pong = Pong {
                echo,
                nonce: Nonce(6),
                host: true,
                known: 1000,
                peers: Vec::new(),
                heard: ping.heard,
                segment: ping.segment,
            };
            [PeerMessage::Ping(ping), PeerMessage::Pong(pong)].map(|message| message.encode())
        };

        // From a host's address, in the name of another process, and from a stranger's.
        for from in [address(1), address(5), stranger] {
            for message in forged(Nonce(7)) {
                host.handle(now, from, InstanceId(1), &message);
                host.hear(now, from, InstanceId(u64::MAX), &message);
            }
        }
        assert!(mesh.is_right());
        mesh.run(seconds(1));
    }

    mesh.runs_until_right("after");
    assert!(!mesh.at(0).proven().contains(&stranger));
    let sent = mesh.received.get(&stranger).copied().unwrap_or_default();
    assert!(sent <= 2 * 8 * 20, "{sent}");
}

#[test]
fn a_flood_of_pings_to_the_group_is_bounded_and_not_remembered() {
    let mut mesh = Mesh::of_two_segments(61, 0.0);
    mesh.runs_until_right("before");
    mesh.received.clear();

    for round in 0..10_u32 {
        let now = mesh.now;
        let host = mesh.rosters.get_mut(&address(0)).expect("there");
        for n in 0..5000_u32 {
            let n = round * 5000 + n;
            let from = SocketAddr::from(((0x0b00_0000_u32 + n).to_be_bytes(), 5001));
            let ping = PeerMessage::Ping(Ping {
                nonce: Nonce(u64::from(n)),
                echo: None,
                host: true,
                list: true,
                heard: None,
                segment: None,
                interval: None,
            });
            host.hear(now, from, InstanceId(u64::from(n)), &ping.encode());
        }
        mesh.run(seconds(1));
    }

    assert_eq!(mesh.at(0).peers.len(), 7);
    let strangers = mesh
        .received
        .iter()
        .filter(|(to, _)| to.ip().to_string().starts_with("11."));
    assert!(strangers.map(|(_, n)| n).sum::<usize>() <= 10 * 1024);
    mesh.run(seconds(15));
    mesh.runs_until_right("after");
    let first = SocketAddr::from((0x0b00_0001_u32.to_be_bytes(), 5001));
    let heard = mesh.at(0).segment.heard(mesh.now, InstanceId(1), first);
    assert!(heard.is_none());
}

#[test]
fn a_large_segment_is_quiet_and_answers_a_new_host_spread_out() {
    const HOSTS: usize = 100;
    let mut mesh = Mesh::new(70, 0.0);
    for n in 0..HOSTS {
        mesh.segments.insert(address(n), 0);
        mesh.start(address(n), &[address(0)], true);
    }
    mesh.runs_until_right("started");

    mesh.run(seconds(20));
    let before = mesh.group_pings;
    let time = 30;
    mesh.run(seconds(time));
    assert!(mesh.is_right());
    let rate = (mesh.group_pings - before) / time;
    assert!((5..13).contains(&rate), "{rate} pings a second");

    let new = address(HOSTS);
    mesh.segments.insert(new, 0);
    mesh.start(new, &[], true);
    mesh.received.clear();
    mesh.run(Duration::from_millis(2));
    let early = mesh.received.get(&new).copied().unwrap_or_default();
    assert!(
        (1..HOSTS / 2).contains(&early),
        "{early} answers within 2 ms"
    );

    mesh.run(seconds(2));
    let reached = mesh.at(HOSTS).reached();
    assert_eq!(reached.len(), HOSTS);
    assert!(reached.iter().all(|host| host.hears));
}

#[test]
fn forged_answers_to_a_ping_of_the_group_keep_no_new_host_out() {
    let now = bounds::NOW;
    let mut roster = bounds::roster(true);
    roster.handle_timeout(now);
    let echo = roster.challenge.group_nonce(now);
    assert!(roster.segment.is_own(now, echo), "no ping to the group");

    for n in 0..2 * MAX_PEERS as u32 {
        let from = SocketAddr::from(((0x0b00_0000_u32 + n).to_be_bytes(), 5001));
        let pong = roster.pong(now, from, echo);
        roster.handle(now, from, InstanceId(2), &PeerMessage::Pong(pong).encode());
    }

    // A new host repeats the nonce of its address.
    let new = address(9);
    let ping = PeerMessage::Ping(Ping {
        nonce: Nonce(1),
        echo: Some(roster.challenge.nonce(now, new)),
        host: true,
        list: true,
        heard: None,
        segment: None,
        interval: None,
    });
    roster.handle(now, new, InstanceId(3), &ping.encode());
    assert_eq!(roster.hosts(), [new]);
}
