//! Decides which planned mtime changes of directories count, where the release does not govern all
//! names inside: those where the commit changes a name inside.

use super::Changes;
use super::plan::FurtherName;
use crate::manifest::TreePath;

/// Planned changes that touch only a directory's mtime, until it is known whether a name inside
/// changes.
#[derive(Default)]
pub(super) struct DirTimes {
    /// Directories that enclose the path visited last and differ only in an mtime that may not
    /// count, with the positions of their changes.
    enclosing: Vec<(TreePath, usize)>,
    /// Positions of changes in an mtime that does not count.
    ignored_times: Vec<usize>,
    /// True if a name in the root directory changes.
    root_changes: bool,
}

impl DirTimes {
    /// Enters the directory `path`, whose mtime is the planned change at position `change`.
    pub(super) fn enter(&mut self, path: &TreePath, change: usize) {
        self.leave(path);
        self.enclosing.push((path.clone(), change));
    }

    /// Notes that the commit changes the name `path`, so that the mtime of its directory is
    /// restored.
    pub(super) fn note_name(&mut self, path: &TreePath) {
        self.leave(path);
        let parent = path.parent();
        self.root_changes |= parent.is_none();
        self.enclosing
            .pop_if(|(dir, _)| parent.as_ref() == Some(dir));
    }

    /// Returns true if a name in the root directory changes.
    pub(super) fn changes_root(&self) -> bool {
        self.root_changes
    }

    /// Leaves the directories that do not enclose `path`.
    fn leave(&mut self, path: &TreePath) {
        while let Some((_, change)) = self.enclosing.pop_if(|(dir, _)| !path.is_within(dir)) {
            self.ignored_times.push(change);
        }
    }

    /// Removes changes of an mtime that does not count from `changes`, and adjusts the positions in
    /// `further`; returns the paths of the removed changes.
    pub(super) fn drop_from(
        mut self,
        changes: &mut Changes,
        further: &mut [FurtherName],
    ) -> Vec<TreePath> {
        let enclosing = self.enclosing.drain(..).map(|(_, change)| change);
        self.ignored_times.extend(enclosing);
        if self.ignored_times.is_empty() {
            return Vec::new();
        }

        self.ignored_times.sort_unstable();
        let mut paths = Vec::with_capacity(self.ignored_times.len());
        let mut kept = Changes::default();
        for (place, change) in changes.iter().enumerate() {
            match self.ignored_times.binary_search(&place) {
                Ok(_) => paths.push(change.path),
                Err(_) => kept.push(change),
            }
        }

        for name in further {
            let first = name.first as usize;
            let removed = self.ignored_times.partition_point(|&place| place < first);
            name.first -= removed as u32;
        }

        *changes = kept;
        paths
    }
}
