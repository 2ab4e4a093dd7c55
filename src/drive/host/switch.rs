//! A session's switch to its release and back: the effects of the sender's signed orders, with the
//! host's own commands.
//!
//! | order | runs | does |
//! |---|---|---|
//! | prepare | `before` | nothing |
//! | commit | `before`, if not prepared; then `after` and `health` | the commit |
//! | stage | nothing | keeps the release staged after the session |
//! | revert | `after` | takes the commit back |
//! | abort, or the end of a prepared session | `after` | nothing |
//!
//! Commands run only if the release changes something. If the previous release failed its checks,
//! `health` runs again, and so does `after` if it was the one that failed; a sender can request
//! `health` everywhere. Replaced content is kept until the session ends.

use super::aftermath::{count_commit, drop_order, make_final, store_order};
use super::authorize::{check_allowed, check_signatures};
use super::checks::DueChecks;
use super::gate::ClosedGate;
use super::hooks::{self, current, occasion, run_after};
use super::offer::AdmittedOffer;
use super::staged::{forget_staged, keep_staged};
use super::staging::Staging;
use crate::drive::clock;
use crate::hook::{Cause, HookContext, Phase};
use crate::id::{Serial, SessionId};
use crate::keys::{Namespace, verify};
use crate::manifest::Intent;
use crate::proto::receiver::{Ordered, ReasonText};
use crate::tree::Committed;
use crate::wire::message::{Order, OrderKind, SignedOrder};

/// Progress of a switch.
#[derive(Default)]
enum SwitchState {
    /// No command has run.
    #[default]
    Before,
    /// The commands before a commit succeeded.
    Prepared,
    /// The release is committed.
    Done {
        /// Boxed: the other states are small.
        committed: Box<Committed>,
        /// Serial of the release before.
        previous: Option<Serial>,
    },
    /// The release was reverted or will not be committed.
    Over,
}

/// A session's switch to its release.
#[derive(Default)]
pub(super) struct Switch {
    state: SwitchState,
    checks: DueChecks,
    /// Commit order of the release: hosts that missed it may commit by it.
    order: Option<SignedOrder>,
}

impl Switch {
    /// Records whether the release changes anything here.
    pub(super) fn set_changes(&mut self, changes: bool) {
        self.checks.set_changes(changes);
    }

    /// Carries out an order. Returns `None` if the order is not for this session, by another key,
    /// or out of sequence.
    pub(super) fn order(
        &mut self,
        offer: &AdmittedOffer<'_>,
        staging: &mut Staging,
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
        let is_ours =
            order_key.orders_for(&offer.key) && is_about && order.release == offer.release.id();
        if !is_ours || offer.release.header().intent == Intent::Audit {
            return None;
        }

        let commits = matches!(order.kind, OrderKind::Prepare | OrderKind::Commit);
        let is_undecided = !matches!(self.state, SwitchState::Done { .. } | SwitchState::Over);
        if commits
            && is_undecided
            && let Some(gate) = ClosedGate::of(offer.managed, clock::wall_seconds())
        {
            self.give_up(offer, staging);
            return Some(Ordered::Vetoed(gate.why));
        }

        match (order.kind, &self.state) {
            (OrderKind::Prepare, SwitchState::Before) => Some(match self.prepare(offer, staging) {
                Ok(()) => Ordered::Prepared,
                Err(why) => Ordered::Vetoed(why),
            }),
            (OrderKind::Stage, SwitchState::Before) => self.stage(offer, staging),
            (OrderKind::Commit, SwitchState::Before | SwitchState::Prepared) => {
                self.order = Some(signed.clone());
                self.commit(offer, staging)
            }
            (OrderKind::Revert, SwitchState::Done { .. }) => self.revert(offer),
            (OrderKind::Abort | OrderKind::Revert, SwitchState::Before | SwitchState::Prepared) => {
                self.give_up(offer, staging);
                Some(forget_staged(offer).map_or_else(Ordered::Failed, |()| Ordered::Aborted))
            }
            _ => None,
        }
    }

    fn prepare(
        &mut self,
        offer: &AdmittedOffer<'_>,
        staging: &mut Staging,
    ) -> Result<(), ReasonText> {
        let occasion = occasion(offer, Cause::Commit);
        if self.checks.changes()
            && let Some(Err(failure)) = hooks::run(offer, Phase::Before, &occasion, &offer.ending)
        {
            self.state = SwitchState::Over;
            staging.abort();
            return Err(failure.to_string());
        }

        self.state = SwitchState::Prepared;
        Ok(())
    }

    /// Keeps the complete release staged after the session.
    fn stage(&mut self, offer: &AdmittedOffer<'_>, staging: &mut Staging) -> Option<Ordered> {
        if !staging.is_complete() {
            return None;
        }

        // The content stays in the stage, which is free for others.
        self.state = SwitchState::Over;
        staging.abort();
        Some(keep_staged(offer))
    }

    fn commit(&mut self, offer: &AdmittedOffer<'_>, staging: &mut Staging) -> Option<Ordered> {
        if !staging.is_complete() {
            return None;
        }

        // Keys and time may have changed during the transfer.
        let now = clock::wall_seconds();
        let (host, release) = (offer.host, &offer.release);
        let allowed = check_allowed(host, &offer.key, release, now)
            .and_then(|()| check_signatures(host, release, &offer.signature, now));
        if let Err(why) = allowed {
            self.give_up(offer, staging);
            return Some(Ordered::Failed(why));
        }

        if matches!(self.state, SwitchState::Before)
            && let Err(why) = self.prepare(offer, staging)
        {
            return Some(Ordered::Failed(why));
        }

        // The commands may have taken long.
        if let Some(gate) = ClosedGate::of(offer.managed, clock::wall_seconds()) {
            self.give_up(offer, staging);
            return Some(Ordered::Vetoed(gate.why));
        }

        let previous = current(offer);
        let again = previous == Some(offer.release.header().serial);
        self.checks.begin(offer);
        let staged = staging.take_complete()?;

        Some(match staged.commit(&offer.release, &offer.signature) {
            Ok(committed) => {
                let report = committed.report();
                count_commit(offer, &committed);
                tracing::info!("{} is in place: {report}", offer.release);
                offer.managed.drift_counts.clear();
                if again {
                    offer.managed.drift_counts.repaired(&offer.release, report);
                }
                self.state = SwitchState::Done {
                    committed: Box::new(committed),
                    previous,
                };
                Ordered::Committed {
                    serial: offer.release.header().serial,
                    checks: self.checks.on_committed(offer),
                }
            }
            Err(e) => {
                offer.managed.tree.drop_index(&e);
                self.give_up(offer, staging);
                self.torn(offer)
                    .unwrap_or_else(|| Ordered::Failed(e.with_hint()))
            }
        })
    }

    /// Runs the commands after a commit and records success or failure.
    pub(super) fn check(&self, offer: &AdmittedOffer<'_>) -> Result<(), ReasonText> {
        match self.state {
            SwitchState::Done { previous, .. } => self.checks.run(offer, previous),
            _ => Ok(()),
        }
    }

    /// Takes the commit back. If that fails with the tree whole, the release stays committed.
    fn revert(&mut self, offer: &AdmittedOffer<'_>) -> Option<Ordered> {
        let (committed, previous) = self.take_committed()?;
        if let Err(failed) = committed.revert() {
            return Some(self.torn(offer).unwrap_or_else(|| {
                self.state = SwitchState::Done {
                    committed: Box::new(failed.committed),
                    previous,
                };
                Ordered::Stuck(failed.error.with_hint())
            }));
        }

        let tree = &offer.managed.tree;
        self.checks.on_reverted(offer);
        drop_order(offer);
        let mut text = match current(offer) {
            Some(serial) => format!("went back to {}@{serial}", tree.name()),
            None => "went back to what was there before".into(),
        };

        if self.checks.changes()
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

        Some(Ordered::Reverted(text))
    }

    /// Takes the commit out, with the serial of the release before.
    fn take_committed(&mut self) -> Option<(Committed, Option<Serial>)> {
        match std::mem::replace(&mut self.state, SwitchState::Over) {
            SwitchState::Done {
                committed,
                previous,
            } => Some((*committed, previous)),
            other => {
                self.state = other;
                None
            }
        }
    }

    /// Answer to an order if a commit failed and cannot be undone.
    fn torn(&mut self, offer: &AdmittedOffer<'_>) -> Option<Ordered> {
        let (_, why) = offer.managed.tree.torn()?;
        self.state = SwitchState::Over;
        Some(Ordered::Torn(format!("the tree is {why}")))
    }

    /// Gives a release up before the commit.
    fn give_up(&mut self, offer: &AdmittedOffer<'_>, staging: &mut Staging) {
        let before = std::mem::replace(&mut self.state, SwitchState::Over);
        if matches!(before, SwitchState::Prepared)
            && offer.rules.hooks.before.is_some()
            && self.checks.changes()
        {
            // The run itself logs a failure; no reply depends on it.
            let _ = run_after(offer, &occasion(offer, Cause::Abort));
        }

        staging.abort();
    }

    /// Ends the session; an unreverted commit becomes final.
    pub(super) fn close(&mut self, offer: &AdmittedOffer<'_>, staging: &mut Staging) {
        match self.take_committed() {
            Some((committed, _)) => make_final(offer, committed),
            None if matches!(self.state, SwitchState::Over) => {}
            None => self.give_up(offer, staging),
        }
    }

    /// Stores the commit order of the release, for hosts that missed it. The commit's reply does
    /// not wait for this.
    pub(super) fn keep_order(&mut self, offer: &AdmittedOffer<'_>) {
        let Some(order) = self
            .order
            .take_if(|_| matches!(self.state, SwitchState::Done { .. }))
        else {
            return;
        };

        store_order(offer, &order);
    }
}
