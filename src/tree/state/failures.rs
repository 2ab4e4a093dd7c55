//! Releases that this host could not put in place, and how often.
//!
//! **On disk.** The file `failed` in a tree's state has a line for each, oldest first: its serial,
//! its identity, the number of failures and the time of the last one in seconds since 1970.

use std::fmt::Write as _;
use std::str;

use super::dir::StateDir;
use super::reader::{Mark, StateReader};
use crate::block::BlockHash;
use crate::error::Result;
use crate::id::Serial;
use crate::manifest::ReleaseId;
use crate::units::WallTime;

/// Name of the file.
const FAILED_FILE: &str = "failed";
/// Largest number of releases in the file.
pub const MAX_FAILED_RELEASES: usize = 8;

/// A release that could not be put in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailedRelease {
    /// The release.
    pub mark: Mark,
    /// Number of failures.
    pub failures: u32,
    /// Time of the last one.
    pub at: WallTime,
}

impl FailedRelease {
    fn decode(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let serial = Serial(words.next()?.parse().ok()?);
        let id = ReleaseId(BlockHash::from_hex(words.next()?)?);
        Some(Self {
            mark: Mark { serial, id },
            failures: words.next()?.parse().ok()?,
            at: WallTime(words.next()?.parse().ok()?),
        })
    }
}

fn encode(failed: &[FailedRelease]) -> String {
    let mut text = String::new();
    for FailedRelease { mark, failures, at } in failed {
        // Writing into a string cannot fail.
        let _ = writeln!(text, "{} {} {failures} {}", mark.serial, mark.id, at.0);
    }
    text
}

fn decode(bytes: &[u8]) -> Vec<FailedRelease> {
    let lines = str::from_utf8(bytes).unwrap_or_default().lines();
    let failed = lines.filter_map(FailedRelease::decode);
    failed.take(MAX_FAILED_RELEASES).collect()
}

impl StateReader {
    /// Releases that could not be put in place; none if the file cannot be read.
    pub fn failed_releases(&self) -> Vec<FailedRelease> {
        let bytes = self.read(FAILED_FILE).ok().flatten();
        bytes.map(|bytes| decode(&bytes)).unwrap_or_default()
    }
}

impl StateDir {
    /// Stores the releases that could not be put in place, durably.
    pub fn keep_failed_releases(&self, failed: &[FailedRelease]) -> Result<()> {
        match failed {
            [] if self.read(FAILED_FILE)?.is_none() => Ok(()),
            [] => self.remove(FAILED_FILE),
            failed => self.write(FAILED_FILE, encode(failed).as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_again_and_other_lines_are_skipped() {
        let failed = |n: u8| FailedRelease {
            mark: Mark {
                serial: Serial(n.into()),
                id: ReleaseId(BlockHash([n; 32])),
            },
            failures: 3,
            at: WallTime(-7),
        };
        let all = [failed(1), failed(2)];
        let text = encode(&all);
        assert_eq!(decode(text.as_bytes()), all);

        let broken = format!("\n1 2 3\nx y z 7\n{text}{}", &text[..20]);
        assert_eq!(decode(broken.as_bytes()), all);
        assert_eq!(decode(b"\xff"), []);
        assert_eq!(decode(text.repeat(9).as_bytes()).len(), MAX_FAILED_RELEASES);
    }
}
