//! Trees that are sent from and take nothing of others: a place for what is known of their files between two sends.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::config::TreeConfig;
use crate::id::TreeName;
use crate::tree::open::open_dir;
use crate::tree::state::State;
use crate::{Error, Result};

/// The places by tree; given back when this is dropped.
pub(super) type Places = HashMap<TreeName, Place>;

/// A directory that the daemon writes in.
#[derive(Debug)]
pub(super) enum Place {
    /// The tree's state directory.
    State(Box<State>),
    /// One for as long as the daemon runs, where there can be no other.
    Temporary(TempDir),
}

impl Place {
    /// Finds one for `tree`. Called while the daemon has all of its rights.
    pub(super) fn of(tree: &TreeConfig, state_dir: Option<&Path>) -> Result<Self> {
        let root = open_dir(&tree.path, tree.follow_links)?;
        let missing = match State::open(&tree.name, &root, state_dir) {
            Ok(state) => return Ok(Self::State(Box::new(state))),
            Err(e) => e,
        };
        tracing::warn!("tree {}: {missing}: its files are all read again after a restart", tree.name);
        let failed = |e| Error::io("cannot make a directory in", std::env::temp_dir(), e);
        tempfile::Builder::new().prefix("makuo-").tempdir().map(Self::Temporary).map_err(failed)
    }

    /// Where it is.
    pub(super) fn path(&self) -> PathBuf {
        match self {
            Self::State(state) => state.path().to_path_buf(),
            Self::Temporary(dir) => dir.path().to_path_buf(),
        }
    }
}
