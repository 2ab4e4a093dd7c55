//! When what a tree's index says is not gone by.
//!
//! An index only saves work. Where an error may come from what it remembers, the next look does not ask it. That is kept
//! in the state, so that a restart does not forget it.

use std::io::ErrorKind;
use std::sync::atomic::Ordering;

use super::reader::INDEX_DOUBT;
use super::worktree::Worktree;
use crate::error::Error;
use crate::manifest::path::RESERVED;
use crate::tree::index::Index;

impl Worktree {
    /// The tree was refused for what its index may have said wrongly: the next look walks it.
    pub fn doubt_names(&self) {
        if !self.index_doubted.swap(true, Ordering::AcqRel)
            && let Err(e) = self.state.write(INDEX_DOUBT, b"")
        {
            tracing::warn!(
                "tree {}: {e}: after a restart its index is believed again",
                self.name()
            );
        }
    }

    /// A commit failed with `e`, perhaps on what the index said wrongly: the next look reads everything.
    pub fn drop_index(&self, e: &Error) {
        let full = [
            ErrorKind::StorageFull,
            ErrorKind::QuotaExceeded,
            ErrorKind::ReadOnlyFilesystem,
        ];

        if full.into_iter().any(|kind| e.is_os(kind)) {
            return;
        }

        self.doubt_names();
        for path in [self.index_path(), self.written_path()] {
            match std::fs::remove_file(&path) {
                Err(e) if e.kind() != ErrorKind::NotFound => {
                    tracing::warn!(
                        "tree {}: its index {} cannot be removed: {e}",
                        self.name(),
                        path.display()
                    );
                }
                _ => {}
            }
        }
    }

    /// Whether the next look has to walk the tree.
    pub fn is_doubted(&self) -> bool {
        self.index_doubted.load(Ordering::Acquire)
    }

    /// The tree was walked.
    pub fn trust_index(&self) {
        if self.index_doubted.load(Ordering::Acquire) {
            match self.state.remove(INDEX_DOUBT) {
                Ok(()) => self.index_doubted.store(false, Ordering::Release),
                Err(e) => tracing::warn!("tree {}: {e}: all of it is looked at again", self.name()),
            }
        }
    }

    /// Whether the tree cannot be what its present release says, as far as is known without a look: its directory is
    /// another one than was looked at last, or is empty.
    pub fn is_strange(&self) -> bool {
        let Ok(Some(current)) = self.current() else {
            return false;
        };

        let root = self.root();
        let is_empty = || {
            let names = root
                .dir(None)
                .and_then(|dir| Ok(rustix::fs::Dir::read_from(dir)?));
            let is_own = |name: &[u8]| self.state().is_inside() && name == RESERVED.as_bytes();
            let is_none = |name: &[u8]| matches!(name, b"." | b"..") || is_own(name);
            names.is_ok_and(|mut names| {
                names.all(|name| name.is_ok_and(|n| is_none(n.file_name().to_bytes())))
            })
        };

        let has_entries = current.release.header().root.entries > 0;
        Index::is_of_another(&self.index_path(), root.id()) || has_entries && is_empty()
    }
}
