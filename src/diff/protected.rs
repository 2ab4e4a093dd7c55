//! Paths of a release that the host protects, so that no release puts them there.

use super::Want;
use crate::Result;
use crate::manifest::TreePath;
use crate::manifest::rules::PathFilter;

/// Largest number of paths that are listed.
const MAX_LISTED: usize = 100;

/// Paths of a release that are left as they are on the host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProtectedPaths {
    /// The first of the topmost paths, in order.
    pub paths: Vec<TreePath>,
    /// Number of topmost paths.
    pub count: u64,
}

/// Finds the topmost paths of `want` that `protect` matches.
pub fn protected(want: &dyn Want, protect: &PathFilter) -> Result<ProtectedPaths> {
    let mut found = ProtectedPaths::default();
    if protect.is_empty() {
        return Ok(found);
    }

    let mut covered: Option<TreePath> = None;
    for located in want.entries() {
        let entry = located?.entry;
        let path = entry.path;
        let is_below = covered.as_ref().is_some_and(|top| path.is_within(top));
        let is_dir = matches!(entry.kind, crate::manifest::EntryKind::Directory);
        if is_below || !protect.matches_here(&path, is_dir) {
            continue;
        }

        found.count += 1;
        if found.paths.len() < MAX_LISTED {
            found.paths.push(path.clone());
        }
        covered = is_dir.then_some(path);
    }

    Ok(found)
}
