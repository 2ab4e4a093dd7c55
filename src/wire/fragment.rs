//! Fragmentation and reassembly of messages longer than one datagram.

use std::collections::HashMap;

use super::datagram::{CONTROL_OVERHEAD, Fragment};
use super::message::MAX_MESSAGE_BYTES;
use crate::id::InstanceId;
use crate::units::Moment;

/// Largest number of messages in reassembly; the oldest is dropped first.
const MAX_PARTIAL: usize = 64;
/// Largest number of messages in reassembly from one source.
const MAX_PARTIAL_PER_SOURCE: usize = 8;

/// Cuts `message` into fragments that fit datagrams of `datagram` bytes. `None` if more than 255
/// would be needed.
pub fn cut(
    message: &[u8],
    number: u32,
    datagram: usize,
) -> Option<impl Iterator<Item = Fragment<'_>>> {
    let size = datagram.saturating_sub(CONTROL_OVERHEAD).max(1);
    let count = u8::try_from(message.len().div_ceil(size).max(1)).ok()?;
    Some(
        message
            .chunks(size)
            .zip(0..)
            .map(move |(bytes, index)| Fragment {
                message: number,
                index,
                count,
                bytes,
            }),
    )
}

#[derive(Debug)]
struct PartialMessage {
    since: Moment,
    fragments: Vec<Option<Box<[u8]>>>,
    bytes: usize,
}

/// Reassembles messages from fragments.
#[derive(Debug, Default)]
pub struct Reassembly {
    open: HashMap<(InstanceId, u32), PartialMessage>,
}

impl Reassembly {
    /// Adds a fragment; returns the message's bytes once complete. A message of one fragment is not
    /// copied twice.
    pub fn add(
        &mut self,
        now: Moment,
        source: InstanceId,
        fragment: Fragment<'_>,
    ) -> Option<Vec<u8>> {
        if fragment.count == 1 {
            return Some(fragment.bytes.to_vec());
        }

        let key = (source, fragment.message);
        if !self.open.contains_key(&key) {
            self.make_room(source);
        }

        let count = usize::from(fragment.count);
        let open = self.open.entry(key).or_insert_with(|| PartialMessage {
            since: now,
            fragments: vec![None; count],
            bytes: 0,
        });

        if open.fragments.len() != count || open.bytes + fragment.bytes.len() > MAX_MESSAGE_BYTES {
            self.open.remove(&key);
            return None;
        }

        let slot = open.fragments.get_mut(usize::from(fragment.index))?;
        if slot.is_none() {
            open.bytes += fragment.bytes.len();
            *slot = Some(fragment.bytes.into());
        }

        if open.fragments.iter().any(Option::is_none) {
            return None;
        }

        let open = self.open.remove(&key)?;
        Some(
            open.fragments
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
        let oldest = |keys: &mut dyn Iterator<Item = (&(InstanceId, u32), &PartialMessage)>| {
            keys.min_by_key(|(key, open)| (open.since, key.1))
                .map(|(key, _)| *key)
        };

        let own = self.open.keys().filter(|k| k.0 == source).count();
        let victim = if own >= MAX_PARTIAL_PER_SOURCE {
            oldest(&mut self.open.iter().filter(|(k, _)| k.0 == source))
        } else if self.open.len() >= MAX_PARTIAL {
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
        let mut fragments: Vec<Fragment> = cut(&message, 3, 1000).expect("few fragments").collect();
        assert_eq!(fragments.len(), 6);
        fragments.reverse();
        let mut reassembly = Reassembly::default();
        let mut whole = None;
        for fragment in fragments.iter().chain(&fragments[..1]) {
            whole = whole.or(reassembly.add(Moment(1), InstanceId(1), *fragment));
        }

        assert_eq!(whole, Some(message));
    }

    #[test]
    fn a_flood_of_first_pieces_stays_bounded() {
        let mut reassembly = Reassembly::default();
        for i in 0..10_000u32 {
            let fragment = Fragment {
                message: i,
                index: 0,
                count: 200,
                bytes: &[0; 1000],
            };
            reassembly.add(
                Moment(u64::from(i)),
                InstanceId(u64::from(i % 300)),
                fragment,
            );
        }

        assert!(reassembly.open.len() <= MAX_PARTIAL);
    }

    #[test]
    fn contradicting_counts_drop_the_message() {
        let mut reassembly = Reassembly::default();
        let fragment = |index, count| Fragment {
            message: 1,
            index,
            count,
            bytes: b"x",
        };

        assert_eq!(
            reassembly.add(Moment(0), InstanceId(1), fragment(0, 3)),
            None
        );
        assert_eq!(
            reassembly.add(Moment(0), InstanceId(1), fragment(1, 2)),
            None
        );
        assert!(reassembly.open.is_empty());
    }
}
