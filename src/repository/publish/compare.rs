//! The comparison of a new release with earlier ones: which nodes and blocks the repository has.
//!
//! A node that both manifests have is not read. The nodes that only the earlier one has are read
//! with their places: the blocks of a page that changed are in its earlier version. A block that
//! moved from another page is found as well, because that page changed too.

use std::collections::{HashMap, HashSet, VecDeque};

use super::step::PublishNote;
use super::stock::Stock;
use super::survey::PackSurvey;
use crate::block::frame::Expander;
use crate::block::{BlockHash, BlockRef};
use crate::manifest::Node;
use crate::repository::attempt::{Dice, RequestId};
use crate::repository::head::HeadRelease;
use crate::repository::loader::{Loaded, Loader};
use crate::repository::object::{Get, GetReply, StoreFault};
use crate::repository::pack::{Extent, PackName, PackTable, unpack};
use crate::repository::places::{PackedNode, Places, PlacesRef, StoredNode};
use crate::repository::record::ReleaseRecord;
use crate::repository::slots::NodeAt;
use crate::units::Moment;

/// Use of a piece under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum OldPiece {
    /// A record, with the top of the manifest.
    Top(HeadRelease),
    Node(BlockRef),
    Places(PlacesRef),
}

/// Compares with one earlier release after another.
#[derive(Debug)]
pub(super) struct ReleaseComparison {
    pub(super) loader: Loader<OldPiece>,
    /// Comes first.
    pub(super) survey: PackSurvey,
    expander: Expander,
    /// Releases to compare with, the newest first.
    pub(super) earlier: VecDeque<HeadRelease>,
    /// The newest release, if it was read ahead: its root, and its record for the caller.
    pub(super) newest: Option<(NodeAt, StoredNode)>,
    record: Option<Box<ReleaseRecord>>,
    /// Whether the newest release is read ahead after the survey.
    looks: bool,
    /// Whether the manifests are compared; the newest release may be read before.
    pub(super) is_begun: bool,
    /// Nodes of the new manifest.
    pub(super) new: HashSet<BlockHash>,
    /// Nodes of the earlier release that have to be looked at.
    pub(super) open: Vec<(NodeAt, StoredNode)>,
    pub(super) nodes: HashMap<BlockHash, Node>,
    pub(super) pages: HashMap<PlacesRef, Places>,
    /// Nodes whose blocks are in stock: a manifest may name one many times.
    seen: HashSet<(BlockHash, PlacesRef)>,
    /// Nodes of both manifests that are looked at nevertheless.
    pub(super) shared: HashSet<BlockHash>,
    pub(super) seeks_copies: bool,
    notes: Vec<PublishNote>,
}

impl ReleaseComparison {
    /// Compares with these releases; looks first whether they are whole if `repairs` is set.
    pub(super) fn new(kept: &[HeadRelease], repairs: bool) -> Self {
        Self {
            loader: Loader::new(),
            survey: match repairs {
                true => PackSurvey::new(kept),
                false => PackSurvey::none(),
            },
            expander: Expander::default(),
            earlier: kept.iter().copied().collect(),
            newest: None,
            record: None,
            looks: false,
            is_begun: false,
            new: HashSet::new(),
            open: Vec::new(),
            nodes: HashMap::new(),
            pages: HashMap::new(),
            seen: HashSet::new(),
            shared: HashSet::new(),
            seeks_copies: true,
            notes: Vec::new(),
        }
    }

    /// Reads the newest earlier release before the comparison begins, unless a survey finds that
    /// something has to be stored again.
    pub(super) fn look_at_newest(&mut self) {
        if !self.survey.is_over() {
            self.looks = true;
        } else if let Some(kept) = self.earlier.pop_front() {
            self.loader.ask(kept.top_window(), OldPiece::Top(kept));
        }
    }

    /// The record of the newest release, if it could be read.
    pub(super) fn newest(&mut self) -> Option<Box<ReleaseRecord>> {
        self.record.take()
    }

    /// Returns whether all pieces that were asked for have been used.
    pub(super) fn is_idle(&self) -> bool {
        self.survey.is_over() && self.loader.is_idle() && self.open.is_empty()
    }

    /// What people want to know, once.
    pub(super) fn take_notes(&mut self) -> Vec<PublishNote> {
        std::mem::take(&mut self.notes)
    }

    /// Releases that a survey found damaged.
    pub(super) fn damaged(&self) -> &[HeadRelease] {
        self.survey.damaged()
    }

    pub(super) fn poll(&mut self, now: Moment, dice: &mut Dice) -> Option<(RequestId, Get)> {
        match self.survey.is_over() {
            true => self.loader.poll(now, dice),
            false => self.survey.poll(now, dice),
        }
    }

    pub(super) fn timeout(&self) -> Option<Moment> {
        match self.survey.is_over() {
            true => self.loader.timeout(),
            false => self.survey.timeout(),
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
        if !self.survey.is_over() {
            return self.survey.reply(id, reply, now, dice);
        }
        self.loader.reply(id, reply, now, dice);
        Ok(())
    }

    /// Uses the next piece that came; returns false if there is none. An error is a store that
    /// does not answer as it should.
    pub(super) fn advance(
        &mut self,
        stock: &mut Stock,
        packs: &mut PackTable,
    ) -> Result<bool, StoreFault> {
        if !self.survey.is_over() {
            let went_on = self.survey.advance()?;
            if self.survey.is_over() {
                self.end_survey();
            }
            return Ok(went_on);
        }

        let Some(loaded) = self.loader.next() else {
            // The end of an answer may come after its last piece.
            let is_due = self.loader.is_idle() && !self.open.is_empty();
            if is_due {
                self.look(stock, packs);
            }
            return Ok(is_due);
        };

        match loaded {
            Loaded::Failed(fault) => return Err(fault),
            Loaded::Missing(pack, ..) => self.give_up(stock, PublishNote::Missing(pack)),
            Loaded::Piece(extent, purpose, stored) => {
                if !self.take(extent, purpose, stored) && !self.loader.reject(extent, purpose) {
                    self.give_up(stock, PublishNote::Damaged(extent.pack));
                }
            }
        }
        if self.loader.is_idle() {
            self.look(stock, packs);
        }
        Ok(true)
    }

    /// Begins the comparison with what the survey found whole.
    fn end_survey(&mut self) {
        self.notes.extend(self.survey.take_notes());
        let survey = &self.survey;
        self.earlier.retain(|kept| !survey.has_lost(&kept.pack));
        if self.looks && !survey.has_losses() {
            self.look_at_newest();
        }
    }

    /// Forgets all earlier releases: what cannot be read is stored again.
    fn give_up(&mut self, stock: &mut Stock, note: PublishNote) {
        self.notes.push(note);
        self.loader.clear();
        self.earlier.clear();
        self.newest = None;
        self.open.clear();
        stock.keep_own();
    }

    /// Uses a piece; returns false if its bytes are wrong.
    fn take(&mut self, extent: Extent, purpose: OldPiece, stored: Vec<u8>) -> bool {
        match purpose {
            OldPiece::Top(kept) => {
                let bytes = &stored[(kept.top as usize).min(stored.len())..];
                let Ok(record) = ReleaseRecord::decode(bytes, kept.pack, &kept.hash) else {
                    return false;
                };
                let root = NodeAt::root(&record.release.header().root);
                if self.is_begun {
                    self.open.push((root, record.root));
                } else {
                    self.newest = Some((root, record.root));
                    self.record = Some(Box::new(record));
                }
                self.loader.open_window(extent, stored);
            }
            OldPiece::Node(block) => {
                let plain = unpack(&mut self.expander, stored, &block);
                let Some(node) = plain.and_then(|plain| Node::decode(&plain).ok()) else {
                    return false;
                };
                self.nodes.insert(block.hash, node);
            }
            OldPiece::Places(reference) => {
                let Some(places) = reference.open(&stored) else {
                    return false;
                };
                self.pages.insert(reference, places);
            }
        }

        true
    }

    /// Looks at the open nodes whose pieces came, and asks for the pieces of the others.
    pub(super) fn look(&mut self, stock: &mut Stock, packs: &mut PackTable) {
        let mut later = Vec::new();
        while let Some((at, stored)) = self.open.pop() {
            let block = at.child.block();
            if self.new.contains(&block.hash) && self.survey.is_sound(&stored) {
                let known = PackedNode::of(&stored, packs);
                stock.nodes.entry(block.hash).or_insert(known);
                if !self.shared.contains(&block.hash) {
                    continue;
                }
            }

            let name = (block.hash, stored.places);
            let is_lost = |pack: &PackName| self.survey.has_lost(pack);
            match (self.nodes.get(&block.hash), self.pages.get(&stored.places)) {
                _ if self.seen.contains(&name) => {}
                (None, _) if is_lost(&stored.node.pack) => {}
                _ if is_lost(&stored.places.extent.pack) => {}
                (Some(node), Some(places)) => {
                    self.seen.insert(name);
                    let slots = at.slots(node);
                    // A publisher that made an error: nothing beneath is used.
                    if at.child.check(node).is_err() || !slots.fit(places) {
                        continue;
                    }
                    let stored = slots.blocks.iter().zip(places.blocks());
                    for ((_, block), extent) in stored.filter(|(_, at)| !is_lost(&at.pack)) {
                        let piece = packs.piece(&extent);
                        stock.blocks.entry(block.hash).or_insert(piece);
                    }
                    self.open.extend(slots.stored(places));
                }
                (node, places) => {
                    if node.is_none() {
                        self.loader.ask(stored.node, OldPiece::Node(block));
                    }
                    if places.is_none() {
                        let purpose = OldPiece::Places(stored.places);
                        self.loader.ask(stored.places.extent, purpose);
                    }
                    later.push((at, stored));
                }
            }
        }

        self.open = later;
    }
}
