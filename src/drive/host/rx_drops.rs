//! Watches the losses of a host's receive buffers, and logs them before anyone wonders about a slow
//! deploy.

use std::time::Duration;

use crate::doctor::buffer::advice;
use crate::net::LinkSet;
use crate::units::Moment;

/// Shortest interval between readings of the kernel's counter.
const POLL_INTERVAL_MIN: Duration = Duration::from_millis(20);
/// Shortest interval between log lines.
const WARNING_INTERVAL: Duration = Duration::from_secs(10);

/// Losses so far.
#[derive(Debug)]
pub struct ReceiveDrops {
    asked: Moment,
    total: u64,
    /// Losses logged so far, and the time of the last line.
    said: u64,
    said_at: Option<Moment>,
}

impl ReceiveDrops {
    /// A counter without losses.
    pub fn new(now: Moment) -> Self {
        Self {
            asked: now,
            total: 0,
            said: 0,
            said_at: None,
        }
    }

    /// Reads the kernel's counter if an interval has passed. Returns the losses since the start if
    /// there are new ones.
    pub fn poll(&mut self, now: Moment, links: &LinkSet) -> Option<u64> {
        if now.since(self.asked) < POLL_INTERVAL_MIN {
            return None;
        }

        self.asked = now;
        let total = links.drops().ok().filter(|total| *total > self.total)?;
        self.total = total;

        if let Some(lost) = self.unlogged(now) {
            let advice = advice(links.recv_buffer())
                .unwrap_or_else(|| "this host does not read in time".to_string());
            tracing::warn!(
                "{lost} packets were lost in the receive buffer of {}: {advice}",
                links.names()
            );
        }

        Some(total)
    }

    /// Number of losses to log now.
    fn unlogged(&mut self, now: Moment) -> Option<u64> {
        if self
            .said_at
            .is_some_and(|at| now.since(at) < WARNING_INTERVAL)
        {
            return None;
        }
        self.said_at = Some(now);
        let before = std::mem::replace(&mut self.said, self.total);
        Some(self.total - before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Family, Link, LinkConfig, SendOutcome, choose};

    #[test]
    fn losses_of_a_tiny_buffer_are_counted() {
        let Ok(lo) = choose(Some("lo"), Family::V4) else {
            return crate::skip::skipped("no loopback interface");
        };

        let port = crate::net::testing::free_port();
        let group = "224.0.0.108".parse().expect("legal");
        let config = LinkConfig {
            port,
            recv_buffer: 1,
            ..LinkConfig::new(lo, group)
        };

        let (Ok(sender), Ok(host)) = (Link::open(&config), Link::open(&config)) else {
            return crate::skip::skipped("no multicast on loopback here");
        };

        let links = LinkSet::from(host);
        let at = |ms: u64| Moment(1_000_000_000) + Duration::from_millis(ms);
        let mut drops = ReceiveDrops::new(at(0));
        assert_eq!(drops.poll(at(50), &links), None);

        for _ in 0..64 {
            assert_eq!(
                sender
                    .send(sender.group(), &[7; 1400], 1400)
                    .expect("sends"),
                SendOutcome::Sent
            );
        }

        assert_eq!(drops.poll(at(60), &links), None, "not so soon");
        let lost = drops.poll(at(100), &links).expect("some are lost");
        assert!(lost > 0 && drops.said == lost);

        assert_eq!(drops.poll(at(200), &links), None, "no more than before");
    }

    #[test]
    fn losses_are_logged_seldom_and_none_is_left_out() {
        let mut drops = ReceiveDrops::new(Moment(0));
        let at = |s: u64| Moment(0) + Duration::from_secs(s);
        drops.total = 5;
        assert_eq!(drops.unlogged(at(1)), Some(5));
        drops.total = 9;
        assert_eq!(drops.unlogged(at(2)), None);
        assert_eq!(drops.unlogged(at(12)), Some(4));
    }
}
