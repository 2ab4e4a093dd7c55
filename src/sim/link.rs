//! Links, which lose, delay, duplicate and alter datagrams.

use std::time::Duration;

use crate::units::{Moment, Rate};

/// Link into one host.
#[derive(Debug, Clone)]
pub struct LinkSetup {
    /// Share of datagrams lost at random, 0 to 1.
    pub loss: f64,
    /// Chance that a burst of losses begins at a datagram; a burst ends with chance 1/20 at each
    /// one.
    pub burst: f64,
    /// Share of datagrams that arrive twice.
    pub duplicate: f64,
    /// Minimum delay.
    pub delay: Duration,
    /// Random extra delay of each datagram, which reorders datagrams.
    pub jitter: Duration,
    /// Rate of the link, and capacity of its queue in bytes.
    pub rate: Option<(Rate, u64)>,
    /// Largest datagram that passes, in bytes.
    pub mtu: Option<usize>,
    /// Share of datagrams preceded by an altered copy from an attacker.
    pub forged: f64,
}

impl Default for LinkSetup {
    fn default() -> Self {
        Self {
            loss: 0.0,
            burst: 0.0,
            duplicate: 0.0,
            delay: Duration::from_micros(50),
            jitter: Duration::ZERO,
            rate: None,
            mtu: None,
            forged: 0.0,
        }
    }
}

/// Returns a malicious copy of `bytes`: altered bits or numbers, cut short, or extended.
pub(super) fn forge(bytes: &[u8], rng: &mut fastrand::Rng) -> Vec<u8> {
    let mut forged = bytes.to_vec();
    for _ in 0..rng.usize(1..4) {
        let at = rng.usize(..forged.len().max(1));
        let end = (at + rng.usize(1..9)).min(forged.len());
        let len = forged.len();
        match rng.u8(..8) {
            0 => forged.truncate(at),
            1 => forged.resize(len + rng.usize(..64), rng.u8(..)),
            2 => forged[at.min(len)..end].fill(0xff),
            3 => forged[at.min(len)..end].fill(0),
            // A number in the front or in a symbol's header.
            4 | 5 if len > 44 => {
                let at = rng.usize(12..44);
                forged[at] = rng.u8(..);
            }
            _ => forged[at.min(len)..end]
                .iter_mut()
                .for_each(|byte| *byte ^= 1 << rng.u8(..8)),
        }
    }

    forged
}

/// A link with its state.
#[derive(Debug, Clone)]
pub(super) struct LinkState {
    pub(super) link: LinkSetup,
    in_burst: bool,
    /// Time at which the last queued byte will have passed.
    busy: Moment,
}

impl LinkState {
    pub(super) fn new(link: LinkSetup) -> Self {
        Self {
            link,
            in_burst: false,
            busy: Moment(0),
        }
    }

    /// Returns the times of arrival of a datagram of `bytes` sent at `now`: none, one or two.
    pub(super) fn pass(
        &mut self,
        now: Moment,
        bytes: usize,
        rng: &mut fastrand::Rng,
    ) -> [Option<Moment>; 2] {
        if self.link.mtu.is_some_and(|mtu| bytes > mtu) {
            return [None; 2];
        }

        if self.in_burst {
            self.in_burst = rng.f64() >= 0.05;
        } else if rng.f64() < self.link.burst {
            self.in_burst = true;
        }

        if self.in_burst || rng.f64() < self.link.loss {
            return [None; 2];
        }

        let mut start = now;
        if let Some((rate, queue)) = self.link.rate {
            if rate.bytes_in(self.busy.since(now)) + bytes as u64 > queue {
                return [None; 2];
            }
            self.busy = self.busy.max(now) + rate.time_for(bytes as u64);
            start = self.busy;
        }

        let twice = rng.f64() < self.link.duplicate;
        let mut arrival = || start + self.link.delay + self.link.jitter.mul_f64(rng.f64());
        [Some(arrival()), twice.then(arrival)]
    }
}
