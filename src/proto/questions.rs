//! Questions of anybody about what a host has: which are answered, and when.
//!
//! An answer is spread over the fleet, so that the asker is not flooded, and there are only so many a second: an answer
//! is larger than its question, and goes to whatever address the question seems to come from. What the answer is must
//! not be known here.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::turn;
use crate::units::Moment;
use crate::wire::query::Ask;

/// The most answers to one address in a second.
const EACH_A_SECOND: u32 = 8;
/// The most answers of one host in a second.
const ALL_A_SECOND: u32 = 32;
/// The most questions that wait for their answer.
const MAX_WAITING: usize = 64;
/// In what time answers are counted.
const WINDOW: Duration = Duration::from_secs(1);

/// The questions that a host is to answer.
#[derive(Debug)]
pub struct Questions {
    waiting: VecDeque<(Moment, SocketAddr, Ask)>,
    /// Who was answered how often since `since`; at most [`ALL_A_SECOND`] entries.
    answered: Vec<(IpAddr, u32)>,
    since: Moment,
    rng: fastrand::Rng,
}

impl Questions {
    /// Without any.
    pub fn new(now: Moment, seed: u64) -> Self {
        let rng = fastrand::Rng::with_seed(seed);
        Self {
            waiting: VecDeque::new(),
            answered: Vec::new(),
            since: now,
            rng,
        }
    }

    /// Takes a question, in a fleet of `hosts`. One that waits already is not answered twice, and beyond the limits
    /// questions are dropped: who asks asks again.
    pub fn handle(&mut self, now: Moment, from: SocketAddr, ask: Ask, hosts: u32) {
        let known = self
            .waiting
            .iter()
            .any(|(_, who, other)| *who == from && other.number == ask.number);
        if known || self.waiting.len() >= MAX_WAITING || !self.may_answer(now, from.ip()) {
            return;
        }

        let due = now + turn(hosts).mul_f64(self.rng.f64());
        self.waiting.push_back((due, from, ask));
    }

    fn may_answer(&mut self, now: Moment, who: IpAddr) -> bool {
        if now.since(self.since) >= WINDOW {
            (self.since, self.answered) = (now, Vec::new());
        }

        if self.answered.iter().map(|(_, n)| n).sum::<u32>() >= ALL_A_SECOND {
            return false;
        }

        match self.answered.iter_mut().find(|(ip, _)| *ip == who) {
            Some((_, count)) if *count >= EACH_A_SECOND => return false,
            Some((_, count)) => *count += 1,
            None => self.answered.push((who, 1)),
        }

        true
    }

    /// A question whose answer is due.
    pub fn due(&mut self, now: Moment) -> Option<(SocketAddr, Ask)> {
        let at = self.waiting.iter().position(|(due, ..)| *due <= now)?;
        self.waiting.remove(at).map(|(_, from, ask)| (from, ask))
    }

    /// When an answer is due.
    pub fn timeout(&self) -> Option<Moment> {
        self.waiting.iter().map(|(due, ..)| *due).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Moment = Moment(1_000_000_000);

    fn ask(number: u64) -> Ask {
        Ask {
            number,
            tree: None,
            serial: None,
        }
    }

    fn from(host: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, host], 5000))
    }

    fn answers(questions: &mut Questions, now: Moment) -> usize {
        std::iter::from_fn(|| questions.due(now)).count()
    }

    #[test]
    fn a_small_fleet_answers_at_once_and_a_large_one_spread() {
        let mut questions = Questions::new(START, 1);
        questions.handle(START, from(1), ask(1), 1);
        assert_eq!(questions.timeout(), Some(START));
        assert_eq!(questions.due(START), Some((from(1), ask(1))));
        let mut dues: Vec<Moment> = (0..100)
            .filter_map(|seed| {
                let mut questions = Questions::new(START, seed);
                questions.handle(START, from(1), ask(1), 5000);
                questions.timeout()
            })
            .collect();
        dues.sort_unstable();
        let widest = START + turn(5000);
        assert!(dues.iter().all(|due| (START..=widest).contains(due)));

        assert!(dues[99].since(dues[0]) > turn(5000) / 2);
    }

    #[test]
    fn the_same_question_is_answered_once_and_a_repetition_after_that_again() {
        let mut questions = Questions::new(START, 1);
        (0..3).for_each(|_| questions.handle(START, from(1), ask(1), 1));
        assert_eq!(answers(&mut questions, START), 1);
        questions.handle(START, from(1), ask(1), 1);
        assert_eq!(answers(&mut questions, START), 1);
    }

    #[test]
    fn answers_are_bounded_for_one_and_for_all() {
        let mut questions = Questions::new(START, 1);
        let mut answered = 0;
        for number in 0..1000 {
            questions.handle(START, from(1), ask(number), 1);
            answered += answers(&mut questions, START);
        }

        assert_eq!(answered, EACH_A_SECOND as usize);
        let mut all = 0;
        let second = START + WINDOW;
        for number in 0..1000 {
            questions.handle(second, from((number % 200) as u8), ask(number), 1);
            all += answers(&mut questions, second);
        }

        assert!(
            all <= ALL_A_SECOND as usize && all > EACH_A_SECOND as usize,
            "{all}"
        );
        questions.handle(second + WINDOW, from(1), ask(1), 1);

        assert_eq!(answers(&mut questions, second + WINDOW), 1);
    }

    #[test]
    fn a_flood_does_not_fill_memory() {
        let mut questions = Questions::new(START, 1);
        for n in 0..100_000u64 {
            let now = START + Duration::from_millis(n);
            questions.handle(now, from(n as u8), ask(n), 20_000);
        }
        assert!(questions.waiting.len() <= MAX_WAITING);
        assert!(questions.answered.len() <= ALL_A_SECOND as usize + 1);
    }
}
