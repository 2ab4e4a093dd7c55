//! The sender of a session: its process, its address, and the evidence of its presence.

use std::net::SocketAddr;
use std::time::Duration;

use crate::id::{HostName, InstanceId, Nonce};
use crate::proto::receiver::proof::Proof;
use crate::units::Moment;

/// Silence after which a sender heard from another address counts as moved.
const MOVE_SILENCE: Duration = Duration::from_secs(2);

/// A session's sender.
#[derive(Debug)]
pub struct SenderPeer {
    instance: InstanceId,
    address: SocketAddr,
    name: HostName,
    /// Last message from the current address.
    address_heard: Moment,
    /// Evidence of the sender's presence.
    proof: Proof,
    /// Last sign of life.
    last_heard: Moment,
    /// Number of hosts in the session.
    hosts: u32,
}

impl SenderPeer {
    /// Describes the sender of an announcement to `hosts` hosts.
    pub(super) fn new(
        now: Moment,
        instance: InstanceId,
        address: SocketAddr,
        name: HostName,
        proof: Proof,
        hosts: u32,
    ) -> Self {
        Self {
            instance,
            address,
            name,
            address_heard: now,
            proof,
            last_heard: now,
            hosts,
        }
    }

    /// Returns the sender's current address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the sender's host name.
    pub(super) fn name(&self) -> &HostName {
        &self.name
    }

    /// Returns the number of hosts in the session.
    pub(super) fn hosts(&self) -> u32 {
        self.hosts
    }

    /// Sets the number of hosts in the session.
    pub(super) fn set_hosts(&mut self, hosts: u32) {
        self.hosts = hosts;
    }

    /// Returns true if `instance` is the sender's process.
    pub fn is(&self, instance: InstanceId) -> bool {
        self.instance == instance
    }

    /// Returns true if a message of the process `instance` from address `from` belongs to the
    /// sender. Another address is accepted only after [`MOVE_SILENCE`].
    pub(super) fn accepts(&mut self, now: Moment, instance: InstanceId, from: SocketAddr) -> bool {
        let moved = from.ip() != self.address.ip();
        if self.instance != instance || (moved && now.since(self.address_heard) < MOVE_SILENCE) {
            return false;
        }

        if moved {
            self.address = from;
        }

        self.address_heard = now;
        true
    }

    /// Counts a message as a sign of life if its counter is higher than all before. Data is no sign
    /// of life: replayed data is as good as new.
    pub(super) fn on_message(&mut self, now: Moment, counter: u64) {
        if self.proof.on_counter(counter) {
            self.last_heard = now;
        }
    }

    /// Handles an echoed nonce. Returns true for the first proof of presence.
    pub(super) fn on_echo(&mut self, now: Moment, echo: Option<Nonce>) -> bool {
        self.proof.on_echo(now, echo)
    }

    /// Returns the nonce to echo, if a new proof is due.
    pub(super) fn nonce_to_echo(&self, now: Moment) -> Option<Nonce> {
        self.proof.nonce_to_echo(now)
    }

    /// Returns true if commit orders may be executed.
    pub(super) fn may_order(&self) -> bool {
        self.proof.may_order()
    }

    /// Returns the time since the last sign of life.
    pub fn silent(&self, now: Moment) -> Duration {
        now.since(self.last_heard)
    }

    /// Returns the time of the last sign of life.
    pub(super) fn last_heard(&self) -> Moment {
        self.last_heard
    }

    /// Returns the time since the session began.
    pub fn age(&self, now: Moment) -> Duration {
        self.proof.age(now)
    }

    /// Returns true if the sender proved its presence recently.
    pub fn is_fresh(&self, now: Moment) -> bool {
        self.proof.is_fresh(now, self.hosts)
    }

    /// Returns true if the sender is present, or still has time to prove its presence.
    pub fn may_be_there(&self, now: Moment) -> bool {
        self.is_fresh(now) || self.proof.has_time_left(now, self.hosts)
    }

    /// Returns true if the sender had time to prove its presence and never did.
    pub fn is_ghost(&self, now: Moment) -> bool {
        !self.proof.was_proved() && !self.proof.has_time_left(now, self.hosts)
    }
}
