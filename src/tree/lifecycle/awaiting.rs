//! A release that stays staged after its session: kept, brought back for its commit, and forgotten
//! once it cannot be committed any more.

use super::{Claim, Tree};
use crate::error::{Error, Result};
use crate::id::Serial;
use crate::manifest::Release;
use crate::tree::prepare::resume::ResumableBlocks;
use crate::tree::state::awaiting::AwaitingRelease;
use crate::units::WallTime;

impl Tree {
    /// Release that is staged here and may still be committed. It may have expired.
    pub fn awaiting(&self) -> Result<Option<AwaitingRelease>> {
        self.state.awaiting()
    }

    /// Returns whether `release` is staged here and may still be committed.
    pub fn awaits(&self, release: &Release) -> Result<bool> {
        let awaiting = self.awaiting()?;
        Ok(awaiting.is_some_and(|found| found.stored.release.id() == release.id()))
    }

    /// Prepares the stage for `release`: content of the same staged release is brought back, that
    /// of another one moves out.
    pub fn stage_for(&self, release: &Release) -> Result<()> {
        let Some(found) = self.state.staged_record()? else {
            return Ok(());
        };

        let _busy = Claim::new(self)?;
        self.check_state()?;
        if found.stored.release.id() == release.id() {
            self.move_staged_in(release.id())
        } else {
            self.move_staged_out(found.stored.release.id())
        }
    }

    /// Keeps `release`, which is complete in the stage, until it is committed, aborted, expired, or
    /// replaced by a newer one. Returns the staged release that it replaces.
    pub fn keep_staged(
        &self,
        release: &Release,
        signature: &[u8],
        now: WallTime,
    ) -> Result<Option<Serial>> {
        let _busy = Claim::new(self)?;
        self.check_state()?;
        let serial = release.header().serial;
        let before = self.awaiting()?.filter(|found| !found.is_expired(now));
        if let Some(newer) = before.as_ref().filter(|found| found.serial() > serial) {
            return Err(Error::refused(format!(
                "{}@{} is staged here already, and newer",
                self.name(),
                newer.serial()
            )));
        }

        self.state.forget_next()?;
        ResumableBlocks::sync(&self.state)?;
        self.record_staged(release, signature, now)?;
        let replaced = before.filter(|found| found.stored.release.id() != release.id());
        Ok(replaced.map(|found| found.serial()))
    }

    /// Forgets a staged release that cannot be committed any more, and returns it with the reason.
    pub fn sweep_staged(&self, now: WallTime) -> Result<Option<(Serial, String)>> {
        let Some(found) = self.state.staged_record()? else {
            return Ok(None);
        };
        let Some(why) = self.why_over(&found, now)? else {
            return Ok(None);
        };

        let _busy = Claim::new(self)?;
        self.check_state()?;
        self.complete_moves()?;
        self.forget_staged()?;
        Ok(Some((found.serial(), why)))
    }

    /// Forgets `release` if it is the one that is staged here.
    pub fn forget_if_staged(&self, release: &Release) -> Result<()> {
        let found = self.state.staged_record()?;
        if found.is_none_or(|found| found.stored.release.id() != release.id()) {
            return Ok(());
        }

        let _busy = Claim::new(self)?;
        self.check_state()?;
        self.complete_moves()?;
        self.forget_staged()
    }

    /// Puts the place of a staged release in order after a crash.
    pub(super) fn recover_staged(&self) -> Result<()> {
        self.complete_moves()?;
        let kept = self.state.staged_record()?;
        self.forget_moved(kept.map(|found| found.stored.release.id()))
    }

    /// Reason why a staged release cannot be committed any more.
    fn why_over(&self, found: &AwaitingRelease, now: WallTime) -> Result<Option<String>> {
        let id = found.stored.release.id();
        let highest = self.state.highest()?;
        Ok(if self.state.tombstone(id)?.is_some() {
            Some("aborted by its sender".to_string())
        } else if highest.is_some_and(|highest| highest.id == id) {
            Some("its commit has begun".to_string())
        } else if let Some(highest) = highest.filter(|h| h.serial >= found.serial()) {
            Some(format!("replaced by {}@{}", self.name(), highest.serial))
        } else if found.is_expired(now) {
            Some("expired".to_string())
        } else {
            None
        })
    }
}
