//! The releases that a host keeps: which they are, and which of them go, with their manifests and content.

use std::collections::HashSet;

use super::content;
use super::retention::{Arriving, Lacking, Merged, NextRelease, ReleaseHistory, Unmerged};
use crate::block::BlockHash;
use crate::error::Result;
use crate::id::Serial;
use crate::keys::{Fingerprint, Namespace, verify};
use crate::manifest::ReleaseId;
use crate::tree::commit::journal::Journal;
use crate::tree::state::reader::StateReader;
use crate::tree::state::worktree::Worktree;
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
    /// The name of what it does to a tree.
    pub content: BlockHash,
    /// Whether it governs a part of the tree only.
    pub part: bool,
    /// Whether the tree is this release now.
    pub running: bool,
}

impl StateReader {
    /// The distinct releases that are kept, the newest first. Of several with the same content the running one or the
    /// newest is told. One whose file is damaged is left out, with a warning in the log.
    pub fn kept(&self) -> Result<Vec<KeptRelease>> {
        let current = self.current()?;
        let mut kept = Vec::new();
        for serial in self.serials()?.into_iter().rev() {
            let stored = match self.stored(serial) {
                Ok(Some(stored)) => stored,
                Ok(None) => continue,
                Err(e) => {
                    tracing::warn!("release {serial} is kept in vain: {e}");
                    continue;
                }
            };
            let header = stored.release.header();
            let id = stored.release.id();
            let key = verify(
                Namespace::RELEASE,
                stored.release.bytes(),
                &stored.signature,
            )
            .ok();
            kept.push(KeptRelease {
                serial,
                id,
                created: header.created,
                key: key.map(|k| k.fingerprint()),
                entries: header.root.entries,
                bytes: ByteSize(header.root.bytes),
                content: header.content(),
                part: !header.is_whole(),
                running: current.is_some_and(|c| c.id == id),
            });
        }

        let running = kept
            .iter()
            .find(|release| release.running)
            .map(|release| release.content);

        let mut seen = HashSet::new();
        kept.retain(|r| {
            if running == Some(r.content) {
                r.running
            } else {
                seen.insert(r.content)
            }
        });

        Ok(kept)
    }
}

impl Worktree {
    /// The releases that are kept, the newest first. One whose file is damaged is left out, with a warning in the log.
    pub fn kept(&self) -> Result<Vec<KeptRelease>> {
        self.state.kept()
    }

    /// Makes ready to keep what the commit of `journal` replaced, when the release before stays one that is kept.
    pub(crate) fn keep(&self, journal: &Journal) -> Result<()> {
        let Some(previous) = journal.previous.map(|p| p.release) else {
            return Ok(());
        };

        // Put again over what others changed: what it replaced is nothing that any release had.
        if previous == journal.commit.release {
            return Ok(());
        }

        let history = ReleaseHistory::of(self)?;
        let stay = history.staying(self.options.keep).content;

        let before = history.before(previous.serial);
        let is_known = before
            .first()
            .is_some_and(|release| release.id() == previous.id);
        let is_needed = before
            .iter()
            .any(|release| stay.contains(&release.header().serial));

        if is_known && is_needed {
            content::gather(self, journal, &before, &stay)
        } else {
            Ok(())
        }
    }

    /// The whole that the present release is, or is a part of; its number, and the name of what it does to a tree.
    pub fn base(&self) -> Result<Option<(Serial, BlockHash)>> {
        Ok(ReleaseHistory::of(self)?
            .base()
            .map(|header| (header.serial, header.content())))
    }

    /// The parts for all hosts that followed the whole, at most the newest `most` of them, rising; with each whether a later
    /// one does all that it did.
    pub fn parts(&self, most: usize) -> Result<Vec<(Serial, bool)>> {
        Ok(ReleaseHistory::of(self)?.parts(most))
    }

    /// A part that stands for `least` or more of those that went out since the whole, which delete what they do not have
    /// or do not; its manifest is in the store.
    pub fn merged_part(&self, deletes: bool, least: usize) -> Result<Result<Merged, Unmerged>> {
        ReleaseHistory::of(self)?.merged(deletes, least)
    }

    /// What a host is given next to become the present release.
    pub fn next_for(&self, host: Lacking<'_>) -> Result<NextRelease> {
        Ok(ReleaseHistory::of(self)?.next_for(host))
    }

    /// Which of `hosts` lack a release that is for them.
    pub fn arriving<'a>(&self, hosts: impl IntoIterator<Item = Lacking<'a>>) -> Result<Arriving> {
        Ok(ReleaseHistory::of(self)?.arriving(hosts))
    }

    /// Forgets the releases that are not to be kept any more, with their content.
    pub(crate) fn prune(&self) -> Result<()> {
        let stay = ReleaseHistory::of(self)?.staying(self.options.keep);
        let mut serials = self.state.serials()?;
        serials.retain(|serial| !stay.records.contains(serial));

        for &serial in &serials {
            self.crash.point()?;
            self.state.forget(serial)?;
        }

        // After the releases: content without a release is found and removed the next time.
        content::prune(self, &stay.content)?;
        if serials.is_empty() {
            Ok(())
        } else {
            self.prune_nodes()
        }
    }

    /// Drops the nodes that no kept release needs.
    pub(crate) fn prune_nodes(&self) -> Result<()> {
        let mut roots = Vec::new();
        for serial in self.state.serials()? {
            roots.extend(self.state.stored(serial)?.map(|s| s.release.header().root));
        }
        self.nodes().prune(&roots)
    }
}
