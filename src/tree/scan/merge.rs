//! Merges an old index with changes into one ordered stream; unchanged pages are copied.

use std::collections::VecDeque;
use std::io;

use crate::manifest::TreePath;
use crate::tree::index::{Index, IndexEntry, IndexWriter};

/// Remainder of an old index during a merge.
#[derive(Debug)]
pub(super) struct Merge<'a> {
    index: &'a Index,
    /// Paths to leave out.
    touched: VecDeque<TreePath>,
    row: usize,
    /// Remaining entries of a page that is not copied whole.
    open: VecDeque<IndexEntry>,
}

impl<'a> Merge<'a> {
    /// Merges all of `index` except the sorted paths `touched`.
    pub(super) fn new(index: &'a Index, touched: Vec<TreePath>) -> Self {
        Self {
            index,
            touched: touched.into(),
            row: 0,
            open: VecDeque::new(),
        }
    }

    /// Writes the entries before `limit`, or all remaining ones.
    pub(super) fn up_to(
        &mut self,
        limit: Option<&TreePath>,
        writer: &mut IndexWriter,
    ) -> io::Result<()> {
        loop {
            while let Some(next) = self.open.front() {
                if limit.is_some_and(|limit| next.entry.path >= *limit) {
                    return Ok(());
                }
                let Some(entry) = self.open.pop_front() else {
                    break;
                };

                if !self.is_touched(&entry.entry.path) {
                    writer.copy_lists(self.index, &entry)?;
                    writer.push(entry)?;
                }
            }

            let Some(page) = self.index.rows().get(self.row) else {
                return Ok(());
            };
            if limit.is_some_and(|limit| page.first >= *limit) {
                return Ok(());
            }

            self.drop_touched_before(&page.first);
            let is_whole = self
                .touched
                .front()
                .is_none_or(|touched| *touched > page.last)
                && limit.is_none_or(|limit| page.last < *limit);
            let is_last = limit.is_none() && self.row + 1 == self.index.rows().len();

            if !is_whole || !writer.copy_page(self.index, self.row, is_last)? {
                self.open = self.index.cached_page(self.row)?.iter().cloned().collect();
            }

            self.row += 1;
        }
    }

    fn is_touched(&mut self, path: &TreePath) -> bool {
        self.drop_touched_before(path);
        self.touched.front() == Some(path)
    }

    fn drop_touched_before(&mut self, path: &TreePath) {
        while self.touched.front().is_some_and(|touched| touched < path) {
            self.touched.pop_front();
        }
    }
}
