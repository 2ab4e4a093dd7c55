//! The hosts of a session as the sender sees them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::id::{HostName, InstanceId, Serial};
use crate::proto::rate::Sample;
use crate::units::Moment;
use crate::wire::HostStage;
use crate::wire::message::{Report, State, Summary};

/// The most hosts of one session.
const MAX_HOSTS: usize = 20_000;
/// A host whose last report is older than this does not hold the window.
const STALE: Duration = Duration::from_millis(200);
/// The window for hosts that have not reported yet, in bytes.
const FIRST_WINDOW: u64 = 256 << 10;

/// One host.
#[derive(Debug, Clone)]
pub struct Host {
    /// Its name.
    pub name: HostName,
    /// Where it is.
    pub address: SocketAddr,
    /// Its last word.
    pub heard: Moment,
    /// How far it is; `None` until it has answered the announcement.
    pub stage: Option<HostStage>,
    /// Why it refused or failed, or what it waits for.
    pub text: Option<String>,
    /// What it found.
    pub summary: Option<Summary>,
    /// Bytes that it has verified.
    pub received: u64,
    /// The highest serial that it accepted.
    pub serial: Serial,
    /// When its stage or its bytes last changed.
    pub progress: Moment,
    /// It has been silent for too long.
    pub lost: bool,
    /// It has asked for manifest nodes, for blocks.
    pub asked: (bool, bool),
    /// The largest datagram that is known to reach it, in bytes; none when it did not say.
    pub takes: Option<u16>,
    /// Packets that its receive buffer lost.
    pub dropped: u64,
    /// The number of the newest state that was heard.
    number: u32,
    report: Option<(Moment, Report)>,
    /// The share of datagrams that it loses, smoothed.
    loss: f64,
}

impl Host {
    /// Whether it is settled before the decision: ready, out, or lost.
    pub fn is_settled(&self, audit: bool) -> bool {
        let done = if audit { HostStage::Staging } else { HostStage::Ready };
        self.lost || self.stage.is_some_and(|s| s >= done)
    }

    /// Whether it can commit, or has.
    pub fn is_good(&self, audit: bool) -> bool {
        match self.stage {
            Some(HostStage::Ready | HostStage::Committed) => !self.lost,
            Some(HostStage::Staging) => audit && !self.lost,
            _ => false,
        }
    }

    /// Whether an order has had its effect, or will have none.
    pub fn has_answered(&self) -> bool {
        self.lost || self.stage.is_some_and(|s| s > HostStage::Ready)
    }
}

/// All hosts of a session.
#[derive(Debug, Default)]
pub struct Hosts {
    hosts: BTreeMap<InstanceId, Host>,
}

impl Hosts {
    /// A target that discovery has found.
    pub fn expect(&mut self, now: Moment, instance: InstanceId, name: HostName, address: SocketAddr, serial: Serial) {
        if self.hosts.len() < MAX_HOSTS {
            self.hosts.entry(instance).or_insert_with(|| Host {
                name,
                address,
                heard: now,
                stage: None,
                text: None,
                summary: None,
                received: 0,
                serial,
                progress: now,
                lost: false,
                asked: (false, false),
                takes: None,
                dropped: 0,
                number: 0,
                report: None,
                loss: 0.0,
            });
        }
    }

    /// Takes a host's word about itself; says whether its stage changed.
    pub fn state(&mut self, now: Moment, instance: InstanceId, from: SocketAddr, state: State) -> bool {
        // A daemon that was restarted has a new instance: its old self will not answer any more.
        self.hosts.retain(|id, h| *id == instance || h.name != state.name || h.address.ip() != from.ip());
        self.expect(now, instance, state.name.clone(), from, state.serial);
        let Some(host) = self.hosts.get_mut(&instance) else { return false };
        host.heard = now;
        host.dropped = host.dropped.max(state.dropped.unwrap_or(0));
        if host.lost {
            (host.lost, host.progress) = (false, now);
        }
        // Messages overtake each other: a stage never goes back, but for the ends that exclude each other.
        let newer = state.number >= host.number || state.number == 0;
        if !newer || host.stage.is_some_and(|s| s > state.stage) {
            return false;
        }
        host.number = host.number.max(state.number);
        let changed = host.stage != Some(state.stage);
        if changed || host.received != state.received {
            host.progress = now;
        }
        host.stage = Some(state.stage);
        host.text = state.text;
        host.summary = state.summary.or(host.summary);
        host.received = host.received.max(state.received);
        host.serial = host.serial.max(state.serial);
        changed
    }

    /// The host that the smallest datagrams reach, and how large they may be, of those that said so.
    pub fn narrowest(&self) -> Option<(&HostName, u16)> {
        let told = self.hosts.values().filter(|h| !h.lost).filter_map(|h| Some((&h.name, h.takes?)));
        told.min_by_key(|(_, takes)| *takes)
    }

    /// The session begins now: what was heard before says nothing about who is silent in it.
    pub fn begin(&mut self, now: Moment) {
        for host in self.hosts.values_mut().filter(|h| !h.lost) {
            (host.heard, host.progress) = (now, now);
        }
    }

    /// A host said goodbye.
    pub fn left(&mut self, instance: InstanceId) -> bool {
        let Some(host) = self.hosts.get_mut(&instance) else { return false };
        let active = !host.lost && !host.has_answered();
        host.lost = host.lost || active;
        active
    }

    /// Takes a report; gives what was measured since the one before. A time in which the sender had nothing to send
    /// says nothing about the link: `idle` is the counter at which it had nothing last.
    pub fn report(&mut self, now: Moment, instance: InstanceId, report: Report, idle: u64) -> Option<Sample> {
        let host = self.hosts.get_mut(&instance)?;
        host.heard = now;
        let before = host.report.replace((now, report));
        let (_, last) = before?;
        let over = Duration::from_micros(report.at.checked_sub(last.at).filter(|&t| t > 0)?);
        let expected = report.seen.checked_sub(last.seen).filter(|&n| n > 0 && last.seen > idle)?;
        let got = report.datagrams.saturating_sub(last.datagrams);
        // A lost train is thirty datagrams in a row: one report says little about the share.
        host.loss = host.loss * 0.9 + (1.0 - (got as f64 / expected as f64).min(1.0)) * 0.1;
        Some(Sample {
            bytes: report.bytes.saturating_sub(last.bytes),
            over,
            loss: host.loss,
            delay: Duration::from_micros(u64::from(report.delay)),
        })
    }

    /// How many more bytes may be under way, by the slowest host that reports; `segment` is the size of a datagram and
    /// `counter` the last one sent.
    pub fn window(&self, now: Moment, counter: u64, segment: usize) -> u64 {
        let flight = |seen: u64| counter.saturating_sub(seen) * segment as u64;
        let fresh = self.hosts.values().filter_map(|h| h.report).filter(|(at, _)| now.since(*at) < STALE);
        let room = fresh.map(|(_, r)| {
            let window = u64::from(r.window).clamp(64 << 10, 8 << 20);
            window.saturating_sub(flight(r.seen)).min((4 * window).saturating_sub(r.backlog))
        });
        match room.min() {
            Some(room) => room,
            // Nobody has reported yet: a first window. Nobody reports any more: the pace alone decides.
            None if counter as usize * segment < FIRST_WINDOW as usize => FIRST_WINDOW - flight(0),
            None => self.stalled(now),
        }
    }

    /// Without fresh reports a little goes out from time to time, so that reports can come.
    fn stalled(&self, now: Moment) -> u64 {
        let last = self.hosts.values().filter_map(|h| h.report).map(|(at, _)| at).max();
        if last.is_none_or(|at| now.since(at) >= STALE) { FIRST_WINDOW } else { 0 }
    }

    /// Marks hosts that were silent for `patience`, or alive without any progress before they were ready for `stuck`;
    /// gives those that are newly lost.
    pub fn expire(&mut self, now: Moment, patience: Duration, stuck: Duration) -> Vec<HostName> {
        let silent = |h: &&mut Host| {
            let stuck = h.stage < Some(HostStage::Ready) && now.since(h.progress) >= stuck;
            !h.lost && !h.has_answered() && (now.since(h.heard) >= patience || stuck)
        };
        self.hosts
            .values_mut()
            .filter(silent)
            .map(|host| {
                host.lost = true;
                host.name.clone()
            })
            .collect()
    }

    /// When the next host would be lost.
    pub fn timeout(&self, patience: Duration, stuck: Duration) -> Option<Moment> {
        let due = |h: &Host| match h.stage {
            Some(HostStage::Ready) => h.heard + patience,
            _ => (h.heard + patience).min(h.progress + stuck),
        };
        self.hosts.values().filter(|h| !h.lost && !h.has_answered()).map(due).min()
    }

    /// The hosts.
    pub fn iter(&self) -> impl Iterator<Item = (&InstanceId, &Host)> {
        self.hosts.iter()
    }

    /// One host.
    pub fn get_mut(&mut self, instance: InstanceId) -> Option<&mut Host> {
        self.hosts.get_mut(&instance)
    }

    /// One host.
    pub fn get(&self, instance: InstanceId) -> Option<&Host> {
        self.hosts.get(&instance)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.hosts.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }
}
