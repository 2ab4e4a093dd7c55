//! The machine that deletes what no release refers to, without I/O.
//!
//! Contract: call [`Gc::poll`] until it returns [`GcStep::Wait`], then wait for a reply or for the
//! time in the step.
//!
//! | step | the caller |
//! |---|---|
//! | `List` | lists all objects and calls [`Gc::listed`] |
//! | `Get`, `Put` | carries out the request and passes every reply to the machine |
//! | `Head` | verifies the head and calls [`Gc::head`]; without a verified head, gc must end |
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
mod rewrite;
mod step;

#[cfg(test)]
pub(super) use listing::MAX_DELETED_AT_ONCE;
pub use step::{GcError, GcReport, GcRewrite, GcSetup, GcStep};

use std::collections::{HashMap, VecDeque};

use self::listing::{Deletion, Listing};
use self::live::Live;
use self::rewrite::{Moved, Rewritten};
use super::attempt::{Dice, RequestId, Rereads, SmallGet};
use super::head::{Head, KeptRelease, MAX_KEPT, VerifiedHead};
use super::loader::Loader;
use super::marker::{marker, marker_object};
use super::object::{Etag, GetReply, Put, PutCondition, PutReply};
use super::pack::{PACK_BYTES, PackName};
use super::packer::Packer;
use super::places::{Places, PlacesRef};
use super::puts::Puts;
use super::record::ReleaseRecord;
use crate::id::TreeName;
use crate::units::Moment;

/// Use of a piece under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Mark {
    Record(KeptRelease),
    Places(PlacesRef),
    /// A whole pack that is rewritten.
    Whole(PackName),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
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

/// One tree of the repository.
#[derive(Debug)]
struct TreeHead {
    tree: TreeName,
    object: Vec<u8>,
    etag: Option<Etag>,
    head: Option<Head>,
    /// The releases that stay, and the others.
    kept: Vec<KeptRelease>,
    dropped: Vec<KeptRelease>,
    rewritten: Vec<Rewritten>,
}

/// Deletes what no release refers to.
#[derive(Debug)]
pub struct Gc {
    setup: GcSetup,
    dice: Dice,
    stage: Stage,
    reading: VecDeque<TreeName>,
    asking: Option<SmallGet>,
    trees: Vec<TreeHead>,
    loader: Loader<Mark>,
    records: HashMap<KeptRelease, ReleaseRecord>,
    pages: HashMap<PlacesRef, Places>,
    live: Live,
    listing: Listing,
    deletion: Deletion,
    sizes: HashMap<PackName, u64>,
    weak: VecDeque<PackName>,
    moved: Moved,
    packer: Packer,
    puts: Puts,
    /// Position of the tree whose head is replaced, or read once more.
    at: usize,
    sealed: Vec<u8>,
    /// False once the store has said that it cannot check conditions.
    has_conditions: bool,
    rereads: Rereads,
    asked: bool,
    steps: VecDeque<GcStep>,
    report: GcReport,
}

impl Gc {
    /// Begins.
    pub fn new(setup: GcSetup) -> Self {
        Self {
            dice: Dice::new(setup.seed),
            stage: Stage::Listing,
            reading: VecDeque::new(),
            asking: None,
            trees: Vec::new(),
            loader: Loader::new(),
            records: HashMap::new(),
            pages: HashMap::new(),
            live: Live::default(),
            listing: Listing::default(),
            deletion: Deletion::default(),
            sizes: HashMap::new(),
            weak: VecDeque::new(),
            moved: Moved::default(),
            packer: Packer::new(PACK_BYTES),
            puts: Puts::default(),
            at: 0,
            sealed: Vec::new(),
            has_conditions: true,
            rereads: Rereads::default(),
            asked: false,
            steps: VecDeque::new(),
            report: GcReport::default(),
            setup,
        }
    }

    /// Takes the head of the last [`GcStep::Head`], which the caller has verified.
    pub fn head(&mut self, head: &VerifiedHead) {
        self.asked = false;
        if let Some(last) = self.trees.last_mut() {
            let keep = self.setup.rewrites.and_then(|rewrites| rewrites.keep);
            let keep = keep.unwrap_or(MAX_KEPT).max(1);
            let kept = &head.head().kept;
            let (kept, dropped) = kept.split_at(keep.min(kept.len()));
            (last.kept, last.dropped) = (kept.to_vec(), dropped.to_vec());
            last.head = Some(head.head().clone());
        }
    }

    /// Returns the next step.
    pub fn poll(&mut self, now: Moment) -> GcStep {
        loop {
            if let Some(step) = self.steps.pop_front() {
                return step;
            }
            if self.stage == Stage::Ended {
                return GcStep::Wait(None);
            }
            if let Some(step) = self.request(now) {
                return step;
            }
            if self.asked {
                return GcStep::Wait(self.timeout());
            }
            if let Some(loaded) = self.loader.next() {
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
        self.live.has(pack)
    }

    /// Takes a reply to a [`GcStep::Get`].
    pub fn reply(&mut self, id: RequestId, reply: GetReply, now: Moment) {
        let Some(get) = &mut self.asking else {
            return self.loader.reply(id, reply, now, &mut self.dice);
        };

        if let Some(got) = get.reply(id, &reply, now, &mut self.dice) {
            self.asking = None;
            match self.stage {
                Stage::Committing => self.take_again(got, now),
                Stage::Rechecking => self.take_once_more(got),
                _ => self.take_head(got),
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
                self.has_conditions = false;
                self.check_again();
            }
            PutReply::Done { .. } | PutReply::Conflict | PutReply::NoConditions => {}
        }
    }

    fn request(&mut self, now: Moment) -> Option<GcStep> {
        let dice = &mut self.dice;
        if let Some(get) = &mut self.asking {
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
        self.loader
            .poll(now, dice)
            .map(|(id, get)| GcStep::Get(id, get))
    }

    fn timeout(&self) -> Option<Moment> {
        let asking = self.asking.as_ref().and_then(SmallGet::timeout);
        let others = self.puts.timeout().into_iter().chain(self.loader.timeout());
        asking.into_iter().chain(others).min()
    }

    /// Returns what the caller has to do now.
    fn next_step(&mut self) -> Option<GcStep> {
        match self.stage {
            Stage::Listing | Stage::Sizing | Stage::Listing2 => Some(GcStep::List),
            Stage::Sealing => {
                self.trees.get(self.at).filter(|tree| tree.changes())?;
                self.stage = Stage::Committing;
                Some(GcStep::Seal)
            }
            _ => None,
        }
    }

    /// Goes on to the next stage if this one is complete; returns whether something changed.
    fn go_on(&mut self) -> bool {
        match self.stage {
            Stage::Reading if self.asking.is_none() => match self.reading.pop_front() {
                Some(tree) => {
                    let head = super::pull::head_request(&tree, None);
                    self.asking = Some(SmallGet::new(head));
                    self.trees.push(TreeHead::of(tree));
                }
                None => self.begin_marking(),
            },
            Stage::Marking if self.loader.is_idle() => {
                self.live.settle();
                self.stage = Stage::Stamping;
                if self.setup.grace.is_some() {
                    self.puts.push(Put {
                        object: marker_object(),
                        bytes: marker().into(),
                        condition: PutCondition::Any,
                    });
                }
                if self.trees.is_empty() {
                    self.puts.push(Put {
                        object: listing::probe(),
                        bytes: b"gc\n".to_vec().into(),
                        condition: PutCondition::Any,
                    });
                }
            }
            Stage::Stamping if self.puts.is_idle() => self.stage = Stage::Sizing,
            Stage::Copying if self.loader.is_idle() && !self.packer.has_full() => {
                match self.weak.pop_front() {
                    Some(pack) => self.ask_for_whole(pack),
                    None => {
                        self.stage = Stage::Flushing;
                        self.rewrite();
                    }
                }
            }
            Stage::Flushing if self.puts.is_idle() && !self.packer.has_full() => {
                self.at = 0;
                self.seal();
            }
            Stage::Sealing => self.store_same_head(),
            Stage::Sparing if self.loader.is_idle() => self.stage = Stage::Listing2,
            Stage::Rechecking if self.asking.is_none() => self.check_once_more(),
            Stage::Deleting => self.delete(),
            _ => return false,
        }

        true
    }

    fn fail(&mut self, error: GcError) {
        self.end(GcStep::Failed(error));
    }

    fn end(&mut self, step: GcStep) {
        self.stage = Stage::Ended;
        self.asking = None;
        self.loader.clear();
        self.steps.push_back(step);
    }
}

impl TreeHead {
    /// Returns whether the head has to name other records.
    fn changes(&self) -> bool {
        let moved = |rewritten: &Rewritten| matches!(rewritten, Rewritten::Again(..));
        !self.dropped.is_empty() || self.rewritten.iter().any(moved)
    }

    fn of(tree: TreeName) -> Self {
        Self {
            tree,
            object: Vec::new(),
            etag: None,
            head: None,
            kept: Vec::new(),
            dropped: Vec::new(),
            rewritten: Vec::new(),
        }
    }
}
