//! The releases that a host keeps: which they are, and which of them and their manifests go.

use super::open::Tree;
use crate::error::Result;
use crate::id::Serial;
use crate::keys::{Fingerprint, Namespace, verify};
use crate::manifest::ReleaseId;
use crate::units::{ByteSize, WallTime};

/// A release that a host keeps for rollback, or runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptRelease {
    /// Its number.
    pub serial: Serial,
    /// Its identity.
    pub id: ReleaseId,
    /// When it was made, by the sender's clock.
    pub created: WallTime,
    /// The key that signed it; `None` when the stored signature does not verify.
    pub key: Option<Fingerprint>,
    /// Entries of its tree.
    pub entries: u64,
    /// Bytes of its files.
    pub bytes: ByteSize,
    /// Whether the tree is this release now.
    pub running: bool,
}

impl Tree {
    /// The releases that are kept, the newest first. One whose file is damaged is left out, with a warning in the log.
    pub fn kept(&self) -> Result<Vec<KeptRelease>> {
        let current = self.state.current()?;
        let mut kept = Vec::new();
        for serial in self.state.serials()?.into_iter().rev() {
            let stored = match self.state.stored(serial) {
                Ok(Some(stored)) => stored,
                Ok(None) => continue,
                Err(e) => {
                    tracing::warn!("tree {}: release {serial} is kept in vain: {e}", self.name());
                    continue;
                }
            };
            let (header, id) = (stored.release.header(), stored.release.id());
            let key = verify(Namespace::RELEASE, stored.release.bytes(), &stored.signature).ok();
            kept.push(KeptRelease {
                serial,
                id,
                created: header.created,
                key: key.map(|k| k.fingerprint()),
                entries: header.root.entries,
                bytes: ByteSize(header.root.bytes),
                running: current.is_some_and(|c| c.id == id),
            });
        }
        Ok(kept)
    }

    /// Forgets the oldest releases beyond those to be kept; never the present one.
    pub(super) fn prune(&self) -> Result<()> {
        let current = self.state.current()?.map(|m| m.serial);
        let mut serials = self.state.serials()?;
        serials.sort_by_key(|&s| std::cmp::Reverse((Some(s) == current, s)));
        let gone = serials.split_off(serials.len().min(self.options.keep.max(1)));
        if gone.is_empty() {
            return Ok(());
        }
        for serial in gone {
            self.state.forget(serial)?;
        }
        self.prune_nodes()
    }

    /// Drops the nodes that no kept release needs.
    pub(super) fn prune_nodes(&self) -> Result<()> {
        let mut roots = Vec::new();
        for serial in self.state.serials()? {
            roots.extend(self.state.stored(serial)?.map(|s| s.release.header().root));
        }
        self.nodes().prune(&roots)
    }
}
