//! Detects releases older than the host allows. An attacker who blocks datagrams keeps a host at an
//! old release, and no other check would notice.
//!
//! Owns the rate limit of the warning. Other uses of the age are up to callers.

use std::collections::BTreeMap;
use std::time::Duration;

use super::managed::ManagedTree;
use crate::id::TreeName;
use crate::units::{Moment, WallTime, shown_age, shown_duration};
use crate::wire::query::Stale;

/// Interval of checks without a query.
pub(super) const AGE_CHECK_INTERVAL: Duration = Duration::from_secs(24 * 3600);
/// Shortest interval between warnings caused by queries, which anyone can send.
const QUERY_WARNING_INTERVAL: Duration = Duration::from_secs(3600);

/// Time of the last warning for each tree.
#[derive(Debug, Default)]
pub(super) struct StaleWarnings {
    warned: BTreeMap<TreeName, Moment>,
}

/// Age of a tree's release if it exceeds the host's limit. A tree without a readable release is not
/// stale.
pub(super) fn stale(managed: &ManagedTree, now: WallTime) -> Option<Stale> {
    let max_age = managed.rules().max_age?;
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

impl StaleWarnings {
    /// Warns after a regular check.
    pub(super) fn on_check(&mut self, now: Moment, tree: &TreeName, stale: Option<Stale>) {
        if let Some(stale) = stale {
            self.warn(now, tree, stale);
        }
    }

    /// Warns after a query, within the rate limit.
    pub(super) fn on_query(&mut self, now: Moment, tree: &TreeName, stale: Option<Stale>) {
        if let Some(stale) = stale.filter(|_| self.allow(now, tree)) {
            self.warn(now, tree, stale);
        }
    }

    fn allow(&self, now: Moment, tree: &TreeName) -> bool {
        self.warned
            .get(tree)
            .is_none_or(|warned| now.since(*warned) >= QUERY_WARNING_INTERVAL)
    }

    fn warn(&mut self, now: Moment, tree: &TreeName, Stale { age, max_age }: Stale) {
        self.warned.insert(tree.clone(), now);
        tracing::warn!(
            "tree {tree}: its newest release was made {} ago, and max_age is {}: deploy again, \
            or see what keeps \
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
        let mut ages = StaleWarnings::default();
        let tree = TreeName::new("www").expect("legal");
        let at = |s: u64| Moment(0) + Duration::from_secs(s);
        let stale = Some(Stale { age: 2, max_age: 1 });
        ages.on_query(at(1), &tree, None);
        assert!(ages.allow(at(1), &tree));
        ages.on_check(at(1), &tree, stale);
        assert!(!ages.allow(at(2), &tree));
        let mut warned = 0;

        for second in 2..7200 {
            warned += u32::from(ages.allow(at(second), &tree));
            ages.on_query(at(second), &tree, stale);
        }

        assert_eq!(warned, 1);
    }
}
