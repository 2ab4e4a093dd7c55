//! What a session that ended early left in the stage, and the log that says which block lies where.
//!
//! A log is a hint: a block counts only after it was read and hashed. Losing the end of a log in a crash costs a
//! transfer, nothing else.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Mutex;

use super::meta::locked;
use super::places::{self, Place, each_record};
use super::state::{State, names};
use crate::block::BlockHash;
use crate::error::{Error, Result};

/// Records are written in pieces of about this many bytes.
const BUFFER: usize = 64 << 10;
const LOG_PREFIX: &str = "log-";

/// The log of one session: appended by threads, best effort.
#[derive(Debug)]
pub(super) struct Log(Mutex<(File, Vec<u8>)>);

impl Log {
    /// Begins the log of the session whose first slot is `first`.
    pub(super) fn create(state: &State, first: u64) -> Result<Self> {
        let path = state.stage_path().join(format!("{LOG_PREFIX}{first}"));
        let mut options = File::options();
        options.create(true).truncate(true).write(true).mode(0o600);
        let file = options.open(&path).map_err(|e| Error::io("cannot write", &path, e))?;
        Ok(Self(Mutex::new((file, Vec::with_capacity(BUFFER)))))
    }

    pub(super) fn add(&self, hash: &BlockHash, size: usize, slot: u64, offset: u64) {
        let mut log = locked(&self.0);
        log.1.extend_from_slice(&places::record(hash, &Place { slot, offset, size: size as u32 }));
        if log.1.len() >= BUFFER {
            flush(&mut log);
        }
    }

    /// Writes what is left.
    pub(super) fn close(&self) {
        flush(&mut locked(&self.0));
    }
}

fn flush(log: &mut (File, Vec<u8>)) {
    // What cannot be logged has to be fetched again, should this session end early.
    let _ = log.0.write_all(&log.1);
    log.1.clear();
}

/// The files that sessions before this one left.
pub(super) struct Leftovers {
    stage: OwnedFd,
    old: Vec<OsString>,
    next_slot: u64,
    blocks: HashMap<BlockHash, Place>,
}

impl Leftovers {
    /// Looks for the blocks `wanted` in what is left, if anything is; files that hold none of them are removed at once.
    pub(super) fn load(state: &State, wanted: impl FnOnce() -> Result<HashSet<BlockHash>>) -> Result<Self> {
        let path = state.stage_path();
        let mut old = names(&path)?;
        let mut blocks = HashMap::new();
        let logs: Vec<&OsString> = old.iter().filter(|n| n.to_string_lossy().starts_with(LOG_PREFIX)).collect();
        let wanted = if logs.is_empty() { HashSet::new() } else { wanted()? };
        for log in logs {
            read_log(&path.join(log), &wanted, &mut blocks)?;
        }
        let needed: HashSet<u64> = blocks.values().map(|p: &Place| p.slot).collect();
        let number = |name: &OsString| {
            let name = name.to_string_lossy().into_owned();
            name.strip_prefix(LOG_PREFIX).unwrap_or(&name).parse::<u64>().ok()
        };
        let next_slot = old.iter().filter_map(number).max().map_or(1, |n| n.saturating_add(1));
        let useless = |name: &OsString| {
            !name.to_string_lossy().starts_with(LOG_PREFIX) && number(name).is_none_or(|n| !needed.contains(&n))
        };
        for name in old.extract_if(.., |n| useless(n)) {
            remove(&path.join(name))?;
        }
        let stage = state.stage().try_clone_to_owned().map_err(|e| Error::io("cannot open", &path, e))?;
        Ok(Self { stage, old, next_slot, blocks })
    }

    /// The first number that is free.
    pub(super) fn next_slot(&self) -> u64 {
        self.next_slot
    }

    /// Every wanted block that is really there.
    pub(super) fn for_each(&self, found: impl FnMut(&BlockHash, &[u8])) {
        places::read_each(self.stage.as_fd(), &self.blocks, found);
    }

    /// Removes what the sessions before left.
    pub(super) fn remove(&self, state: &State) -> Result<()> {
        self.old.iter().try_for_each(|name| remove(&state.stage_path().join(name)))
    }

    /// Removes what no later session can use: items that no log tells of, and logs without items.
    pub(super) fn tidy(state: &State) -> Result<()> {
        let path = state.stage_path();
        let all = names(&path)?;
        let mut told = HashSet::new();
        for log in all.iter().filter(|n| n.to_string_lossy().starts_with(LOG_PREFIX)) {
            let mut useful = false;
            each_record(&path.join(log), 0, |_, place| {
                useful |= told.insert(place.slot);
            })?;
            if !useful {
                remove(&path.join(log))?;
            }
        }
        for name in all.iter().filter(|n| !n.to_string_lossy().starts_with(LOG_PREFIX)) {
            let slot = name.to_str().and_then(|n| n.parse::<u64>().ok());
            if slot.is_none_or(|slot| !told.contains(&slot)) {
                remove(&path.join(name))?;
            }
        }
        Ok(())
    }

    /// Removes everything in the stage.
    pub(super) fn clear(state: &State) -> Result<()> {
        let path = state.stage_path();
        names(&path)?.iter().try_for_each(|name| remove(&path.join(name)))
    }
}

fn read_log(path: &Path, wanted: &HashSet<BlockHash>, blocks: &mut HashMap<BlockHash, Place>) -> Result<()> {
    each_record(path, 0, |hash, place| {
        if wanted.contains(&hash) {
            blocks.insert(hash, place);
        }
    })
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::IsADirectory => {
            std::fs::remove_dir_all(path).map_err(|e| Error::io("cannot remove", path, e))
        }
        done => done.map_err(|e| Error::io("cannot remove", path, e)),
    }
}
