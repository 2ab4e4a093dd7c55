//! One host of a session as known to the sender.

use std::net::SocketAddr;
use std::time::Duration;

use crate::block::BlockHash;
use crate::id::{HostName, InstanceId, Serial};
use crate::keys::{Identity, PublicKey};
use crate::proto::{alive_interval, slot_interval};
use crate::units::Moment;
use crate::wire::HostStage;
use crate::wire::message::{DiffSummary, OrderKind, StageReport};

/// Bound on the hosts of a session.
pub const MAX_SESSION_HOSTS: usize = 20_000;
/// Silence after which a host heard from another address has moved there.
const MOVED_AFTER: Duration = Duration::from_secs(2);

/// One host.
#[derive(Debug, Clone)]
pub struct Host {
    /// Name of the host.
    pub name: HostName,
    /// Address of the host.
    pub address: SocketAddr,
    /// Time of the last message.
    pub heard: Moment,
    /// Time of the last change of stage or bytes.
    pub progress: Moment,
    /// Participation in the session.
    pub contact: Contact,
    /// Last stage; `None` before an answer to the announcement.
    pub stage: Option<HostStage>,
    /// Reason of a refusal or failure, or the cause of a wait.
    pub text: Option<String>,
    /// Result of the comparison.
    pub summary: Option<DiffSummary>,
    /// Highest serial accepted.
    pub serial: Serial,
    /// A commit failed and could not be undone: the tree is part new, part old.
    pub torn: bool,
    /// Taken for refused by the sender, for the reason in the text.
    is_refused: bool,
    /// Set once the host was ready and ordered to commit.
    pub ordered: bool,
    /// Contents of the last beacon since the last order was decided.
    pub beacon: Option<Beacon>,
    /// Content on its way to the host.
    pub transfer: HostTransfer,
    states: StateProof,
}

/// Participation of a host in a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contact {
    /// Takes part.
    Present,
    /// Lost after too much silence, or by its own goodbye.
    Silent,
    /// Lost until the next progress, in spite of signs of life.
    Stuck,
    /// Excluded from the session: the name had another key before.
    Excluded,
}

/// Content on its way to a host.
#[derive(Debug, Clone, Copy, Default)]
pub struct HostTransfer {
    /// Kinds of content that the host has asked for.
    pub asked: Asked,
    /// Verified bytes.
    pub received: u64,
    /// Largest datagram known to reach the host, in bytes; `None` if not reported.
    pub takes: Option<u16>,
    /// Packets lost by the host's receive buffer.
    pub dropped: u64,
    /// Number of the list of hosts to which this one passes data on; 0 for none.
    pub targets: u32,
    /// Whether the host reads lists of tags.
    pub reads_tags: bool,
}

/// Kinds of content that a host has asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked {
    /// Manifest nodes.
    pub nodes: bool,
    /// Blocks.
    pub blocks: bool,
}

/// Contents of a beacon from a host without an answer in the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beacon {
    /// The daemon was restarted since, and follows no more orders of this session.
    pub restarted: bool,
    /// The release is in place.
    pub has: bool,
}

/// Origin of a host's states.
#[derive(Debug, Clone, Default)]
struct StateProof {
    /// Number of the newest state received.
    newest: u32,
    /// Identity of the process, once shown.
    identity: Option<Identity>,
    /// Hash of the last state signed by the host.
    signed: Option<BlockHash>,
}

impl Host {
    /// Creates a host heard now.
    pub(super) fn new(now: Moment, name: HostName, address: SocketAddr, serial: Serial) -> Self {
        Self {
            name,
            address,
            heard: now,
            progress: now,
            contact: Contact::Present,
            stage: None,
            text: None,
            summary: None,
            serial,
            torn: false,
            is_refused: false,
            ordered: false,
            beacon: None,
            transfer: HostTransfer::default(),
            states: StateProof::default(),
        }
    }

    /// Returns true after too much silence, too long without progress, a goodbye or an exclusion.
    pub fn is_lost(&self) -> bool {
        self.contact != Contact::Present
    }

    /// Returns whether the host takes part and was heard lately, in a session of `hosts` hosts.
    pub fn is_present(&self, now: Moment, hosts: usize) -> bool {
        let hosts = hosts as u32;
        let silence = alive_interval(hosts) * 2 + slot_interval(hosts);
        !self.is_lost() && now.since(self.heard) < silence
    }

    /// Returns true if the host shows another key than its name had before, and may not take part.
    pub fn is_excluded(&self) -> bool {
        self.contact == Contact::Excluded
    }

    /// Returns whether the host is settled before the decision: ready, out, or lost.
    pub fn is_settled(&self, audit: bool) -> bool {
        let done = if audit {
            HostStage::Staging
        } else {
            HostStage::Ready
        };
        self.is_lost() || self.stage.is_some_and(|s| s >= done)
    }

    /// Key under which the host has signed a state.
    pub fn key(&self) -> Option<PublicKey> {
        self.states.signed.and(self.states.identity)?.public()
    }

    /// Returns whether the host can commit, or has committed.
    pub fn is_good(&self, audit: bool) -> bool {
        match self.stage {
            Some(
                HostStage::Ready | HostStage::Prepared | HostStage::Checking | HostStage::Committed,
            ) => !self.is_lost(),
            Some(HostStage::Staging) => audit && !self.is_lost(),
            _ => false,
        }
    }

    /// Returns whether an order has taken effect, or never will.
    pub fn has_answered(&self, order: OrderKind) -> bool {
        let done = match order {
            OrderKind::Prepare => HostStage::Prepared,
            OrderKind::Commit | OrderKind::Abort | OrderKind::Stage => HostStage::Committed,
            OrderKind::Revert => HostStage::Reverted,
        };
        self.is_lost() || self.stage.is_some_and(|stage| stage >= done)
    }

    /// Returns whether the host was heard to follow an order, or to take no part.
    pub fn has_followed(&self, order: OrderKind) -> bool {
        let began = match order {
            OrderKind::Prepare => HostStage::Prepared,
            OrderKind::Commit => HostStage::Checking,
            OrderKind::Abort | OrderKind::Stage => HostStage::Committed,
            OrderKind::Revert => HostStage::Reverted,
        };
        self.stage.is_some_and(|stage| stage >= began)
    }

    /// Identity of the process, once shown.
    pub(super) fn identity(&self) -> Option<Identity> {
        self.states.identity
    }

    /// Takes the identity of the process and returns whether it is new. A process never changes
    /// its key, so the first one counts.
    pub(super) fn identify(&mut self, instance: InstanceId, identity: Identity) -> bool {
        let is_new = self.states.identity.is_none() && identity.instance() == instance;
        if is_new {
            self.states.identity = Some(identity);
        }
        is_new
    }

    /// Returns whether the host has signed this state already.
    pub(super) fn has_signed(&self, statement: &[u8]) -> bool {
        self.states.signed == Some(BlockHash::of(statement))
    }

    /// Records a state signed by the host.
    pub(super) fn on_signed(&mut self, statement: &[u8]) {
        self.states.signed = Some(BlockHash::of(statement));
    }

    /// Takes a state and returns whether the stage changed.
    pub(super) fn on_state(&mut self, now: Moment, state: StageReport) -> bool {
        self.heard = now;
        self.transfer.dropped = self.transfer.dropped.max(state.dropped.unwrap_or(0));
        let is_back = match self.contact {
            Contact::Silent => true,
            Contact::Stuck => self.has_progressed(&state),
            Contact::Present | Contact::Excluded => false,
        };
        if is_back {
            self.contact = Contact::Present;
            self.progress = now;
        }

        // Messages overtake each other, so a stage never goes back, except between mutually
        // exclusive final stages.
        let newer = state.number >= self.states.newest || state.number == 0;
        // An abort is no better reason.
        let is_told = self.is_refused && state.stage == HostStage::Aborted;
        if !newer || is_told || self.stage.is_some_and(|s| s > state.stage) {
            return false;
        }

        self.states.newest = self.states.newest.max(state.number);
        self.transfer.targets = state.targets.unwrap_or(0);
        self.transfer.reads_tags = state.tags == Some(true);
        let changed = self.stage != Some(state.stage);
        if changed || self.transfer.received != state.received {
            self.progress = now;
        }

        self.stage = Some(state.stage);
        self.text = state.text;
        self.torn = state.torn == Some(true);
        self.summary = state.summary.or(self.summary);
        self.transfer.received = self.transfer.received.max(state.received);
        self.serial = self.serial.max(state.serial);

        changed
    }

    /// Returns whether a state shows progress over the last one.
    fn has_progressed(&self, state: &StageReport) -> bool {
        self.stage < Some(state.stage) || self.transfer.received < state.received
    }

    /// Takes a sign of life and returns whether to accept the message. While a host is heard from
    /// its own address, messages in its name from another are rejected.
    pub(super) fn on_sign_of_life(&mut self, now: Moment, from: SocketAddr) -> bool {
        if self.is_excluded() {
            return false;
        }

        if self.address.ip() != from.ip() {
            if now.since(self.heard) < MOVED_AFTER {
                return false;
            }
            self.address = from;
        }

        self.heard = now;
        true
    }

    /// Starts the session: earlier silence does not count.
    pub(super) fn begin(&mut self, now: Moment) {
        self.heard = now;
        self.progress = now;
    }

    /// Records the largest probe that reached the host. The best of several answers counts: a probe
    /// may have been lost by chance.
    pub(super) fn on_probed(&mut self, size: Option<u16>) {
        self.transfer.takes = self.transfer.takes.max(size);
    }

    /// Records the last part of a want: of manifest nodes, or of blocks.
    pub(super) fn on_asked(&mut self, nodes: bool) {
        self.transfer.asked.nodes = true;
        self.transfer.asked.blocks |= !nodes;
    }

    /// Records that the host is ordered to commit.
    pub(super) fn on_commit_ordered(&mut self) {
        self.ordered = true;
    }

    /// Handles a goodbye. The host is lost if it has not answered `order`; returns whether it is.
    /// In any case it passes nothing on.
    pub(super) fn on_bye(&mut self, order: OrderKind) -> bool {
        self.transfer.targets = 0;
        let was_active = !self.has_answered(order);
        if was_active {
            self.contact = Contact::Silent;
        }
        was_active
    }

    /// Takes a beacon, from the host itself or from the daemon restarted in its place.
    pub(super) fn on_beacon(&mut self, beacon: Beacon) {
        if beacon.restarted || self.beacon.is_none_or(|last| !last.restarted) {
            self.beacon = Some(beacon);
        }
    }

    /// Forgets the contents of earlier beacons.
    pub(super) fn forget_beacon(&mut self) {
        self.beacon = None;
    }

    /// Marks the host as lost: silent, or stuck in spite of signs of life.
    pub(super) fn lose(&mut self, is_stuck: bool) {
        self.contact = if is_stuck {
            Contact::Stuck
        } else {
            Contact::Silent
        };
    }

    /// Gives the host up until its next progress, for the reason in `text`.
    pub(super) fn give_up(&mut self, text: String) {
        self.contact = Contact::Stuck;
        self.text = Some(text);
    }

    /// Takes the host for one that refused, for the reason in `text`; returns whether that is new.
    pub(super) fn refuse(&mut self, text: &str) -> bool {
        self.is_refused = true;
        self.text = Some(text.to_string());
        self.stage.replace(HostStage::Refused) != Some(HostStage::Refused)
    }

    /// Excludes the host from the session, for the reason in `text`.
    pub(super) fn exclude(&mut self, text: String) {
        self.contact = Contact::Excluded;
        self.text = Some(text);
    }
}
