//! Releases that stay staged after their session: hosts crash in between, orders are lost, two
//! senders differ, and recorded sessions are replayed.

use std::time::Duration;

use super::disk::SimDisk;
use super::offer::SimOffer;
use super::recording::Recording;
use super::setup::Observations;
use super::{LinkSetup, Network, NetworkSetup, NodeId};
use crate::id::HostName;
use crate::manifest::Intent;
use crate::proto::sender::{CommitRules, SessionGoal};
use crate::units::Quorum;
use crate::wire::HostStage;
use crate::wire::message::OrderKind;

const LONG: Duration = Duration::from_secs(300);
const SOON: Duration = Duration::from_millis(500);
const HOSTS: usize = 4;

fn offer(seed: u64, serial: u64) -> SimOffer {
    SimOffer::random(seed * 100 + serial, serial, Intent::Deploy, 15, 15_000)
}

fn rules(goal: SessionGoal) -> CommitRules {
    CommitRules {
        goal,
        ..CommitRules::default()
    }
}

/// A network for a session about `offer` with these disks.
fn network(seed: u64, offer: &SimOffer, commit: CommitRules, disks: &[SimDisk]) -> Network {
    let link = LinkSetup {
        loss: 0.03 * (seed % 5) as f64,
        ..LinkSetup::default()
    };
    let setup = NetworkSetup {
        seed: seed * 7 + commit.goal as u64,
        hosts: HOSTS,
        link,
        commit,
        observe: Observations {
            datagrams: true,
            ..Observations::default()
        },
        ..NetworkSetup::default()
    };

    let mut network = Network::new(setup, offer.clone());
    for (nth, disk) in disks.iter().enumerate() {
        *network.disk(nth + 1) = disk.clone();
    }
    network
}

/// Disks of all hosts after a session, as a restart finds them, and the recording.
fn end(mut network: Network) -> (Vec<SimDisk>, Recording) {
    let mut disks: Vec<SimDisk> = (1..=HOSTS)
        .map(|host| std::mem::take(network.disk(host)))
        .collect();
    disks.iter_mut().for_each(SimDisk::crash);
    (disks, network.log.recording)
}

/// Runs a whole session; returns the stages by host, the disks, and the recording.
fn run(
    seed: u64,
    offer: &SimOffer,
    commit: CommitRules,
    disks: &[SimDisk],
) -> (Vec<Option<HostStage>>, Vec<SimDisk>, Recording) {
    let mut network = network(seed, offer, commit, disks);
    assert!(network.run(LONG, SOON), "seed {seed}: not finished");
    let mut stages: Vec<_> = network
        .sender()
        .hosts()
        .map(|host| (host.name.clone(), host.stage))
        .collect();
    stages.sort_by(|a, b| a.0.cmp(&b.0));
    let stages = stages.into_iter().map(|(_, stage)| stage).collect();
    let (disks, recording) = end(network);
    (stages, disks, recording)
}

fn serials(disks: &[SimDisk]) -> Vec<Option<u64>> {
    let serial = |disk: &SimDisk| Some(disk.committed.as_ref()?.header().serial.0);
    disks.iter().map(serial).collect()
}

fn staged(disks: &[SimDisk]) -> Vec<Option<u64>> {
    let serial = |disk: &SimDisk| Some(disk.staged.as_ref()?.header().serial.0);
    disks.iter().map(serial).collect()
}

#[test]
fn a_staged_release_outlives_restarts_and_is_committed_without_content() {
    for seed in 0..12 {
        let offer = offer(seed, 3);
        let stage = rules(SessionGoal::Stage);
        let (stages, disks, _) = run(seed, &offer, stage, &[]);
        assert_eq!(stages, [Some(HostStage::Staged); HOSTS], "seed {seed}");
        assert_eq!(serials(&disks), [None; HOSTS], "seed {seed}");
        assert_eq!(staged(&disks), [Some(3); HOSTS], "seed {seed}");

        let mut commit = rules(SessionGoal::CommitStaged);
        commit.batches = vec![Quorum::Count(1).into()];
        let mut second = network(seed, &offer, commit, &disks);
        assert!(second.run(LONG, SOON), "seed {seed}: not finished");
        assert_eq!(
            second.sender().stats().bytes,
            0,
            "seed {seed}: content sent"
        );
        let (disks, _) = end(second);
        assert_eq!(serials(&disks), [Some(3); HOSTS], "seed {seed}");
        assert_eq!(staged(&disks), [None; HOSTS], "seed {seed}");
        assert!(disks.iter().all(SimDisk::is_whole), "seed {seed}");
    }
}

#[test]
fn a_host_without_the_staged_release_keeps_the_others_from_committing() {
    for seed in 0..8 {
        let offer = offer(seed, 3);
        let (_, mut disks, _) = run(seed, &offer, rules(SessionGoal::Stage), &[]);
        disks[2] = SimDisk::default();

        let commit = rules(SessionGoal::CommitStaged);
        let (stages, disks, _) = run(seed, &offer, commit.clone(), &disks);
        assert_eq!(stages[2], Some(HostStage::Refused), "seed {seed}");
        assert_eq!(serials(&disks), [None; HOSTS], "seed {seed}");
        let expected = [Some(3), Some(3), None, Some(3)];
        assert_eq!(staged(&disks), expected, "seed {seed}: it stays staged");

        let most = CommitRules {
            quorum: Quorum::Count(3),
            ..commit
        };
        let (_, disks, _) = run(seed, &offer, most, &disks);
        // The one that lacked it may have caught up.
        let serials = serials(&disks);
        let others = [serials[0], serials[1], serials[3]];
        assert_eq!(others, [Some(3); 3], "seed {seed}");
    }
}

#[test]
fn a_veto_or_an_interrupt_leaves_the_release_staged() {
    for seed in 0..10 {
        let offer = offer(seed, 3);
        let (_, mut disks, _) = run(seed, &offer, rules(SessionGoal::Stage), &[]);
        disks
            .iter_mut()
            .for_each(|disk| disk.script.vote = Some(Ok(())));
        if seed % 2 == 0 {
            disks[1].script.vote = Some(Err("not now".into()));
        }

        let commit = rules(SessionGoal::CommitStaged);
        let mut second = network(seed, &offer, commit, &disks);
        if seed % 2 == 1 {
            second.run(Duration::from_millis(20 + seed * 7), Duration::ZERO);
            second.interrupt();
        }
        second.run(LONG, SOON);
        let decided = second.sender().decision();
        let (mut disks, _) = end(second);
        if decided != Some(OrderKind::Commit) {
            assert_eq!(serials(&disks), [None; HOSTS], "seed {seed}");
            assert_eq!(staged(&disks), [Some(3); HOSTS], "seed {seed}");
        }

        disks.iter_mut().for_each(|disk| disk.script.vote = None);
        let commit = rules(SessionGoal::CommitStaged);
        let (_, disks, _) = run(seed ^ 1, &offer, commit, &disks);
        assert_eq!(serials(&disks), [Some(3); HOSTS], "seed {seed}");
    }
}

#[test]
fn an_aborted_release_is_staged_nowhere_and_no_record_of_it_works() {
    for seed in 0..10 {
        let offer = offer(seed, 3);
        let (_, disks, staging) = run(seed, &offer, rules(SessionGoal::Stage), &[]);

        // A commit is recorded on copies of the disks.
        let commit = rules(SessionGoal::CommitStaged);
        let (_, _, committing) = run(seed, &offer, commit, &disks);
        let abort = rules(SessionGoal::AbortStaged);
        let (stages, disks, aborting) = run(seed, &offer, abort, &disks);
        assert_eq!(stages, [Some(HostStage::Aborted); HOSTS], "seed {seed}");
        assert_eq!(staged(&disks), [None; HOSTS], "seed {seed}");

        let all = staging.and(&committing).and(&aborting);
        let mut later = network(seed, &offer, rules(SessionGoal::Stage), &disks);
        let hosts = (1..=HOSTS).map(NodeId::host);
        hosts.for_each(|host| later.cut(NodeId::SENDER, host, true));
        later.replay(&all, Duration::from_secs(1));
        later.run(Duration::from_secs(5), SOON);
        let (disks, _) = end(later);
        assert_eq!(serials(&disks), [None; HOSTS], "seed {seed}");
        assert_eq!(staged(&disks), [None; HOSTS], "seed {seed}");
    }
}

#[test]
fn a_recorded_session_neither_stages_nor_commits_nor_aborts() {
    for seed in 0..10 {
        let offer = offer(seed, 3);
        let (_, disks, staging) = run(seed, &offer, rules(SessionGoal::Stage), &[]);
        let commit = rules(SessionGoal::CommitStaged);
        let (_, _, committing) = run(seed, &offer, commit, &disks);

        // Hosts that were away have nothing, the others what was staged.
        let all = staging.and(&committing);
        let mut before = disks;
        before[0] = SimDisk::default();
        let mut later = network(seed, &offer, rules(SessionGoal::Stage), &before);
        let hosts = (1..=HOSTS).map(NodeId::host);
        hosts.for_each(|host| later.cut(NodeId::SENDER, host, true));
        later.replay(&all, Duration::from_secs(1));
        later.run(Duration::from_secs(5), SOON);
        let (disks, _) = end(later);
        assert_eq!(serials(&disks), [None; HOSTS], "seed {seed}");
        let expected = [None, Some(3), Some(3), Some(3)];
        assert_eq!(staged(&disks), expected, "seed {seed}");
    }
}

#[test]
fn an_order_that_names_hosts_is_also_for_one_that_was_not_ready() {
    for seed in 0..8 {
        let offer = offer(seed, 3);
        let (_, mut disks, _) = run(seed, &offer, rules(SessionGoal::Stage), &[]);
        disks[3] = SimDisk::default();
        let commit = CommitRules {
            names: true,
            quorum: Quorum::Count(3),
            ..rules(SessionGoal::CommitStaged)
        };
        let mut second = network(seed, &offer, commit, &disks);
        assert!(second.run(LONG, SOON), "seed {seed}: not finished");
        let order = second.sender().committed_by().expect("committed").clone();
        let named = |name: HostName| {
            let order = crate::wire::message::Order::decode(&order.order).expect("an order");
            order.permits(&name, order_hosts(&second))
        };
        let mut hosts = (1..=HOSTS).map(|host| NodeId::host(host).name());
        assert!(hosts.all(named), "seed {seed}");
        let other = HostName::new("other").expect("legal");
        assert!(!named(other), "seed {seed}");
    }
}

fn order_hosts(network: &Network) -> Option<&crate::wire::message::HostSet> {
    network.sender().committed_by()?.hosts.as_ref()
}

/// What happens to a fleet between two looks.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Event {
    Stage,
    Commit,
    Abort,
    Deploy,
}

/// A judge that knows only what was ordered: a host runs a release that some sender ordered to
/// commit and keeps staged one that some sender ordered to stage, newer than what it runs.
#[test]
fn any_course_of_stages_commits_aborts_and_crashes_ends_as_ordered() {
    for seed in 0..30 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut disks: Vec<SimDisk> = Vec::new();
        let mut offers: Vec<SimOffer> = Vec::new();
        let mut to_commit = Vec::new();
        let mut to_stage = Vec::new();

        for step in 1..=6 {
            use Event::{Abort, Commit, Deploy, Stage};
            let event = [Stage, Stage, Commit, Commit, Abort, Deploy][rng.usize(..6)];
            let is_new = matches!(event, Stage | Deploy) || offers.is_empty();
            if is_new {
                offers.push(offer(seed, step));
            }
            // An older staged release may be meant as well.
            let at = if is_new || rng.bool() {
                offers.len() - 1
            } else {
                rng.usize(..offers.len())
            };
            let serial = offers[at].release.header().serial.0;
            let goal = match event {
                Stage => SessionGoal::Stage,
                Commit => SessionGoal::CommitStaged,
                Abort => SessionGoal::AbortStaged,
                Deploy => SessionGoal::Commit,
            };

            let mut commit = rules(goal);
            commit.quorum = [Quorum::All, Quorum::Count(2)][rng.usize(..2)];
            let mut session = network(seed * 50 + step, &offers[at], commit, &disks);
            for _ in 0..rng.usize(..3) {
                let (host, after) = (rng.usize(1..=HOSTS), Duration::from_millis(rng.u64(..300)));
                session.power(host, false, after);
                if rng.bool() {
                    session.power(host, true, after + Duration::from_millis(rng.u64(1..400)));
                }
            }
            if rng.u8(..5) == 0 {
                session.run(Duration::from_millis(rng.u64(1..300)), Duration::ZERO);
                session.interrupt();
            }
            session.run(LONG, SOON);
            match session.sender().decision() {
                Some(OrderKind::Commit) => to_commit.push(serial),
                Some(OrderKind::Stage) => to_stage.push(serial),
                Some(OrderKind::Abort | OrderKind::Prepare | OrderKind::Revert) | None => {}
            }

            // Power is back everywhere.
            disks = end(session).0;
            for (host, (runs, staged)) in serials(&disks).iter().zip(staged(&disks)).enumerate() {
                let at = format!("seed {seed}, step {step}, host {host}");
                assert!(
                    runs.is_none_or(|serial| to_commit.contains(&serial)),
                    "{at}: {runs:?}"
                );
                assert!(
                    staged.is_none_or(|serial| to_stage.contains(&serial)),
                    "{at}: {staged:?}"
                );
                assert!(
                    staged.is_none() || staged > *runs,
                    "{at}: {staged:?}, {runs:?}"
                );
                let is_whole = disks[host].is_whole();
                assert!(is_whole, "{at}");
            }
        }
    }
}

#[test]
fn a_held_host_stages_and_does_not_commit() {
    for seed in 0..8 {
        let offer = offer(seed, 3);
        let mut disks = vec![SimDisk::default(); HOSTS];
        disks[1].script.held = Some("held by ops".into());
        let (stages, mut disks, _) = run(seed, &offer, rules(SessionGoal::Commit), &disks);
        assert_eq!(stages[1], Some(HostStage::Refused), "seed {seed}");
        assert_eq!(serials(&disks), [None; HOSTS], "seed {seed}");

        // The aborted release is dead; the next one can be staged there.
        let offer = self::offer(seed, 4);
        let stage = rules(SessionGoal::Stage);
        let (_, staged_disks, _) = run(seed, &offer, stage, &disks);
        assert_eq!(staged(&staged_disks), [Some(4); HOSTS], "seed {seed}");
        let commit = CommitRules {
            quorum: Quorum::Count(3),
            ..rules(SessionGoal::CommitStaged)
        };
        (_, disks, _) = run(seed, &offer, commit, &staged_disks);
        let expected = [Some(4), None, Some(4), Some(4)];
        assert_eq!(serials(&disks), expected, "seed {seed}");
        assert_eq!(staged(&disks)[1], Some(4), "seed {seed}: it stays staged");
        assert_eq!(disks[1].counts.commits, 0, "seed {seed}");

        disks[1].script.held = None;
        let commit = CommitRules {
            quorum: Quorum::Count(1),
            ..rules(SessionGoal::CommitStaged)
        };
        let (_, disks, _) = run(seed, &offer, commit, &disks);
        assert_eq!(serials(&disks), [Some(4); HOSTS], "seed {seed}");
    }
}
