//! Rollouts with pauses: random courses of deploys, promotions, commits, aborts, rollbacks,
//! failures, absences and restarts, judged by a table of what each host has to have.

use std::collections::BTreeSet;
use std::time::Duration;

use super::disk::SimDisk;
use super::offer::SimOffer;
use super::{LinkSetup, Network, NetworkSetup, NodeId};
use crate::id::{HostName, Labels, NamedHost};
use crate::manifest::Intent;
use crate::proto::rollout::{ReleasePlace, Rollout, RolloutHost};
use crate::proto::sender::{CommitRules, SessionGoal};
use crate::spec::BatchRule;
use crate::units::Quorum;
use crate::wire::message::Order;

const LONG: Duration = Duration::from_secs(300);
const SOON: Duration = Duration::from_millis(500);
const HOSTS: usize = 5;
const STEPS: u64 = 10;

fn offer(seed: u64, serial: u64) -> SimOffer {
    SimOffer::random(seed * 100 + serial, serial, Intent::Deploy, 8, 8_000)
}

fn name(host: usize) -> String {
    format!("mk{host}")
}

/// The disks of a fleet, and the hosts that are away.
struct Fleet {
    seed: u64,
    disks: Vec<SimDisk>,
    away: BTreeSet<usize>,
    sessions: u64,
}

impl Fleet {
    /// Runs a session with the targets, which reaches no host that is away. Afterwards all hosts
    /// restart.
    fn session(&mut self, offer: &SimOffer, commit: CommitRules, targets: &[usize]) {
        self.sessions += 1;
        let link = LinkSetup {
            loss: 0.02 * (self.seed % 4) as f64,
            ..LinkSetup::default()
        };
        let setup = NetworkSetup {
            seed: self.seed * 1000 + self.sessions,
            hosts: HOSTS,
            link,
            commit,
            targets: targets.iter().map(|host| name(*host)).collect(),
            ..NetworkSetup::default()
        };

        let mut network = Network::new(setup, offer.clone());
        for (nth, disk) in self.disks.iter_mut().enumerate() {
            *network.disk(nth + 1) = std::mem::take(disk);
            // A host knows the releases that were there when it started.
            network.power(nth + 1, false, Duration::ZERO);
            network.power(nth + 1, true, Duration::ZERO);
        }
        for host in &self.away {
            let host = NodeId::host(*host);
            for other in NodeId::all(HOSTS).filter(|other| *other != host) {
                network.cut(host, other, true);
                network.cut(other, host, true);
            }
        }

        let at = (self.seed, self.sessions);
        assert!(
            network.run(LONG, SOON),
            "(seed, session) {at:?}: not finished"
        );
        for (nth, disk) in self.disks.iter_mut().enumerate() {
            *disk = std::mem::take(network.disk(nth + 1));
            disk.crash();
            assert!(disk.is_whole(), "(seed, session) {at:?}");
        }
    }

    fn present(&self) -> Vec<usize> {
        (1..=HOSTS)
            .filter(|host| !self.away.contains(host))
            .collect()
    }

    /// The place of a release, as a survey shows it.
    fn place(&self, host: usize, offer: &SimOffer) -> ReleasePlace {
        let disk = &self.disks[host - 1];
        let runs = disk
            .committed
            .as_ref()
            .map(|release| release.header().serial);
        let is_it = |release: &crate::manifest::Release| release.id() == offer.release.id();
        match (disk.committed.as_ref().is_some_and(is_it), &disk.staged) {
            (true, _) => ReleasePlace::Well,
            _ if runs > Some(offer.release.header().serial) => ReleasePlace::Newer,
            (false, Some(staged)) if is_it(staged) => ReleasePlace::Staged,
            _ => ReleasePlace::Missing,
        }
    }

    /// Commits the batch that is due, as `makuo promote` does; nothing if none is.
    fn promote(&mut self, offer: &SimOffer, sizes: &[BatchRule], revert: bool) {
        let host = |host: usize| RolloutHost {
            named: NamedHost::from(HostName::new(&name(host)).expect("legal")),
            labels: Labels::default(),
            place: self.place(host, offer),
        };
        let rollout = Rollout::plan(sizes, self.present().into_iter().map(host));
        let Some(next) = rollout.next(Quorum::All) else {
            return;
        };
        if !rollout.newer().is_empty() || next.needed > next.hosts.len() {
            return;
        }

        let commit = CommitRules {
            goal: SessionGoal::CommitStaged,
            names: !next.is_last(),
            revert,
            ..CommitRules::default()
        };
        let number = |host: &NamedHost| host.name.as_str()[2..].parse().expect("a number");
        let targets: Vec<usize> = next.hosts.iter().map(number).collect();
        self.session(offer, commit, &targets);
        if next.is_last() && !revert {
            self.check_orders(offer);
        }
    }

    /// Fails if a host that has the release cannot pass it on to a host that was away.
    fn check_orders(&self, offer: &SimOffer) {
        let later = HostName::new("later").expect("legal");
        for host in self.present() {
            let is_well = self.place(host, offer) == ReleasePlace::Well;
            let grant = self.disks[host - 1].grant.as_ref().filter(|_| is_well);
            let Some(grant) = grant else { continue };
            let order = Order::decode(&grant.order).expect("an order");
            assert!(
                order.release == offer.release.id() && order.permits(&later, grant.hosts.as_ref()),
                "(seed, session) {:?}: {host} has {order:?}",
                (self.seed, self.sessions)
            );
        }
    }
}

/// What the hosts have to have: serials by host, 0 for none.
#[derive(Debug, Clone, PartialEq)]
struct Table {
    runs: [u64; HOSTS],
    staged: [u64; HOSTS],
    /// What hosts ran before, for those that go back.
    before: [u64; HOSTS],
}

impl Table {
    fn of(fleet: &Fleet) -> Self {
        let serial = |release: &Option<crate::manifest::Release>| {
            release
                .as_ref()
                .map_or(0, |release| release.header().serial.0)
        };
        let at = |nth: usize| &fleet.disks[nth];
        Self {
            runs: std::array::from_fn(|nth| serial(&at(nth).committed)),
            staged: std::array::from_fn(|nth| serial(&at(nth).staged)),
            before: [0; HOSTS],
        }
    }

    fn commit(&mut self, host: usize, serial: u64) {
        self.before[host - 1] = std::mem::replace(&mut self.runs[host - 1], serial);
        if self.staged[host - 1] <= serial {
            self.staged[host - 1] = 0;
        }
    }

    /// Commits hosts in the order of their numbers, up to the end of the first batch that is not
    /// done.
    fn promote(&mut self, serial: u64, sizes: &[usize], present: &[usize]) {
        if present.iter().any(|host| self.runs[host - 1] > serial) {
            return;
        }

        let in_rollout =
            |host: &usize| self.runs[host - 1] == serial || self.staged[host - 1] == serial;
        let hosts: Vec<usize> = present.iter().copied().filter(in_rollout).collect();
        let mut end = 0;
        for size in sizes.iter().chain([&HOSTS]) {
            end = (end + size).min(hosts.len());
            let lacking = hosts[..end]
                .iter()
                .filter(|host| self.runs[**host - 1] != serial);
            let lacking: Vec<usize> = lacking.copied().collect();
            if !lacking.is_empty() {
                lacking.iter().for_each(|host| self.commit(*host, serial));
                return;
            }
        }
    }
}

#[test]
fn any_course_of_promotions_leaves_every_host_with_what_was_ordered() {
    for seed in 0..24 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut fleet = Fleet {
            seed,
            disks: vec![SimDisk::default(); HOSTS],
            away: BTreeSet::new(),
            sessions: 0,
        };
        let sizes: Vec<usize> = (0..rng.usize(1..4)).map(|_| rng.usize(1..3)).collect();
        let rules = sizes.iter().map(|size| Quorum::Count(*size as u32).into());
        let rules: Vec<BatchRule> = rules.collect();
        let mut table = Table::of(&fleet);
        let mut rollout: Option<SimOffer> = None;
        let mut course = Vec::new();

        for serial in 1..=STEPS {
            // Tombstones are for all: hosts that were away would learn of them later.
            let event = match rng.usize(..10) {
                0..=1 => "deploy",
                2..=5 => "promote",
                6 => "commit",
                7 => "abort",
                8 => "fail",
                _ => "rollback",
            };
            let is_for_all = matches!(event, "abort" | "fail");
            fleet.away.clear();
            if !is_for_all && rng.bool() {
                fleet.away.insert(rng.usize(1..=HOSTS));
            }
            let present = fleet.present();
            course.push((event, fleet.away.clone()));
            let at = format!("seed {seed}, sizes {sizes:?}, course {course:?}");

            match (event, rollout.clone()) {
                ("deploy", _) => {
                    let new = offer(seed, serial);
                    let stage = CommitRules {
                        goal: SessionGoal::Stage,
                        ..CommitRules::default()
                    };
                    fleet.session(&new, stage, &[]);
                    present
                        .iter()
                        .for_each(|host| table.staged[host - 1] = serial);
                    fleet.promote(&new, &rules, false);
                    table.promote(serial, &sizes, &present);
                    rollout = Some(new);
                }
                ("promote", Some(release)) => {
                    fleet.promote(&release, &rules, false);
                    let promoted = release.release.header().serial.0;
                    table.promote(promoted, &sizes, &present);
                }
                ("commit", Some(release)) => {
                    let promoted = release.release.header().serial.0;
                    let staged = |host: &usize| table.staged[host - 1] == promoted;
                    let targets: Vec<usize> = present.iter().copied().filter(staged).collect();
                    if !targets.is_empty() {
                        let commit = CommitRules {
                            goal: SessionGoal::CommitStaged,
                            ..CommitRules::default()
                        };
                        fleet.session(&release, commit, &targets);
                        targets
                            .iter()
                            .for_each(|host| table.commit(*host, promoted));
                    }
                }
                ("abort", Some(release)) => {
                    let aborted = release.release.header().serial.0;
                    let staged = |host: &usize| table.staged[host - 1] == aborted;
                    let targets: Vec<usize> = present.iter().copied().filter(staged).collect();
                    if !targets.is_empty() {
                        let abort = CommitRules {
                            goal: SessionGoal::AbortStaged,
                            ..CommitRules::default()
                        };
                        fleet.session(&release, abort, &targets);
                        targets.iter().for_each(|host| table.staged[host - 1] = 0);
                    }
                    rollout = None;
                }
                ("fail", Some(release)) => {
                    let failed = release.release.header().serial.0;
                    let mut after = table.clone();
                    after.promote(failed, &sizes, &present);
                    for disk in &mut fleet.disks {
                        disk.script.health = Some(Err("sick".into()));
                    }
                    fleet.promote(&release, &rules, true);
                    fleet
                        .disks
                        .iter_mut()
                        .for_each(|disk| disk.script.health = None);
                    if after != table {
                        // Its batch goes back, and so do hosts of earlier ones that still can.
                        let is_of_it = |staged: &mut u64| {
                            if *staged == failed {
                                *staged = 0;
                            }
                        };
                        table.staged.iter_mut().for_each(is_of_it);
                        let found = Table::of(&fleet).runs;
                        for (host, runs) in found.into_iter().enumerate() {
                            if table.runs[host] == failed && runs == table.before[host] {
                                table.runs[host] = runs;
                            }
                        }
                    }
                    rollout = None;
                }
                ("rollback", _) => {
                    let new = offer(seed, serial);
                    fleet.session(&new, CommitRules::default(), &[]);
                    present.iter().for_each(|host| table.commit(*host, serial));
                }
                _ => {}
            }

            let found = Table::of(&fleet);
            assert_eq!(
                (found.runs, found.staged),
                (table.runs, table.staged),
                "{at}"
            );
        }
    }
}
