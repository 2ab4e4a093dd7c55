//! The loop of a running host: the receiver machine on a real network with real trees.

mod commands;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver as Inbox, SyncSender, channel, sync_channel};
use std::time::Duration;

use super::disk::Disk;
use super::drift_check::DriftSchedule;
use super::gate::ClosedGate;
use super::handle::{HostCommand, HostHandle};
use super::managed::ManagedTree;
use super::peer_log::PeerLog;
use super::queries::QueryAnswers;
use super::rx_drops::ReceiveDrops;
use super::shared::LocalHost;
use crate::Result;
use crate::drive::clock::{self, Clock};
use crate::drive::endpoint::{GroupEndpoint, GroupLinks};
use crate::id::TreeName;
use crate::keys::HostKey;
use crate::metrics::{SessionEnd, SessionRole};
use crate::proto::members::Trust;
use crate::proto::receiver::{DiskReply, HostNotice, HostSetup, HostTrees, Receiver, SessionHost};
use crate::units::Moment;
use crate::wire::message::Pull;
use crate::wire::seal::OpenError;

/// Longest further wait for the sender to acknowledge the outcome.
const ACK_TIMEOUT: Duration = Duration::from_secs(2);
/// Largest number of pulls that wait while one release is served: more than the hosts that get an
/// offer one by one.
const MAX_WAITING_PULLS: usize = 128;
/// Interval at which an ending host checks for orders in progress.
const END_POLL_INTERVAL: Duration = Duration::from_millis(50);
/// Interval at which a host looks for staged releases that have expired or were aborted.
const STAGED_SWEEP_INTERVAL: Duration = Duration::from_secs(60);
/// Interval at which a host looks whether a closed gate has opened.
const GATE_INTERVAL: Duration = Duration::from_secs(1);
/// Timeout for a silent sender.
const SENDER_TIMEOUT: Duration = Duration::from_secs(30);

/// A host ready to run.
#[derive(Debug)]
pub struct HostLoop {
    host: Arc<LocalHost>,
    endpoint: GroupEndpoint,
    clock: Clock,
    machine: Receiver,
    disk: Disk,
    replies: Inbox<DiskReply>,
    answers: QueryAnswers,
    commands: Inbox<HostCommand>,
    /// Deadline for orders in progress, once the host has to end.
    ending: Option<Moment>,
    peer_log: PeerLog,
    drops: ReceiveDrops,
    /// Schedule of drift checks.
    drift_schedule: DriftSchedule,
    /// Trees whose gate was closed at the last look.
    closed: BTreeSet<TreeName>,
    /// Time of the next look at the gates.
    gates_due: Moment,
    /// Time of the next look for staged releases that are over.
    sweep_due: Moment,
    /// Channel for pulls of other hosts.
    pulls: Option<SyncSender<(SocketAddr, Pull)>>,
}

impl HostLoop {
    /// Joins the group under the host's name.
    pub fn start(
        network: impl Into<GroupLinks>,
        host: Arc<LocalHost>,
    ) -> Result<(Self, HostHandle)> {
        let clock = Clock::start();
        let network = network.into();
        let sealed = !network.keys.is_empty();
        let key = host.key()?;
        if let Some(public) = key.identity().public() {
            tracing::info!("host key {}", public.fingerprint());
        }

        let network = GroupLinks {
            traffic: Arc::clone(&host.figures.traffic),
            ..network
        };
        let endpoint = GroupEndpoint::of(network, key.instance())?;
        let answers = QueryAnswers::new(host.name.clone(), Arc::clone(&host), endpoint.waker())?;
        let instance = key.instance();
        let setup = setup_of(&host, &endpoint, key, sealed);

        let (reply_to, replies) = channel();
        let (command_to, commands) = channel();
        let waker = endpoint.waker();
        let handle = HostHandle::new(command_to, waker, instance, Arc::clone(&host));

        let drift_schedule = DriftSchedule::new(clock.now(), host.trees.iter());
        let strange: Vec<_> = host
            .trees
            .iter()
            .filter(|(_, m)| m.tree.is_strange())
            .map(|(n, _)| n.clone())
            .collect();

        let mut disk = Disk::new(Arc::clone(&host), reply_to, endpoint.waker())?;
        // The recorded state of such a tree is not reported without a check.
        strange.iter().for_each(|name| disk.check_drift(name));
        let mut machine = Receiver::new(clock.now(), setup);
        for (name, managed) in host.trees.iter() {
            rest(&mut machine, clock.now(), name, managed);
        }
        let drops = ReceiveDrops::new(clock.now());
        let peer_log = PeerLog::new(clock.now());
        let began = clock.now();
        let running = Self {
            host,
            endpoint,
            clock,
            machine,
            disk,
            replies,
            answers,
            commands,
            ending: None,
            peer_log,
            drops,
            drift_schedule,
            closed: BTreeSet::new(),
            gates_due: began,
            sweep_due: began + STAGED_SWEEP_INTERVAL,
            pulls: None,
        };

        Ok((running, handle))
    }

    /// Returns the channel of pulls: releases of this host that others lack.
    pub fn pulls(&mut self) -> Inbox<(SocketAddr, Pull)> {
        let (outbox, inbox) = sync_channel(MAX_WAITING_PULLS);
        self.pulls = Some(outbox);
        inbox
    }

    /// Runs until the command to stop.
    pub fn run(mut self) -> Result<()> {
        loop {
            while let Ok(reply) = self.replies.try_recv() {
                self.machine.handle_reply(self.clock.now(), reply);
            }

            while let Ok(command) = self.commands.try_recv() {
                self.carry_out(command);
            }

            let now = self.clock.now();
            if self.may_leave(now) {
                return self.leave();
            }

            self.run_timers(now);
            let links = self.endpoint.links();
            self.answers.work(now, &mut self.machine, links);
            self.drain();

            self.wait()?;
            self.endpoint.set_second_hop(self.machine.is_second_hop());
            let machine = &mut self.machine;
            let clock = &self.clock;
            self.endpoint.receive_and_relay(|datagram| {
                let arrival = datagram
                    .stamp
                    .unwrap_or_else(clock::since_epoch)
                    .as_micros() as u64;
                let from = (datagram.from, datagram.is_peer);
                machine.handle_datagram(clock.now(), from, datagram.bytes, arrival)
            });
        }
    }

    fn run_timers(&mut self, now: Moment) {
        if let Some(total) = self.drops.poll(now, self.endpoint.links()) {
            self.machine.set_dropped(total);
            self.host.figures.receive_drops.set(total);
        }

        self.machine.set_copies(self.endpoint.distant());
        self.machine.set_relay_load(self.endpoint.take_relay_load());
        for host in self.endpoint.take_new_peers() {
            self.machine.meet(host);
        }

        for host in self.endpoint.take_gone_peers() {
            self.machine.on_gone(host);
        }

        self.count();
        self.report_unheard(now);
        while let Some(tree) = self.drift_schedule.poll(now) {
            self.disk.check_drift(&tree);
        }

        if self.gates_due <= now {
            self.gates_due = now + GATE_INTERVAL;
            self.look_at_gates(now);
        }

        if self.sweep_due <= now {
            self.sweep_due = now + STAGED_SWEEP_INTERVAL;
            self.disk.sweep_staged();
        }

        if self.machine.poll_timeout(now) <= now {
            self.machine.handle_timeout(now);
        }
    }

    /// Lets trees catch up whose gate has opened. Only trees that can close are looked at.
    fn look_at_gates(&mut self, now: Moment) {
        let wall = clock::wall_seconds();
        let is_closed = |managed: &ManagedTree| ClosedGate::of(managed, wall).is_some();
        let trees = self.host.trees.iter();
        let closed: BTreeSet<TreeName> = trees
            .filter(|(_, managed)| is_closed(managed))
            .map(|(name, _)| name.clone())
            .collect();

        for tree in std::mem::replace(&mut self.closed, closed) {
            if !self.closed.contains(&tree) {
                tracing::info!("tree {tree}: commits releases again");
                self.machine.handle_reply(now, DiskReply::Resumes(tree));
            }
        }
    }

    /// Updates the figures of the machine and of the links.
    fn count(&mut self) {
        let figures = &self.host.figures;
        let symbols = self.machine.take_symbol_counts();
        figures.symbols_lost.add(symbols.lost);
        figures.repair_symbols.add(symbols.repairs);
        figures.members.set(self.machine.members().len() as u64);
        let buffer = self.endpoint.links().recv_buffer();
        figures.receive_buffer.set(buffer as u64);
    }

    fn wait(&mut self) -> Result<()> {
        let now = self.clock.now();
        let due = self
            .drift_schedule
            .timeout()
            .into_iter()
            .chain([self.machine.poll_timeout(now), self.sweep_due])
            .min();

        let wait = due.unwrap_or(now).since(now);
        let wait = match self.closed.is_empty() {
            true => wait,
            false => wait.min(GATE_INTERVAL),
        };
        let wait = match self.ending {
            Some(_) => wait.min(END_POLL_INTERVAL),
            None => wait,
        };

        self.endpoint.wait(Some(wait))
    }

    /// Returns whether the host has to end and no order is in progress, so each sender learns the
    /// outcome of a commit.
    fn may_leave(&mut self, now: Moment) -> bool {
        let Some(limit) = self.ending else {
            return false;
        };

        let (ordering, unheard) = self.machine.orders();
        if !ordering {
            self.ending = Some(limit.min(now + ACK_TIMEOUT));
        }

        !(ordering || unheard) || limit <= now
    }

    fn drain(&mut self) {
        let machine = &mut self.machine;
        self.endpoint.flush(|out| machine.poll_transmit(out));
        if let Some(trouble) = self.endpoint.take_warning() {
            tracing::warn!("{trouble}");
        }

        while let Some(request) = self.machine.poll_request() {
            self.disk.request(request);
        }

        while let Some(pull) = self.machine.poll_pull() {
            // Without a serving thread pulls are dropped; if the channel is full, the host pulls
            // again.
            if let Some(pulls) = &self.pulls {
                let _ = pulls.try_send(pull);
            }
        }

        while let Some(notice) = self.machine.poll_notice() {
            let now = self.clock.now();
            if let HostNotice::Over {
                stage,
                is_audit,
                lasted,
            } = &notice
            {
                let end = SessionEnd::of_stage(*stage, *is_audit);
                let figures = &self.host.figures;
                figures.on_session(SessionRole::Receiver, end, *lasted);
            }
            self.answers.note(now, &notice);
            self.peer_log.on_notice(now, &notice);
        }
    }

    /// Reports peers whose datagrams do not open, in the log and in beacons.
    fn report_unheard(&mut self, now: Moment) {
        if !self.peer_log.begin_unheard(now) {
            return;
        }

        for stranger in self.endpoint.take_new_unheard() {
            self.peer_log.on_stranger(now, stranger);
        }

        let plain = self
            .endpoint
            .unheard()
            .recent(clock::since_epoch())
            .filter(|s| s.kind == OpenError::Plain);

        self.machine.set_unheard(plain.map(|s| s.address));
    }

    fn leave(mut self) -> Result<()> {
        self.machine.leave();
        self.drain();
        Ok(())
    }
}

/// Setup of the machine for `host` with `key`; `sealed` is set on a network with a group key.
fn setup_of(host: &LocalHost, endpoint: &GroupEndpoint, key: HostKey, sealed: bool) -> HostSetup {
    // Half of the receive buffer: the kernel accounts as much again for bookkeeping.
    let window = u32::try_from(endpoint.links().recv_buffer() / 4).unwrap_or(u32::MAX);
    let trust = if endpoint.is_sealed() {
        Trust::Proven
    } else {
        Trust::Twice
    };

    let trees = HostTrees {
        states: host.states(),
        takes: trees_where(host, |m| m.catch_up.takes()),
        gives: trees_where(host, |m| m.catch_up.gives(sealed)),
        tombstones: host.tombstones(),
        shown: host.shown(),
        headers: host.headers(),
    };

    HostSetup {
        host: SessionHost {
            name: host.name.clone(),
            labels: host.labels(),
            key,
            patience: SENDER_TIMEOUT,
            window,
        },
        trees,
        trust,
        seed: clock::seed(),
        datagram: endpoint.datagram(),
        room: endpoint.room(),
    }
}

/// Tells the machine which releases of a tree rest after a failure.
fn rest(machine: &mut Receiver, now: Moment, name: &TreeName, managed: &ManagedTree) {
    for (release, pause) in managed.failures.pauses() {
        machine.handle_reply(now, DiskReply::Rests(name.clone(), release, pause));
    }
}

/// Names of the host's trees with a property.
fn trees_where(
    host: &LocalHost,
    has_property: impl Fn(&ManagedTree) -> bool,
) -> BTreeSet<TreeName> {
    host.trees
        .iter()
        .filter(|(_, managed)| has_property(managed))
        .map(|(name, _)| name.clone())
        .collect()
}
