//! Decides whether tree and index can be compared, and finds their differences.

use std::collections::HashSet;
use std::sync::Arc;

use super::changes::{self, TreeChanges};
use super::clock::is_racy;
use super::compare;
use super::context::ScanContext;
use super::hints::{self, TouchedPaths};
use super::ignore::IgnoreFilter;
use super::listing::stat_of;
use super::options::ScanOptions;
use super::policy::ResolvedPolicy;
use crate::Result;
use crate::manifest::TreePath;
use crate::tree::fs::root::{FileId, Root};
use crate::tree::fs::stat::Version;
use crate::tree::index::Index;

/// Result of comparing a tree with its index.
pub(super) enum Difference {
    /// No comparison is possible, or the differences are too many: the tree is walked.
    Unknown,
    Nothing,
    Changes(TreeChanges),
}

/// Returns the differences of the tree from `old`. All names of the inodes `linked` are listed
/// again.
///
/// An unreadable index counts as [`Difference::Unknown`].
pub(super) fn differences(
    root: &Root,
    options: &ScanOptions,
    old: &Index,
    top: Version,
    linked: &HashSet<FileId>,
) -> Result<Difference> {
    let origin = old.origin();
    let windows = options
        .reuse
        .hints
        .as_ref()
        .and_then(|hints| hints.everywhere.as_ref());
    let unsettled = |version: &Version| match windows {
        Some(windows) => windows.is_racy(version),
        None => is_racy(version, origin.started),
    };

    let is_as_it_was = |(path, known): &(TreePath, Version)| {
        !unsettled(known) && stat_of(root, path).is_ok_and(|now| now.version() == *known)
    };

    let resolved = ResolvedPolicy::new(&options.entries.policy)?;
    let made_alike =
        origin.options == options.fingerprint() && resolved.still_holds(&origin.owners);
    if !made_alike || !origin.ignore_files.iter().all(is_as_it_was) {
        return Ok(Difference::Unknown);
    }

    let top_differs = top != origin.top || unsettled(&top);
    let paths = match &options.reuse.hints {
        Some(hints) => {
            let filter =
                Arc::new(IgnoreFilter::new(&options.paths.excludes)).with(&origin.patterns);
            let found = hints::touched_paths(root, old, hints, &filter, options.threads);
            let add_top = |paths: TouchedPaths| TouchedPaths {
                top: paths.top || hints.everywhere.is_some() && top_differs,
                ..paths
            };
            found.map(|found| found.map(add_top))
        }
        None => compare::compare(root, old, options.threads, None, options.counts.as_deref()).map(
            |found| {
                found.map(|touched| TouchedPaths {
                    touched,
                    top: top_differs,
                })
            },
        ),
    };

    let paths = match paths {
        Ok(Some(paths)) => paths,
        Ok(None) => return Ok(Difference::Unknown),
        Err(e) => {
            tracing::warn!(
                "comparing {} with its index failed, reading the whole tree: {e}",
                root.path().display()
            );
            return Ok(Difference::Unknown);
        }
    };

    if paths.touched.is_empty() && !paths.top && linked.is_empty() {
        return Ok(Difference::Nothing);
    }

    options.pass_gap();
    let filter = Arc::new(IgnoreFilter::new(&options.paths.excludes)).with(&origin.patterns);
    let context = ScanContext::new(root, options, resolved, filter, None);

    Ok(changes::find(&context, old, paths, linked)?
        .map_or(Difference::Unknown, Difference::Changes))
}
