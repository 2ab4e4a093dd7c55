//! Gathers the files that a commit replaced or deleted, as far as releases that stay had them.
//!
//! Only content of the releases themselves is kept, by their manifests: entries of others, and a
//! tree from before the first release, are not.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;

use super::content_index::{ContentOwner, INDEX};
use crate::error::{Error, IoResultExt as _, Result};
use crate::id::Serial;
use crate::manifest::pages::Pages;
use crate::manifest::read::{Manifest, ReadError};
use crate::manifest::{Content, EntryKind, Release, TreePath};
use crate::tree::commit::aside::Aside;
use crate::tree::commit::journal::{Journal, Step};
use crate::tree::fs::dir::{open_dir, slot_name, stat, sync_dir};
use crate::tree::fs::root::Root;
use crate::tree::state::block_log::{self, BlockLocation};
use crate::tree::state::node_store::NodeStore;
use crate::tree::state::worktree::Worktree;

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
                Aside::open(tree, journal.serial())?.root()?,
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
