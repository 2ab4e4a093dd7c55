//! Peers whose datagrams do not open: plain ones where a group key is in use, sealed ones where
//! none is, another group's.
//!
//! Records their addresses in bounded memory, even under spoofing. Their content is ignored. Log
//! lines and output are up to callers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::outcome::Stranger;
use crate::wire::seal::OpenError;

/// Largest number of peers known at a time.
const MAX_UNHEARD_PEERS: usize = 256;
/// Age from which a silent peer may be replaced and is no longer reported.
const RECENT_TIME: Duration = Duration::from_secs(120);

/// Peers whose datagrams did not open.
#[derive(Debug, Default)]
pub struct UnheardPeers {
    /// Time of the last datagram of each, since 1970.
    known: BTreeMap<Stranger, Duration>,
    /// New peers, until taken.
    fresh: Vec<Stranger>,
    counts: [u64; 6],
}

impl UnheardPeers {
    /// Records a datagram from `from` not opened.
    pub fn refused(&mut self, kind: OpenError, from: SocketAddr, at: Duration) {
        self.counts[kind as usize] += 1;
        if matches!(kind, OpenError::Foreign | OpenError::Replayed) {
            return;
        }

        let stranger = Stranger {
            address: from.ip(),
            kind,
        };

        if let Some(heard) = self.known.get_mut(&stranger) {
            *heard = at;
            return;
        }

        if self.known.len() >= MAX_UNHEARD_PEERS && !self.make_room(at) {
            return;
        }

        self.known.insert(stranger, at);
        if self.fresh.len() < MAX_UNHEARD_PEERS {
            self.fresh.push(stranger);
        }
    }

    /// Forgets old peers; returns whether there were any.
    fn make_room(&mut self, now: Duration) -> bool {
        let oldest = self.known.values().min().copied().unwrap_or_default();
        if now.saturating_sub(oldest) < RECENT_TIME {
            return false;
        }
        self.known
            .retain(|_, heard| now.saturating_sub(*heard) < RECENT_TIME);
        true
    }

    /// Takes the peers new since the last call.
    pub fn take_new(&mut self) -> Vec<Stranger> {
        std::mem::take(&mut self.fresh)
    }

    /// Recent peers, by address.
    pub fn recent(&self, now: Duration) -> impl Iterator<Item = Stranger> + '_ {
        self.known
            .iter()
            .filter(move |(_, heard)| now.saturating_sub(**heard) < RECENT_TIME)
            .map(|(stranger, _)| *stranger)
    }

    /// Number of datagrams of one kind not opened.
    pub fn count(&self, kind: OpenError) -> u64 {
        self.counts[kind as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(n: u32) -> SocketAddr {
        (std::net::Ipv4Addr::from(n), 5000).into()
    }

    #[test]
    fn each_is_new_once_and_fades() {
        let mut strangers = UnheardPeers::default();
        let at = Duration::from_secs;
        (0..5).for_each(|n| strangers.refused(OpenError::Plain, from(1), at(n)));
        strangers.refused(OpenError::Wrong, from(1), at(5));
        strangers.refused(OpenError::Foreign, from(2), at(5));
        strangers.refused(OpenError::Replayed, from(3), at(5));
        let kinds = |fresh: Vec<Stranger>| fresh.iter().map(|s| s.kind).collect::<Vec<_>>();
        assert_eq!(
            kinds(strangers.take_new()),
            [OpenError::Plain, OpenError::Wrong]
        );

        assert_eq!(strangers.take_new(), []);
        assert_eq!(
            (
                strangers.count(OpenError::Plain),
                strangers.count(OpenError::Replayed)
            ),
            (5, 1)
        );

        assert_eq!(strangers.recent(at(6)).count(), 2);
        assert_eq!(strangers.recent(at(5) + RECENT_TIME).count(), 0);
    }

    #[test]
    fn a_flood_of_addresses_stays_bounded_and_makes_room_again() {
        let mut strangers = UnheardPeers::default();
        let at = Duration::from_secs;
        (0..10_000).for_each(|n| strangers.refused(OpenError::Plain, from(n), at(1)));
        assert_eq!(
            (strangers.known.len(), strangers.take_new().len()),
            (MAX_UNHEARD_PEERS, MAX_UNHEARD_PEERS)
        );
        strangers.refused(OpenError::Plain, from(77_777), at(1) + RECENT_TIME);

        assert_eq!(
            strangers.take_new(),
            [Stranger {
                address: from(77_777).ip(),
                kind: OpenError::Plain
            }]
        );
    }
}
