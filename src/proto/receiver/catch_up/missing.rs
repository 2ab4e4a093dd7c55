//! One missing release: its header, and the member to ask next.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::candidate::Candidate;
use crate::id::{InstanceId, Serial};
use crate::manifest::{Release, ReleaseId};
use crate::proto::members::{Member, Table};
use crate::units::Moment;
use crate::wire::message::{Pull, TreeState};

/// Wait before the first request for a release: its sender may be about to offer it.
const FIRST_REQUEST_DELAY: Duration = Duration::from_millis(1000);
/// Time for a requested member to offer the release.
const OFFER_TIMEOUT: Duration = Duration::from_secs(3);
/// Time for a requested member to show the header.
const HEADER_TIMEOUT: Duration = Duration::from_millis(500);
/// Time for which a verified header waits for the header of a newer release.
const NEWER_HEADER_WAIT: Duration = Duration::from_millis(100);
/// Initial pause after all members were asked without success; doubles each time.
pub(super) const ROUND_PAUSE: Duration = Duration::from_secs(5);
/// Longest pause between two rounds of requests.
pub(super) const MAX_ROUND_PAUSE: Duration = Duration::from_secs(120);
/// Unsuccessful requests for one release before other releases get their turn.
const MAX_FAILED_REQUESTS: u32 = 4;
/// Wait before the first request for a release that members claim was reverted, pending proof.
const DOUBTED_REQUEST_DELAY: Duration = Duration::from_secs(5);

/// One missing release.
#[derive(Debug)]
pub(super) struct MissingRelease {
    candidate: Candidate,
    /// Local serial at the time the release was found missing.
    have: Option<Serial>,
    /// Members asked in the current round.
    asked: BTreeSet<InstanceId>,
    /// Member asked last.
    last_asked: Option<InstanceId>,
    /// Members that brought no release on the way to this one; asked after all others.
    unhelpful: BTreeSet<InstanceId>,
    /// Due time of the next request.
    due: Moment,
    /// Pause after the current round.
    pause: Duration,
    /// All members were asked without success.
    exhausted: bool,
    header: HeaderState,
    /// End of the wait for an offer.
    awaited: Option<Moment>,
    /// Unsuccessful requests while other releases waited for their turn.
    failed: u32,
}

/// Verification state of a release header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HeaderState {
    /// Not received yet, or only with an invalid signature.
    Unseen,
    /// The signature check is pending.
    Checking,
    /// Signed by an authorized key.
    Verified,
}

impl MissingRelease {
    /// A release that this host lacks; `own` is the tree's state here. `doubted`: members claim
    /// that it was reverted, so the first request waits longer.
    pub(super) fn new(
        now: Moment,
        candidate: Candidate,
        own: &TreeState,
        jitter: f64,
        doubted: bool,
    ) -> Self {
        let wait = if doubted {
            DOUBTED_REQUEST_DELAY
        } else {
            FIRST_REQUEST_DELAY
        };

        // The header of the host's own release, under repair, is known.
        let is_own = own.release == Some(candidate.release);

        Self {
            candidate,
            have: own.running,
            asked: BTreeSet::new(),
            last_asked: None,
            unhelpful: BTreeSet::new(),
            due: now + wait.mul_f64(1.0 + jitter / 4.0),
            pause: ROUND_PAUSE,
            exhausted: false,
            header: if is_own {
                HeaderState::Verified
            } else {
                HeaderState::Unseen
            },
            awaited: None,
            failed: 0,
        }
    }

    /// Returns true if an authorized key signed the header.
    pub(super) fn is_verified(&self) -> bool {
        self.header == HeaderState::Verified
    }

    /// Returns true if the header of `release` is requested.
    pub(super) fn requests(&self, release: ReleaseId) -> bool {
        self.candidate.release == release && self.header == HeaderState::Unseen
    }

    /// Returns true if all members were asked without success.
    pub(super) fn is_exhausted(&self) -> bool {
        self.exhausted
    }

    /// Returns the due time of the next request.
    pub(super) fn due(&self) -> Moment {
        self.due
    }

    /// Returns the end of the wait for an offer, if it is later than `now`.
    pub(super) fn awaited(&self, now: Moment) -> Option<Moment> {
        self.awaited.filter(|until| *until > now)
    }

    /// Starts over as `fresh` if this host has another release than before: the preceding one has
    /// arrived, so the next one follows at once.
    pub(super) fn follow(&mut self, now: Moment, fresh: MissingRelease) {
        if self.have != fresh.have {
            *self = MissingRelease {
                due: now,
                header: self.header,
                unhelpful: self.unhelpful_members(),
                ..fresh
            };
        }
    }

    /// Waits for the session at work. If it ends without the release, another member is asked.
    pub(super) fn wait_for_session(&mut self, now: Moment) {
        self.due = self.due.max(now + FIRST_REQUEST_DELAY);
        self.awaited = None;
    }

    /// Postpones the request to `until`, while another release is awaited. Returns false and
    /// changes nothing if the header is unverified or the request is due no earlier anyway.
    pub(super) fn wait_for_offer(&mut self, until: Moment) -> bool {
        let waits = self.is_verified() && until > self.due;
        if waits {
            self.due = until;
        }

        waits
    }

    /// Handles the header of `release`. Returns true if its signature is to be checked.
    pub(super) fn on_header(&mut self, release: &Release) -> bool {
        let takes = self.candidate.matches(release) && self.header == HeaderState::Unseen;
        if takes {
            self.header = HeaderState::Checking;
        }

        takes
    }

    /// Handles the result of the signature check of `release`.
    pub(super) fn on_header_checked(
        &mut self,
        now: Moment,
        release: ReleaseId,
        holds: bool,
        jitter: f64,
    ) {
        if self.candidate.release != release || self.header != HeaderState::Checking {
            return;
        }

        if !holds {
            // Another member may send a valid header.
            self.header = HeaderState::Unseen;
            return;
        }

        self.header = HeaderState::Verified;
        self.asked.clear();
        self.last_asked = None;
        self.exhausted = false;
        self.pause = ROUND_PAUSE;
        self.due = now + NEWER_HEADER_WAIT.mul_f64(1.0 + jitter);
    }

    /// Returns the members to ask last for the next release on the way to this one.
    ///
    /// A member may lack content of older releases, and each request to it costs seconds.
    fn unhelpful_members(&mut self) -> BTreeSet<InstanceId> {
        let mut unhelpful = std::mem::take(&mut self.unhelpful);
        if self.is_verified() {
            unhelpful.append(&mut self.asked);
        }

        // The member asked last brought the release that has just arrived.
        if let Some(helpful) = self.last_asked {
            unhelpful.remove(&helpful);
        }

        unhelpful
    }

    /// Requests the header, or the release once its header is verified, from the next member.
    pub(super) fn ask(
        &mut self,
        now: Moment,
        own: &TreeState,
        me: InstanceId,
        members: &Table,
        jitter: f64,
    ) -> Option<(SocketAddr, Pull)> {
        if self.failed >= MAX_FAILED_REQUESTS {
            // The claims may be false: let an older release with a real holder have its turn.
            self.failed = 0;
            self.awaited = None;
            self.due = now + ROUND_PAUSE.mul_f64(0.75 + jitter / 2.0);
            return None;
        }

        let next = self.next_member(own, me, members, jitter);
        self.exhausted = next.is_none();
        let Some((&id, member)) = next else {
            self.asked.clear();
            self.awaited = None;
            self.due = now + self.pause.mul_f64(0.75 + jitter / 2.0);
            self.pause = (self.pause * 2).min(MAX_ROUND_PAUSE);
            return None;
        };

        self.asked.insert(id);
        self.last_asked = Some(id);
        let verified = self.is_verified();
        self.due = now
            + if verified {
                OFFER_TIMEOUT
            } else {
                HEADER_TIMEOUT
            };
        self.awaited = verified.then_some(self.due);
        self.failed += u32::from(verified);
        let pull = Pull {
            tree: own.tree.clone(),
            release: self.candidate.release,
            have: own.running.unwrap_or_default(),
            base: own.base,
            host: None,
            header: (!verified).then_some(true),
            labels: None,
        };

        Some((member.address, pull))
    }

    /// Returns the member to ask next, or none if all have been asked.
    fn next_member<'a>(
        &self,
        own: &TreeState,
        me: InstanceId,
        members: &'a Table,
        jitter: f64,
    ) -> Option<(&'a InstanceId, &'a Member)> {
        let release = self.candidate.release;
        let has = |t: &TreeState| {
            t.tree == own.tree
                && Candidate::in_beacon(t) == Some(self.candidate)
                && t.unhealthy != Some(true)
        };

        let left: Vec<_> = members
            .candidates()
            .filter(|(id, m)| **id != me && m.hello.trees.iter().any(has))
            .filter(|(id, _)| !self.asked.contains(*id))
            .collect();
        let (unhelpful, helpful): (Vec<_>, Vec<_>) = left
            .into_iter()
            .partition(|(id, _)| self.unhelpful.contains(*id));
        let left = if helpful.is_empty() {
            unhelpful
        } else {
            helpful
        }
        .into_iter();

        // Alternate between three orders, because each can be gamed: by choosing ids, by answering
        // early, or by claiming many ids.
        match self.asked.len() % 3 {
            0 => left.min_by_key(|(id, _)| rank(release, **id)),
            1 => left.min_by_key(|(id, m)| (m.since, rank(release, **id))),
            _ => {
                let of_address: BTreeMap<IpAddr, _> =
                    left.map(|member| (member.1.address.ip(), member)).collect();
                let at = (jitter * of_address.len() as f64) as usize;
                of_address.into_values().nth(at)
            }
        }
    }
}

/// Position of a member in the order in which hosts ask for a release.
fn rank(release: ReleaseId, member: InstanceId) -> [u8; 32] {
    Sha256::new()
        .chain_update(release.0.0)
        .chain_update(member.0.to_be_bytes())
        .finalize()
        .into()
}
