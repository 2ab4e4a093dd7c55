//! The time windows of the scans behind an index, and the changes those scans may have missed.

use std::time::SystemTime;

use super::clock::{is_racy, to_mtime};
use crate::manifest::Mtime;
use crate::tree::fs::stat::Version;

/// Largest number of windows; beyond it the last one is extended.
const MAX_WINDOWS: usize = 64;

/// Time windows of the scans since the last full scan, including it.
///
/// An index updated by partial scans records the start of the last full scan. By that time alone,
/// every file changed since would be read again. The windows narrow this down: only a file changed
/// during a scan, or just before, may have changed again unnoticed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScanWindows(Vec<(Mtime, Mtime)>);

impl ScanWindows {
    /// Adds the window of a scan.
    pub fn add(&mut self, began: SystemTime, ended: SystemTime) {
        let (began, ended) = (to_mtime(began), to_mtime(ended));
        let is_full = self.0.len() == MAX_WINDOWS;
        match self.0.last_mut().filter(|last| is_full || began < last.1) {
            // Also after the clock was set back.
            Some(last) => *last = (last.0.min(began), last.1.max(ended)),
            None => self.0.push((began, ended)),
        }
    }

    /// Returns whether a file of this version may have changed after the read.
    pub(super) fn is_racy(&self, version: &Version) -> bool {
        let last = self.0.len().saturating_sub(1);
        self.0.iter().enumerate().any(|(nth, (began, ended))| {
            // No scan followed the last window, and a change time in the future may occur again.
            is_racy(version, *began) && (nth == last || version.ctime <= *ended)
        })
    }

    /// Returns the first second in which a change may have gone unnoticed.
    pub(super) fn first_second(&self) -> i64 {
        self.0
            .iter()
            .map(|(began, _)| began.secs)
            .min()
            .unwrap_or(i64::MAX)
    }
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
            ctime: to_mtime(at(ms)),
            mtime: Mtime { secs: 1, nanos: 0 },
            ..Version::NONE
        }
    }

    #[test]
    fn only_changes_during_a_scan_or_just_before_are_racy() {
        let mut windows = ScanWindows::default();
        windows.add(at(1001), at(1500));
        windows.add(at(3001), at(3200));
        let racy: Vec<u64> = [1, 900, 985, 1400, 1501, 2900, 2985, 3100, 3201, 9001]
            .into_iter()
            .filter(|ms| windows.is_racy(&changed(*ms)))
            .collect();
        assert_eq!(racy, [985, 1400, 2985, 3100, 3201, 9001]);
        assert_eq!(windows.first_second(), 1001);

        // The clock was set back: any time in between is possible.
        windows.add(at(2001), at(2100));

        assert!(windows.is_racy(&changed(2900)) && !windows.is_racy(&changed(1700)));
    }

    #[test]
    fn many_windows_merge_into_the_last() {
        let mut windows = ScanWindows::default();
        (0..1000).for_each(|nth| windows.add(at(nth * 1000 + 1), at(nth * 1000 + 100)));
        assert_eq!(windows.0.len(), MAX_WINDOWS);
        assert!(!windows.is_racy(&changed(1500)), "between two of the first");
        assert!(windows.is_racy(&changed(500_500)), "in a long one");
    }
}
