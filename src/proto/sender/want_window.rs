//! Time for which wants are gathered before packing, so that content wanted by many hosts is sent
//! once.

use std::time::Duration;

use super::hosts::Host;
use crate::proto::slot_interval;
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

/// Gathering of wants in one session.
#[derive(Debug)]
pub struct WantWindow {
    /// Set when nothing was left to send as the last generation arrived.
    starved: bool,
    /// Time of the first pending want while the stream was idle.
    wants_since: Option<Moment>,
    /// Time since which hosts can derive their next wants, from the announcement and later from
    /// manifest nodes.
    can_ask_since: Moment,
}

impl WantWindow {
    /// Creates the state of a session in which hosts can ask from now on.
    pub fn new(now: Moment) -> Self {
        Self {
            starved: false,
            wants_since: None,
            can_ask_since: now,
        }
    }

    /// Returns whether the link waited for the last generation.
    pub fn is_starved(&self) -> bool {
        self.starved
    }

    /// Records that hosts can derive further wants from now on.
    pub fn on_informed(&mut self, now: Moment) {
        self.can_ask_since = now;
    }

    /// Records whether the link waited for the generation that has arrived.
    pub fn on_packed(&mut self, starved: bool) {
        self.starved = starved;
    }

    /// Records that wants are pending.
    pub fn on_wants(&mut self, now: Moment) {
        self.wants_since.get_or_insert(now);
    }

    /// Records that no wants are pending.
    pub fn on_drained(&mut self) {
        self.wants_since = None;
    }

    /// Returns the time until which pending wants are gathered, in a session of `hosts` hosts. Set
    /// `nodes` for wants of manifest nodes. Silent hosts among the `working` ones are not awaited.
    pub fn closes_at<'a>(
        &self,
        now: Moment,
        nodes: bool,
        hosts: u32,
        working: impl Iterator<Item = &'a Host>,
    ) -> Option<Moment> {
        let first_want = self.wants_since?;
        let least = slot_interval(hosts).min(MAX_SLOT_WAIT);
        let mut working = working.filter(|h| h.is_present(now, hosts as usize));
        if nodes {
            let asking = |h: &Host| {
                !h.transfer.asked.nodes && h.stage.is_none_or(|s| s <= HostStage::Fetching)
            };
            return Some(match working.any(asking) {
                true => first_want + least + BLOCK_WINDOW,
                false if hosts > 1 => first_want + least + NODE_WINDOW,
                false => first_want,
            });
        }

        if !working.any(is_comparing) {
            return Some(first_want);
        }

        // A comparison that has taken this long may take as long again.
        let compared = first_want.since(self.can_ask_since);
        Some(first_want + least + (compared * 2 + BLOCK_WINDOW).min(MAX_BLOCK_WINDOW))
    }
}

fn is_comparing(host: &Host) -> bool {
    // A want often arrives before the state of its stage.
    let wants = match host.stage {
        None => true,
        Some(HostStage::Staging) => host.summary.is_some_and(|s| s.fetch > 0),
        Some(stage) => stage < HostStage::Staging,
    };
    wants && !host.transfer.asked.blocks
}
