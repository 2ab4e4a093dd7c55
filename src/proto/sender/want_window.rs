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
/// Shortest wait for the answer of a host to the announcement, which is repeated meanwhile.
const ANSWER_WINDOW: Duration = Duration::from_millis(150);
/// Longest wait for hosts that still compare.
const MAX_BLOCK_WINDOW: Duration = Duration::from_secs(10);

/// Gathering of wants in one session.
#[derive(Debug)]
pub struct WantWindow {
    /// Set when nothing was left to send as the last generation arrived.
    starved: bool,
    /// Time of the first pending want while the stream was idle.
    wants_since: Option<Moment>,
    /// Time of the announcement.
    announced: Moment,
    /// Time from the announcement to the first want of all.
    first_answer: Option<Duration>,
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
            announced: now,
            first_answer: None,
            can_ask_since: now,
        }
    }

    /// Returns whether the link waited for the last generation.
    pub fn is_starved(&self) -> bool {
        self.starved
    }

    /// Records the announcement: hosts can ask from now on.
    pub fn on_announced(&mut self, now: Moment) {
        self.announced = now;
        self.on_informed(now);
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
        self.first_answer
            .get_or_insert_with(|| now.since(self.announced));
    }

    /// Records that no wants are pending.
    pub fn on_drained(&mut self) {
        self.wants_since = None;
    }

    /// Returns the time until which pending wants are gathered, in a session of `hosts` hosts. Set
    /// `nodes` for wants of manifest nodes. Silent hosts among the `working` ones are not awaited,
    /// and those without any answer to the announcement only as long as an answer may take.
    pub fn closes_at<'a>(
        &self,
        now: Moment,
        nodes: bool,
        hosts: u32,
        working: impl Iterator<Item = &'a Host>,
    ) -> Option<Moment> {
        let first_want = self.wants_since?;
        let least = slot_interval(hosts).min(MAX_SLOT_WAIT);
        let is_awaited = |h: &&Host| match nodes {
            true => is_asking(h),
            false => is_comparing(h),
        };
        let working = working.filter(|h| h.is_present(now, hosts as usize));
        let mut awaited = working.filter(is_awaited).map(|h| h.stage.is_some());
        let first = awaited.next();
        let has_answered = first == Some(true) || awaited.any(|answered| answered);

        let soonest = match nodes {
            true if hosts > 1 => first_want + least + NODE_WINDOW,
            _ => first_want,
        };
        // A comparison that has taken this long may take as long again.
        let compared = first_want.since(self.can_ask_since);
        let window = match nodes {
            true => BLOCK_WINDOW,
            false => (compared * 2 + BLOCK_WINDOW).min(MAX_BLOCK_WINDOW),
        };
        let latest = first_want + least + window;

        Some(match first {
            None => soonest,
            Some(_) if has_answered => latest,
            Some(_) => latest.min(soonest.max(self.answered_until(hosts))),
        })
    }

    /// Time until which each of `hosts` hosts has answered the announcement, if it ever does: they
    /// answer before any work, and most have got it twice.
    fn answered_until(&self, hosts: u32) -> Moment {
        let quickest = self.first_answer.unwrap_or_default();
        self.announced + slot_interval(hosts) * 2 + ANSWER_WINDOW.max(quickest * 2)
    }
}

fn is_asking(host: &Host) -> bool {
    !host.transfer.asked.nodes && host.stage.is_none_or(|stage| stage <= HostStage::Fetching)
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
