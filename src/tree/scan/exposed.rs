//! Files that can change without a word of it: who listens to the directories of a tree hears only of what is done
//! through a name that is in one of them.
//!
//! A file is exposed when it has further names, which may be anywhere, or when somebody could write to it while it was
//! read: the name that was opened may be gone since.

use std::sync::{Arc, Mutex};

use crate::manifest::TreePath;
use crate::sync::locked;
use crate::tree::fs::stat::FileStat;

/// The most files that one scan tells of.
const MAX_EXPOSED: usize = 200_000;

/// A file as a scan read it.
#[derive(Debug, Clone)]
pub struct Exposed {
    /// The name by which it was read.
    pub path: TreePath,
    /// What it was then.
    pub stat: FileStat,
    /// Whether somebody could write to it, as far as the kernel says.
    pub is_open: bool,
}

/// Where a scan puts what it finds exposed.
#[derive(Debug, Clone, Default)]
pub struct Exposures(Arc<Mutex<Vec<Exposed>>>);

impl Exposures {
    pub(super) fn add(&self, exposed: Exposed) {
        let mut found = locked(&self.0);
        if found.len() < MAX_EXPOSED {
            found.push(exposed);
        }
    }

    /// What was found since this was called last.
    pub fn take(&self) -> Vec<Exposed> {
        std::mem::take(&mut *locked(&self.0))
    }
}
