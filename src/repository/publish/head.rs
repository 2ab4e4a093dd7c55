//! The head of a publication: which one is there, and the new one.

use std::sync::Arc;

use super::state::{Base, PublishStage};
use super::{Publish, PublishError, PublishNote, PublishStep};
use crate::block::BlockHash;
use crate::manifest::ReleaseId;
use crate::repository::attempt::{SmallGet, SmallGot};
use crate::repository::head::{
    Head, HeadError, HeadRelease, MAX_HEAD_BYTES, MAX_KEPT, REPOSITORY_FORMAT, SignedHead,
    head_object, split_kept,
};
use crate::repository::marker::{marker, marker_format, marker_object, marker_request};
use crate::repository::object::{FaultKind, Put, PutCondition, StoreFault};
use crate::repository::pull::head_request;
use crate::units::{Moment, WallTime};

/// Releases that a repository keeps of a tree, unless somebody says otherwise.
const KEPT_RELEASES: usize = 3;

impl Publish {
    /// The bytes to sign, with the present time.
    pub fn head_to_sign(&mut self, now: WallTime) -> Vec<u8> {
        let mut kept: Vec<HeadRelease> = self
            .record
            .iter()
            .zip(&self.new)
            .map(|(record, new)| self.packer.kept(&new.release, record))
            .collect();
        let base = self.base.head.as_ref();
        let is_whole = |kept: &&HeadRelease| !self.base.damaged.contains(kept);
        kept.extend(base.iter().flat_map(|base| &base.kept).filter(is_whole));
        let before = base.map_or(0, Head::kept_by_age);
        let keep = self.setup.keep.unwrap_or(before.max(KEPT_RELEASES));
        let keep = keep.clamp(1, MAX_KEPT);
        // Who only signs the head again keeps all releases of it, and changes no number.
        let by_age = if self.new.is_some() { keep } else { before };
        let pinned = base
            .and_then(|base| base.pinned.clone())
            .unwrap_or_default();
        // Pins come on top of what was to stay.
        let (kept, _) = split_kept(&kept, &pinned, keep);

        let added = kept.first().filter(|_| self.new.is_some());
        self.sealed.added = added.copied();
        let new = self.new.as_ref().map(|new| new.release.id());
        let release = new.or(base.map(|base| base.release));
        let mut head = Head {
            format: REPOSITORY_FORMAT,
            tree: self.setup.tree.clone(),
            made: base.map_or(now, |base| base.made),
            valid_until: base.and_then(|base| base.valid_until),
            release: release.unwrap_or(ReleaseId(BlockHash([0; 32]))),
            kept,
            orders: Vec::new(),
            pinned: None,
            by_age: u8::try_from(by_age).ok(),
        };

        head.add_orders(base.iter().flat_map(|base| &base.orders));
        head.set_pins(&pinned, self.setup.pin);
        head.date(now, self.setup.valid_for);
        self.result.valid_until = head.valid_until;
        self.sealed.head = head.encode();
        self.sealed.head.clone()
    }

    /// Takes the signature of the head.
    pub fn signed(&mut self, signature: &[u8]) {
        self.asked = false;
        let signed = SignedHead {
            head: std::mem::take(&mut self.sealed.head),
            signature: signature.to_vec(),
        };

        self.sealed.object = Arc::new(signed.encode());
        if self.sealed.object.len() > MAX_HEAD_BYTES {
            let error = HeadError::Illegal("too many orders".into());
            return self.fail(error.into());
        }

        let condition = match (&self.base.etag, self.base.object.is_empty()) {
            (Some(etag), _) => PutCondition::Unchanged(etag.clone()),
            (None, true) => PutCondition::Absent,
            (None, false) => {
                self.has_conditions = false;
                return self.check_again(PublishStage::Checking);
            }
        };
        self.commit(condition);
    }

    /// Takes back the head of the last [`PublishStep::Head`], which did not pass the caller's
    /// checks. Something on the way may have changed it, so it is read again a few times.
    pub fn refuse(&mut self, error: HeadError, now: Moment) {
        self.reread(PublishError::Head(error), now);
    }

    pub(super) fn take_head(&mut self, got: SmallGot, now: Moment) {
        let confirming = self.stage == PublishStage::Confirming;
        let checking = confirming || self.stage == PublishStage::Checking;

        match got {
            SmallGot::Failed(fault) => self.fail(PublishError::Store(fault)),
            SmallGot::NotModified => self.fail(PublishError::NoRepository),
            SmallGot::Body(bytes, _) if checking && bytes[..] == self.sealed.object[..] => {
                self.end(PublishStep::Done(self.result));
            }
            SmallGot::Body(bytes, _) if confirming && bytes == self.base.object => {
                self.confirm_again(now);
            }
            SmallGot::Missing if confirming => self.confirm_again(now),
            SmallGot::Body(bytes, etag)
                if checking && bytes == self.base.object && etag == self.base.etag =>
            {
                self.take_unchanged(now);
            }
            SmallGot::Missing if checking && self.base.object.is_empty() => {
                self.take_unchanged(now);
            }
            SmallGot::Body(bytes, etag) => match SignedHead::decode(&bytes) {
                Err(error) => self.refuse(error, now),
                Ok(signed) => self.open(
                    Base {
                        object: bytes,
                        etag,
                        ..Base::default()
                    },
                    Some(signed),
                ),
            },
            SmallGot::Missing => {
                let marker = marker_request();
                self.stage = PublishStage::Opening;
                self.asking = Some((marker.object.clone(), SmallGet::new(marker)));
            }
        }
    }

    /// Replaces the head, which is as it was. If the store has said otherwise, this is an old state
    /// from a cache, and is read again.
    fn take_unchanged(&mut self, now: Moment) {
        if !self.has_conditions {
            return self.commit(PutCondition::Any);
        }

        let text = "it keeps answering with an old head: is there a cache before it?";
        let fault = StoreFault::new(FaultKind::Temporary, text);
        self.reread(PublishError::Store(fault), now);
    }

    /// Reads the head again after a while, because it was an old state: the store has taken a newer
    /// one.
    fn confirm_again(&mut self, now: Moment) {
        let head = head_request(&self.setup.tree, None);
        let object = head.object.clone();
        match self.rereads.next(head, now, &mut self.dice) {
            Some(get) => self.asking = Some((object, get)),
            None => {
                let unsure = PublishStep::Note(PublishNote::Unconfirmed);
                self.steps.push_back(unsure);
                self.end(PublishStep::Done(self.result));
            }
        }
    }

    /// Reads the head again after a while; fails with `error` if that was done often enough.
    fn reread(&mut self, error: PublishError, now: Moment) {
        self.asked = false;
        let head = head_request(&self.setup.tree, None);
        let object = head.object.clone();
        match self.rereads.next(head, now, &mut self.dice) {
            Some(get) => self.asking = Some((object, get)),
            None => self.fail(error),
        }
    }

    /// Looks at the marker where the head is missing.
    pub(super) fn take_marker(&mut self, got: SmallGot) {
        match got {
            SmallGot::Failed(fault) => return self.fail(PublishError::Store(fault)),
            SmallGot::NotModified => return self.fail(PublishError::NoRepository),
            SmallGot::Body(bytes, _) => match marker_format(&bytes) {
                Some(REPOSITORY_FORMAT) => {}
                Some(other) => return self.fail(HeadError::Format(other).into()),
                None => return self.fail(PublishError::NoRepository),
            },
            SmallGot::Missing => self.puts.push(Put {
                object: marker_object(),
                bytes: Arc::new(marker()),
                condition: PutCondition::Any,
            }),
        }
        self.open(Base::default(), None);
    }

    fn open(&mut self, base: Base, head: Option<SignedHead>) {
        self.base = base;
        self.stage = PublishStage::Opened;
        self.steps.push_back(PublishStep::Head(head));
    }

    pub(super) fn commit(&mut self, condition: PutCondition) {
        self.stage = PublishStage::Committing;
        self.puts.push(Put {
            object: head_object(&self.setup.tree),
            bytes: Arc::clone(&self.sealed.object),
            condition,
        });
    }

    /// Reads the head again, because a condition could not be checked or did not hold.
    pub(super) fn check_again(&mut self, stage: PublishStage) {
        self.stage = stage;
        let head = head_request(&self.setup.tree, None);
        self.asking = Some((head.object.clone(), SmallGet::new(head)));
    }
}
