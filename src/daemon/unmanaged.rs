//! Trees that are sent from and take nothing of others: a place for what is known of their files between two sends.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use crate::config::TreeConfig;
use crate::id::TreeName;
use crate::tree::{Root, StateDir, open_dir};
use crate::{Error, Result};

/// The places by tree; given back when this is dropped.
pub(super) type Places = HashMap<TreeName, Place>;

/// A tree, and a directory that the daemon writes in.
#[derive(Debug)]
pub(super) struct Place {
    /// The tree's directory.
    pub(super) root: Arc<Root>,
    dir: Dir,
}

#[derive(Debug)]
enum Dir {
    /// The tree's state directory.
    State(Box<StateDir>),
    /// One for as long as the daemon runs, where there can be no other.
    Temporary(TempDir),
}

impl Place {
    /// Finds one for `tree`. Called while the daemon has all of its rights.
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
            "tree {}: {missing}: its files are all read again after a restart",
            tree.name
        );
        let failed = |e| Error::io("cannot make a directory in", std::env::temp_dir(), e);
        let dir = tempfile::Builder::new()
            .prefix("makuo-")
            .tempdir()
            .map_err(failed)?;

        Ok(Self {
            root: Arc::new(root),
            dir: Dir::Temporary(dir),
        })
    }

    /// Where it is.
    pub(super) fn path(&self) -> PathBuf {
        match &self.dir {
            Dir::State(state) => state.here(),
            Dir::Temporary(dir) => dir.path().to_path_buf(),
        }
    }
}
