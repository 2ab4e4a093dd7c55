//! Puts under way: a few at a time, repeated after temporary faults.

use std::collections::VecDeque;

use super::attempt::{Attempts, Dice, RequestId};
use super::object::{ObjectPath, Put, PutReply};
use crate::units::Moment;

/// Largest number of puts at a time. With a pack under construction, three packs are in memory.
const MAX_PUTS: usize = 2;

/// Puts objects.
#[derive(Debug, Default)]
pub(super) struct Puts {
    waiting: VecDeque<Put>,
    under_way: Vec<PutAttempt>,
}

#[derive(Debug)]
struct PutAttempt {
    id: Option<RequestId>,
    put: Put,
    attempts: Attempts,
}

impl Puts {
    /// Queues a put.
    pub(super) fn push(&mut self, put: Put) {
        self.waiting.push_back(put);
    }

    /// Returns whether nothing is queued or under way.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.under_way.is_empty()
    }

    /// Returns whether another pack should wait.
    pub(super) fn is_full(&self) -> bool {
        self.under_way.len() + self.waiting.len() >= MAX_PUTS
    }

    /// Returns the next request.
    pub(super) fn poll(&mut self, now: Moment, dice: &mut Dice) -> Option<(RequestId, Put)> {
        if self.under_way.len() < MAX_PUTS
            && let Some(put) = self.waiting.pop_front()
        {
            self.under_way.push(PutAttempt {
                id: None,
                put,
                attempts: Attempts::default(),
            });
        }

        let waits = |p: &&mut PutAttempt| p.id.is_none() && p.attempts.not_before() <= now;
        let attempt = self.under_way.iter_mut().find(waits)?;
        let id = dice.id();
        attempt.id = Some(id);
        Some((id, attempt.put.clone()))
    }

    /// Time of the next request after a failure.
    pub(super) fn timeout(&self) -> Option<Moment> {
        let waiting = self.under_way.iter().filter(|p| p.id.is_none());
        waiting.map(|p| p.attempts.not_before()).min()
    }

    /// Takes a reply; returns it with its object if it is the last one.
    pub(super) fn reply(
        &mut self,
        id: RequestId,
        reply: PutReply,
        now: Moment,
        dice: &mut Dice,
    ) -> Option<(ObjectPath, PutReply)> {
        let at = self.under_way.iter().position(|p| p.id == Some(id))?;
        let attempt = &mut self.under_way[at];
        attempt.id = None;
        if let PutReply::Failed(fault) = &reply
            && attempt.attempts.fail(fault, now, dice)
        {
            return None;
        }

        let ended = self.under_way.swap_remove(at);
        Some((ended.put.object, reply))
    }
}
