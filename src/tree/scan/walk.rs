//! The walk: directories listed ahead by the threads, their children handed out in the order of the manifest.

use std::collections::VecDeque;
use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{FileType, RawDir};

use super::ignore::{Filter, patterns_in};
use super::work::Ticket;
use super::{Jobs, ScanOptions, Shared, Skipped, unreadable};
use crate::manifest::rules::{Exclude, PathFilter};
use crate::manifest::{TreePath, Xattr};
use crate::tree::fs::dir_access::OpenedDirs;
use crate::tree::fs::root::Root;
use crate::tree::fs::stat::{FileStat, Version, link_target};
use crate::tree::fs::xattrs::XattrReader;
use crate::tree::index::Origin;
use crate::tree::state::reader::BESIDE;
use crate::units::printable;
use crate::{Error, Result};

/// Why something was skipped that makuo keeps for itself.
const OWN_STATE: &str = "makuo keeps the state of a tree in it";
/// Names that are together in every directory of a tree's state.
const STATE_NAMES: [&[u8]; 4] = [b"lock", b"stage", b"undo", b"releases"];
/// How many directories are listed ahead of the walk,
const AHEAD: usize = 32;
/// and how many children they may have together before no more are listed ahead.
const AHEAD_CHILDREN: usize = 100_000;
/// Bytes of names that one system call returns.
const NAMES_BUFFER: usize = 64 << 10;

/// A directory to be listed.
#[derive(Debug)]
pub(super) struct ListJob {
    pub(super) path: Option<TreePath>,
    pub(super) filter: Arc<Filter>,
    /// Whether files in it are read.
    pub(super) reads: bool,
}

impl ListJob {
    /// The path of `name` in the directory.
    pub(super) fn child(&self, root: &Root, name: &CStr) -> Result<TreePath> {
        let path = match &self.path {
            None => TreePath::new(name.to_bytes()),
            Some(parent) => parent.join(name.to_bytes()),
        };

        path.map_err(|e| {
            let dir = self
                .path
                .as_ref()
                .map_or(root.path().to_path_buf(), |dir| root.shown(dir));
            let at = dir.join(OsStr::from_bytes(name.to_bytes()));
            Error::usage(format!("{}: {e}", printable(at.as_os_str().as_bytes())))
                .hint("shorten the path or exclude its directory")
        })
    }
}

/// The children of a directory that are not left out, sorted.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) children: Vec<Child>,
    pub(super) filter: Arc<Filter>,
    patterns: Vec<Exclude>,
    /// The ignore files that the patterns are from.
    ignore_files: Vec<(TreePath, Version)>,
    pub(super) skipped: Vec<Skipped>,
    /// Whether a name was passed over that may belong to the tree later, without the directory changing: the directory
    /// must not be recorded as seen.
    pub(super) passed_over: bool,
}

impl Listing {
    /// Nothing yet, to be left out by `filter`.
    pub(super) fn of(filter: Arc<Filter>) -> Self {
        let (children, patterns) = (Vec::new(), Vec::new());
        Self {
            children,
            filter,
            patterns,
            ignore_files: Vec::new(),
            skipped: Vec::new(),
            passed_over: false,
        }
    }
}

/// One path as its directory's listing found it.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) path: TreePath,
    pub(super) stat: FileStat,
    /// The target of a symbolic link.
    pub(super) target: Vec<u8>,
    pub(super) xattrs: Vec<Xattr>,
    pub(super) look: Look,
    /// A directory that stands for itself only: what is in it is known.
    pub(super) alone: bool,
}

/// How closely a path is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// All of it.
    Whole,
    /// Without the content of files.
    Unhashed,
    /// Itself only: neither the content of a file nor what is in a directory.
    Closed,
}

impl Child {
    /// Whether it is a directory whose children follow.
    pub(super) fn is_walked(&self) -> bool {
        self.stat.file_type == FileType::Directory && self.look != Look::Closed && !self.alone
    }

    fn listing(&self, filter: &Arc<Filter>) -> ListJob {
        ListJob {
            path: Some(self.path.clone()),
            filter: Arc::clone(filter),
            reads: self.look == Look::Whole,
        }
    }
}

/// Lists directories; one for each thread.
#[derive(Debug)]
pub(super) struct Lister<'a> {
    root: &'a Root,
    options: &'a ScanOptions,
    held: &'a AtomicUsize,
    barred: &'a OpenedDirs,
    xattrs: XattrReader,
}

impl<'a> Lister<'a> {
    pub(super) fn new(
        root: &'a Root,
        options: &'a ScanOptions,
        held: &'a AtomicUsize,
        barred: &'a OpenedDirs,
    ) -> Self {
        Self {
            root,
            options,
            held,
            barred,
            xattrs: XattrReader::default(),
        }
    }

    /// The children of a directory; `None` when it is gone.
    pub(super) fn list(&mut self, job: &ListJob) -> Result<Option<Listing>> {
        let at = job
            .path
            .as_ref()
            .map_or(self.root.path().to_path_buf(), |p| self.root.shown(p));
        let dir = match self.barred.dir(self.root, job.path.as_ref()) {
            Ok(dir) => dir,
            Err(e) if e.kind() == io::ErrorKind::NotFound && job.path.is_some() => return Ok(None),
            Err(e) => return Err(unreadable(&at, e)),
        };

        let names = read_names(dir.as_fd()).map_err(|e| unreadable(&at, e))?;
        let has = |name: &[u8]| names.iter().any(|n| n.as_bytes() == name);
        if self.options.without_state && job.path.is_some() && STATE_NAMES.into_iter().all(has) {
            return Ok(None);
        }

        let (patterns, ignore_files) = patterns_in(
            self.root,
            dir.as_fd(),
            job.path.as_ref(),
            self.options.ignore_files,
            has,
        )?;

        let mut listing = Listing {
            patterns,
            ignore_files,
            ..Listing::of(Arc::clone(&job.filter))
        };

        listing.filter = job.filter.with(&listing.patterns);
        for name in &names {
            self.look_at(job, dir.as_fd(), name, &mut listing)?;
        }

        listing
            .children
            .sort_unstable_by(|a, b| a.path.name().cmp(b.path.name()));
        self.held
            .fetch_add(listing.children.len(), Ordering::Relaxed);

        Ok(Some(listing))
    }

    /// Adds the path of `name` in the directory to `out`, unless it is gone or left out.
    pub(super) fn look_at(
        &mut self,
        job: &ListJob,
        dir: BorrowedFd<'_>,
        name: &CStr,
        out: &mut Listing,
    ) -> Result<()> {
        let path = job.child(self.root, name)?;
        let stat = match FileStat::at(dir, name) {
            Ok(stat) => stat,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(unreadable(&self.root.shown(&path), e)),
        };

        self.options.pass_gap();
        let is_dir = stat.file_type == FileType::Directory;
        if is_dir && self.options.without_state && name.to_bytes() == BESIDE.as_bytes() {
            out.skipped.push(Skipped {
                path,
                why: OWN_STATE.into(),
            });
            return Ok(());
        }

        if self.options.without_state && path.is_reserved() && !out.filter.leaves_out(&path, is_dir)
        {
            let shown = printable(self.root.shown(&path).as_os_str().as_bytes());
            return Err(Error::usage(format!(
                "{shown}: hosts keep the state of trees under this name"
            ))
            .hint("give it another name, or exclude it in the spec"));
        }

        let apart = is_dir && self.options.apart.contains(&stat.id);
        if apart || !self.options.in_scope(&path, is_dir) || out.filter.leaves_out(&path, is_dir) {
            return Ok(());
        }

        let held = || {
            self.options
                .hints
                .as_ref()
                .is_some_and(|hints| hints.held.contains(&path))
        };

        if stat.file_type == FileType::RegularFile && held() {
            out.passed_over = true;
            return Ok(());
        }

        if !is_dir && self.options.owner.is_some_and(|owner| owner != stat.uid) {
            out.passed_over = true;
            out.skipped.push(Skipped {
                path,
                why: super::FOREIGN.into(),
            });
            return Ok(());
        }

        let look = self.look(&path, is_dir, job.reads);
        let mut child = Child {
            path,
            stat,
            target: Vec::new(),
            xattrs: Vec::new(),
            look,
            alone: false,
        };

        match self.describe(dir, name, &mut child) {
            Ok(None) => out.children.push(child),
            Ok(Some(why)) => out.skipped.push(Skipped {
                path: child.path,
                why: why.into(),
            }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(unreadable(&self.root.shown(&child.path), e)),
        }

        Ok(())
    }

    fn look(&self, path: &TreePath, is_dir: bool, reads: bool) -> Look {
        let any = |filters: &[PathFilter]| {
            filters
                .iter()
                .any(|f| !f.is_empty() && f.matches_here(path, is_dir))
        };

        match () {
            () if any(&self.options.closed) => Look::Closed,
            () if !reads || any(&self.options.unhashed) => Look::Unhashed,
            () => Look::Whole,
        }
    }

    /// Adds what takes more than a stat; or says why the path is skipped.
    fn describe(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &CStr,
        child: &mut Child,
    ) -> io::Result<Option<&'static str>> {
        match child.stat.file_type {
            FileType::Socket => return Ok(Some("a socket belongs to a process of this host")),
            FileType::Unknown => return Ok(Some("of a kind that makuo does not know")),
            FileType::Symlink => child.target = link_target(dir, name)?,
            _ => {}
        }

        if self.options.xattrs && child.look != Look::Closed {
            child.xattrs = self.xattrs.at(dir, name)?;
        }

        Ok(None)
    }
}

pub(super) fn read_names(dir: BorrowedFd<'_>) -> io::Result<Vec<CString>> {
    let mut buffer = Vec::with_capacity(NAMES_BUFFER);
    let mut entries = RawDir::new(dir, buffer.spare_capacity_mut());
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name.to_owned());
        }
    }

    Ok(names)
}

/// Hands out the children of the whole tree in order.
pub(super) struct Walk<'a> {
    jobs: &'a Jobs,
    held: &'a AtomicUsize,
    frames: Vec<Frame>,
    /// Listings asked for and not yet opened.
    ahead: usize,
    /// Patterns of the ignore files met so far, in the order of their directories.
    pub(super) patterns: Vec<Exclude>,
    /// Those ignore files.
    pub(super) ignore_files: Vec<(TreePath, Version)>,
    /// Paths that no manifest can hold.
    pub(super) skipped: Vec<Skipped>,
    /// Whether [`Listing::passed_over`] holds of the top.
    pub(super) top_passed_over: bool,
}

/// One open directory of the walk.
struct Frame {
    children: VecDeque<Child>,
    filter: Arc<Filter>,
    /// Listings of the next subdirectories, in order.
    tickets: VecDeque<Ticket<Option<Listing>>>,
    /// How many of the children at the front need no ticket any more.
    asked: usize,
}

impl<'a> Walk<'a> {
    pub(super) fn begin(
        jobs: &'a Jobs,
        held: &'a AtomicUsize,
        filter: Arc<Filter>,
    ) -> Result<Self> {
        let top = jobs
            .first(ListJob {
                path: None,
                filter,
                reads: true,
            })
            .wait()?;
        let mut walk = Self::new(jobs, held);

        if let Some(listing) = top {
            walk.top_passed_over = listing.passed_over;
            walk.open(listing);
        }

        Ok(walk)
    }

    /// A walk of `children`, wherever in the tree they are; what `origin` says of ignore files holds.
    pub(super) fn over(
        shared: &'a Shared<'_>,
        children: Vec<Child>,
        origin: &Origin,
    ) -> Result<Self> {
        let mut walk = Self::new(&shared.jobs, &shared.held);
        walk.patterns.clone_from(&origin.patterns);
        walk.ignore_files.clone_from(&origin.ignore_files);
        let filter = shared.filter.with(&origin.patterns);
        walk.frames.push(Frame {
            children: children.into(),
            filter,
            tickets: VecDeque::new(),
            asked: 0,
        });
        walk.list_ahead();

        Ok(walk)
    }

    fn new(jobs: &'a Jobs, held: &'a AtomicUsize) -> Self {
        let (patterns, ignore_files, skipped) = (Vec::new(), Vec::new(), Vec::new());
        Self {
            jobs,
            held,
            frames: Vec::new(),
            ahead: 0,
            patterns,
            ignore_files,
            skipped,
            top_passed_over: false,
        }
    }

    /// The next path; a directory comes before what is in it.
    pub(super) fn next(&mut self) -> Result<Option<Child>> {
        loop {
            let Some(frame) = self.frames.last_mut() else {
                return Ok(None);
            };
            let Some(mut child) = frame.children.pop_front() else {
                self.frames.pop();
                continue;
            };
            if !child.is_walked() {
                frame.asked = frame.asked.saturating_sub(1);
                return Ok(Some(child));
            }
            let ticket = match frame.tickets.pop_front() {
                Some(ticket) => {
                    frame.asked -= 1;
                    self.ahead -= 1;
                    ticket
                }
                None => {
                    frame.asked = 0;
                    self.jobs.first(child.listing(&frame.filter))
                }
            };
            // A directory that went away since its parent was listed is left out.
            if let Some(listing) = ticket.wait()? {
                if listing.passed_over {
                    child.stat.forget_change();
                }
                self.open(listing);
                return Ok(Some(child));
            }
        }
    }

    fn open(&mut self, listing: Listing) {
        self.held
            .fetch_sub(listing.children.len(), Ordering::Relaxed);
        self.patterns.extend(listing.patterns);
        self.ignore_files.extend(listing.ignore_files);
        self.skipped.extend(listing.skipped);
        let children = listing.children.into();
        self.frames.push(Frame {
            children,
            filter: listing.filter,
            tickets: VecDeque::new(),
            asked: 0,
        });

        self.list_ahead();
    }

    /// Asks for the listings that are needed next: those of the innermost directory first.
    fn list_ahead(&mut self) {
        for frame in self.frames.iter_mut().rev() {
            while let Some(child) = frame.children.get(frame.asked) {
                if self.ahead >= AHEAD || self.held.load(Ordering::Relaxed) >= AHEAD_CHILDREN {
                    return;
                }
                frame.asked += 1;
                if child.is_walked() {
                    frame
                        .tickets
                        .push_back(self.jobs.first(child.listing(&frame.filter)));
                    self.ahead += 1;
                }
            }
        }
    }
}
