//! Order of a manifest's paths.

use super::source::ReadError;
use crate::manifest::{Entry, EntryKind, TreePath};

/// Checks the order across pages: paths rise strictly, and every parent is an earlier directory.
#[derive(Debug, Default)]
pub(crate) struct PathOrder {
    last: Option<TreePath>,
    /// Directories that enclose the last path, outermost first.
    open: Vec<TreePath>,
}

impl PathOrder {
    /// Starts as if the directories `above`, outermost first, had just been checked.
    pub(crate) fn below(above: Vec<TreePath>) -> Self {
        Self {
            last: above.last().cloned(),
            open: above,
        }
    }

    pub(crate) fn check(&mut self, entry: &Entry) -> Result<(), ReadError> {
        let path = &entry.path;
        if self.last.as_ref().is_some_and(|last| last >= path) {
            return Err(ReadError::misplaced(path));
        }

        if path.is_reserved() {
            return Err(ReadError::Illegal(format!(
                "{path}: hosts keep the state of trees under this name"
            )));
        }

        while self.open.last().is_some_and(|dir| !path.is_within(dir)) {
            self.open.pop();
        }

        if path.parent().as_ref() != self.open.last() {
            return Err(ReadError::parentless(path));
        }

        if matches!(entry.kind, EntryKind::Directory) {
            self.open.push(path.clone());
        }

        self.last = Some(path.clone());
        Ok(())
    }
}
