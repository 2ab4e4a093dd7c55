//! Finds the touched paths of an index from hints, without a stat of every path.
//!
//! Hints must be complete unless a full comparison is requested too: unnamed paths count as
//! unchanged. Side effects of the kernel are added here: a missing directory takes everything below
//! along. [`super::changes`] adds the other names of an inode.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::sync::Arc;

use rustix::fs::FileType;

use super::compare::{Touched, compare, limit_of};
use super::ignore::IgnoreFilter;
use super::known_paths::paths_below;
use super::listing::stat_of;
use super::windows::ScanWindows;
use crate::manifest::{EntryKind, TreePath};
use crate::tree::fs::errors::is_gone;
use crate::tree::fs::root::Root;
use crate::tree::fs::stat::{FileStat, Version};
use crate::tree::index::{Index, IndexEntry};

/// Places where a tree may differ from its index.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hints {
    /// Paths that may have changed, appeared or vanished. A directory is checked for new names; a
    /// new path is scanned with everything below.
    pub paths: BTreeSet<TreePath>,
    /// Whether the root directory is checked for new names as well.
    pub top: bool,
    /// Files still being written. Indexed ones stay as recorded, others are left out.
    pub held: BTreeSet<TreePath>,
    /// Also compares all other paths except held ones, with an index made by these scans.
    pub everywhere: Option<ScanWindows>,
}

/// Paths to be described again.
#[derive(Debug)]
pub(super) struct TouchedPaths {
    /// Paths of the index, in order.
    pub(super) touched: Vec<Touched>,
    /// Whether the root directory may have new names.
    pub(super) top: bool,
}

/// Returns the touched paths of `index` according to `hints`; `None` if a walk is cheaper.
pub(super) fn touched_paths(
    root: &Root,
    index: &Index,
    hints: &Hints,
    filter: &IgnoreFilter,
    threads: usize,
) -> io::Result<Option<TouchedPaths>> {
    let mut search = Search {
        root,
        index,
        filter,
        page: (usize::MAX, Arc::default()),
        seen: HashSet::new(),
        touched: BTreeMap::new(),
        top: hints.top,
    };

    let limit = limit_of(index);
    if hints.everywhere.is_some() {
        let Some(found) = compare(root, index, threads, hints.everywhere.as_ref(), None)? else {
            return Ok(None);
        };
        search.touched = found
            .into_iter()
            .map(|touched| (touched.path.clone(), touched))
            .collect();
    }

    for path in &hints.paths {
        search.check(path, true)?;
        if search.touched.len() > limit {
            return Ok(None);
        }
    }

    if search.top && FileStat::of(root)?.version() != index.origin().top {
        search.check_children(None)?;
    }

    for path in &hints.held {
        // A path that is no longer a regular file cannot be held.
        if search
            .stat(path)?
            .is_some_and(|stat| stat.file_type == FileType::RegularFile)
        {
            search.touched.remove(path);
        }
    }

    Ok(Some(TouchedPaths {
        touched: search.touched.into_values().collect(),
        top: search.top,
    }))
}

struct Search<'a> {
    root: &'a Root,
    index: &'a Index,
    /// Patterns left out of the index.
    filter: &'a IgnoreFilter,
    /// Number and entries of the last page read.
    page: (usize, Arc<[IndexEntry]>),
    /// Paths already checked.
    seen: HashSet<TreePath>,
    /// Paths that may have changed.
    touched: BTreeMap<TreePath, Touched>,
    /// Whether the root directory may have new names.
    top: bool,
}

impl Search<'_> {
    /// Checks one path. A path that no hint names is touched only if its stat differs.
    fn check(&mut self, path: &TreePath, named: bool) -> io::Result<()> {
        if !self.seen.insert(path.clone()) {
            return Ok(());
        }

        let now = self.stat(path)?;
        let Some(known) = self.known(path)? else {
            self.check_parent(path)?;
            return now.map_or(Ok(()), |now| self.add(path, &now));
        };

        let version = known.version;
        let was_dir = is_dir(known);
        let same = now.as_ref().is_some_and(|now| now.version() == version);
        if same && !named {
            return Ok(());
        }

        self.touch(path, was_dir, &version);
        // The inode may have been reused by a new directory: touch everything below.
        let is_same = now.as_ref().is_some_and(|now| is_same_dir(now, &version));

        if was_dir && !is_same {
            self.touch_below(path)?;
        } else if was_dir && !same {
            self.check_children(Some(path))?;
        }

        self.check_parent(path)
    }

    fn touch(&mut self, path: &TreePath, was_dir: bool, version: &Version) {
        let touched = Touched {
            path: path.clone(),
            was_dir,
            inode: version.id(),
        };
        self.touched.insert(path.clone(), touched);
    }

    /// Returns the current stat of `path`; `None` if missing.
    fn stat(&self, path: &TreePath) -> io::Result<Option<FileStat>> {
        match stat_of(self.root, path) {
            Ok(stat) => Ok(Some(stat)),
            Err(e) if is_gone(&e) => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn known(&mut self, path: &TreePath) -> io::Result<Option<&IndexEntry>> {
        let Some(row) = self.index.row_of(path) else {
            return Ok(None);
        };

        self.open(row)?;
        let page = &self.page.1;
        Ok(page
            .binary_search_by(|found| found.entry.path.cmp(path))
            .ok()
            .map(|at| &page[at]))
    }

    fn open(&mut self, row: usize) -> io::Result<()> {
        if self.page.0 != row {
            self.page = (row, self.index.cached_page(row)?);
        }
        Ok(())
    }

    /// Checks the directory of `path`, or the nearest one above in the index.
    fn check_parent(&mut self, path: &TreePath) -> io::Result<()> {
        let mut above = path.parent();
        while let Some(dir) = above {
            if self.known(&dir)?.is_some() {
                return self.check(&dir, false);
            }
            above = dir.parent();
        }

        self.top = true;
        Ok(())
    }

    /// Adds a path missing from the index: touches its directory, even an unchanged one.
    fn add(&mut self, path: &TreePath, now: &FileStat) -> io::Result<()> {
        let is_dir = now.file_type == FileType::Directory;
        let mut left_out = self.filter.excludes(path, is_dir);
        let mut above = path.parent();
        while let Some(dir) = above.take_if(|_| !left_out) {
            if let Some(known) = self.known(&dir)? {
                let version = known.version;
                let was_dir = self::is_dir(known);
                self.touch(&dir, was_dir, &version);
                return Ok(());
            }
            left_out = self.filter.excludes(&dir, true);
            above = dir.parent();
        }

        self.top |= !left_out;
        Ok(())
    }

    /// Checks the indexed children of a directory with changed names.
    fn check_children(&mut self, dir: Option<&TreePath>) -> io::Result<()> {
        let mut children = Vec::new();
        let rows = self.index.rows();
        let mut row = dir.and_then(|dir| self.index.row_of(dir)).unwrap_or(0);
        let mut after: Option<TreePath> = dir.cloned();

        while row < rows.len()
            && dir.is_none_or(|dir| rows[row].first <= *dir || rows[row].first.is_within(dir))
        {
            self.open(row)?;
            for found in self.page.1.iter() {
                let path = &found.entry.path;
                if after.as_ref().is_none_or(|after| path > after) && path.parent().as_ref() == dir
                {
                    after = Some(path.clone());
                    children.push(path.clone());
                }
            }
            // Skip the pages below the last child.
            let below = |path: &TreePath| {
                after
                    .as_ref()
                    .is_some_and(|after| path <= after || path.is_within(after))
            };
            let passed = rows[row + 1..].partition_point(|page| below(&page.last));
            row += 1 + if after.as_ref() == dir { 0 } else { passed };
        }

        children
            .iter()
            .try_for_each(|child| self.check(child, false))
    }

    /// Touches every indexed path below `dir`.
    fn touch_below(&mut self, dir: &TreePath) -> io::Result<()> {
        let below = paths_below(self.index, dir)?;
        let named = below
            .into_iter()
            .map(|touched| (touched.path.clone(), touched));
        self.touched.extend(named);
        Ok(())
    }
}

/// Returns whether `now` can be the indexed directory.
fn is_same_dir(now: &FileStat, version: &Version) -> bool {
    now.file_type == FileType::Directory && (now.id.dev, now.id.ino) == (version.dev, version.ino)
}

fn is_dir(found: &IndexEntry) -> bool {
    matches!(found.entry.kind, EntryKind::Directory)
}

#[cfg(test)]
mod tests;
