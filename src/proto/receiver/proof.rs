//! Proof of a sender's presence: the sender echoes a nonce of this host in its acknowledgements.
//!
//! Announcements, data and orders may be replays of an old session. Without a proof a session
//! cannot keep other senders from the tree and commits nothing. A sender too old to echo nonces
//! commits by its orders as before, but never keeps others from the tree.

use std::time::Duration;

use crate::id::Nonce;
use crate::proto::freshness::Nonces;
use crate::proto::{alive_interval, slot_interval};
use crate::units::Moment;

/// Lifetime of a proof, extended to a few heartbeats in a large fleet.
const PROOF_LIFETIME: Duration = Duration::from_secs(30);
/// Time for the first proof, in addition to the turns of a large fleet.
const FIRST_PROOF_TIMEOUT: Duration = Duration::from_millis(200);

/// Evidence of the sender's presence in one session.
#[derive(Debug)]
pub(super) struct Proof {
    /// The sender announced support for nonces.
    echoes_nonces: bool,
    nonces: Nonces,
    nonce: Nonce,
    began: Moment,
    proved: Option<Moment>,
    /// Highest counter of the sender's messages; a lower one is no sign of life.
    counter: u64,
}

impl Proof {
    /// Starts without a proof.
    pub(super) fn new(now: Moment, echoes_nonces: bool, seed: u64) -> Self {
        let mut nonces = Nonces::new(seed);
        Self {
            echoes_nonces,
            nonce: nonces.draw(),
            nonces,
            began: now,
            proved: None,
            counter: 0,
        }
    }

    /// Returns the nonce to echo, if a new proof is due.
    pub(super) fn nonce_to_echo(&self, now: Moment) -> Option<Nonce> {
        let due = self
            .proved
            .is_none_or(|at| now.since(at) >= PROOF_LIFETIME / 3);
        (self.echoes_nonces && due).then_some(self.nonce)
    }

    /// Handles an echoed nonce. Returns true for the first proof.
    pub(super) fn on_echo(&mut self, now: Moment, nonce: Option<Nonce>) -> bool {
        if nonce != Some(self.nonce) {
            return false;
        }

        let first = self.proved.is_none();
        self.proved = Some(now);
        self.nonce = self.nonces.draw();
        first
    }

    /// Returns true if the sender proved its presence recently, in a fleet of `hosts`.
    pub(super) fn is_fresh(&self, now: Moment, hosts: u32) -> bool {
        let lifetime = PROOF_LIFETIME.max(alive_interval(hosts) * 4);
        self.proved.is_some_and(|at| now.since(at) < lifetime)
    }

    /// Returns the time since the session began.
    pub(super) fn age(&self, now: Moment) -> Duration {
        now.since(self.began)
    }

    /// Returns true if the first proof is still on time.
    pub(super) fn has_time_left(&self, now: Moment, hosts: u32) -> bool {
        self.proved.is_none()
            && now.since(self.began) < FIRST_PROOF_TIMEOUT + slot_interval(hosts) * 2
    }

    /// Returns true if the sender ever proved its presence.
    pub(super) fn was_proved(&self) -> bool {
        self.proved.is_some()
    }

    /// Returns true if commit orders may be executed.
    pub(super) fn may_order(&self) -> bool {
        !self.echoes_nonces || self.proved.is_some()
    }

    /// Records a counter of the sender. Returns true if the counter is higher than all before.
    pub(super) fn on_counter(&mut self, counter: u64) -> bool {
        let newer = counter > self.counter;
        self.counter = self.counter.max(counter);
        newer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment(1_000_000_000) + Duration::from_millis(ms)
    }

    #[test]
    fn a_sender_is_present_while_it_echoes_nonces() {
        let mut proof = Proof::new(at(0), true, 1);
        assert!(
            proof.has_time_left(at(190), 5)
                && !proof.has_time_left(at(210), 5)
                && !proof.may_order()
        );
        let first = proof.nonce_to_echo(at(0));
        assert!(
            first.is_some() && !proof.on_echo(at(1), None) && !proof.on_echo(at(1), Some(Nonce(7)))
        );

        assert!(proof.on_echo(at(2), first) && proof.may_order() && proof.is_fresh(at(2), 5));
        assert!(!proof.on_echo(at(3), first), "a nonce is good once");
        assert_eq!(proof.nonce_to_echo(at(5000)), None);
        let second = proof.nonce_to_echo(at(11_000));
        assert!(second.is_some() && second != first);
        assert!(
            proof.is_fresh(at(29_000), 5)
                && !proof.is_fresh(at(31_000), 5)
                && !proof.has_time_left(at(31_000), 5)
        );

        assert!(!proof.on_echo(at(32_000), second) && proof.is_fresh(at(60_000), 5));
        assert!(
            proof.on_counter(5)
                && !proof.on_counter(5)
                && !proof.on_counter(4)
                && proof.on_counter(6)
        );
    }

    #[test]
    fn a_sender_without_nonces_may_order() {
        let proof = Proof::new(at(0), false, 1);
        assert!(
            proof.may_order() && proof.nonce_to_echo(at(0)).is_none() && !proof.is_fresh(at(0), 5)
        );
    }
}
