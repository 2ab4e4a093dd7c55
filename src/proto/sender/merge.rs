//! How long wants are gathered before they are served, so that what many hosts want is sent once.

use std::time::Duration;

use super::hosts::Host;
use crate::proto::{alive_interval, turn};
use crate::units::Moment;
use crate::wire::HostStage;

/// The least time for hosts to ask for the same nodes.
const NODES: Duration = Duration::from_millis(4);
/// Hosts of a large fleet take their turns: what they want is not waited for longer than this, since they listen before
/// they speak.
const TURN_MAX: Duration = Duration::from_millis(250);
/// The least time that hosts which are still comparing are waited for before blocks are sent.
const BLOCKS: Duration = Duration::from_millis(250);
/// The longest.
const BLOCKS_MAX: Duration = Duration::from_secs(10);

/// Until when wants are gathered that were first heard at `held`, in a session of `hosts` hosts that have known
/// since `informed` what they need to ask; `nodes` says whether they are for nodes of the manifest. Of the hosts that are `working`, those that
/// are silent are not waited for.
pub fn until<'a>(
    now: Moment,
    informed: Moment,
    held: Moment,
    nodes: bool,
    hosts: u32,
    working: impl Iterator<Item = &'a Host>,
) -> Moment {
    let least = turn(hosts).min(TURN_MAX);
    let silence = alive_interval(hosts) * 2 + turn(hosts);
    let mut working = working.filter(|h| now.since(h.heard) < silence);
    if nodes {
        let asking = |h: &Host| !h.asked.0 && h.stage.is_none_or(|s| s <= HostStage::Fetching);
        return match working.any(asking) {
            true => held + least + BLOCKS,
            false if hosts > 1 => held + least + NODES,
            false => held,
        };
    }

    match working.any(is_comparing) {
        // Who took as long as this to compare may take as long again.
        true => held + least + (held.since(informed) * 2 + BLOCKS).min(BLOCKS_MAX),
        false => held,
    }
}

fn is_comparing(host: &Host) -> bool {
    // A want is often heard before the word of the stage in which it is said.
    let wants = match host.stage {
        None => true,
        Some(HostStage::Staging) => host.summary.is_some_and(|s| s.fetch > 0),
        Some(stage) => stage < HostStage::Staging,
    };
    wants && !host.asked.1
}
