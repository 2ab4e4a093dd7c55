//! Rate control: a token bucket paces the sends, and a controller finds the link's rate.
//!
//! The controller starts low and doubles the rate every round while no host reports queueing or
//! heavy loss. From then on the link's capacity is the best rate received by the slowest healthy
//! host in the last rounds, as BBR estimates capacity. The rate stays a little below the capacity
//! while a queue of more than a few milliseconds exists, and otherwise grows slowly. Random loss is
//! averaged over many rounds and does not cut the rate by itself; only loss far above the mean
//! counts as an overflowing queue.
//!
//! Beside TCP, which fills queues until they overflow, the controller yields: down to
//! [`FAIR_SHARE`] of the link's best rate of the last seconds, and no further while the queue only
//! delays.

use std::collections::VecDeque;
use std::time::Duration;

use crate::units::{Moment, Rate};

/// Initial rate of an unlimited session.
const START_RATE: Rate = Rate(200_000_000);
/// Lower bound of the rate.
const MIN_RATE: Rate = Rate(2_000_000);
/// Upper bound of the rate.
const MAX_RATE: Rate = Rate(100_000_000_000);
/// Interval between adjustments of the rate.
const ROUND: Duration = Duration::from_millis(10);
/// Queueing delay of a standing queue.
pub const QUEUE_LIMIT: Duration = Duration::from_millis(8);
/// Rounds over which the capacity is the maximum.
const CAPACITY_ROUNDS: usize = 16;
/// Rounds after a restart in which the capacity may be that of a pause, or of a queue from before.
const FIRST_ROUNDS: usize = 4;
/// Longest wait for the effect of a cut.
const MAX_HOLD: Duration = Duration::from_millis(100);
/// Loss this far above the long-term mean is an overflowing queue.
const LOSS_STEP: f64 = 0.08;
/// Factor over the received rate by which the controller probes for more.
const HEADROOM: f64 = 1.25;
/// Share of the link's best rate that queueing alone does not take away.
const FAIR_SHARE: f64 = 0.3;
/// Decay of the best capacity in a round: half after four seconds.
const BEST_DECAY: f64 = 0.9983;

/// Paces bytes at a rate: each send moves the time of the next.
#[derive(Debug)]
pub struct Pacer {
    next: Moment,
}

impl Pacer {
    /// Creates a pacer whose first send is due at once.
    pub fn new(now: Moment) -> Self {
        Self { next: now }
    }

    /// Time of the next send.
    pub fn due(&self) -> Moment {
        self.next
    }

    /// Records a send of `bytes` at `rate`. A late sender catches up on at most `catch_up`.
    pub fn sent(&mut self, now: Moment, bytes: usize, rate: Rate, catch_up: Duration) {
        self.next = self.next.max(now - catch_up) + rate.time_for(bytes as u64);
    }
}

/// Measurements of one host between two reports.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Bytes received with all headers, which the rate counts as well.
    pub bytes: u64,
    /// Time between the reports.
    pub over: Duration,
    /// Share of lost datagrams, 0 to 1, smoothed over about ten reports.
    pub loss: f64,
    /// Queueing delay at the end.
    pub delay: Duration,
}

/// Finds the rate of the link.
#[derive(Debug)]
pub struct Controller {
    rate: f64,
    ceiling: Option<Rate>,
    starting: bool,
    /// The present search is not the first one: hosts have queues already.
    is_restarted: bool,
    /// Loss this far above the long-term mean is an overflowing queue.
    loss_step: f64,
    /// Rate of the slowest host in each of the last rounds, in bits a second.
    received: VecDeque<f64>,
    /// Running mean of loss not caused by queues.
    mean_loss: f64,
    round: Round,
    since: Moment,
    /// Time until which the effect of the last cut is awaited.
    hold_until: Moment,
    /// Best capacity of the last seconds, decaying slowly.
    best_capacity: f64,
}

#[derive(Debug, Default)]
struct Round {
    delay: Duration,
    loss: f64,
    slowest: Option<f64>,
}

impl Controller {
    /// Creates a controller with an optional upper bound.
    pub fn new(now: Moment, ceiling: Option<Rate>) -> Self {
        Self {
            rate: start_rate(ceiling).0 as f64,
            ceiling,
            starting: true,
            is_restarted: false,
            loss_step: LOSS_STEP,
            received: VecDeque::new(),
            mean_loss: 0.0,
            round: Round::default(),
            since: now,
            hold_until: now,
            best_capacity: 0.0,
        }
    }

    /// Restarts the search after the set of measured hosts has changed.
    pub fn restart(&mut self, now: Moment) {
        let rate = self.rate.max(START_RATE.0 as f64);
        *self = Self {
            rate,
            is_restarted: true,
            loss_step: self.loss_step,
            ..Self::new(now, self.ceiling)
        };
        self.rate = self.rate.min(self.max_rate());
    }

    /// Searches upwards from the present rate: a host that took it down is ignored for now.
    pub fn probe(&mut self) {
        self.starting = true;
    }

    /// Present rate.
    pub fn rate(&self) -> Rate {
        Rate(self.rate as u64)
    }

    /// Rate before anything is measured.
    pub fn start_rate(&self) -> Rate {
        start_rate(self.ceiling)
    }

    /// Returns whether the user set a ceiling.
    pub fn has_ceiling(&self) -> bool {
        self.ceiling.is_some()
    }

    /// Takes a host's sample.
    pub fn sample(&mut self, now: Moment, sample: Sample) {
        let received = sample.bytes as f64 * 8.0 / sample.over.as_secs_f64().max(1e-5);
        self.round.delay = self.round.delay.max(sample.delay);
        self.round.loss = self.round.loss.max(sample.loss);
        self.round.slowest = Some(self.round.slowest.map_or(received, |s| s.min(received)));
        if now.since(self.since) >= ROUND {
            self.end_round(now);
        }
    }

    /// Records that hosts pass data on: losses of two links in a row count.
    pub fn on_relayed(&mut self) {
        self.loss_step = LOSS_STEP * 2.0;
    }

    /// Takes back the cuts of the last seconds: the losses behind them had another cause than a
    /// queue.
    pub fn undo_cuts(&mut self) {
        self.rate = self.rate.max(self.best_capacity).min(self.max_rate());
        self.round.loss = 0.0;
    }

    fn end_round(&mut self, now: Moment) {
        let round = std::mem::take(&mut self.round);
        let length = now.since(self.since).as_secs_f64() / ROUND.as_secs_f64();
        self.since = now;
        if self.received.len() == CAPACITY_ROUNDS {
            self.received.pop_front();
        }

        self.received.extend(round.slowest);
        let capacity = self.received.iter().copied().fold(0.0, f64::max);
        let overflow = round.loss > self.mean_loss + self.loss_step;
        let congested = overflow || round.delay > QUEUE_LIMIT;

        if congested {
            self.back_off(now, capacity, round.delay, overflow);
        } else if self.starting {
            self.rate = (self.rate * 2.0).min(capacity * 4.0).max(self.rate);
        } else if round.delay < QUEUE_LIMIT / 2 {
            // Rounds are longer when little is sent; the growth per second stays the same.
            let growth = 1.02f64.powf(length).min(HEADROOM);
            self.rate = (self.rate * growth).min((capacity * HEADROOM).max(self.rate));
        }

        self.mean_loss = self.mean_loss * 0.99 + round.loss * 0.01;
        self.best_capacity = (self.best_capacity * BEST_DECAY).max(capacity);
        self.rate = self
            .rate
            .min(self.max_rate())
            .max((MIN_RATE.0 as f64).min(self.max_rate()));
    }

    fn max_rate(&self) -> f64 {
        self.ceiling.unwrap_or(MAX_RATE).0 as f64
    }

    fn back_off(&mut self, now: Moment, mut capacity: f64, delay: Duration, overflow: bool) {
        if self.starting {
            self.starting = false;
            // The first rounds may have measured too little, so undo no more than the last
            // doublings.
            if self.is_restarted && self.received.len() < FIRST_ROUNDS {
                capacity = capacity.max(self.rate / 4.0);
            }
            self.rate = self.rate.min(capacity.max(self.rate / 4.0));
        } else if now < self.hold_until {
            return;
        }

        // A queue filled by others (TCP fills queues until they overflow) would starve this
        // session, so keep a share of the link's earlier rate. Loss far above the mean shows that
        // even this share is too much.
        let least = if overflow {
            0.0
        } else {
            self.rate.min(self.best_capacity * FAIR_SHARE)
        };

        self.rate =
            (self.rate.min(capacity * 1.05) * if overflow { 0.85 } else { 0.95 }).max(least);
        self.hold_until = now + delay.min(MAX_HOLD) + ROUND;

        if delay > QUEUE_LIMIT * 8 {
            // A queue this long shows that the link has become slower, so forget its former
            // capacity.
            self.received.drain(..self.received.len().saturating_sub(2));
        }
    }
}

fn start_rate(ceiling: Option<Rate>) -> Rate {
    ceiling.map_or(START_RATE, |ceiling| ceiling.min(START_RATE))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the controller over a `link` with a queue, to a host that loses `loss` of the
    /// datagrams.
    fn converge(link: Rate, loss: f64, rounds: u32) -> Rate {
        let mut controller = Controller::new(Moment(0), None);
        let mut queue = 0f64;
        let mut now = Moment(0);
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
    fn a_pause_at_a_restart_does_not_take_the_rate_down_to_its_own() {
        let mut controller = Controller::new(Moment(0), None);
        let sample = |bytes: u64, delay: u64| Sample {
            bytes,
            over: ROUND,
            loss: 0.0,
            delay: Duration::from_millis(delay),
        };
        controller.restart(Moment(0));
        controller.sample(Moment(0) + ROUND, sample(3_000, 40));
        assert!(controller.rate() > Rate(START_RATE.0 / 5));
    }

    #[test]
    fn a_probe_finds_the_rate_again_within_a_few_rounds() {
        let link = Rate(200_000_000);
        let mut controller = Controller::new(Moment(0), None);
        let mut sample = |rounds: std::ops::Range<u64>, link: Rate, delay: u64, probe: bool| {
            for i in rounds {
                if probe {
                    controller.probe();
                }
                let sample = Sample {
                    bytes: link.min(controller.rate()).bytes_in(ROUND),
                    over: ROUND,
                    loss: 0.0,
                    delay: Duration::from_millis(delay),
                };
                controller.sample(Moment(i * 10_000_000), sample);
            }
            controller.rate()
        };

        let slow = Rate(link.0 / 10);
        assert!(sample(1..100, slow, 9, false) < Rate(slow.0 * 2));
        sample(100..101, link, 0, true);
        assert!(sample(101..110, link, 0, false) > link);
    }

    #[test]
    fn losses_of_a_relay_leave_no_cut_behind() {
        let mut controller = Controller::new(Moment(0), None);
        let link = Rate(200_000_000);
        let mut sample = |rounds: std::ops::Range<u64>, loss: f64| {
            for i in rounds {
                let sample = Sample {
                    bytes: link.min(controller.rate()).bytes_in(ROUND),
                    over: ROUND,
                    loss,
                    delay: Duration::ZERO,
                };
                controller.sample(Moment(i * 10_000_000), sample);
            }
            controller.rate()
        };

        sample(1..100, 0.0);
        assert!(sample(100..110, 0.3) < Rate(link.0 / 2));
        controller.undo_cuts();
        assert!(controller.rate() > Rate(link.0 / 10 * 9));
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
        let mut now = Moment(0);
        let mut bytes = 0u64;
        while now < Moment(1_000_000_000) {
            now = now.max(pacer.due())
                + Duration::from_micros(if bytes.is_multiple_of(7) { 900 } else { 1 });
            pacer.sent(now, 45_000, Rate(30_000_000), Duration::ZERO);
            bytes += 45_000;
        }

        assert!(bytes <= 30_000_000 / 8 + 90_000, "{bytes}");
    }
}
