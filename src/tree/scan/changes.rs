//! Turns touched paths into changes: describes the paths and finds new names in their directories.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::FileType;

use super::compare::Touched;
use super::context::ScanContext;
use super::errors::{unreadable, unreadable_index};
use super::hints::TouchedPaths;
use super::inode_names::paths_of_inodes;
use super::known_paths::{KnownPaths, paths_below};
use super::lister::Lister;
use super::listing::{DirListing, ListJob, ListedPath, read_names, stat_of};
use super::scanned::Skipped;
use crate::manifest::TreePath;
use crate::tree::fs::errors::is_gone;
use crate::tree::fs::root::FileId;
use crate::tree::fs::stat::{FileStat, Version};
use crate::tree::index::Index;
use crate::{Error, Kind, Result};

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

struct Finder<'a> {
    context: &'a ScanContext<'a>,
    lister: Lister<'a>,
    known: KnownPaths<'a>,
    /// Directories with possibly new names; `None` is the root.
    dirs: Vec<Option<TreePath>>,
    /// Directories with a passed-over name: see [`DirListing::passed_over`].
    passed_over: BTreeSet<Option<TreePath>>,
    /// Directories of the index that have gone since they were found to be touched.
    lost: BTreeSet<TreePath>,
    listing: DirListing,
}

/// Returns true if a directory above `path` is lost.
fn has_lost_parent(path: &TreePath, lost: &BTreeSet<TreePath>) -> bool {
    let above = || std::iter::successors(path.parent(), TreePath::parent);
    !lost.is_empty() && above().any(|dir| lost.contains(&dir))
}

impl Finder<'_> {
    /// Lists the touched paths again.
    fn recheck(&mut self, touched: &[Touched]) -> Result<()> {
        let mut open = None;
        for Touched { path, was_dir, .. } in touched {
            let parent = path.parent();
            if open.as_ref().is_none_or(|(dir, _)| *dir != parent) {
                let handle = match self.context.barred.dir(self.context.root, parent.as_ref()) {
                    Ok(handle) => Some(handle),
                    Err(e) if is_gone(&e) => None,
                    Err(e) => return Err(unreadable(&self.context.root.shown(path), e)),
                };
                open = Some((parent.clone(), handle));
            }

            let Some((_, Some(dir))) = &open else {
                continue;
            };

            let name = CString::new(path.name())
                .map_err(|e| Error::new(Kind::Io, "a path of the index").because(e))?;
            let job = self.job(parent);
            let before = self.listing.children.len();
            self.add_name(&job, dir.as_fd(), &name)?;

            if let Some(child) = self.listing.children.get_mut(before)
                && child.is_walked()
                && *was_dir
            {
                child.alone = true;
                self.dirs.push(Some(path.clone()));
            }
        }

        Ok(())
    }

    /// Finds touched directories that are no longer there, or are others by now. Returns the
    /// indexed paths below those that were not lost before.
    fn below_lost_dirs(&mut self, touched: &[Touched]) -> Result<Vec<Touched>> {
        let mut there: HashMap<&TreePath, FileId> = HashMap::new();
        for child in &self.listing.children {
            if child.stat.file_type == FileType::Directory {
                there.entry(&child.path).or_insert(child.stat.id);
            }
        }

        let is_lost = |dir: &&Touched| {
            let now = there.get(&dir.path);
            let is_same = |id: &FileId| dir.inode == *id || dir.inode == Version::NONE.id();
            dir.was_dir && !now.is_some_and(is_same)
        };
        let lost: Vec<TreePath> = touched
            .iter()
            .filter(is_lost)
            .map(|dir| dir.path.clone())
            .collect();

        let mut below = Vec::new();
        for dir in lost {
            if !has_lost_parent(&dir, &self.lost) && !self.lost.contains(&dir) {
                let found = paths_below(self.known.index, &dir).map_err(unreadable_index)?;
                below.extend(found);
            }
            self.lost.insert(dir);
        }

        Ok(below)
    }

    /// Returns the inodes to be treated as a group: inodes of touched, new and removed names, and
    /// `more`.
    fn inodes(&self, touched: &[Touched], more: &HashSet<FileId>) -> HashSet<FileId> {
        let is_linked = |stat: &FileStat| stat.file_type != FileType::Directory && stat.nlink > 1;
        let now: Vec<FileId> = self
            .listing
            .children
            .iter()
            .map(|c| &c.stat)
            .filter(|s| is_linked(s))
            .map(|s| s.id)
            .collect();

        // No links before or now: no group to complete.
        if now.is_empty() && more.is_empty() && self.known.index.totals().links == 0 {
            return HashSet::new();
        }

        let were = touched.iter().filter(|t| !t.was_dir).map(|t| t.inode);
        were.chain(now).chain(more.iter().copied()).collect()
    }

    /// Returns the names of `inodes` missing from `touched`, except files still being written.
    fn further_names(&self, touched: &[Touched], inodes: &HashSet<FileId>) -> Result<Vec<Touched>> {
        let ScanContext { root, options, .. } = self.context;
        let is_held = |path: &TreePath| {
            options
                .reuse
                .hints
                .as_ref()
                .is_some_and(|hints| hints.held.contains(path))
                && stat_of(root, path).is_ok_and(|stat| stat.file_type == FileType::RegularFile)
        };

        let mut names = paths_of_inodes(self.known.index, inodes).map_err(unreadable_index)?;
        names.retain(|name| {
            touched
                .binary_search_by(|t| t.path.cmp(&name.path))
                .is_err()
                && !is_held(&name.path)
        });

        Ok(names)
    }

    /// Adds the names of a directory missing from the index. Returns false for a new ignore file.
    fn find_new_names(&mut self, path: Option<TreePath>) -> Result<bool> {
        let root = self.context.root;
        let shown = path
            .as_ref()
            .map_or(root.path().to_path_buf(), |p| root.shown(p));
        let dir = match self.context.barred.dir(root, path.as_ref()) {
            Ok(dir) => dir,
            // The directory vanished just now: the next scan will notice.
            Err(e) if is_gone(&e) => return Ok(true),
            Err(e) => return Err(unreadable(&shown, e)),
        };

        let mut names = read_names(dir.as_fd()).map_err(|e| unreadable(&shown, e))?;
        names.sort_unstable();
        let job = self.job(path);
        for name in &names {
            let at = job.child(root, name)?;
            if self.context.options.paths.ignore_files.has(name) && !self.known.is_ignore_file(&at)
            {
                return Ok(false);
            }

            if !self.known.has(&at).map_err(unreadable_index)? {
                self.add_name(&job, dir.as_fd(), name)?;
            }
        }

        Ok(true)
    }

    fn add_name(&mut self, job: &ListJob, dir: BorrowedFd<'_>, name: &CStr) -> Result<()> {
        self.lister.add_name(job, dir, name, &mut self.listing)?;
        if std::mem::take(&mut self.listing.passed_over) {
            self.passed_over.insert(job.path.clone());
        }
        Ok(())
    }

    /// Returns directories with a passed-over name that did not change themselves.
    fn untouched_parents(&self, touched: &[Touched]) -> Vec<Touched> {
        let is_touched = |dir: &TreePath| touched.binary_search_by(|t| t.path.cmp(dir)).is_ok();
        let dirs = self
            .passed_over
            .iter()
            .flatten()
            .filter(|dir| !is_touched(dir));
        dirs.map(|dir| Touched {
            path: dir.clone(),
            was_dir: true,
            inode: Version::NONE.id(),
        })
        .collect()
    }

    fn job(&self, path: Option<TreePath>) -> ListJob {
        let unhashed = |dir: &TreePath| {
            self.context
                .options
                .paths
                .unhashed
                .iter()
                .any(|f| f.matches(dir, true))
        };

        let reads = !path.as_ref().is_some_and(unhashed);
        ListJob {
            path,
            filter: self.listing.filter.clone(),
            reads,
        }
    }
}
