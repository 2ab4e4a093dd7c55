//! Files that can change without a notification to a watcher of the tree's directories.
//!
//! Watchers get events only for changes through a name in a watched directory. A file is exposed if
//! further names exist, possibly outside of the tree, or if some process had the file open for
//! writing during the read: the opened name may be gone.

use std::sync::{Arc, Mutex};

use crate::manifest::TreePath;
use crate::sync::locked;
use crate::tree::fs::stat::FileStat;

/// Largest number of exposed files that one scan reports.
const MAX_EXPOSED: usize = 200_000;

/// An exposed file at the time of the read.
#[derive(Debug, Clone)]
pub struct Exposed {
    /// Name used for the read.
    pub path: TreePath,
    /// Stat at the time of the read.
    pub stat: FileStat,
    /// Whether a process may have the file open for writing, according to the kernel.
    pub is_open: bool,
}

/// Collects the exposed files of scans.
#[derive(Debug, Clone, Default)]
pub struct Exposures(Arc<Mutex<Vec<Exposed>>>);

impl Exposures {
    pub(super) fn add(&self, exposed: Exposed) {
        let mut found = locked(&self.0);
        if found.len() < MAX_EXPOSED {
            found.push(exposed);
        }
    }

    /// Returns the files found since the last call.
    pub fn take(&self) -> Vec<Exposed> {
        std::mem::take(&mut *locked(&self.0))
    }
}
