//! Result of the checks after a commit, `after` and `health`, for the release that a tree runs.
//!
//! **On disk.** The file `unhealthy` in a tree's state names the release that failed: a line with
//! its serial, its identity and whether `after` has to run again (0 or 1), then the error. It is
//! written before the checks begin, so interrupted checks count as failed, and removed when they
//! pass.

use std::str;
use std::time::{Duration, SystemTime};

use super::dir::StateDir;
use super::reader::{Mark, StateReader};
use crate::block::BlockHash;
use crate::error::Result;
use crate::id::Serial;
use crate::manifest::ReleaseId;

/// Name of the file.
const UNHEALTHY: &str = "unhealthy";

/// Reason for an unhealthy release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unhealthy {
    /// The release.
    pub mark: Mark,
    /// Whether `after` failed or was interrupted, and so has to run again.
    pub after: bool,
    /// The error; empty if the checks were interrupted.
    pub text: String,
}

impl Unhealthy {
    fn encode(&self) -> String {
        format!(
            "{} {} {}\n{}",
            self.mark.serial,
            self.mark.id,
            u8::from(self.after),
            self.text
        )
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (first, text) = str::from_utf8(bytes).ok()?.split_once('\n')?;
        let mut words = first.split(' ');
        let serial = Serial(words.next()?.parse().ok()?);
        let id = ReleaseId(BlockHash::from_hex(words.next()?)?);
        let after = words.next()? != "0";

        Some(Self {
            mark: Mark { serial, id },
            after,
            text: text.to_string(),
        })
    }
}

impl StateReader {
    /// Failure of the last checks of the release `id`; `None` if they passed or there were none.
    ///
    /// An unreadable file counts as none.
    pub fn unhealthy(&self, id: ReleaseId) -> Option<Unhealthy> {
        let bytes = self.read(UNHEALTHY).ok().flatten()?;
        Unhealthy::decode(&bytes).filter(|failed| failed.mark.id == id)
    }

    /// Time between the last recorded failure and `now`.
    pub fn unhealthy_for(&self, now: SystemTime) -> Duration {
        let noted = std::fs::metadata(self.path().join(UNHEALTHY)).and_then(|meta| meta.modified());
        noted
            .ok()
            .and_then(|at| now.duration_since(at).ok())
            .unwrap_or_default()
    }
}

impl StateDir {
    /// Records the result of a release's checks, durably; `None` if they passed.
    pub fn note_health(&self, failed: Option<&Unhealthy>) -> Result<()> {
        match failed {
            Some(failed) => self.write(UNHEALTHY, failed.encode().as_bytes()),
            None if self.read(UNHEALTHY)?.is_none() => Ok(()),
            None => self.remove(UNHEALTHY),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_again_and_anything_else_is_none() {
        let mark = Mark {
            serial: Serial(7),
            id: ReleaseId(BlockHash([3; 32])),
        };

        for text in ["", "after hook x failed: exit status 1\n  no reload"] {
            for after in [false, true] {
                let failed = Unhealthy {
                    mark,
                    after,
                    text: text.into(),
                };
                assert_eq!(Unhealthy::decode(failed.encode().as_bytes()), Some(failed));
            }
        }

        for broken in ["", "\n", "7\n", "7 zz 0\n", "x y z", "\u{fffd} 1 2\n"] {
            assert_eq!(Unhealthy::decode(broken.as_bytes()), None, "{broken:?}");
        }
    }
}
