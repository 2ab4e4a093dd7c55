//! One comparison, of everything or of the parts that can differ: the walk over both sides, limits
//! on deletions, and the search for blocks.

use std::ops::RangeInclusive;

use super::walk::{Findings, Walk, Walked};
use super::{Have, HostRules, Paged, Plan, Refusal, Want};
use crate::manifest::read::Located;
use crate::manifest::rules::{Layout, PathFilter};
use crate::manifest::{Rules, TreePath};

/// Plans the changes that turn the host's tree into the release `want`, under `rules` and within
/// `scope` (empty: everything).
pub fn diff(
    have: &dyn Have,
    want: &dyn Want,
    rules: &Rules,
    scope: &[TreePath],
    host: &HostRules<'_>,
) -> Result<Plan, Refusal> {
    compare(have, want, rules, scope, host, None).map(|(plan, _)| plan)
}

/// Ranges that can differ under a full scope, and the totals that a walk over everything would
/// count.
pub(super) struct ChangedRanges<'a> {
    pub(super) have: &'a dyn Paged,
    pub(super) want: &'a dyn Fn(&RangeInclusive<TreePath>) -> crate::Result<Vec<Located>>,
    pub(super) ranges: &'a [RangeInclusive<TreePath>],
    /// Number of entries of the release.
    pub(super) wanted: u64,
}

/// Compares everything, or parts.
pub(super) fn compare(
    have: &dyn Have,
    want: &dyn Want,
    rules: &Rules,
    scope: &[TreePath],
    host: &HostRules<'_>,
    parts: Option<&ChangedRanges<'_>>,
) -> Result<(Plan, Findings), Refusal> {
    let excluded = match rules.delete_excluded {
        true => Ok(PathFilter::default()),
        false => rules.excluded(),
    };

    let excluded = excluded.map_err(crate::Error::refused)?;
    let mut walk = Walk::new(want, rules, scope, host, &excluded);
    match parts {
        None => walk.join(have.entries(), want.entries())?,
        Some(parts) => {
            for range in parts.ranges {
                walk.enter(range.start());
                let ours = parts.have.within(range)?;
                let theirs = (parts.want)(range)?;
                walk.join(ours.into_iter().map(Ok), theirs.into_iter().map(Ok))?;
            }
            walk.set_totals(parts.have.count(), parts.wanted);
        }
    }

    let Walked {
        mut plan,
        needed,
        wanted,
        findings,
    } = walk.finish(have.top())?;

    if rules.layout == Layout::Swap {
        plan.alone = vec![host.protect.clone(), excluded.clone()];
    }

    plan.count();
    let is_empty = wanted == 0 && rules.delete_extras && !rules.allow_empty;
    let limits = match is_empty {
        true => Err(Refusal::Empty),
        false => check_limits(&plan, rules, host),
    };
    match limits {
        Err(refusal) if host.reports_limits => plan.over_limit = Some(refusal.with_remedy()),
        limits => limits?,
    }

    needed.find_in(have, &mut plan)?;
    Ok((plan, findings))
}

fn check_limits(plan: &Plan, rules: &Rules, host: &HostRules<'_>) -> Result<(), Refusal> {
    let would = plan.summary.deleted;
    let total = plan.summary.host_entries;
    let limits = [("release", rules.delete_max), ("host", host.max_delete)];
    match limits.into_iter().min_by_key(|(_, limit)| limit.of(total)) {
        Some((who, limit)) if would > limit.of(total) => Err(Refusal::TooManyDeletions {
            would,
            limit,
            who,
            total,
        }),
        _ => Ok(()),
    }
}
