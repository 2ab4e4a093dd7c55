//! Queue of a host's messages to its sender, each retransmitted until acknowledged, one in each
//! slot of the host.

use std::collections::VecDeque;
use std::time::Duration;

use crate::units::Moment;
use crate::wire::Message;

/// First wait for an acknowledgement; doubled at each retransmission.
const FIRST_RETRANSMIT: Duration = Duration::from_millis(40);
/// Longest wait for an acknowledgement.
const MAX_RETRANSMIT: Duration = Duration::from_secs(2);
/// Bound on unacknowledged messages in flight; later ones wait.
const MAX_IN_FLIGHT: usize = 8;

#[derive(Debug)]
struct PendingMessage {
    number: u32,
    message: Message,
    due: Moment,
    wait: Duration,
    /// Set once the message was sent.
    sent: bool,
}

/// Unacknowledged messages, in order.
#[derive(Debug, Default)]
pub struct RetransmitQueue {
    pending: VecDeque<PendingMessage>,
    last: u32,
    /// Interval between the host's slots. Zero lifts the limit.
    slot_interval: Duration,
    /// Offset of the slot within the interval, from 0 to 1; random for every host.
    slot_offset: f64,
    /// Earliest time of the next message.
    not_before: Moment,
    /// Set once any message was sent.
    sent_any: bool,
}

impl RetransmitQueue {
    /// Creates a queue with slots at `slot_offset` (0 to 1) of every `slot_interval`.
    pub fn new(slot_offset: f64, slot_interval: Duration) -> Self {
        Self {
            slot_offset,
            slot_interval,
            ..Self::default()
        }
    }

    /// Sets the interval between slots after a change in fleet size.
    pub fn set_slot_interval(&mut self, slot_interval: Duration) {
        self.slot_interval = slot_interval;
    }

    /// Returns the first slot from `at` on.
    fn slot_after(&self, at: Moment) -> Moment {
        let at = at.max(self.not_before);
        let slot_interval = self.slot_interval.as_nanos() as u64;
        if slot_interval == 0 {
            return at;
        }

        let slot_offset = (slot_interval as f64 * self.slot_offset) as u64;
        Moment(
            at.0.saturating_sub(slot_offset)
                .div_ceil(slot_interval)
                .saturating_mul(slot_interval)
                .saturating_add(slot_offset),
        )
    }

    /// Returns the number of the next message.
    pub fn next_number(&mut self) -> u32 {
        self.last += 1;
        self.last
    }

    /// Sends `message` from `due` on, until `number` is acknowledged.
    pub fn push(&mut self, number: u32, message: Message, due: Moment) {
        self.pending.push_back(PendingMessage {
            number,
            message,
            due,
            wait: FIRST_RETRANSMIT,
            sent: false,
        });
    }

    /// Like [`RetransmitQueue::push`], but ahead of the first message that matches `later`.
    pub fn push_before(
        &mut self,
        later: impl Fn(&Message) -> bool,
        number: u32,
        message: Message,
        due: Moment,
    ) {
        let at = self
            .pending
            .iter()
            .position(|p| later(&p.message))
            .unwrap_or(self.pending.len());
        self.pending.insert(
            at,
            PendingMessage {
                number,
                message,
                due,
                wait: FIRST_RETRANSMIT,
                sent: false,
            },
        );
    }

    /// Earliest due time of the unsent messages that match `such`.
    pub fn first_unsent(&self, such: impl Fn(&Message) -> bool) -> Option<Moment> {
        self.pending
            .iter()
            .filter(|p| !p.sent && such(&p.message))
            .map(|p| p.due)
            .min()
    }

    /// Returns whether any message was sent yet.
    pub fn has_sent(&self) -> bool {
        self.sent_any
    }

    /// Removes messages that have become needless.
    pub fn remove_if(&mut self, needless: impl Fn(&Message) -> bool) {
        self.pending.retain(|p| !needless(&p.message));
    }

    /// Removes every message, once all are out of date.
    pub fn clear(&mut self) {
        self.pending.clear();
    }

    /// Returns true when no message waits.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Removes an acknowledged message.
    pub fn on_ack(&mut self, number: u32) {
        self.pending.retain(|p| p.number != number);
    }

    /// Returns the next due message if the host's slot has come. The next retransmission follows
    /// after the message's wait, stretched by `jitter` (0 to 1).
    pub fn poll(&mut self, now: Moment, jitter: f64) -> Option<&Message> {
        let at = self
            .pending
            .iter()
            .take(MAX_IN_FLIGHT)
            .position(|p| self.slot_after(p.due) <= now)?;
        let pending = &mut self.pending[at];
        if !self.slot_interval.is_zero() {
            self.not_before = now + self.slot_interval / 2;
        }

        pending.due = now + pending.wait.mul_f64(0.75 + jitter / 2.0);
        pending.wait = (pending.wait * 2).min(MAX_RETRANSMIT);
        pending.sent = true;
        self.sent_any = true;

        Some(&pending.message)
    }

    /// Time of the next due message.
    pub fn timeout(&self) -> Option<Moment> {
        self.pending
            .iter()
            .take(MAX_IN_FLIGHT)
            .map(|p| self.slot_after(p.due))
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::SessionId;

    #[test]
    fn a_message_is_repeated_ever_more_slowly_until_acknowledged() {
        let mut queue = RetransmitQueue::default();
        let number = queue.next_number();
        queue.push(number, Message::Solicit(None, None), Moment(0));
        let mut sent = Vec::new();
        let mut now = Moment(0);

        while sent.len() < 8 {
            while queue.poll(now, 0.5).is_some() {
                sent.push(now);
            }
            now = queue.timeout().expect("not acknowledged");
        }

        let gaps: Vec<u128> = sent
            .windows(2)
            .map(|w| w[1].since(w[0]).as_millis())
            .collect();
        assert_eq!(gaps, [40, 80, 160, 320, 640, 1280, 2000]);
        queue.on_ack(number);

        assert!(queue.is_empty() && queue.timeout().is_none());
    }

    #[test]
    fn one_message_is_said_in_a_turn_and_the_urgent_one_first() {
        let at = |ms: u64| Moment(1_000_000_000) + Duration::from_millis(ms);
        let mut queue = RetransmitQueue::new(0.25, Duration::from_millis(200));
        let is_solicit = |m: &Message| matches!(m, Message::Solicit(..));
        queue.push(1, Message::Solicit(None, None), at(0));
        queue.push_before(is_solicit, 2, Message::Ack(SessionId(1), 2, None), at(0));
        assert_eq!(
            (queue.timeout(), queue.first_unsent(is_solicit)),
            (Some(at(50)), Some(at(0)))
        );

        assert_eq!(queue.poll(at(49), 0.5), None);
        assert!(matches!(queue.poll(at(51), 0.5), Some(Message::Ack(..))));
        assert_eq!(queue.poll(at(51), 0.5), None);
        assert_eq!(queue.timeout(), Some(at(250)));
        queue.on_ack(2);
        assert!(queue.poll(at(250), 0.5).is_some_and(is_solicit));
        assert_eq!(
            (queue.timeout(), queue.first_unsent(is_solicit)),
            (Some(at(450)), None)
        );

        queue.set_slot_interval(Duration::ZERO);
        assert_eq!(
            queue.timeout(),
            Some(at(350)),
            "not before half an interval"
        );
    }
}
