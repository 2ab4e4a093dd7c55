//! When the looks were taken that an index is made of, and what may have changed since without its times showing it.

use std::time::SystemTime;

use super::{COARSE_TICK, TICK, wall};
use crate::manifest::Mtime;
use crate::tree::fs::stat::Version;

/// More looks than this are taken as fewer, longer ones.
const MAX_LOOKS: usize = 64;

/// The looks since everything was looked at, that one among them.
///
/// An index that was changed by looks at some paths says when everything was looked at last, and by that alone all that
/// changed since would have to be read again. Who took those looks knows that only what changed within one of them, or
/// just before, was read so early that another change could have gone unseen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Looks(Vec<(Mtime, Mtime)>);

impl Looks {
    /// Adds a look that was taken in this time.
    pub fn add(&mut self, began: SystemTime, ended: SystemTime) {
        let (began, ended) = (wall(began), wall(ended));
        let is_full = self.0.len() == MAX_LOOKS;
        match self.0.last_mut().filter(|last| is_full || began < last.1) {
            // Also where the clock was set back.
            Some(last) => *last = (last.0.min(began), last.1.max(ended)),
            None => self.0.push((began, ended)),
        }
    }

    /// Whether a file of this version may have changed after it was read.
    pub(super) fn is_racy(&self, version: &Version) -> bool {
        let last = self.0.len().saturating_sub(1);
        self.0.iter().enumerate().any(|(nth, (began, ended))| {
            // After the last look nothing is known; a time of change that is yet to come may come again.
            is_racy(version, *began) && (nth == last || version.ctime <= *ended)
        })
    }

    /// Before this second nothing can have changed unseen.
    pub(super) fn first_second(&self) -> i64 {
        self.0
            .iter()
            .map(|(began, _)| began.secs)
            .min()
            .unwrap_or(i64::MAX)
    }
}

/// Whether a file could have been changed after it was read without its times showing it.
///
/// The time of change is what the kernel alone sets: a time of modification in the future proves nothing, and must not
/// cost a read at every scan.
pub(in crate::tree) fn is_racy(version: &Version, started: Mtime) -> bool {
    let tick = if version.ctime.nanos == 0 {
        COARSE_TICK
    } else {
        TICK
    };

    let nanos = |t: Mtime| i128::from(t.secs) * 1_000_000_000 + i128::from(t.nanos);
    let limit = nanos(started) - tick.as_nanos() as i128;
    nanos(version.ctime) >= limit || (version.mtime <= started && nanos(version.mtime) >= limit)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(ms: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1000) + Duration::from_millis(ms)
    }

    fn changed(ms: u64) -> Version {
        Version {
            ctime: wall(at(ms)),
            mtime: Mtime { secs: 1, nanos: 0 },
            ..Version::NONE
        }
    }

    #[test]
    fn only_what_changed_within_a_look_or_just_before_is_read_again() {
        let mut looks = Looks::default();
        looks.add(at(1001), at(1500));
        looks.add(at(3001), at(3200));
        let racy: Vec<u64> = [1, 900, 985, 1400, 1501, 2900, 2985, 3100, 3201, 9001]
            .into_iter()
            .filter(|ms| looks.is_racy(&changed(*ms)))
            .collect();
        assert_eq!(racy, [985, 1400, 2985, 3100, 3201, 9001]);
        assert_eq!(looks.first_second(), 1001);

        // The clock went back: between the two it may have been any time.
        looks.add(at(2001), at(2100));

        assert!(looks.is_racy(&changed(2900)) && !looks.is_racy(&changed(1700)));
    }

    #[test]
    fn many_looks_are_fewer_longer_ones() {
        let mut looks = Looks::default();
        (0..1000).for_each(|nth| looks.add(at(nth * 1000 + 1), at(nth * 1000 + 100)));
        assert_eq!(looks.0.len(), MAX_LOOKS);
        assert!(!looks.is_racy(&changed(1500)), "between two of the first");
        assert!(looks.is_racy(&changed(500_500)), "in a long one");
    }
}
