//! Incremental comparison of one tree. While tree and release stay the same, the last result holds;
//! otherwise only the pages that changed on either side are read.

#[cfg(test)]
mod tests;

use std::ops::RangeInclusive;
use std::sync::Arc;

use super::compare::{ChangedRanges, compare};
use super::permitted::Owners;
use super::walk::Findings;
use super::{
    Action, Change, Have, HostRules, LocalOwner, Paged, Plan, Refusal, Shape, Want, unreadable,
};
use crate::block::BlockRef;
use crate::manifest::pages::{PageKey, Pages, differing, union};
use crate::manifest::read::{Located, Manifest, NodeSource};
use crate::manifest::rules::{Exclude, Rules};
use crate::manifest::{Content, NodeRef, Owner, Top, TreePath};

/// Largest number of differences in a remembered comparison.
const MAX_REMEMBERED_CHANGES: usize = 10_000;

/// Result of the last comparison of one tree. It holds hashes of pages, not their content.
#[derive(Debug, Default)]
pub struct Memory {
    last: Option<LastComparison>,
}

#[derive(Debug)]
struct LastComparison {
    have: Vec<PageKey>,
    root: NodeRef,
    want: Vec<PageKey>,
    rules: Rules,
    protect: Vec<Vec<Exclude>>,
    owners: Vec<(Arc<Owner>, LocalOwner)>,
    links: bool,
    /// Paths that differed.
    changed: Vec<TreePath>,
}

/// A manifest with the table of its pages.
struct Paginated<'a, S> {
    manifest: &'a Manifest<S>,
    pages: Pages,
}

impl Memory {
    /// Same as [`super::diff`], for the tree of this memory.
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
        let incremental = match &last {
            Some(last) if last.holds(rules, host) => {
                paginated.compare_changed(last, have, paged, &keys, rules, host)?
            }
            _ => None,
        };

        let (plan, findings) = match incremental {
            Some(found) => found,
            None => compare(have, want, rules, scope, host, None)?,
        };

        if plan.changes.len() + findings.ignored_times.len() <= MAX_REMEMBERED_CHANGES {
            self.last = Some(LastComparison {
                have: keys,
                root: *want.root(),
                want: paginated.pages.keys(want).map_err(unreadable)?,
                rules: rules.clone(),
                protect: host.patterns(),
                owners: findings.owners,
                links: findings.links,
                changed: plan
                    .changes
                    .iter()
                    .map(|c| c.path.clone())
                    .chain(findings.ignored_times)
                    .collect(),
            });
        }

        Ok(plan)
    }
}

impl LastComparison {
    /// Returns true if a comparison of the same tree and release would have the same result now.
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
    /// Compares the parts that may differ; `None` if the difference may reach beyond those parts.
    fn compare_changed(
        &self,
        last: &LastComparison,
        have: &dyn Have,
        paged: &dyn Paged,
        keys: &[PageKey],
        rules: &Rules,
        host: &HostRules<'_>,
    ) -> Result<Option<(Plan, Findings)>, Refusal> {
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
        let parts = ChangedRanges {
            have: paged,
            want: &|range| self.pages.within(self.manifest, range).map_err(unreadable),
            ranges: &ranges,
            wanted: self.manifest.root().entries,
        };

        let (plan, findings) = compare(have, self, rules, &[], host, Some(&parts))?;
        let links = findings.links || last.links;

        // Hard links anywhere in the tree may lead to a removed file.
        let is_gone = |c: &Change| c.want.is_none() && c.was != Some(Shape::Directory);
        if links && plan.changes.iter().any(|c| is_gone(&c)) {
            return Ok(None);
        }

        // Hard links to a new or copied file are linked again, anywhere in the tree.
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
            findings
                .owners
                .into_iter()
                .filter(|(owner, _)| last.owners.iter().all(|(known, _)| known != owner)),
        );

        Ok(Some((
            plan,
            Findings {
                owners,
                links,
                ..findings
            },
        )))
    }
}

/// Returns true if a directory goes, or may go, so that everything inside matters.
fn is_lost(change: &Change) -> bool {
    change.was == Some(Shape::Directory) && !matches!(change.action, Action::Meta | Action::Update)
}

/// Returns true if all pages with entries below `dir` lie within the ranges.
fn is_covered(keys: &[PageKey], dir: &TreePath, ranges: &[RangeInclusive<TreePath>]) -> bool {
    let touches = |key: &&PageKey| {
        let first = key.bounds.start();
        let last = key.bounds.end();
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
