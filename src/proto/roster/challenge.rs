//! Nonces that prove an address: each is made for one address, so a process that repeats it
//! receives there.
//!
//! Nothing is stored for an address. A nonce is a keyed hash of the address and of the current
//! period, as in the cookies of RFC 9147.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::id::Nonce;
use crate::units::Moment;

/// Time in which an address gets the same nonce; a nonce holds for one or two periods. That is
/// longer than the interval of pings in a fleet of some 2,900 hosts. In a larger one a process may
/// repeat an old nonce, and the answer brings it a new one.
const CHALLENGE_PERIOD: Duration = Duration::from_secs(900);

/// Makes and checks the nonces of one process.
#[derive(Debug)]
pub(super) struct Challenge {
    seed: u64,
}

impl Challenge {
    /// Creates the nonces of `seed`, which must be random.
    pub(super) fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// Returns the nonce of `address`.
    pub(super) fn nonce(&self, now: Moment, address: SocketAddr) -> Nonce {
        self.of_period(period(now), address)
    }

    /// Returns the nonce of a ping to the group, which proves no address.
    pub(super) fn group_nonce(&self, now: Moment) -> Nonce {
        self.hashed(b"makuo group v1", &now.0.to_be_bytes())
    }

    /// Returns whether `nonce` was made for `address` in this period or the last one.
    pub(super) fn holds(&self, now: Moment, address: SocketAddr, nonce: Nonce) -> bool {
        let period = period(now);
        [period, period.wrapping_sub(1)]
            .into_iter()
            .any(|period| self.of_period(period, address) == nonce)
    }

    fn of_period(&self, period: u64, address: SocketAddr) -> Nonce {
        let ip = match address.ip() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        let mut of = [0; 26];
        of[..8].copy_from_slice(&period.to_be_bytes());
        of[8..24].copy_from_slice(&ip.octets());
        of[24..].copy_from_slice(&address.port().to_be_bytes());

        self.hashed(b"makuo peer v1", &of)
    }

    fn hashed(&self, purpose: &[u8], of: &[u8]) -> Nonce {
        let hash = Sha256::new()
            .chain_update(purpose)
            .chain_update(self.seed.to_be_bytes())
            .chain_update(of)
            .finalize();
        let mut first = [0; 8];
        first.copy_from_slice(&hash[..8]);

        Nonce(u64::from_be_bytes(first))
    }
}

fn period(now: Moment) -> u64 {
    now.0 / CHALLENGE_PERIOD.as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_proves_its_own_address_for_a_short_time() {
        let challenge = Challenge::new(7);
        let now = Moment(1_000_000_000_000);
        let address: SocketAddr = "10.0.0.1:5001".parse().expect("legal");
        let nonce = challenge.nonce(now, address);

        assert!(challenge.holds(now, address, nonce));
        assert!(challenge.holds(now + CHALLENGE_PERIOD, address, nonce));
        assert!(!challenge.holds(now + CHALLENGE_PERIOD * 2, address, nonce));

        assert!(!challenge.holds(now, address, challenge.group_nonce(now)));
        for other in ["10.0.0.2:5001", "10.0.0.1:5002", "[::1]:5001"] {
            let other = other.parse().expect("legal");
            assert!(!challenge.holds(now, other, nonce), "{other}");
        }
        assert!(!Challenge::new(8).holds(now, address, nonce));
    }
}
