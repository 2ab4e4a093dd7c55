//! How fast to send: a token bucket for the pace, and a controller that finds the link's rate.
//!
//! The controller starts low and doubles every round while no host reports queueing or heavy loss. From then on it
//! knows what the slowest healthy host received at best in the last rounds (the link's capacity, as BBR estimates it),
//! stays a little below that while there is a queue of more than a few milliseconds, and feels its way up slowly
//! while there is none. Random loss is averaged over many rounds and does not cut the rate by itself: only loss far
//! above that mean is taken as a queue that overflows.
//!
//! Beside TCP, which fills queues until they overflow, this yields: down to [`SHARE`] of what the link gave in the last
//! seconds, and no further while the queue only delays.

use std::collections::VecDeque;
use std::time::Duration;

use crate::units::{Moment, Rate};

/// Where an unlimited session starts.
const START: Rate = Rate(200_000_000);
/// Below this no controller goes.
const FLOOR: Rate = Rate(2_000_000);
/// Above this none goes.
const TOP: Rate = Rate(100_000_000_000);
/// How often the rate is looked at.
const ROUND: Duration = Duration::from_millis(10);
/// Queueing delay that means a standing queue.
pub const QUEUE_LIMIT: Duration = Duration::from_millis(8);
/// Rounds over which the best is remembered.
const MEMORY: usize = 16;
/// The longest wait for the effect of a cut.
const MAX_HOLD: Duration = Duration::from_millis(100);
/// Loss that is so much above its long mean is a queue that overflows.
const LOSS_STEP: f64 = 0.08;
/// How far above what was received the rate may go to find out whether there is more.
const HEADROOM: f64 = 1.25;
/// The share of the link's best that queueing alone does not take from us.
const SHARE: f64 = 0.3;
/// What is left of the memory of the best after a round: half after four seconds.
const FORGET: f64 = 0.9983;

/// Lets bytes go at a rate: what is sent now moves the time of the next.
#[derive(Debug)]
pub struct Pacer {
    next: Moment,
}

impl Pacer {
    /// A pacer that lets go at once.
    pub fn new(now: Moment) -> Self {
        Self { next: now }
    }

    /// When the next datagrams may go.
    pub fn due(&self) -> Moment {
        self.next
    }

    /// `bytes` go now, at `rate`. Who was late makes up for at most `catch_up`.
    pub fn sent(&mut self, now: Moment, bytes: usize, rate: Rate, catch_up: Duration) {
        self.next = self.next.max(now - catch_up) + rate.time_for(bytes as u64);
    }
}

/// What one host measured between two reports.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Bytes that arrived, with all headers: the rate counts them too.
    pub bytes: u64,
    /// The time that they took.
    pub over: Duration,
    /// The share of datagrams that did not arrive, 0 to 1, smoothed over some ten reports.
    pub loss: f64,
    /// Queueing delay at the end.
    pub delay: Duration,
}

/// Finds the rate.
#[derive(Debug)]
pub struct Controller {
    rate: f64,
    ceiling: Option<Rate>,
    starting: bool,
    /// What the slowest host received in each of the last rounds, in bits a second.
    received: VecDeque<f64>,
    /// The running mean of loss that is not from queues.
    mean_loss: f64,
    round: Round,
    since: Moment,
    /// Until then the effect of the last cut is waited for.
    hold: Moment,
    /// The best capacity of the last seconds, slowly forgotten.
    best: f64,
}

#[derive(Debug, Default)]
struct Round {
    delay: Duration,
    loss: f64,
    slowest: Option<f64>,
}

impl Controller {
    /// A controller that never goes above `ceiling`.
    pub fn new(now: Moment, ceiling: Option<Rate>) -> Self {
        let rate = ceiling.map_or(START, |c| c.min(START)).0 as f64;
        let (received, round) = (VecDeque::new(), Round::default());
        Self {
            rate,
            ceiling,
            starting: true,
            received,
            mean_loss: 0.0,
            round,
            since: now,
            hold: now,
            best: 0.0,
        }
    }

    /// Begins anew: the hosts that counted were others.
    pub fn restart(&mut self, now: Moment) {
        let rate = self.rate.max(START.0 as f64);
        *self = Self {
            rate,
            ..Self::new(now, self.ceiling)
        };
        self.rate = self.rate.min(self.top());
    }

    /// The present rate.
    pub fn rate(&self) -> Rate {
        Rate(self.rate as u64)
    }

    /// Whether a person set a ceiling.
    pub fn has_ceiling(&self) -> bool {
        self.ceiling.is_some()
    }

    /// Takes one host's sample.
    pub fn sample(&mut self, now: Moment, sample: Sample) {
        let received = sample.bytes as f64 * 8.0 / sample.over.as_secs_f64().max(1e-5);
        self.round.delay = self.round.delay.max(sample.delay);
        self.round.loss = self.round.loss.max(sample.loss);
        self.round.slowest = Some(self.round.slowest.map_or(received, |s| s.min(received)));
        if now.since(self.since) >= ROUND {
            self.end_round(now);
        }
    }

    fn end_round(&mut self, now: Moment) {
        let round = std::mem::take(&mut self.round);
        let length = now.since(self.since).as_secs_f64() / ROUND.as_secs_f64();
        self.since = now;
        if self.received.len() == MEMORY {
            self.received.pop_front();
        }

        self.received.extend(round.slowest);
        let capacity = self.received.iter().copied().fold(0.0, f64::max);
        let overflow = round.loss > self.mean_loss + LOSS_STEP;
        let congested = overflow || round.delay > QUEUE_LIMIT;

        if congested {
            self.give_way(now, capacity, round.delay, overflow);
        } else if self.starting {
            self.rate = (self.rate * 2.0).min(capacity * 4.0).max(self.rate);
        } else if round.delay < QUEUE_LIMIT / 2 {
            // A round is longer where little is sent: it grows as much in the same time.
            let growth = 1.02f64.powf(length).min(HEADROOM);
            self.rate = (self.rate * growth).min((capacity * HEADROOM).max(self.rate));
        }

        self.mean_loss = self.mean_loss * 0.99 + round.loss * 0.01;
        self.best = (self.best * FORGET).max(capacity);
        self.rate = self
            .rate
            .min(self.top())
            .max((FLOOR.0 as f64).min(self.top()));
    }

    fn top(&self) -> f64 {
        self.ceiling.unwrap_or(TOP).0 as f64
    }

    fn give_way(&mut self, now: Moment, capacity: f64, delay: Duration, overflow: bool) {
        if self.starting {
            self.starting = false;
            // The first rounds may have measured little: they do not take away more than the last doublings.
            self.rate = self.rate.min(capacity.max(self.rate / 4.0));
        } else if now < self.hold {
            return;
        }

        // A queue that others fill (TCP does until it overflows) would drive us out: we keep a share of what the link
        // gave us before. Loss far above the mean says that even that is too much.
        let least = if overflow {
            0.0
        } else {
            self.rate.min(self.best * SHARE)
        };

        self.rate =
            (self.rate.min(capacity * 1.05) * if overflow { 0.85 } else { 0.95 }).max(least);
        self.hold = now + delay.min(MAX_HOLD) + ROUND;

        if delay > QUEUE_LIMIT * 8 {
            // So long a queue means that the link has become slower: what it could do before counts no more.
            self.received.drain(..self.received.len().saturating_sub(2));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A link of `link` with a queue, and a host behind it that loses `loss` of what passes.
    fn converge(link: Rate, loss: f64, rounds: u32) -> Rate {
        let mut controller = Controller::new(Moment(0), None);
        let (mut queue, mut now) = (0f64, Moment(0));
        for _ in 0..rounds {
            now = now + ROUND;
            let sent = controller.rate().bytes_in(ROUND) as f64;
            let passed = (queue + sent).min(link.bytes_in(ROUND) as f64);
            let dropped = (queue + sent - passed - 1e6).max(0.0);
            queue = queue + sent - passed - dropped;
            let delay = link.time_for(queue as u64);
            let bytes = (passed * (1.0 - loss)) as u64;
            let loss = loss + (1.0 - loss) * dropped / sent;
            controller.sample(
                now,
                Sample {
                    bytes,
                    over: ROUND,
                    loss,
                    delay,
                },
            );
        }

        controller.rate()
    }

    #[test]
    fn finds_the_rate_of_a_link_within_a_fifth() {
        for link in [
            Rate(20_000_000),
            Rate(100_000_000),
            Rate(1_000_000_000),
            Rate(10_000_000_000),
        ] {
            let found = converge(link, 0.0, 100).0 as f64 / link.0 as f64;
            assert!((0.8..1.25).contains(&found), "{link}: {found}");
        }
    }

    #[test]
    fn random_loss_does_not_cut_the_rate() {
        let found = converge(Rate(500_000_000), 0.05, 200).0 as f64 / 5e8;
        assert!((0.75..1.25).contains(&found), "{found}");
    }

    #[test]
    fn a_ceiling_holds() {
        let mut controller = Controller::new(Moment(0), Some(Rate(30_000_000)));
        for i in 1..50u64 {
            let sample = Sample {
                bytes: 1 << 20,
                over: ROUND,
                loss: 0.0,
                delay: Duration::ZERO,
            };
            controller.sample(Moment(i * 10_000_000), sample);
            assert!(controller.rate() <= Rate(30_000_000));
        }

        let mut pacer = Pacer::new(Moment(0));
        let (mut now, mut bytes) = (Moment(0), 0u64);
        while now < Moment(1_000_000_000) {
            now = now.max(pacer.due())
                + Duration::from_micros(if bytes.is_multiple_of(7) { 900 } else { 1 });
            pacer.sent(now, 45_000, Rate(30_000_000), Duration::ZERO);
            bytes += 45_000;
        }

        assert!(bytes <= 30_000_000 / 8 + 90_000, "{bytes}");
    }
}
