//! The thread that gathers a scan: it decides what is read, and writes entries in order.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use rustix::fs::FileType;

use super::changes::Changes;
use super::merge::Merge;
use super::read::{Batch, BatchDone, Item, ToRead, entry_of};
use super::walk::{Child, Look, Walk};
use super::work::Ticket;
use super::{
    BATCH_BYTES, BATCH_ENTRIES, ScanStats, Shared, Skipped, check_patterns, is_racy, unread,
    unwritable,
};
use crate::manifest::build::NodeSink;
use crate::manifest::read::NodeSource;
use crate::manifest::rules::Exclude;
use crate::manifest::{Content, EntryKind, TreePath};
use crate::tree::fs::root::FileId;
use crate::tree::fs::stat::Version;
use crate::tree::index::{Entries, Index, IndexEntry, is_unread};
use crate::{Error, Kind, Result};

/// What a scan found besides entries.
pub(super) struct Collected {
    pub(super) stats: ScanStats,
    /// Patterns of ignore files, those of outer directories first.
    pub(super) patterns: Vec<Exclude>,
    pub(super) ignore_files: Vec<(TreePath, Version)>,
    pub(super) skipped: Vec<Skipped>,
    /// Whether the top must not be recorded as seen.
    pub(super) top_passed_over: bool,
    /// Inodes that have more names than were met.
    pub(super) partial: HashSet<FileId>,
}

/// A scan that is going on.
pub(super) struct Collector<'a> {
    shared: &'a Shared<'a>,
    walk: Walk<'a>,
    /// Where only changes are walked: what goes over from the old index.
    merge: Option<Merge<'a>>,
    /// What contents are known from.
    known: Vec<OldEntries<'a>>,
    /// First names of inodes that have more than one, and how many names are still to come.
    links: HashMap<FileId, (TreePath, u32)>,
    batch: Batch,
    batch_bytes: u64,
    window: VecDeque<Window>,
    stats: ScanStats,
}

enum Window {
    Ready(Vec<IndexEntry>),
    Reading(Ticket<BatchDone>),
}

impl<'a> Collector<'a> {
    /// A scan of the whole tree; of only `changes` when they are known.
    pub(super) fn begin(
        shared: &'a Shared<'a>,
        old: Option<&'a Index>,
        written: Option<&'a Index>,
        changes: Option<Changes>,
    ) -> Result<Self> {
        let (walk, merge, old) = match (changes, old) {
            (Some(changes), Some(index)) => {
                let mut walk = Walk::over(shared, changes.children, index.origin())?;
                walk.skipped = changes.skipped;
                walk.top_passed_over = changes.top_passed_over;
                (walk, Some(Merge::new(index, changes.touched)), None)
            }
            (_, old) => (
                Walk::begin(&shared.jobs, &shared.held, Arc::clone(&shared.filter))?,
                None,
                old,
            ),
        };

        Ok(Self {
            shared,
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
        let window = self.shared.options.threads.max(1) * 2 + 2;
        while let Some(child) = self.walk.next()? {
            self.go_on()?;
            self.add(child)?;
            if self.batch.len() >= BATCH_ENTRIES || self.batch_bytes >= BATCH_BYTES {
                self.end_batch();
            }
            while self.window.len() > window
                || matches!(self.window.front(), Some(Window::Ready(_)))
            {
                self.write_front()?;
            }
        }

        self.end_batch();
        while !self.window.is_empty() {
            self.go_on()?;
            self.write_front()?;
        }

        if let Some(merge) = &mut self.merge {
            self.shared
                .write(|writer| merge.up_to(None, writer))
                .map_err(unwritable)?;
        }

        let Walk {
            mut patterns,
            mut ignore_files,
            mut skipped,
            top_passed_over,
            ..
        } = self.walk;

        // What came from the old index and what is new, each in the order of a walk.
        patterns.sort_by(|a, b| a.base.cmp(&b.base));
        ignore_files.sort_by(|a, b| a.0.cmp(&b.0));
        skipped.sort_by(|a, b| a.path.cmp(&b.path));
        check_patterns(&self.shared.options.excludes, &patterns)?;
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

    /// An error once the scan is to end.
    fn go_on(&self) -> Result<()> {
        match self.shared.options.is_stopped() {
            true => Err(Error::new(Kind::Io, "the scan was stopped")),
            false => Ok(()),
        }
    }

    fn add(&mut self, child: Child) -> Result<()> {
        let item = match child.stat.file_type {
            FileType::RegularFile => self.file(child)?,
            _ => Item::Ready(self.other(child)?),
        };
        self.batch.push(item);
        Ok(())
    }

    fn file(&mut self, child: Child) -> Result<Item> {
        let linked = self.is_linked(&child);
        if linked && let Some(kind) = self.further_name(&child) {
            return Ok(Item::Ready(self.entry(child, kind)?));
        }

        if child.look != Look::Whole {
            return Ok(Item::Ready(self.entry(child, EntryKind::File(unread()))?));
        }

        if let Some(content) = self.content(&child)? {
            return Ok(Item::Ready(self.entry(child, EntryKind::File(content))?));
        }

        self.batch_bytes += child.stat.size;
        Ok(Item::Read(ToRead { child, linked }))
    }

    /// Whether the child may have further names.
    fn is_linked(&self, child: &Child) -> bool {
        let is_dir = child.stat.file_type == FileType::Directory;
        self.shared.options.hardlinks && child.stat.nlink > 1 && !is_dir
    }

    /// The link to the first name of what the child is; `None` when this is the first.
    fn further_name(&mut self, child: &Child) -> Option<EntryKind> {
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

    fn other(&mut self, mut child: Child) -> Result<IndexEntry> {
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

    fn entry(&self, child: Child, kind: EntryKind) -> Result<IndexEntry> {
        entry_of(self.shared, child.path, &child.stat, kind, child.xattrs)
    }

    /// The content of a file that need not be read.
    fn content(&mut self, child: &Child) -> Result<Option<Content>> {
        for known in &mut self.known {
            if let Some(content) = known.content(child)
                && keep_lists(self.shared, known.index, &content)?
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
            Ok(entries) => Window::Ready(entries),
            Err(batch) => Window::Reading(self.shared.jobs.second(batch)),
        };
        self.window.push_back(next);
    }

    fn write_front(&mut self) -> Result<()> {
        let entries = match self.window.pop_front() {
            None => return Ok(()),
            Some(Window::Ready(entries)) => entries,
            Some(Window::Reading(ticket)) => {
                let done = ticket.wait()?;
                self.stats.hashed_bytes += done.bytes;
                self.stats.hashed_files += done.files;
                done.entries
            }
        };

        let merge = &mut self.merge;
        let written = self.shared.write(|writer| {
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

/// Takes the list nodes of a large file over from an older index; false when it does not have them whole.
fn keep_lists(shared: &Shared<'_>, from: &Index, content: &Content) -> Result<bool> {
    let Content::Lists(lists) = content else {
        return Ok(true);
    };

    for list in lists {
        let Ok(bytes) = from.node(&list.block.hash) else {
            return Ok(false);
        };
        shared
            .write(|writer| writer.put(list.block, bytes.to_vec()))
            .map_err(unwritable)?;
    }

    Ok(true)
}

/// The entries of an older index, read along with the walk.
struct OldEntries<'a> {
    index: &'a Index,
    entries: Entries<'a>,
    next: Option<IndexEntry>,
}

impl<'a> OldEntries<'a> {
    fn new(index: &'a Index) -> Self {
        let mut old = Self {
            index,
            entries: index.entries(),
            next: None,
        };
        old.advance();
        old
    }

    fn advance(&mut self) {
        self.next = loop {
            match self.entries.next() {
                Some(Ok(entry)) => break Some(entry),
                Some(Err(e)) => tracing::warn!("a part of the tree is read anew: {e}"),
                None => break None,
            }
        };
    }

    /// The content of a file that has not changed since the old scan.
    fn content(&mut self, child: &Child) -> Option<Content> {
        while self
            .next
            .as_ref()
            .is_some_and(|n| n.entry.path < child.path)
        {
            self.advance();
        }

        let found = self.next.take_if(|next| next.entry.path == child.path)?;
        self.advance();
        let known = found.version == child.stat.version()
            && !is_racy(&found.version, self.index.started())
            && !is_unread(&found.entry.kind);

        match found.entry.kind {
            EntryKind::File(content) if known => Some(content),
            _ => None,
        }
    }
}
