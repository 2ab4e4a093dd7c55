//! Releases sent from this tree, which has their content without a commit.
//!
//! Once another host has committed such a release, it is recorded as if committed here: the tree is
//! up to date and can serve hosts that come later. Its serial is recorded before the release is
//! sent, so the tree is never committed to a release of its own, even if the process ends in
//! between.

use super::{Claim, Tree};
use crate::error::Result;
use crate::id::Serial;
use crate::manifest::Release;
use crate::tree::state::node_store::NodeStore;
use crate::tree::state::reader::{CommitMark, Mark};

impl Tree {
    /// Records this tree as the source of a release about to be sent.
    pub fn sends(&self, release: &Release) -> Result<()> {
        let mark = Mark::of(release);
        if self
            .state
            .highest()?
            .is_some_and(|highest| highest.serial >= mark.serial)
        {
            return Ok(());
        }

        self.state.raise_highest(mark)?;
        self.state.set_sent(mark)
    }

    /// Newest release of this tree: the last commit, or a later release sent from here.
    pub fn newest(&self) -> Result<Serial> {
        let serial = |mark: Option<Mark>| mark.map_or(Serial(0), |mark| mark.serial);
        Ok(serial(self.state.current()?).max(serial(self.state.sent()?)))
    }

    /// Records a release that was sent from this tree and committed elsewhere by `order`; `fill`
    /// stores its manifest.
    pub fn adopt(
        &self,
        release: &Release,
        signature: &[u8],
        order: &[u8],
        fill: impl FnOnce(&NodeStore) -> Result<()>,
    ) -> Result<()> {
        let mark = Mark::of(release);
        // The tree lacks earlier releases, or another release of this serial was first.
        if self.state.sent()? != Some(mark) {
            return Ok(());
        }

        let _busy = Claim::patient(self)?;
        self.check_state()?;
        self.undo_failed_commit()?;
        self.confirm()?;
        fill(self.nodes())?;
        self.nodes().sync()?;
        self.state.store(mark.serial, release.bytes(), signature)?;

        self.keep_grant(mark.serial, Some(order))?;

        let last = self.state.last_commit()?;
        if last.is_none_or(|last| last.release.serial < mark.serial) {
            let number = last.map_or(0, |last| last.number) + 1;
            self.state.set_last_commit(Some(CommitMark {
                release: mark,
                number,
            }))?;
        }

        self.prune()
    }
}
