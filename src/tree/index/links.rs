//! Checks the hard links of an index. A link without an earlier target would make the manifest
//! illegal.

use std::collections::HashSet;
use std::io;

use super::read::Index;
use crate::manifest::{EntryKind, TreePath};

/// A hard link without an earlier file.
#[derive(Debug, thiserror::Error)]
#[error("a hard link leads to no earlier file")]
pub(in crate::tree) struct DanglingLink;

/// Returns whether writing an index failed because of a dangling hard link.
pub(in crate::tree) fn is_dangling_link(e: &io::Error) -> bool {
    e.get_ref().is_some_and(|inner| inner.is::<DanglingLink>())
}

/// Refuses an index with a dangling hard link.
pub(super) fn check(index: &Index) -> io::Result<()> {
    match index.totals().links == 0 || links_hold(index)? {
        true => Ok(()),
        false => Err(io::Error::other(DanglingLink)),
    }
}

/// Returns whether every hard link of `index` names an earlier file.
fn links_hold(index: &Index) -> io::Result<bool> {
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
        let Some(row) = index.row_of(next) else {
            return Ok(false);
        };
        let last = &index.rows()[row].last;
        let here = targets.partition_point(|target| target <= last);
        if here == 0 || !has_all(index, row, &targets[..here])? {
            return Ok(false);
        }
        targets = &targets[here..];
    }

    Ok(true)
}

/// Returns whether the page has a linkable entry for each of the sorted `paths`.
fn has_all(index: &Index, row: usize, paths: &[TreePath]) -> io::Result<bool> {
    let page = index.page(row)?;
    let files: HashSet<&TreePath> = page
        .iter()
        .filter(|found| {
            !matches!(
                found.entry.kind,
                EntryKind::Directory | EntryKind::Hardlink(_)
            )
        })
        .map(|found| &found.entry.path)
        .collect();
    Ok(paths.iter().all(|path| files.contains(path)))
}
