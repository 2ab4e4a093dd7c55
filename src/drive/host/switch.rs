//! A session's switch to its release and back: the effects of the sender's signed orders, with the
//! host's own commands.
//!
//! | order | runs | does |
//! |---|---|---|
//! | prepare | `before` | nothing |
//! | commit | `before`, if not prepared; then `after` and `health` | the commit |
//! | revert | `after` | takes the commit back |
//! | abort, or the end of a prepared session | `after` | nothing |
//!
//! Commands run only if the release changes something. If the previous release failed its checks,
//! `health` runs again, and so does `after` if it was the one that failed; a sender can request
//! `health` everywhere. Replaced content is kept until the session ends.

use std::sync::atomic::{AtomicBool, Ordering};

use super::authorize::check_allowed;
use super::drift_check;
use super::offer::AdmittedOffer;
use crate::diff::Plan;
use crate::drive::clock;
use crate::hook::{Cause, HookContext, Phase};
use crate::id::{Serial, SessionId};
use crate::keys::{Namespace, verify};
use crate::manifest::Intent;
use crate::manifest::node::to_vec;
use crate::proto::receiver::{Ordered, ReasonText};
use crate::tree::Mark;
use crate::tree::Unhealthy;
use crate::tree::stage::Stage;
use crate::wire::message::{Order, OrderKind, SignedOrder};

/// Number of changes in a commit from which the tree is scanned at once, to spare the next release
/// the work.
const SCAN_FROM_CHANGES: usize = 1000;

/// Progress of a switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum SwitchState {
    /// No command has run.
    #[default]
    Before,
    /// The commands before a commit succeeded.
    Prepared,
    /// The release is committed; the previous serial.
    Done(Option<Serial>),
    /// The release was reverted or will not be committed.
    Over,
}

/// A session's switch to its release.
#[derive(Default)]
pub(super) struct Switch {
    state: SwitchState,
    /// True if the release changes anything here.
    changes: bool,
    /// The committed plan.
    done: Option<Plan>,
    /// Failed checks of the previous release.
    unhealthy: Option<Unhealthy>,
    /// Commit order of the release: hosts that missed it may commit by it.
    order: Option<SignedOrder>,
}

impl Switch {
    /// Records whether the release changes anything here.
    pub(super) fn set_changes(&mut self, changes: bool) {
        self.changes = changes;
    }

    /// Carries out an order. Returns `None` if the order is not for this session, by another key,
    /// or out of sequence.
    pub(super) fn order(
        &mut self,
        offer: &AdmittedOffer<'_>,
        stage: &mut Option<Stage>,
        id: SessionId,
        signed: &SignedOrder,
    ) -> Option<Ordered> {
        let order_key = verify(Namespace::ORDER, &signed.order, &signed.signature).ok()?;
        let granted = offer
            .grant
            .as_ref()
            .is_some_and(|grant| grant.order == signed.order);
        let order = match granted {
            // Admission has checked that the order includes this host.
            true => Order::decode(&signed.order)?,
            false => signed.for_host(&offer.host.name)?,
        };

        // A tombstone holds in every session.
        let is_about = order.session == id || granted || order.tombstone().is_some();
        let is_ours = order_key == offer.key && is_about && order.release == offer.release.id();
        if !is_ours || offer.release.header().intent == Intent::Audit {
            return None;
        }

        match (order.kind, self.state) {
            (OrderKind::Prepare, SwitchState::Before) => Some(match self.prepare(offer, stage) {
                Ok(()) => Ordered::Prepared,
                Err(why) => Ordered::Vetoed(why),
            }),
            (OrderKind::Commit, SwitchState::Before | SwitchState::Prepared) => {
                self.order = Some(signed.clone());
                self.commit(offer, stage)
            }
            (OrderKind::Revert, SwitchState::Done(previous)) => Some(self.revert(offer, previous)),
            (OrderKind::Abort | OrderKind::Revert, SwitchState::Before | SwitchState::Prepared) => {
                self.give_up(offer, stage);
                Some(Ordered::Aborted)
            }
            _ => None,
        }
    }

    fn prepare(
        &mut self,
        offer: &AdmittedOffer<'_>,
        stage: &mut Option<Stage>,
    ) -> Result<(), ReasonText> {
        let occasion = occasion(offer, Cause::Commit);
        if self.changes
            && let Some(Err(failure)) =
                offer
                    .managed
                    .hooks
                    .run(Phase::Before, &occasion, &offer.ending)
        {
            self.state = SwitchState::Over;
            *stage = None;
            return Err(failure.to_string());
        }

        self.state = SwitchState::Prepared;
        Ok(())
    }

    fn commit(&mut self, offer: &AdmittedOffer<'_>, stage: &mut Option<Stage>) -> Option<Ordered> {
        // An incomplete stage cannot be committed.
        stage.as_ref().filter(|stage| stage.is_finished())?;
        // Keys and time may have changed during the transfer.
        if let Err(why) = check_allowed(
            offer.host,
            &offer.key,
            &offer.release,
            clock::wall_seconds(),
        ) {
            self.give_up(offer, stage);
            return Some(Ordered::Failed(why));
        }

        if self.state == SwitchState::Before
            && let Err(why) = self.prepare(offer, stage)
        {
            return Some(Ordered::Failed(why));
        }

        let previous = current(offer);
        let again = previous == Some(offer.release.header().serial);
        self.unhealthy = known_failure(offer);
        let staged = stage.take()?;

        Some(match staged.commit(&offer.release, &offer.signature) {
            Ok(report) => {
                tracing::info!("{}: {report:?}", offer.release);
                offer.managed.drift_counts.clear();
                if again {
                    offer.managed.drift_counts.repaired(&offer.release, &report);
                }
                self.state = SwitchState::Done(previous);
                self.done = Some(staged.into_plan());
                let checks = self.runs_after(offer) || self.runs_health(offer);
                if checks {
                    // If this daemon dies now, the next deploy repeats the checks.
                    note_failure(offer, self.runs_after(offer), "");
                } else if self.unhealthy.is_some() {
                    note_health(offer, None);
                }
                Ordered::Committed {
                    serial: offer.release.header().serial,
                    checks,
                }
            }
            Err(e) => {
                offer.managed.tree.drop_index(&e);
                self.give_up(offer, stage);
                self.torn(offer)
                    .unwrap_or_else(|| Ordered::Failed(e.with_hint()))
            }
        })
    }

    /// Runs the commands after a commit and records success or failure.
    pub(super) fn check(&self, offer: &AdmittedOffer<'_>) -> Result<(), ReasonText> {
        let SwitchState::Done(previous) = self.state else {
            return Ok(());
        };

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
            && let Some(Err(failure)) =
                offer
                    .managed
                    .hooks
                    .run(Phase::Health, &occasion, &offer.ending)
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
        (self.changes || failed) && offer.managed.hooks.after.is_some()
    }

    /// Returns whether the health check follows the commit.
    fn runs_health(&self, offer: &AdmittedOffer<'_>) -> bool {
        let asked = self.changes || offer.how.recheck || self.unhealthy.is_some();
        asked && offer.managed.hooks.health.is_some()
    }

    fn revert(&mut self, offer: &AdmittedOffer<'_>, previous: Option<Serial>) -> Ordered {
        let tree = &offer.managed.tree;
        if let Err(e) = tree.revert() {
            return self
                .torn(offer)
                .unwrap_or_else(|| Ordered::Stuck(e.with_hint()));
        }

        self.state = SwitchState::Over;
        if self.unhealthy.is_some() {
            // The restored release failed its checks as well.
            note_health(offer, self.unhealthy.as_ref());
        }

        let serial = offer.release.header().serial;
        // If the restored release has the same serial, that one's order was restored too.
        if current(offer) != Some(serial)
            && let Err(e) = tree.keep_grant(serial, None)
        {
            tracing::warn!(
                "tree {}: cannot remove the order of a reverted release: {e}",
                tree.name()
            );
        }

        let mut text = match current(offer) {
            Some(serial) => format!("went back to {}@{serial}", tree.name()),
            None => "went back to what was there before".into(),
        };

        if self.changes
            && let Err(why) = run_after(
                offer,
                &HookContext {
                    previous,
                    ..occasion(offer, Cause::Revert)
                },
            )
        {
            text = format!("{text}; then the {why}");
        }

        Ordered::Reverted(text)
    }

    /// Answer to an order if a commit failed and cannot be undone.
    fn torn(&mut self, offer: &AdmittedOffer<'_>) -> Option<Ordered> {
        let (_, why) = offer.managed.tree.torn()?;
        self.state = SwitchState::Over;
        Some(Ordered::Torn(format!("the tree is {why}")))
    }

    /// Gives a release up before the commit.
    fn give_up(&mut self, offer: &AdmittedOffer<'_>, stage: &mut Option<Stage>) {
        if std::mem::replace(&mut self.state, SwitchState::Over) == SwitchState::Prepared
            && offer.managed.hooks.before.is_some()
            && self.changes
        {
            // The run itself logs a failure; no reply depends on it.
            let _ = run_after(offer, &occasion(offer, Cause::Abort));
        }

        *stage = None;
    }

    /// Ends the session; an unreverted commit becomes final.
    pub(super) fn close(&mut self, offer: &AdmittedOffer<'_>, stage: &mut Option<Stage>) {
        match self.state {
            SwitchState::Done(_) => self.make_final(offer),
            SwitchState::Before | SwitchState::Prepared => self.give_up(offer, stage),
            SwitchState::Over => {}
        }
    }

    fn make_final(&mut self, offer: &AdmittedOffer<'_>) {
        let tree = &offer.managed.tree;
        let plan = self.done.take();
        plan.iter().for_each(|plan| tree.note_written(plan));
        if let Err(e) = tree.forget_undo() {
            tracing::warn!(
                "tree {}: cannot remove the replaced content: {e}",
                tree.name()
            );
        }

        let many = plan.is_some_and(|plan| plan.changes.len() > SCAN_FROM_CHANGES);
        if many && !offer.ending.load(Ordering::Acquire) {
            // Scan now, while no release waits for it.
            drift_check::remember(offer.managed);
        }
    }

    /// Stores the commit order of the release, for hosts that missed it. The commit's reply does
    /// not wait for this.
    pub(super) fn keep_order(&mut self, offer: &AdmittedOffer<'_>) {
        let Some(order) = self
            .order
            .take_if(|_| matches!(self.state, SwitchState::Done(_)))
        else {
            return;
        };

        let tree = &offer.managed.tree;
        if let Err(e) = tree.keep_grant(offer.release.header().serial, Some(&to_vec(&order))) {
            tracing::warn!(
                "tree {}: hosts that missed the release cannot get it here: {e}",
                tree.name()
            );
        }
    }
}

/// The last failed checks of the current release.
fn known_failure(offer: &AdmittedOffer<'_>) -> Option<Unhealthy> {
    let tree = &offer.managed.tree;
    tree.state().unhealthy(tree.current().ok()??.release.id())
}

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

fn note_health(offer: &AdmittedOffer<'_>, failed: Option<&Unhealthy>) {
    let tree = &offer.managed.tree;
    if let Err(e) = tree.state().note_health(failed) {
        tracing::warn!(
            "tree {}: cannot store the result of its checks: {e}",
            tree.name()
        );
    }
}

/// Runs `after` to its end even if the daemon is ending, so restarted services run again.
fn run_after(offer: &AdmittedOffer<'_>, occasion: &HookContext) -> Result<(), ReasonText> {
    let never = AtomicBool::new(false);
    match offer.managed.hooks.run(Phase::After, occasion, &never) {
        Some(ended) => ended.map(drop).map_err(|failure| failure.to_string()),
        None => Ok(()),
    }
}

fn current(offer: &AdmittedOffer<'_>) -> Option<Serial> {
    offer
        .managed
        .tree
        .current()
        .ok()
        .flatten()
        .map(|stored| stored.release.header().serial)
}

fn occasion(offer: &AdmittedOffer<'_>, cause: Cause) -> HookContext {
    let tree = &offer.managed.tree;
    HookContext {
        tree: tree.name().clone(),
        serial: offer.release.header().serial,
        previous: current(offer),
        release: offer.release.id(),
        path: tree.root().path().to_path_buf(),
        host: offer.host.name.clone(),
        sender: Some(offer.sender.clone()),
        cause,
    }
}
