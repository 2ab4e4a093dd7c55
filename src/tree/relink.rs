//! The index after an exchange of whole trees.
//!
//! A file that is in both trees has a name more while both stand, and its time of change says so; to a scan it would
//! be another file. Once the old tree is gone the index is told the new times, for the files that are else what they
//! were: the same inode, size and time of modification.

use std::io;
use std::os::fd::AsFd;

use super::index::{Index, IndexEntry, IndexWriter, Origin};
use super::journal::Swap;
use super::meta::FileStat;
use super::open::Tree;
use super::root::{FileId, Root};
use super::scan::{TICK, is_racy};
use crate::block::BlockHash;
use crate::manifest::EntryKind;

/// Makes the index of the old tree one of the tree that is live now, with all that is the same in both.
pub(super) fn relink(tree: &Tree, swap: &Swap) -> io::Result<()> {
    let (path, root) = (tree.index_path(), tree.root());
    let before = FileId { ino: swap.old.ino, ..root.id() };
    let Some(old) = Index::open(&path, before) else { return Ok(()) };
    // Whoever changes a file from now on gives it another time than it has.
    std::thread::sleep(TICK * 2);
    let now = FileStat::of(tempfile::tempfile_in(tree.state.here())?)?.ctime;
    let mut new = IndexWriter::create(&path, root.id())?;
    for found in old.entries() {
        let found = found?;
        if !matches!(found.entry.kind, EntryKind::File(_)) {
            continue;
        }
        if swap.changed.binary_search(&found.entry.path).is_ok() || is_racy(&found.version, old.started()) {
            continue;
        }
        let Some(stat) = same(&root, &found) else { continue };
        new.keep_lists(&old, &found)?;
        new.push(IndexEntry { version: stat.version(), ..found })?;
    }
    // Not all of the tree is in it: only the contents are of use to the next scan.
    let origin = Origin { started: now, options: BlockHash([0; 32]), ..old.origin().clone() };
    new.finish(origin).map(drop)
}

fn same(root: &Root, known: &IndexEntry) -> Option<FileStat> {
    let (parent, name) = root.parent(&known.entry.path).ok()?;
    let now = FileStat::at(parent.as_fd(), &name).ok()?;
    let (is, was) = (now.version(), known.version);
    ((is.dev, is.ino, is.size, is.mtime) == (was.dev, was.ino, was.size, was.mtime)).then_some(now)
}
