//! A rollback: an earlier release, put again under a new serial.
//!
//! `choose` finds the release in the `history` of the fleet, and `fetch` gets the header from hosts
//! and checks the key.

mod choose;
mod fetch;
mod history;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::source::{PreparedRelease, ReleaseSource};
use crate::Result;
use crate::manifest::Release;
use crate::spec::{Compress, Spec};
use crate::tree::{Blocks, LiveTree, Nothing, StateReader, StoredSource};

pub use choose::{RollbackPath, choose};
pub use fetch::{check_key, fetch, fetch_all};

/// An earlier release to restore.
#[derive(Debug)]
pub struct EarlierRelease {
    /// The release itself.
    pub release: Release,
    /// Tree of this machine with the release, and its state; `None` if this machine has no part of
    /// it.
    pub from: Option<(PathBuf, StateReader)>,
}

impl EarlierRelease {
    /// Returns the source of nodes and blocks, and the data for the new header.
    pub fn prepare(self, compress: Compress) -> Result<(ReleaseSource, PreparedRelease)> {
        let header = self.release.header();
        let mut notes = Vec::new();
        let source: Box<dyn Blocks> = match self.from {
            Some((tree, records)) => {
                match StoredSource::open(LiveTree::At(tree), records, header.root) {
                    Ok(source) => Box::new(source),
                    Err(e) => {
                        notes.push(format!("no data from here: {e}"));
                        Box::new(Nothing)
                    }
                }
            }
            None => {
                notes.push(
                    "this machine has no data of the release: hosts that did not keep it \
                    cannot take it"
                        .into(),
                );
                Box::new(Nothing)
            }
        };

        Ok((
            ReleaseSource::of(source, compress),
            PreparedRelease::of(header, notes),
        ))
    }
}

/// Targets of a rollback: the targets of all replaced releases.
pub fn targets(replaced: &[Release]) -> Vec<String> {
    let mut all = BTreeSet::new();
    for header in replaced.iter().map(Release::header) {
        if header.targets.is_empty() {
            return Vec::new();
        }
        all.extend(header.targets.iter().cloned());
    }

    all.into_iter().collect()
}

/// A spec to send a release unchanged to `targets`, with defaults for the rest.
pub fn spec(release: &Release, targets: &[String]) -> Result<Spec> {
    let mut spec = Spec::parse("source = \".\"\n", Path::new("rollback"))?;
    spec.tree = release.header().tree.clone();
    spec.targets.hosts = targets.to_vec();
    Ok(spec)
}

#[cfg(test)]
mod tests;
