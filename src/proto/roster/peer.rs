//! One address of the roster: its state, and the times of its pings.

use std::time::Duration;

use crate::id::{InstanceId, Nonce, SegmentId};
use crate::units::Moment;

/// Largest number of addresses known to a process.
pub const MAX_PEERS: usize = 8192;
/// Wait for the first answer of an address; doubles with each ping.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// Interval of the first pings of a configured address that answers; doubles with each ping.
const EARLY_INTERVAL: Duration = Duration::from_millis(250);
/// Wait for the answer of an address with proof.
const ANSWER_WAIT: Duration = Duration::from_secs(1);
/// Pings without an answer after which an address with proof is given up.
const MAX_UNANSWERED_PINGS: u32 = 4;
/// The same of an address without.
const MAX_CANDIDATE_PINGS: u32 = 5;
/// Pings without an answer after which nothing waits for an address.
const SETTLING_PINGS: u32 = 2;
/// Interval of pings to a configured address that does not answer.
const CONFIGURED_INTERVAL: Duration = Duration::from_secs(5);
/// Time in which an address that did not answer is not tried again, whoever lists it.
const SILENT_TIME: Duration = Duration::from_secs(60);
/// Lists requested from each process, from a configured one soon after each other. Later ones only
/// from a process that knows more hosts: lists are most of the bytes of a large roster.
const EARLY_LISTS: u32 = 3;
/// Lists requested soon after each other from a process that knows more hosts.
pub(super) const MAX_PEER_LISTS: u32 = 8;

/// State of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PeerState {
    /// Has not answered yet.
    Candidate,
    /// Has answered.
    Proven,
    /// Does not answer.
    Silent,
}

/// Facts that a process states, in a message that proves its address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct PeerFacts {
    /// The process; `None` before the first proof.
    pub(super) instance: Option<InstanceId>,
    /// Takes releases.
    pub(super) host: bool,
    /// Its segment.
    pub(super) segment: Option<SegmentId>,
    /// Hears the multicast of this process.
    pub(super) hears: bool,
}

/// An address of another process.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) state: PeerState,
    /// From the configuration: never given up.
    pub(super) configured: bool,
    /// As of its last message.
    pub(super) facts: PeerFacts,
    /// It was told last that this process hears its multicast.
    pub(super) told: bool,
    /// Time of the first proof of this process here.
    pub(super) since: Moment,
    /// Last nonce received from the process.
    pub(super) challenge: Option<Nonce>,
    /// Time of the next ping, or of the end of the silence.
    pub(super) due: Moment,
    /// Pings without an answer.
    unanswered: u32,
    /// Lists requested.
    lists: u32,
    /// A list was requested and has not arrived.
    awaits_list: bool,
    /// The last answer showed that the process knows more hosts.
    knows_more: bool,
}

impl Peer {
    /// Creates an address to be pinged at once.
    pub(super) fn new(now: Moment) -> Self {
        Self {
            state: PeerState::Candidate,
            configured: false,
            facts: PeerFacts::default(),
            told: false,
            since: now,
            challenge: None,
            due: now,
            unanswered: 0,
            lists: 0,
            awaits_list: false,
            knows_more: false,
        }
    }

    /// Creates a configured address whose process has ended.
    pub(super) fn silent(now: Moment) -> Self {
        Self {
            state: PeerState::Silent,
            configured: true,
            due: now + CONFIGURED_INTERVAL,
            ..Self::new(now)
        }
    }

    /// Records an answer; the next ping is due at `next`. Returns whether the facts are new.
    pub(super) fn prove(&mut self, facts: PeerFacts, next: Moment) -> bool {
        let is_new = self.state != PeerState::Proven || self.facts != facts;
        self.told &= self.facts.instance == facts.instance;
        self.facts = facts;
        self.state = PeerState::Proven;
        self.due = next;
        self.unanswered = 0;

        is_new
    }

    /// Asks for a new proof at once, because the process may have ended.
    pub(super) fn doubt(&mut self, now: Moment) {
        self.state = PeerState::Candidate;
        self.unanswered = 0;
        self.awaits_list = false;
        self.due = now;
    }

    /// Makes a ping due that asks for a list.
    pub(super) fn ask_for_list(&mut self, now: Moment) {
        self.due = now;
        self.awaits_list = true;
    }

    /// Returns whether the next ping asks for a list.
    pub(super) fn takes_list(&mut self) -> bool {
        let takes = self.challenge.is_some() && (self.lists < EARLY_LISTS || self.knows_more);
        self.lists = self.lists.saturating_add(takes.into());
        takes
    }

    /// Records an answer to a ping of this process; `knows_more` if the other process knows more
    /// hosts.
    pub(super) fn on_answer(&mut self, knows_more: bool) {
        self.awaits_list = false;
        self.knows_more = knows_more;
    }

    /// Interval of the first pings of a configured address: processes that start at the same time
    /// do not know each other yet.
    pub(super) fn early_interval(&self) -> Option<Duration> {
        (self.configured && self.lists < EARLY_LISTS).then(|| EARLY_INTERVAL * (1 << self.lists))
    }

    /// Returns whether to ask this process for further hosts at once.
    pub(super) fn asks_for_more(&self) -> bool {
        self.knows_more && self.lists < MAX_PEER_LISTS
    }

    /// Returns whether a start should wait for an answer.
    pub(super) fn may_still_answer(&self) -> bool {
        match self.state {
            PeerState::Candidate => self.unanswered <= SETTLING_PINGS,
            PeerState::Proven => self.awaits_list && self.unanswered <= SETTLING_PINGS,
            PeerState::Silent => false,
        }
    }

    /// Wait for the answer to the last ping of an address that has not answered yet.
    fn first_wait(&self) -> Duration {
        FIRST_WAIT * (1 << self.unanswered.saturating_sub(1).min(4))
    }

    /// Returns whether the process `instance` has proven the address.
    pub(super) fn is_proven_by(&self, instance: InstanceId) -> bool {
        self.state == PeerState::Proven && self.facts.instance == Some(instance)
    }

    /// Returns whether the last ping has no answer yet.
    pub(super) fn awaits_answer(&self) -> bool {
        self.unanswered > 0
    }

    /// Makes the address one of the configuration. One that did not answer is tried at once.
    pub(super) fn configure(&mut self, now: Moment) {
        if self.state == PeerState::Silent && !self.configured {
            self.due = now;
        }
        self.configured = true;
    }

    /// Returns whether pings go to the address.
    pub(super) fn is_pinged(&self) -> bool {
        self.state != PeerState::Silent || self.configured
    }

    /// Counts one more ping and sets the time of the next one. Returns false if the address is to
    /// be forgotten.
    pub(super) fn try_again(&mut self, now: Moment) -> bool {
        if self.state == PeerState::Silent && !self.configured {
            return false;
        }

        self.unanswered = self.unanswered.saturating_add(1);
        let most = match self.state {
            PeerState::Candidate => MAX_CANDIDATE_PINGS,
            _ => MAX_UNANSWERED_PINGS,
        };
        if self.unanswered > most {
            self.state = PeerState::Silent;
            self.lists = 0;
            self.awaits_list = false;
        }

        self.due = now
            + match self.state {
                PeerState::Candidate => self.first_wait(),
                PeerState::Proven if self.awaits_list => self.first_wait().min(ANSWER_WAIT),
                PeerState::Proven => ANSWER_WAIT,
                PeerState::Silent if self.configured => CONFIGURED_INTERVAL,
                PeerState::Silent => SILENT_TIME,
            };

        true
    }
}
