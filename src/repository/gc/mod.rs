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

mod live;
mod rewrite;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use self::live::Live;
use self::rewrite::{Moved, Rewritten};
use super::attempt::{Dice, RequestId, SmallGet, SmallGot};
use super::head::{
    Head, HeadError, KeptRelease, MAX_KEPT, SignedHead, VerifiedHead, head_object, tree_of_head,
};
use super::loader::{Loaded, Loader};
use super::object::{
    Etag, Get, GetReply, ListedObject, ObjectPath, Put, PutCondition, PutReply, StoreFault,
};
use super::pack::{Extent, MAX_PACK_BYTES, PACK_BYTES, PackName};
use super::packer::Packer;
use super::places::{Places, PlacesRef};
use super::puts::Puts;
use super::record::{RecordError, ReleaseRecord};
use crate::block::BlockHash;
use crate::id::TreeName;
use crate::units::{Moment, WallTime};

/// Settings of a gc.
#[derive(Debug, Clone)]
pub struct GcSetup {
    /// Age in seconds below which a pack is not deleted.
    pub grace: u64,
    /// Set if the caller can sign heads.
    pub rewrites: Option<GcRewrite>,
    /// Seed of the jitter between attempts.
    pub seed: u64,
}

/// Settings of a gc that signs heads.
#[derive(Debug, Clone, Copy)]
pub struct GcRewrite {
    /// Number of releases to keep of each tree, at least 1.
    pub keep: usize,
    /// Seconds until a head is stale; `None` is never.
    pub valid_for: Option<u32>,
}

/// Next step of a gc.
#[derive(Debug)]
pub enum GcStep {
    /// The machine needs the paths of all heads.
    ListHeads,
    /// A request to the store.
    Get(RequestId, Get),
    /// A request to the store.
    Put(RequestId, Put),
    /// A head, not verified yet.
    Head(TreeName, SignedHead),
    /// The machine needs the list of all packs.
    ListPacks,
    /// A head needs its signature.
    Seal(TreeName),
    /// Objects to delete.
    Delete(Vec<ObjectPath>),
    /// The end.
    Done(GcReport),
    /// The end; nothing was deleted.
    Failed(GcError),
    /// Nothing until a reply comes, or until this time.
    Wait(Option<Moment>),
}

/// Result of a gc.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GcReport {
    /// Bytes that releases refer to.
    pub live: u64,
    /// Bytes of all packs before.
    pub before: u64,
    /// Packs whose live pieces moved.
    pub rewritten: u64,
    /// Bytes of deleted packs.
    pub deleted: u64,
}

/// Reason for the end of a gc.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GcError {
    /// The store does not answer as it should.
    #[error("the store does not answer: {}", .0.text)]
    Store(StoreFault),
    /// A head is not legal.
    #[error("the head of {0} cannot be used: {1}")]
    Head(TreeName, HeadError),
    /// A record is not legal.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Bytes that are not those that a release refers to.
    #[error("the repository is damaged: wrong bytes in {} at {}", .0.pack.object(), .0.offset)]
    Damaged(Extent),
    /// A pack is missing.
    #[error("{} is missing: the repository is damaged, or changed meanwhile", .0.object())]
    Missing(PackName),
    /// Somebody published meanwhile.
    #[error("somebody published {0} meanwhile: nothing was deleted, run it again")]
    Changed(TreeName),
}

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
            if self.setup.rewrites.is_some() {
                return self.begin_rewrite();
            }
        }
        self.delete(&packs, now);
    }

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
            None => self.check_again(),
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

    /// Takes a reply to a [`GcStep::Get`].
    pub fn reply(&mut self, id: RequestId, reply: GetReply, now: Moment) {
        let Some(get) = &mut self.asking else {
            return self.loader.reply(id, reply, now, &mut self.dice);
        };

        if let Some(got) = get.reply(id, &reply, now, &mut self.dice) {
            self.asking = None;
            match self.stage {
                Stage::Committing => self.take_again(got),
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
            PutReply::Conflict | PutReply::NoConditions if is_head => self.check_again(),
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
                self.skip_unchanged();
            }
            Stage::Deleting => self.end(GcStep::Done(self.report)),
            _ => return false,
        }

        true
    }

    fn begin_marking(&mut self) {
        self.stage = Stage::Marking;
        for kept in self.trees.iter().flat_map(|tree| &tree.kept) {
            self.live.add(kept.record());
            self.loader.ask(kept.record(), Mark::Record(*kept));
        }
    }

    fn begin_rewrite(&mut self) {
        let weak = self.live.weak(&self.sizes);
        self.moved = Moved::new(&weak);
        self.report.rewritten = weak.len() as u64;
        self.weak = weak.into();
        self.stage = Stage::Copying;
    }

    fn ask_for_whole(&mut self, pack: PackName) {
        let size = self.sizes.get(&pack).copied().unwrap_or_default();
        let len = u32::try_from(size).unwrap_or(u32::MAX).min(MAX_PACK_BYTES);
        let whole = Extent {
            pack,
            offset: 0,
            len,
        };
        self.loader.ask(whole, Mark::Whole(pack));
    }

    fn take(&mut self, loaded: Loaded<Mark>) {
        match loaded {
            Loaded::Failed(fault) => self.fail(GcError::Store(fault)),
            Loaded::Missing(pack, ..) => self.fail(GcError::Missing(pack)),
            Loaded::Piece(extent, mark, bytes) => {
                if !self.take_piece(mark, &bytes) && !self.loader.reject(extent, mark) {
                    self.fail(GcError::Damaged(extent));
                }
            }
        }
    }

    /// Uses a piece; returns false if its bytes are wrong.
    fn take_piece(&mut self, mark: Mark, bytes: &[u8]) -> bool {
        match mark {
            Mark::Record(kept) => match ReleaseRecord::decode(bytes, kept.pack, &kept.hash) {
                Err(RecordError::Hash) => return false,
                Err(error) => self.fail(error.into()),
                Ok(record) => {
                    self.live.add(record.root.node);
                    self.mark(record.root.places);
                    self.records.insert(kept, record);
                }
            },
            Mark::Places(reference) => {
                let Some(places) = reference.open(bytes) else {
                    return false;
                };
                places.blocks().for_each(|extent| self.live.add(extent));
                for child in places.children() {
                    self.live.add(child.node);
                    self.mark(child.places);
                }
                self.pages.insert(reference, places);
            }
            Mark::Whole(pack) => {
                if PackName(BlockHash::of(bytes)) != pack {
                    return false;
                }
                let extents = self.live.extents(&pack);
                self.moved.copy(&extents, bytes, &mut self.packer);
            }
        }

        true
    }

    fn mark(&mut self, page: PlacesRef) {
        if !self.pages.contains_key(&page) {
            self.live.add(page.extent);
            self.loader.ask(page.extent, Mark::Places(page));
        }
    }

    fn take_head(&mut self, got: SmallGot) {
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

    fn commit(&mut self, condition: PutCondition) {
        if let Some(tree) = self.trees.get(self.at) {
            self.puts.push(Put {
                object: head_object(&tree.tree),
                bytes: Arc::from(&self.sealed[..]),
                condition,
            });
        }
    }

    /// Reads a head again, because a condition could not be checked or did not hold.
    fn check_again(&mut self) {
        if let Some(tree) = self.trees.get(self.at) {
            let head = super::pull::head_request(&tree.tree, None);
            self.asking = Some(SmallGet::new(head));
        }
    }

    fn take_again(&mut self, got: SmallGot) {
        let Some(tree) = self.trees.get(self.at) else {
            return;
        };

        match got {
            SmallGot::Failed(fault) => self.fail(GcError::Store(fault)),
            SmallGot::Body(bytes, _) if bytes == self.sealed => self.next_tree(),
            SmallGot::Body(bytes, etag) if bytes == tree.object && etag == tree.etag => {
                self.commit(PutCondition::Any);
            }
            _ => {
                let tree = tree.tree.clone();
                self.fail(GcError::Changed(tree));
            }
        }
    }

    fn next_tree(&mut self) {
        self.at += 1;
        self.skip_unchanged();
    }

    /// Goes to the next tree whose head changes, or to the deletion.
    fn skip_unchanged(&mut self) {
        while self.trees.get(self.at).is_some_and(TreeHead::is_unchanged) {
            self.at += 1;
        }
        self.stage = if self.at < self.trees.len() {
            Stage::Sealing
        } else {
            Stage::Listing2
        };
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

    /// Returns whether the head stays as it is.
    fn is_unchanged(&self) -> bool {
        let before = self.head.as_ref().map_or(0, |head| head.kept.len());
        let same = |rewritten: &Rewritten| matches!(rewritten, Rewritten::Same(_));
        self.rewritten.len() == before && self.rewritten.iter().all(same)
    }
}
