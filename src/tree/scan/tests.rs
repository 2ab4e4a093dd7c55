//! Scans of real directories.

mod entries;
mod gaps;
mod reuse;
mod selected;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::*;
use crate::Result;
use crate::manifest::rules::Exclude;
use crate::manifest::{Entry, TreePath};
use crate::tree::fs::root::Root;
use crate::tree::index::Index;

/// A tree with room for indexes beside it.
pub(super) struct Fixture {
    pub(super) dir: tempfile::TempDir,
    pub(super) root: Root,
}

impl Fixture {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("tree")).unwrap();
        let root = Root::open(dir.path().join("tree")).unwrap();
        Self { dir, root }
    }

    pub(super) fn at(&self, path: &[u8]) -> std::path::PathBuf {
        self.root.path().join(OsStr::from_bytes(path))
    }

    pub(super) fn write(&self, path: &[u8], text: &[u8]) {
        std::fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        std::fs::write(self.at(path), text).unwrap();
    }

    pub(super) fn try_scan(
        &self,
        options: &ScanOptions,
        old: Option<&Arc<Index>>,
    ) -> Result<Scanned> {
        scan(&self.root, options, old, &self.dir.path().join("index"))
    }

    pub(super) fn scan(&self, options: &ScanOptions) -> Scanned {
        self.try_scan(options, None).unwrap()
    }
}

/// Options with a start long after every write of the test.
pub(super) fn options() -> ScanOptions {
    ScanOptions {
        threads: 2,
        ..ScanOptions::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 33))
    }
}

pub(super) fn entries(scanned: &Scanned) -> Vec<Entry> {
    scanned.index.entries().map(|e| e.unwrap().entry).collect()
}

pub(super) fn shown(scanned: &Scanned) -> Vec<String> {
    entries(scanned)
        .iter()
        .map(|e| format!("{} {}", e.kind.letter(), e.path))
        .collect()
}

pub(super) fn exclude(base: Option<&str>, pattern: &str) -> Exclude {
    Exclude {
        base: base.map(|b| TreePath::new(b.as_bytes()).unwrap()),
        pattern: pattern.into(),
    }
}
