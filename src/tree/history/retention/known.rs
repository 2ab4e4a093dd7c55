//! One release of a history, with the facts that are read from its manifest once.

use std::cell::OnceCell;
use std::collections::HashSet;

use crate::block::BlockHash;
use crate::id::Serial;
use crate::manifest::pages::Pages;
use crate::manifest::{Header, Release, TreePath};

/// One release with cached facts.
pub(super) struct KnownRelease {
    pub(super) release: Release,
    pub(super) content: BlockHash,
    pub(super) paths: OnceCell<Option<Paths>>,
    pub(super) pages: OnceCell<Option<Pages>>,
}

/// Paths of a release.
pub(super) struct Paths {
    pub(super) all: HashSet<TreePath>,
    /// Paths that are no directories.
    pub(super) files: Vec<TreePath>,
}

impl KnownRelease {
    pub(super) fn new(release: Release) -> Self {
        let content = release.header().content();
        Self {
            release,
            content,
            paths: OnceCell::new(),
            pages: OnceCell::new(),
        }
    }

    pub(super) fn header(&self) -> &Header {
        self.release.header()
    }

    pub(super) fn serial(&self) -> Serial {
        self.header().serial
    }

    pub(super) fn is_whole(&self) -> bool {
        self.header().is_whole()
    }
}
