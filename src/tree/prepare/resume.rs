//! Remains of an aborted session in the stage, and the log of the blocks in each file.
//!
//! A log is a hint: a block counts only after it was read and hashed. A log that loses its end in a
//! crash costs a transfer, nothing else.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Mutex;

use rustix::fs::FileType;

use crate::block::BlockHash;
use crate::error::{IoResultExt as _, Result};
use crate::sync::locked;
use crate::tree::fs::dir::{names, slot_name, sync_dir};
use crate::tree::fs::root::NOFOLLOW;
use crate::tree::fs::stat::FileStat;
use crate::tree::state::block_log::{self, BlockLocation, each_record};
use crate::tree::state::dir::StateDir;

/// Bytes of records written at a time.
const LOG_BUFFER_BYTES: usize = 64 << 10;
const LOG_PREFIX: &str = "log-";
/// Prefix for the log of a session whose files may have been in the tree: others may have them
/// open, so they are copied.
const USED_PREFIX: &str = "used-";

/// Log of one session, appended by several threads; best effort.
#[derive(Debug)]
pub(crate) struct StageLog {
    first: u64,
    out: Mutex<(File, Vec<u8>)>,
}

impl StageLog {
    /// Creates the log of the session whose first slot is `first`.
    pub(crate) fn create(state: &StateDir, first: u64) -> Result<Self> {
        let path = state.stage_path().join(format!("{LOG_PREFIX}{first}"));
        let mut options = File::options();
        options.create(true).truncate(true).write(true).mode(0o600);
        let file = options.open(&path).context("cannot write", &path)?;

        Ok(Self {
            first,
            out: Mutex::new((file, Vec::with_capacity(LOG_BUFFER_BYTES))),
        })
    }

    /// Records that the files are about to enter the tree: no later session writes to them.
    pub(crate) fn retire(&self, state: &StateDir) -> Result<()> {
        let path = state.stage_path();
        let from = path.join(format!("{LOG_PREFIX}{}", self.first));
        let to = format!("{USED_PREFIX}{}", self.first);
        std::fs::rename(&from, path.join(to)).context("cannot rename", &from)
    }

    pub(crate) fn add(&self, hash: &BlockHash, size: usize, slot: u64, offset: u64) {
        let mut log = locked(&self.out);
        log.1.extend_from_slice(&block_log::record(
            hash,
            &BlockLocation {
                slot,
                offset,
                size: size as u32,
            },
        ));
        if log.1.len() >= LOG_BUFFER_BYTES {
            flush(&mut log);
        }
    }

    /// Writes all buffered records.
    pub(crate) fn close(&self) {
        flush(&mut locked(&self.out));
    }
}

impl Drop for StageLog {
    fn drop(&mut self) {
        self.close();
    }
}

fn flush(log: &mut (File, Vec<u8>)) {
    // Blocks without a record have to be fetched again after an abort.
    let _ = log.0.write_all(&log.1);
    log.1.clear();
}

/// Files that earlier sessions left.
pub(crate) struct ResumableBlocks {
    stage: OwnedFd,
    old: Vec<OsString>,
    next_slot: u64,
    blocks: HashMap<BlockHash, BlockLocation>,
    /// Slots of blocks, by hash and offset, in files that can be continued.
    open: HashMap<(BlockHash, u64), u64>,
    /// Number of wanted blocks in each of these slots.
    counts: HashMap<u64, u64>,
    /// Slots that are continued.
    taken: HashSet<u64>,
}

impl ResumableBlocks {
    /// Finds the blocks `wanted` in the remains; files without any are removed at once.
    pub(crate) fn load(
        state: &StateDir,
        wanted: impl FnOnce() -> Result<HashSet<BlockHash>>,
    ) -> Result<Self> {
        let path = state.stage_path();
        let mut old = names(&path)?;
        let mut blocks = HashMap::new();
        let logs: Vec<&OsString> = old.iter().filter(|n| is_log(n)).collect();
        let mut open = HashMap::new();
        let wanted = if logs.is_empty() {
            HashSet::new()
        } else {
            wanted()?
        };

        for log in logs {
            let is_open = log.to_string_lossy().starts_with(LOG_PREFIX);
            each_record(&path.join(log), 0, |hash, place| {
                if wanted.contains(&hash) {
                    blocks.insert(hash, place);
                    if is_open {
                        open.insert((hash, place.offset), place.slot);
                    }
                }
            })?;
        }

        let mut counts = HashMap::new();
        open.values()
            .for_each(|slot| *counts.entry(*slot).or_insert(0) += 1);
        let needed: HashSet<u64> = blocks.values().map(|p: &BlockLocation| p.slot).collect();
        let number = |name: &OsString| {
            let name = name.to_string_lossy().into_owned();
            let number = [LOG_PREFIX, USED_PREFIX]
                .iter()
                .find_map(|prefix| name.strip_prefix(prefix));
            number.unwrap_or(&name).parse::<u64>().ok()
        };

        let next_slot = old
            .iter()
            .filter_map(number)
            .max()
            .map_or(1, |n| n.saturating_add(1));

        let useless =
            |name: &OsString| !is_log(name) && number(name).is_none_or(|n| !needed.contains(&n));
        for name in old.extract_if(.., |n| useless(n)) {
            remove(&path.join(name))?;
        }

        let stage = state
            .stage()
            .try_clone_to_owned()
            .context("cannot open", &path)?;

        Ok(Self {
            stage,
            old,
            next_slot,
            blocks,
            open,
            counts,
            taken: HashSet::new(),
        })
    }

    /// Returns whether any slot can be continued.
    pub(crate) fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// Takes the slot with most of `blocks` at their wanted offsets, exclusively.
    pub(crate) fn take_slot(&mut self, blocks: &[(BlockHash, u64)]) -> Option<u64> {
        let mut votes: HashMap<u64, u64> = HashMap::new();
        let slots = blocks.iter().filter_map(|block| self.open.get(block));
        slots
            .filter(|slot| !self.taken.contains(slot))
            .for_each(|slot| *votes.entry(*slot).or_default() += 1);
        let (slot, count) = votes
            .into_iter()
            .max_by_key(|(slot, count)| (*count, *slot))?;

        // Blocks in it that are wanted elsewhere would be lost.
        let all = self.counts.get(&slot).copied().unwrap_or(0);

        let stat = FileStat::at(self.stage.as_fd(), &slot_name(slot)).ok()?;
        let is_own = stat.file_type == FileType::RegularFile && stat.nlink == 1;
        (is_own && count * 2 > all)
            .then(|| self.taken.insert(slot))
            .map(|_| slot)
    }

    /// Returns whether a log lists the block there.
    pub(crate) fn is_at(&self, hash: &BlockHash, offset: u64, slot: u64) -> bool {
        self.open.get(&(*hash, offset)) == Some(&slot)
    }

    /// Bytes in each continued slot.
    pub(crate) fn held(&self) -> HashMap<u64, u64> {
        let bytes = |slot: u64| rustix::fs::statat(&self.stage, slot_name(slot), NOFOLLOW).ok();
        let held = self
            .taken
            .iter()
            .filter_map(|slot| Some((*slot, bytes(*slot)?.st_blocks as u64 * 512)));
        held.collect()
    }

    /// Drops the blocks that do not satisfy `wanted`.
    pub(crate) fn retain(&mut self, wanted: impl Fn(&BlockHash) -> bool) {
        self.blocks.retain(|hash, _| wanted(hash));
    }

    /// Removes everything except for continued slots to free space; returns whether anything was
    /// removed.
    pub(crate) fn give_up(&mut self, state: &StateDir) -> Result<bool> {
        let taken = &self.taken;
        let is_idle = |name: &OsString| {
            let slot = name.to_str().and_then(|name| name.parse::<u64>().ok());
            !is_log(name) && slot.is_none_or(|slot| !taken.contains(&slot))
        };

        let mut any = false;
        for name in self.old.extract_if(.., |name| is_idle(name)) {
            any = true;
            remove(&state.stage_path().join(name))?;
        }

        Ok(any)
    }

    /// First free slot number.
    pub(crate) fn next_slot(&self) -> u64 {
        self.next_slot
    }

    /// Calls `found` for every wanted block that is intact.
    pub(crate) fn for_each(&self, found: impl FnMut(&BlockHash, &[u8])) {
        block_log::read_each(self.stage.as_fd(), &self.blocks, found);
    }

    /// Removes the remains of earlier sessions.
    pub(crate) fn remove(&self, state: &StateDir) -> Result<()> {
        let is_taken = |name: &&OsString| {
            name.to_str()
                .and_then(|name| name.parse().ok())
                .is_some_and(|slot| self.taken.contains(&slot))
        };

        self.old
            .iter()
            .filter(|name| !is_taken(name))
            .try_for_each(|name| remove(&state.stage_path().join(name)))
    }

    /// Removes items that no log lists, and logs without items.
    pub(crate) fn tidy(state: &StateDir) -> Result<()> {
        let path = state.stage_path();
        let all = names(&path)?;
        let mut told = HashSet::new();
        for log in all.iter().filter(|n| is_log(n)) {
            let mut useful = false;
            each_record(&path.join(log), 0, |_, place| {
                useful |= told.insert(place.slot);
            })?;
            if !useful {
                remove(&path.join(log))?;
            }
        }

        for name in all.iter().filter(|n| !is_log(n)) {
            let slot = name.to_str().and_then(|n| n.parse::<u64>().ok());
            if slot.is_none_or(|slot| !told.contains(&slot)) {
                remove(&path.join(name))?;
            }
        }

        Ok(())
    }

    /// Makes the logs durable, so that the remains outlive a power cut.
    pub(crate) fn sync(state: &StateDir) -> Result<()> {
        let path = state.stage_path();
        for log in names(&path)?.iter().filter(|name| is_log(name)) {
            let log = path.join(log);
            File::open(&log)
                .and_then(|file| file.sync_all())
                .context("cannot sync", &log)?;
        }

        sync_dir(&path)
    }

    /// Removes everything in the stage.
    pub(crate) fn clear(state: &StateDir) -> Result<()> {
        let path = state.stage_path();
        names(&path)?
            .iter()
            .try_for_each(|name| remove(&path.join(name)))
    }
}

fn is_log(name: &OsString) -> bool {
    let name = name.to_string_lossy();
    [LOG_PREFIX, USED_PREFIX]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::IsADirectory => {
            std::fs::remove_dir_all(path).context("cannot remove", path)
        }
        done => done.context("cannot remove", path),
    }
}
