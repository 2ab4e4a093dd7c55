//! Doubt about a tree's index.
//!
//! An index only saves work. After an error that wrong index data may have caused, the next scan
//! ignores the index. The doubt is stored in the state, so it survives a restart.

use std::io::ErrorKind;
use std::sync::atomic::Ordering;

use super::reader::INDEX_DOUBT;
use super::worktree::Worktree;
use crate::error::Error;
use crate::manifest::path::RESERVED;
use crate::tree::index::Index;

impl Worktree {
    /// Records a refusal that wrong index data may have caused: the next scan walks the tree.
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

    /// Records a commit that failed with `e`, perhaps because of wrong index data: the next scan
    /// reads everything.
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

    /// Returns whether the next scan has to walk the tree.
    pub fn is_doubted(&self) -> bool {
        self.index_doubted.load(Ordering::Acquire)
    }

    /// Clears the doubt after a walk.
    pub fn trust_index(&self) {
        if self.index_doubted.load(Ordering::Acquire) {
            match self.state.remove(INDEX_DOUBT) {
                Ok(()) => self.index_doubted.store(false, Ordering::Release),
                Err(e) => tracing::warn!("tree {}: {e}: all of it is looked at again", self.name()),
            }
        }
    }

    /// Returns whether the tree obviously differs from its present release without a scan: its
    /// directory is another one than scanned last, or is empty.
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
