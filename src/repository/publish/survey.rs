//! The survey of a repair: reads all packs that the kept releases refer to, and tells which of
//! their pieces can be used.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::step::PublishNote;
use crate::block::BlockHasher;
use crate::manifest::read::MAX_DEPTH;
use crate::repository::attempt::{Dice, RequestId, SmallGet, SmallGot};
use crate::repository::head::HeadRelease;
use crate::repository::loader::{Loaded, Loader};
use crate::repository::object::{FaultKind, Get, GetReply, StoreFault};
use crate::repository::pack::{MAX_PACK_BYTES, PackName};
use crate::repository::places::{Places, PlacesRef, StoredNode};
use crate::repository::record::ReleaseRecord;
use crate::units::Moment;

/// Use of a piece under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Surveyed {
    Record(HeadRelease),
    Places(PlacesRef),
}

/// Looks at everything that releases refer to. Without a survey, everything is taken for sound.
#[derive(Debug)]
pub(super) struct PackSurvey {
    loader: Loader<Surveyed>,
    kept: Vec<HeadRelease>,
    roots: HashMap<HeadRelease, StoredNode>,
    pages: HashMap<PlacesRef, Places>,
    /// Packs that were not hashed yet.
    packs: BTreeSet<PackName>,
    seen: HashSet<PackName>,
    hashing: Option<(PackName, SmallGet<BlockHasher>)>,
    /// Packs that are missing or have other bytes.
    lost: HashSet<PackName>,
    /// Whether everything beneath a places page can be read.
    sound: HashMap<PlacesRef, bool>,
    damaged: Vec<HeadRelease>,
    is_over: bool,
    notes: Vec<PublishNote>,
}

impl PackSurvey {
    /// Takes everything for sound.
    pub(super) fn none() -> Self {
        Self {
            is_over: true,
            ..Self::new(&[])
        }
    }

    /// Looks at what these releases refer to.
    pub(super) fn new(kept: &[HeadRelease]) -> Self {
        let mut survey = Self {
            loader: Loader::new(),
            kept: kept.to_vec(),
            roots: HashMap::new(),
            pages: HashMap::new(),
            packs: BTreeSet::new(),
            seen: HashSet::new(),
            hashing: None,
            lost: HashSet::new(),
            sound: HashMap::new(),
            damaged: Vec::new(),
            is_over: false,
            notes: Vec::new(),
        };

        for kept in kept {
            survey.refer_to(kept.pack);
            let record = Surveyed::Record(*kept);
            survey.loader.ask(kept.record(), record);
        }
        survey
    }

    /// Returns whether everything was looked at.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Returns whether something was found to be missing or damaged.
    pub(super) fn has_losses(&self) -> bool {
        !self.damaged.is_empty()
    }

    /// Releases that cannot be read whole.
    pub(super) fn damaged(&self) -> &[HeadRelease] {
        &self.damaged
    }

    /// What people want to know, once.
    pub(super) fn take_notes(&mut self) -> Vec<PublishNote> {
        std::mem::take(&mut self.notes)
    }

    /// Returns whether the pack is missing or damaged.
    pub(super) fn has_lost(&self, pack: &PackName) -> bool {
        self.lost.contains(pack)
    }

    /// Returns whether a node, and everything beneath it, can be used.
    pub(super) fn is_sound(&self, stored: &StoredNode) -> bool {
        let beneath = self.sound.get(&stored.places);
        !self.has_losses() || !self.has_lost(&stored.node.pack) && beneath == Some(&true)
    }

    pub(super) fn poll(&mut self, now: Moment, dice: &mut Dice) -> Option<(RequestId, Get)> {
        match &mut self.hashing {
            Some((_, get)) => get.poll(now, dice),
            None => self.loader.poll(now, dice),
        }
    }

    pub(super) fn timeout(&self) -> Option<Moment> {
        match &self.hashing {
            Some((_, get)) => get.timeout(),
            None => self.loader.timeout(),
        }
    }

    /// Takes a reply; an error is a store that does not answer as it should.
    pub(super) fn reply(
        &mut self,
        id: RequestId,
        reply: GetReply,
        now: Moment,
        dice: &mut Dice,
    ) -> Result<(), StoreFault> {
        let Some((pack, get)) = &mut self.hashing else {
            self.loader.reply(id, reply, now, dice);
            return Ok(());
        };
        let Some(got) = get.reply(id, &reply, now, dice) else {
            return Ok(());
        };

        let pack = *pack;
        self.hashing = None;
        match got {
            SmallGot::Missing => self.lose(pack, PublishNote::Missing(pack)),
            SmallGot::Failed(fault) if fault.kind != FaultKind::TooLarge => return Err(fault),
            SmallGot::Body(hasher, _) => {
                if hasher.finish() != pack.0 {
                    self.lose(pack, PublishNote::Damaged(pack));
                }
            }
            SmallGot::Failed(_) | SmallGot::NotModified => {
                self.lose(pack, PublishNote::Damaged(pack));
            }
        }
        Ok(())
    }

    /// Uses what came; returns false if there is nothing to do. An error is a store that does not
    /// answer as it should.
    pub(super) fn advance(&mut self) -> Result<bool, StoreFault> {
        if let Some(loaded) = self.loader.next() {
            return self.take(loaded).map(|()| true);
        }
        if self.is_over || self.hashing.is_some() || !self.loader.is_idle() {
            return Ok(false);
        }

        match self.packs.pop_first() {
            Some(pack) if self.has_lost(&pack) => {}
            Some(pack) => {
                let whole = Get {
                    object: pack.object(),
                    range: None,
                    unless: None,
                    max: u64::from(MAX_PACK_BYTES),
                };
                self.hashing = Some((pack, SmallGet::new(whole)));
            }
            None => self.settle(),
        }
        Ok(true)
    }

    fn take(&mut self, loaded: Loaded<Surveyed>) -> Result<(), StoreFault> {
        let (extent, purpose, bytes) = match loaded {
            Loaded::Failed(fault) => return Err(fault),
            Loaded::Missing(pack, ..) => {
                self.lose(pack, PublishNote::Missing(pack));
                return Ok(());
            }
            Loaded::Piece(extent, purpose, bytes) => (extent, purpose, bytes),
        };

        let is_whole = match purpose {
            Surveyed::Record(kept) => {
                let record = ReleaseRecord::decode(&bytes, kept.pack, &kept.hash);
                let is_whole = record.is_ok();
                if let Ok(record) = record {
                    self.roots.insert(kept, record.root);
                    self.visit(&record.root);
                }
                is_whole
            }
            Surveyed::Places(reference) => {
                let places = reference.open(&bytes);
                let is_whole = places.is_some();
                if let Some(places) = places {
                    places
                        .blocks()
                        .for_each(|extent| self.refer_to(extent.pack));
                    places.children().for_each(|child| self.visit(&child));
                    self.pages.insert(reference, places);
                }
                is_whole
            }
        };
        if !is_whole && !self.loader.reject(extent, purpose) {
            self.lose(extent.pack, PublishNote::Damaged(extent.pack));
        }
        Ok(())
    }

    fn visit(&mut self, stored: &StoredNode) {
        self.refer_to(stored.node.pack);
        self.refer_to(stored.places.extent.pack);
        if !self.pages.contains_key(&stored.places) {
            let page = Surveyed::Places(stored.places);
            self.loader.ask(stored.places.extent, page);
        }
    }

    fn refer_to(&mut self, pack: PackName) {
        if self.seen.insert(pack) {
            self.packs.insert(pack);
        }
    }

    fn lose(&mut self, pack: PackName, note: PublishNote) {
        if self.lost.insert(pack) {
            self.notes.push(note);
        }
    }

    /// Finds out what is whole, once all packs are hashed.
    fn settle(&mut self) {
        self.is_over = true;
        for kept in std::mem::take(&mut self.kept) {
            let root = self.roots.get(&kept).copied();
            let is_whole = root.is_some_and(|root| self.look_beneath(&root, 0));
            if !is_whole || self.has_lost(&kept.pack) {
                self.damaged.push(kept);
                self.notes.push(PublishNote::Dropped(kept.serial));
            }
        }
        self.pages.clear();
    }

    fn look_beneath(&mut self, stored: &StoredNode, depth: usize) -> bool {
        let reference = stored.places;
        if !self.sound.contains_key(&reference) {
            let is_sound = depth <= MAX_DEPTH && self.look_at_page(&reference, depth);
            self.sound.insert(reference, is_sound);
        }
        self.sound[&reference] && !self.has_lost(&stored.node.pack)
    }

    fn look_at_page(&mut self, reference: &PlacesRef, depth: usize) -> bool {
        let Some(page) = self.pages.get(reference).cloned() else {
            return false;
        };
        let mut is_sound = !self.has_lost(&reference.extent.pack);
        is_sound &= page.blocks().all(|extent| !self.has_lost(&extent.pack));
        for child in page.children() {
            is_sound &= self.look_beneath(&child, depth + 1);
        }
        is_sound
    }
}
