//! Looks at touched paths, at the names in their directories and at the other names of their files.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::FileType;

use super::compare::Touched;
use super::context::ScanContext;
use super::errors::{unreadable, unreadable_index};
use super::inode_names::paths_of_inodes;
use super::known_paths::{KnownPaths, paths_below};
use super::lister::Lister;
use super::listing::{DirListing, ListJob, read_names, stat_of};
use crate::manifest::TreePath;
use crate::tree::fs::errors::is_gone;
use crate::tree::fs::root::FileId;
use crate::tree::fs::stat::{FileStat, Version};
use crate::{Error, Kind, Result};

/// A search for changes under way.
pub(super) struct Finder<'a> {
    pub(super) context: &'a ScanContext<'a>,
    pub(super) lister: Lister<'a>,
    pub(super) known: KnownPaths<'a>,
    /// Directories with possibly new names; `None` is the root.
    pub(super) dirs: Vec<Option<TreePath>>,
    /// Directories with a passed-over name: see [`DirListing::passed_over`].
    pub(super) passed_over: BTreeSet<Option<TreePath>>,
    /// Directories of the index that have gone since they were found to be touched.
    pub(super) lost: BTreeSet<TreePath>,
    pub(super) listing: DirListing,
}

/// Returns true if a directory above `path` is lost.
pub(super) fn has_lost_parent(path: &TreePath, lost: &BTreeSet<TreePath>) -> bool {
    let above = || std::iter::successors(path.parent(), TreePath::parent);
    !lost.is_empty() && above().any(|dir| lost.contains(&dir))
}

impl Finder<'_> {
    /// Lists the touched paths again.
    pub(super) fn recheck(&mut self, touched: &[Touched]) -> Result<()> {
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
    pub(super) fn below_lost_dirs(&mut self, touched: &[Touched]) -> Result<Vec<Touched>> {
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
    pub(super) fn inodes(&self, touched: &[Touched], more: &HashSet<FileId>) -> HashSet<FileId> {
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
    pub(super) fn further_names(
        &self,
        touched: &[Touched],
        inodes: &HashSet<FileId>,
    ) -> Result<Vec<Touched>> {
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
    pub(super) fn find_new_names(&mut self, path: Option<TreePath>) -> Result<bool> {
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
    pub(super) fn untouched_parents(&self, touched: &[Touched]) -> Vec<Touched> {
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
