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
//! Only content of the release itself is kept, by its manifest: entries of others, and a tree from
//! before the first release, are not. Files are never trusted: a block counts after it was read and
//! hashed.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;

use crate::block::BlockHash;
use crate::error::{Error, IoResultExt as _, Result};
use crate::id::Serial;
use crate::manifest::pages::Pages;
use crate::manifest::read::{Manifest, ReadError};
use crate::manifest::{Content, EntryKind, Release, TreePath};
use crate::tree::commit::journal::{Journal, Step};
use crate::tree::commit::swap::{drain, open_aside};
use crate::tree::fs::dir::{c_name, names, open_dir, private_dir, slot_name, stat, sync_dir};
use crate::tree::fs::root::Root;
use crate::tree::state::block_log::{self, BlockLocation, each_record};
use crate::tree::state::node_store::NodeStore;
use crate::tree::state::reader::{done_journal, kept_journal};
use crate::tree::state::worktree::Worktree;

/// Directory of kept content in a tree's state.
const KEPT_DIR: &str = "kept";
/// File with the location of each block.
const INDEX: &str = "index";
const KEPT_INDEX_MAGIC: &[u8; 16] = b"makuo kept v0001";
/// Magic for kept content of a part of the tree.
const KEPT_PART_INDEX_MAGIC: &[u8; 16] = b"makuo kept v0002";

/// Prepares to keep the files that the commit of `journal` replaced or deleted from the releases
/// `before` it, newest first, as far as releases that `stay` had them: writes the index. The commit
/// can still be reverted.
pub(crate) fn index_replaced(
    tree: &Worktree,
    journal: &Journal,
    before: &[&Release],
    stay: &BTreeSet<Serial>,
) -> Result<()> {
    let manifests: Vec<_> = before
        .iter()
        .map(|release| Manifest::of(release.header(), tree.nodes()))
        .collect();
    let owner = ContentOwner::of(before);
    let after = match &journal.swap {
        None => None,
        Some(_) => {
            let release =
                Release::from_bytes(&journal.header).map_err(|e| Error::refused(e.to_string()))?;
            Some((
                open_aside(tree, journal)?,
                Manifest::of(release.header(), tree.nodes()),
            ))
        }
    };

    let swapped = match &after {
        Some((old, manifest)) => Some((old, Contents::of(manifest)?)),
        None => None,
    };

    let mut chain = Vec::new();
    for (release, manifest) in before.iter().zip(&manifests) {
        chain.push((
            Contents::of(manifest)?,
            stay.contains(&release.header().serial),
        ));
    }

    let mut gathering = Gathering::begin(tree, journal, owner, chain, swapped)?;
    each_sought(journal, |path, slot| gathering.add(path, slot))?;
    gathering.finish()
}

/// Cancels the preparation: the commit of `serial` is reverted.
pub(crate) fn drop_replaced_index(tree: &Worktree, serial: Serial) -> Result<()> {
    tree.state.remove(&format!("undo/{serial}/{INDEX}"))
}

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

/// Removes the content of releases that are not among `stay`, and foreign entries.
pub(crate) fn prune(tree: &Worktree, stay: &BTreeSet<Serial>) -> Result<()> {
    let path = tree.state.here().join(KEPT_DIR);
    for name in names_if_any(&path)? {
        let serial = name.to_str().and_then(|n| n.parse().ok()).map(Serial);
        let owner = ContentOwner::read(&path.join(&name).join(INDEX))
            .filter(|owner| Some(owner.serial) == serial);
        if owner.is_none_or(|owner| !stay.contains(&owner.serial) && !stay.contains(&owner.base)) {
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

/// Calls back with the location of each block of the kept content in `dir`.
pub(crate) fn each_block(dir: &Path, found: impl FnMut(BlockHash, BlockLocation)) -> Result<()> {
    let index = dir.join(INDEX);
    let start = ContentOwner::read(&index).map_or(HEAD_BYTES, |owner| owner.head().len());
    each_record(&index, start as u64, found)
}

/// Calls back for each path that a commit replaced or removed, sorted, with its slot if it has one.
fn each_sought(
    journal: &Journal,
    mut found: impl FnMut(&TreePath, Option<u64>) -> Result<()>,
) -> Result<()> {
    if let Some(swap) = &journal.swap {
        return swap.changed.iter().try_for_each(|path| found(path, None));
    }

    let moved = |step| match step {
        Step::Place {
            path,
            slot,
            replaces: true,
            copy: None | Some(false),
            ..
        }
        | Step::Remove {
            path,
            slot,
            is_dir: false,
        } => Some((path, slot)),
        _ => None,
    };

    // Paths rise up to the first one that goes back; from there on come removals, deepest first.
    let mut last = None;
    let rising = journal.steps.iter().position(|step| match moved(step) {
        Some((path, _)) => last
            .replace(path)
            .is_some_and(|before| last.as_ref() < Some(&before)),
        None => false,
    });

    let rising = rising.unwrap_or(journal.steps.len());
    let mut front = journal
        .steps
        .iter()
        .take(rising)
        .filter_map(moved)
        .peekable();

    let mut back = journal
        .steps
        .iter()
        .rev()
        .take(journal.steps.len() - rising)
        .filter_map(moved)
        .peekable();

    loop {
        let next = match (front.peek(), back.peek()) {
            (Some(a), Some(b)) if b.0 < a.0 => back.next(),
            (None, _) => back.next(),
            _ => front.next(),
        };
        let Some((path, slot)) = next else {
            return Ok(());
        };
        found(&path, Some(slot))?;
    }
}

/// Writes the index of the content to keep for one commit.
struct Gathering<'a> {
    tree: &'a Worktree,
    dir: PathBuf,
    undo: OwnedFd,
    /// The old release and those that it changed, newest first, and whether each stays.
    before: Vec<(Contents<'a>, bool)>,
    /// For an exchange of whole trees: the old tree, and the new release.
    swapped: Option<(&'a Root, Contents<'a>)>,
    out: BufWriter<File>,
    /// Last number given to a file.
    last_slot: u64,
    files: u64,
}

impl<'a> Gathering<'a> {
    fn begin(
        tree: &'a Worktree,
        journal: &Journal,
        owner: ContentOwner,
        before: Vec<(Contents<'a>, bool)>,
        swapped: Option<(&'a Root, Contents<'a>)>,
    ) -> Result<Self> {
        let dir = tree.state.undo_path(journal.serial());
        let path = dir.join(INDEX).with_extension("new");
        let mut options = File::options();
        options.create(true).truncate(true).write(true).mode(0o600);
        let file = options.open(&path).context("cannot write", &path)?;

        let mut out = BufWriter::with_capacity(64 << 10, file);
        out.write_all(&owner.head())
            .context("cannot write", &path)?;
        let undo = open_dir(&dir)?;

        Ok(Self {
            tree,
            dir,
            undo,
            before,
            swapped,
            out,
            last_slot: 0,
            files: 0,
        })
    }

    /// Content of `path` before the commit, if a release that stays had it there.
    fn needed(&self, path: &TreePath) -> Result<Option<(Content, &'a Manifest<&'a NodeStore>)>> {
        let mut was = None;
        for (contents, stays) in &self.before {
            let Some(found) = contents.at(path)? else {
                continue;
            };
            let was = was.get_or_insert_with(|| found.clone());
            if *stays && *was == found {
                return Ok(Some((found, contents.manifest)));
            }
        }

        Ok(None)
    }

    /// Keeps the old file of `path`, if it belongs to the old release and to no other.
    fn add(&mut self, path: &TreePath, slot: Option<u64>) -> Result<()> {
        let Some((content, manifest)) = self.needed(path)? else {
            return Ok(());
        };

        let after = match &self.swapped {
            Some((_, contents)) => contents.at(path)?,
            None => None,
        };

        // Only metadata changed: the live tree still has this content.
        if content.size() == 0 || after.is_some_and(|after| after == content) {
            return Ok(());
        }

        let slot = match slot {
            Some(slot) => slot,
            None => match self.link(path) {
                Ok(slot) => slot,
                Err(e) if self.tree.crash.happened() => return Err(e),
                Err(e) => {
                    tracing::debug!("not kept: {e}");
                    return Ok(());
                }
            },
        };

        let there =
            stat(self.undo.as_fd(), &slot_name(slot)).context("cannot look at", &self.dir)?;

        // With another size it is not the release's file.
        if there
            .is_none_or(|now| now.file_type != FileType::RegularFile || now.size != content.size())
        {
            return Ok(());
        }

        self.files += 1;
        let mut offset = 0;
        let blocks = manifest.blocks(&content);
        for block in blocks.map_err(unreadable)? {
            let place = BlockLocation {
                slot,
                offset,
                size: block.size,
            };
            let written = self.out.write_all(&block_log::record(&block.hash, &place));
            written.context("cannot write into", &self.dir)?;
            offset += u64::from(block.size);
        }

        Ok(())
    }

    /// Gives the file at `path` of the old tree a second name in the undo directory, since the tree
    /// goes when the commit is confirmed.
    fn link(&mut self, path: &TreePath) -> Result<u64> {
        let Some((old, _)) = &self.swapped else {
            return Err(Error::refused("no tree stands aside"));
        };

        self.tree.crash.point()?;
        self.last_slot += 1;
        let name = slot_name(self.last_slot);
        let link = || -> io::Result<()> {
            let (parent, last) = old.parent(path)?;
            match rustix::fs::linkat(&parent, &last, &self.undo, &name, AtFlags::empty()) {
                // From an earlier attempt.
                Err(Errno::EXIST) => {
                    rustix::fs::unlinkat(&self.undo, &name, AtFlags::empty())?;
                    Ok(rustix::fs::linkat(
                        &parent,
                        &last,
                        &self.undo,
                        &name,
                        AtFlags::empty(),
                    )?)
                }
                done => Ok(done?),
            }
        };

        link().map_err(|e| Error::io("cannot keep", old.shown(path), e))?;
        Ok(self.last_slot)
    }

    fn finish(mut self) -> Result<()> {
        let index = self.dir.join(INDEX);
        let new = self.dir.join(INDEX).with_extension("new");
        if self.files == 0 {
            return Ok(());
        }

        self.tree.crash.point()?;
        let mut write = || -> io::Result<()> {
            self.out.flush()?;
            self.out.get_ref().sync_all()?;
            std::fs::rename(&new, &index)
        };

        write().context("cannot write", &index)?;
        sync_dir(&self.dir)
    }
}

/// Files of a release.
struct Contents<'a> {
    manifest: &'a Manifest<&'a NodeStore>,
    pages: Pages,
}

impl<'a> Contents<'a> {
    fn of(manifest: &'a Manifest<&'a NodeStore>) -> Result<Self> {
        Ok(Self {
            manifest,
            pages: Pages::of(manifest).map_err(unreadable)?,
        })
    }

    /// Content of the file `path`.
    fn at(&self, path: &TreePath) -> Result<Option<Content>> {
        let found = self.pages.find(self.manifest, path).map_err(unreadable)?;
        Ok(found.and_then(|located| match located.entry.kind {
            EntryKind::File(content) => Some(content),
            _ => None,
        }))
    }
}

fn unreadable(e: ReadError) -> Error {
    Error::refused(format!("the release's manifest cannot be read: {e}"))
}

/// Bytes of magic and one serial.
const HEAD_BYTES: usize = 16 + 8;

/// Release that an undo directory or kept content belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ContentOwner {
    /// Release before the commit.
    serial: Serial,
    /// Whole release that it is a part of; itself for a whole release.
    base: Serial,
}

impl ContentOwner {
    /// Owner of the content replaced after the releases `before`, newest first.
    fn of(before: &[&Release]) -> Self {
        let serial = |release: Option<&&Release>| release.map_or(Serial(0), |r| r.header().serial);
        Self {
            serial: serial(before.first()),
            base: serial(before.last()),
        }
    }

    /// Beginning of an index.
    fn head(&self) -> Vec<u8> {
        let serial = self.serial.0.to_be_bytes();
        let base = self.base.0.to_be_bytes();
        match self.serial == self.base {
            true => [KEPT_INDEX_MAGIC.as_slice(), &serial].concat(),
            false => [KEPT_PART_INDEX_MAGIC.as_slice(), &serial, &base].concat(),
        }
    }

    /// Owner that an index names; `None` without an index.
    fn read(index: &Path) -> Option<Self> {
        let mut file = File::open(index).ok()?;
        let mut head = [0; HEAD_BYTES];
        file.read_exact(&mut head).ok()?;
        let (magic, serial) = head.split_at(KEPT_INDEX_MAGIC.len());
        let serial = Serial(u64::from_be_bytes(serial.try_into().ok()?));

        if magic == KEPT_INDEX_MAGIC {
            return Some(Self {
                serial,
                base: serial,
            });
        }

        let mut base = [0; 8];
        file.read_exact(&mut base).ok()?;
        (magic == KEPT_PART_INDEX_MAGIC).then_some(Self {
            serial,
            base: Serial(u64::from_be_bytes(base)),
        })
    }
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
