//! Pinned releases of a repository: they stay beyond the number of releases to keep.

use super::{Head, HeadRelease, MAX_KEPT};
use crate::id::Serial;

/// Largest number of pinned releases of a tree: new ones need room in the head as well.
pub const MAX_HEAD_PINS: usize = 8;

/// A change of the pins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PinChange {
    /// The release stays.
    Pin(Serial),
    /// The release goes with those of its age.
    Unpin(Serial),
}

impl Head {
    /// Returns whether the release `serial` is pinned.
    pub fn is_pinned(&self, serial: Serial) -> bool {
        self.pinned.iter().flatten().any(|pin| *pin == serial)
    }

    /// Number of releases that stay by their age: pinned ones beyond them do not count. Without a
    /// number in the head, those up to the oldest without a pin.
    pub fn kept_by_age(&self) -> usize {
        if let Some(by_age) = self.by_age {
            return usize::from(by_age).clamp(1, MAX_KEPT);
        }

        let is_younger = |release: &HeadRelease| !self.is_pinned(release.serial);
        let youngest = self.kept.iter().rposition(is_younger);
        youngest.map_or(self.kept.len().min(1), |last| last + 1)
    }

    /// Sets the pins to those of `before` that the head still has, with the `change`.
    pub fn set_pins(&mut self, before: &[Serial], change: Option<PinChange>) {
        let mut pins = before.to_vec();
        match change {
            Some(PinChange::Pin(serial)) => pins.push(serial),
            Some(PinChange::Unpin(serial)) => pins.retain(|pin| *pin != serial),
            None => {}
        }

        pins.retain(|pin| self.kept(*pin).is_some());
        pins.sort_unstable();
        pins.dedup();
        pins.truncate(MAX_HEAD_PINS);
        self.pinned = Some(pins).filter(|pins| !pins.is_empty());
    }
}

/// Splits releases, the newest first, into those that stay and the others: the newest `keep`, and
/// the `pinned` ones. If all of them do not fit into a head, pinned ones stay.
pub fn split_kept(
    all: &[HeadRelease],
    pinned: &[Serial],
    keep: usize,
) -> (Vec<HeadRelease>, Vec<HeadRelease>) {
    let is_pinned = |release: &HeadRelease| pinned.contains(&release.serial);
    let pins = all.iter().filter(|release| is_pinned(release)).count();
    let mut room = MAX_KEPT.saturating_sub(pins.min(MAX_HEAD_PINS));
    let mut kept = Vec::new();
    let mut dropped = Vec::new();

    for (at, release) in all.iter().enumerate() {
        let has_room = room > 0;
        match is_pinned(release) {
            true if kept.len() < MAX_KEPT => kept.push(*release),
            false if at < keep.max(1) && has_room => {
                room -= 1;
                kept.push(*release);
            }
            _ => dropped.push(*release),
        }
    }

    (kept, dropped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::BlockHash;
    use crate::repository::pack::PackName;

    fn releases(count: u64) -> Vec<HeadRelease> {
        let release = |serial| HeadRelease {
            serial: Serial(serial),
            pack: PackName(BlockHash([serial as u8; 32])),
            offset: 0,
            len: 1,
            hash: BlockHash([0; 32]),
            lead: 0,
            top: 0,
        };
        (1..=count).rev().map(release).collect()
    }

    fn kept(count: u64, pinned: &[u64], keep: usize) -> Vec<u64> {
        let pinned: Vec<Serial> = pinned.iter().copied().map(Serial).collect();
        let (kept, dropped) = split_kept(&releases(count), &pinned, keep);
        assert_eq!(kept.len() + dropped.len(), count as usize);
        kept.iter().map(|release| release.serial.0).collect()
    }

    #[test]
    fn pinned_releases_stay_beside_the_newest_ones() {
        assert_eq!(kept(6, &[], 2), [6, 5]);
        assert_eq!(kept(6, &[2], 2), [6, 5, 2]);
        assert_eq!(kept(6, &[6, 5], 2), [6, 5]);
        assert_eq!(kept(3, &[9], 1), [3], "a release that is gone");
        assert_eq!(kept(3, &[1], 0), [3, 1], "the newest always stays");
    }

    #[test]
    fn a_head_has_room_for_pins_and_for_the_newest() {
        let pins: Vec<u64> = (1..=MAX_HEAD_PINS as u64).collect();
        let found = kept(20, &pins, MAX_KEPT);
        assert_eq!(found.len(), MAX_KEPT);
        assert!(found.starts_with(&[20, 19]) && pins.iter().all(|pin| found.contains(pin)));
    }
}
