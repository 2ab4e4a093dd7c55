//! Matches a release's targets, patterns that select hosts.
//!
//! Compilation of a costly pattern is rate limited per address and in total, because the release's
//! signature is not verified yet.

use std::net::IpAddr;
use std::time::Duration;

use crate::id::{HostName, Labels, matches_host};
use crate::manifest::Release;
use crate::units::Moment;

/// Largest number of matchers compiled per address and second.
const MAX_MATCHERS_PER_ADDRESS: u32 = 2_000;
/// Largest number of matchers compiled per second: a few per cent of the CPU time.
const MAX_MATCHERS: u32 = 4_000;
/// Interval of the rate limit.
const BUDGET_INTERVAL: Duration = Duration::from_secs(1);
/// Largest number of addresses counted separately.
const MAX_COUNTED_ADDRESSES: usize = 64;

/// Returns true if the release is addressed to the host `name`. Without known `labels` it may have
/// any.
pub fn is_target(release: &Release, name: &HostName, labels: Option<&Labels>) -> bool {
    let targets = &release.header().targets;
    targets.is_empty() || targets.iter().any(|t| matches_host(t, name, labels))
}

/// Matchers compiled for unverified offers in the current second.
#[derive(Debug, Default)]
pub(super) struct MatcherBudget {
    since: Moment,
    total: u32,
    per_address: Vec<(IpAddr, u32)>,
}

impl MatcherBudget {
    /// Returns true if `count` matchers may be compiled for `from`. A legitimate sender that is
    /// refused announces again.
    pub(super) fn may_spend(&mut self, now: Moment, from: IpAddr, count: u32) -> bool {
        if now.since(self.since) >= BUDGET_INTERVAL {
            *self = Self {
                since: now,
                total: 0,
                per_address: Vec::new(),
            };
        }

        let known = self.per_address.iter().position(|(ip, _)| *ip == from);
        let spent = known.map_or(0, |at| self.per_address[at].1);
        if self.total + count > MAX_MATCHERS || spent + count > MAX_MATCHERS_PER_ADDRESS {
            return false;
        }

        match known {
            Some(at) => self.per_address[at].1 += count,
            None if self.per_address.len() < MAX_COUNTED_ADDRESSES => {
                self.per_address.push((from, count))
            }
            None => return false,
        }

        self.total += count;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unverified_offers_cannot_exhaust_the_budget() {
        let mut budget = MatcherBudget::default();
        let from = |n: u8| IpAddr::from([10, 0, 0, n]);
        let now = Moment(1) + BUDGET_INTERVAL;
        let spent = (0..100)
            .filter(|_| budget.may_spend(now, from(1), 100))
            .count();
        assert_eq!(spent, 20);
        assert!(budget.may_spend(now, from(2), 10), "another address");

        let taken = (0..255)
            .filter(|n| budget.may_spend(now, from(*n), 1))
            .count();
        assert!(taken < MAX_COUNTED_ADDRESSES);
        assert!(budget.per_address.len() <= MAX_COUNTED_ADDRESSES);

        assert!(
            budget.may_spend(now + BUDGET_INTERVAL, from(1), 100),
            "the next second"
        );
    }
}
