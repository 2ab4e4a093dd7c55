//! Which hosts a release is for: globs on names. Most are a name with stars, which costs nothing to compare; for others
//! a matcher has to be compiled, and how often that is done for one address and for all is bounded, since nobody knows
//! yet whether the release is signed.

use std::net::IpAddr;
use std::time::Duration;

use crate::id::HostName;
use crate::manifest::Release;
use crate::units::Moment;

/// Compiled for one address in a second.
const EACH_A_SECOND: u32 = 2_000;
/// Compiled for all in a second: a few per cent of its time.
const ALL_A_SECOND: u32 = 4_000;
/// In what time they are counted.
const WINDOW: Duration = Duration::from_secs(1);
/// The most addresses that are counted apart.
const MAX_COUNTED: usize = 64;

/// Whether the release is addressed to the host `name`.
pub fn is_target(release: &Release, name: &HostName) -> bool {
    let targets = &release.header().targets;
    targets.is_empty() || targets.iter().any(|t| matches_name(t, name.as_str()))
}

/// Whether `pattern` (a glob with `*` and `?`, classes and alternatives) matches a host's name.
pub fn matches_name(pattern: &str, name: &str) -> bool {
    if is_costly(pattern) {
        globset::Glob::new(pattern).is_ok_and(|glob| glob.compile_matcher().is_match(name))
    } else {
        matches_stars(pattern.as_bytes(), name.as_bytes())
    }
}

/// Whether more than stars and question marks are in `pattern`.
pub(super) fn is_costly(pattern: &str) -> bool {
    pattern.contains(['[', ']', '{', '}', '\\'])
}

/// Names are ASCII; with each star it is enough to remember the last.
fn matches_stars(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n, mut star) = (0, 0, None);
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

/// What was spent on strangers in the present second.
#[derive(Debug, Default)]
pub(super) struct Effort {
    since: Moment,
    all: u32,
    each: Vec<(IpAddr, u32)>,
}

impl Effort {
    /// Whether `count` matchers may be compiled for `from`: who is refused is asked again by whoever means it.
    pub(super) fn may_spend(&mut self, now: Moment, from: IpAddr, count: u32) -> bool {
        if now.since(self.since) >= WINDOW {
            *self = Self {
                since: now,
                all: 0,
                each: Vec::new(),
            };
        }

        let known = self.each.iter().position(|(ip, _)| *ip == from);
        let spent = known.map_or(0, |at| self.each[at].1);
        if self.all + count > ALL_A_SECOND || spent + count > EACH_A_SECOND {
            return false;
        }

        match known {
            Some(at) => self.each[at].1 += count,
            None if self.each.len() < MAX_COUNTED => self.each.push((from, count)),
            None => return false,
        }

        self.all += count;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn stars_match_as_the_large_matcher_does(pattern in "[ab*?]{0,8}", name in "[ab]{0,8}") {
            let glob = globset::Glob::new(&pattern).expect("legal").compile_matcher();
            prop_assert_eq!(matches_stars(pattern.as_bytes(), name.as_bytes()), glob.is_match(&name), "{} {}", pattern, name);
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
    fn a_stranger_cannot_spend_our_time() {
        let (mut effort, from) = (Effort::default(), |n: u8| IpAddr::from([10, 0, 0, n]));
        let now = Moment(1) + WINDOW;
        let spent = (0..100)
            .filter(|_| effort.may_spend(now, from(1), 100))
            .count();
        assert_eq!(spent, 20);
        assert!(effort.may_spend(now, from(2), 10), "another address");

        let taken = (0..255)
            .filter(|n| effort.may_spend(now, from(*n), 1))
            .count();
        assert!(taken < MAX_COUNTED);
        assert!(effort.each.len() <= MAX_COUNTED);

        assert!(
            effort.may_spend(now + WINDOW, from(1), 100),
            "the next second"
        );
    }
}
