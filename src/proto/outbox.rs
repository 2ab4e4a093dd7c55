//! Messages of a host to its sender that are repeated until acknowledged, one in each turn of the host.

use std::collections::VecDeque;
use std::time::Duration;

use crate::units::Moment;
use crate::wire::Message;

/// The first wait for an acknowledgement; doubled at each repetition.
const FIRST_WAIT: Duration = Duration::from_millis(40);
/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// Messages that may be under way unacknowledged; the rest waits its turn.
const WINDOW: usize = 8;

#[derive(Debug)]
struct Pending {
    number: u32,
    message: Message,
    due: Moment,
    wait: Duration,
    /// It was sent at least once.
    said: bool,
}

/// The messages that are not acknowledged yet, in order.
#[derive(Debug, Default)]
pub struct Outbox {
    pending: VecDeque<Pending>,
    last: u32,
    /// Before this nothing is said.
    free: Moment,
}

impl Outbox {
    /// The number for the next message.
    pub fn next_number(&mut self) -> u32 {
        self.last += 1;
        self.last
    }

    /// Sends `message` from `due` on, until `number` is acknowledged.
    pub fn push(&mut self, number: u32, message: Message, due: Moment) {
        self.pending.push_back(Pending { number, message, due, wait: FIRST_WAIT, said: false });
    }

    /// The same, before the messages that are `later`.
    pub fn push_before(&mut self, later: impl Fn(&Message) -> bool, number: u32, message: Message, due: Moment) {
        let at = self.pending.iter().position(|p| later(&p.message)).unwrap_or(self.pending.len());
        self.pending.insert(at, Pending { number, message, due, wait: FIRST_WAIT, said: false });
    }

    /// When the first of such messages was to be said that has not been said yet.
    pub fn unsaid(&self, such: impl Fn(&Message) -> bool) -> Option<Moment> {
        self.pending.iter().filter(|p| !p.said && such(&p.message)).map(|p| p.due).min()
    }

    /// Forgets messages that need not be said any more.
    pub fn drop_if(&mut self, needless: impl Fn(&Message) -> bool) {
        self.pending.retain(|p| !needless(&p.message));
    }

    /// Forgets every message: what they said is no longer so.
    pub fn clear(&mut self) {
        self.pending.clear();
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// The sender has this message.
    pub fn acknowledged(&mut self, number: u32) {
        self.pending.retain(|p| p.number != number);
    }

    /// The next message that is due, if any; it comes again after its wait, which `jitter` (0 to 1) stretches. The next
    /// one is said `turn` later at the earliest.
    pub fn poll(&mut self, now: Moment, jitter: f64, turn: Duration) -> Option<&Message> {
        if now < self.free {
            return None;
        }
        let pending = self.pending.iter_mut().take(WINDOW).find(|p| p.due <= now)?;
        self.free = now + turn;
        pending.due = now + pending.wait.max(turn).mul_f64(0.75 + jitter / 2.0);
        pending.wait = (pending.wait * 2).min(LONGEST_WAIT);
        pending.said = true;
        Some(&pending.message)
    }

    /// When the next message is due.
    pub fn timeout(&self) -> Option<Moment> {
        self.pending.iter().take(WINDOW).map(|p| p.due).min().map(|due| due.max(self.free))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::SessionId;

    #[test]
    fn a_message_is_repeated_ever_more_slowly_until_acknowledged() {
        let mut outbox = Outbox::default();
        let number = outbox.next_number();
        outbox.push(number, Message::Solicit, Moment(0));
        let (mut sent, mut now) = (Vec::new(), Moment(0));
        while sent.len() < 8 {
            while outbox.poll(now, 0.5, Duration::ZERO).is_some() {
                sent.push(now);
            }
            now = outbox.timeout().expect("not acknowledged");
        }
        let gaps: Vec<u128> = sent.windows(2).map(|w| w[1].since(w[0]).as_millis()).collect();
        assert_eq!(gaps, [40, 80, 160, 320, 640, 1280, 2000]);
        outbox.acknowledged(number);
        assert!(outbox.is_empty() && outbox.timeout().is_none());
    }

    #[test]
    fn one_message_is_said_in_a_turn_and_the_urgent_one_first() {
        let (mut outbox, turn) = (Outbox::default(), Duration::from_millis(500));
        let is_solicit = |m: &Message| matches!(m, Message::Solicit);
        outbox.push(1, Message::Solicit, Moment(0));
        outbox.push_before(is_solicit, 2, Message::Ack(SessionId(1), 2), Moment(0));
        assert!(matches!(outbox.poll(Moment(0), 0.5, turn), Some(Message::Ack(..))));
        assert_eq!(outbox.poll(Moment(0), 0.5, turn), None);
        assert_eq!((outbox.timeout(), outbox.unsaid(is_solicit)), (Some(Moment(0) + turn), Some(Moment(0))));
        outbox.acknowledged(2);
        assert!(outbox.poll(Moment(0) + turn, 0.5, turn).is_some_and(is_solicit));
        assert_eq!((outbox.timeout(), outbox.unsaid(is_solicit)), (Some(Moment(0) + turn * 2), None));
    }
}
