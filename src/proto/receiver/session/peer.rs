//! Addresses of a session: the sender's own, and the sources of its data.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::id::InstanceId;
use crate::units::Moment;

/// Silence after which a sender heard from another address counts as moved.
const MOVE_SILENCE: Duration = Duration::from_secs(2);
/// Largest number of remembered data source addresses.
const MAX_SOURCE_ADDRESSES: usize = 4;

/// Process and address of a session's sender.
#[derive(Debug)]
pub(super) struct SenderPeer {
    instance: InstanceId,
    address: SocketAddr,
    /// Last message from the current address.
    last_heard: Moment,
}

impl SenderPeer {
    /// Describes the sender of an announcement.
    pub(super) fn new(now: Moment, instance: InstanceId, address: SocketAddr) -> Self {
        Self {
            instance,
            address,
            last_heard: now,
        }
    }

    /// Returns the sender's current address.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns true if `instance` is the sender's process.
    pub(super) fn is(&self, instance: InstanceId) -> bool {
        self.instance == instance
    }

    /// Returns true if a message of the process `instance` from address `from` belongs to the
    /// sender. Another address is accepted only after [`MOVE_SILENCE`].
    pub(super) fn accepts(&mut self, now: Moment, instance: InstanceId, from: SocketAddr) -> bool {
        let moved = from.ip() != self.address.ip();
        if self.instance != instance || (moved && now.since(self.last_heard) < MOVE_SILENCE) {
            return false;
        }

        if moved {
            self.address = from;
        }

        self.last_heard = now;
        true
    }
}

/// Sources of a session's data.
#[derive(Debug, Default)]
pub(super) struct DataSources {
    /// Claimed addresses, at most [`MAX_SOURCE_ADDRESSES`].
    addresses: Vec<IpAddr>,
    /// Set after invalid data: only data from the announced sender's address is accepted.
    sender_address_only: bool,
}

impl DataSources {
    /// Returns true if data from `from` is accepted: from any address, until some of it was
    /// invalid.
    pub(super) fn accept(&mut self, from: IpAddr, sender: SocketAddr) -> bool {
        if !self.addresses.contains(&from) && self.addresses.len() < MAX_SOURCE_ADDRESSES {
            self.addresses.push(from);
        }

        !self.sender_address_only || from == sender.ip()
    }

    /// Restricts the sources after invalid data, which by its address may come from a third party.
    /// Returns all addresses so far.
    pub(super) fn restrict(&mut self, sender: SocketAddr) -> Vec<IpAddr> {
        self.sender_address_only |= self.addresses.contains(&sender.ip());
        self.addresses.clone()
    }
}
