//! Time for which wants are gathered before packing, so that content wanted by many hosts is sent
//! once.

use std::time::Duration;

use super::hosts::Host;
use crate::proto::{alive_interval, slot_interval};
use crate::units::Moment;
use crate::wire::HostStage;

/// Shortest time for hosts to want the same nodes.
const NODE_WINDOW: Duration = Duration::from_millis(4);
/// Longest wait for the slots of a large fleet. Later hosts listen before they send a want.
const MAX_SLOT_WAIT: Duration = Duration::from_millis(250);
/// Shortest wait for hosts that still compare before blocks are sent.
const BLOCK_WINDOW: Duration = Duration::from_millis(250);
/// Longest wait for hosts that still compare.
const MAX_BLOCK_WINDOW: Duration = Duration::from_secs(10);

/// Returns the time until which wants are gathered.
///
/// The first want arrived at `held`, in a session of `hosts` hosts that have been able to ask since
/// `informed`. Set `nodes` for wants of manifest nodes. Silent hosts among the `working` ones are
/// not awaited.
pub fn closes_at<'a>(
    now: Moment,
    informed: Moment,
    held: Moment,
    nodes: bool,
    hosts: u32,
    working: impl Iterator<Item = &'a Host>,
) -> Moment {
    let least = slot_interval(hosts).min(MAX_SLOT_WAIT);
    let silence = alive_interval(hosts) * 2 + slot_interval(hosts);
    let mut working = working.filter(|h| now.since(h.heard) < silence);
    if nodes {
        let asking = |h: &Host| !h.asked.0 && h.stage.is_none_or(|s| s <= HostStage::Fetching);
        return match working.any(asking) {
            true => held + least + BLOCK_WINDOW,
            false if hosts > 1 => held + least + NODE_WINDOW,
            false => held,
        };
    }

    match working.any(is_comparing) {
        // A comparison that has taken this long may take as long again.
        true => held + least + (held.since(informed) * 2 + BLOCK_WINDOW).min(MAX_BLOCK_WINDOW),
        false => held,
    }
}

fn is_comparing(host: &Host) -> bool {
    // A want often arrives before the state of its stage.
    let wants = match host.stage {
        None => true,
        Some(HostStage::Staging) => host.summary.is_some_and(|s| s.fetch > 0),
        Some(stage) => stage < HostStage::Staging,
    };
    wants && !host.asked.1
}
