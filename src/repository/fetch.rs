//! Fetches extents of packs: few large ranges, several at a time, each resumed at the byte where it
//! was cut.
//!
//! Knows nothing of the content: the user of a piece verifies it, and asks for wrong bytes again.

mod part;

use std::collections::{BTreeSet, HashMap, VecDeque};

use self::part::{Part, bytes_of, extents};
use super::attempt::{Attempts, Dice, RequestId};
use super::object::{FaultKind, Get, GetReply, StoreFault};
use super::pack::{Extent, PackName};
use crate::units::Moment;

/// Extents that are closer than this many bytes are read with one request.
pub const GAP_BYTES: u32 = 256 << 10;
/// Bytes of one request, up to the rest of its last piece.
pub const PART_BYTES: u32 = 8 << 20;
/// Largest number of requests at a time.
pub const MAX_PARTS: usize = 4;
/// Bytes under way up to which another request begins. The requests end one after another then,
/// and a far store is never idle.
const BYTES_UNDER_WAY: u32 = 2 * PART_BYTES;
/// Times that wrong bytes are asked for again.
const MAX_REJECTIONS: u8 = 5;

/// Progress of a fetcher.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fetched {
    /// An extent, with bytes that nobody has verified.
    Piece(Extent, Vec<u8>),
    /// The pack is not there any more, and these extents of it will not come. It was asked for
    /// before the last [`Fetcher::clear`] if the last field is true.
    Missing(PackName, Vec<Extent>, bool),
    /// The store does not answer as it should.
    Failed(StoreFault),
}

/// Fetches extents.
#[derive(Debug, Default)]
pub(super) struct Fetcher {
    /// Packs with wanted extents, in the order in which they are read.
    order: VecDeque<PackName>,
    /// Offset and length of the wanted extents of each pack.
    wanted: HashMap<PackName, BTreeSet<(u32, u32)>>,
    /// Bytes of the wanted extents.
    wanted_bytes: u64,
    parts: Vec<Part>,
    /// Set while no further request begins.
    held: bool,
    rejected: HashMap<Extent, u8>,
    /// Number of calls of [`Fetcher::clear`].
    clears: u32,
    done: VecDeque<Fetched>,
}

impl Fetcher {
    /// Wants an extent; extents that follow each other should be wanted before the next poll.
    pub(super) fn want(&mut self, extent: Extent) {
        let wanted = self.wanted.entry(extent.pack).or_default();
        if wanted.is_empty() && !self.order.contains(&extent.pack) {
            self.order.push_back(extent.pack);
        }
        if wanted.insert((extent.offset, extent.len)) {
            self.wanted_bytes += u64::from(extent.len);
        }
    }

    /// Wants an extent again whose bytes were wrong; returns false if they were too often.
    pub(super) fn reject(&mut self, extent: Extent) -> bool {
        let times = self.rejected.entry(extent).or_default();
        *times += 1;
        if *times > MAX_REJECTIONS {
            return false;
        }

        self.want(extent);
        true
    }

    /// Returns whether nothing is wanted or under way.
    pub(super) fn is_idle(&self) -> bool {
        self.parts.is_empty() && self.order.is_empty() && self.done.is_empty()
    }

    /// Begins no further request while `held`; those under way go on.
    pub(super) fn hold(&mut self, held: bool) {
        self.held = held;
    }

    /// Bytes that are wanted or under way.
    pub(super) fn missing_bytes(&self) -> u64 {
        self.wanted_bytes + self.bytes_under_way()
    }

    /// Bytes that came and were not handed out.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        let piece = |fetched: &Fetched| match fetched {
            Fetched::Piece(_, bytes) => bytes.capacity(),
            Fetched::Missing(..) | Fetched::Failed(_) => 0,
        };
        let open = self.parts.iter().map(|part| part.open.capacity());
        open.chain(self.done.iter().map(piece)).sum()
    }

    /// Extents that a request is under way for, or that came and were not handed out.
    pub(super) fn under_way(&self) -> impl Iterator<Item = Extent> {
        let parts = self.parts.iter();
        let coming = parts.flat_map(|part| extents(part.pack, part.pieces.iter().copied()));
        coming.chain(self.done.iter().filter_map(|fetched| match fetched {
            Fetched::Piece(extent, _) => Some(*extent),
            Fetched::Missing(..) | Fetched::Failed(_) => None,
        }))
    }

    fn bytes_under_way(&self) -> u64 {
        let left = |part: &Part| match part.pieces.is_empty() {
            true => 0,
            false => u64::from(part.end.saturating_sub(part.at)),
        };
        self.parts.iter().map(left).sum()
    }

    /// Forgets what is not under way and returns it.
    pub(super) fn clear(&mut self) -> Vec<Extent> {
        let wanted = std::mem::take(&mut self.wanted);
        let mut left: Vec<Extent> = wanted.into_iter().flat_map(|w| extents(w.0, w.1)).collect();
        self.order.clear();
        self.wanted_bytes = 0;
        self.clears += 1;

        let (under_way, waiting) = std::mem::take(&mut self.parts)
            .into_iter()
            .partition(|part: &Part| part.id.is_some());
        self.parts = under_way;
        left.extend(waiting.into_iter().flat_map(Part::extents));
        left
    }

    /// Returns the next request.
    pub(super) fn poll(&mut self, now: Moment, dice: &mut Dice) -> Option<(RequestId, Get)> {
        let waits = |part: &Part| part.id.is_none() && part.attempts.not_before() <= now;
        let at = match self.parts.iter().position(waits) {
            Some(at) => at,
            None if self.may_begin() => {
                let part = self.next_part()?;
                self.parts.push(part);
                self.parts.len() - 1
            }
            None => return None,
        };

        let part = &mut self.parts[at];
        let id = dice.id();
        part.id = Some(id);
        Some((id, part.get()))
    }

    fn may_begin(&self) -> bool {
        self.parts.len() < MAX_PARTS
            && !self.held
            && self.bytes_under_way() <= u64::from(BYTES_UNDER_WAY)
    }

    /// Time of the next request after a failure.
    pub(super) fn timeout(&self) -> Option<Moment> {
        let waiting = self.parts.iter().filter(|part| part.id.is_none());
        waiting.map(|part| part.attempts.not_before()).min()
    }

    /// Takes a reply; replies to requests of others are ignored.
    pub(super) fn reply(&mut self, id: RequestId, reply: GetReply, now: Moment, dice: &mut Dice) {
        let Some(at) = self.parts.iter().position(|part| part.id == Some(id)) else {
            return;
        };
        let part = &mut self.parts[at];

        let fault = match reply {
            GetReply::Bytes(bytes) => return part.take(&bytes, &mut self.done),
            _ if part.pieces.is_empty() => return drop(self.parts.swap_remove(at)),
            GetReply::Missing
            | GetReply::Failed(StoreFault {
                kind: FaultKind::TooShort,
                ..
            }) => {
                let mut part = self.parts.swap_remove(at);
                let is_old = part.clears != self.clears;
                return self.lose(part.abandon(), is_old);
            }
            GetReply::End { .. } => {
                let text = format!("the store cut its answer for {}", part.pack.object());
                StoreFault::new(FaultKind::Temporary, &text)
            }
            GetReply::NotModified => {
                let object = part.pack.object();
                let text = format!("the store answers a request for {object} without a body");
                StoreFault::new(FaultKind::Temporary, &text)
            }
            GetReply::Failed(fault) => fault,
        };

        part.id = None;
        if !part.attempts.fail(&fault, now, dice) {
            self.parts.swap_remove(at);
            self.done.push_back(Fetched::Failed(fault));
        }
    }

    /// Returns the next piece of progress.
    pub(super) fn next(&mut self) -> Option<Fetched> {
        self.done.pop_front()
    }

    /// Forgets the pack and tells which extents of it will not come. Its requests under way end
    /// without an effect.
    fn lose(&mut self, (pack, mut lost): (PackName, Vec<Extent>), is_old: bool) {
        self.order.retain(|other| *other != pack);
        let wanted = self.wanted.remove(&pack).unwrap_or_default();
        self.wanted_bytes -= bytes_of(&wanted);
        lost.extend(extents(pack, wanted));
        for part in self.parts.iter_mut().filter(|part| part.pack == pack) {
            lost.extend(part.abandon().1);
        }

        self.parts
            .retain(|part| part.pack != pack || part.id.is_some());
        self.done.push_back(Fetched::Missing(pack, lost, is_old));
    }

    /// Takes the next extents out of the wanted ones: neighbours, about [`PART_BYTES`].
    fn next_part(&mut self) -> Option<Part> {
        let pack = *self.order.front()?;
        let wanted = self.wanted.get_mut(&pack)?;
        let pieces = first_run(wanted);
        for piece in &pieces {
            wanted.remove(piece);
        }
        self.wanted_bytes -= bytes_of(&pieces);

        if wanted.is_empty() {
            self.wanted.remove(&pack);
            self.order.pop_front();
        }

        let (first, last) = (pieces.front()?, pieces.back()?);
        Some(Part {
            id: None,
            pack,
            at: first.0,
            end: last.0 + last.1,
            pieces,
            open: Vec::new(),
            attempts: Attempts::default(),
            clears: self.clears,
        })
    }
}

/// The first neighbours among `wanted`. A long run is cut into equal requests: the remainder of a
/// pack would otherwise be a request of its own.
fn first_run(wanted: &BTreeSet<(u32, u32)>) -> VecDeque<(u32, u32)> {
    let mut run: VecDeque<(u32, u32)> = VecDeque::new();
    for (offset, len) in wanted {
        match run.back() {
            // It overlaps, and is read with a later request.
            Some((last, len)) if last + len > *offset => continue,
            Some((last, len)) if last + len + GAP_BYTES < *offset => break,
            _ => run.push_back((*offset, *len)),
        }
    }

    let (Some(first), Some(last)) = (run.front(), run.back()) else {
        return run;
    };
    let (start, all) = (first.0, last.0 + last.1 - first.0);
    let share = all.div_ceil(all.div_ceil(PART_BYTES));

    let ends_share = |(offset, len): &(u32, u32)| offset + len - start >= share;
    let count = run
        .iter()
        .position(ends_share)
        .map_or(run.len(), |at| at + 1);
    run.truncate(count);
    run
}

#[cfg(test)]
mod tests;
