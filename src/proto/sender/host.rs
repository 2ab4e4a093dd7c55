//! One host of a session as known to the sender.

use std::net::SocketAddr;

use crate::block::BlockHash;
use crate::id::{HostName, Serial};
use crate::keys::{Identity, PublicKey};
use crate::units::Moment;
use crate::wire::HostStage;
use crate::wire::message::{DiffSummary, OrderKind, StageReport};

/// One host.
#[derive(Debug, Clone)]
pub struct Host {
    /// Name of the host.
    pub name: HostName,
    /// Address of the host.
    pub address: SocketAddr,
    /// Time of the last message.
    pub heard: Moment,
    /// Last stage; `None` before an answer to the announcement.
    pub stage: Option<HostStage>,
    /// Reason of a refusal or failure, or the cause of a wait.
    pub text: Option<String>,
    /// Result of the comparison.
    pub summary: Option<DiffSummary>,
    /// Verified bytes.
    pub received: u64,
    /// Highest serial accepted.
    pub serial: Serial,
    /// Time of the last change of stage or bytes.
    pub progress: Moment,
    /// Set after too much silence, or too long without progress.
    pub lost: bool,
    /// Lost until the next progress, in spite of signs of life.
    pub(super) stuck: bool,
    /// Set once the host was ready and ordered to commit.
    pub ordered: bool,
    /// Kinds of content that the host has asked for.
    pub asked: Asked,
    /// Largest datagram known to reach the host, in bytes; `None` if not reported.
    pub takes: Option<u16>,
    /// Packets lost by the host's receive buffer.
    pub dropped: u64,
    /// A commit failed and could not be undone: the tree is part new, part old.
    pub torn: bool,
    /// Contents of the last beacon since the last order was decided.
    pub beacon: Option<Beacon>,
    /// Number of the newest state received.
    pub(super) number: u32,
    /// Identity of the process, once shown.
    pub(super) identity: Option<Identity>,
    /// Excluded from the session: the key is not the one that the name had before.
    pub excluded: bool,
    /// Hash of the last state signed by the host.
    pub(super) signed_state: Option<BlockHash>,
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

impl Host {
    /// Creates a host heard now.
    pub(super) fn new(now: Moment, name: HostName, address: SocketAddr, serial: Serial) -> Self {
        Self {
            name,
            address,
            heard: now,
            stage: None,
            text: None,
            summary: None,
            received: 0,
            serial,
            progress: now,
            lost: false,
            stuck: false,
            ordered: false,
            asked: Asked::default(),
            takes: None,
            dropped: 0,
            torn: false,
            beacon: None,
            number: 0,
            identity: None,
            excluded: false,
            signed_state: None,
        }
    }

    /// Returns whether the host is settled before the decision: ready, out, or lost.
    pub fn is_settled(&self, audit: bool) -> bool {
        let done = if audit {
            HostStage::Staging
        } else {
            HostStage::Ready
        };
        self.lost || self.stage.is_some_and(|s| s >= done)
    }

    /// Returns whether a state shows progress over the last one.
    pub(super) fn has_progressed(&self, state: &StageReport) -> bool {
        self.stage < Some(state.stage) || self.received < state.received
    }

    /// Key under which the host has signed a state.
    pub fn key(&self) -> Option<PublicKey> {
        self.signed_state.and(self.identity)?.public()
    }

    /// Returns whether the host can commit, or has committed.
    pub fn is_good(&self, audit: bool) -> bool {
        match self.stage {
            Some(
                HostStage::Ready | HostStage::Prepared | HostStage::Checking | HostStage::Committed,
            ) => !self.lost,
            Some(HostStage::Staging) => audit && !self.lost,
            _ => false,
        }
    }

    /// Returns whether an order has taken effect, or never will.
    pub fn has_answered(&self, order: OrderKind) -> bool {
        let done = match order {
            OrderKind::Prepare => HostStage::Prepared,
            OrderKind::Commit | OrderKind::Abort => HostStage::Committed,
            OrderKind::Revert => HostStage::Reverted,
        };
        self.lost || self.stage.is_some_and(|stage| stage >= done)
    }
}
