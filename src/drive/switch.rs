//! A session's switch to its release, and back: what the sender's signed orders do to the tree, with the host's own
//! commands around it.
//!
//! | order | runs | does |
//! |---|---|---|
//! | prepare | `before` | nothing |
//! | commit | `before`, when it was not prepared; then `after` and `health` | the commit |
//! | revert | `after` | takes the commit back |
//! | abort, or the end of a session that was prepared | `after` | nothing |
//!
//! Commands run only where the release changes something. Where the release in place did not pass its checks, `health`
//! runs again, and `after` where it failed; a sender can ask for `health` everywhere. What a commit replaced is kept
//! until the session ends.

use std::sync::atomic::{AtomicBool, Ordering};

use super::clock;
use super::disk::reason;
use super::rights::check_allowed;
use super::session::Session;
use crate::hook::{Cause, HookContext, Phase};
use crate::id::{Serial, SessionId};
use crate::keys::{Namespace, verify};
use crate::manifest::Intent;
use crate::manifest::node::to_vec;
use crate::proto::receiver::{Ordered, ReasonText};
use crate::tree::{Mark, Unhealthy};
use crate::wire::message::{Order, OrderKind, SignedOrder};

/// After a commit of more changes than this the tree is looked at, so that it is known when the next release comes.
const MANY: usize = 1000;

/// How far a session's switch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Switch {
    /// Nothing was run yet.
    Before,
    /// What runs before a commit has agreed.
    Prepared,
    /// The release is in place, and was preceded by this one.
    Done(Option<Serial>),
    /// It was taken back, or will not be put in place.
    Over,
}

impl Session<'_> {
    /// `None`: not an order by the key of the release for this session, or not one that we can follow now.
    pub(super) fn order(&mut self, id: SessionId, signed: &SignedOrder) -> Option<Ordered> {
        let order_key = verify(Namespace::ORDER, &signed.order, &signed.signature).ok()?;
        let granted = self
            .grant
            .as_ref()
            .is_some_and(|grant| grant.order == signed.order);
        let order = match granted {
            // Whether it lets this host commit was seen when it came.
            true => Order::decode(&signed.order)?,
            false => signed.for_host(&self.host.name)?,
        };

        // A release that is taken back is, whichever session it came by.
        let is_about = order.session == id || granted || order.tombstone().is_some();
        let is_ours = order_key == self.key && is_about && order.release == self.release.id();
        if !is_ours || self.release.header().intent == Intent::Audit {
            return None;
        }

        match (order.kind, self.switch) {
            (OrderKind::Prepare, Switch::Before) => Some(match self.prepare() {
                Ok(()) => Ordered::Prepared,
                Err(why) => Ordered::Vetoed(why),
            }),
            (OrderKind::Commit, Switch::Before | Switch::Prepared) => {
                self.order = Some(signed.clone());
                self.commit()
            }
            (OrderKind::Revert, Switch::Done(previous)) => Some(self.revert(previous)),
            (OrderKind::Abort | OrderKind::Revert, Switch::Before | Switch::Prepared) => {
                self.give_up();
                Some(Ordered::Aborted)
            }
            _ => None,
        }
    }

    fn prepare(&mut self) -> Result<(), ReasonText> {
        let occasion = self.occasion(Cause::Commit);
        if self.changes
            && let Some(Err(failure)) =
                self.managed
                    .hooks
                    .run(Phase::Before, &occasion, &self.ending)
        {
            self.switch = Switch::Over;
            self.stage = None;
            return Err(failure.to_string());
        }

        self.switch = Switch::Prepared;
        Ok(())
    }

    fn commit(&mut self) -> Option<Ordered> {
        // Before it is complete there is nothing to commit.
        self.stage.as_ref().filter(|stage| stage.is_finished())?;
        // Both may have changed while the release was on its way.
        if let Err(why) = check_allowed(self.host, &self.key, &self.release, clock::wall_seconds())
        {
            self.give_up();
            return Some(Ordered::Failed(why));
        }

        if self.switch == Switch::Before
            && let Err(why) = self.prepare()
        {
            return Some(Ordered::Failed(why));
        }

        let previous = self.current();
        let again = previous == Some(self.release.header().serial);
        self.unhealthy = self.known_failure();
        let stage = self.stage.take()?;

        Some(match stage.commit(&self.release, &self.signature) {
            Ok(report) => {
                tracing::info!("{}: {report:?}", self.release);
                self.managed.inspections.made_good();
                if again {
                    self.managed.inspections.repaired(&self.release, &report);
                }
                self.switch = Switch::Done(previous);
                self.done = Some(stage.into_plan());
                let checks = self.runs_after() || self.runs_health();
                if checks {
                    // The next deploy checks again when this daemon dies meanwhile.
                    self.note_failure(self.runs_after(), "");
                } else if self.unhealthy.is_some() {
                    self.note_health(None);
                }
                Ordered::Committed {
                    serial: self.release.header().serial,
                    checks,
                }
            }
            Err(e) => {
                self.managed.tree.drop_index(&e);
                self.give_up();
                self.torn().unwrap_or_else(|| Ordered::Failed(reason(&e)))
            }
        })
    }

    /// Runs what is to run after the commit, and sees whether all is well.
    pub(super) fn check(&self) -> Result<(), ReasonText> {
        let Switch::Done(previous) = self.switch else {
            return Ok(());
        };

        let occasion = HookContext {
            previous,
            ..self.occasion(Cause::Commit)
        };

        if self.runs_after()
            && let Err(why) = self.after(&occasion)
        {
            self.note_failure(true, &why);
            return Err(why);
        }

        if self.runs_health()
            && let Some(Err(failure)) =
                self.managed
                    .hooks
                    .run(Phase::Health, &occasion, &self.ending)
        {
            let why = failure.to_string();
            self.note_failure(false, &why);
            return Err(why);
        }

        self.note_health(None);
        Ok(())
    }

    /// Whether `after` follows the commit: something changes, or it failed with the same content before.
    fn runs_after(&self) -> bool {
        let failed = self.unhealthy.as_ref().is_some_and(|failed| failed.after);
        (self.changes || failed) && self.managed.hooks.after.is_some()
    }

    /// Whether the health check follows the commit.
    fn runs_health(&self) -> bool {
        let asked = self.changes || self.how.recheck || self.unhealthy.is_some();
        asked && self.managed.hooks.health.is_some()
    }

    fn revert(&mut self, previous: Option<Serial>) -> Ordered {
        let tree = &self.managed.tree;
        if let Err(e) = tree.revert() {
            return self.torn().unwrap_or_else(|| Ordered::Stuck(reason(&e)));
        }

        self.switch = Switch::Over;
        if self.unhealthy.is_some() {
            // What is back failed its checks as well.
            self.note_health(self.unhealthy.as_ref());
        }

        let serial = self.release.header().serial;
        // The order of another release of its serial is back with that.
        if self.current() != Some(serial)
            && let Err(e) = tree.keep_grant(serial, None)
        {
            tracing::warn!(
                "tree {}: the order of a release that was taken back is still kept: {e}",
                tree.name()
            );
        }

        let mut text = match self.current() {
            Some(serial) => format!("went back to {}@{serial}", tree.name()),
            None => "went back to what was there before".into(),
        };

        if self.changes
            && let Err(why) = self.after(&HookContext {
                previous,
                ..self.occasion(Cause::Revert)
            })
        {
            text = format!("{text}; then the {why}");
        }

        Ordered::Reverted(text)
    }

    /// What the release in place failed its last checks with.
    fn known_failure(&self) -> Option<Unhealthy> {
        let tree = &self.managed.tree;
        tree.state().unhealthy(tree.current().ok()??.release.id())
    }

    fn note_failure(&self, after: bool, text: &str) {
        let mark = Mark::of(&self.release);
        self.note_health(Some(&Unhealthy {
            mark,
            after,
            text: text.to_string(),
        }));
    }

    fn note_health(&self, failed: Option<&Unhealthy>) {
        let tree = &self.managed.tree;
        if let Err(e) = tree.state().note_health(failed) {
            tracing::warn!(
                "tree {}: whether it is healthy is not kept: {e}",
                tree.name()
            );
        }
    }

    /// What became of an order when a commit failed and cannot be undone.
    fn torn(&mut self) -> Option<Ordered> {
        let (_, why) = self.managed.tree.torn()?;
        self.switch = Switch::Over;
        Some(Ordered::Torn(format!("the tree is {why}")))
    }

    /// The release will not be put in place: what was begun for it ends.
    fn give_up(&mut self) {
        if std::mem::replace(&mut self.switch, Switch::Over) == Switch::Prepared
            && self.managed.hooks.before.is_some()
            && self.changes
        {
            // It is logged where it runs, and nobody waits for it.
            let _ = self.after(&self.occasion(Cause::Abort));
        }

        self.stage = None;
    }

    /// The session is over: a commit that nobody took back is for good.
    pub(super) fn close(&mut self) {
        let tree = &self.managed.tree;
        match self.switch {
            Switch::Done(_) => {
                let plan = self.done.take();
                plan.iter().for_each(|plan| tree.note_written(plan));
                if let Err(e) = tree.forget_undo() {
                    tracing::warn!(
                        "tree {}: what the commit replaced cannot be removed: {e}",
                        tree.name()
                    );
                }
                let many = plan.is_some_and(|plan| plan.changes.len() > MANY);
                if many && !self.ending.load(Ordering::Acquire) {
                    // Now, when nobody waits for it, and not when the next release does.
                    self.managed.get_to_know();
                }
            }
            Switch::Before | Switch::Prepared => self.give_up(),
            Switch::Over => {}
        }
    }

    /// Keeps the order by which the release was committed, for those that miss it. Nobody waits for that.
    pub(super) fn keep_order(&mut self) {
        let Some(order) = self
            .order
            .take_if(|_| matches!(self.switch, Switch::Done(_)))
        else {
            return;
        };

        let tree = &self.managed.tree;
        if let Err(e) = tree.keep_grant(self.release.header().serial, Some(&to_vec(&order))) {
            tracing::warn!(
                "tree {}: hosts that missed the release cannot get it here: {e}",
                tree.name()
            );
        }
    }

    /// Runs to its end even when the daemon is ending: what it restarts is to run again.
    fn after(&self, occasion: &HookContext) -> Result<(), ReasonText> {
        let never = AtomicBool::new(false);
        match self.managed.hooks.run(Phase::After, occasion, &never) {
            Some(ended) => ended.map(drop).map_err(|failure| failure.to_string()),
            None => Ok(()),
        }
    }

    fn current(&self) -> Option<Serial> {
        self.managed
            .tree
            .current()
            .ok()
            .flatten()
            .map(|stored| stored.release.header().serial)
    }

    fn occasion(&self, cause: Cause) -> HookContext {
        let tree = &self.managed.tree;
        HookContext {
            tree: tree.name().clone(),
            serial: self.release.header().serial,
            previous: self.current(),
            release: self.release.id(),
            path: tree.root().path().to_path_buf(),
            host: self.host.name.clone(),
            sender: Some(self.sender.clone()),
            cause,
        }
    }
}
