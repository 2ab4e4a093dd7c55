//! Whether a tree's release is older than its host lets it be: whoever can keep datagrams from a host keeps it at an old
//! release that way, and nothing else would tell.
//!
//! Owns how often that is said in the log. Who is told besides is its users' business.

use std::collections::BTreeMap;
use std::time::Duration;

use super::disk::ManagedTree;
use crate::id::TreeName;
use crate::units::{Moment, WallTime, shown_age, shown_duration};
use crate::wire::query::Stale;

/// How often it is looked without anybody's asking.
pub(super) const EVERY: Duration = Duration::from_secs(24 * 3600);
/// How often it is said at most when somebody asks: anybody can.
const ASKED: Duration = Duration::from_secs(3600);

/// What was said of which tree.
#[derive(Debug, Default)]
pub(super) struct Ages {
    said: BTreeMap<TreeName, Moment>,
}

/// How old the release of a tree is, when that is more than its host allows. A tree without a release has none that is
/// old; one that cannot be read is another's trouble.
pub(super) fn stale(managed: &ManagedTree, now: WallTime) -> Option<Stale> {
    let max_age = managed.max_age?;
    let newest = managed.tree.current().ok().flatten()?;
    older(newest.release.header().created, now, max_age)
}

fn older(created: WallTime, now: WallTime, max_age: Duration) -> Option<Stale> {
    let age = u64::try_from(now.0.saturating_sub(created.0)).unwrap_or(0);
    (age > max_age.as_secs()).then_some(Stale {
        age,
        max_age: max_age.as_secs(),
    })
}

impl Ages {
    /// At the start, and once in [`EVERY`].
    pub(super) fn looked(&mut self, now: Moment, tree: &TreeName, stale: Option<Stale>) {
        if let Some(stale) = stale {
            self.say(now, tree, stale);
        }
    }

    /// Somebody asked for the state of the tree.
    pub(super) fn asked(&mut self, now: Moment, tree: &TreeName, stale: Option<Stale>) {
        if let Some(stale) = stale.filter(|_| self.may_say(now, tree)) {
            self.say(now, tree, stale);
        }
    }

    fn may_say(&self, now: Moment, tree: &TreeName) -> bool {
        self.said
            .get(tree)
            .is_none_or(|said| now.since(*said) >= ASKED)
    }

    fn say(&mut self, now: Moment, tree: &TreeName, Stale { age, max_age }: Stale) {
        self.said.insert(tree.clone(), now);
        tracing::warn!(
            "tree {tree}: its newest release was made {} ago, and max_age is {}: deploy again, or see what keeps \
             deploys from this host",
            shown_age(age),
            shown_duration(Duration::from_secs(max_age))
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_older_than_the_host_allows_is_told() {
        let day = Duration::from_secs(86_400);
        let age = |created: i64| older(WallTime(created), WallTime(1_000_000), day).map(|s| s.age);
        assert_eq!(age(1_000_000 - 86_400), None);
        assert_eq!(age(1_000_000 - 86_401), Some(86_401));
        assert_eq!(age(2_000_000), None, "of a clock ahead of ours");
        assert_eq!(age(i64::MIN), Some(i64::MAX as u64));
    }

    #[test]
    fn whoever_asks_however_often_causes_a_line_an_hour() {
        let (mut ages, tree) = (Ages::default(), TreeName::new("www").expect("legal"));
        let (at, stale) = (
            |s: u64| Moment(0) + Duration::from_secs(s),
            Some(Stale { age: 2, max_age: 1 }),
        );
        ages.asked(at(1), &tree, None);
        assert!(ages.may_say(at(1), &tree));
        ages.looked(at(1), &tree, stale);
        assert!(!ages.may_say(at(2), &tree));
        let mut said = 0;

        for second in 2..7200 {
            said += u32::from(ages.may_say(at(second), &tree));
            ages.asked(at(second), &tree, stale);
        }

        assert_eq!(said, 1);
    }
}
