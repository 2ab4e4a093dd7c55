//! The machine that publishes a release, without I/O.
//!
//! Contract: call [`Publish::poll`] until it returns [`PublishStep::Wait`], then wait for a reply
//! or for the time in the step. A step may ask the caller to do something; the machine goes on
//! after that.
//!
//! | step | the caller |
//! |---|---|
//! | `Get`, `Put` | carries out the request and passes every reply to the machine |
//! | `Head` | verifies the head, or calls [`Publish::refuse`]; unless [`Publish::is_followed`], |
//! | | signs a later release and calls [`Publish::begin`] |
//! | `Note` | tells it to people |
//! | `Newest` | after [`Publish::look`] instead: calls `begin` or [`Publish::renew`] |
//! | `Walk` | calls [`Publish::walk`] with the nodes of the new manifest |
//! | `Read` | reads the block and calls [`Publish::block`] |
//! | `Seal` | signs the bytes of [`Publish::head_to_sign`] and calls [`Publish::signed`] |
//! | `Done`, `Failed` | is done; nothing further comes |
//!
//! **Order.** Marker, packs, head: a reader sees the old release or the new one, whenever a
//! publisher dies. The packs that it leaves behind are stored again under the same names, or gc
//! deletes them. `Head` comes again if somebody else published meanwhile; packs that are stored
//! already are used then. `renew`, also without a look, only signs the head again.
//! [`Publish::restore`] publishes the content of an earlier release again.
//!
//! **Requests.** For a small change: the head, the top of the release before, the page that
//! changed, a pack, the head. A store without conditions takes two more. Only a second look at the
//! head shows whether somebody published meanwhile, and it has to come after the packs. A third one
//! shows whether somebody else stored a head at the same time. What is left is a publisher that
//! stores its head and looks at it, all between the second look and the put of this one.
//!
//! **Memory.** One pack under construction, two under way, and the place of each new block.

mod begin;
mod compare;
mod copies;
mod earlier;
mod head;
mod layout;
mod new_nodes;
mod state;
mod step;
mod stock;
mod survey;

pub use step::{PublishError, PublishNote, PublishSetup, PublishStep, Published, Upload};

use std::collections::VecDeque;

use self::compare::ReleaseComparison;
use self::layout::PackLayout;
use self::state::{Base, PublishStage, SealedHead};
use self::stock::Stock;
use super::attempt::{Dice, RequestId, Rereads, SmallGet};
use super::head::head_object;
use super::marker::marker_object;
use super::object::{GetReply, ObjectPath, PutReply};
use super::pack::{PACK_BYTES, PiecePacker};
use super::packer::{PackedRecord, Packer, SignedRelease};
use super::puts::Puts;
use crate::manifest::read::{NodeSource, ReadError};
use crate::units::Moment;

/// Publishes one release.
#[derive(Debug)]
pub struct Publish {
    setup: PublishSetup,
    dice: Dice,
    stage: PublishStage,
    asking: Option<(ObjectPath, SmallGet)>,
    puts: Puts,
    base: Base,
    new: Option<SignedRelease>,
    comparison: Option<ReleaseComparison>,
    layout: PackLayout,
    stock: Stock,
    packer: Packer,
    pieces: PiecePacker,
    record: Option<PackedRecord>,
    sealed: SealedHead,
    /// False once the store has said that it cannot check conditions.
    has_conditions: bool,
    rereads: Rereads,
    /// Set while the caller has been asked for something.
    asked: bool,
    steps: VecDeque<PublishStep>,
    result: Published,
}

impl Publish {
    /// Begins with the head.
    pub fn new(setup: PublishSetup) -> Self {
        let head = super::pull::head_request(&setup.tree, None);

        Self {
            dice: Dice::new(setup.seed),
            stage: PublishStage::Opening,
            asking: Some((head.object.clone(), SmallGet::new(head))),
            puts: Puts::default(),
            base: Base::default(),
            new: None,
            comparison: None,
            layout: PackLayout::default(),
            stock: Stock::default(),
            packer: Packer::new(PACK_BYTES),
            pieces: PiecePacker::default(),
            record: None,
            sealed: SealedHead::default(),
            has_conditions: true,
            rereads: Rereads::default(),
            asked: false,
            steps: VecDeque::new(),
            result: Published::default(),
            setup,
        }
    }

    /// Goes on with the nodes of the new manifest. An error is the source's: the publication
    /// cannot go on.
    pub fn walk<S: NodeSource>(&mut self, source: &S) -> Result<(), ReadError> {
        self.asked = false;
        match self.stage {
            PublishStage::Comparing => self.compare(source),
            PublishStage::Packing => self.pack(source),
            _ => Ok(()),
        }
    }

    /// Returns the next step.
    pub fn poll(&mut self, now: Moment) -> PublishStep {
        loop {
            if let Some(step) = self.steps.pop_front() {
                return step;
            }
            if self.stage == PublishStage::Ended {
                return PublishStep::Wait(None);
            }
            if let Some(step) = self.request(now) {
                return step;
            }
            if self.asked {
                return PublishStep::Wait(self.timeout());
            }

            match self.next_step() {
                Some(step) => {
                    self.asked = true;
                    return step;
                }
                None if self.advance() => {}
                None => return PublishStep::Wait(self.timeout()),
            }
        }
    }

    /// What the publication stores, once that is known.
    pub fn upload(&self) -> Option<Upload> {
        let total = match self.stage {
            PublishStage::Packing => self.layout.total,
            PublishStage::Flushing | PublishStage::Sealing | PublishStage::Committing => {
                self.layout.packed
            }
            _ => return None,
        };
        Some(Upload {
            total,
            packed: self.layout.packed.min(total),
            stored: self.result.stored + self.packer.waiting(),
        })
    }

    /// Takes a reply to a [`PublishStep::Get`].
    pub fn reply(&mut self, id: RequestId, reply: GetReply, now: Moment) {
        let dice = &mut self.dice;
        if let Some((object, get)) = &mut self.asking {
            if let Some(got) = get.reply(id, &reply, now, dice) {
                let is_marker = *object == marker_object();
                self.asking = None;
                if is_marker {
                    self.take_marker(got);
                } else {
                    self.take_head(got, now);
                }
            }
            return;
        }

        let Some(comparison) = &mut self.comparison else {
            return;
        };
        if let Err(fault) = comparison.reply(id, reply, now, dice) {
            self.fail(PublishError::Store(fault));
        }
    }

    /// Takes the reply to a [`PublishStep::Put`].
    pub fn stored(&mut self, id: RequestId, reply: PutReply, now: Moment) {
        let Some((object, reply)) = self.puts.reply(id, reply, now, &mut self.dice) else {
            return;
        };

        let is_head = object == head_object(&self.setup.tree);
        match reply {
            PutReply::Failed(fault) => self.fail(PublishError::Store(fault)),
            PutReply::Done { .. } if is_head && !self.has_conditions => {
                self.check_again(PublishStage::Confirming);
            }
            PutReply::Done { .. } if is_head => self.end(PublishStep::Done(self.result)),
            PutReply::Conflict if is_head => self.check_again(PublishStage::Checking),
            PutReply::NoConditions if is_head => {
                self.has_conditions = false;
                self.check_again(PublishStage::Checking);
            }
            // Another publisher stored the same object.
            PutReply::Done { .. } | PutReply::Conflict | PutReply::NoConditions => {}
        }
    }

    fn request(&mut self, now: Moment) -> Option<PublishStep> {
        let dice = &mut self.dice;
        if let Some((_, get)) = &mut self.asking {
            return get
                .poll(now, dice)
                .map(|(id, get)| PublishStep::Get(id, get));
        }

        while !self.puts.is_full()
            && let Some(put) = self.packer.next_full()
        {
            self.result.packs += 1;
            self.result.stored += put.bytes.len() as u64;
            self.puts.push(put);
        }

        if let Some((id, put)) = self.puts.poll(now, dice) {
            return Some(PublishStep::Put(id, put));
        }
        let comparison = self.comparison.as_mut()?;
        comparison
            .poll(now, dice)
            .map(|(id, get)| PublishStep::Get(id, get))
    }

    fn timeout(&self) -> Option<Moment> {
        let asking = self.asking.as_ref().and_then(|(_, get)| get.timeout());
        let comparison = self
            .comparison
            .as_ref()
            .and_then(ReleaseComparison::timeout);
        asking
            .into_iter()
            .chain(self.puts.timeout())
            .chain(comparison)
            .min()
    }

    /// Returns what the caller has to do now.
    fn next_step(&mut self) -> Option<PublishStep> {
        match self.stage {
            PublishStage::Looking => {
                let comparison = self.comparison.as_mut()?;
                let done = comparison.is_idle();
                // A head may name the release of another tree.
                let newest = done.then(|| comparison.newest())?;
                let own = newest.filter(|record| record.check_tree(&self.setup.tree).is_ok());
                Some(PublishStep::Newest(own))
            }
            PublishStage::Comparing => {
                let idle = self
                    .comparison
                    .as_ref()
                    .is_none_or(ReleaseComparison::is_idle);
                idle.then_some(PublishStep::Walk)
            }
            PublishStage::Packing if self.packer.has_full() => None,
            PublishStage::Packing => Some(match self.layout.next_read(&self.stock) {
                Some((ordinal, block)) => PublishStep::Read(ordinal, block),
                None => PublishStep::Walk,
            }),
            PublishStage::Flushing if self.puts.is_idle() && !self.packer.has_full() => {
                self.stage = PublishStage::Sealing;
                Some(PublishStep::Seal)
            }
            _ => None,
        }
    }

    /// Uses what came; returns whether something changed.
    fn advance(&mut self) -> bool {
        let Some(comparison) = &mut self.comparison else {
            return false;
        };
        let advanced = comparison.advance(&mut self.stock, &mut self.packer.packs);
        let notes = comparison.take_notes();
        self.base.damaged = comparison.damaged().to_vec();
        self.steps.extend(notes.into_iter().map(PublishStep::Note));
        advanced.unwrap_or_else(|fault| {
            self.fail(PublishError::Store(fault));
            true
        })
    }

    fn fail(&mut self, error: PublishError) {
        self.end(PublishStep::Failed(error));
    }

    fn end(&mut self, step: PublishStep) {
        self.stage = PublishStage::Ended;
        self.asking = None;
        self.comparison = None;
        self.steps.push_back(step);
    }
}
