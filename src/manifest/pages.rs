//! Table of the pages of a manifest. It finds a path by binary search, reads a part of the tree
//! alone, and compares two manifests by the pages that differ.

use std::cell::{OnceCell, RefCell};
use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;
use std::rc::Rc;

use super::TreePath;
use super::entry::EntryKind;
use super::node::{Node, NodeRef};
use super::read::{Located, LocatedEntries, MAX_DEPTH, Manifest, NodeSource, PathOrder, ReadError};
use crate::block::BlockHash;
use crate::recent::Recent;

/// Number of recently read pages kept for each manifest.
const RECENT_MANIFEST_PAGES: usize = 4;

/// A page by its hash, with the first and the last path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageKey {
    /// Hash of the page.
    pub hash: BlockHash,
    /// First and last path of the page.
    pub bounds: RangeInclusive<TreePath>,
}

/// The pages of one manifest, in order; empty for a manifest without entries. Pages are read on
/// demand.
#[derive(Debug)]
pub struct Pages {
    rows: Vec<Row>,
    /// Pages read last: callers request neighbouring paths one after the other.
    open: RefCell<Recent<(usize, Rc<[Located]>), RECENT_MANIFEST_PAGES>>,
}

#[derive(Debug)]
struct Row {
    node: NodeRef,
    /// Ordinal of the first block in the page.
    block: u64,
    bounds: OnceCell<RangeInclusive<TreePath>>,
}

impl Pages {
    /// Reads the indexes of `manifest` and lists its pages.
    pub fn of<S: NodeSource>(manifest: &Manifest<S>) -> Result<Self, ReadError> {
        let mut rows = Vec::new();
        let mut open = vec![(*manifest.root(), 0)];
        let mut block = manifest.root().nodes;
        while let Some((node, depth)) = open.pop() {
            // A page without lists is a leaf and recognized unread; a page with lists has to be
            // read.
            match if node.nodes > 1 {
                Some(manifest.decode(&node)?)
            } else {
                None
            } {
                Some(Node::Index(refs)) if depth < MAX_DEPTH => {
                    open.extend(refs.into_iter().rev().map(|node| (node, depth + 1)));
                }
                Some(Node::Page(_)) | None => {
                    if node.entries > 0 {
                        rows.push(Row {
                            node,
                            block,
                            bounds: OnceCell::new(),
                        });
                    }
                    block = block.saturating_add(node.blocks);
                }
                Some(_) => {
                    return Err(ReadError::Illegal("a list among pages, or too deep".into()));
                }
            }
        }

        Ok(Self {
            rows,
            open: RefCell::default(),
        })
    }

    /// Copies the bounds of pages that an earlier manifest shares.
    pub fn learn(&self, known: &[PageKey]) {
        let known: HashMap<BlockHash, &PageKey> = known.iter().map(|key| (key.hash, key)).collect();
        for row in &self.rows {
            if let Some(key) = known.get(&row.node.block.hash) {
                // A bound set earlier is the same, because the hash stands for the content.
                let _ = row.bounds.set(key.bounds.clone());
            }
        }
    }

    /// Returns all pages with their bounds, checked to rise; reads pages without known bounds.
    pub fn keys<S: NodeSource>(&self, manifest: &Manifest<S>) -> Result<Vec<PageKey>, ReadError> {
        let mut keys: Vec<PageKey> = Vec::with_capacity(self.rows.len());
        for at in 0..self.rows.len() {
            let bounds = self.bounds(manifest, at)?.clone();
            if keys
                .last()
                .is_some_and(|before| before.bounds.end() >= bounds.start())
            {
                return Err(ReadError::misplaced(bounds.start()));
            }
            keys.push(PageKey {
                hash: self.rows[at].node.block.hash,
                bounds,
            });
        }

        Ok(keys)
    }

    /// Returns the entry at `path`.
    pub fn find<S: NodeSource>(
        &self,
        manifest: &Manifest<S>,
        path: &TreePath,
    ) -> Result<Option<Located>, ReadError> {
        let Some(row) = self.row_of(manifest, path)? else {
            return Ok(None);
        };

        let page = self.page(manifest, row)?;
        Ok(page
            .binary_search_by(|located| located.entry.path.cmp(path))
            .ok()
            .map(|at| page[at].clone()))
    }

    /// Returns the entries within `bounds`, checked like those of a whole manifest: every path
    /// rises, and every parent is a directory of the manifest.
    pub fn within<S: NodeSource>(
        &self,
        manifest: &Manifest<S>,
        bounds: &RangeInclusive<TreePath>,
    ) -> Result<Vec<Located>, ReadError> {
        let all = self.some(manifest, bounds)?;
        let Some(start) = all.first() else {
            return Ok(all);
        };

        let mut above = Vec::new();
        let mut parent = start.entry.path.parent();
        while let Some(dir) = parent {
            let found = self.find(manifest, &dir)?;
            if !found.is_some_and(|l| matches!(l.entry.kind, EntryKind::Directory)) {
                return Err(ReadError::parentless(&start.entry.path));
            }
            parent = dir.parent();
            above.push(dir);
        }

        above.reverse();
        let mut order = PathOrder::below(above);
        all.iter()
            .try_for_each(|located| order.check(&located.entry))?;

        Ok(all)
    }

    /// Returns the entries within `bounds`, unchecked.
    pub fn some<S: NodeSource>(
        &self,
        manifest: &Manifest<S>,
        bounds: &RangeInclusive<TreePath>,
    ) -> Result<Vec<Located>, ReadError> {
        let Some(first) = self.row_from(manifest, bounds.start())? else {
            return Ok(Vec::new());
        };

        let mut all = Vec::new();
        for row in first..self.rows.len() {
            if self.bounds(manifest, row)?.start() > bounds.end() {
                break;
            }
            all.extend(
                self.page(manifest, row)?
                    .iter()
                    .filter(|l| bounds.contains(&l.entry.path))
                    .cloned(),
            );
        }

        Ok(all)
    }

    /// Returns the entries of one page; the pages read last are cached.
    fn page<S: NodeSource>(
        &self,
        manifest: &Manifest<S>,
        row: usize,
    ) -> Result<Rc<[Located]>, ReadError> {
        if let Some((_, page)) = self.open.borrow_mut().find(|(open, _)| *open == row) {
            return Ok(Rc::clone(page));
        }

        let page: Rc<[Located]> = self.read(manifest, row)?.into();
        self.open.borrow_mut().add((row, Rc::clone(&page)));

        Ok(page)
    }

    fn read<S: NodeSource>(
        &self,
        manifest: &Manifest<S>,
        row: usize,
    ) -> Result<Vec<Located>, ReadError> {
        let row = &self.rows[row];
        let Node::Page(entries) = manifest.decode(&row.node)? else {
            return Err(ReadError::Illegal("an index among pages".into()));
        };

        Ok(LocatedEntries::new(entries, row.block).collect())
    }

    fn bounds<S: NodeSource>(
        &self,
        manifest: &Manifest<S>,
        row: usize,
    ) -> Result<&RangeInclusive<TreePath>, ReadError> {
        let found = &self.rows[row];
        if let Some(bounds) = found.bounds.get() {
            return Ok(bounds);
        }

        let page = self.page(manifest, row)?;
        let (Some(first), Some(last)) = (page.first(), page.last()) else {
            return Err(ReadError::Illegal("an empty page".into()));
        };

        Ok(found
            .bounds
            .get_or_init(|| first.entry.path.clone()..=last.entry.path.clone()))
    }

    /// Returns the page with `path`, if any.
    fn row_of<S: NodeSource>(
        &self,
        manifest: &Manifest<S>,
        path: &TreePath,
    ) -> Result<Option<usize>, ReadError> {
        let Some(row) = self.row_from(manifest, path)? else {
            return Ok(None);
        };
        Ok(self.bounds(manifest, row)?.contains(path).then_some(row))
    }

    /// Returns the first page that does not end before `path`.
    fn row_from<S: NodeSource>(
        &self,
        manifest: &Manifest<S>,
        path: &TreePath,
    ) -> Result<Option<usize>, ReadError> {
        let mut low = 0;
        let mut high = self.rows.len();
        while low < high {
            let middle = low + (high - low) / 2;
            match self.bounds(manifest, middle)?.end() < path {
                true => low = middle + 1,
                false => high = middle,
            }
        }

        Ok((low < self.rows.len()).then_some(low))
    }
}

/// Ranges of paths where two states of a sorted tree can differ: the bounds of pages that only one
/// of the two has. Sorted and disjoint.
pub fn differing(old: &[PageKey], new: &[PageKey]) -> Vec<RangeInclusive<TreePath>> {
    let names = |keys: &[PageKey]| keys.iter().map(|key| key.hash).collect::<HashSet<_>>();
    let had = names(old);
    let has = names(new);
    let gone = old.iter().filter(|key| !has.contains(&key.hash));
    let come = new.iter().filter(|key| !had.contains(&key.hash));
    union(gone.chain(come).map(|key| key.bounds.clone()).collect())
}

/// Merges overlapping ranges; the result is sorted.
pub fn union(mut ranges: Vec<RangeInclusive<TreePath>>) -> Vec<RangeInclusive<TreePath>> {
    ranges.sort_by(|a, b| a.start().cmp(b.start()));
    let mut out: Vec<RangeInclusive<TreePath>> = Vec::new();
    for range in ranges {
        match out.last_mut() {
            Some(last) if range.start() <= last.end() => {
                if range.end() > last.end() {
                    *last = last.start().clone()..=range.end().clone();
                }
            }
            _ => out.push(range),
        }
    }

    out
}

#[cfg(test)]
mod tests;
