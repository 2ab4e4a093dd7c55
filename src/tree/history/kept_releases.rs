//! Releases that a host keeps, and the removal of older ones with their manifests and content.

use std::collections::HashSet;

use super::retention::{Arriving, Lacking, Merged, NextRelease, ReleaseHistory, Unmerged};
use super::{content, gathering};
use crate::block::BlockHash;
use crate::error::Result;
use crate::id::Serial;
use crate::keys::{Fingerprint, Namespace, verify};
use crate::manifest::{ReleaseId, ReleaseMessage};
use crate::tree::commit::journal::Journal;
use crate::tree::state::reader::StateReader;
use crate::tree::state::worktree::Worktree;
use crate::units::{ByteSize, WallTime};

/// A release that a host keeps for rollback, or runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptRelease {
    /// Serial.
    pub serial: Serial,
    /// Identity.
    pub id: ReleaseId,
    /// Time of creation, by the sender's clock.
    pub created: WallTime,
    /// Key of the signature; `None` if the stored signature does not verify.
    pub key: Option<Fingerprint>,
    /// Number of entries.
    pub entries: u64,
    /// Bytes of all files.
    pub bytes: ByteSize,
    /// Hash of the release's effect on a tree.
    pub content: BlockHash,
    /// Whether the release governs only a part of the tree.
    pub part: bool,
    /// Whether the tree runs this release.
    pub running: bool,
    /// What it changes, in its author's words.
    pub message: Option<ReleaseMessage>,
    /// Whether it stays until somebody ends its pin.
    pub pinned: bool,
}

impl StateReader {
    /// Distinct kept releases, newest first. Of several with the same content, the running one or
    /// the newest. Damaged ones are left out with a warning in the log.
    pub fn kept(&self) -> Result<Vec<KeptRelease>> {
        let current = self.current()?;
        let pins = self.pins().unwrap_or_default();
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
                message: header.message.clone(),
                pinned: pins.contains(&serial),
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
    /// Kept releases, newest first. Damaged ones are left out with a warning in the log.
    pub fn kept(&self) -> Result<Vec<KeptRelease>> {
        self.state.kept()
    }

    /// Prepares to keep the content that the commit of `journal` replaced, if the release before is
    /// kept.
    pub(crate) fn keep(&self, journal: &Journal) -> Result<()> {
        let Some(previous) = journal.previous.map(|p| p.release) else {
            return Ok(());
        };

        // A re-commit of the current release (a repair): the replaced content belongs to no
        // release.
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
            gathering::index_replaced(self, journal, &before, &stay)
        } else {
            Ok(())
        }
    }

    /// Whole release that the present one is, or is a part of: its serial, and the hash of its
    /// effect on a tree.
    pub fn base(&self) -> Result<Option<(Serial, BlockHash)>> {
        Ok(ReleaseHistory::of(self)?
            .base()
            .map(|header| (header.serial, header.content())))
    }

    /// Parts for all hosts since the whole release, at most the newest `most`, rising; each with
    /// whether a later part replaces it.
    pub fn parts(&self, most: usize) -> Result<Vec<(Serial, bool)>> {
        Ok(ReleaseHistory::of(self)?.parts(most))
    }

    /// A part that replaces `least` or more parts since the whole release, either those that delete
    /// extras or the others. Stores its manifest.
    pub fn merged_part(&self, deletes: bool, least: usize) -> Result<Result<Merged, Unmerged>> {
        ReleaseHistory::of(self)?.merged(deletes, least)
    }

    /// Next release for a host on its way to the present one.
    pub fn next_for(&self, host: Lacking<'_>) -> Result<NextRelease> {
        Ok(ReleaseHistory::of(self)?.next_for(host))
    }

    /// Finds those of `hosts` that lack a release meant for them.
    pub fn arriving<'a>(&self, hosts: impl IntoIterator<Item = Lacking<'a>>) -> Result<Arriving> {
        Ok(ReleaseHistory::of(self)?.arriving(hosts))
    }

    /// Removes the releases that are not kept any more, with their content.
    pub(crate) fn prune(&self) -> Result<()> {
        let stay = ReleaseHistory::of(self)?.staying(self.options.keep);
        let mut serials = self.state.serials()?;
        serials.retain(|serial| !stay.records.contains(serial));

        for &serial in &serials {
            self.crash.point()?;
            self.state.forget(serial)?;
        }

        // Content comes after the releases: content without a release is found and removed the next
        // time.
        content::prune(self, |serial| stay.has_content(serial))?;
        if serials.is_empty() {
            Ok(())
        } else {
            self.prune_nodes()
        }
    }

    /// Removes the nodes that no kept or staged release needs.
    pub(crate) fn prune_nodes(&self) -> Result<()> {
        let staged = self.state.staged_record()?;
        let mut roots: Vec<_> = staged
            .map(|found| found.stored.release.header().root)
            .into_iter()
            .collect();
        for serial in self.state.serials()? {
            roots.extend(self.state.stored(serial)?.map(|s| s.release.header().root));
        }
        self.nodes().prune(&roots)
    }
}
