//! Who sends what this process does not open: plain datagrams where a group key is, sealed ones where none is, another
//! group's. Nothing they say is looked at; that they are there is worth knowing.
//!
//! Owns what is known of them, in bounded memory whoever spoofs addresses. What is done with it (a line in the log, a
//! word in `makuo members`) is its users' business.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::wire::seal::OpenError;

/// The most strangers that are known at one time.
const MAX_STRANGERS: usize = 256;
/// Who was not heard for this long gives way to others, and is not told of any more.
const FRESH: Duration = Duration::from_secs(120);

/// Somebody who is not heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stranger {
    /// Where the datagrams came from, by their own word.
    pub address: IpAddr,
    /// What they were: [`OpenError::Plain`], [`OpenError::Sealed`], [`OpenError::Wrong`] or [`OpenError::Version`].
    pub kind: OpenError,
}

impl Stranger {
    /// What it does, for people, after its address.
    pub fn words(kind: OpenError) -> &'static str {
        match kind {
            OpenError::Version => "speaks another wire format",
            OpenError::Plain => "speaks without a group key",
            OpenError::Sealed => "speaks with a group key, and there is none here",
            OpenError::Wrong => "speaks with another group key, or forges",
            OpenError::Replayed => "repeats datagrams",
            OpenError::Foreign => "is not makuo",
        }
    }
}

/// Everyone who was not heard.
#[derive(Debug, Default)]
pub struct Strangers {
    /// When each was heard last, since 1970.
    known: BTreeMap<Stranger, Duration>,
    /// Those who are new, until they are taken.
    fresh: Vec<Stranger>,
    counts: [u64; 6],
}

impl Strangers {
    /// A datagram that came from `from` at `at` was not opened.
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

        if self.known.len() >= MAX_STRANGERS && !self.make_room(at) {
            return;
        }

        self.known.insert(stranger, at);
        if self.fresh.len() < MAX_STRANGERS {
            self.fresh.push(stranger);
        }
    }

    /// Forgets who was not heard for long; whether there was anyone.
    fn make_room(&mut self, now: Duration) -> bool {
        let oldest = self.known.values().min().copied().unwrap_or_default();
        if now.saturating_sub(oldest) < FRESH {
            return false;
        }
        self.known
            .retain(|_, heard| now.saturating_sub(*heard) < FRESH);
        true
    }

    /// Those who were heard for the first time since the last call.
    pub fn take_fresh(&mut self) -> Vec<Stranger> {
        std::mem::take(&mut self.fresh)
    }

    /// Those who were heard lately, by address.
    pub fn lately(&self, now: Duration) -> impl Iterator<Item = Stranger> + '_ {
        self.known
            .iter()
            .filter(move |(_, heard)| now.saturating_sub(**heard) < FRESH)
            .map(|(stranger, _)| *stranger)
    }

    /// Datagrams of one kind that were not opened.
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
        let (mut strangers, at) = (Strangers::default(), Duration::from_secs);
        (0..5).for_each(|n| strangers.refused(OpenError::Plain, from(1), at(n)));
        strangers.refused(OpenError::Wrong, from(1), at(5));
        strangers.refused(OpenError::Foreign, from(2), at(5));
        strangers.refused(OpenError::Replayed, from(3), at(5));
        let kinds = |fresh: Vec<Stranger>| fresh.iter().map(|s| s.kind).collect::<Vec<_>>();
        assert_eq!(
            kinds(strangers.take_fresh()),
            [OpenError::Plain, OpenError::Wrong]
        );

        assert_eq!(strangers.take_fresh(), []);
        assert_eq!(
            (
                strangers.count(OpenError::Plain),
                strangers.count(OpenError::Replayed)
            ),
            (5, 1)
        );

        assert_eq!(strangers.lately(at(6)).count(), 2);
        assert_eq!(strangers.lately(at(5) + FRESH).count(), 0);
    }

    #[test]
    fn a_flood_of_addresses_stays_bounded_and_makes_room_again() {
        let (mut strangers, at) = (Strangers::default(), Duration::from_secs);
        (0..10_000).for_each(|n| strangers.refused(OpenError::Plain, from(n), at(1)));
        assert_eq!(
            (strangers.known.len(), strangers.take_fresh().len()),
            (MAX_STRANGERS, MAX_STRANGERS)
        );
        strangers.refused(OpenError::Plain, from(77_777), at(1) + FRESH);

        assert_eq!(
            strangers.take_fresh(),
            [Stranger {
                address: from(77_777).ip(),
                kind: OpenError::Plain
            }]
        );
    }
}
