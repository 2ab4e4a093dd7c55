//! Releases that went out from this tree: it has what they say without having been made so.
//!
//! Such a release is recorded as if it had been committed here, once another host has committed it: the tree is not
//! behind it, and gives it to hosts that come later. Its number is taken before it goes out, so that the tree is never
//! made what it was the source of, even when the process ends in between.

use super::{Claim, Tree};
use crate::error::Result;
use crate::id::Serial;
use crate::manifest::Release;
use crate::tree::state::node_store::NodeStore;
use crate::tree::state::reader::{CommitMark, Mark};

impl Tree {
    /// Takes note that this tree is the source of a release that goes out now.
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

    /// The newest release that this tree has: the one that it was made, or a later one that went out from it.
    pub fn newest(&self) -> Result<Serial> {
        let serial = |mark: Option<Mark>| mark.map_or(Serial(0), |mark| mark.serial);
        Ok(serial(self.state.current()?).max(serial(self.state.sent()?)))
    }

    /// Records a release that went out from this tree and was committed elsewhere by `order`; `fill` puts its manifest
    /// into the store.
    pub fn adopt(
        &self,
        release: &Release,
        signature: &[u8],
        order: &[u8],
        fill: impl FnOnce(&NodeStore) -> Result<()>,
    ) -> Result<()> {
        let mark = Mark::of(release);
        // It lacks what came before, or another release of its number was first.
        if self.state.sent()? != Some(mark) {
            return Ok(());
        }

        let _busy = Claim::patient(self)?;
        self.check_state()?;
        self.settle()?;
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
