//! The collecting thread of a scan: decides which files to read, and writes entries in order.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use rustix::fs::FileType;

use super::batch::{Batch, BatchItem, PendingFile, ReadBatch};
use super::changes::TreeChanges;
use super::context::ScanContext;
use super::describe::entry_of;
use super::errors::{check_patterns, stopped, unwritable};
use super::listing::{Detail, ListedPath};
use super::merge::Merge;
use super::old_entries::OldEntries;
use super::scanned::{ScanStats, Skipped};
use super::walk::TreeWalk;
use super::work::Ticket;
use crate::Result;
use crate::manifest::build::NodeSink as _;
use crate::manifest::read::NodeSource;
use crate::manifest::rules::Exclude;
use crate::manifest::{Content, EntryKind, TreePath};
use crate::tree::fs::root::FileId;
use crate::tree::fs::stat::Version;
use crate::tree::index::{Index, IndexEntry, unread_content};

/// Number of entries that ends a batch.
const BATCH_ENTRIES: usize = 256;

/// Number of unread bytes that ends a batch.
const BATCH_BYTES: u64 = 4 << 20;

/// Results of a scan besides the entries.
pub(super) struct Collected {
    pub(super) stats: ScanStats,
    /// Patterns of ignore files, outer directories first.
    pub(super) patterns: Vec<Exclude>,
    pub(super) ignore_files: Vec<(TreePath, Version)>,
    pub(super) skipped: Vec<Skipped>,
    /// Whether the root directory must not be recorded as seen.
    pub(super) top_passed_over: bool,
    /// Inodes with names outside of the scan.
    pub(super) partial: HashSet<FileId>,
}

/// A scan in progress.
pub(super) struct Collector<'a> {
    context: &'a ScanContext<'a>,
    walk: TreeWalk<'a>,
    /// Unchanged part of the old index, if only changes are walked.
    merge: Option<Merge<'a>>,
    /// Indexes to take known contents from.
    known: Vec<OldEntries<'a>>,
    /// First name of each inode with several names, and the number of names still to come.
    links: HashMap<FileId, (TreePath, u32)>,
    batch: Batch,
    batch_bytes: u64,
    window: VecDeque<PendingBatch>,
    stats: ScanStats,
}

enum PendingBatch {
    Ready(Vec<IndexEntry>),
    Reading(Ticket<ReadBatch>),
}

impl<'a> Collector<'a> {
    /// Begins a scan of `changes`, or of the whole tree.
    pub(super) fn begin(
        context: &'a ScanContext<'a>,
        old: Option<&'a Index>,
        written: Option<&'a Index>,
        changes: Option<TreeChanges>,
    ) -> Result<Self> {
        let (walk, merge, old) = match (changes, old) {
            (Some(changes), Some(index)) => {
                let mut walk = TreeWalk::over(context, changes.children, index.origin())?;
                walk.skipped = changes.skipped;
                walk.top_passed_over = changes.top_passed_over;
                (walk, Some(Merge::new(index, changes.touched)), None)
            }
            (_, old) => (
                TreeWalk::begin(
                    &context.jobs,
                    &context.children_ahead,
                    Arc::clone(&context.filter),
                )?,
                None,
                old,
            ),
        };

        Ok(Self {
            context,
            walk,
            merge,
            known: written
                .into_iter()
                .chain(old)
                .map(OldEntries::new)
                .collect(),
            links: HashMap::new(),
            batch: Batch::default(),
            batch_bytes: 0,
            window: VecDeque::new(),
            stats: ScanStats::default(),
        })
    }

    pub(super) fn run(mut self) -> Result<Collected> {
        let window = self.context.options.threads.max(1) * 2 + 2;
        while let Some(child) = self.walk.next()? {
            self.check_stop()?;
            self.add(child)?;
            if self.batch.len() >= BATCH_ENTRIES || self.batch_bytes >= BATCH_BYTES {
                self.end_batch();
            }
            while self.window.len() > window
                || matches!(self.window.front(), Some(PendingBatch::Ready(_)))
            {
                self.write_front()?;
            }
        }

        self.end_batch();
        while !self.window.is_empty() {
            self.check_stop()?;
            self.write_front()?;
        }

        if let Some(merge) = &mut self.merge {
            self.context
                .write(|writer| merge.up_to(None, writer))
                .map_err(unwritable)?;
        }

        let TreeWalk {
            mut patterns,
            mut ignore_files,
            mut skipped,
            top_passed_over,
            ..
        } = self.walk;

        // Old and new parts are each in walk order: sort both together.
        patterns.sort_by(|a, b| a.base.cmp(&b.base));
        ignore_files.sort_by(|a, b| a.0.cmp(&b.0));
        skipped.sort_by(|a, b| a.path.cmp(&b.path));
        check_patterns(&self.context.options.paths.excludes, &patterns)?;
        let partial = self.links.into_keys().collect();

        Ok(Collected {
            stats: self.stats,
            patterns,
            ignore_files,
            skipped,
            partial,
            top_passed_over,
        })
    }

    /// Returns an error once the scan is to stop.
    fn check_stop(&self) -> Result<()> {
        match self.context.options.is_stopped() {
            true => Err(stopped()),
            false => Ok(()),
        }
    }

    fn add(&mut self, child: ListedPath) -> Result<()> {
        let item = match child.stat.file_type {
            FileType::RegularFile => self.file(child)?,
            _ => BatchItem::Ready(self.other(child)?),
        };
        self.batch.push(item);
        Ok(())
    }

    fn file(&mut self, child: ListedPath) -> Result<BatchItem> {
        let linked = self.is_linked(&child);
        if linked && let Some(kind) = self.further_name(&child) {
            return Ok(BatchItem::Ready(self.entry(child, kind)?));
        }

        if child.detail != Detail::Whole {
            return Ok(BatchItem::Ready(
                self.entry(child, EntryKind::File(unread_content()))?,
            ));
        }

        if let Some(content) = self.content(&child)? {
            return Ok(BatchItem::Ready(
                self.entry(child, EntryKind::File(content))?,
            ));
        }

        self.batch_bytes += child.stat.size;
        Ok(BatchItem::Read(PendingFile { child, linked }))
    }

    /// Returns whether the path may have further names.
    fn is_linked(&self, child: &ListedPath) -> bool {
        let is_dir = child.stat.file_type == FileType::Directory;
        self.context.options.entries.hardlinks && child.stat.nlink > 1 && !is_dir
    }

    /// Returns the link to the first name of the inode; `None` for the first name itself.
    fn further_name(&mut self, child: &ListedPath) -> Option<EntryKind> {
        let Some((first, left)) = self.links.get_mut(&child.stat.id) else {
            self.links
                .insert(child.stat.id, (child.path.clone(), child.stat.nlink - 1));
            return None;
        };

        let kind = EntryKind::Hardlink(first.clone());
        *left = left.saturating_sub(1);
        if *left == 0 {
            self.links.remove(&child.stat.id);
        }

        Some(kind)
    }

    fn other(&mut self, mut child: ListedPath) -> Result<IndexEntry> {
        if self.is_linked(&child)
            && let Some(kind) = self.further_name(&child)
        {
            return self.entry(child, kind);
        }

        let (major, minor) = child.stat.device;
        let kind = match child.stat.file_type {
            FileType::Directory => EntryKind::Directory,
            FileType::Symlink => EntryKind::Symlink(std::mem::take(&mut child.target)),
            FileType::Fifo => EntryKind::Fifo,
            FileType::CharacterDevice => EntryKind::CharDevice(major, minor),
            FileType::BlockDevice => EntryKind::BlockDevice(major, minor),
            FileType::RegularFile | FileType::Socket | FileType::Unknown => {
                unreachable!("regular files are read and the others skipped by the listing")
            }
        };

        self.entry(child, kind)
    }

    fn entry(&self, child: ListedPath, kind: EntryKind) -> Result<IndexEntry> {
        entry_of(self.context, child.path, &child.stat, kind, child.xattrs)
    }

    /// Returns the content of a file known from an older index.
    fn content(&mut self, child: &ListedPath) -> Result<Option<Content>> {
        for known in &mut self.known {
            if let Some(content) = known.content(child)
                && copy_lists(self.context, known.index, &content)?
            {
                return Ok(Some(content));
            }
        }

        Ok(None)
    }

    fn end_batch(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        let next = match batch.ready() {
            Ok(entries) => PendingBatch::Ready(entries),
            Err(batch) => PendingBatch::Reading(self.context.jobs.second(batch)),
        };
        self.window.push_back(next);
    }

    fn write_front(&mut self) -> Result<()> {
        let entries = match self.window.pop_front() {
            None => return Ok(()),
            Some(PendingBatch::Ready(entries)) => entries,
            Some(PendingBatch::Reading(ticket)) => {
                let done = ticket.wait()?;
                self.stats.hashed_bytes += done.bytes;
                self.stats.hashed_files += done.files;
                done.entries
            }
        };

        let merge = &mut self.merge;
        if let Some(counts) = &self.context.options.counts {
            counts.add_entries(entries.len());
        }
        let written = self.context.write(|writer| {
            entries.into_iter().try_for_each(|entry| {
                if let Some(merge) = merge {
                    merge.up_to(Some(&entry.entry.path), writer)?;
                }
                writer.push(entry)
            })
        });

        written.map_err(unwritable)
    }
}

/// Copies the list nodes of a large file from an older index. Returns false if one is missing or
/// damaged.
fn copy_lists(context: &ScanContext<'_>, from: &Index, content: &Content) -> Result<bool> {
    let Content::Lists(lists) = content else {
        return Ok(true);
    };

    for list in lists {
        let Ok(bytes) = from.node(&list.block.hash) else {
            return Ok(false);
        };
        context
            .write(|writer| writer.put(list.block, bytes.to_vec()))
            .map_err(unwritable)?;
    }

    Ok(true)
}
