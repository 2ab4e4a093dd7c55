//! The heads of a gc: which ones are there, and the new ones.

use std::sync::Arc;

use super::rewrite::Rewritten;
use super::{Gc, GcError, GcStep, Stage};
use crate::repository::attempt::{SmallGet, SmallGot};
use crate::repository::head::{SignedHead, head_object};
use crate::repository::object::{Put, PutCondition};
use crate::repository::pull::head_request;
use crate::units::{Moment, WallTime};

impl Gc {
    /// The bytes of a head to sign, with the present time.
    pub fn head_to_sign(&mut self, now: WallTime) -> Vec<u8> {
        let valid_for = self.setup.rewrites.and_then(|r| r.valid_for);
        let Some(tree) = self.trees.get(self.at) else {
            return Vec::new();
        };
        let Some(mut head) = tree.head.clone() else {
            return Vec::new();
        };

        head.made = now;
        if let Some(seconds) = valid_for {
            head.valid_until = Some(WallTime(now.0.saturating_add(i64::from(seconds))));
        }

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
        match self.trees.get(self.at).and_then(|tree| tree.etag.clone()) {
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
            // It was deleted after the list.
            SmallGot::Missing | SmallGot::NotModified => drop(self.trees.pop()),
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

    pub(super) fn commit(&mut self, condition: PutCondition) {
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
            SmallGot::Body(bytes, _) if bytes == self.sealed => self.next_tree(),
            SmallGot::Body(bytes, etag) if bytes == tree.object && etag == tree.etag => {
                self.take_unchanged(now);
            }
            _ => {
                let tree = tree.tree.clone();
                self.fail(GcError::Changed(tree));
            }
        }
    }

    /// Replaces the head, which is as it was. If the store has said otherwise, this is an old state
    /// from a cache, and is read again.
    fn take_unchanged(&mut self, now: Moment) {
        if !self.has_conditions {
            return self.commit(PutCondition::Any);
        }

        let Some(tree) = self.trees.get(self.at) else {
            return;
        };
        let head = head_request(&tree.tree, None);
        self.asking = self.rereads.next(head, now, &mut self.dice);
        if self.asking.is_none() {
            let tree = tree.tree.clone();
            self.fail(GcError::Changed(tree));
        }
    }

    pub(super) fn next_tree(&mut self) {
        self.at += 1;
        self.seal();
    }

    /// Goes to the next head, or to the deletion. Every head is signed again, also one without a
    /// change: the store replaces it only if this gc has read its present state.
    pub(super) fn seal(&mut self) {
        self.stage = if self.at < self.trees.len() {
            Stage::Sealing
        } else {
            Stage::Listing2
        };
    }
}
