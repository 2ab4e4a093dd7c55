//! Runs a host's own commands in a session, with the facts about its release.

use std::sync::atomic::AtomicBool;

use super::offer::AdmittedOffer;
use crate::hook::{Cause, HookContext, Phase};
use crate::id::Serial;
use crate::proto::receiver::ReasonText;

/// Runs `after` to its end even if the daemon is ending, so restarted services run again.
pub(super) fn run_after(
    offer: &AdmittedOffer<'_>,
    occasion: &HookContext,
) -> Result<(), ReasonText> {
    let never = AtomicBool::new(false);
    match offer.rules.hooks.run(Phase::After, occasion, &never) {
        Some(ended) => ended.map(drop).map_err(|failure| failure.to_string()),
        None => Ok(()),
    }
}

/// Serial of the current release.
pub(super) fn current(offer: &AdmittedOffer<'_>) -> Option<Serial> {
    offer
        .managed
        .tree
        .current()
        .ok()
        .flatten()
        .map(|stored| stored.release.header().serial)
}

/// Facts for the host's commands.
pub(super) fn occasion(offer: &AdmittedOffer<'_>, cause: Cause) -> HookContext {
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
