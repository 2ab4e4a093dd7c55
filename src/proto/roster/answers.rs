//! Answers to pings that hundreds of hosts get at the same time: each waits a random time.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::budget::Budget;
use crate::id::{InstanceId, Nonce};
use crate::units::Moment;

/// Shortest range of the wait.
const MIN_ANSWER_SPREAD: Duration = Duration::from_millis(10);
/// Longest range of the wait.
const MAX_ANSWER_SPREAD: Duration = Duration::from_millis(100);
/// Share of one host.
const HOST_SPREAD: Duration = Duration::from_micros(100);
/// Largest number of waiting answers; a process that gets none pings again.
const MAX_WAITING_ANSWERS: usize = 1024;

/// An answer to one process.
#[derive(Debug, Clone, Copy)]
pub(super) struct GroupAnswer {
    /// Address of the process.
    pub(super) to: SocketAddr,
    /// The process.
    pub(super) instance: InstanceId,
    /// Nonce of its ping.
    pub(super) echo: Nonce,
}

/// Answers to pings to the group.
#[derive(Debug)]
pub(super) struct GroupAnswers {
    budget: Budget,
    /// By time and number.
    waiting: BTreeMap<(Moment, u64), GroupAnswer>,
    count: u64,
}

impl GroupAnswers {
    /// Creates an empty queue; `seed` is random.
    pub(super) fn new(now: Moment, seed: u64) -> Self {
        Self {
            budget: Budget::new(now, seed),
            waiting: BTreeMap::new(),
            count: 0,
        }
    }

    /// Adds an answer, if the limits allow it.
    pub(super) fn add(&mut self, now: Moment, wait: Duration, answer: GroupAnswer) {
        if self.waiting.len() < MAX_WAITING_ANSWERS && self.budget.spend(now, answer.to.ip()) {
            self.count += 1;
            self.waiting.insert((now + wait, self.count), answer);
        }
    }

    /// Takes the next due answer.
    pub(super) fn next(&mut self, now: Moment) -> Option<GroupAnswer> {
        let first = self.waiting.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    /// Time of the next answer.
    pub(super) fn timeout(&self) -> Option<Moment> {
        self.waiting.keys().next().map(|(at, _)| *at)
    }
}

/// Random wait in a fleet of `hosts`; `random` is from 0 to 1.
pub(super) fn answer_wait(hosts: usize, random: f64) -> Duration {
    let hosts = u32::try_from(hosts).unwrap_or(u32::MAX);
    HOST_SPREAD
        .saturating_mul(hosts)
        .clamp(MIN_ANSWER_SPREAD, MAX_ANSWER_SPREAD)
        .mul_f64(random)
}
