//! The heads of a gc: which ones are there, and the new ones.

use std::sync::Arc;

use super::moved::Rewritten;
use super::tree_heads::TreeHead;
use super::{Gc, GcError, GcStage, GcStep};
use crate::id::TreeName;
use crate::repository::attempt::{Rereads, SmallGet, SmallGot};
use crate::repository::head::{
    HeadError, MAX_KEPT, SignedHead, VerifiedHead, head_object, split_kept,
};
use crate::repository::object::{Put, PutCondition};
use crate::repository::pull::head_request;
use crate::units::Moment;

impl Gc {
    pub(super) fn read_head(&mut self, tree: TreeName) {
        self.heads.asking = Some(SmallGet::new(head_request(&tree, None)));
        self.heads.rereads = Rereads::default();
        self.heads.trees.push(TreeHead::of(tree));
    }

    /// Takes the head of the last [`GcStep::Head`], which the caller has verified.
    pub fn head(&mut self, head: &VerifiedHead) {
        self.asked = false;
        if let Some(last) = self.heads.trees.last_mut() {
            let keep = self.setup.rewrites.and_then(|rewrites| rewrites.keep);
            let keep = keep.unwrap_or(MAX_KEPT).max(1);
            let pinned = head.head().pinned.as_deref().unwrap_or_default();
            (last.kept, last.dropped) = split_kept(&head.head().kept, pinned, keep);
            last.head = Some(head.head().clone());
        }
    }

    /// Takes back the head of the last [`GcStep::Head`], which did not pass the caller's checks.
    /// Something on the way may have changed it, so it is read again a few times.
    pub fn refuse(&mut self, error: HeadError, now: Moment) {
        self.asked = false;
        let Some(tree) = self.heads.trees.last().map(|last| last.tree.clone()) else {
            return;
        };

        let head = head_request(&tree, None);
        let rereads = &mut self.heads.rereads;
        let again = (!error.is_signed()).then(|| rereads.next(head, now, &mut self.dice));
        self.heads.asking = again.flatten();
        if self.heads.asking.is_none() {
            self.fail(GcError::Head(tree, error));
        }
    }

    /// The bytes of a head to sign. It keeps its times: gc does not know of what was published.
    pub fn head_to_sign(&mut self) -> Vec<u8> {
        let Some(tree) = self.heads.trees.get(self.heads.at) else {
            return Vec::new();
        };
        let Some(mut head) = tree.head.clone() else {
            return Vec::new();
        };

        let kept = tree.rewritten.iter().map(|rewritten| match rewritten {
            Rewritten::Same(kept) => *kept,
            Rewritten::Again(kept, record) => match self.marks.records.get(kept) {
                Some(of) => self.packer.kept(&of.release, record),
                None => *kept,
            },
        });
        head.kept = kept.collect();
        self.heads.sealed = head.encode();
        self.heads.sealed.clone()
    }

    /// Takes the signature of a head.
    pub fn signed(&mut self, signature: &[u8]) {
        self.asked = false;
        let signed = SignedHead {
            head: std::mem::take(&mut self.heads.sealed),
            signature: signature.to_vec(),
        };
        self.heads.sealed = signed.encode();
        self.store_head();
    }

    /// Stores a head that does not change. The store takes it only if this gc has read its present
    /// state, and not an old one from a cache.
    pub(super) fn store_same_head(&mut self) {
        self.stage = GcStage::Committing;
        let object = self
            .heads
            .trees
            .get(self.heads.at)
            .map(|tree| tree.object.clone());
        self.heads.sealed = object.unwrap_or_default();
        self.store_head();
    }

    fn store_head(&mut self) {
        let etag = self
            .heads
            .trees
            .get(self.heads.at)
            .and_then(|tree| tree.etag.clone());
        match etag.filter(|_| self.heads.has_conditions) {
            Some(etag) => self.commit(PutCondition::Unchanged(etag)),
            None => {
                self.heads.has_conditions = false;
                self.check_again();
            }
        }
    }

    pub(super) fn take_head(&mut self, got: SmallGot, now: Moment) {
        let Some(tree) = self.heads.trees.last_mut() else {
            return;
        };

        match got {
            SmallGot::Failed(fault) => self.fail(GcError::Store(fault)),
            // Nothing deletes heads: something on the way is wrong.
            SmallGot::Missing | SmallGot::NotModified => {
                let tree = tree.tree.clone();
                self.fail(GcError::Changed(tree));
            }
            SmallGot::Body(bytes, etag) => match SignedHead::decode(&bytes) {
                Err(error) => self.refuse(error, now),
                Ok(signed) => {
                    tree.object = bytes;
                    tree.etag = etag;
                    self.asked = true;
                    let tree = tree.tree.clone();
                    self.steps.push_back(GcStep::Head(tree, signed));
                }
            },
        }
    }

    fn commit(&mut self, condition: PutCondition) {
        if let Some(tree) = self.heads.trees.get(self.heads.at) {
            self.puts.push(Put {
                object: head_object(&tree.tree),
                bytes: Arc::new(self.heads.sealed.clone()),
                condition,
            });
        }
    }

    /// Reads a head again, because a condition could not be checked or did not hold.
    pub(super) fn check_again(&mut self) {
        if let Some(tree) = self.heads.trees.get(self.heads.at) {
            let head = head_request(&tree.tree, None);
            self.heads.asking = Some(SmallGet::new(head));
        }
    }

    pub(super) fn take_again(&mut self, got: SmallGot, now: Moment) {
        let Some(tree) = self.heads.trees.get(self.heads.at) else {
            return;
        };

        match got {
            SmallGot::Failed(fault) => self.fail(GcError::Store(fault)),
            SmallGot::Body(bytes, etag) if bytes == tree.object && etag == tree.etag => {
                self.take_unchanged(now);
            }
            SmallGot::Body(bytes, _) if bytes == self.heads.sealed => self.next_tree(),
            _ => {
                let tree = tree.tree.clone();
                self.fail(GcError::Changed(tree));
            }
        }
    }

    /// Replaces the head, which is as it was. If the store has said otherwise, this is an old state
    /// from a cache, and is read again.
    fn take_unchanged(&mut self, now: Moment) {
        let Some(tree) = self.heads.trees.get(self.heads.at) else {
            return;
        };
        if !self.heads.has_conditions && tree.object == self.heads.sealed {
            return self.next_tree();
        }
        if !self.heads.has_conditions {
            return self.commit(PutCondition::Any);
        }

        let head = head_request(&tree.tree, None);
        self.heads.asking = self.heads.rereads.next(head, now, &mut self.dice);
        if self.heads.asking.is_none() {
            let tree = tree.tree.clone();
            self.fail(GcError::Changed(tree));
        }
    }

    pub(super) fn next_tree(&mut self) {
        if let Some(tree) = self.heads.trees.get_mut(self.heads.at) {
            tree.object = std::mem::take(&mut self.heads.sealed);
        }
        self.heads.at += 1;
        self.seal();
    }

    /// Goes to the next head, or to the deletion.
    pub(super) fn seal(&mut self) {
        self.stage = if self.heads.at < self.heads.trees.len() {
            GcStage::Sealing
        } else if self.heads.has_conditions {
            GcStage::Listing2
        } else {
            self.spare();
            GcStage::Sparing
        };
    }

    /// Reads the next head once more, or goes on to the deletion.
    pub(super) fn check_once_more(&mut self) {
        if self.heads.at < self.heads.trees.len() {
            self.check_again();
        } else {
            self.stage = GcStage::Deleting;
        }
    }

    pub(super) fn take_once_more(&mut self, got: SmallGot) {
        let Some(tree) = self.heads.trees.get(self.heads.at) else {
            return;
        };

        match got {
            SmallGot::Failed(fault) => self.fail(GcError::Store(fault)),
            SmallGot::Body(bytes, _) if bytes == tree.object => self.heads.at += 1,
            _ => {
                let tree = tree.tree.clone();
                self.fail(GcError::Changed(tree));
            }
        }
    }
}
