//! Content of kept releases: files that newer releases replaced or deleted, so a rollback fetches
//! nothing.
//!
//! **On disk.** `kept/SERIAL/` in the tree's state holds the files of the release SERIAL that its
//! successor replaced or deleted: numbered files, and `index` with the location of each block. The
//! directory was the successor's undo directory and becomes kept content by one rename when the
//! commit is confirmed. The index is written while the commit can still be reverted. Then the
//! journal is removed, which is the confirmation; then files outside of the index; then the
//! directory gets its new name. Each step can be repeated after a crash ([`archive_all`]). Content
//! is removed with its release ([`prune`]).
//!
//! Files are never trusted: a block counts after it was read and hashed.
//! [`super::gathering`] chooses the files, [`super::content_index`] is the format of the index.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::content_index::{ContentOwner, INDEX, each_block};
use crate::block::BlockHash;
use crate::error::{IoResultExt as _, Result};
use crate::id::Serial;
use crate::tree::commit::swap_follow::drain;
use crate::tree::fs::dir::{c_name, names, open_dir, private_dir, sync_dir};
use crate::tree::state::block_log;
use crate::tree::state::reader::{done_journal, kept_journal};
use crate::tree::state::worktree::Worktree;

/// Directory of kept content in a tree's state.
const KEPT_DIR: &str = "kept";

/// Turns every undo directory with an index into kept content, and removes the others. This
/// confirms all commits.
pub(crate) fn archive_all(tree: &Worktree) -> Result<()> {
    tree.state.empty_trash();
    let path = tree.state.undo_dirs();
    for name in names(&path)? {
        let dir = path.join(&name);
        // The journal goes first: an undo from half a directory must not start.
        tree.crash.point()?;
        if let Some(serial) = name.to_str().and_then(|n| n.parse().ok()).map(Serial) {
            match tree
                .state
                .rename(&kept_journal(serial), &done_journal(serial))
            {
                Err(e) if !e.is_os(io::ErrorKind::NotFound) => return Err(e),
                _ => drain(tree, serial)?,
            }
        }
        if let Some(owner) = ContentOwner::read(&dir.join(INDEX)) {
            match archive(tree, &dir, owner.serial) {
                Err(e) if tree.crash.happened() => return Err(e),
                Err(e) => {
                    tracing::warn!(
                        "tree {}: what release {} had is not kept: {e}",
                        tree.name(),
                        owner.serial
                    );
                }
                Ok(()) => {}
            }
        }
        tree.crash.point()?;
        remove(tree, &path, &name)?;
    }

    Ok(())
}

/// Removes the content that the successors of releases replaced, unless it `stays`, and foreign
/// entries.
pub(crate) fn prune(tree: &Worktree, stays: impl Fn(Serial) -> bool) -> Result<()> {
    let path = tree.state.here().join(KEPT_DIR);
    for name in names_if_any(&path)? {
        let serial = name.to_str().and_then(|n| n.parse().ok()).map(Serial);
        let owner = ContentOwner::read(&path.join(&name).join(INDEX))
            .filter(|owner| Some(owner.serial) == serial);
        let goes = |owner: ContentOwner| !stays(owner.serial) && !stays(owner.base);
        if owner.is_none_or(goes) {
            tree.crash.point()?;
            remove(tree, &path, &name)?;
        }
    }

    Ok(())
}

/// Finds the blocks `wanted` in the kept content below the state directory `state`, and hands on
/// every intact one. Memory grows with `wanted`, not with the kept content. Unreadable content
/// counts as not kept.
pub(crate) fn find(
    state: &Path,
    wanted: &HashSet<BlockHash>,
    mut found: impl FnMut(&BlockHash, &[u8]),
) {
    let all = kept_dirs(state).unwrap_or_else(|e| {
        tracing::warn!("no kept content can be used: {e}");
        Vec::new()
    });
    let mut left = wanted.clone();

    for (serial, dir) in all {
        if left.is_empty() {
            break;
        }
        let mut here = HashSet::new();
        let read = find_in(&dir, &left, |hash, bytes| {
            here.insert(*hash);
            found(hash, bytes);
        });
        match read {
            Ok(0) => {}
            Ok(missing) => tracing::warn!(
                "{missing} blocks that release {serial} had are damaged: {}",
                dir.display()
            ),
            Err(e) => tracing::warn!("what release {serial} had cannot be used: {e}"),
        }
        left.retain(|hash| !here.contains(hash));
    }
}

/// Returns the number of wanted blocks that `dir` lists but lacks.
fn find_in(
    dir: &Path,
    wanted: &HashSet<BlockHash>,
    found: impl FnMut(&BlockHash, &[u8]),
) -> Result<usize> {
    let mut blocks = HashMap::new();
    each_block(dir, |hash, place| {
        if wanted.contains(&hash) {
            blocks.entry(hash).or_insert(place);
        }
    })?;

    match blocks.is_empty() {
        true => Ok(0),
        false => Ok(block_log::read_each(open_dir(dir)?.as_fd(), &blocks, found)),
    }
}

/// Directories of kept content below the state directory `state`, with the serials of their
/// releases, newest first.
pub(crate) fn kept_dirs(state: &Path) -> Result<Vec<(Serial, PathBuf)>> {
    let path = state.join(KEPT_DIR);
    let named = names_if_any(&path)?.into_iter().filter_map(|name| {
        let serial = Serial(name.to_str()?.parse().ok()?);
        let dir = path.join(name);
        ContentOwner::read(&dir.join(INDEX))
            .is_some_and(|owner| owner.serial == serial)
            .then_some((serial, dir))
    });
    let mut all: Vec<_> = named.collect();
    all.sort_by_key(|(serial, _)| std::cmp::Reverse(*serial));

    Ok(all)
}

/// Turns the undo directory `dir` of a confirmed commit into the kept content of `serial`.
fn archive(tree: &Worktree, dir: &Path, serial: Serial) -> Result<()> {
    let mut told = HashSet::new();
    each_block(dir, |_, place| {
        told.insert(place.slot);
    })?;

    for name in names(dir)? {
        let slot = name.to_str().and_then(|n| n.parse::<u64>().ok());
        if name != INDEX && slot.is_none_or(|slot| !told.contains(&slot)) {
            remove(tree, dir, &name)?;
        }
    }

    let kept = tree.state.here().join(KEPT_DIR);
    private_dir(&kept)?;
    let name = OsString::from(serial.to_string());
    remove(tree, &kept, &name)?;
    tree.crash.point()?;
    std::fs::rename(dir, kept.join(&name)).context("cannot rename", dir)?;
    sync_dir(&kept)?;

    sync_dir(&tree.state.undo_dirs())
}

/// Removes `name` in the directory `dir` of the state with everything below, now or later; a
/// missing entry is no error.
fn remove(tree: &Worktree, dir: &Path, name: &OsStr) -> Result<()> {
    tree.state
        .discard(open_dir(dir)?.as_fd(), &c_name(name)?, &dir.join(name))
}

fn names_if_any(path: &Path) -> Result<Vec<OsString>> {
    match names(path) {
        Err(e) if e.is_os(io::ErrorKind::NotFound) => Ok(Vec::new()),
        found => found,
    }
}
