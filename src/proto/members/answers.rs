//! Solicits that wait for their answers.

use std::net::SocketAddr;

use crate::id::{InstanceId, Nonce, TreeName};
use crate::units::Moment;

/// Bound on solicits that wait for an answer.
pub(super) const MAX_ANSWERS: usize = 64;
/// Bound on waiting solicits of one address.
pub(super) const MAX_ANSWERS_PER_ADDRESS: usize = 16;

/// A solicit that waits for its answer.
#[derive(Debug)]
pub(super) struct PendingAnswer {
    pub(super) due: Moment,
    pub(super) to: SocketAddr,
    pub(super) asker: InstanceId,
    pub(super) nonce: Option<Nonce>,
    pub(super) tree: Option<TreeName>,
}

/// Pending answers of one host.
#[derive(Debug)]
pub(super) struct PendingAnswers {
    queue: Vec<PendingAnswer>,
    /// No solicit is answered before this time, since hosts take slots.
    not_before: Moment,
}

impl PendingAnswers {
    /// Starts without any.
    pub(super) fn new(now: Moment) -> Self {
        Self {
            queue: Vec::new(),
            not_before: now,
        }
    }

    /// Replaces the answer to a process that asks again. Returns false if none is pending.
    ///
    /// Only the newest solicit of a process counts. A replayed one comes from another process.
    pub(super) fn renew(
        &mut self,
        asker: InstanceId,
        to: SocketAddr,
        nonce: Option<Nonce>,
        tree: Option<&TreeName>,
    ) -> bool {
        let Some(answer) = self.queue.iter_mut().find(|other| other.asker == asker) else {
            return false;
        };

        answer.to = to;
        answer.nonce = nonce;
        answer.tree = tree.cloned();
        true
    }

    /// Queues an answer. A flood of replayed solicits first displaces others from the same address;
    /// a real asker retransmits.
    pub(super) fn schedule(&mut self, mut answer: PendingAnswer, rng: &mut fastrand::Rng) {
        answer.due = answer.due.max(self.not_before);
        let here = |other: &PendingAnswer| other.to.ip() == answer.to.ip();
        let same = self.queue.iter().filter(|other| here(other)).count();
        let place = if same >= MAX_ANSWERS_PER_ADDRESS {
            let nth = rng.usize(..same);
            self.queue
                .iter()
                .enumerate()
                .filter(|(_, other)| here(other))
                .nth(nth)
                .map(|(place, _)| place)
        } else {
            (self.queue.len() >= MAX_ANSWERS).then(|| rng.usize(..MAX_ANSWERS))
        };

        match place.and_then(|place| self.queue.get_mut(place)) {
            Some(other) => *other = answer,
            None => self.queue.push(answer),
        }
    }

    /// Cancels the answer to `asker`.
    pub(super) fn cancel(&mut self, asker: InstanceId) {
        self.queue.retain(|answer| answer.asker != asker);
    }

    /// Takes the answers that are due.
    pub(super) fn take_due(&mut self, now: Moment) -> Vec<PendingAnswer> {
        let (due, later) = std::mem::take(&mut self.queue)
            .into_iter()
            .partition(|answer| answer.due <= now);
        self.queue = later;
        due
    }

    /// Holds back answers queued from now on until `not_before`.
    pub(super) fn hold_until(&mut self, not_before: Moment) {
        self.not_before = not_before;
    }

    /// Returns the time of the next answer.
    pub(super) fn timeout(&self) -> Option<Moment> {
        self.queue.iter().map(|answer| answer.due).min()
    }

    /// Iterates over the processes with a pending answer.
    #[cfg(test)]
    pub(super) fn askers(&self) -> impl Iterator<Item = InstanceId> {
        self.queue.iter().map(|answer| answer.asker)
    }
}
