//! Orders by which every host may commit the release in place, from sessions of other hosts.
//!
//! A release that commits batch by batch is ordered for the hosts of each batch, and for all hosts
//! with the last one. Hosts of earlier batches take no part in that session, and keep its order to
//! pass the release on to hosts that were away.

use std::collections::BTreeMap;

use super::order_checks::OrderChecks;
use crate::id::TreeName;
use crate::manifest::ReleaseId;
use crate::wire::message::{Order, SignedOrder, TreeState};

/// Orders for all hosts that this host has heard.
#[derive(Debug, Default)]
pub(super) struct OpenOrders {
    /// Releases whose order is kept.
    kept: BTreeMap<TreeName, ReleaseId>,
    checks: OrderChecks,
}

impl OpenOrders {
    /// Handles an unverified order. Returns whether the disk is to check and keep it.
    pub(super) fn on_order(&mut self, signed: &SignedOrder, own: &[TreeState]) -> bool {
        let Some(order) = Order::decode(&signed.order).filter(Order::commits_everywhere) else {
            return false;
        };
        let Some(tree) = &order.tree else {
            return false;
        };

        let runs = |state: &TreeState| state.tree == *tree && state.release == Some(order.release);
        own.iter().any(runs)
            && self.kept.get(tree) != Some(&order.release)
            && self.checks.begin(signed)
    }

    /// Handles the result of a check.
    pub(super) fn on_checked(&mut self, signed: &SignedOrder, holds: bool) {
        self.checks.end(signed, holds);
        if let Some(order) = Order::decode(&signed.order).filter(|_| holds)
            && let Some(tree) = order.tree
        {
            self.kept.insert(tree, order.release);
        }
    }
}
