//! Tests of the ways to the hosts of a session.

use std::collections::BTreeSet;

use super::detour::BrokenWays;
use super::plan::RelayPlan;
use super::*;
use crate::id::{Generation, HostName, SegmentId, Serial};
use crate::proto::sender::setup::KeyRules;
use crate::wire::Datagram;
use crate::wire::message::{OrderKind, Ranges};
use crate::wire::relay::RelayTargets;

fn address(n: u64) -> SocketAddr {
    SocketAddr::from(([10, 0, (n >> 8) as u8, n as u8], 5000))
}

fn reached(n: u64, segment: Option<u64>, hears: bool) -> ReachedHost {
    ReachedHost {
        address: address(n),
        instance: InstanceId(n),
        segment: segment.map(SegmentId),
        hears,
    }
}

/// Returns the plan for hosts with these entries in the roster.
fn plan(multicast: bool, hosts: &[ReachedHost]) -> RelayPlan {
    let mut plan = RelayPlan::new(multicast, &RelayPlan::default());
    for host in hosts {
        plan.add(host.instance, Some(host), false);
    }
    plan.close(&BrokenWays::default());
    plan
}

fn all_targets(plan: &RelayPlan) -> BTreeMap<InstanceId, RelayTargets> {
    let members = plan.members();
    members
        .map(|(id, at)| (id, plan.targets(id, at, SessionId(1), 1)))
        .collect()
}

/// Copies by host.
type Copies = BTreeMap<InstanceId, usize>;

/// Lets `relay` take a train. Returns how often each host gets it, and how often each sends it.
fn pass_on(targets: &BTreeMap<InstanceId, RelayTargets>, relay: InstanceId) -> (Copies, Copies) {
    let mut got = BTreeMap::from([(relay, 1)]);
    let mut sent = BTreeMap::new();
    let mut send = |from: InstanceId, to: Vec<InstanceId>| {
        let to: Vec<_> = to.into_iter().filter(|to| *to != from).collect();
        *sent.entry(from).or_default() += to.len();
        for to in to {
            *got.entry(to).or_default() += 1;
        }
    };

    let own = &targets[&relay];
    send(relay, [&own.heads[..], &own.group[..]].concat());
    for (host, second) in targets {
        if second.is_head(relay) {
            let gets = own.heads.contains(host) || own.group.contains(host);
            assert!(gets, "{host} is no head of {relay}");
            send(*host, second.group.clone());
        }
    }
    (got, sent)
}

#[test]
fn each_host_gets_each_train_once_whatever_the_number_of_hosts() {
    let mut rng = fastrand::Rng::with_seed(11);
    for hosts in [2, 3, 10, 64, 65, 100, 300, 700] {
        let all: Vec<_> = (0..hosts)
            .map(|n| ReachedHost {
                instance: InstanceId(rng.u64(..)),
                ..reached(n, None, false)
            })
            .collect();
        let plan = plan(false, &all);
        let targets = all_targets(&plan);
        assert_eq!(plan.data.hosts.len() as u64, hosts);
        assert!(!plan.data.multicast);

        let mut sent: BTreeMap<InstanceId, usize> = BTreeMap::new();
        for relay in &all {
            let (got, copies) = pass_on(&targets, relay.instance);
            assert_eq!(got.len() as u64, hosts, "{hosts} hosts");
            assert!(got.values().all(|times| *times == 1), "{hosts} hosts");
            for (host, copies) in copies {
                assert!(copies < 80, "{hosts} hosts: {copies} at once");
                *sent.entry(host).or_default() += copies;
            }
        }

        // Each has taken one train: no host sends much more than all of them together.
        let most = sent.values().max().copied().unwrap_or_default() as f64;
        let share = most / hosts as f64;
        assert!(share < 1.15, "{hosts} hosts: {share:.2} by one");
    }
}

#[test]
fn hosts_stay_in_their_groups_and_groups_stay_even_while_hosts_come_and_go() {
    let mut rng = fastrand::Rng::with_seed(12);
    let mut host = || reached(rng.u64(..), None, false);
    let mut hosts: Vec<_> = (0..100).map(|_| host()).collect();
    let mut last = RelayPlan::default();
    let mut home: BTreeMap<InstanceId, BTreeSet<InstanceId>> = BTreeMap::new();

    for round in 0..20 {
        let mut plan = RelayPlan::new(false, &last);
        hosts
            .iter()
            .for_each(|h| plan.add(h.instance, Some(h), false));
        plan.close(&BrokenWays::default());

        let sizes: BTreeSet<_> = all_targets(&plan)
            .into_iter()
            .map(|(id, targets)| {
                let group: BTreeSet<_> = targets.group.into_iter().collect();
                let size = group.len();
                if let Some(before) = home.insert(id, group) {
                    let kept = before.intersection(&home[&id]).count();
                    assert!(kept + 1 >= before.len(), "round {round}: {kept} stayed");
                }
                size
            })
            .collect();
        let range = sizes.first().zip(sizes.last());
        assert!(range.is_some_and(|(a, b)| b - a <= 2), "{round}: {sizes:?}");

        // One goes, and another one comes.
        hosts.remove(round * 4);
        hosts.push(host());
        last = plan;
    }
}

#[test]
fn any_run_of_relays_in_their_order_has_even_heads() {
    let all: Vec<_> = (1..=400).map(|n| reached(n * 7919, None, false)).collect();
    let plan = plan(false, &all);
    let targets = all_targets(&plan);
    let order: Vec<InstanceId> = plan.members().map(|(id, _)| id).collect();
    for run in order.windows(100).step_by(30) {
        let times = |targets: &RelayTargets| run.iter().filter(|r| targets.is_head(**r)).count();
        let most = targets.values().map(times).max();
        assert!(most <= Some(100 / 20 + 1), "{most:?} of 100 trains");
    }
}

#[test]
fn a_train_comes_once_to_each_segment_that_the_sender_does_not_reach() {
    let hosts = [
        reached(1, Some(1), true),
        reached(2, Some(1), true),
        reached(3, Some(2), false),
        reached(4, Some(2), false),
        reached(5, Some(2), false),
        reached(6, Some(3), false),
        reached(7, None, false),
    ];

    let plan = plan(true, &hosts);
    assert_eq!(plan.data.hosts.len(), 5);
    assert!(plan.data.multicast);
    let targets = all_targets(&plan);
    let grouped: Vec<_> = targets.keys().map(|id| id.0).collect();
    assert_eq!(grouped, [3, 4, 5, 6, 7]);

    let third = &targets[&InstanceId(3)];
    assert!(third.multicast && third.group == [InstanceId(3)]);
    assert_eq!(third.heads, [InstanceId(6), InstanceId(7)]);
    let seventh = &targets[&InstanceId(7)];
    assert_eq!(seventh.heads.len(), 2, "one of the second segment, and 6");
}

#[test]
fn without_multicast_no_host_is_near() {
    let plan = plan(false, &[reached(1, Some(1), true), reached(2, None, false)]);
    assert_eq!(plan.data.hosts.len(), 2);
    assert!(!plan.data.multicast);
}

#[test]
fn a_host_that_no_multicast_reaches_gets_its_own_copy() {
    let mut plan = RelayPlan::new(true, &RelayPlan::default());
    plan.add(InstanceId(1), Some(&reached(1, Some(1), true)), true);
    plan.add(InstanceId(2), None, false);
    plan.close(&BrokenWays::default());
    assert_eq!(plan.data.hosts, [address(1)]);
    assert!(plan.data.multicast, "for the host that is in no roster");
    assert!(plan.is_by_multicast(InstanceId(2)) && !plan.is_by_multicast(InstanceId(1)));
}

/// A session with hosts 1 to `hosts` in a roster without multicast.
fn session(now: Moment, hosts: u64) -> (Reach, Hosts) {
    let mut all = Hosts::new(now, KeyRules::default());
    let entries: Vec<_> = (1..=hosts).map(|n| reached(n, None, false)).collect();
    for n in 1..=hosts {
        let name = HostName::new(&format!("web{n}")).expect("legal");
        all.add(now, InstanceId(n), name, address(n), Serial(0));
        let host = all.get_mut(InstanceId(n)).expect("added");
        host.stage = Some(HostStage::Staging);
    }

    let mut reach = Reach::new(SessionId(1));
    reach.learn(
        now,
        RosterView {
            version: 1,
            multicast: false,
            hosts: &entries,
            distant: entries.len(),
        },
    );
    (reach, all)
}

fn told(reach: &mut Reach, now: Moment, hosts: &Hosts) -> BTreeSet<SocketAddr> {
    let mut control = Control::new(InstanceId(99), 1200, 0);
    reach.tell(now, hosts, &mut control);
    let mut out = Vec::new();
    std::iter::from_fn(|| control.poll(&mut out))
        .filter_map(|transmit| match transmit.dest {
            Dest::Host(to) => Some(to),
            _ => None,
        })
        .collect()
}

#[test]
fn targets_are_told_until_they_are_confirmed() {
    let now = Moment(1_000_000_000);
    let (mut reach, mut hosts) = session(now, 3);
    assert!(reach.is_due(now, 3) && reach.plan(now, &hosts, |_, _| true));
    assert_eq!(reach.number(), 1);
    assert_eq!(told(&mut reach, now, &hosts).len(), 3);
    assert!(
        told(&mut reach, now, &hosts).is_empty(),
        "not twice at once"
    );

    hosts
        .get_mut(InstanceId(2))
        .expect("added")
        .transfer
        .targets = 1;
    assert_eq!(reach.confirmed(&hosts).count(), 1);
    let later = now + FIRST_REPEAT + PLAN_INTERVAL;
    let again = told(&mut reach, later, &hosts);
    assert_eq!(again, BTreeSet::from([address(1), address(3)]));

    // Nothing has changed.
    assert!(!reach.plan(later, &hosts, |_, _| true));
    hosts.get_mut(InstanceId(3)).expect("added").contact =
        crate::proto::sender::hosts::Contact::Silent;
    assert!(reach.plan(later, &hosts, |_, _| true));
    assert_eq!(told(&mut reach, later, &hosts).len(), 2, "new ones");
}

#[test]
fn a_host_that_said_goodbye_passes_nothing_on() {
    let now = Moment(1_000_000_000);
    let (mut reach, mut hosts) = session(now, 3);
    assert!(reach.plan(now, &hosts, |_, _| true));
    for n in 1..=3 {
        let host = hosts.get_mut(InstanceId(n)).expect("added");
        (host.stage, host.transfer.targets) = (Some(HostStage::Committed), 1);
    }
    assert_eq!(reach.confirmed(&hosts).count(), 3);

    assert!(!hosts.on_bye(InstanceId(2), OrderKind::Commit), "done");
    let left: Vec<_> = reach.confirmed(&hosts).map(|(id, ..)| id.0).collect();
    assert_eq!(left, [1, 3]);
}

#[test]
fn a_host_that_misses_whole_generations_is_reached_in_another_way() {
    let now = Moment(1_000_000_000);
    let (mut reach, hosts) = session(now, 3);
    let entries: Vec<_> = (1..=3).map(|n| reached(n, None, true)).collect();
    reach.learn(
        now,
        RosterView {
            version: 2,
            multicast: true,
            hosts: &entries,
            distant: entries.len(),
        },
    );
    reach.plan(now, &hosts, |_, _| true);
    assert_eq!(reach.copies(), 1);

    let nothing_of = |generation| Missing {
        generation: Generation(generation),
        need: Vec::new(),
        symbols: Ranges::default(),
    };
    reach.on_missing(now, InstanceId(2), &[nothing_of(4), nothing_of(4)]);
    assert!(!reach.plan(now, &hosts, |_, _| true));
    let later = now + PLAN_INTERVAL;
    reach.on_missing(later, InstanceId(2), &[nothing_of(6)]);
    assert!(!reach.plan(later, &hosts, |_, _| true), "not in a row");
    reach.on_missing(later, InstanceId(2), &[nothing_of(7)]);
    assert!(reach.is_due(later, 3) && reach.plan(later, &hosts, |_, _| true));
    assert_eq!(reach.data().hosts, [address(2)]);
    assert_eq!(reach.copies(), 2);
}

#[test]
fn each_host_gets_each_train_once_in_spite_of_broken_ways() {
    let mut around = 0;
    for seed in 0..200 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let hosts: Vec<_> = (0..rng.u64(2..20))
            .map(|n| ReachedHost {
                instance: InstanceId(rng.u64(..)),
                ..reached(n, None, false)
            })
            .collect();
        let mut ways = BTreeSet::new();
        let mut broken = BrokenWays::default();
        for _ in 0..rng.usize(0..6) {
            let ends = rng.choose_multiple(&hosts, 2);
            ways.insert((ends[0].instance, ends[1].instance));
            broken.add(ends[0].instance, ends[1].instance);
        }

        let mut plan = RelayPlan::new(false, &RelayPlan::default());
        for host in &hosts {
            plan.add(host.instance, Some(host), false);
        }
        plan.close(&broken);
        let targets = all_targets(&plan);
        for relay in hosts.iter().map(|host| host.instance) {
            let (got, _) = pass_on(&targets, relay);
            assert_eq!(got.len(), hosts.len(), "seed {seed}");
            assert!(got.values().all(|times| *times == 1), "seed {seed}");

            // What goes around a broken way goes over none.
            for (_, to) in ways.iter().filter(|(from, _)| *from == relay) {
                if targets[&relay].heads.contains(to) {
                    continue;
                }
                let helps = |(host, second): &(&InstanceId, &RelayTargets)| {
                    *host != to && second.is_head(relay) && second.group.contains(to)
                };
                let (helper, _) = targets.iter().find(helps).expect("a helper");
                assert!(!ways.contains(&(relay, *helper)), "seed {seed}");
                assert!(!ways.contains(&(*helper, *to)), "seed {seed}");
                around += 1;
            }
        }
    }
    println!("{around} detours");
    assert!(around > 300, "{around} broken ways have a detour");
}

#[test]
fn only_hosts_that_read_tags_get_them() {
    let now = Moment(1_000_000_000);
    let (mut reach, mut hosts) = session(now, 3);
    let host = hosts.get_mut(InstanceId(2)).expect("added");
    host.transfer.reads_tags = true;
    assert!(reach.plan(now, &hosts, |_, _| true));

    let mut control = Control::new(InstanceId(99), 1200, 0);
    reach.tell(now, &hosts, &mut control);
    let mut out = Vec::new();
    let mut count = 0;
    while let Some(transmit) = control.poll(&mut out) {
        let Ok(Datagram::Control(_, piece)) = Datagram::parse(&out) else {
            panic!("a message")
        };
        let Ok(Message::Targets(targets)) = Message::decode(piece.bytes) else {
            panic!("targets")
        };
        let is_tagged = targets.tags.is_some();
        assert_eq!(is_tagged, transmit.dest == Dest::Host(address(2)));
        assert_eq!(
            is_tagged,
            targets.heads.is_empty() && targets.group.is_empty()
        );
        assert_eq!(targets.tags().heads.0.len(), 2);
        count += 1;
    }
    assert_eq!(count, 3);
}

#[test]
fn only_a_host_in_no_roster_that_asks_and_receives_nothing_is_cut_off() {
    let patience = Duration::from_secs(10);
    let at = |seconds: u64| Moment(1_000_000_000) + Duration::from_secs(seconds);
    let (mut reach, _) = session(at(0), 3);
    for second in 0..=10 {
        reach.on_request(at(second), InstanceId(1), 5, 900);
        reach.on_request(at(second), InstanceId(7), 5, 900);
        // Another one gets something from time to time, and a third has all.
        reach.on_request(at(second), InstanceId(8), second / 4, 900);
        reach.on_request(at(second), InstanceId(9), 900, 900);
        let cut_off = reach.cut_off(at(second), patience);
        let expected = if second < 10 {
            &[][..]
        } else {
            &[InstanceId(7)]
        };
        assert_eq!(cut_off, expected, "{second} s");
    }

    // It asks no more.
    assert_eq!(reach.cut_off(at(20), patience), []);
}
