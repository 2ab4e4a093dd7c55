//! Matches a release's targets, globs on host names.
//!
//! Most targets use stars only and cost nothing to match. Other patterns need a compiled matcher.
//! Compilation is rate limited per address and in total, because the release's signature is not
//! verified yet.

use std::net::IpAddr;
use std::time::Duration;

use crate::id::HostName;
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

/// Returns true if the release is addressed to the host `name`.
pub fn is_target(release: &Release, name: &HostName) -> bool {
    let targets = &release.header().targets;
    targets.is_empty() || targets.iter().any(|t| matches_name(t, name.as_str()))
}

/// Returns true if `pattern` (a glob with `*` and `?`, classes and alternatives) matches a host's
/// name.
pub fn matches_name(pattern: &str, name: &str) -> bool {
    if is_costly(pattern) {
        globset::Glob::new(pattern).is_ok_and(|glob| glob.compile_matcher().is_match(name))
    } else {
        matches_stars(pattern.as_bytes(), name.as_bytes())
    }
}

/// Returns true if `pattern` uses more than stars and question marks.
pub(super) fn is_costly(pattern: &str) -> bool {
    pattern.contains(['[', ']', '{', '}', '\\'])
}

/// Matches ASCII names by backtracking to the last star, which is enough.
fn matches_stars(pattern: &[u8], name: &[u8]) -> bool {
    let mut p = 0;
    let mut n = 0;
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&c) if c == b'?' || c == name[n] => (p, n) = (p + 1, n + 1),
            _ => {
                let Some((at, from)) = star else { return false };
                star = Some((at, from + 1));
                (p, n) = (at + 1, from + 1);
            }
        }
    }

    pattern[p..].iter().all(|&c| c == b'*')
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
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn stars_match_as_in_globset(pattern in "[ab*?]{0,8}", name in "[ab]{0,8}") {
            let glob = globset::Glob::new(&pattern).expect("legal").compile_matcher();
            let matches = matches_stars(pattern.as_bytes(), name.as_bytes());
            prop_assert_eq!(matches, glob.is_match(&name), "{} {}", pattern, name);
        }
    }

    #[test]
    fn classes_and_alternatives_match_too() {
        assert!(matches_name("web[1-3]", "web2") && !matches_name("web[1-3]", "web4"));
        assert!(matches_name("{web,db}*", "db1") && !matches_name("{web,db}*", "ci"));
        assert!(
            matches_name("web*.example", "web1.example")
                && !matches_name("web*.example", "web1.other")
        );
    }

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
