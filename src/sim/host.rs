//! A simulated host: its state machine, its disk, and their course over restarts.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::disk::SimDisk;
use super::event::NetworkEvent;
use super::node::NodeId;
use super::offer::tree;
use super::setup::{NetworkSetup, SessionStart};
use crate::id::InstanceId;
use crate::keys::HostKey;
use crate::proto::Transmit;
use crate::proto::members::Trust;
use crate::proto::receiver::{
    Answer, DiskReply, HostSetup, HostTrees, Receiver, RelayLoad, SessionHost,
};
use crate::units::Moment;
use crate::wire::relay::RelayTargets;

/// A host of the network.
pub(super) struct SimHost {
    /// Number of the host, from 1.
    number: usize,
    machine: Option<Receiver>,
    pub(super) disk: SimDisk,
    /// Number of starts of the host: answers to requests of an earlier life are dropped.
    life: u32,
    /// Time at which the disk takes the next request; requests are answered in order.
    disk_free: Moment,
    /// Whether the host passes relayed data on.
    relays: bool,
}

/// Reaction of a host to a datagram.
#[derive(Debug, Clone)]
pub(super) enum Reaction {
    Nothing,
    /// A timer at this time.
    Due(Moment),
    /// Output to collect: datagrams, requests or notices.
    Says,
    /// The same, and the datagram may go to these targets.
    PassesOn(Arc<RelayTargets>),
}

/// Randomness of one start of a host.
#[derive(Debug)]
pub(super) struct StartSeeds {
    pub(super) process: u64,
    pub(super) machine: u64,
}

/// Returns the seed of a host's key.
pub(super) fn own_seed(host: usize) -> [u8; 32] {
    crate::block::BlockHash::of(&host.to_be_bytes()).0
}

impl SimHost {
    /// Creates a host that is not running; with `relays` set it passes relayed data on.
    pub(super) fn new(now: Moment, number: usize, disk: SimDisk, relays: bool) -> Self {
        Self {
            number,
            machine: None,
            disk,
            life: 0,
            disk_free: now,
            relays,
        }
    }

    /// Starts the host, in a fleet of `fleet` hosts if not 0.
    pub(super) fn start(
        &mut self,
        now: Moment,
        setup: &NetworkSetup,
        fleet: u32,
        seeds: StartSeeds,
    ) {
        let trees = |is_set: bool| -> BTreeSet<_> { is_set.then(tree).into_iter().collect() };
        self.life += 1;
        let machine = self.machine.insert(Receiver::new(
            now,
            HostSetup {
                host: SessionHost {
                    name: NodeId::host(self.number).name(),
                    labels: crate::id::Labels::default(),
                    key: HostKey::new(own_seed(self.number), seeds.process),
                    patience: setup.patience,
                    window: 4 << 20,
                },
                trees: HostTrees {
                    states: vec![self.disk.state()],
                    takes: trees(setup.start != SessionStart::Discovery),
                    gives: trees(setup.start == SessionStart::Pulled),
                    tombstones: self.disk.tombstones.clone(),
                    shown: BTreeMap::new(),
                    headers: self.disk.headers(),
                },
                trust: Trust::Proven,
                seed: seeds.machine,
                datagram: setup.sending.datagram,
                room: 0,
            },
        ));

        machine.assume_fleet(fleet);
    }

    /// Id of the running process.
    pub(super) fn instance(&self) -> Option<InstanceId> {
        self.machine.as_ref().map(Receiver::instance)
    }

    /// Crashes the host.
    pub(super) fn crash(&mut self) {
        self.machine = None;
        self.life += 1;
        self.disk.crash();
    }

    /// Takes a datagram.
    pub(super) fn take(&mut self, now: Moment, from: SocketAddr, bytes: &[u8]) -> Reaction {
        let Some(machine) = &mut self.machine else {
            return Reaction::Nothing;
        };

        let targets = machine.handle_datagram(now, (from, self.relays), bytes, now.0 / 1000);
        if let Some(targets) = targets.filter(|_| self.relays) {
            Reaction::PassesOn(targets)
        } else if machine.is_calm() {
            Reaction::Due(machine.poll_timeout(now))
        } else {
            Reaction::Says
        }
    }

    /// Takes an answer of the disk to a request of the life `life`. Returns false if the host was
    /// restarted since.
    pub(super) fn on_reply(&mut self, now: Moment, life: u32, reply: DiskReply) -> bool {
        let Some(machine) = self.machine.as_mut().filter(|_| self.life == life) else {
            return false;
        };

        let committed = matches!(reply, DiskReply::Session(_, Answer::Ordered(_)));
        machine.handle_reply(now, reply);
        if committed {
            machine.handle_reply(now, DiskReply::Headers(self.disk.headers()));
            machine.handle_reply(now, DiskReply::Trees(vec![self.disk.state()]));
        }

        true
    }

    /// Takes the load of the host as a relay.
    pub(super) fn set_relay_load(&mut self, load: RelayLoad) {
        if let Some(machine) = &mut self.machine {
            machine.set_relay_load(load);
        }
    }

    /// Performs due work.
    pub(super) fn handle_timeout(&mut self, now: Moment) {
        if let Some(machine) = &mut self.machine {
            machine.handle_timeout(now);
        }
    }

    /// Writes the next datagrams into `out`.
    pub(super) fn poll_transmit(&mut self, out: &mut Vec<u8>) -> Option<Transmit> {
        self.machine.as_mut()?.poll_transmit(out)
    }

    /// Returns the next answer of the disk, with its time. A disk takes up to `longest`.
    pub(super) fn poll_reply(
        &mut self,
        now: Moment,
        longest: Duration,
        rng: &mut fastrand::Rng,
    ) -> Option<(Moment, NetworkEvent)> {
        let machine = self.machine.as_mut()?;
        while let Some(request) = machine.poll_request() {
            self.disk_free = self.disk_free.max(now) + longest.mul_f64(rng.f64());
            if let Some(reply) = self.disk.answer(request) {
                let event = NetworkEvent::HostReply {
                    host: self.number,
                    life: self.life,
                    reply,
                };
                return Some((self.disk_free, event));
            }
        }

        None
    }

    /// Drops all notices, and returns whether the host requests a release from another.
    pub(super) fn take_pulls(&mut self) -> bool {
        let Some(machine) = &mut self.machine else {
            return false;
        };

        while machine.poll_notice().is_some() {}
        std::iter::from_fn(|| machine.poll_pull()).count() > 0
    }

    /// Bytes that the host holds in memory for received data.
    pub(super) fn held(&self) -> usize {
        self.machine.as_ref().map_or(0, Receiver::held)
    }

    /// Time of the next timer.
    pub(super) fn timeout(&self, now: Moment) -> Option<Moment> {
        self.machine.as_ref().map(|m| m.poll_timeout(now))
    }
}
