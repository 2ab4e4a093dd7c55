//! Hard links met by a comparison, and the files that they have to lead to.

use std::collections::BTreeMap;

use super::{Refusal, Want};
use crate::manifest::{Entry, EntryKind, TreePath};

/// Hard links of both sides, so far.
#[derive(Default)]
pub(super) struct HardLinks {
    /// True after a hard link on either side.
    met: bool,
    /// Targets of the release's hard links, each with one of the links.
    targets: BTreeMap<TreePath, TreePath>,
}

impl HardLinks {
    /// Notes a host's entry.
    pub(super) fn note_host(&mut self, entry: &Entry) {
        self.met |= matches!(entry.kind, EntryKind::Hardlink(_));
    }

    /// Notes an entry of the release.
    pub(super) fn note_release(&mut self, entry: &Entry) {
        if let EntryKind::Hardlink(first) = &entry.kind {
            self.met = true;
            self.targets
                .entry(first.clone())
                .or_insert_with(|| entry.path.clone());
        }
    }

    /// Returns true if either side has hard links.
    pub(super) fn are_met(&self) -> bool {
        self.met
    }

    /// Refuses a release with a hard link to no file of the release.
    pub(super) fn check_targets(&self, want: &dyn Want) -> Result<(), Refusal> {
        if self.targets.is_empty() {
            return Ok(());
        }

        match want.no_link_target(&mut self.targets.keys())? {
            None => Ok(()),
            Some(first) => Err(Refusal::LinkNowhere {
                path: self.targets[first].clone(),
                first: first.clone(),
            }),
        }
    }
}
