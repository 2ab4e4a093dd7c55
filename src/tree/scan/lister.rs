//! Lists directories: stats every name and leaves out excluded ones.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::FileType;

use super::errors::unreadable;
use super::ignore::patterns_in;
use super::listing::{Detail, DirListing, ListJob, ListedPath, read_names};
use super::options::ScanOptions;
use super::scanned::{FOREIGN_OWNER, Skipped};
use crate::manifest::path::RESERVED;
use crate::tree::fs::dir_access::OpenedDirs;
use crate::tree::fs::root::Root;
use crate::tree::fs::stat::{FileStat, link_target};
use crate::tree::fs::xattrs::XattrReader;
use crate::units::printable;
use crate::{Error, Result};

/// Reason for skipping a directory of makuo's own state.
const STATE_DIR_REASON: &str = "makuo keeps the state of a tree in it";
/// Names found together in every state directory of a tree.
const STATE_NAMES: [&[u8]; 4] = [b"lock", b"stage", b"undo", b"releases"];

/// Lists directories; one for each thread.
#[derive(Debug)]
pub(super) struct Lister<'a> {
    root: &'a Root,
    options: &'a ScanOptions,
    children_ahead: &'a AtomicUsize,
    barred: &'a OpenedDirs,
    xattrs: XattrReader,
}

impl<'a> Lister<'a> {
    pub(super) fn new(
        root: &'a Root,
        options: &'a ScanOptions,
        children_ahead: &'a AtomicUsize,
        barred: &'a OpenedDirs,
    ) -> Self {
        Self {
            root,
            options,
            children_ahead,
            barred,
            xattrs: XattrReader::default(),
        }
    }

    /// Lists a directory; `None` if missing.
    pub(super) fn list(&mut self, job: &ListJob) -> Result<Option<DirListing>> {
        let at = job
            .path
            .as_ref()
            .map_or(self.root.path().to_path_buf(), |p| self.root.shown(p));
        let dir = match self.barred.dir(self.root, job.path.as_ref()) {
            Ok(dir) => dir,
            Err(e) if e.kind() == io::ErrorKind::NotFound && job.path.is_some() => return Ok(None),
            Err(e) => return Err(unreadable(&at, e)),
        };

        let paths = &self.options.paths;
        let names = read_names(dir.as_fd()).map_err(|e| unreadable(&at, e))?;
        let has = |name: &[u8]| names.iter().any(|n| n.as_bytes() == name);
        if paths.without_state && job.path.is_some() && STATE_NAMES.into_iter().all(has) {
            return Ok(None);
        }

        let (patterns, ignore_files) = patterns_in(
            self.root,
            dir.as_fd(),
            job.path.as_ref(),
            paths.ignore_files,
            has,
        )?;

        let mut listing = DirListing {
            patterns,
            ignore_files,
            ..DirListing::of(Arc::clone(&job.filter))
        };

        listing.filter = job.filter.with(&listing.patterns);
        for name in &names {
            self.add_name(job, dir.as_fd(), name, &mut listing)?;
        }

        listing
            .children
            .sort_unstable_by(|a, b| a.path.name().cmp(b.path.name()));
        self.children_ahead
            .fetch_add(listing.children.len(), Ordering::Relaxed);

        Ok(Some(listing))
    }

    /// Adds the path of `name` in the directory to `out`, unless missing or left out.
    pub(super) fn add_name(
        &mut self,
        job: &ListJob,
        dir: BorrowedFd<'_>,
        name: &CStr,
        out: &mut DirListing,
    ) -> Result<()> {
        let paths = &self.options.paths;
        let path = job.child(self.root, name)?;
        let stat = match FileStat::at(dir, name) {
            Ok(stat) => stat,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(unreadable(&self.root.shown(&path), e)),
        };

        self.options.pass_gap();
        let is_dir = stat.file_type == FileType::Directory;
        if is_dir && paths.without_state && name.to_bytes() == RESERVED.as_bytes() {
            out.skipped.push(Skipped {
                path,
                why: STATE_DIR_REASON.into(),
            });
            return Ok(());
        }

        if paths.without_state && path.is_reserved() && !out.filter.excludes(&path, is_dir) {
            let shown = printable(self.root.shown(&path).as_os_str().as_bytes());
            return Err(Error::usage(format!(
                "{shown}: hosts keep the state of trees under this name"
            ))
            .hint("give it another name, or exclude it in the spec"));
        }

        let apart = is_dir && paths.apart.contains(&stat.id);
        if apart || !paths.in_scope(&path, is_dir) || out.filter.excludes(&path, is_dir) {
            return Ok(());
        }

        if stat.file_type == FileType::RegularFile && self.options.reuse.holds_back(&path) {
            out.passed_over = true;
            return Ok(());
        }

        if !is_dir && paths.is_foreign(&stat) {
            out.passed_over = true;
            out.skipped.push(Skipped {
                path,
                why: FOREIGN_OWNER.into(),
            });
            return Ok(());
        }

        let detail = paths.detail(&path, is_dir, job.reads);
        let mut child = ListedPath {
            path,
            stat,
            target: Vec::new(),
            xattrs: Vec::new(),
            detail,
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

    /// Adds link target and attributes. Returns the reason if the path is to be skipped.
    fn describe(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &CStr,
        child: &mut ListedPath,
    ) -> io::Result<Option<&'static str>> {
        match child.stat.file_type {
            FileType::Socket => return Ok(Some("a socket belongs to a process of this host")),
            FileType::Unknown => return Ok(Some("of a kind that makuo does not know")),
            FileType::Symlink => child.target = link_target(dir, name)?,
            _ => {}
        }

        if self.options.entries.xattrs && child.detail != Detail::Closed {
            child.xattrs = self.xattrs.at(dir, name)?;
        }

        Ok(None)
    }
}
