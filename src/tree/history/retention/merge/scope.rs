//! A set of paths with everything below them.

use crate::manifest::TreePath;

/// Paths, sorted, none below another.
#[derive(Debug, Clone, Default)]
pub(super) struct Scope(pub(super) Vec<TreePath>);

impl Scope {
    pub(super) fn of(mut paths: Vec<TreePath>) -> Self {
        paths.sort();
        // The order is that of a walk: a path is followed by everything below.
        paths.dedup_by(|later, earlier| later.is_within(earlier));
        Self(paths)
    }

    pub(super) fn has(&self, path: &TreePath) -> bool {
        let after = self.0.partition_point(|scope| scope <= path);
        after
            .checked_sub(1)
            .is_some_and(|at| path.is_within(&self.0[at]))
    }

    pub(super) fn is_below(&self, path: &TreePath) -> bool {
        let after = self.0.partition_point(|scope| scope <= path);
        self.0.get(after).is_some_and(|scope| scope.is_within(path))
    }

    pub(super) fn meets(&self, path: &TreePath) -> bool {
        self.has(path) || self.is_below(path)
    }

    pub(super) fn meets_any(&self, paths: &[TreePath]) -> bool {
        paths.iter().any(|path| self.meets(path))
    }

    pub(super) fn bytes(&self) -> usize {
        self.0.iter().map(|path| path.as_bytes().len() + 8).sum()
    }
}
