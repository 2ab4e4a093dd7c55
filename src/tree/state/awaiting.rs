//! A release that waits, staged, for a later session: its record, and the place of its content.
//!
//! **On disk.** `staged` in a tree's state is the record: header and signature of the release, and
//! the time. Its content is in the stage, as the session left it. While another session needs the
//! stage, it is in `staged-RELEASE`. Files move one by one, into or out of
//! `staged-RELEASE.moving`: a move that a crash ended is completed back into the stage. A record
//! alone proves nothing: content counts only after it was read and hashed again.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use super::dir::StateDir;
use super::reader::{StateReader, StoredRelease};
use super::worktree::Worktree;
use crate::error::{Error, IoResultExt as _, Result};
use crate::id::Serial;
use crate::manifest::{Release, ReleaseId};
use crate::tree::fs::dir::{c_name, names, private_dir, sync_dir};
use crate::units::WallTime;

/// File of the record, and start of the names of directories for its content.
const STAGED_RECORD: &str = "staged";
/// End of the name of a directory while files move.
const MOVING: &str = ".moving";

/// A release that is staged and not committed.
#[derive(Debug, Clone)]
pub struct AwaitingRelease {
    /// The release with its signature.
    pub stored: StoredRelease,
    /// Time at which it was staged, by this host's clock.
    pub since: WallTime,
}

impl AwaitingRelease {
    /// Serial of the release.
    pub fn serial(&self) -> Serial {
        self.stored.release.header().serial
    }

    /// Returns whether the release has expired.
    pub fn is_expired(&self, now: WallTime) -> bool {
        let expires = self.stored.release.header().expires;
        expires.is_some_and(|at| at <= now)
    }
}

/// Record of a staged release.
#[derive(Encode, Decode)]
struct Record {
    #[n(0)]
    header: ByteVec,
    #[n(1)]
    signature: ByteVec,
    #[n(2)]
    since: i64,
}

impl StateReader {
    /// Recorded staged release, whether or not it can still be committed.
    pub(crate) fn staged_record(&self) -> Result<Option<AwaitingRelease>> {
        let Some(bytes) = self.read(STAGED_RECORD)? else {
            return Ok(None);
        };

        // A record only saves work: a damaged one counts as none.
        let read = minicbor::decode::<Record>(&bytes).ok();
        let read = read.and_then(|record| {
            let release = Release::from_bytes(&record.header).ok()?;
            Some((record, release))
        });
        let Some((record, release)) = read else {
            tracing::warn!("{} is damaged", self.path().join(STAGED_RECORD).display());
            return Ok(None);
        };

        Ok(Some(AwaitingRelease {
            stored: StoredRelease {
                release,
                signature: record.signature.into(),
            },
            since: WallTime(record.since),
        }))
    }

    /// Release that is staged here and may still be committed: newer than every accepted one, and
    /// not aborted.
    pub fn awaiting(&self) -> Result<Option<AwaitingRelease>> {
        let Some(found) = self.staged_record()? else {
            return Ok(None);
        };

        let is_newer = self
            .highest()?
            .is_none_or(|highest| highest.serial < found.serial());
        let is_aborted = self.tombstone(found.stored.release.id())?.is_some();
        Ok(Some(found).filter(|_| is_newer && !is_aborted))
    }
}

impl Worktree {
    /// Records that the stage holds `release`; an earlier staged release is forgotten.
    pub(crate) fn record_staged(
        &self,
        release: &Release,
        signature: &[u8],
        since: WallTime,
    ) -> Result<()> {
        let record = Record {
            header: ByteVec::from(release.bytes().to_vec()),
            signature: ByteVec::from(signature.to_vec()),
            since: since.0,
        };
        let bytes = minicbor::to_vec(record).expect("writing to a Vec cannot fail");

        self.crash.point()?;
        self.state.write(STAGED_RECORD, &bytes)?;
        // The content of this release is in the stage.
        self.forget_moved(None)
    }

    /// Forgets the staged release. Content in the stage stays for the next session, as that of an
    /// aborted one.
    pub(crate) fn forget_staged(&self) -> Result<()> {
        self.crash.point()?;
        self.state.remove(STAGED_RECORD)?;
        self.forget_moved(None)
    }

    /// Frees the stage: content of the staged release moves out.
    pub(crate) fn move_staged_out(&self, release: ReleaseId) -> Result<()> {
        self.complete_moves()?;
        let apart = self.state.apart_path(release);
        if is_dir(&apart)? {
            return Ok(());
        }

        let moving = self.state.moving_path(release);
        private_dir(&moving)?;
        self.move_files(&self.state.stage_path(), &moving)?;
        self.crash.point()?;
        rename(&moving, &apart)?;
        self.state.sync()
    }

    /// Moves content of the staged release back into the stage. Remains of other sessions go.
    pub(crate) fn move_staged_in(&self, release: ReleaseId) -> Result<()> {
        self.complete_moves()?;
        let apart = self.state.apart_path(release);
        if !is_dir(&apart)? {
            return Ok(());
        }

        let stage = self.state.stage_path();
        for name in names(&stage)? {
            self.state
                .discard(self.state.stage(), &c_name(&name)?, &stage.join(&name))?;
        }
        self.crash.point()?;
        rename(&apart, &self.state.moving_path(release))?;
        self.complete_moves()
    }

    /// Completes a move that was not ended, into the stage.
    pub(crate) fn complete_moves(&self) -> Result<()> {
        for name in self.state.apart_names()? {
            if is_moving(&name) {
                let moving = self.state.here().join(&name);
                self.move_files(&moving, &self.state.stage_path())?;
                self.crash.point()?;
                std::fs::remove_dir(&moving).context("cannot remove", &moving)?;
                self.state.sync()?;
            }
        }

        Ok(())
    }

    /// Removes content outside of the stage, except that of `kept`.
    pub(crate) fn forget_moved(&self, kept: Option<ReleaseId>) -> Result<()> {
        let kept = kept.map(|release| OsString::from(apart_name(release)));
        for name in self.state.apart_names()? {
            if !is_moving(&name) && Some(&name) != kept.as_ref() {
                self.crash.point()?;
                let path = self.state.here().join(&name);
                self.state
                    .discard(self.state.handle(), &c_name(&name)?, &path)?;
            }
        }

        Ok(())
    }

    fn move_files(&self, from: &Path, to: &Path) -> Result<()> {
        for name in names(from)? {
            self.crash.point()?;
            rename(&from.join(&name), &to.join(&name))?;
        }
        sync_dir(to)?;
        sync_dir(from)
    }
}

impl StateDir {
    /// Directory for content of a staged release outside of the stage.
    fn apart_path(&self, release: ReleaseId) -> PathBuf {
        self.here().join(apart_name(release))
    }

    fn moving_path(&self, release: ReleaseId) -> PathBuf {
        self.here().join(format!("{}{MOVING}", apart_name(release)))
    }

    /// Names of all such directories.
    fn apart_names(&self) -> Result<Vec<OsString>> {
        let mut found = names(&self.here())?;
        let prefix = format!("{STAGED_RECORD}-");
        found.retain(|name| name.to_string_lossy().starts_with(&prefix));
        Ok(found)
    }
}

fn apart_name(release: ReleaseId) -> String {
    format!("{STAGED_RECORD}-{release}")
}

fn is_moving(name: &OsStr) -> bool {
    name.to_string_lossy().ends_with(MOVING)
}

fn is_dir(path: &Path) -> Result<bool> {
    match File::open(path) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(Error::io("cannot open", path, e)),
    }
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    std::fs::rename(from, to).context("cannot rename", from)
}
