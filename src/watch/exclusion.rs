//! The watched source and its left-out paths: the spec's excludes and makuo's own directory.

use std::path::{Path, PathBuf};

use crate::manifest::TreePath;
use crate::manifest::path::RESERVED;
use crate::manifest::rules::PathFilter;
use crate::tree::mounts::relative;

/// Ignore files, which can re-include paths that the spec excludes.
const IGNORE_FILES: [&[u8]; 2] = [b".makuoignore", b".gitignore"];
/// Largest ignore file that is read, in bytes; a larger one is assumed to re-include something.
const MAX_IGNORE_FILE: u64 = 1 << 20;

/// Directory to watch, with its excluded paths.
#[derive(Debug, Clone)]
pub struct WatchTarget {
    /// Source directory.
    pub source: PathBuf,
    /// Excludes of the spec.
    pub excluded: PathFilter,
    /// Directory with makuo's own files, left out wherever it lies.
    pub own: Option<PathBuf>,
}

/// Decides which paths of a source are left out.
pub(super) struct Exclusion {
    source: PathBuf,
    own: Option<TreePath>,
    /// The spec's excludes; `None` without any, or when an ignore file may re-include paths.
    filter: Option<PathFilter>,
}

impl Exclusion {
    /// Resolves the excludes and the own directory of `target`.
    pub(super) fn new(target: &WatchTarget) -> Self {
        let full = |path: &Path| std::fs::canonicalize(path).ok();
        let own = target
            .own
            .as_deref()
            .and_then(full)
            .zip(full(&target.source));

        let own = own.and_then(|(own, source)| TreePath::new(relative(&own, &source)?).ok());
        Self {
            source: target.source.clone(),
            own,
            filter: Some(target.excluded.clone()).filter(|filter| !filter.is_empty()),
        }
    }

    /// Watches excluded paths as well, because they may be part of the release after all.
    pub(super) fn include_all(&mut self) {
        self.filter = None;
    }

    /// Returns whether the path is left out.
    pub(super) fn leaves_out(&self, path: &TreePath, is_dir: bool) -> bool {
        self.own.as_ref() == Some(path)
            || is_dir && path.name() == RESERVED.as_bytes()
            || self
                .filter
                .as_ref()
                .is_some_and(|filter| filter.matches_here(path, is_dir))
    }

    /// Returns whether `path` is an ignore file that may re-include excluded paths.
    pub(super) fn may_include_again(&self, path: &TreePath, is_dir: bool) -> bool {
        self.filter.is_some()
            && !is_dir
            && IGNORE_FILES.contains(&path.name())
            && has_negation(&self.source.join(path.as_path()))
    }
}

/// Returns whether an ignore file has a line that re-includes paths.
fn has_negation(path: &Path) -> bool {
    let small =
        std::fs::symlink_metadata(path).map(|meta| meta.is_file() && meta.len() <= MAX_IGNORE_FILE);
    match small {
        Ok(true) => std::fs::read(path).is_ok_and(|text| {
            text.split(|&b| b == b'\n')
                .any(|line| line.starts_with(b"!"))
        }),
        Ok(false) => true,
        Err(_) => false,
    }
}
