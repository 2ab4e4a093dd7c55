//! Fragmentation and reassembly of messages longer than one datagram.

use std::collections::HashMap;

use super::datagram::{CONTROL_OVERHEAD, Piece};
use super::message::MAX_MESSAGE_BYTES;
use crate::id::InstanceId;
use crate::units::Moment;

/// Largest number of messages in reassembly; the oldest is dropped first.
const MAX_OPEN: usize = 64;
/// Largest number of messages in reassembly from one source.
const MAX_OPEN_EACH: usize = 8;

/// Cuts `message` into fragments that fit datagrams of `datagram` bytes. `None` if more than 255
/// would be needed.
pub fn cut(
    message: &[u8],
    number: u32,
    datagram: usize,
) -> Option<impl Iterator<Item = Piece<'_>>> {
    let size = datagram.saturating_sub(CONTROL_OVERHEAD).max(1);
    let count = u8::try_from(message.len().div_ceil(size).max(1)).ok()?;
    Some(
        message
            .chunks(size)
            .zip(0..)
            .map(move |(bytes, index)| Piece {
                message: number,
                index,
                count,
                bytes,
            }),
    )
}

#[derive(Debug)]
struct Open {
    since: Moment,
    pieces: Vec<Option<Box<[u8]>>>,
    bytes: usize,
}

/// Reassembles messages from fragments.
#[derive(Debug, Default)]
pub struct Reassembly {
    open: HashMap<(InstanceId, u32), Open>,
}

impl Reassembly {
    /// Adds a fragment; returns the message's bytes once complete. A message of one fragment is not
    /// copied twice.
    pub fn add(&mut self, now: Moment, source: InstanceId, piece: Piece<'_>) -> Option<Vec<u8>> {
        if piece.count == 1 {
            return Some(piece.bytes.to_vec());
        }

        let key = (source, piece.message);
        if !self.open.contains_key(&key) {
            self.make_room(source);
        }

        let count = usize::from(piece.count);
        let open = self.open.entry(key).or_insert_with(|| Open {
            since: now,
            pieces: vec![None; count],
            bytes: 0,
        });

        if open.pieces.len() != count || open.bytes + piece.bytes.len() > MAX_MESSAGE_BYTES {
            self.open.remove(&key);
            return None;
        }

        let slot = open.pieces.get_mut(usize::from(piece.index))?;
        if slot.is_none() {
            open.bytes += piece.bytes.len();
            *slot = Some(piece.bytes.into());
        }

        if open.pieces.iter().any(Option::is_none) {
            return None;
        }

        let open = self.open.remove(&key)?;
        Some(
            open.pieces
                .into_iter()
                .flatten()
                .flat_map(Vec::from)
                .collect(),
        )
    }

    /// Bytes held for incomplete messages.
    pub fn held(&self) -> usize {
        self.open.values().map(|open| open.bytes).sum()
    }

    fn make_room(&mut self, source: InstanceId) {
        let oldest = |keys: &mut dyn Iterator<Item = (&(InstanceId, u32), &Open)>| {
            keys.min_by_key(|(key, open)| (open.since, key.1))
                .map(|(key, _)| *key)
        };

        let own = self.open.keys().filter(|k| k.0 == source).count();
        let victim = if own >= MAX_OPEN_EACH {
            oldest(&mut self.open.iter().filter(|(k, _)| k.0 == source))
        } else if self.open.len() >= MAX_OPEN {
            oldest(&mut self.open.iter())
        } else {
            None
        };

        if let Some(key) = victim {
            self.open.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_in_any_order_give_the_message() {
        let message: Vec<u8> = (0..5000u32).map(|i| i as u8).collect();
        let mut pieces: Vec<Piece> = cut(&message, 3, 1000).expect("few pieces").collect();
        assert_eq!(pieces.len(), 6);
        pieces.reverse();
        let mut reassembly = Reassembly::default();
        let mut whole = None;
        for piece in pieces.iter().chain(&pieces[..1]) {
            whole = whole.or(reassembly.add(Moment(1), InstanceId(1), *piece));
        }

        assert_eq!(whole, Some(message));
    }

    #[test]
    fn a_flood_of_first_pieces_stays_bounded() {
        let mut reassembly = Reassembly::default();
        for i in 0..10_000u32 {
            let piece = Piece {
                message: i,
                index: 0,
                count: 200,
                bytes: &[0; 1000],
            };
            reassembly.add(Moment(u64::from(i)), InstanceId(u64::from(i % 300)), piece);
        }

        assert!(reassembly.open.len() <= MAX_OPEN);
    }

    #[test]
    fn contradicting_counts_drop_the_message() {
        let mut reassembly = Reassembly::default();
        let piece = |index, count| Piece {
            message: 1,
            index,
            count,
            bytes: b"x",
        };

        assert_eq!(reassembly.add(Moment(0), InstanceId(1), piece(0, 3)), None);
        assert_eq!(reassembly.add(Moment(0), InstanceId(1), piece(1, 2)), None);
        assert!(reassembly.open.is_empty());
    }
}
