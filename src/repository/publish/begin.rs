//! What a caller does once it has verified the head: publishes, looks, signs again, restores.

use super::compare::ReleaseComparison;
use super::layout::PackLayout;
use super::state::PublishStage;
use super::{Publish, PublishError, PublishStep};
use crate::repository::head::{Head, VerifiedHead};
use crate::repository::packer::SignedRelease;
use crate::repository::places::{PackedNode, StoredNode};

impl Publish {
    /// Publishes `new` after the head of the last [`PublishStep::Head`], which the caller has
    /// verified.
    pub fn begin(&mut self, head: Option<&VerifiedHead>, new: SignedRelease) {
        let header = new.release.header();
        if header.tree != self.setup.tree {
            return self.fail(PublishError::OtherTree(header.tree.clone()));
        }

        if let Some(head) = head.map(VerifiedHead::head) {
            if head.release == new.release.id() {
                return self.end(PublishStep::Done(self.result));
            }
            if head.serial() >= header.serial {
                return self.fail(PublishError::Outdated(head.serial()));
            }
            self.base.head = Some(head.clone());
        }

        if self.stage != PublishStage::Looking {
            self.compare_with(self.base.head.clone().as_ref());
        }
        self.asked = false;
        self.new = Some(new);
        self.layout = PackLayout::default();
        self.stage = PublishStage::Comparing;
    }

    /// Ends the publication if the head, which the caller has verified, keeps the release that was
    /// stored: somebody else published after it. Returns whether that is so.
    pub fn is_followed(&mut self, head: &VerifiedHead) -> bool {
        let added = self.sealed.added.as_ref();
        let is_kept = added.is_some_and(|added| head.head().kept.contains(added));
        if is_kept {
            self.end(PublishStep::Done(self.result));
        }
        is_kept
    }

    /// Reads the newest release of the head first, which the caller has verified.
    pub fn look(&mut self, head: &VerifiedHead) {
        self.compare_with(Some(head.head()));
        if let Some(comparison) = &mut self.comparison {
            comparison.look_at_newest();
        }
        self.stage = PublishStage::Looking;
    }

    /// Signs the head again instead, with a later time.
    pub fn renew(&mut self, head: &VerifiedHead) {
        self.base.head = Some(head.head().clone());
        // Somebody else may have published this content meanwhile.
        (self.new, self.record) = (None, None);
        self.comparison = None;
        self.asked = false;
        self.stage = PublishStage::Flushing;
    }

    /// Publishes `new` with the manifest of an earlier release of the head, whose root is stored at
    /// `root`: only a record is new.
    pub fn restore(&mut self, head: &VerifiedHead, root: &StoredNode, new: SignedRelease) {
        self.begin(Some(head), new);
        if let (PublishStage::Comparing, Some(new)) = (self.stage, &self.new) {
            self.comparison = None;
            let root = PackedNode::of(root, &mut self.packer.packs);
            self.record = Some(self.packer.append_record(new, root));
            self.packer.close();
            self.stage = PublishStage::Flushing;
        }
    }

    fn compare_with(&mut self, head: Option<&Head>) {
        self.stock.keep_own();
        let kept = head.map(|head| &head.kept[..]);
        let kept = kept.unwrap_or_default();
        self.comparison = Some(ReleaseComparison::new(kept, self.setup.repair));
    }
}
