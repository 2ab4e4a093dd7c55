//! Comparing the same tree again: where neither the tree nor the release has changed since the last comparison, what it
//! found holds still, and only pages that one of the two changed are read.

#[cfg(test)]
mod tests;

use std::ops::RangeInclusive;
use std::sync::Arc;

use super::compare::{Met, Parts, compare};
use super::guard::Owners;
use super::{
    Action, Change, Have, HostRules, LocalOwner, Paged, Plan, Refusal, Shape, Want, unreadable,
};
use crate::block::BlockRef;
use crate::manifest::pages::{PageKey, Pages, differing, union};
use crate::manifest::read::{Located, Manifest, NodeSource};
use crate::manifest::rules::{Exclude, Rules};
use crate::manifest::{Content, NodeRef, Owner, Top, TreePath};

/// With more differences than this a comparison is not remembered.
const MAX_CHANGED: usize = 10_000;

/// What the last comparison of one tree came to. It holds names of pages, not what is in them.
#[derive(Debug, Default)]
pub struct Memory {
    last: Option<Last>,
}

#[derive(Debug)]
struct Last {
    have: Vec<PageKey>,
    root: NodeRef,
    want: Vec<PageKey>,
    rules: Rules,
    protect: Vec<Vec<Exclude>>,
    owners: Vec<(Arc<Owner>, LocalOwner)>,
    links: bool,
    /// The paths that differed.
    changed: Vec<TreePath>,
}

/// A manifest with the table of its pages.
struct Paginated<'a, S> {
    manifest: &'a Manifest<S>,
    pages: Pages,
}

impl Memory {
    /// As [`super::diff`], for the tree whose memory this is.
    pub fn diff<S: NodeSource>(
        &mut self,
        have: &dyn Have,
        want: &Manifest<S>,
        rules: &Rules,
        scope: &[TreePath],
        host: &HostRules<'_>,
    ) -> Result<Plan, Refusal> {
        let last = self.last.take();
        let Some(paged) = have.paged().filter(|_| scope.is_empty()) else {
            self.last = last;
            return super::diff(have, want, rules, scope, host);
        };

        let paginated = Paginated {
            manifest: want,
            pages: Pages::of(want).map_err(unreadable)?,
        };

        let keys = paged.keys();
        let again = match &last {
            Some(last) if last.holds(rules, host) => {
                paginated.compare_again(last, have, paged, &keys, rules, host)?
            }
            _ => None,
        };

        let (plan, met) = match again {
            Some(found) => found,
            None => compare(have, want, rules, scope, host, None)?,
        };

        if plan.changes.len() + met.timeless.len() <= MAX_CHANGED {
            self.last = Some(Last {
                have: keys,
                root: *want.root(),
                want: paginated.pages.keys(want).map_err(unreadable)?,
                rules: rules.clone(),
                protect: host.patterns(),
                owners: met.owners,
                links: met.links,
                changed: plan
                    .changes
                    .iter()
                    .map(|c| c.path.clone())
                    .chain(met.timeless)
                    .collect(),
            });
        }

        Ok(plan)
    }
}

impl Last {
    /// Whether what it found would be found now, in the same tree and release.
    fn holds(&self, rules: &Rules, host: &HostRules<'_>) -> bool {
        let mut owners = Owners::new(rules, host.owners);
        self.rules == *rules
            && self.protect == host.patterns()
            && self
                .owners
                .iter()
                .all(|(owner, local)| owners.local_at(owner, &"").is_ok_and(|now| now == *local))
    }
}

impl<S: NodeSource> Paginated<'_, S> {
    /// The comparison of what may differ; `None` when that cannot be told apart from the rest.
    fn compare_again(
        &self,
        last: &Last,
        have: &dyn Have,
        paged: &dyn Paged,
        keys: &[PageKey],
        rules: &Rules,
        host: &HostRules<'_>,
    ) -> Result<Option<(Plan, Met)>, Refusal> {
        self.pages.learn(&last.want);
        let want = if *self.manifest.root() == last.root {
            last.want.clone()
        } else {
            self.pages.keys(self.manifest).map_err(unreadable)?
        };

        let mut ranges = differing(&last.have, keys);
        ranges.extend(differing(&last.want, &want));
        ranges.extend(last.changed.iter().map(|path| path.clone()..=path.clone()));
        let ranges = union(ranges);
        let parts = Parts {
            have: paged,
            want: &|range| self.pages.within(self.manifest, range).map_err(unreadable),
            ranges: &ranges,
            wanted: self.manifest.root().entries,
        };

        let (plan, met) = compare(have, self, rules, &[], host, Some(&parts))?;
        let links = met.links || last.links;

        // What further names lead to may be gone, wherever they are.
        let is_gone = |c: &Change| c.want.is_none() && c.was != Some(Shape::Directory);
        if links && plan.changes.iter().any(|c| is_gone(&c)) {
            return Ok(None);
        }

        // Further names of a file that is made anew, or may be copied, are linked again, wherever they are.
        let is_file =
            |c: &Change| c.is_applied() && c.want.is_some() && c.shape() != Shape::Directory;
        let relinks = links && plan.changes.iter().any(|c| is_file(&c));
        let beyond = |dir: &TreePath| {
            [keys, &want]
                .into_iter()
                .any(|keys| !is_covered(keys, dir, &ranges))
        };

        if relinks || plan.changes.iter().filter(is_lost).any(|c| beyond(&c.path)) {
            return Ok(None);
        }

        let mut owners = last.owners.clone();
        owners.extend(
            met.owners
                .into_iter()
                .filter(|(owner, _)| last.owners.iter().all(|(known, _)| known != owner)),
        );

        Ok(Some((
            plan,
            Met {
                owners,
                links,
                ..met
            },
        )))
    }
}

/// Whether a directory goes, or may go, so that everything in it matters.
fn is_lost(change: &Change) -> bool {
    change.was == Some(Shape::Directory) && !matches!(change.action, Action::Meta | Action::Update)
}

/// Whether all pages that have something below `dir` lie within the ranges.
fn is_covered(keys: &[PageKey], dir: &TreePath, ranges: &[RangeInclusive<TreePath>]) -> bool {
    let touches = |key: &&PageKey| {
        let (first, last) = (key.bounds.start(), key.bounds.end());
        first.is_within(dir) || (first <= dir && last >= dir)
    };

    let covered = |key: &PageKey| {
        ranges
            .iter()
            .any(|r| r.start() <= key.bounds.start() && r.end() >= key.bounds.end())
    };

    keys.iter().filter(touches).all(covered)
}

impl<S: NodeSource> Want for Paginated<'_, S> {
    fn entries(&self) -> Box<dyn Iterator<Item = crate::Result<Located>> + '_> {
        Want::entries(self.manifest)
    }

    fn blocks(&self, content: &Content) -> crate::Result<Vec<BlockRef>> {
        Want::blocks(self.manifest, content)
    }

    fn top(&self) -> Option<&Top> {
        Want::top(self.manifest)
    }

    fn no_link_target<'p>(
        &self,
        paths: &mut dyn Iterator<Item = &'p TreePath>,
    ) -> crate::Result<Option<&'p TreePath>> {
        super::no_link_target(self.manifest, &self.pages, paths)
    }
}
