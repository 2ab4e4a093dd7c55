//! The machine that deletes what no release refers to, without I/O.
//!
//! Contract: call [`Gc::poll`] until it returns [`GcStep::Wait`], then wait for a reply or for the
//! time in the step.
//!
//! | step | the caller |
//! |---|---|
//! | `List` | lists all objects and calls [`Gc::listed`] |
//! | `Get`, `Put` | carries out the request and passes every reply to the machine |
//! | `Head` | verifies the head and calls [`Gc::head`], or [`Gc::refuse`] |
//! | `Seal` | signs the bytes of [`Gc::head_to_sign`] and calls [`Gc::signed`] |
//! | `Delete` | deletes the objects and polls again |
//! | `Done`, `Failed` | is done; nothing further comes |
//!
//! Only what is older than the grace time is deleted, because a publisher may be about to refer to
//! it. Ages are differences of the store's own times, looked at again shortly before a deletion: a
//! publisher may have stored the same pack again.
//!
//! With a key, gc also drops releases beyond a number to keep, and moves the live pieces of packs
//! that are mostly dead, or small, to new packs. The new head is stored before anything is deleted.
//! It has the times of the head before: only a publisher knows that there is nothing newer. A pull
//! that misses a pack then reads the head again and goes on, see [`super::pull`]. A publisher
//! notices by the condition of its own head. On a store without conditions it does not notice, so
//! packs of the heads before stay for the next gc.
//!
//! A head that cannot be read or verified ends it before anything is deleted: that tree may need
//! any pack.
//!
//! A repository without any head is one whose first publication never ended, or a store that does
//! not show heads. Its packs are deleted only if the caller says so, and if the list has an object
//! that gc has stored beside the heads.
//!
//! Without a key, gc trusts the store to answer with the present heads: there must be no cache in
//! between.

mod heads;
mod listing;
mod live;
mod marking;
mod marks;
mod moved;
mod rewrite;
mod step;
mod tree_heads;

#[cfg(test)]
pub(super) use listing::MAX_DELETED_AT_ONCE;
pub use step::{GcError, GcReport, GcRewrite, GcSetup, GcStep};

use std::collections::VecDeque;

use self::listing::{Deletion, ListedObjects};
use self::marks::Marks;
use self::moved::Rewrite;
use self::tree_heads::Heads;
use super::attempt::{Dice, RequestId, SmallGet};
use super::marker::{marker, marker_object};
use super::object::{GetReply, Put, PutCondition, PutReply};
use super::pack::{PACK_BYTES, PackName};
use super::packer::Packer;
use super::puts::Puts;
use crate::units::Moment;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GcStage {
    Listing,
    Reading,
    Marking,
    /// The marker is stored again: the time that the store gives it is the present.
    Stamping,
    Sizing,
    Copying,
    Flushing,
    Sealing,
    Committing,
    /// Packs of dropped releases are looked up.
    Sparing,
    Listing2,
    Rechecking,
    Deleting,
    Ended,
}

/// Deletes what no release refers to.
#[derive(Debug)]
pub struct Gc {
    setup: GcSetup,
    dice: Dice,
    stage: GcStage,
    heads: Heads,
    marks: Marks,
    rewrite: Rewrite,
    packer: Packer,
    puts: Puts,
    listing: ListedObjects,
    deletion: Deletion,
    /// Set while the caller has been asked for something.
    asked: bool,
    steps: VecDeque<GcStep>,
    report: GcReport,
}

impl Gc {
    /// Begins.
    pub fn new(setup: GcSetup) -> Self {
        Self {
            dice: Dice::new(setup.seed),
            stage: GcStage::Listing,
            heads: Heads::default(),
            marks: Marks::default(),
            rewrite: Rewrite::default(),
            packer: Packer::new(PACK_BYTES),
            puts: Puts::default(),
            listing: ListedObjects::default(),
            deletion: Deletion::default(),
            asked: false,
            steps: VecDeque::new(),
            report: GcReport::default(),
            setup,
        }
    }

    /// Returns the next step.
    pub fn poll(&mut self, now: Moment) -> GcStep {
        loop {
            if let Some(step) = self.steps.pop_front() {
                return step;
            }
            if self.stage == GcStage::Ended {
                return GcStep::Wait(None);
            }
            if let Some(step) = self.request(now) {
                return step;
            }
            if self.asked {
                return GcStep::Wait(self.timeout());
            }
            if let Some(loaded) = self.marks.loader.next() {
                self.take(loaded);
            } else if let Some(step) = self.next_step() {
                self.asked = true;
                return step;
            } else if !self.go_on() {
                return GcStep::Wait(self.timeout());
            }
        }
    }

    /// Returns whether a kept release refers to the pack, once the gc is done.
    pub fn refers_to(&self, pack: &PackName) -> bool {
        self.marks.live.has(pack)
    }

    /// Takes a reply to a [`GcStep::Get`].
    pub fn reply(&mut self, id: RequestId, reply: GetReply, now: Moment) {
        let Some(get) = &mut self.heads.asking else {
            return self.marks.loader.reply(id, reply, now, &mut self.dice);
        };

        if let Some(got) = get.reply(id, &reply, now, &mut self.dice) {
            self.heads.asking = None;
            match self.stage {
                GcStage::Committing => self.take_again(got, now),
                GcStage::Rechecking => self.take_once_more(got),
                _ => self.take_head(got, now),
            }
        }
    }

    /// Takes the reply to a [`GcStep::Put`].
    pub fn stored(&mut self, id: RequestId, reply: PutReply, now: Moment) {
        let Some((object, reply)) = self.puts.reply(id, reply, now, &mut self.dice) else {
            return;
        };

        let is_head = !object.is_immutable();
        match reply {
            // The list has other times to go by.
            _ if object == marker_object() => {}
            PutReply::Failed(fault) => self.fail(GcError::Store(fault)),
            PutReply::Done { .. } if is_head => self.next_tree(),
            PutReply::Conflict if is_head => self.check_again(),
            PutReply::NoConditions if is_head => {
                self.heads.has_conditions = false;
                self.check_again();
            }
            PutReply::Done { .. } | PutReply::Conflict | PutReply::NoConditions => {}
        }
    }

    fn request(&mut self, now: Moment) -> Option<GcStep> {
        let dice = &mut self.dice;
        if let Some(get) = &mut self.heads.asking {
            return get.poll(now, dice).map(|(id, get)| GcStep::Get(id, get));
        }

        while !self.puts.is_full()
            && let Some(put) = self.packer.next_full()
        {
            self.puts.push(put);
        }
        if let Some((id, put)) = self.puts.poll(now, dice) {
            return Some(GcStep::Put(id, put));
        }
        self.marks
            .loader
            .poll(now, dice)
            .map(|(id, get)| GcStep::Get(id, get))
    }

    fn timeout(&self) -> Option<Moment> {
        let asking = self.heads.asking.as_ref().and_then(SmallGet::timeout);
        let others = self
            .puts
            .timeout()
            .into_iter()
            .chain(self.marks.loader.timeout());
        asking.into_iter().chain(others).min()
    }

    /// Returns what the caller has to do now.
    fn next_step(&mut self) -> Option<GcStep> {
        match self.stage {
            GcStage::Listing | GcStage::Sizing | GcStage::Listing2 => Some(GcStep::List),
            GcStage::Sealing => {
                let tree = self.heads.trees.get(self.heads.at);
                tree.filter(|tree| tree.changes())?;
                self.stage = GcStage::Committing;
                Some(GcStep::Seal)
            }
            _ => None,
        }
    }

    /// Goes on to the next stage if this one is complete; returns whether something changed.
    fn go_on(&mut self) -> bool {
        match self.stage {
            GcStage::Reading if self.heads.asking.is_none() => match self.heads.reading.pop_front()
            {
                Some(tree) => self.read_head(tree),
                None => self.begin_marking(),
            },
            GcStage::Marking if self.marks.loader.is_idle() => {
                self.marks.live.settle();
                self.stage = GcStage::Stamping;
                if self.setup.grace.is_some() {
                    self.puts.push(Put {
                        object: marker_object(),
                        bytes: marker().into(),
                        condition: PutCondition::Any,
                    });
                }
                if self.heads.trees.is_empty() {
                    self.puts.push(Put {
                        object: listing::probe(),
                        bytes: b"gc\n".to_vec().into(),
                        condition: PutCondition::Any,
                    });
                }
            }
            GcStage::Stamping if self.puts.is_idle() => self.stage = GcStage::Sizing,
            GcStage::Copying if self.marks.loader.is_idle() && !self.packer.has_full() => {
                match self.rewrite.weak.pop_front() {
                    Some(pack) => self.ask_for_whole(pack),
                    None => {
                        self.stage = GcStage::Flushing;
                        self.rewrite_trees();
                    }
                }
            }
            GcStage::Flushing if self.puts.is_idle() && !self.packer.has_full() => {
                self.heads.at = 0;
                self.seal();
            }
            GcStage::Sealing => self.store_same_head(),
            GcStage::Sparing if self.marks.loader.is_idle() => self.stage = GcStage::Listing2,
            GcStage::Rechecking if self.heads.asking.is_none() => self.check_once_more(),
            GcStage::Deleting => self.delete(),
            _ => return false,
        }

        true
    }

    fn fail(&mut self, error: GcError) {
        self.end(GcStep::Failed(error));
    }

    fn end(&mut self, step: GcStep) {
        self.stage = GcStage::Ended;
        self.heads.asking = None;
        self.marks.loader.clear();
        self.steps.push_back(step);
    }
}
