//! The names of one inode: which of them comes first decides what an index says of all, so that they are looked at
//! together.

use std::collections::HashSet;
use std::io;

use super::compare::Touched;
use crate::manifest::{EntryKind, TreePath};
use crate::tree::index::Index;
use crate::tree::root::FileId;

/// The paths of `index`, in order, that are names of `inodes`.
pub(super) fn names_of(index: &Index, inodes: &HashSet<FileId>) -> io::Result<Vec<Touched>> {
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
                names.push(Touched { path: found.entry.path, was_dir: false, inode });
            }
        }
    }
    Ok(names)
}

/// Whether each hard link of `index` leads to an earlier file of it.
pub(super) fn links_hold(index: &Index) -> io::Result<bool> {
    let mut targets = Vec::new();
    for (row, page) in index.rows().iter().enumerate() {
        if page.links() == 0 {
            continue;
        }
        for found in index.page(row)? {
            if let EntryKind::Hardlink(first) = found.entry.kind {
                if first >= found.entry.path {
                    return Ok(false);
                }
                targets.push(first);
            }
        }
    }
    targets.sort_unstable();
    targets.dedup();

    let mut targets: &[TreePath] = &targets;
    while let Some(next) = targets.first() {
        let Some(row) = index.row_of(next) else { return Ok(false) };
        let last = &index.rows()[row].last;
        let here = targets.partition_point(|target| target <= last);
        if here == 0 || !has_all(index, row, &targets[..here])? {
            return Ok(false);
        }
        targets = &targets[here..];
    }
    Ok(true)
}

/// Whether each of `paths`, which are sorted, is a regular file in the page.
fn has_all(index: &Index, row: usize, paths: &[TreePath]) -> io::Result<bool> {
    let page = index.page(row)?;
    let files: HashSet<&TreePath> = page
        .iter()
        .filter(|found| !matches!(found.entry.kind, EntryKind::Directory | EntryKind::Hardlink(_)))
        .map(|found| &found.entry.path)
        .collect();
    Ok(paths.iter().all(|path| files.contains(path)))
}
