//! The list of differences that a session's comparison found, and how much of it is told in what time: an answer is a
//! thousand times as long as its question, and anybody may ask in the sender's name.

use std::sync::Arc;
use std::time::Duration;

use crate::id::SessionId;
use crate::proto::Dest;
use crate::proto::control::Control;
use crate::units::Moment;
use crate::wire::Message;
use crate::wire::message::{DRIFT_PARTS, DriftPart, MAX_DRIFT_PART};

/// So many answers at once.
const BURST: u32 = 64;
/// From then on one in so long.
const ANSWER_INTERVAL: Duration = Duration::from_millis(8);

/// One session's list.
#[derive(Debug)]
pub(super) struct Drift {
    list: Arc<[u8]>,
    /// Answers that may be given, as of `since`.
    left: u32,
    since: Moment,
    /// Where the last answer ends in the queue.
    answered: u64,
}

impl Drift {
    /// Before the comparison.
    pub(super) fn new(now: Moment) -> Self {
        Self {
            list: Arc::from([]),
            left: BURST,
            since: now,
            answered: 0,
        }
    }

    /// What the comparison found.
    pub(super) fn found(&mut self, list: Arc<[u8]>) {
        self.list = list;
    }

    /// Bytes of the list.
    pub(super) fn held(&self) -> usize {
        self.list.len()
    }

    /// Answers a question for what follows `offset`, unless the last answer is still queued or there were too many.
    pub(super) fn answer(
        &mut self,
        now: Moment,
        session: SessionId,
        offset: u64,
        to: Dest,
        control: &mut Control,
    ) {
        let total = self.list.len() as u64;
        if offset >= total || !control.is_past(self.answered) || !self.may_answer(now) {
            return;
        }

        let end = total.min(offset + DRIFT_PARTS * MAX_DRIFT_PART as u64);
        for part in self.list[offset as usize..end as usize]
            .chunks(MAX_DRIFT_PART)
            .zip(0..)
        {
            let (bytes, nth): (&[u8], u64) = part;
            let offset = offset + nth * MAX_DRIFT_PART as u64;
            control.send(
                to,
                &Message::DriftPart(DriftPart {
                    session,
                    offset,
                    bytes: bytes.to_vec(),
                }),
            );
        }

        self.answered = control.mark();
    }

    fn may_answer(&mut self, now: Moment) -> bool {
        let earned = now.since(self.since).as_nanos() / ANSWER_INTERVAL.as_nanos();
        if earned > 0 {
            self.left = self
                .left
                .saturating_add(u32::try_from(earned).unwrap_or(u32::MAX))
                .min(BURST);
            self.since = now;
        }

        let left = self.left.checked_sub(1);
        self.left = left.unwrap_or(0);
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::InstanceId;
    use crate::wire::Datagram;

    const SESSION: SessionId = SessionId(7);

    /// A list of `bytes` bytes, and a queue for its answers.
    fn list(bytes: usize) -> (Drift, Control, Dest) {
        let mut drift = Drift::new(Moment(1));
        drift.found((0..bytes).map(|n| (n / 7) as u8).collect());
        (
            drift,
            Control::new(InstanceId(1), 1472, 0),
            Dest::Host(([10, 0, 0, 1], 5000).into()),
        )
    }

    /// What is queued, as the asker puts it together; bytes of datagrams.
    fn take(control: &mut Control, into: &mut Vec<u8>) -> usize {
        let (mut out, mut sent) = (Vec::new(), 0);
        while control.poll(&mut out).is_some() {
            sent += out.len();
            let Ok(Datagram::Control(_, piece)) = Datagram::parse(&out) else {
                panic!("a piece")
            };
            let Ok(Message::DriftPart(part)) = Message::decode(piece.bytes) else {
                panic!("a part")
            };
            assert_eq!(part.offset, into.len() as u64);
            into.extend(part.bytes);
        }

        sent
    }

    #[test]
    fn a_list_comes_over_in_answers_and_ends() {
        let (mut drift, mut control, to) = list(100_000);
        let mut heard = Vec::new();
        for _ in 0..4 {
            drift.answer(Moment(2), SESSION, heard.len() as u64, to, &mut control);
            take(&mut control, &mut heard);
        }

        assert_eq!(heard, drift.list.to_vec());
        drift.answer(Moment(2), SESSION, u64::MAX, to, &mut control);
        assert!(control.is_empty());
    }

    #[test]
    fn a_flood_of_questions_queues_one_answer_and_gets_a_trickle() {
        let (mut drift, mut control, to) = list(4 << 20);
        let answer = (DRIFT_PARTS as usize) * (MAX_DRIFT_PART + 64);
        for n in 0..100_000 {
            drift.answer(Moment(2), SESSION, n % 1000, to, &mut control);
        }

        assert!(
            control.queued_bytes() > MAX_DRIFT_PART && control.queued_bytes() < answer,
            "{}",
            control.queued_bytes()
        );

        // The queue is taken at once, for a second.
        let mut sent = 0;
        for n in 0..100_000u64 {
            let mut heard = Vec::new();
            sent += take(&mut control, &mut heard);
            drift.answer(
                Moment(2) + Duration::from_micros(n * 10),
                SESSION,
                0,
                to,
                &mut control,
            );
        }

        let most = answer * (BURST as usize + 1 + 125);
        assert!(sent < most && sent > most / 2, "{sent}");
    }
}
