//! Signature checks of orders that belong to no session of this host: few at a time, none twice.

use std::collections::{BTreeSet, VecDeque};

use crate::block::BlockHash;
use crate::wire::message::SignedOrder;

/// Largest number of pending checks.
pub(super) const MAX_PENDING_CHECKS: usize = 4;
/// Number of remembered orders with invalid signatures.
const MAX_REFUSED_ORDERS: usize = 64;

/// Pending and failed checks.
#[derive(Debug, Default)]
pub(super) struct OrderChecks {
    /// Hashes of the orders with a pending check.
    pending: BTreeSet<BlockHash>,
    refused: VecDeque<BlockHash>,
}

impl OrderChecks {
    /// Returns whether the disk is to check the order now.
    pub(super) fn begin(&mut self, signed: &SignedOrder) -> bool {
        let hash = hash_of(signed);
        self.pending.len() < MAX_PENDING_CHECKS
            && !self.refused.contains(&hash)
            && self.pending.insert(hash)
    }

    /// Ends a check.
    pub(super) fn end(&mut self, signed: &SignedOrder, holds: bool) {
        let hash = hash_of(signed);
        self.pending.remove(&hash);
        if holds {
            return;
        }

        self.refused.push_back(hash);
        if self.refused.len() > MAX_REFUSED_ORDERS {
            self.refused.pop_front();
        }
    }
}

fn hash_of(signed: &SignedOrder) -> BlockHash {
    BlockHash::of(&[&signed.order[..], &signed.signature[..]].concat())
}
