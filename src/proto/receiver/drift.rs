//! Serves a session's drift list, the differences found by its comparison, at a limited rate.
//!
//! An answer is a thousand times as long as its request, and anyone may forge a request of the
//! sender.

use std::sync::Arc;
use std::time::Duration;

use crate::id::SessionId;
use crate::proto::Dest;
use crate::proto::control::Control;
use crate::units::Moment;
use crate::wire::Message;
use crate::wire::message::{DRIFT_PARTS, DriftPart, MAX_DRIFT_PART};

/// Largest burst of answers.
const ANSWER_BURST: u32 = 64;
/// Interval between answers after the burst.
const ANSWER_INTERVAL: Duration = Duration::from_millis(8);

/// Drift list of one session with its rate limit.
#[derive(Debug)]
pub(super) struct DriftList {
    list: Arc<[u8]>,
    /// Answers allowed as of `since`.
    allowance: u32,
    since: Moment,
    /// Position of the last answer's end in the queue.
    answered: u64,
}

impl DriftList {
    /// Creates the empty list of a session before its comparison.
    pub(super) fn new(now: Moment) -> Self {
        Self {
            list: Arc::from([]),
            allowance: ANSWER_BURST,
            since: now,
            answered: 0,
        }
    }

    /// Sets the result of the comparison.
    pub(super) fn set(&mut self, list: Arc<[u8]>) {
        self.list = list;
    }

    /// Size of the list in bytes.
    pub(super) fn held(&self) -> usize {
        self.list.len()
    }

    /// Answers a request for the list from `offset` on, unless the last answer is still queued or
    /// the rate limit is reached.
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
        let mut at = offset;
        for bytes in self.list[offset as usize..end as usize].chunks(MAX_DRIFT_PART) {
            let part = DriftPart {
                session,
                offset: at,
                bytes: bytes.to_vec(),
            };

            control.send(to, &Message::DriftPart(part));
            at += bytes.len() as u64;
        }

        self.answered = control.mark();
    }

    fn may_answer(&mut self, now: Moment) -> bool {
        let earned = now.since(self.since).as_nanos() / ANSWER_INTERVAL.as_nanos();
        if earned > 0 {
            self.allowance = self
                .allowance
                .saturating_add(u32::try_from(earned).unwrap_or(u32::MAX))
                .min(ANSWER_BURST);
            self.since = now;
        }

        let allowance = self.allowance.checked_sub(1);
        self.allowance = allowance.unwrap_or(0);
        allowance.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::InstanceId;
    use crate::wire::Datagram;

    const SESSION: SessionId = SessionId(7);

    /// Returns a list of `bytes` bytes and a queue for its answers.
    fn list(bytes: usize) -> (DriftList, Control, Dest) {
        let mut drift = DriftList::new(Moment(1));
        drift.set((0..bytes).map(|n| (n / 7) as u8).collect());
        (
            drift,
            Control::new(InstanceId(1), 1472, 0),
            Dest::Host(([10, 0, 0, 1], 5000).into()),
        )
    }

    /// Drains the queue as a requester would; returns the size of the datagrams.
    fn take(control: &mut Control, into: &mut Vec<u8>) -> usize {
        let mut out = Vec::new();
        let mut sent = 0;
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
    fn a_list_is_sent_in_several_answers_and_ends() {
        let (mut drift, mut control, to) = list(100_000);
        let mut received = Vec::new();
        for _ in 0..4 {
            drift.answer(Moment(2), SESSION, received.len() as u64, to, &mut control);
            take(&mut control, &mut received);
        }

        assert_eq!(received, drift.list.to_vec());
        drift.answer(Moment(2), SESSION, u64::MAX, to, &mut control);
        assert!(control.is_empty());
    }

    #[test]
    fn a_flood_of_requests_queues_one_answer_and_is_rate_limited() {
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

        // For one second the queue is drained at once.
        let mut sent = 0;
        for n in 0..100_000u64 {
            let mut received = Vec::new();
            sent += take(&mut control, &mut received);
            drift.answer(
                Moment(2) + Duration::from_micros(n * 10),
                SESSION,
                0,
                to,
                &mut control,
            );
        }

        let most = answer * (ANSWER_BURST as usize + 1 + 125);
        assert!(sent < most && sent > most / 2, "{sent}");
    }
}
