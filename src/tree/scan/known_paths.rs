//! Paths of the old index, looked up page by page.

use std::collections::HashSet;
use std::io;

use super::compare::Touched;
use crate::manifest::{EntryKind, TreePath};
use crate::tree::index::Index;

/// Lookup of paths in an index, for queries in order.
pub(super) struct KnownPaths<'a> {
    pub(super) index: &'a Index,
    /// Page of the last query; `paths` holds its paths.
    pub(super) row: usize,
    pub(super) paths: HashSet<TreePath>,
}

impl KnownPaths<'_> {
    pub(super) fn has(&mut self, path: &TreePath) -> io::Result<bool> {
        let Some(row) = self.index.row_of(path) else {
            return Ok(false);
        };

        let page = &self.index.rows()[row];
        if page.last < *path {
            return Ok(false);
        }

        if page.first == *path || page.last == *path {
            return Ok(true);
        }

        if self.row != row {
            self.paths = self
                .index
                .page(row)?
                .into_iter()
                .map(|e| e.entry.path)
                .collect();
            self.row = row;
        }

        Ok(self.paths.contains(path))
    }

    pub(super) fn is_ignore_file(&self, path: &TreePath) -> bool {
        self.index
            .origin()
            .ignore_files
            .iter()
            .any(|(known, _)| known == path)
    }
}

/// Returns all paths of `index` below `dir`.
pub(super) fn paths_below(index: &Index, dir: &TreePath) -> io::Result<Vec<Touched>> {
    let mut below = Vec::new();
    let first = index.row_of(dir).unwrap_or(0);

    for (row, page) in index.rows().iter().enumerate().skip(first) {
        if page.first > *dir && !page.first.is_within(dir) {
            break;
        }

        let page = index.cached_page(row)?;
        let inside = page
            .iter()
            .filter(|found| found.entry.path != *dir && found.entry.path.is_within(dir));
        below.extend(inside.map(|found| Touched {
            path: found.entry.path.clone(),
            was_dir: matches!(found.entry.kind, EntryKind::Directory),
            inode: found.version.id(),
        }));
    }

    Ok(below)
}
