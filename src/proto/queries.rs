//! Rate limit for queries outside of a session: which ones a host answers, and when.
//!
//! Answers are spread over the fleet to protect the asker, and limited in number: an answer is
//! larger than its query and goes to an address that may be forged. The contents of an answer are
//! built elsewhere.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::answer_budget::AnswerBudget;
use super::slot_interval;
use crate::units::Moment;
use crate::wire::query::Query;

/// Answers to one address in a second.
const MAX_QUERIES_PER_ADDRESS: u32 = 8;
/// Answers of one host in a second.
const MAX_QUERIES_PER_HOST: u32 = 32;
/// Bound on queries that wait for an answer.
const MAX_PENDING: usize = 64;

/// A query that waits for its answer.
#[derive(Debug)]
struct PendingQuery {
    due: Moment,
    from: SocketAddr,
    ask: Query,
}

/// Queries that a host is about to answer.
#[derive(Debug)]
pub struct QueryQueue {
    pending: VecDeque<PendingQuery>,
    budget: AnswerBudget,
    rng: fastrand::Rng,
}

impl QueryQueue {
    /// Creates an empty queue.
    pub fn new(now: Moment, seed: u64) -> Self {
        let rng = fastrand::Rng::with_seed(seed);
        Self {
            pending: VecDeque::new(),
            budget: AnswerBudget::new(now, MAX_QUERIES_PER_ADDRESS, MAX_QUERIES_PER_HOST),
            rng,
        }
    }

    /// Takes a query, in a fleet of `hosts`. A query already waiting is not answered twice, and
    /// queries beyond the limits are dropped: the asker retransmits.
    pub fn handle(&mut self, now: Moment, from: SocketAddr, ask: Query, hosts: u32) {
        let known = self
            .pending
            .iter()
            .any(|other| other.from == from && other.ask.number == ask.number);
        if known || self.pending.len() >= MAX_PENDING || !self.budget.take(now, from.ip()) {
            return;
        }

        let due = now + slot_interval(hosts).mul_f64(self.rng.f64());
        self.pending.push_back(PendingQuery { due, from, ask });
    }

    /// Returns a query with a due answer.
    pub fn due(&mut self, now: Moment) -> Option<(SocketAddr, Query)> {
        let at = self.pending.iter().position(|query| query.due <= now)?;
        self.pending.remove(at).map(|query| (query.from, query.ask))
    }

    /// Time of the next due answer.
    pub fn timeout(&self) -> Option<Moment> {
        self.pending.iter().map(|query| query.due).min()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::proto::answer_budget::RATE_WINDOW;

    const START: Moment = Moment(1_000_000_000);

    fn ask(number: u64) -> Query {
        Query {
            number,
            tree: None,
            serial: None,
            machine: None,
            order: None,
            padding: Vec::new(),
        }
    }

    fn from(host: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, host], 5000))
    }

    fn answers(queue: &mut QueryQueue, now: Moment) -> usize {
        std::iter::from_fn(|| queue.due(now)).count()
    }

    #[test]
    fn a_small_fleet_answers_at_once_and_a_large_one_spread() {
        let mut queue = QueryQueue::new(START, 1);
        queue.handle(START, from(1), ask(1), 1);
        assert_eq!(queue.timeout(), Some(START));
        assert_eq!(queue.due(START), Some((from(1), ask(1))));
        let mut dues: Vec<Moment> = (0..100)
            .filter_map(|seed| {
                let mut queue = QueryQueue::new(START, seed);
                queue.handle(START, from(1), ask(1), 5000);
                queue.timeout()
            })
            .collect();
        dues.sort_unstable();
        let widest = START + slot_interval(5000);
        assert!(dues.iter().all(|due| (START..=widest).contains(due)));

        assert!(dues[99].since(dues[0]) > slot_interval(5000) / 2);
    }

    #[test]
    fn the_same_question_is_answered_once_and_a_repetition_after_that_again() {
        let mut queue = QueryQueue::new(START, 1);
        (0..3).for_each(|_| queue.handle(START, from(1), ask(1), 1));
        assert_eq!(answers(&mut queue, START), 1);
        queue.handle(START, from(1), ask(1), 1);
        assert_eq!(answers(&mut queue, START), 1);
    }

    #[test]
    fn answers_are_bounded_for_one_and_for_all() {
        let mut queue = QueryQueue::new(START, 1);
        let mut answered = 0;
        for number in 0..1000 {
            queue.handle(START, from(1), ask(number), 1);
            answered += answers(&mut queue, START);
        }

        assert_eq!(answered, MAX_QUERIES_PER_ADDRESS as usize);
        let mut all = 0;
        let second = START + RATE_WINDOW;
        for number in 0..1000 {
            queue.handle(second, from((number % 200) as u8), ask(number), 1);
            all += answers(&mut queue, second);
        }

        assert!(
            all <= MAX_QUERIES_PER_HOST as usize && all > MAX_QUERIES_PER_ADDRESS as usize,
            "{all}"
        );
        queue.handle(second + RATE_WINDOW, from(1), ask(1), 1);

        assert_eq!(answers(&mut queue, second + RATE_WINDOW), 1);
    }

    #[test]
    fn a_flood_does_not_fill_memory() {
        let mut queue = QueryQueue::new(START, 1);
        for n in 0..100_000u64 {
            let now = START + Duration::from_millis(n);
            queue.handle(now, from(n as u8), ask(n), 20_000);
        }
        assert!(queue.pending.len() <= MAX_PENDING);
    }
}
