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
    /// A host speaks when its turn comes, which is once in so long; always when that is nothing.
    turn: Duration,
    /// Where its turn is in that time, from 0 to 1: another place for every host.
    place: f64,
    /// Before this nothing is said.
    free: Moment,
    /// Something was said.
    spoke: bool,
}

impl Outbox {
    /// For a host whose turn is at `place` (0 to 1) of every `turn`.
    pub fn new(place: f64, turn: Duration) -> Self {
        Self {
            place,
            turn,
            ..Self::default()
        }
    }

    /// There are more hosts to take turns, or fewer.
    pub fn set_turn(&mut self, turn: Duration) {
        self.turn = turn;
    }

    /// The first turn from `at` on, when there may be something to say again.
    fn turn_after(&self, at: Moment) -> Moment {
        let (at, turn) = (at.max(self.free), self.turn.as_nanos() as u64);
        if turn == 0 {
            return at;
        }

        let place = (turn as f64 * self.place) as u64;
        Moment(
            at.0.saturating_sub(place)
                .div_ceil(turn)
                .saturating_mul(turn)
                .saturating_add(place),
        )
    }

    /// The number for the next message.
    pub fn next_number(&mut self) -> u32 {
        self.last += 1;
        self.last
    }

    /// Sends `message` from `due` on, until `number` is acknowledged.
    pub fn push(&mut self, number: u32, message: Message, due: Moment) {
        self.pending.push_back(Pending {
            number,
            message,
            due,
            wait: FIRST_WAIT,
            said: false,
        });
    }

    /// The same, before the messages that are `later`.
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
            Pending {
                number,
                message,
                due,
                wait: FIRST_WAIT,
                said: false,
            },
        );
    }

    /// When the first of such messages was to be said that has not been said yet.
    pub fn unsaid(&self, such: impl Fn(&Message) -> bool) -> Option<Moment> {
        self.pending
            .iter()
            .filter(|p| !p.said && such(&p.message))
            .map(|p| p.due)
            .min()
    }

    /// Whether anything was said yet.
    pub fn has_spoken(&self) -> bool {
        self.spoke
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

    /// The next message that is due, if any, when it is our turn; it comes again after its wait, which `jitter` (0 to 1)
    /// stretches.
    pub fn poll(&mut self, now: Moment, jitter: f64) -> Option<&Message> {
        let at = self
            .pending
            .iter()
            .take(WINDOW)
            .position(|p| self.turn_after(p.due) <= now)?;
        let pending = &mut self.pending[at];
        if !self.turn.is_zero() {
            self.free = now + self.turn / 2;
        }

        pending.due = now + pending.wait.mul_f64(0.75 + jitter / 2.0);
        pending.wait = (pending.wait * 2).min(LONGEST_WAIT);
        pending.said = true;
        self.spoke = true;

        Some(&pending.message)
    }

    /// When the next message is due.
    pub fn timeout(&self) -> Option<Moment> {
        self.pending
            .iter()
            .take(WINDOW)
            .map(|p| self.turn_after(p.due))
            .min()
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
        outbox.push(number, Message::Solicit(None, None), Moment(0));
        let (mut sent, mut now) = (Vec::new(), Moment(0));

        while sent.len() < 8 {
            while outbox.poll(now, 0.5).is_some() {
                sent.push(now);
            }
            now = outbox.timeout().expect("not acknowledged");
        }

        let gaps: Vec<u128> = sent
            .windows(2)
            .map(|w| w[1].since(w[0]).as_millis())
            .collect();
        assert_eq!(gaps, [40, 80, 160, 320, 640, 1280, 2000]);
        outbox.acknowledged(number);

        assert!(outbox.is_empty() && outbox.timeout().is_none());
    }

    #[test]
    fn one_message_is_said_in_a_turn_and_the_urgent_one_first() {
        let at = |ms: u64| Moment(1_000_000_000) + Duration::from_millis(ms);
        let mut outbox = Outbox::new(0.25, Duration::from_millis(200));
        let is_solicit = |m: &Message| matches!(m, Message::Solicit(..));
        outbox.push(1, Message::Solicit(None, None), at(0));
        outbox.push_before(is_solicit, 2, Message::Ack(SessionId(1), 2, None), at(0));
        assert_eq!(
            (outbox.timeout(), outbox.unsaid(is_solicit)),
            (Some(at(50)), Some(at(0)))
        );

        assert_eq!(outbox.poll(at(49), 0.5), None);
        assert!(matches!(outbox.poll(at(51), 0.5), Some(Message::Ack(..))));
        assert_eq!(outbox.poll(at(51), 0.5), None);
        assert_eq!(outbox.timeout(), Some(at(250)));
        outbox.acknowledged(2);
        assert!(outbox.poll(at(250), 0.5).is_some_and(is_solicit));
        assert_eq!(
            (outbox.timeout(), outbox.unsaid(is_solicit)),
            (Some(at(450)), None)
        );

        outbox.set_turn(Duration::ZERO);
        assert_eq!(
            outbox.timeout(),
            Some(at(350)),
            "no more before half of the turn"
        );
    }
}
