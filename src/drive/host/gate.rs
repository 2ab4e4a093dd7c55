//! The gate before a commit: a hold, or the tree's window. A closed gate lets a release be staged.

use std::time::Duration;

use super::managed::ManagedTree;
use super::shared::LocalHost;
use crate::config::shown_weekly;
use crate::drive::clock;
use crate::error::{Error, Result};
use crate::id::TreeName;
use crate::keys::{Namespace, Role, shown_time, verify};
use crate::proto::receiver::ReasonText;
use crate::sync::locked;
use crate::tree::{Hold, HoldRecord};
use crate::units::{WallTime, shown_age};
use crate::wire::hold::{HeldReport, HoldOrder, HoldTerms, SignedHold};

/// Largest difference in seconds between the time of a signed order and this host's clock.
const MAX_ORDER_AGE: u64 = 600;
/// Longest pause before another attempt at a release that a closed gate kept out: a hold may end
/// early.
const MAX_GATE_PAUSE: Duration = Duration::from_secs(60);

/// A gate that is closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ClosedGate {
    /// Reason for people.
    pub(super) why: ReasonText,
    /// Time at which it opens.
    opens: WallTime,
}

impl ManagedTree {
    /// Returns whether the gate keeps releases with their order out at `now`.
    pub fn is_gated(&self, now: WallTime) -> bool {
        ClosedGate::of(self, now).is_some()
    }
}

impl ClosedGate {
    /// The gate of a tree at `now`, if closed.
    pub(super) fn of(managed: &ManagedTree, now: WallTime) -> Option<Self> {
        let held_until = {
            let record = locked(&managed.holding);
            let hold = record.hold.as_ref().filter(|hold| now < hold.until());
            hold.map(|hold| (held(hold), hold.until()))
        };
        if let Some((why, opens)) = held_until {
            return Some(Self { why, opens });
        }

        let rules = managed.rules();
        let window = rules
            .window
            .as_ref()
            .filter(|window| !window.is_open(now))?;
        let opens = window.next_opening(now);
        let next = shown_weekly(opens);
        Some(Self {
            why: format!("commits only {} UTC, next {next}", window.shown()),
            opens,
        })
    }

    /// Pause before the next attempt.
    pub(super) fn pause(&self, now: WallTime) -> Duration {
        let left = self.opens.0.saturating_sub(now.0).max(1) as u64;
        Duration::from_secs(left).min(MAX_GATE_PAUSE)
    }
}

/// "held by ops until 2026-12-01 02:00 UTC: database move"
fn held(hold: &Hold) -> ReasonText {
    let until = shown_time(hold.until());
    format!("held by {} until {until}: {}", hold.by, hold.why)
}

/// Report of the hold of a tree, if there is one.
pub(super) fn held_report(managed: &ManagedTree, now: WallTime) -> Option<HeldReport> {
    let record = locked(&managed.holding);
    let hold = record.hold.as_ref().filter(|hold| now < hold.until())?;
    Some(HeldReport {
        left: hold.until().0.saturating_sub(now.0).max(0) as u64,
        by: hold.by.clone(),
        why: hold.why.clone(),
    })
}

impl LocalHost {
    /// Holds `tree`, or all trees, by a person on this machine; `None` ends a hold. Returns the
    /// trees.
    pub fn hold(&self, tree: Option<&TreeName>, terms: Option<HoldTerms>) -> Result<Vec<TreeName>> {
        let trees = self.held_trees(tree)?;
        let now = clock::wall_seconds();
        for managed in &trees {
            let mut record = locked(&managed.holding);
            let ordered = record.ordered;
            *record = recorded(managed, terms.clone(), ordered, now)?;
        }

        Ok(trees.iter().map(|m| m.tree.name().clone()).collect())
    }

    /// Follows a signed order, if it is for this host, by a key that may deploy, and newer than the
    /// last one. The same order again changes nothing.
    pub(super) fn follow_hold(&self, signed: &SignedHold) -> Result<(), ReasonText> {
        let key = verify(Namespace::HOLD, &signed.order, &signed.signature)
            .map_err(|e| format!("the order is not signed: {e}"))?;
        let order = HoldOrder::decode(&signed.order).ok_or("it is no order to hold")?;
        if !order.hosts.contains(&self.name) {
            return Err("the order is for other hosts".into());
        }

        let trees = self
            .held_trees(order.tree.as_ref())
            .map_err(|e| e.with_hint())?;
        let now = clock::wall_seconds();
        let keys = self.keys();
        for managed in &trees {
            keys.allows(&key, managed.tree.name(), Role::Deploy, now)
                .map_err(|denied| denied.to_string())?;
        }

        let apart = (order.created / 1000).abs_diff(now.0.max(0) as u64);
        if apart > MAX_ORDER_AGE {
            return Err(format!(
                "the order was signed {} from now by this host's clock: see whether the clocks \
                 agree",
                shown_age(apart)
            ));
        }

        // All or none.
        for managed in &trees {
            if order.created < locked(&managed.holding).ordered {
                return Err(format!(
                    "tree {}: a later order about it was followed before; see whether the clocks \
                     of those who order agree",
                    managed.tree.name()
                ));
            }
        }

        for managed in &trees {
            let mut record = locked(&managed.holding);
            if order.created > record.ordered {
                *record = recorded(managed, order.hold.clone(), order.created, now)
                    .map_err(|e| e.with_hint())?;
            }
        }

        Ok(())
    }

    /// The tree `tree`, or all that are served.
    fn held_trees(&self, tree: Option<&TreeName>) -> Result<Vec<&ManagedTree>> {
        match tree {
            None => Ok(self.trees.iter().map(|(_, managed)| managed).collect()),
            Some(tree) => match self.trees.get(tree) {
                Some(managed) => Ok(vec![managed]),
                None => Err(Error::refused(format!("there is no tree {tree} here"))),
            },
        }
    }
}

/// Records a hold, or its end, on disk.
fn recorded(
    managed: &ManagedTree,
    terms: Option<HoldTerms>,
    ordered: u64,
    now: WallTime,
) -> Result<HoldRecord> {
    let hold = terms.map(HoldTerms::cleaned).map(|terms| {
        let until = WallTime(now.0.saturating_add_unsigned(terms.seconds));
        Hold::new(until, terms.by, terms.why)
    });

    let record = HoldRecord { hold, ordered };
    managed.tree.state().set_hold(&record)?;
    let tree = managed.tree.name();
    match &record.hold {
        Some(hold) => tracing::warn!("tree {tree}: {}", held(hold)),
        None => tracing::info!("tree {tree}: not held any more"),
    }
    Ok(record)
}
