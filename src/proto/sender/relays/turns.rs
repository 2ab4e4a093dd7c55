//! Turns of the relays: each passes on as much as any other.
//!
//! Trains differ in size with the rate, and hosts become relays one after the other. So the next
//! relay is the one behind the last, wherever others were added to the list, and a relay that is
//! ahead of its share by a train misses turns.

use super::Relays;
use super::trains::RelayIndex;

/// A relay on trial gets one train while each other relay gets this many.
pub(super) const TRIAL_TURNS: u64 = 8;
/// Parts of a datagram in which shares are counted.
const PARTS: u64 = 1 << 16;
/// Datagrams that a relay is behind its share at most: one that was out makes up for little.
const MAX_BEHIND: u64 = 32;

/// State of the turns.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Relay of the last train, except one on trial.
    last: Option<RelayIndex>,
    trial: usize,
    /// Trains since the last one on trial.
    since_trial: u64,
    /// Datagrams of one relay so far if all had taken equally many, in parts.
    share: u64,
    /// Datagrams of the last train of new data.
    train: u64,
}

impl Turns {
    /// Counts a train without any relay on trial.
    pub(super) fn begin_train(&mut self) {
        self.since_trial += 1;
    }

    /// Returns whether a relay that took so many parts is ahead of its share by a train.
    fn is_ahead(&self, taken: u64) -> bool {
        taken >= self.share + self.train * PARTS
    }
}

impl Relays {
    pub(super) fn is_trial_due(&self) -> bool {
        let turns = self.active.len().max(1) as u64 * TRIAL_TURNS;
        self.on_trial.len() as u64 * self.turns.since_trial > turns
    }

    pub(super) fn next_on_trial(&mut self) -> Option<RelayIndex> {
        self.turns.since_trial = 0;
        self.turns.trial = (self.turns.trial + 1) % self.on_trial.len().max(1);
        self.on_trial.get(self.turns.trial).copied()
    }

    /// Records that a relay takes a train in its turn. Repairs are no part of its share, because
    /// some relays get none.
    pub(super) fn on_turn(&mut self, at: RelayIndex, datagrams: u64, is_repair: bool) {
        let turns = &mut self.turns;
        turns.last = Some(at);
        if is_repair {
            return;
        }

        let parts = datagrams * PARTS;
        let least = turns.share.saturating_sub(MAX_BEHIND * PARTS);
        turns.share += parts / self.active.len().max(1) as u64;
        turns.train = datagrams;
        if let Some(relay) = self.relays.get_mut(usize::from(at.0)) {
            relay.taken = relay.taken.max(least) + parts;
        }
    }

    /// Returns the relay of a train of new data: the next in turn that is not ahead of its share.
    pub(super) fn next_active(&self) -> Option<RelayIndex> {
        let mut order = self.in_turn();
        let is_even = |at: &RelayIndex| {
            let relay = self.relays.get(usize::from(at.0));
            relay.is_some_and(|relay| !self.turns.is_ahead(relay.taken))
        };
        order.clone().find(is_even).or_else(|| order.next())
    }

    /// Returns the relay of a repair: not the one that took the datagram `lost`, and none that is
    /// suspect while others are left.
    pub(super) fn next_for_repair(&self, lost: u64) -> Option<RelayIndex> {
        let taker = match lost {
            0 => None,
            lost => self.log.run_of(lost).and_then(|run| run.relay),
        };

        let spares_suspects = self.active.len() >= self.suspects + 2;
        let is_suspect = |at: RelayIndex| {
            let relay = self.relays.get(usize::from(at.0));
            relay.is_some_and(|relay| relay.is_suspect && spares_suspects)
        };
        let mut order = self.in_turn();
        let other = order
            .clone()
            .find(|at| Some(*at) != taker && !is_suspect(*at));
        other.or_else(|| order.next())
    }

    /// Relays in the order of their turns, the one behind the last first.
    fn in_turn(&self) -> impl Iterator<Item = RelayIndex> + Clone {
        let place = |at: RelayIndex| Some(self.relays.get(usize::from(at.0))?.place);
        let last = self.turns.last.and_then(place);
        let next = self.active.partition_point(|at| place(*at) <= last);
        let (before, after) = self.active.split_at(next);
        after.iter().chain(before).copied()
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::id::InstanceId;
    use crate::proto::sender::generation::SentDatagrams;
    use crate::units::Moment;

    /// Datagrams that a relay may take more than the mean: two trains of the later size.
    const MAX_AHEAD: u64 = 12;

    fn address(host: usize) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], host as u16))
    }

    /// Sends trains to relays of which `first` begin, and `later` join one after the other. Returns
    /// the datagrams of those that begin.
    fn taken_by_first(seed: u64, first: usize, later: usize) -> Vec<u64> {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut hosts: Vec<usize> = (0..first + later).collect();
        rng.shuffle(&mut hosts);
        let mut joining = hosts.split_off(first);
        let begun = hosts.clone();

        let mut relays = Relays::default();
        let mut taken = vec![0; first + later];
        let (mut end, all) = (0, 40 * taken.len() as u64);
        while end < all {
            if end == 0 || rng.u32(..10) == 0 {
                hosts.extend(joining.pop());
                hosts.sort_unstable();
                let able = hosts
                    .iter()
                    .map(|at| (InstanceId(*at as u64), address(*at)));
                relays.choose(Moment(0), 1, able);
            }

            // The rate falls after the first data.
            let most = if end < all / 10 { 32 } else { MAX_AHEAD / 2 };
            let datagrams = rng.u64(1..=most);
            let train = SentDatagrams {
                datagrams,
                repairs: 0,
                lost: 0,
            };
            assert!(relays.begin_train());
            let relay = relays.take(end..end + datagrams, &train).expect("a relay");
            taken[usize::from(relay.port())] += datagrams;
            end += datagrams;
        }

        begun.into_iter().map(|at| taken[at]).collect()
    }

    #[test]
    fn no_relay_passes_on_more_than_the_others_whatever_the_trains_and_who_joins() {
        for seed in 0..60 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let taken = taken_by_first(seed, rng.usize(2..100), rng.usize(..100));
            let mean = taken.iter().sum::<u64>() / taken.len() as u64;
            let most = taken.iter().max().expect("relays");
            assert!(*most <= mean + MAX_AHEAD, "seed {seed}: {most} of {mean}");
        }
    }
}
