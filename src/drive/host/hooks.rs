//! Runs a host's own commands in a session, with the facts about its release.

use std::sync::atomic::AtomicBool;

use super::offer::AdmittedOffer;
use crate::hook::{Cause, Failure, HookContext, Phase, RunRecord};
use crate::id::Serial;
use crate::proto::receiver::ReasonText;

/// Runs and counts the command of `phase`; `None` without a command.
pub(super) fn run(
    offer: &AdmittedOffer<'_>,
    phase: Phase,
    occasion: &HookContext,
    stop: &AtomicBool,
) -> Option<Result<RunRecord, Failure>> {
    let managed = offer.managed;
    let ended = offer.rules.hooks.run(phase, occasion, stop)?;
    let took = match &ended {
        Ok(record) => record.took,
        Err(failure) => failure.took,
    };

    offer.host.figures.hook_durations.of(phase).observe(took);
    if ended.is_err() {
        managed.figures.hook_failures.of(phase).add(1);
    }

    Some(ended)
}

/// Runs `after` to its end even if the daemon is ending, so restarted services run again.
pub(super) fn run_after(
    offer: &AdmittedOffer<'_>,
    occasion: &HookContext,
) -> Result<(), ReasonText> {
    let never = AtomicBool::new(false);
    match run(offer, Phase::After, occasion, &never) {
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
