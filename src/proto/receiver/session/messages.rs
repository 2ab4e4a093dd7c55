//! Messages of a session to its sender: states and wants until acknowledged, and heartbeats.

use crate::proto::retransmit::RetransmitQueue;
use crate::proto::{alive_interval, slot_interval};
use crate::units::Moment;
use crate::wire::Message;
use crate::wire::message::{MAX_RANGES, Ranges, StageReport, WantList};

/// Largest number of ranges in one message: small enough for cheap retransmission, large enough
/// to fit most lists into one message.
const MAX_MESSAGE_RANGES: usize = MAX_RANGES / 4;

/// Unacknowledged messages and the time of the next heartbeat.
#[derive(Debug)]
pub(super) struct SenderMessages {
    queue: RetransmitQueue,
    /// Due time of the next heartbeat.
    alive_at: Moment,
}

impl SenderMessages {
    /// Starts a session with `hosts` hosts; `slot_offset` is this host's place in a slot, from 0
    /// to 1.
    pub(super) fn new(now: Moment, hosts: u32, slot_offset: f64) -> Self {
        Self {
            queue: RetransmitQueue::new(slot_offset, slot_interval(hosts)),
            alive_at: now + alive_interval(hosts),
        }
    }

    /// Sets the number of hosts in the session.
    pub(super) fn set_hosts(&mut self, hosts: u32) {
        self.queue.set_slot_interval(slot_interval(hosts));
    }

    /// Removes an acknowledged message.
    pub(super) fn on_ack(&mut self, number: u32) {
        self.queue.on_ack(number);
    }

    /// Returns true if every message is acknowledged.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Drops all messages.
    pub(super) fn clear(&mut self) {
        self.queue.clear();
    }

    /// Queues a state, built from its due time and number, to be sent from `due` on.
    ///
    /// The new state replaces all queued ones and keeps the earliest of their due times.
    pub(super) fn queue_state(
        &mut self,
        due: Moment,
        build: impl FnOnce(Moment, u32) -> StageReport,
    ) {
        let is_state = |m: &Message| matches!(m, Message::State(_));
        let due = self
            .queue
            .first_unsent(is_state)
            .map_or(due, |unsaid| due.min(unsaid));

        self.queue.remove_if(is_state);
        let number = self.queue.next_number();
        let state = build(due, number);
        self.queue.push(number, Message::State(state), due);
    }

    /// Queues `want`, in messages of bounded size, to be sent from `due` on.
    ///
    /// A want implies the stage, so it goes before states. The sender ignores wants of hosts it
    /// does not know. A catch-up sender (`granted`) knows no host at first, so there the first
    /// state goes before the first want.
    pub(super) fn queue_wants(&mut self, due: Moment, want: &WantList, granted: bool) {
        self.drop_wants();

        let mut chunks = want.ranges.0.chunks(MAX_MESSAGE_RANGES).peekable();
        while let Some(chunk) = chunks.next() {
            let number = self.queue.next_number();
            let want = Message::Want(WantList {
                number,
                ranges: Ranges(chunk.to_vec()),
                more: chunks.peek().is_some(),
                ..*want
            });

            let may_come_first = !granted || self.queue.has_sent();
            let is_later = |m: &Message| may_come_first && matches!(m, Message::State(_));
            self.queue.push_before(is_later, number, want, due);
        }
    }

    /// Drops all requests of ordinals.
    pub(super) fn drop_wants(&mut self) {
        self.queue.remove_if(|m| matches!(m, Message::Want(_)));
    }

    /// Passes all due messages to `send`. Returns true if a heartbeat is due as well.
    pub(super) fn poll(
        &mut self,
        now: Moment,
        hosts: u32,
        rng: &mut fastrand::Rng,
        mut send: impl FnMut(&Message),
    ) -> bool {
        while let Some(message) = self.queue.poll(now, rng.f64()) {
            send(message);
            self.alive_at = next_heartbeat(now, hosts, rng);
        }

        if self.alive_at > now {
            return false;
        }

        self.alive_at = next_heartbeat(now, hosts, rng);
        true
    }

    /// Returns the due time of the next message or heartbeat.
    pub(super) fn timeout(&self) -> Moment {
        self.queue
            .timeout()
            .map_or(self.alive_at, |due| due.min(self.alive_at))
    }
}

fn next_heartbeat(now: Moment, hosts: u32, rng: &mut fastrand::Rng) -> Moment {
    now + alive_interval(hosts).mul_f64(0.75 + rng.f64() / 2.0)
}
