//! Limits of datagrams to addresses without proof: few to one address, and few to all.
//!
//! Anyone can cause such datagrams, with replayed messages from a false source. The addresses share
//! [`BUCKETS`] counters by a keyed hash, so a flood from some leaves the others their share. The
//! key changes in each period, so nobody shares a flooded counter for long.

use std::net::IpAddr;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::units::Moment;

/// Time in which the counters start over.
const BUDGET_PERIOD: Duration = Duration::from_secs(1);
/// Counters.
const BUCKETS: usize = 256;
/// Datagrams to the addresses of one counter in [`BUDGET_PERIOD`].
const MAX_IN_BUCKET: u16 = 8;

/// Datagrams sent in this period.
#[derive(Debug)]
pub(super) struct Budget {
    since: Moment,
    seed: u64,
    used: [u16; BUCKETS],
}

impl Budget {
    /// Creates unused limits; `seed` is random.
    pub(super) fn new(now: Moment, seed: u64) -> Self {
        Self {
            since: now,
            seed,
            used: [0; BUCKETS],
        }
    }

    /// Returns whether one more datagram may be sent to `ip`. This machine may be flooded: nobody
    /// else can speak from its addresses.
    pub(super) fn spend(&mut self, now: Moment, ip: IpAddr) -> bool {
        if ip.is_loopback() {
            return true;
        }

        if now.since(self.since) >= BUDGET_PERIOD {
            *self = Self::new(now, self.seed.wrapping_add(1));
        }

        let bucket = self.bucket(ip);
        let Some(used) = self.used.get_mut(bucket) else {
            return false;
        };
        *used = used.saturating_add(1);
        *used <= MAX_IN_BUCKET
    }

    fn bucket(&self, ip: IpAddr) -> usize {
        let ip = match ip {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        let hash = Sha256::new()
            .chain_update(self.seed.to_be_bytes())
            .chain_update(ip.octets())
            .finalize();
        usize::from(hash[0]) % BUCKETS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_some_addresses_leaves_most_others_their_share() {
        let now = Moment(1_000_000_000);
        let mut budget = Budget::new(now, 7);
        let stranger = IpAddr::from([192, 0, 2, 1]);
        let sent = (0..1000).filter(|_| budget.spend(now, stranger)).count();
        assert_eq!(sent, usize::from(MAX_IN_BUCKET));

        let others = (0..200_u8).map(|n| IpAddr::from([10, 0, 0, n]));
        let served = others.filter(|ip| budget.spend(now, *ip)).count();
        assert!(served > 190, "{served}");
        assert!(budget.spend(now + BUDGET_PERIOD, stranger));
    }
}
