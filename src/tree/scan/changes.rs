//! Turns touched paths into the differences of a tree from its index.

use std::collections::{BTreeSet, HashSet};

use super::change_finder::{Finder, has_lost_parent};
use super::context::ScanContext;
use super::hints::TouchedPaths;
use super::known_paths::KnownPaths;
use super::lister::Lister;
use super::listing::{DirListing, ListedPath};
use super::scanned::Skipped;
use crate::Result;
use crate::manifest::TreePath;
use crate::tree::fs::root::FileId;
use crate::tree::index::Index;

/// Differences of a tree from its index.
#[derive(Debug, Default)]
pub(super) struct TreeChanges {
    /// Paths of the index to be replaced or removed; sorted.
    pub(super) touched: Vec<TreePath>,
    /// Current entries of the touched paths, and new entries; sorted. New directories are to be
    /// walked.
    pub(super) children: Vec<ListedPath>,
    /// All skipped paths, of the index and of this scan.
    pub(super) skipped: Vec<Skipped>,
    /// Whether the root directory must not be recorded as seen.
    pub(super) top_passed_over: bool,
    /// Inodes with all their indexed names in `touched`.
    pub(super) inodes: HashSet<FileId>,
}

/// Describes the changes at `paths` and at all names of the inodes `linked`.
///
/// Returns `None` for a new ignore file, which can change any path.
pub(super) fn find(
    context: &ScanContext<'_>,
    index: &Index,
    paths: TouchedPaths,
    linked: &HashSet<FileId>,
) -> Result<Option<TreeChanges>> {
    let TouchedPaths { mut touched, top } = paths;
    let mut finder = Finder {
        context,
        lister: Lister::new(
            context.root,
            context.options,
            &context.children_ahead,
            &context.barred,
        ),
        known: KnownPaths {
            index,
            row: usize::MAX,
            paths: HashSet::new(),
        },
        dirs: if top { vec![None] } else { Vec::new() },
        passed_over: BTreeSet::new(),
        lost: BTreeSet::new(),
        listing: DirListing::of(context.filter.clone()),
    };

    finder.recheck(&touched)?;
    let more = finder.untouched_parents(&touched);
    finder.recheck(&more)?;
    touched.extend(more);
    touched.sort_unstable_by(|a, b| a.path.cmp(&b.path));

    for dir in std::mem::take(&mut finder.dirs) {
        if !finder.find_new_names(dir)? {
            return Ok(None);
        }
    }

    let below = finder.below_lost_dirs(&touched)?;
    touched.extend(below);
    touched.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    touched.dedup_by(|a, b| a.path == b.path);

    let mut inodes = HashSet::new();
    if context.options.entries.hardlinks {
        inodes = finder.inodes(&touched, linked);
        let names = finder.further_names(&touched, &inodes)?;
        finder.recheck(&names)?;
        touched.extend(names);
        touched.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    }

    let more = finder.untouched_parents(&touched);
    finder.recheck(&more)?;
    touched.extend(more);
    touched.sort_unstable_by(|a, b| a.path.cmp(&b.path));

    // Further directories may have gone since, or come back.
    let below = finder.below_lost_dirs(&touched)?;
    touched.extend(below);
    touched.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    touched.dedup_by(|a, b| a.path == b.path);

    let Finder {
        listing:
            DirListing {
                mut children,
                skipped,
                ..
            },
        passed_over,
        lost,
        ..
    } = finder;

    children.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    children.dedup_by(|a, b| a.path == b.path);
    // Another directory in the place of a lost one is walked; without one there is nothing below.
    children.retain(|child| !has_lost_parent(&child.path, &lost));
    let is_replaced = |child: &&mut ListedPath| lost.contains(&child.path);
    children
        .iter_mut()
        .filter(is_replaced)
        .for_each(|child| child.alone = false);

    let is_passed_over =
        |child: &&mut ListedPath| child.alone && passed_over.contains(&Some(child.path.clone()));
    children
        .iter_mut()
        .filter(is_passed_over)
        .for_each(|child| child.stat.forget_change());

    let touched: Vec<TreePath> = touched.into_iter().map(|t| t.path).collect();

    let is_listed_again = |parent: Option<TreePath>| match parent {
        None => top,
        Some(dir) => touched.binary_search(&dir).is_ok(),
    };

    let old = index
        .origin()
        .skipped
        .iter()
        .filter(|(path, _)| !is_listed_again(path.parent()));

    let mut all: Vec<Skipped> = old
        .map(|(path, why)| Skipped {
            path: path.clone(),
            why: why.clone().into(),
        })
        .collect();

    all.extend(skipped);
    Ok(Some(TreeChanges {
        touched,
        children,
        skipped: all,
        inodes,
        top_passed_over: passed_over.contains(&None),
    }))
}
