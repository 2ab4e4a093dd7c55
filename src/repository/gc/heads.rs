//! The heads of a gc: which ones are there, and the new ones.

use std::sync::Arc;

use super::rewrite::Rewritten;
use super::{Gc, GcError, GcStep, Stage};
use crate::repository::attempt::{SmallGet, SmallGot};
use crate::repository::head::{SignedHead, head_object};
use crate::repository::object::{Put, PutCondition};
use crate::repository::pull::head_request;
use crate::units::Moment;

impl Gc {
    /// The bytes of a head to sign. It keeps its times: gc does not know of what was published.
    pub fn head_to_sign(&mut self) -> Vec<u8> {
        let Some(tree) = self.trees.get(self.at) else {
            return Vec::new();
        };
        let Some(mut head) = tree.head.clone() else {
            return Vec::new();
        };

        let kept = tree.rewritten.iter().map(|rewritten| match rewritten {
            Rewritten::Same(kept) => *kept,
            Rewritten::Again(kept, record) => match self.records.get(kept) {
                Some(of) => self.packer.kept(&of.release, record),
                None => *kept,
            },
        });
        head.kept = kept.collect();
        self.sealed = head.encode();
        self.sealed.clone()
    }

    /// Takes the signature of a head.
    pub fn signed(&mut self, signature: &[u8]) {
        self.asked = false;
        let signed = SignedHead {
            head: std::mem::take(&mut self.sealed),
            signature: signature.to_vec(),
        };
        self.sealed = signed.encode();
        self.store_head();
    }

    /// Stores a head that does not change. The store takes it only if this gc has read its present
    /// state, and not an old one from a cache.
    pub(super) fn store_same_head(&mut self) {
        self.stage = Stage::Committing;
        let object = self.trees.get(self.at).map(|tree| tree.object.clone());
        self.sealed = object.unwrap_or_default();
        self.store_head();
    }

    fn store_head(&mut self) {
        let etag = self.trees.get(self.at).and_then(|tree| tree.etag.clone());
        match etag.filter(|_| self.has_conditions) {
            Some(etag) => self.commit(PutCondition::Unchanged(etag)),
            None => {
                self.has_conditions = false;
                self.check_again();
            }
        }
    }

    pub(super) fn take_head(&mut self, got: SmallGot) {
        let Some(tree) = self.trees.last_mut() else {
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
                Err(error) => {
                    let tree = tree.tree.clone();
                    self.fail(GcError::Head(tree, error));
                }
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
        if let Some(tree) = self.trees.get(self.at) {
            self.puts.push(Put {
                object: head_object(&tree.tree),
                bytes: Arc::new(self.sealed.clone()),
                condition,
            });
        }
    }

    /// Reads a head again, because a condition could not be checked or did not hold.
    pub(super) fn check_again(&mut self) {
        if let Some(tree) = self.trees.get(self.at) {
            let head = head_request(&tree.tree, None);
            self.asking = Some(SmallGet::new(head));
        }
    }

    pub(super) fn take_again(&mut self, got: SmallGot, now: Moment) {
        let Some(tree) = self.trees.get(self.at) else {
            return;
        };

        match got {
            SmallGot::Failed(fault) => self.fail(GcError::Store(fault)),
            SmallGot::Body(bytes, etag) if bytes == tree.object && etag == tree.etag => {
                self.take_unchanged(now);
            }
            SmallGot::Body(bytes, _) if bytes == self.sealed => self.next_tree(),
            _ => {
                let tree = tree.tree.clone();
                self.fail(GcError::Changed(tree));
            }
        }
    }

    /// Replaces the head, which is as it was. If the store has said otherwise, this is an old state
    /// from a cache, and is read again.
    fn take_unchanged(&mut self, now: Moment) {
        let Some(tree) = self.trees.get(self.at) else {
            return;
        };
        if !self.has_conditions && tree.object == self.sealed {
            return self.next_tree();
        }
        if !self.has_conditions {
            return self.commit(PutCondition::Any);
        }

        let head = head_request(&tree.tree, None);
        self.asking = self.rereads.next(head, now, &mut self.dice);
        if self.asking.is_none() {
            let tree = tree.tree.clone();
            self.fail(GcError::Changed(tree));
        }
    }

    pub(super) fn next_tree(&mut self) {
        if let Some(tree) = self.trees.get_mut(self.at) {
            tree.object = std::mem::take(&mut self.sealed);
        }
        self.at += 1;
        self.seal();
    }

    /// Goes to the next head, or to the deletion.
    pub(super) fn seal(&mut self) {
        self.stage = if self.at < self.trees.len() {
            Stage::Sealing
        } else if self.has_conditions {
            Stage::Listing2
        } else {
            self.spare();
            Stage::Sparing
        };
    }

    /// Reads the next head once more, or goes on to the deletion.
    pub(super) fn check_once_more(&mut self) {
        if self.at < self.trees.len() {
            self.check_again();
        } else {
            self.stage = Stage::Deleting;
        }
    }

    pub(super) fn take_once_more(&mut self, got: SmallGot) {
        let Some(tree) = self.trees.get(self.at) else {
            return;
        };

        match got {
            SmallGot::Failed(fault) => self.fail(GcError::Store(fault)),
            SmallGot::Body(bytes, _) if bytes == tree.object => self.at += 1,
            _ => {
                let tree = tree.tree.clone();
                self.fail(GcError::Changed(tree));
            }
        }
    }
}
