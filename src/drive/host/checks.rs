//! The commands after a commit: why a release needs them, and the record of their failure.

use super::hooks::{self, occasion, run_after};
use super::offer::AdmittedOffer;
use crate::hook::{Cause, HookContext, Phase};
use crate::id::Serial;
use crate::proto::receiver::ReasonText;
use crate::tree::{Mark, Unhealthy};

/// Reasons of one session to run commands after its commit.
#[derive(Default)]
pub(super) struct DueChecks {
    /// True if the release changes anything here.
    changes: bool,
    /// Failed checks of the previous release.
    unhealthy: Option<Unhealthy>,
}

impl DueChecks {
    /// Records whether the release changes anything here.
    pub(super) fn set_changes(&mut self, changes: bool) {
        self.changes = changes;
    }

    /// Returns whether the release changes anything here.
    pub(super) fn changes(&self) -> bool {
        self.changes
    }

    /// Looks up the failed checks of the current release, right before the commit.
    pub(super) fn begin(&mut self, offer: &AdmittedOffer<'_>) {
        self.unhealthy = known_failure(offer);
    }

    /// Prepares the record for the commands after a commit. Returns whether any follow.
    pub(super) fn on_committed(&self, offer: &AdmittedOffer<'_>) -> bool {
        let after = self.runs_after(offer);
        let follow = after || self.runs_health(offer);
        if follow {
            // If this daemon dies now, the next deploy repeats the checks.
            note_failure(offer, after, "");
        } else if self.unhealthy.is_some() {
            note_health(offer, None);
        }

        follow
    }

    /// Restores the record after a revert: the restored release failed its checks as well.
    pub(super) fn on_reverted(&self, offer: &AdmittedOffer<'_>) {
        if self.unhealthy.is_some() {
            note_health(offer, self.unhealthy.as_ref());
        }
    }

    /// Runs the commands after a commit, which replaced the serial `previous`, and records success
    /// or failure.
    pub(super) fn run(
        &self,
        offer: &AdmittedOffer<'_>,
        previous: Option<Serial>,
    ) -> Result<(), ReasonText> {
        let occasion = HookContext {
            previous,
            ..occasion(offer, Cause::Commit)
        };

        if self.runs_after(offer)
            && let Err(why) = run_after(offer, &occasion)
        {
            note_failure(offer, true, &why);
            return Err(why);
        }

        if self.runs_health(offer)
            && let Some(Err(failure)) = hooks::run(offer, Phase::Health, &occasion, &offer.ending)
        {
            let why = failure.to_string();
            note_failure(offer, false, &why);
            return Err(why);
        }

        note_health(offer, None);
        Ok(())
    }

    /// Returns whether `after` follows the commit: on a change, or after a failure with the same
    /// content.
    fn runs_after(&self, offer: &AdmittedOffer<'_>) -> bool {
        let failed = self.unhealthy.as_ref().is_some_and(|failed| failed.after);
        (self.changes || failed) && offer.rules.hooks.after.is_some()
    }

    /// Returns whether the health check follows the commit.
    fn runs_health(&self, offer: &AdmittedOffer<'_>) -> bool {
        let asked = self.changes || offer.how.recheck || self.unhealthy.is_some();
        asked && offer.rules.hooks.health.is_some()
    }
}

/// The last failed checks of the current release.
fn known_failure(offer: &AdmittedOffer<'_>) -> Option<Unhealthy> {
    let tree = &offer.managed.tree;
    tree.state().unhealthy(tree.current().ok()??.release.id())
}

/// Records failed checks of the release; `after` is set if the command `after` failed.
fn note_failure(offer: &AdmittedOffer<'_>, after: bool, text: &str) {
    let mark = Mark::of(&offer.release);
    note_health(
        offer,
        Some(&Unhealthy {
            mark,
            after,
            text: text.to_string(),
        }),
    );
}

/// Records the checks of the current release: `failed`, or passed.
fn note_health(offer: &AdmittedOffer<'_>, failed: Option<&Unhealthy>) {
    let tree = &offer.managed.tree;
    if let Err(e) = tree.state().note_health(failed) {
        tracing::warn!(
            "tree {}: cannot store the result of its checks: {e}",
            tree.name()
        );
    }
}
