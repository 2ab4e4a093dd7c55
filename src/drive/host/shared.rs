//! A host's name, trees and keys, shared by all threads.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::managed::ManagedTree;
use super::own_key::OwnKey;
use super::trees::Trees;
use crate::id::{HostName, Labels, TreeName};
use crate::keys::{AuthorizedKeys, HostKey, random_bytes};
use crate::metrics::HostFigures;
use crate::sync::locked;
use crate::tree::{StoredRelease, Tree};
use crate::wire::message::{MAX_BEACON_TOMBSTONES, SerialProof, SignedOrder, TreeState};
use crate::wire::query::ReleaseBytes;

/// The name, trees and keys of this host.
#[derive(Debug)]
pub struct LocalHost {
    /// Name of the host.
    pub name: HostName,
    /// Trees of the host; offers for unavailable ones are refused with the reason.
    pub trees: Trees,
    /// Authorized keys, replaced as a whole when the file is read again.
    pub keys: Mutex<Arc<AuthorizedKeys>>,
    /// Labels, replaced when the configuration is read again.
    pub labels: Mutex<Labels>,
    /// Signing key of the host.
    pub own_key: OwnKey,
    /// Counters of the host.
    pub figures: Arc<HostFigures>,
}

impl LocalHost {
    /// States of the trees for beacons.
    pub fn states(&self) -> Vec<TreeState> {
        let mut states: Vec<TreeState> = self.trees.iter().map(|(_, m)| state(&m.tree)).collect();
        states.extend(self.trees.all_broken().map(|(tree, _)| TreeState {
            tombstones: Some(Vec::new()),
            ..TreeState::nothing(tree.clone())
        }));
        states.sort_by(|a, b| a.tree.cmp(&b.tree));
        states
    }

    /// Proof of each tree's highest accepted serial.
    pub fn shown(&self) -> BTreeMap<TreeName, SerialProof> {
        let shown = |managed: &ManagedTree| {
            shown(&managed.tree).unwrap_or_else(|e| {
                tracing::debug!(
                    "tree {}: its highest serial cannot be shown: {e}",
                    managed.tree.name()
                );
                None
            })
        };

        self.trees
            .iter()
            .filter_map(|(name, managed)| Some((name.clone(), shown(managed)?)))
            .collect()
    }

    /// Signed header of each tree's release.
    pub fn headers(&self) -> BTreeMap<TreeName, ReleaseBytes> {
        let header = |tree: &Tree| {
            let stored = tree.current().ok().flatten()?;
            Some(ReleaseBytes {
                header: stored.release.bytes().to_vec(),
                signature: stored.signature,
            })
        };

        self.trees
            .iter()
            .filter_map(|(name, managed)| Some((name.clone(), header(&managed.tree)?)))
            .collect()
    }

    /// Stored orders to abort or revert a release.
    pub fn tombstones(&self) -> Vec<SignedOrder> {
        let of = |managed: &ManagedTree| {
            let kept = managed.tree.state().tombstones();
            kept.unwrap_or_else(|e| {
                tracing::warn!(
                    "tree {}: cannot read its tombstones: {e}",
                    managed.tree.name()
                );
                Vec::new()
            })
        };

        self.trees
            .iter()
            .flat_map(|(_, managed)| of(managed))
            .map(|buried| buried.order)
            .collect()
    }

    /// Signing key of this process.
    pub(super) fn key(&self) -> crate::Result<HostKey> {
        Ok(HostKey::new(
            self.own_key.of(&self.trees)?,
            u64::from_be_bytes(random_bytes()?),
        ))
    }

    /// Serves the tree `name`, opened late.
    pub fn serve(&self, name: &TreeName, managed: ManagedTree) {
        self.trees.serve(name, managed);
        self.own_key.opened(&self.trees);
    }

    /// Labels of the host.
    pub fn labels(&self) -> Labels {
        locked(&self.labels).clone()
    }

    pub(super) fn set_labels(&self, labels: Labels) {
        *locked(&self.labels) = labels;
    }

    /// Keys that may sign for this host.
    pub fn authorized(&self) -> Arc<AuthorizedKeys> {
        self.keys()
    }

    pub(super) fn keys(&self) -> Arc<AuthorizedKeys> {
        Arc::clone(&locked(&self.keys))
    }
}

/// The staged release, else the one of the highest accepted serial or its tombstone: the next
/// serial comes after all of them.
fn shown(tree: &Tree) -> crate::Result<Option<SerialProof>> {
    if let Some(found) = tree.awaiting()? {
        return Ok(Some(proof_of(found.stored)));
    }

    let Some(highest) = tree.state().highest()? else {
        return Ok(None);
    };

    if let Some(stored) = tree
        .release(highest.serial)?
        .filter(|stored| stored.release.id() == highest.id)
    {
        return Ok(Some(proof_of(stored)));
    }

    let buried = tree
        .state()
        .tombstones()?
        .into_iter()
        .find(|buried| buried.stone.release == highest.id);

    Ok(buried.map(|buried| SerialProof {
        release: None,
        order: Some(buried.order),
    }))
}

fn proof_of(stored: StoredRelease) -> SerialProof {
    SerialProof {
        release: Some(ReleaseBytes {
            header: stored.release.bytes().to_vec(),
            signature: stored.signature,
        }),
        order: None,
    }
}

fn state(tree: &Tree) -> TreeState {
    let current = tree.current().ok().flatten();
    let stones = tree
        .state()
        .tombstones()
        .unwrap_or_default()
        .into_iter()
        .map(|buried| buried.stone);

    let unhealthy = current
        .as_ref()
        .is_some_and(|c| tree.state().unhealthy(c.release.id()).is_some());
    let is_part = current
        .as_ref()
        .is_some_and(|c| !c.release.header().is_whole());
    let base = if is_part {
        tree.base().ok().flatten()
    } else {
        None
    };

    TreeState {
        tree: tree.name().clone(),
        serial: tree.highest_serial().ok().flatten().unwrap_or_default(),
        release: current.as_ref().map(|c| c.release.id()),
        running: current.as_ref().map(|c| c.release.header().serial),
        created: current.map(|c| c.release.header().created),
        tombstones: Some(stones.take(MAX_BEACON_TOMBSTONES).collect()),
        unhealthy: Some(true).filter(|_| unhealthy),
        base: base.map(|(serial, _)| serial),
    }
}
