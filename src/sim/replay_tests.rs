//! An attacker replays recorded sessions under any address to processes that have not heard them: a
//! new sender, and restarted hosts.

use std::time::Duration;

use super::disk::SimDisk;
use super::offer::SimOffer;
use super::recording::Recording;
use super::setup::Observations;
use super::{Network, NetworkSetup, NodeId};
use crate::manifest::Intent;
use crate::proto::sender::SenderNotice;
use crate::wire::message::OrderKind;

const LONG: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_millis(500);

/// End of the recorded session.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Commits,
    /// The operator aborts after this time.
    Aborted(Duration),
    /// The sender is killed after this time.
    Killed(Duration),
}

/// Records a session with one host more than later; returns the disks of the others, and the
/// recording.
fn record(
    seed: u64,
    hosts: usize,
    serial: u64,
    intent: Intent,
    end: End,
    disks: Vec<SimDisk>,
) -> (Vec<SimDisk>, Recording) {
    let setup = NetworkSetup {
        seed,
        hosts: hosts + 1,
        observe: Observations {
            datagrams: true,
            ..Observations::default()
        },
        ..NetworkSetup::default()
    };

    let offer = SimOffer::random(seed, serial, intent, 60, 30_000);
    let mut network = Network::new(setup, offer);
    for (nth, disk) in disks.into_iter().enumerate() {
        *network.disk(nth + 1) = disk;
    }

    match end {
        End::Commits => assert!(network.run(LONG, SOON), "seed {seed}"),
        End::Aborted(after) => {
            network.run(after, SOON);
            network.interrupt();
            network.run(LONG, SOON);
        }
        End::Killed(after) => drop(network.run(after, SOON)),
    }

    let mut disks: Vec<SimDisk> = (1..=hosts)
        .map(|host| std::mem::take(network.disk(host)))
        .collect();
    disks.iter_mut().for_each(SimDisk::crash);

    (disks, network.log.recording)
}

/// Runs a deploy by a new process to restarted hosts while `recording` is replayed; returns its
/// duration.
fn deploy(seed: u64, disks: &[SimDisk], recording: &Recording) -> Duration {
    let setup = NetworkSetup {
        seed: seed ^ 77,
        hosts: disks.len(),
        ..NetworkSetup::default()
    };

    let offer = SimOffer::random(seed ^ 99, 9, Intent::Deploy, 60, 30_000);
    let mut network = Network::new(setup, offer);
    for (nth, disk) in disks.iter().enumerate() {
        *network.disk(nth + 1) = disk.clone();
    }

    let began = network.now();
    network.replay(recording, Duration::from_secs(2));
    assert!(
        network.run(LONG, Duration::ZERO),
        "seed {seed}: it does not end"
    );
    let took = network.now().since(began);

    let targets = network.log.notices.iter().find_map(|notice| match notice {
        SenderNotice::Discovered { targets, .. } => Some(targets.len()),
        _ => None,
    });

    assert_eq!(
        targets,
        Some(disks.len()),
        "seed {seed}: a host that is not there is a target"
    );

    assert_eq!(network.sender().hosts().count(), disks.len(), "seed {seed}");
    assert_eq!(
        network.sender().decision(),
        Some(OrderKind::Commit),
        "seed {seed}"
    );

    for (nth, before) in disks.iter().enumerate() {
        let disk = network.disk(nth + 1);
        let serial = disk
            .committed
            .as_ref()
            .map(|release| release.header().serial.0);
        assert_eq!(
            (serial, disk.counts.commits),
            (Some(9), before.counts.commits + 1),
            "seed {seed}: host {}",
            nth + 1
        );
        assert!(disk.is_whole(), "seed {seed}");
    }

    took
}

#[test]
fn nothing_that_was_recorded_lives_again() {
    for seed in 0..25 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let hosts = rng.usize(1..6);
        let mut disks = Vec::new();
        let mut all = Recording::default();
        for serial in 1..=3 {
            let after = Duration::from_millis(rng.u64(40..400));
            let end = [End::Commits, End::Aborted(after), End::Killed(after)][rng.usize(..3)];
            let intent = if rng.u8(..4) == 0 {
                Intent::Audit
            } else {
                Intent::Deploy
            };

            let recording;
            (disks, recording) = record(seed * 10 + serial, hosts, serial, intent, end, disks);
            all = all.and(&recording);
        }
        let alone = deploy(seed, &disks, &Recording::default());
        let disturbed = deploy(seed, &disks, &all);
        // A session with a killed sender looks alive for a moment.
        assert!(
            disturbed < alone * 2 + Duration::from_millis(450),
            "seed {seed}: {alone:?}, then {disturbed:?}"
        );
    }
}

#[test]
fn a_session_that_was_aborted_holds_up_nothing() {
    for seed in 0..20 {
        let hosts = 2 + seed as usize % 3;
        let after = Duration::from_millis(60 + seed * 10);
        let (disks, recording) = record(
            seed,
            hosts,
            3,
            Intent::Deploy,
            End::Aborted(after),
            Vec::new(),
        );

        let alone = deploy(seed, &disks, &Recording::default());
        let disturbed = deploy(seed, &disks, &recording);

        assert!(
            disturbed < alone * 2,
            "seed {seed}: {alone:?}, then {disturbed:?}"
        );
    }
}

#[test]
fn the_recorded_commit_of_a_release_that_a_host_missed_is_not_followed() {
    for seed in 0..20 {
        let hosts = 3;
        let (mut disks, recording) =
            record(seed, hosts, 3, Intent::Deploy, End::Commits, Vec::new());
        // This host was away, has nothing, and receives only the recording.
        disks[0] = SimDisk::default();
        let setup = NetworkSetup {
            seed,
            hosts,
            ..NetworkSetup::default()
        };

        let offer = SimOffer::random(seed ^ 99, 9, Intent::Deploy, 5, 3000);
        let mut network = Network::new(setup, offer);
        (1..=hosts).for_each(|host| network.cut(NodeId::SENDER, NodeId::host(host), true));
        network.replay(&recording, Duration::from_secs(1));
        network.run(Duration::from_secs(5), SOON);

        assert!(network.disk(1).committed.is_none(), "seed {seed}");
    }
}
