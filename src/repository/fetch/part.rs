//! A range under way: which bytes of it are wanted, and which byte comes next.

use std::collections::VecDeque;

use super::Fetched;
use crate::repository::attempt::{Attempts, RequestId};
use crate::repository::object::Get;
use crate::repository::pack::{Extent, PackName};

/// A range under way, or waiting for its next attempt.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) id: Option<RequestId>,
    pub(super) pack: PackName,
    /// Next byte to come.
    pub(super) at: u32,
    pub(super) end: u32,
    /// Extents that are not complete, by offset, without overlaps.
    pub(super) pieces: VecDeque<(u32, u32)>,
    /// Bytes of the first of them.
    pub(super) open: Vec<u8>,
    pub(super) attempts: Attempts,
    /// Calls of [`super::Fetcher::clear`] before its first request.
    pub(super) clears: u32,
}

/// Bytes of pieces by offset and length.
pub(super) fn bytes_of<'a>(pieces: impl IntoIterator<Item = &'a (u32, u32)>) -> u64 {
    pieces.into_iter().map(|(_, len)| u64::from(*len)).sum()
}

/// Pieces of a pack as extents.
pub(super) fn extents(
    pack: PackName,
    pieces: impl IntoIterator<Item = (u32, u32)>,
) -> impl Iterator<Item = Extent> {
    let extent = move |(offset, len)| Extent { pack, offset, len };
    pieces.into_iter().map(extent)
}

impl Part {
    pub(super) fn extents(self) -> impl Iterator<Item = Extent> {
        extents(self.pack, self.pieces)
    }

    /// Ignores further bytes; returns the extents that did not come.
    pub(super) fn abandon(&mut self) -> (PackName, Vec<Extent>) {
        self.open.clear();
        let pieces = std::mem::take(&mut self.pieces);
        (self.pack, extents(self.pack, pieces).collect())
    }

    pub(super) fn get(&mut self) -> Get {
        // A gap is not read again after a failure.
        if let Some((offset, _)) = self.pieces.front()
            && self.open.is_empty()
        {
            self.at = *offset;
        }

        let range = u64::from(self.at)..u64::from(self.end);
        Get {
            object: self.pack.object(),
            max: range.end - range.start,
            range: Some(range),
            unless: None,
        }
    }

    pub(super) fn take(&mut self, mut bytes: &[u8], done: &mut VecDeque<Fetched>) {
        while !bytes.is_empty() {
            // Bytes past the range are not looked at.
            let Some((offset, len)) = self.pieces.front().copied() else {
                return;
            };

            if self.at < offset {
                let gap = ((offset - self.at) as usize).min(bytes.len());
                self.at += gap as u32;
                bytes = &bytes[gap..];
                continue;
            }

            if self.open.is_empty() {
                self.open.reserve_exact(len as usize);
            }
            let missing = (len as usize - self.open.len()).min(bytes.len());
            self.open.extend_from_slice(&bytes[..missing]);
            self.at += missing as u32;
            bytes = &bytes[missing..];
            self.attempts.progress();

            if self.open.len() == len as usize {
                self.pieces.pop_front();
                let pack = self.pack;
                let extent = Extent { pack, offset, len };
                let piece = std::mem::take(&mut self.open);
                done.push_back(Fetched::Piece(extent, piece));
            }
        }
    }
}
