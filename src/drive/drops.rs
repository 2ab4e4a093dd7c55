//! Watches what a host's receive buffers lose, and says so before anybody wonders why a deploy is slow.

use std::time::Duration;

use crate::net::{DEFAULT_RECV_BUFFER, LinkSet};
use crate::units::{ByteSize, Moment};

/// How often the kernel is asked at most.
const ASK: Duration = Duration::from_millis(20);
/// How often losses are logged at most.
const SAY: Duration = Duration::from_secs(10);

/// The losses so far.
#[derive(Debug)]
pub struct Drops {
    asked: Moment,
    total: u64,
    /// What was logged, and when.
    said: u64,
    said_at: Option<Moment>,
}

impl Drops {
    /// Nothing is lost yet.
    pub fn new(now: Moment) -> Self {
        Self {
            asked: now,
            total: 0,
            said: 0,
            said_at: None,
        }
    }

    /// Asks the kernel, unless it was asked just now; the packets lost since the start when there are more than before.
    pub fn look(&mut self, now: Moment, links: &LinkSet) -> Option<u64> {
        if now.since(self.asked) < ASK {
            return None;
        }

        self.asked = now;
        let total = links.drops().ok().filter(|total| *total > self.total)?;
        self.total = total;

        if let Some(lost) = self.unsaid(now) {
            let advice = advice(links.recv_buffer())
                .unwrap_or_else(|| "this host does not read in time".to_string());
            tracing::warn!(
                "{lost} packets were lost in the receive buffer of {}: {advice}",
                links.names()
            );
        }

        Some(total)
    }

    /// How many packets are to be logged now.
    fn unsaid(&mut self, now: Moment) -> Option<u64> {
        if self.said_at.is_some_and(|at| now.since(at) < SAY) {
            return None;
        }
        self.said_at = Some(now);
        let before = std::mem::replace(&mut self.said, self.total);
        Some(self.total - before)
    }
}

/// What to do about a receive buffer of `granted` bytes; none when it is about as large as it should be.
pub fn advice(granted: usize) -> Option<String> {
    (granted < DEFAULT_RECV_BUFFER / 2).then(|| {
        let (granted, asked) = (ByteSize(granted as u64), ByteSize(DEFAULT_RECV_BUFFER as u64));
        format!(
            "the kernel grants {granted} of {asked}; raise it: sysctl -w net.core.rmem_max={DEFAULT_RECV_BUFFER}, \
             then restart makuo"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Family, Link, LinkConfig, SendOutcome, choose};

    #[test]
    fn a_tiny_buffer_is_advised_about_and_its_losses_are_counted() {
        assert_eq!(advice(DEFAULT_RECV_BUFFER), None);
        assert!(advice(212_992).is_some_and(|text| text.contains("net.core.rmem_max=16777216")));
        let Ok(lo) = choose(Some("lo"), Family::V4) else {
            return eprintln!("skipped: no loopback interface");
        };

        let port = crate::net::testing::free_port();
        let group = "224.0.0.108".parse().expect("legal");
        let config = LinkConfig {
            port,
            recv_buffer: 1,
            ..LinkConfig::new(lo, group)
        };

        let (Ok(sender), Ok(host)) = (Link::open(&config), Link::open(&config)) else {
            return eprintln!("skipped: no multicast on loopback here");
        };

        let (links, at) = (LinkSet::from(host), |ms: u64| {
            Moment(1_000_000_000) + Duration::from_millis(ms)
        });
        let mut drops = Drops::new(at(0));
        assert_eq!(drops.look(at(50), &links), None);

        for _ in 0..64 {
            assert_eq!(
                sender
                    .send(sender.group(), &[7; 1400], 1400)
                    .expect("sends"),
                SendOutcome::Sent
            );
        }

        assert_eq!(drops.look(at(60), &links), None, "not so soon");
        let lost = drops.look(at(100), &links).expect("some are lost");
        assert!(lost > 0 && drops.said == lost);

        assert_eq!(drops.look(at(200), &links), None, "no more than before");
    }

    #[test]
    fn losses_are_logged_seldom_and_none_is_left_out() {
        let mut drops = Drops::new(Moment(0));
        let at = |s: u64| Moment(0) + Duration::from_secs(s);
        drops.total = 5;
        assert_eq!(drops.unsaid(at(1)), Some(5));
        drops.total = 9;
        assert_eq!(drops.unsaid(at(2)), None);
        assert_eq!(drops.unsaid(at(12)), Some(4));
    }
}
