//! Missing mount points of the source: hosts would delete the files below.

use super::settings::Unmounted;
use crate::manifest::TreePath;
use crate::manifest::rules::PathFilter;
use crate::tree::index::Index;
use crate::tree::scan::ScanOptions;
use crate::tree::{Root, mounts};
use crate::units::printable;
use crate::{Error, Result};

/// Records the mount points of the source in the index and returns notes on the missing ones.
pub(super) fn check(
    options: &mut ScanOptions,
    root: &Root,
    old: Option<&Index>,
    what: Unmounted,
) -> Result<Vec<String>> {
    match mounts::below(root.path()) {
        Ok(mounts) => options.mounts = mounts,
        Err(e) => {
            tracing::debug!(
                "it is not known what is mounted in {}: {e}",
                root.path().display()
            );
            options.mounts = old
                .map(|old| old.origin().mounts.clone())
                .unwrap_or_default();
            return Ok(Vec::new());
        }
    }

    let Some(old) = old.filter(|_| what != Unmounted::Accept) else {
        return Ok(Vec::new());
    };

    // Paths excluded then or now are no part of the release.
    let patterns = [&options.paths.excludes[..], &old.origin().patterns[..]].concat();
    let left_out = PathFilter::new(&patterns);
    let is_missing = |path: &&TreePath| {
        !options.mounts.contains(path) && !left_out.matches(path, true) && in_scope(options, path)
    };

    let missing: Vec<TreePath> = old
        .origin()
        .mounts
        .iter()
        .filter(is_missing)
        .cloned()
        .collect();

    let told: Vec<String> = missing
        .iter()
        .map(|path| unmounted_text(root, path))
        .collect();

    if let Some(first) = told.first().filter(|_| what == Unmounted::Refuse) {
        return Err(Error::usage(first.clone()).hint(
            "mount it again; if the release is to be without it, deploy once with --yes-unmounted",
        ));
    }

    options.mounts.extend(missing);
    Ok(told)
}

fn in_scope(options: &ScanOptions, path: &TreePath) -> bool {
    let within = |scope: &TreePath| path.is_within(scope) || scope.is_within(path);
    options.paths.scope.is_empty() || options.paths.scope.iter().any(within)
}

fn unmounted_text(root: &Root, path: &TreePath) -> String {
    let shown = printable(root.shown(path).as_os_str().as_encoded_bytes());
    format!(
        "{shown} was a mount point when the source was read last, and nothing is mounted there now"
    )
}
