//! Proofs collected by a sender: the nonce that live hosts echo, targets without proof, and proofs
//! of claimed serials.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::block::BlockHash;
use crate::id::{HostName, Nonce, Serial};
use crate::proto::freshness::Nonces;
use crate::units::Moment;
use crate::wire::message::SerialProof;

/// Bound on reported hosts without proof.
const MAX_UNPROVEN_TARGETS: usize = 64;
/// Shortest interval between individual solicits to a host with unproven beacons.
const CHALLENGE_INTERVAL: Duration = Duration::from_millis(100);
/// Bound on hosts solicited individually in that interval.
const MAX_CHALLENGED: usize = 64;
/// Bound on the distinct releases and orders that hosts show.
const MAX_SHOWN_SERIALS: usize = 64;

/// Proofs of one session.
#[derive(Debug)]
pub struct Proofs {
    nonces: Nonces,
    nonce: Nonce,
    /// Hosts solicited individually a moment ago.
    challenged: VecDeque<(SocketAddr, Moment)>,
    /// Targets whose beacons proved nothing.
    unproven: BTreeSet<(HostName, IpAddr)>,
    /// Proofs of the serials that hosts claim.
    shown: BTreeMap<(Serial, BlockHash), SerialProof>,
}

impl Proofs {
    /// Creates the state of a session with a random `seed`.
    pub fn new(seed: u64) -> Self {
        let mut nonces = Nonces::new(seed);
        Self {
            nonce: nonces.draw(),
            nonces,
            challenged: VecDeque::new(),
            unproven: BTreeSet::new(),
            shown: BTreeMap::new(),
        }
    }

    /// Nonce that a live host echoes.
    pub fn nonce(&self) -> Nonce {
        self.nonce
    }

    /// Draws a new nonce: earlier messages no longer count as proof.
    pub fn renew_nonce(&mut self) {
        self.nonce = self.nonces.draw();
    }

    /// Records a target without proof.
    pub fn keep_unproven(&mut self, name: &HostName, ip: IpAddr) {
        if self.unproven.len() < MAX_UNPROVEN_TARGETS {
            self.unproven.insert((name.clone(), ip));
        }
    }

    /// Returns and forgets the targets without proof.
    pub fn take_unproven(&mut self) -> BTreeSet<(HostName, IpAddr)> {
        std::mem::take(&mut self.unproven)
    }

    /// Keeps the proof of a serial; beyond the limit only those of the highest serials.
    pub fn keep_shown(&mut self, serial: Serial, shown: &SerialProof) {
        let key = (serial, BlockHash::of(&crate::manifest::node::to_vec(shown)));
        self.shown.entry(key).or_insert_with(|| shown.clone());
        if self.shown.len() > MAX_SHOWN_SERIALS {
            self.shown.pop_first();
        }
    }

    /// Returns and forgets the proofs of serials.
    pub fn take_shown(&mut self) -> Vec<SerialProof> {
        std::mem::take(&mut self.shown).into_values().collect()
    }

    /// Returns whether an individual solicit to `host` is within the rate limit, and counts it.
    pub fn may_challenge(&mut self, now: Moment, host: SocketAddr) -> bool {
        while self
            .challenged
            .front()
            .is_some_and(|(_, at)| now.since(*at) >= CHALLENGE_INTERVAL)
        {
            self.challenged.pop_front();
        }

        let is_new = self.challenged.iter().all(|(other, _)| *other != host);
        let may = is_new && self.challenged.len() < MAX_CHALLENGED;
        if may {
            self.challenged.push_back((host, now));
        }
        may
    }
}
