//! The machine that deletes what no release refers to, without I/O.
//!
//! Contract: call [`Gc::poll`] until it returns [`GcStep::Wait`], then wait for a reply or for the
//! time in the step.
//!
//! | step | the caller |
//! |---|---|
//! | `ListHeads` | lists `trees/` and calls [`Gc::heads`] |
//! | `Get`, `Put` | carries out the request and passes every reply to the machine |
//! | `Head` | verifies the head and calls [`Gc::head`]; without a verified head, gc must end |
//! | `ListPacks` | lists `packs/` and calls [`Gc::packs`] |
//! | `Seal` | signs the bytes of [`Gc::head_to_sign`] and calls [`Gc::signed`] |
//! | `Delete` | deletes the objects and polls again |
//! | `Done`, `Failed` | is done; nothing further comes |
//!
//! A pack without live bytes is deleted when it is older than the grace time, because a publisher
//! may be about to refer to it. With a key, gc also drops releases beyond a number to keep, and
//! moves the live pieces of packs that are mostly dead, or small, to new packs. The new head is
//! stored before anything is deleted. A pull that misses a pack then reads the head again and
//! goes on, see [`super::pull`]. A publisher notices by the condition of its own head.
//!
//! Without a key, gc trusts the store to answer with the present heads: there must be no cache in
//! between.

mod heads;
mod live;
mod marking;
mod rewrite;
mod step;

pub use step::{GcError, GcReport, GcRewrite, GcSetup, GcStep};

use std::collections::{HashMap, VecDeque};

use self::live::Live;
use self::rewrite::{Moved, Rewritten};
use super::attempt::{Dice, RequestId, Rereads, SmallGet};
use super::head::{Head, KeptRelease, MAX_KEPT, VerifiedHead, tree_of_head};
use super::loader::Loader;
use super::object::{Etag, GetReply, ListedObject, ObjectPath, PutReply};
use super::pack::{PACK_BYTES, PackName};
use super::packer::Packer;
use super::places::{Places, PlacesRef};
use super::puts::Puts;
use super::record::ReleaseRecord;
use crate::id::TreeName;
use crate::units::{Moment, WallTime};

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
    Sizing,
    Copying,
    Flushing,
    Sealing,
    Committing,
    Listing2,
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
    /// The releases that stay.
    kept: Vec<KeptRelease>,
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
    sizes: HashMap<PackName, u64>,
    weak: VecDeque<PackName>,
    moved: Moved,
    packer: Packer,
    puts: Puts,
    /// Position of the tree whose head is replaced.
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

    /// Takes the list of the objects below `trees/`.
    pub fn heads(&mut self, listed: impl IntoIterator<Item = ListedObject>) {
        self.asked = false;
        let trees = listed.into_iter().filter_map(|l| tree_of_head(&l.object));
        self.reading = trees.collect();
        self.stage = Stage::Reading;
    }

    /// Takes the head of the last [`GcStep::Head`], which the caller has verified.
    pub fn head(&mut self, head: &VerifiedHead) {
        self.asked = false;
        if let Some(last) = self.trees.last_mut() {
            let keep = self.setup.rewrites.map_or(MAX_KEPT, |r| r.keep.max(1));
            last.kept = head.head().kept.iter().copied().take(keep).collect();
            last.head = Some(head.head().clone());
        }
    }

    /// Takes the list of the objects below `packs/`; `now` is the time by the store's clock.
    pub fn packs(&mut self, listed: impl IntoIterator<Item = ListedObject>, now: WallTime) {
        self.asked = false;
        let packs: Vec<(PackName, ListedObject)> = listed
            .into_iter()
            .filter_map(|object| Some((PackName::of_object(&object.object)?, object)))
            .collect();

        if self.stage == Stage::Sizing {
            self.sizes = packs.iter().map(|(pack, l)| (*pack, l.size)).collect();
            self.report.before = self.sizes.values().sum();
            self.report.live = self.live.all_bytes();
            if let Some(pack) = self.live.missing(&self.sizes) {
                return self.fail(GcError::Missing(pack));
            }
            if self.setup.rewrites.is_some() {
                return self.begin_rewrite();
            }
        }
        self.delete(&packs, now);
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

    /// Takes a reply to a [`GcStep::Get`].
    pub fn reply(&mut self, id: RequestId, reply: GetReply, now: Moment) {
        let Some(get) = &mut self.asking else {
            return self.loader.reply(id, reply, now, &mut self.dice);
        };

        if let Some(got) = get.reply(id, &reply, now, &mut self.dice) {
            self.asking = None;
            match self.stage {
                Stage::Committing => self.take_again(got, now),
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
            Stage::Listing => Some(GcStep::ListHeads),
            Stage::Sizing | Stage::Listing2 => Some(GcStep::ListPacks),
            Stage::Sealing => {
                let tree = self.trees.get(self.at)?;
                self.stage = Stage::Committing;
                Some(GcStep::Seal(tree.tree.clone()))
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
                self.stage = Stage::Sizing;
            }
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
            Stage::Deleting => self.end(GcStep::Done(self.report)),
            _ => return false,
        }

        true
    }

    /// Deletes packs without live bytes, and those whose live bytes moved.
    fn delete(&mut self, packs: &[(PackName, ListedObject)], now: WallTime) {
        let old = |listed: &ListedObject| {
            let age = u64::try_from(now.0.saturating_sub(listed.stored.0));
            age.is_ok_and(|age| age >= self.setup.grace)
        };
        let is_dead = |(pack, listed): &&(PackName, ListedObject)| {
            self.moved.is_weak(pack)
                || !self.live.has(pack) && !self.packer.packs.has(pack) && old(listed)
        };

        let dead: Vec<&(PackName, ListedObject)> = packs.iter().filter(is_dead).collect();
        self.report.deleted = dead.iter().map(|(_, listed)| listed.size).sum();
        let objects: Vec<ObjectPath> = dead.into_iter().map(|(_, l)| l.object.clone()).collect();
        self.stage = Stage::Deleting;
        if !objects.is_empty() {
            self.steps.push_back(GcStep::Delete(objects));
        }
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
    fn of(tree: TreeName) -> Self {
        Self {
            tree,
            object: Vec::new(),
            etag: None,
            head: None,
            kept: Vec::new(),
            rewritten: Vec::new(),
        }
    }
}
