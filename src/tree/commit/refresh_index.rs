//! Updates the index after an exchange of whole trees.
//!
//! A file in both trees has a further name while both exist, and so another ctime: a scan would
//! take it for a changed file. So the old tree's name of every indexed file is removed here, and
//! the index gets the resulting ctime, for files that only our own operations changed since
//! ([`crate::tree::fs::ctime_chains`]).

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::aside::Aside;
use super::follow::transfer::NameTransfer;
use super::journal::Journal;
use crate::block::BlockHash;
use crate::manifest::{EntryKind, TreePath};
use crate::sync::locked;
use crate::tree::fs::ctime_chains::Operation;
use crate::tree::fs::dir_cursor::DirCursor;
use crate::tree::fs::metadata::handle_of;
use crate::tree::fs::root::{FileId, Root};
use crate::tree::fs::stat::{FileStat, Version};
use crate::tree::index::{Index, IndexEntry, IndexWriter, Origin};
use crate::tree::scan::{CLOCK_GRANULARITY, is_racy};
use crate::tree::state::worktree::Worktree;

/// Removes the names of shared files from the tree aside, and turns the index of the directory
/// `before` into one of the live tree.
pub(crate) fn relink(
    tree: &Worktree,
    journal: &Journal,
    before: u64,
    changed: &[TreePath],
) -> io::Result<()> {
    let path = tree.index_path();
    let root = tree.root();
    let before = FileId {
        ino: before,
        ..root.id()
    };

    let Some(old) = Index::open(&path, before) else {
        return Ok(());
    };

    // Nothing was exchanged.
    let Ok(beside) = Aside::open(tree, journal.serial()) else {
        return Ok(());
    };
    let Ok(aside) = beside.root() else {
        return Ok(());
    };

    let is_both = |found: &IndexEntry| changed.binary_search(&found.entry.path).is_err();
    let mut names = SharedFiles {
        tree,
        live: &root,
        aside: &aside,
        transfer: NameTransfer(beside.dir()),
        dirs: DirCursor::default(),
    };

    for found in old.entries() {
        let found = found?;
        if matches!(
            found.entry.kind,
            EntryKind::File(_) | EntryKind::Hardlink(_)
        ) && is_both(&found)
        {
            names.drop_other(&found)?;
        }
    }

    // Taken once all names are gone: a link by others comes after.
    let chains = std::mem::take(&mut *locked(&tree.chains));

    let mut new = IndexWriter::create(&path, root.id())?;
    for found in old.entries() {
        let found = found?;
        let is_file = matches!(found.entry.kind, EntryKind::File(_));
        if !is_file || !is_both(&found) || is_racy(&found.version, old.started()) {
            continue;
        }
        let Some(ctime) = chains.since(&found.version) else {
            continue;
        };
        let version = Version {
            ctime,
            ..found.version
        };
        new.copy_lists(&old, &found)?;
        new.push(IndexEntry { version, ..found })?;
    }

    // From now on every change of a file changes its ctime.
    std::thread::sleep(CLOCK_GRANULARITY * 2);

    let now = FileStat::of(tempfile::tempfile_in(tree.state.here())?)?.ctime;
    // The index is partial: the next scan uses its contents only.
    let origin = Origin {
        started: now,
        options: BlockHash([0; 32]),
        ..old.origin().clone()
    };

    new.finish(origin).map(drop)
}

/// A directory in the live tree and in the one aside.
type Both = (OwnedFd, OwnedFd);

/// The two names of each shared file.
struct SharedFiles<'a> {
    tree: &'a Worktree,
    live: &'a Root,
    aside: &'a Root,
    transfer: NameTransfer<'a>,
    /// Directories in both trees; `None` unless both have it.
    dirs: DirCursor<Option<Both>>,
}

impl SharedFiles<'_> {
    /// Removes the name aside of a file that is as `known` and has the same name in the live tree.
    fn drop_other(&mut self, known: &IndexEntry) -> io::Result<()> {
        let path = &known.entry.path;
        let (live, aside) = (self.live, self.aside);
        let both = || -> io::Result<_> {
            let dir = path.parent();
            Ok(live
                .dir(dir.as_ref())
                .ok()
                .zip(aside.dir(dir.as_ref()).ok()))
        };
        let Some((live, aside)) = self.dirs.parent_by(path, both)? else {
            return Ok(());
        };

        let name = std::ffi::CString::new(path.name())?;

        // A handle leads to the file whatever happens to its names.
        let Ok(handle) = handle_of(aside.as_fd(), &name) else {
            return Ok(());
        };

        let now = FileStat::of(&handle)?;
        let since = locked(&self.tree.chains).since(&known.version);
        let was = known.version;
        let is_known = since == Some(now.ctime)
            && (now.id, now.size, now.mtime) == (was.id(), was.size, was.mtime);

        if !is_known
            || FileStat::at(live.as_fd(), &name)
                .ok()
                .is_none_or(|there| there.id != now.id)
        {
            return Ok(());
        }

        self.tree.crash.point()?;
        let operation = Operation::on(now);
        // An arrival at this moment stays for the removal of the tree, which transfers it.
        self.transfer
            .remove_known(aside.as_fd(), &name, now.id.ino)?;
        let after = FileStat::of(&handle)?;
        operation.done(&after, &mut locked(&self.tree.chains));

        Ok(())
    }
}
