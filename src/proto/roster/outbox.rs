//! Messages that wait to be sent, and the share of each proven address in the answers.
//!
//! A process that proved its address may flood this one while sends are blocked. Answers beyond the
//! limits are dropped: a process that gets none pings again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::peer::{MAX_PEER_LISTS, MAX_PEERS};
use crate::units::Moment;
use crate::wire::peer::{PeerMessage, Ping};

/// Largest number of answers that wait to be sent.
pub(super) const MAX_WAITING: usize = 256;
/// Time in which the shares start over.
pub(super) const SHARE_PERIOD: Duration = Duration::from_secs(1);
/// Answers to one proven address in [`SHARE_PERIOD`].
pub(super) const MAX_PEER_ANSWERS: u32 = 16;
/// Changes of the facts at one address in [`SHARE_PERIOD`]: each makes the lists anew.
pub(super) const MAX_PEER_CHANGES: u32 = 4;

/// Messages to be sent.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    messages: Vec<(SocketAddr, PeerMessage)>,
    /// Answers among the messages.
    answers: usize,
    /// A ping to the group, which is sent first: answers to it say who hears it.
    group_ping: Option<Ping>,
}

impl Outbox {
    /// Adds a message that this process sends of its own accord.
    pub(super) fn push(&mut self, to: SocketAddr, message: PeerMessage) {
        self.messages.push((to, message));
    }

    /// Adds an answer, if there is room.
    pub(super) fn push_answer(&mut self, to: SocketAddr, message: PeerMessage) {
        if self.takes_answers() {
            self.answers += 1;
            self.messages.push((to, message));
        }
    }

    /// Returns whether there is room for an answer.
    pub(super) fn takes_answers(&self) -> bool {
        self.answers < MAX_WAITING
    }

    /// Sets the ping to the group.
    pub(super) fn set_group_ping(&mut self, ping: Ping) {
        self.group_ping = Some(ping);
    }

    /// Takes the next message; one without address is for the group.
    pub(super) fn pop(&mut self) -> Option<(Option<SocketAddr>, PeerMessage)> {
        if let Some(ping) = self.group_ping.take() {
            return Some((None, PeerMessage::Ping(ping)));
        }

        let (to, message) = self.messages.pop()?;
        if matches!(message, PeerMessage::Pong(_)) {
            self.answers = self.answers.saturating_sub(1);
        }
        Some((Some(to), message))
    }

    /// Returns whether no message to an address waits.
    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Number of the messages to an address that wait.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }
}

/// Datagrams and changes that proven addresses caused in this period.
#[derive(Debug)]
pub(super) struct Shares {
    since: Moment,
    used: BTreeMap<SocketAddr, Share>,
}

/// Datagrams and changes that one address caused.
#[derive(Debug, Default)]
struct Share {
    answers: u32,
    lists: u32,
    pings: u32,
    changes: u32,
}

impl Shares {
    /// Creates unused shares.
    pub(super) fn new(now: Moment) -> Self {
        Self {
            since: now,
            used: BTreeMap::new(),
        }
    }

    /// Returns whether `to` may get one more answer.
    pub(super) fn spend_answer(&mut self, now: Moment, to: SocketAddr) -> bool {
        let share = self.of(now, to);
        share.is_some_and(|share| spend(&mut share.answers, MAX_PEER_ANSWERS))
    }

    /// Returns whether `to` may get one more list: as many as a process asks for in a row.
    pub(super) fn spend_list(&mut self, now: Moment, to: SocketAddr) -> bool {
        let share = self.of(now, to);
        share.is_some_and(|share| spend(&mut share.lists, MAX_PEER_LISTS))
    }

    /// Returns whether `to` may be pinged before the time.
    pub(super) fn spend_ping(&mut self, now: Moment, to: SocketAddr) -> bool {
        let share = self.of(now, to);
        share.is_some_and(|share| spend(&mut share.pings, 1))
    }

    /// Returns whether the facts at `from` may change once more.
    pub(super) fn spend_change(&mut self, now: Moment, from: SocketAddr) -> bool {
        let share = self.of(now, from);
        share.is_some_and(|share| spend(&mut share.changes, MAX_PEER_CHANGES))
    }

    fn of(&mut self, now: Moment, address: SocketAddr) -> Option<&mut Share> {
        if now.since(self.since) >= SHARE_PERIOD {
            *self = Self::new(now);
        }
        let has_room = self.used.len() < MAX_PEERS || self.used.contains_key(&address);
        has_room.then(|| self.used.entry(address).or_default())
    }
}

/// Counts one use; returns whether it is within `most`.
fn spend(used: &mut u32, most: u32) -> bool {
    *used = used.saturating_add(1);
    *used <= most
}
