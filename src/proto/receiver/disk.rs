//! Requests of a host to its disk, and the replies.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::buffer::BlockPart;
use crate::id::{Generation, HostName, Serial, SessionId, TreeName};
use crate::manifest::{Release, ReleaseId};
use crate::proto::RangeSet;
use crate::proto::generation::{Body, PlacedBlock};
use crate::wire::message::{DiffSummary, SerialProof, SignedOrder, TreeState};
use crate::wire::query::ReleaseBytes;

/// Request to the disk. Requests of one session are answered in order.
#[derive(Debug, Clone)]
pub enum DiskRequest {
    /// Check signature, role, serial, expiry and scope of an offer, and open the tree.
    Open {
        /// The session.
        session: SessionId,
        /// The offered release.
        release: Release,
        /// Signature of the release header.
        signature: Arc<[u8]>,
        /// Scan mode of the tree.
        look: ScanMode,
        /// Claimed host name of the sender.
        sender: HostName,
        /// Commit order attached to the offer, for hosts that will get no other.
        grant: Option<SignedOrder>,
    },
    /// List the ordinals of missing manifest nodes, as far as the present nodes reveal them.
    Explore(SessionId),
    /// Compare the tree with the manifest.
    Diff(SessionId),
    /// Verify and keep the blocks of a payload.
    Deliver {
        /// The session.
        session: SessionId,
        /// The payload.
        payload: Vec<u8>,
        /// Position of the content in the payload.
        body: Body,
        /// The wanted blocks with their positions in the plain content.
        blocks: Vec<PlacedBlock>,
    },
    /// Read back parts of file blocks that were not requested.
    ReadBack {
        /// The session.
        session: SessionId,
        /// The generation to complete.
        generation: Generation,
        /// The parts, in the order of the payload.
        parts: Vec<BlockPart>,
    },
    /// Make the stage complete and durable after the last delivery.
    Finish(SessionId),
    /// Check the signature of an order and execute the order.
    Order {
        /// The session.
        session: SessionId,
        /// The order.
        order: Arc<SignedOrder>,
    },
    /// Run the hooks and the health check after a commit.
    Check(SessionId),
    /// Check a release found at other hosts for this host; the second field is the header's
    /// signature.
    Verify(Release, Arc<[u8]>),
    /// Check and store an order to abort or revert a release, from any session.
    Bury(SignedOrder),
    /// Return to the release before a reverted one, if still present.
    GoBack(TreeName),
    /// End the session: a commit stays, everything else is dropped. Staged content may stay for the
    /// next session.
    Close(SessionId),
}

/// Scan mode of a tree before its comparison.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScanMode {
    /// Read every file.
    pub checksum: bool,
    /// Check only paths that differ between the current and the new release.
    pub quick: bool,
    /// Run the health check even if nothing changes.
    pub recheck: bool,
}

/// Readable reason of a refusal or failure.
pub type ReasonText = String;

/// Refusal of an offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferRefusal {
    /// Readable reason.
    pub why: ReasonText,
    /// True if the release is verified nevertheless: signed by an authorized key and newer than the
    /// current one. Otherwise anyone may have caused the refusal.
    pub proven: bool,
}

impl From<ReasonText> for OfferRefusal {
    fn from(why: ReasonText) -> Self {
        Self { why, proven: false }
    }
}

/// Reply of the disk.
#[derive(Debug, Clone)]
pub enum DiskReply {
    /// Answers [`DiskRequest::Open`].
    Opened(SessionId, Result<(), OfferRefusal>),
    /// Answers [`DiskRequest::Explore`] with the missing ordinals; an empty set is a complete
    /// manifest.
    Explored(SessionId, Result<RangeSet, ReasonText>),
    /// Answers [`DiskRequest::Diff`] with the plan's summary, the ordinals to fetch and the drift
    /// list.
    Diffed(
        SessionId,
        Result<(DiffSummary, RangeSet, Arc<[u8]>), ReasonText>,
    ),
    /// Answers [`DiskRequest::Deliver`] with the buffer, the ordinals with a wrong hash and the
    /// number of bytes kept, or the reason of a failure.
    Delivered(SessionId, Vec<u8>, Result<(RangeSet, u64), ReasonText>),
    /// Answers [`DiskRequest::ReadBack`] with the readable parts of valid blocks, in the same
    /// order.
    ReadBack(SessionId, Generation, Vec<(BlockPart, Vec<u8>)>),
    /// Answers [`DiskRequest::Finish`].
    Finished(SessionId, Result<(), ReasonText>),
    /// Answers [`DiskRequest::Order`] with the outcome, or `None` if the signature is invalid and
    /// the order ignored.
    Ordered(SessionId, Option<Ordered>),
    /// Answers [`DiskRequest::Check`].
    Checked(SessionId, Result<(), ReasonText>),
    /// Answers [`DiskRequest::Bury`]: true if the order is valid and stored.
    Buried(SignedOrder, bool),
    /// Answers [`DiskRequest::Verify`]: true if the release is acceptable.
    Verified(ReleaseId, bool),
    /// A tree changed its release, for any reason.
    Trees(Vec<TreeState>),
    /// Evidence of each tree's highest serial, for beacons.
    Shown(BTreeMap<TreeName, SerialProof>),
    /// The signed header of each tree's current release.
    Headers(BTreeMap<TreeName, ReleaseBytes>),
    /// The tree drifted from its release.
    Drifted(TreeName),
    /// The tree catches up from now on; if the flag is set, other hosts may get releases from here.
    CatchesUp(TreeName, bool),
}

/// Outcome of an order.
#[derive(Debug, Clone)]
pub enum Ordered {
    /// The checks before a commit agreed.
    Prepared,
    /// The checks before a commit refused.
    Vetoed(ReasonText),
    /// The release is in place.
    Committed {
        /// Serial of the commit.
        serial: Serial,
        /// True if hooks or a health check follow.
        checks: bool,
    },
    /// The release was reverted; the text names the tree's state.
    Reverted(ReasonText),
    /// The release could not be reverted.
    Stuck(ReasonText),
    /// Aborted as ordered; the tree is unchanged.
    Aborted,
    /// The commit failed and was undone.
    Failed(ReasonText),
    /// The commit failed and could not be undone: the tree is part new, part old.
    Torn(ReasonText),
}

impl DiskReply {
    /// Returns the session of the reply.
    pub(super) fn session(&self) -> Option<SessionId> {
        match self {
            DiskReply::Opened(id, _)
            | DiskReply::Explored(id, _)
            | DiskReply::Diffed(id, _)
            | DiskReply::Delivered(id, ..)
            | DiskReply::ReadBack(id, ..)
            | DiskReply::Finished(id, _)
            | DiskReply::Checked(id, _)
            | DiskReply::Ordered(id, _) => Some(*id),
            DiskReply::Buried(..)
            | DiskReply::Verified(..)
            | DiskReply::Trees(_)
            | DiskReply::Shown(_) => None,
            DiskReply::Headers(_) | DiskReply::Drifted(_) | DiskReply::CatchesUp(..) => None,
        }
    }
}
