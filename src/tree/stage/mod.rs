//! Staging: everything new in a plan, complete and verified beside the tree before the tree
//! changes.
//!
//! Staged items have numbers, never names from a peer. Every block is verified before it is
//! written. Mode, owner, attributes and mtime are set by handle before an item gets its final name.
//! A small log records the blocks in each staged file, so the remains of an aborted session serve
//! the next one.

mod attributes;
mod copy;
mod finish;
mod layout;
mod list_cache;
mod readback;
mod reflink;
mod resume;
mod targets;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rustix::fs::{AtFlags, FallocateFlags, OFlags};
use rustix::io::Errno;

use super::commit::next_tree::NextTree;
use super::commit::run::{CommitReport, Staged};
use super::fs::ctime_chains::Operation;
use super::fs::dir::slot_name;
use super::fs::dir_access::OpenedDirs;
use super::fs::errors::with_space_hint;
use super::fs::metadata::{Metadata, handle_of};
use super::fs::sparse;
use super::fs::stat::FileStat;
use super::history::content;
use super::lifecycle::{Claim, Tree};
use super::prepare::items::StagedItem;
use super::prepare::resume::{ResumableBlocks, StageLog};
use super::prepare::{copies, copy_up, preflight, space};
use crate::block::{BlockHash, BlockRef};
use crate::diff::Plan;
use crate::error::{Error, Result};
use crate::id::Ordinal;
use crate::manifest::Release;
use crate::manifest::rules::Layout;
use crate::sync::locked;
use layout::{has, lay_out, names};
pub use readback::BlockReader;
use targets::BlockTargets;

/// Smallest file whose space is preallocated, in bytes.
const PREALLOCATE_FROM: u64 = 1 << 20;

/// A release in preparation beside its tree. A drop is an abort: fetched content is kept for the
/// next attempt.
#[derive(Debug)]
pub struct Stage {
    tree: Arc<Tree>,
    plan: Plan,
    items: Vec<StagedItem>,
    targets: BlockTargets,
    next_slot: u64,
    log: StageLog,
    _claim: Claim<Arc<Tree>>,
    finished: AtomicBool,
    /// Whether a commit was attempted.
    spent: AtomicBool,
    /// Next tree, in the layout `swap`.
    next: Mutex<Option<NextTree>>,
}

impl Stage {
    /// Begins to stage `plan`: checks rights and space, takes over the remains of an aborted
    /// session and content of older releases. [`Stage::wants`] lists the blocks to fetch. A second
    /// stage at the same time is refused.
    pub fn begin(tree: &Arc<Tree>, mut plan: Plan) -> Result<Self> {
        let claim = Claim::new(Arc::clone(tree))?;
        tree.check_there()?;
        if let Some(serial) = tree.undo_failed_commit()? {
            return Err(Error::refused(format!(
                "tree {}: the failed commit of {serial} was undone only now, after the tree was \
                 compared",
                tree.name()
            ))
            .hint("deploy again"));
        }

        if plan.layout == Layout::Swap {
            tree.check_swap()?;
        }
        let _opened = preflight::check(tree, &mut plan)?;

        tree.confirm()?;
        tree.state.forget_next()?;
        let mut targets = BlockTargets::new(tree);
        let mut resumable = ResumableBlocks::load(&tree.state, || names(&plan, &targets))?;
        let copied = copies::chosen(&tree.root(), &plan)?;
        let (items, next_slot, resumed) = lay_out(&plan, &copied, &mut targets, &mut resumable)?;

        plan.summary.write_bytes += items
            .iter()
            .filter(|i| copied.contains(&i.change()))
            .map(|i| i.size)
            .sum::<u64>();

        let held = resumable.held();
        let keeps = content::kept_dirs(&tree.state.here()).is_ok_and(|kept| !kept.is_empty());
        if let Err(e) = space::check(tree, &plan, &items, &held, keeps) {
            // Remains that cannot be continued take space that is needed.
            if !resumable.give_up(&tree.state)? {
                return Err(e);
            }
            space::check(tree, &plan, &items, &held, keeps)?;
        }

        let log = StageLog::create(&tree.state, resumable.next_slot())?;
        let mut stage = Self {
            tree: Arc::clone(tree),
            plan,
            items,
            targets,
            next_slot,
            log,
            _claim: claim,
            finished: AtomicBool::new(false),
            spent: AtomicBool::new(false),
            next: Mutex::new(None),
        };

        stage.take_over(resumable, &resumed)?;
        stage.take_kept()?;
        Ok(stage)
    }

    /// The plan, as far as known now.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Ordinals to fetch, sorted: the plan's, without blocks from an aborted session or older
    /// releases.
    pub fn wants(&self) -> &[Range<u64>] {
        &self.plan.wants
    }

    /// The block `ordinal`, if it is to be fetched.
    pub fn wanted(&self, ordinal: Ordinal) -> Result<Option<BlockRef>> {
        self.plan.wanted(ordinal, self.targets.lists())
    }

    /// All blocks to fetch, in the order of their ordinals.
    pub fn fetched(&self) -> Result<Vec<(Ordinal, BlockRef)>> {
        let mut all = Vec::new();
        self.plan
            .each_fetched(self.targets.lists(), |ordinal, block| {
                all.push((ordinal, *block))
            })?;
        Ok(all)
    }

    /// Verifies `bytes` and writes them to all their targets. False if they do not match `ordinal`,
    /// or if the block is not wanted. Several threads may call this at once.
    pub fn put(&self, ordinal: Ordinal, bytes: &[u8]) -> Result<bool> {
        let Some(block) = self.wanted(ordinal)? else {
            return Ok(false);
        };

        if !block.matches(bytes) {
            return Ok(false);
        }

        self.place(&block.hash, bytes)?;
        Ok(true)
    }

    /// Ends the staging: copies blocks from the host itself, creates links, pipes and devices, and
    /// syncs everything. An error leaves the tree unchanged; staged items are kept.
    pub fn finish(&self) -> Result<()> {
        if self.spent.load(Ordering::Acquire) {
            return Err(Error::refused("this stage was committed"));
        }

        // Results of an earlier attempt are made again.
        self.finished.store(false, Ordering::Release);
        // Not in the layout `swap`: the next tree would get the temporary modes.
        let barred = (self.plan.layout == Layout::InPlace)
            .then(|| OpenedDirs::of_plan(&self.tree.root(), &self.plan));
        let _barred = barred.transpose()?;

        // Changes to files of the live tree come before their versions are recorded.
        if self.tree.state.is_overlay() {
            copy_up::all(&self.tree, &self.plan)?;
        }

        if self.plan.layout == Layout::Swap {
            // Drops the next tree of an earlier attempt: its names of live files go, which changes
            // these files, too.
            *locked(&self.next) = None;
            self.tree.state.forget_next()?;
        }

        let cloned = self.clone_files()?;
        tracing::debug!(
            "tree {}: {cloned} files share the space of others",
            self.tree.name()
        );
        self.copy_local()?;
        self.make_others()?;

        self.settle_attributes()?;
        let missing: u64 = self
            .items
            .iter()
            .map(|i| u64::from(i.left.load(Ordering::Acquire)))
            .sum();

        if missing > 0 {
            return Err(Error::refused(format!(
                "{missing} blocks of the release have not come"
            )));
        }

        if self.plan.layout == Layout::Swap {
            *locked(&self.next) = Some(NextTree::build(&self.tree, &self.plan, &self.items)?);
        }

        self.sync()?;
        self.finished.store(true, Ordering::Release);
        Ok(())
    }

    /// Returns whether [`Stage::finish`] succeeded.
    pub fn is_finished(&self) -> bool {
        self.finished.load(Ordering::Acquire)
    }

    /// Commits the stage, all or nothing, once. An error leaves the tree as before.
    pub fn commit(&self, release: &Release, signature: &[u8]) -> Result<CommitReport> {
        if !self.finished.swap(false, Ordering::AcqRel) {
            return Err(Error::refused("the release is not staged completely"));
        }

        // From now on slots may hold replaced entries.
        self.spent.store(true, Ordering::Release);
        self.log.retire(&self.tree.state)?;
        self.tree.check_there()?;
        let next = locked(&self.next).take();
        let staged = Staged {
            plan: &self.plan,
            items: &self.items,
            next_slot: self.next_slot,
            next,
        };
        let report = self.tree.commit(staged, release, signature)?;

        self.log.close();
        if let Err(e) = self
            .drop_slots()
            .and_then(|()| ResumableBlocks::clear(&self.tree.state))
        {
            tracing::warn!(
                "tree {}: the stage cannot be cleared: {e}",
                self.tree.name()
            );
        }

        Ok(report)
    }

    /// Removes the staged names of the new tree's entries after an exchange.
    fn drop_slots(&self) -> Result<()> {
        let stage = self.tree.state.stage();
        for item in self
            .items
            .iter()
            .filter(|_| self.plan.layout == Layout::Swap)
        {
            let name = slot_name(item.slot);
            let drop_name = || -> io::Result<()> {
                let handle = handle_of(stage, &name)?;
                let operation = Operation::on(FileStat::of(&handle)?);
                rustix::fs::unlinkat(stage, &name, AtFlags::empty())?;
                operation.done(&FileStat::of(&handle)?, &mut locked(&self.tree.chains));
                Ok(())
            };
            drop_name().map_err(|e| self.failed("cannot clear the stage of", item, e))?;
        }

        Ok(())
    }

    /// Returns the plan after a commit.
    pub fn into_plan(mut self) -> Plan {
        self.plan.take()
    }

    /// Aborts: the tree stays unchanged, fetched content is kept for the next attempt.
    pub fn abort(self) {}

    fn place(&self, hash: &BlockHash, bytes: &[u8]) -> Result<()> {
        let is_hole = sparse::is_hole(&BlockRef {
            hash: *hash,
            size: bytes.len() as u32,
        });

        for target in self.targets.of(hash)? {
            if !target.claim() {
                continue;
            }
            let item = &self.items[target.item];
            let done = if is_hole {
                self.leave_out(item)
            } else {
                self.write(item, target.offset, bytes)
            };
            target.finish(done.is_ok());
            done.map_err(|e| self.failed("cannot stage", item, e))?;
            if !is_hole {
                self.log.add(hash, bytes.len(), item.slot, target.offset);
            }
        }

        Ok(())
    }

    /// Writes one block; the last block of a file seals it.
    fn write(&self, item: &StagedItem, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let file = self.open_slot(item.slot)?;
        sparse::write(&file, bytes, offset)?;
        self.count(item, || Ok(file))
    }

    /// Skips a block of a long hole; a file can have millions.
    fn leave_out(&self, item: &StagedItem) -> io::Result<()> {
        self.count(item, || self.open_slot(item.slot))
    }

    /// Counts a present block; the last one seals the file.
    fn count(&self, item: &StagedItem, file: impl FnOnce() -> io::Result<File>) -> io::Result<()> {
        if item.left.fetch_sub(1, Ordering::AcqRel) > 1 {
            return Ok(());
        }

        let seal = || {
            let file = file()?;
            let now = FileStat::of(&file)?;
            // It may end with a hole.
            if now.size != item.size {
                file.set_len(item.size)?;
            }
            self.seal_over(item, &file, &now)
        };

        seal().inspect_err(|_| {
            item.left.fetch_add(1, Ordering::AcqRel);
        })
    }

    fn open_slot(&self, slot: u64) -> io::Result<File> {
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        Ok(File::from(rustix::fs::openat(
            self.tree.state.stage(),
            slot_name(slot),
            flags,
            mode,
        )?))
    }

    fn seal(&self, item: &StagedItem, handle: impl AsFd) -> io::Result<()> {
        let now = FileStat::of(&handle)?;
        self.seal_over(item, handle, &now)
    }

    /// Sets the release's metadata on the item, whose status is `now`.
    fn seal_over(&self, item: &StagedItem, handle: impl AsFd, now: &FileStat) -> io::Result<()> {
        Metadata::wanted(&self.plan.changes.get(item.change()), &self.plan)
            .set_over(handle.as_fd(), now)?;
        item.ino.store(now.id.ino, Ordering::Release);
        Ok(())
    }

    /// Takes blocks from older releases; damaged ones stay wanted.
    fn take_kept(&mut self) -> Result<()> {
        let state = self.tree.state.here();
        if self.plan.wants.is_empty()
            || content::kept_dirs(&state).is_ok_and(|kept| kept.is_empty())
        {
            return Ok(());
        }
        let wanted = names(&self.plan, &self.targets)?;
        self.take(|found| content::find(&state, &wanted, found))
    }

    /// Takes blocks that are on the host; they need not be fetched any more.
    fn take(&mut self, blocks: impl FnOnce(&mut dyn FnMut(&BlockHash, &[u8]))) -> Result<()> {
        let mut trouble = None;
        blocks(&mut |hash, bytes| {
            if let Err(e) = self.place(hash, bytes) {
                trouble = Some(e);
            }
        });
        if let Some(e) = trouble {
            return Err(e);
        }

        let saved = self.plan.drop_wants(self.targets.lists(), |block| {
            has(&self.targets, &block.hash)
        })?;
        self.plan.summary.reuse_bytes += saved;

        Ok(())
    }

    /// Preallocates the space of large files. [`Stage::begin`] checked that there is enough; this
    /// may run while the first blocks arrive.
    pub fn reserve(&self) -> Result<()> {
        if space::is_memory(&self.tree) {
            return Ok(());
        }

        for item in self
            .items
            .iter()
            .filter(|i| i.size >= PREALLOCATE_FROM && i.left.load(Ordering::Acquire) > 0)
        {
            let file = self
                .open_slot(item.slot)
                .map_err(|e| self.failed("cannot stage", item, e))?;
            for data in item.data() {
                let length = data.end - data.start;
                match rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, data.start, length) {
                    Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
                    Err(e) => return Err(self.failed("cannot take space for", item, e.into())),
                }
            }
        }

        Ok(())
    }

    fn failed(&self, action: &str, item: &StagedItem, e: io::Error) -> Error {
        let path = &self.plan.changes.get(item.change()).path;
        with_space_hint(Error::io(action, self.tree.root().shown(path), e))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.log.close();
    }
}
