//! The walk: worker threads list directories ahead, and the walk yields paths in manifest order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::context::{Jobs, ScanContext};
use super::ignore::IgnoreFilter;
use super::listing::{DirListing, ListJob, ListedPath};
use super::scanned::Skipped;
use super::work::Ticket;
use crate::Result;
use crate::manifest::TreePath;
use crate::manifest::rules::Exclude;
use crate::tree::fs::stat::Version;
use crate::tree::index::Origin;

/// Largest number of directories listed ahead of the walk.
const LISTINGS_AHEAD: usize = 32;
/// Largest number of children in listings ahead of the walk.
const CHILDREN_AHEAD: usize = 100_000;

/// Iterator over the paths of the whole tree, in order.
pub(super) struct TreeWalk<'a> {
    jobs: &'a Jobs,
    children_ahead: &'a AtomicUsize,
    frames: Vec<Frame>,
    /// Number of listings requested and not yet opened.
    ahead: usize,
    /// Patterns of the ignore files so far, in directory order.
    pub(super) patterns: Vec<Exclude>,
    /// The ignore files themselves.
    pub(super) ignore_files: Vec<(TreePath, Version)>,
    /// Paths skipped so far.
    pub(super) skipped: Vec<Skipped>,
    /// Value of [`DirListing::passed_over`] for the root.
    pub(super) top_passed_over: bool,
}

/// An open directory of the walk.
struct Frame {
    children: VecDeque<ListedPath>,
    filter: Arc<IgnoreFilter>,
    /// Requested listings of the next subdirectories, in order.
    tickets: VecDeque<Ticket<Option<DirListing>>>,
    /// Number of children at the front that need no further request.
    asked: usize,
}

impl<'a> TreeWalk<'a> {
    pub(super) fn begin(
        jobs: &'a Jobs,
        children_ahead: &'a AtomicUsize,
        filter: Arc<IgnoreFilter>,
    ) -> Result<Self> {
        let top = jobs
            .first(ListJob {
                path: None,
                filter,
                reads: true,
            })
            .wait()?;
        let mut walk = Self::new(jobs, children_ahead);

        if let Some(listing) = top {
            walk.top_passed_over = listing.passed_over;
            walk.open(listing);
        }

        Ok(walk)
    }

    /// Walks `children` anywhere in the tree, with the ignore files of `origin`.
    pub(super) fn over(
        context: &'a ScanContext<'_>,
        children: Vec<ListedPath>,
        origin: &Origin,
    ) -> Result<Self> {
        let mut walk = Self::new(&context.jobs, &context.children_ahead);
        walk.patterns.clone_from(&origin.patterns);
        walk.ignore_files.clone_from(&origin.ignore_files);
        let filter = context.filter.with(&origin.patterns);
        walk.frames.push(Frame {
            children: children.into(),
            filter,
            tickets: VecDeque::new(),
            asked: 0,
        });
        walk.list_ahead();

        Ok(walk)
    }

    fn new(jobs: &'a Jobs, children_ahead: &'a AtomicUsize) -> Self {
        Self {
            jobs,
            children_ahead,
            frames: Vec::new(),
            ahead: 0,
            patterns: Vec::new(),
            ignore_files: Vec::new(),
            skipped: Vec::new(),
            top_passed_over: false,
        }
    }

    /// Returns the next path; a directory precedes its children.
    pub(super) fn next(&mut self) -> Result<Option<ListedPath>> {
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

            // A directory removed since its parent was listed is left out.
            if let Some(listing) = ticket.wait()? {
                if listing.passed_over {
                    child.stat.forget_change();
                }
                self.open(listing);
                return Ok(Some(child));
            }
        }
    }

    fn open(&mut self, listing: DirListing) {
        self.children_ahead
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

    /// Requests the next listings, innermost directory first.
    fn list_ahead(&mut self) {
        for frame in self.frames.iter_mut().rev() {
            while let Some(child) = frame.children.get(frame.asked) {
                if self.ahead >= LISTINGS_AHEAD
                    || self.children_ahead.load(Ordering::Relaxed) >= CHILDREN_AHEAD
                {
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
