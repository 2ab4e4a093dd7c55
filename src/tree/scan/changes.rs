//! From paths that were touched to what is to be described anew: themselves, and what is new in their directories.

use std::collections::{BTreeSet, HashSet};
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::FileType;

use super::compare::Touched;
use super::hints::Spots;
use super::names::names_of;
use super::walk::{Child, ListJob, Lister, Listing, read_names};
use super::{Shared, Skipped, stat_of, unreadable};
use crate::manifest::TreePath;
use crate::tree::fs::root::FileId;
use crate::tree::fs::stat::{FileStat, Version};
use crate::tree::index::Index;
use crate::{Error, Kind, Result};

/// What a tree has that its index does not say, or says otherwise.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Paths of the index that are described anew, or gone; sorted.
    pub(super) touched: Vec<TreePath>,
    /// What is there now in their stead, and what is new; sorted. Directories that are new are to be walked.
    pub(super) children: Vec<Child>,
    /// What was left out, of the index and now.
    pub(super) skipped: Vec<Skipped>,
    /// Whether the tree's own directory must not be recorded as seen.
    pub(super) top_passed_over: bool,
    /// Inodes of which every name that the index has is among `touched`.
    pub(super) inodes: HashSet<FileId>,
}

/// What changed, when `spots` did; `None` when an ignore file is new, which can change anything. All names of `linked`
/// are looked at.
pub(super) fn find(
    shared: &Shared<'_>,
    index: &Index,
    spots: Spots,
    linked: &HashSet<FileId>,
) -> Result<Option<Changes>> {
    let Spots { mut touched, top } = spots;
    let mut finder = Finder {
        shared,
        lister: Lister::new(shared.root, shared.options, &shared.held, &shared.barred),
        known: Known {
            index,
            row: usize::MAX,
            paths: HashSet::new(),
        },
        dirs: if top { vec![None] } else { Vec::new() },
        passed_over: BTreeSet::new(),
        listing: Listing::of(shared.filter.clone()),
    };

    finder.look_again(&touched)?;
    let more = finder.dirs_passed_over(&touched);
    finder.look_again(&more)?;
    touched.extend(more);
    touched.sort_unstable_by(|a, b| a.path.cmp(&b.path));

    for dir in std::mem::take(&mut finder.dirs) {
        if !finder.look_for_new(dir)? {
            return Ok(None);
        }
    }

    let mut inodes = HashSet::new();
    if shared.options.hardlinks {
        inodes = finder.inodes(&touched, linked);
        let names = finder.further_names(&touched, &inodes)?;
        finder.look_again(&names)?;
        touched.extend(names);
        touched.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    }

    let more = finder.dirs_passed_over(&touched);
    finder.look_again(&more)?;
    touched.extend(more);
    touched.sort_unstable_by(|a, b| a.path.cmp(&b.path));

    let Finder {
        listing: Listing {
            mut children,
            skipped,
            ..
        },
        passed_over,
        ..
    } = finder;

    children.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    children.dedup_by(|a, b| a.path == b.path);
    let is_passed_over =
        |child: &&mut Child| child.alone && passed_over.contains(&Some(child.path.clone()));
    children
        .iter_mut()
        .filter(is_passed_over)
        .for_each(|child| child.stat.forget_change());

    let touched: Vec<TreePath> = touched.into_iter().map(|t| t.path).collect();

    let looked_at = |parent: Option<TreePath>| match parent {
        None => top,
        Some(dir) => touched.binary_search(&dir).is_ok(),
    };

    let old = index
        .origin()
        .skipped
        .iter()
        .filter(|(path, _)| !looked_at(path.parent()));

    let mut all: Vec<Skipped> = old
        .map(|(path, why)| Skipped {
            path: path.clone(),
            why: why.clone().into(),
        })
        .collect();

    all.extend(skipped);
    Ok(Some(Changes {
        touched,
        children,
        skipped: all,
        inodes,
        top_passed_over: passed_over.contains(&None),
    }))
}

struct Finder<'a> {
    shared: &'a Shared<'a>,
    lister: Lister<'a>,
    known: Known<'a>,
    /// Directories that may have new names; the top is `None`.
    dirs: Vec<Option<TreePath>>,
    /// Directories in which a name was passed over: see [`Listing::passed_over`].
    passed_over: BTreeSet<Option<TreePath>>,
    listing: Listing,
}

impl Finder<'_> {
    /// Looks at what the index has and may be otherwise now.
    fn look_again(&mut self, touched: &[Touched]) -> Result<()> {
        let mut open = None;
        for Touched { path, was_dir, .. } in touched {
            let parent = path.parent();
            if open.as_ref().is_none_or(|(dir, _)| *dir != parent) {
                let handle = match self.shared.barred.dir(self.shared.root, parent.as_ref()) {
                    Ok(handle) => Some(handle),
                    Err(e) if is_gone(&e) => None,
                    Err(e) => return Err(unreadable(&self.shared.root.shown(path), e)),
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
            self.look_at(&job, dir.as_fd(), &name)?;
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

    /// The inodes whose names matter together: those that were touched, went or came, and `more`.
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

        // Without links in either there is nothing to look for.
        if now.is_empty() && more.is_empty() && self.known.index.totals().links == 0 {
            return HashSet::new();
        }

        let were = touched.iter().filter(|t| !t.was_dir).map(|t| t.inode);
        were.chain(now).chain(more.iter().copied()).collect()
    }

    /// The names of `inodes` that are not among `touched`, except for files that are still being written.
    fn further_names(&self, touched: &[Touched], inodes: &HashSet<FileId>) -> Result<Vec<Touched>> {
        let Shared { root, options, .. } = self.shared;
        let is_held = |path: &TreePath| {
            options
                .hints
                .as_ref()
                .is_some_and(|hints| hints.held.contains(path))
                && stat_of(root, path).is_ok_and(|stat| stat.file_type == FileType::RegularFile)
        };

        let mut names = names_of(self.known.index, inodes)
            .map_err(|e| Error::new(Kind::Io, "the index cannot be read").because(e))?;
        names.retain(|name| {
            touched
                .binary_search_by(|t| t.path.cmp(&name.path))
                .is_err()
                && !is_held(&name.path)
        });

        Ok(names)
    }

    /// Looks for names in a directory that the index does not have; false when one is a new ignore file.
    fn look_for_new(&mut self, path: Option<TreePath>) -> Result<bool> {
        let root = self.shared.root;
        let shown = path
            .as_ref()
            .map_or(root.path().to_path_buf(), |p| root.shown(p));
        let dir = match self.shared.barred.dir(root, path.as_ref()) {
            Ok(dir) => dir,
            // It was there a moment ago: the next scan will see that it is not.
            Err(e) if is_gone(&e) => return Ok(true),
            Err(e) => return Err(unreadable(&shown, e)),
        };

        let mut names = read_names(dir.as_fd()).map_err(|e| unreadable(&shown, e))?;
        names.sort_unstable();
        let job = self.job(path);
        for name in &names {
            let at = job.child(root, name)?;
            if self.shared.options.ignore_files.has(name) && !self.known.is_ignore_file(&at) {
                return Ok(false);
            }
            if !self
                .known
                .has(&at)
                .map_err(|e| Error::new(Kind::Io, "the index cannot be read").because(e))?
            {
                self.look_at(&job, dir.as_fd(), name)?;
            }
        }

        Ok(true)
    }

    fn look_at(&mut self, job: &ListJob, dir: BorrowedFd<'_>, name: &CStr) -> Result<()> {
        self.lister.look_at(job, dir, name, &mut self.listing)?;
        if std::mem::take(&mut self.listing.passed_over) {
            self.passed_over.insert(job.path.clone());
        }
        Ok(())
    }

    /// Directories in which a name was passed over and which have not changed themselves.
    fn dirs_passed_over(&self, touched: &[Touched]) -> Vec<Touched> {
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
            self.shared
                .options
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

/// The paths of an index, for one who asks in order.
struct Known<'a> {
    index: &'a Index,
    /// The page that was asked for last, and its paths.
    row: usize,
    paths: HashSet<TreePath>,
}

impl Known<'_> {
    fn has(&mut self, path: &TreePath) -> io::Result<bool> {
        let Some(row) = self.index.row_of(path) else {
            return Ok(false);
        };

        let page = &self.index.rows()[row];
        if page.last < *path {
            return Ok(false);
        }

        if page.first == *path || page.last == *path {
            return Ok(true);
        }

        if self.row != row {
            self.paths = self
                .index
                .page(row)?
                .into_iter()
                .map(|e| e.entry.path)
                .collect();
            self.row = row;
        }

        Ok(self.paths.contains(path))
    }

    fn is_ignore_file(&self, path: &TreePath) -> bool {
        self.index
            .origin()
            .ignore_files
            .iter()
            .any(|(known, _)| known == path)
    }
}

fn is_gone(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    ) || e.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
}
