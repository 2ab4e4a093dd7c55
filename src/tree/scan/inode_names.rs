//! Finds all indexed names of an inode.
//!
//! The first name carries the content and the others link to it, so all of them are listed again
//! together.

use std::collections::HashSet;
use std::io;

use super::compare::Touched;
use crate::manifest::EntryKind;
use crate::tree::fs::root::FileId;
use crate::tree::index::Index;

/// Returns the paths of `index`, in order, that are names of `inodes`.
pub(super) fn paths_of_inodes(index: &Index, inodes: &HashSet<FileId>) -> io::Result<Vec<Touched>> {
    let mut names = Vec::new();
    if inodes.is_empty() {
        return Ok(names);
    }

    let mut buffer = Vec::new();

    for row in 0..index.rows().len() {
        let mut any = false;
        for stat in index.stats(row, &mut buffer)? {
            let stat = stat?;
            any |= !stat.is_dir && inodes.contains(&stat.version.id());
        }
        if !any {
            continue;
        }
        for found in index.page(row)? {
            let inode = found.version.id();
            if !matches!(found.entry.kind, EntryKind::Directory) && inodes.contains(&inode) {
                names.push(Touched {
                    path: found.entry.path,
                    was_dir: false,
                    inode,
                });
            }
        }
    }

    Ok(names)
}
