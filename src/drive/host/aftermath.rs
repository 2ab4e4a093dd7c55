//! What follows a commit: counters, the order for hosts that missed the release, and the end of the
//! replaced content.

use std::sync::atomic::Ordering;

use super::drift_check;
use super::hooks::current;
use super::offer::AdmittedOffer;
use crate::manifest::node::to_vec;
use crate::tree::Committed;
use crate::wire::message::SignedOrder;

/// Number of changes in a commit from which the tree is scanned at once, to spare the next release
/// the work.
const SCAN_FROM_CHANGES: usize = 1000;

/// Counts a commit.
pub(super) fn count_commit(offer: &AdmittedOffer<'_>, committed: &Committed) {
    let figures = &offer.managed.figures;
    let report = committed.report();
    figures.files_written.add(report.files_written);
    figures.files_deleted.add(report.deleted);
    figures
        .reused_bytes
        .add(committed.plan().summary.reuse_bytes);
}

/// Stores the commit order of a release, for hosts that missed it.
pub(super) fn store_order(offer: &AdmittedOffer<'_>, order: &SignedOrder) {
    let tree = &offer.managed.tree;
    if let Err(e) = tree.keep_grant(offer.release.header().serial, Some(&to_vec(order))) {
        tracing::warn!(
            "tree {}: hosts that missed the release cannot get it here: {e}",
            tree.name()
        );
    }
}

/// Removes the order of a reverted release. If the restored release has the same serial, that one's
/// order was restored too, and stays.
pub(super) fn drop_order(offer: &AdmittedOffer<'_>) {
    let tree = &offer.managed.tree;
    let serial = offer.release.header().serial;
    if current(offer) != Some(serial)
        && let Err(e) = tree.keep_grant(serial, None)
    {
        tracing::warn!(
            "tree {}: cannot remove the order of a reverted release: {e}",
            tree.name()
        );
    }
}

/// Makes a commit final, and scans the tree after many changes.
pub(super) fn make_final(offer: &AdmittedOffer<'_>, committed: Committed) {
    let many = committed.plan().changes.len() > SCAN_FROM_CHANGES;
    if let Err(e) = committed.confirm() {
        tracing::warn!(
            "tree {}: cannot remove the replaced content: {e}",
            offer.managed.tree.name()
        );
    }

    if many && !offer.ending.load(Ordering::Acquire) {
        // Scan now, while no release waits for it.
        drift_check::remember(offer.managed);
    }
}
