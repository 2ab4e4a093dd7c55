//! Whether the sender of a session is there now: it repeats a nonce of this host in its acknowledgements.
//!
//! An announcement, data and orders may be recorded ones of a session that is over. Until the sender has shown that it is
//! there, its session keeps no other one from the tree, and commits nothing. A sender that is too old to repeat nonces
//! commits by its orders as before, and keeps nobody from the tree.

use std::time::Duration;

use crate::id::Nonce;
use crate::proto::freshness::Nonces;
use crate::proto::{alive_interval, slot_interval};
use crate::units::Moment;

/// A proof holds for so long, or for some signs of life in a large fleet.
const HOLDS: Duration = Duration::from_secs(30);
/// A sender that has not proven anything yet has this long to do so, beside the turns of a large fleet.
const GRACE: Duration = Duration::from_millis(200);

/// What a session knows of its sender's presence.
#[derive(Debug)]
pub(super) struct Proof {
    /// The sender says that it repeats nonces.
    promised: bool,
    nonces: Nonces,
    nonce: Nonce,
    began: Moment,
    proved: Option<Moment>,
    /// The highest counter of the sender's messages: a lower one is no sign of life.
    counter: u64,
}

impl Proof {
    /// Of a session that begins.
    pub(super) fn new(now: Moment, promised: bool, seed: u64) -> Self {
        let mut nonces = Nonces::new(seed);
        Self {
            promised,
            nonce: nonces.draw(),
            nonces,
            began: now,
            proved: None,
            counter: 0,
        }
    }

    /// What the sender is to repeat, when it is time that it does.
    pub(super) fn asks(&self, now: Moment) -> Option<Nonce> {
        let due = self.proved.is_none_or(|at| now.since(at) >= HOLDS / 3);
        (self.promised && due).then_some(self.nonce)
    }

    /// Takes a repeated nonce; whether it is the first that shows that the sender is there.
    pub(super) fn repeated(&mut self, now: Moment, nonce: Option<Nonce>) -> bool {
        if nonce != Some(self.nonce) {
            return false;
        }
        let first = self.proved.is_none();
        self.proved = Some(now);
        self.nonce = self.nonces.draw();
        first
    }

    /// Whether the sender has shown lately that it is there, in a fleet of `hosts`.
    pub(super) fn is_fresh(&self, now: Moment, hosts: u32) -> bool {
        let holds = HOLDS.max(alive_interval(hosts) * 4);
        self.proved.is_some_and(|at| now.since(at) < holds)
    }

    /// How long ago the session began.
    pub(super) fn age(&self, now: Moment) -> Duration {
        now.since(self.began)
    }

    /// Whether it may still be about to show so.
    pub(super) fn is_young(&self, now: Moment, hosts: u32) -> bool {
        self.proved.is_none() && now.since(self.began) < GRACE + slot_interval(hosts) * 2
    }

    /// Whether the sender ever showed that it is there.
    pub(super) fn has_proved(&self) -> bool {
        self.proved.is_some()
    }

    /// Whether orders to commit are followed.
    pub(super) fn may_order(&self) -> bool {
        !self.promised || self.proved.is_some()
    }

    /// Whether a message with this counter is newer than all before.
    pub(super) fn is_news(&mut self, counter: u64) -> bool {
        let news = counter > self.counter;
        self.counter = self.counter.max(counter);
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment(1_000_000_000) + Duration::from_millis(ms)
    }

    #[test]
    fn a_sender_is_there_once_it_repeats_the_nonce_and_as_long_as_it_goes_on() {
        let mut proof = Proof::new(at(0), true, 1);
        assert!(proof.is_young(at(190), 5) && !proof.is_young(at(210), 5) && !proof.may_order());
        let first = proof.asks(at(0));
        assert!(
            first.is_some()
                && !proof.repeated(at(1), None)
                && !proof.repeated(at(1), Some(Nonce(7)))
        );

        assert!(proof.repeated(at(2), first) && proof.may_order() && proof.is_fresh(at(2), 5));
        assert!(!proof.repeated(at(3), first), "a nonce is good once");
        assert_eq!(proof.asks(at(5000)), None);
        let second = proof.asks(at(11_000));
        assert!(second.is_some() && second != first);
        assert!(
            proof.is_fresh(at(29_000), 5)
                && !proof.is_fresh(at(31_000), 5)
                && !proof.is_young(at(31_000), 5)
        );

        assert!(!proof.repeated(at(32_000), second) && proof.is_fresh(at(60_000), 5));
        assert!(proof.is_news(5) && !proof.is_news(5) && !proof.is_news(4) && proof.is_news(6));
    }

    #[test]
    fn a_sender_that_is_too_old_is_asked_nothing_and_may_order() {
        let proof = Proof::new(at(0), false, 1);
        assert!(proof.may_order() && proof.asks(at(0)).is_none() && !proof.is_fresh(at(0), 5));
    }
}
