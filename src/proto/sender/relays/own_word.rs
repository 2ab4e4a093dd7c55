//! What hosts say of themselves as relays: that they drop data, or nothing at all.
//!
//! A host can only accuse itself, so its word counts at once.

use std::time::Duration;

use super::Relays;
use super::relay::{Relay, RelayState};
use crate::id::InstanceId;
use crate::units::Moment;

/// Time for which drops of other relays show that all have too much to pass on.
const OVERLOAD_MEMORY: Duration = Duration::from_millis(300);
/// Share of the relays that drop data by which all have too much: one in this many.
const OVERLOADED_SHARE: usize = 4;

impl Relays {
    /// Takes the number of datagrams that a host was to pass on and dropped. Returns whether it is
    /// out for that. If several relays drop data, the rate is too high and all stay.
    pub fn on_unrelayed(&mut self, now: Moment, host: InstanceId, total: u64) -> bool {
        let overloaded = self.overloaded(now, host);
        let takes = self.active.len() + self.on_trial.len();
        let least = self.least_left();
        let Some(relay) = self.relay_mut(host) else {
            return false;
        };

        let rose = relay.drops.on_count(now, total);
        if !rose || relay.is_out() || !relay.is_present {
            return false;
        }

        let is_on_trial = matches!(relay.state, RelayState::Trial(_));
        let is_shared = overloaded > 0 && overloaded * OVERLOADED_SHARE >= takes;
        if !is_on_trial && (is_shared || takes <= least) {
            return false;
        }

        relay.take_out(now);
        self.arrange();
        true
    }

    /// Number of the other relays that dropped data lately.
    fn overloaded(&self, now: Moment, host: InstanceId) -> usize {
        let is_recent = |at: Moment| now.since(at) < OVERLOAD_MEMORY;
        let drops = |relay: &&Relay| relay.host != host && relay.drops.at.is_some_and(is_recent);
        self.relays.iter().filter(drops).count()
    }

    /// Takes the hosts that are not fit to pass data on. Returns whether there are new ones: the
    /// others miss what those were to pass on.
    pub fn set_unfit(&mut self, unfit: impl Iterator<Item = InstanceId>) -> bool {
        let next = self.log.end();
        let unfit: Vec<InstanceId> = unfit.collect();
        let (mut changed, mut has_new) = (false, false);
        for relay in &mut self.relays {
            let is_unfit = unfit.contains(&relay.host);
            let is_new = relay.set_unfit(is_unfit, next);
            changed |= is_new;
            has_new |= is_new && is_unfit;
        }

        if changed {
            self.arrange();
        }
        has_new
    }
}
