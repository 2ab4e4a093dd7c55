//! Trees that the host sends from but accepts no releases for, with a directory for the index
//! between two sends.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use crate::Result;
use crate::config::TreeConfig;
use crate::error::IoResultExt;
use crate::id::TreeName;
use crate::tree::{Root, StateDir, open_dir};

/// Send-only trees by name; temporary directories are removed on drop.
pub(super) type SendOnlyTrees = HashMap<TreeName, SendOnlyTree>;

/// Send-only tree with a directory that the daemon can write.
#[derive(Debug)]
pub(super) struct SendOnlyTree {
    /// Root directory of the tree.
    pub(super) root: Arc<Root>,
    dir: Dir,
}

#[derive(Debug)]
enum Dir {
    /// State directory of the tree.
    State(Box<StateDir>),
    /// Temporary directory for the daemon's lifetime, without a usable state directory.
    Temporary(TempDir),
}

impl SendOnlyTree {
    /// Opens `tree`. Must be called while the daemon has all of its rights.
    pub(super) fn of(tree: &TreeConfig, state_dir: Option<&Path>) -> Result<Self> {
        let root = open_dir(&tree.path, tree.follow_links)?;
        let missing = match StateDir::open(&tree.name, &root, state_dir) {
            Ok(state) => {
                return Ok(Self {
                    root: Arc::new(root),
                    dir: Dir::State(Box::new(state)),
                });
            }
            Err(e) => e,
        };

        tracing::warn!(
            "tree {}: {missing}: all files will be read again after a restart",
            tree.name
        );
        let dir = tempfile::Builder::new()
            .prefix("makuo-")
            .tempdir()
            .context("cannot make a directory in", std::env::temp_dir())?;

        Ok(Self {
            root: Arc::new(root),
            dir: Dir::Temporary(dir),
        })
    }

    /// Path of the directory.
    pub(super) fn path(&self) -> PathBuf {
        match &self.dir {
            Dir::State(state) => state.here(),
            Dir::Temporary(dir) => dir.path().to_path_buf(),
        }
    }
}
