//! Presence of the hosts: signs of life, beacons and goodbyes, and the scan for lost hosts.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Beacon, Host, Hosts};
use crate::id::{HostName, InstanceId};
use crate::units::Moment;
use crate::wire::HostStage;
use crate::wire::message::OrderKind;

/// Interval between scans for lost hosts and for a decision, if nothing happens.
const SWEEP_INTERVAL: Duration = Duration::from_millis(20);
/// Shortest interval between two scans, for each host beyond [`SWEEP_SMALL_FLEET`].
const SWEEP_PER_HOST: Duration = Duration::from_micros(1);
/// Largest fleet that is scanned at every change of a host.
const SWEEP_SMALL_FLEET: u32 = 64;

/// Patience with hosts that have not answered.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Tolerated silence.
    pub silent: Duration,
    /// Tolerated time without progress.
    pub stuck: Duration,
}

impl Hosts {
    /// Starts the session: earlier silence does not count.
    pub fn begin(&mut self, now: Moment) {
        for host in self.hosts.values_mut().filter(|h| !h.is_lost()) {
            host.begin(now);
        }
    }

    /// Takes a beacon, from a host of the session or from the daemon restarted in its place.
    /// Returns the instance concerned.
    pub fn on_beacon(
        &mut self,
        instance: InstanceId,
        name: &HostName,
        from: SocketAddr,
        has: bool,
    ) -> Option<InstanceId> {
        let restarted = !self.hosts.contains_key(&instance);
        let id = if restarted {
            *self.names.at(name, from.ip()).last()?
        } else {
            instance
        };

        let host = self
            .hosts
            .get_mut(&id)
            .filter(|host| host.address.ip() == from.ip())?;
        host.on_beacon(Beacon { restarted, has });

        Some(id)
    }

    /// Forgets the contents of earlier beacons.
    pub fn forget_beacons(&mut self) {
        self.hosts.values_mut().for_each(Host::forget_beacon);
    }

    /// Returns whether a beacon is of interest: from a host with a missing answer to `order` after
    /// a commit order, or from the daemon restarted in place of a host.
    pub fn awaits_beacon_from(
        &self,
        instance: InstanceId,
        name: &HostName,
        from: SocketAddr,
        order: OrderKind,
    ) -> bool {
        match self.hosts.get(&instance) {
            Some(host) => {
                host.ordered
                    && host.address.ip() == from.ip()
                    && (host.is_lost() || !host.has_answered(order))
            }
            None => !self.names.at(name, from.ip()).is_empty(),
        }
    }

    /// Takes a goodbye, perhaps without an answer to `order`, and returns whether the host is now
    /// lost.
    pub fn on_bye(&mut self, instance: InstanceId, order: OrderKind) -> bool {
        let is_lost = self
            .hosts
            .get_mut(&instance)
            .is_some_and(|host| host.on_bye(order));
        self.changed |= is_lost;
        is_lost
    }

    /// Returns whether the host has this address.
    pub fn is_at(&self, instance: InstanceId, from: SocketAddr) -> bool {
        self.hosts
            .get(&instance)
            .is_some_and(|host| host.address.ip() == from.ip())
    }

    /// Records a sign of life and the host's address, and returns whether to accept the message.
    pub fn on_sign_of_life(&mut self, now: Moment, instance: InstanceId, from: SocketAddr) -> bool {
        self.hosts
            .get_mut(&instance)
            .is_some_and(|host| host.on_sign_of_life(now, from))
    }

    /// Time of the next scan: soon after a change, but in a large fleet not at every message.
    pub fn sweep_due(&self) -> Moment {
        let least = SWEEP_PER_HOST * (self.hosts.len() as u32).saturating_sub(SWEEP_SMALL_FLEET);
        self.swept
            + if self.changed {
                least.min(SWEEP_INTERVAL)
            } else {
                SWEEP_INTERVAL
            }
    }

    /// Scans all hosts for lost ones, as [`Hosts::expire`] does.
    pub fn sweep(&mut self, now: Moment, patience: Patience, order: OrderKind) -> Vec<Host> {
        self.changed = false;
        self.swept = now;
        self.expire(now, patience, order)
    }

    /// Marks hosts without an answer to `order` as lost: after too much silence, or too long
    /// without progress before being ready. Returns the newly lost hosts.
    pub fn expire(&mut self, now: Moment, patience: Patience, order: OrderKind) -> Vec<Host> {
        let is_stuck =
            |h: &Host| h.stage < Some(HostStage::Ready) && now.since(h.progress) >= patience.stuck;
        let is_silent = |h: &Host| now.since(h.heard) >= patience.silent;
        let open = self.hosts.values_mut().filter(|h| !h.has_answered(order));
        open.filter(|h| is_silent(h) || is_stuck(h))
            .map(|host| {
                host.lose(!is_silent(host));
                host.clone()
            })
            .collect()
    }

    /// Marks hosts as lost that are not ready and were silent for `silence`, and returns those
    /// hosts.
    pub fn drop_silent(&mut self, now: Moment, silence: Duration) -> Vec<Host> {
        let is_silent = |h: &&mut Host| !h.is_settled(false) && now.since(h.heard) >= silence;
        let silent = self.hosts.values_mut().filter(is_silent);
        silent
            .map(|host| {
                host.lose(false);
                host.clone()
            })
            .collect()
    }
}
