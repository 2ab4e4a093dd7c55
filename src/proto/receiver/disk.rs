//! Requests of a host to its disk, and the replies.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::buffer::BlockPart;
use super::generations::Delivery;
use crate::id::{Generation, HostName, Serial, SessionId, TreeName};
use crate::manifest::{Release, ReleaseId};
use crate::proto::RangeSet;
use crate::wire::message::{DiffSummary, SerialProof, SignedOrder, TreeState};
use crate::wire::query::ReleaseBytes;

/// Request to the disk.
#[derive(Debug, Clone)]
pub enum DiskRequest {
    /// Check signature, role, serial, expiry and scope of an offer, and open the tree.
    Open(SessionId, OfferedRelease),
    /// Work for an open session. Requests of one session are answered in order.
    Session(SessionId, Ask),
    /// End the session: a commit stays, everything else is dropped. Staged content may stay for the
    /// next session.
    Close(SessionId),
    /// Check a release found at other hosts for this host; the second field is the header's
    /// signature.
    Verify(Release, Arc<[u8]>),
    /// Check and store an order to abort or revert a release, from any session.
    Bury(SignedOrder),
    /// Check and store an order by which every host may commit the release in place, from any
    /// session.
    KeepOrder(SignedOrder),
    /// Return to the release before a reverted one, if still present.
    GoBack(TreeName),
}

/// Release of an offer, as the disk has to check it.
#[derive(Debug, Clone)]
pub struct OfferedRelease {
    /// The offered release.
    pub release: Release,
    /// Signature of the release header.
    pub signature: Arc<[u8]>,
    /// Scan mode of the tree.
    pub look: ScanMode,
    /// Claimed host name of the sender.
    pub sender: HostName,
    /// Commit order attached to the offer, for hosts that will get no other.
    pub grant: Option<SignedOrder>,
    /// True if the offer is only for hosts that keep the release staged.
    pub staged: bool,
}

/// Work for an open session.
#[derive(Debug, Clone)]
pub enum Ask {
    /// List the ordinals of missing manifest nodes, as far as the present nodes reveal them.
    Explore,
    /// Compare the tree with the manifest.
    Diff,
    /// Verify and keep the blocks of a payload.
    Deliver(Delivery),
    /// Read back parts of file blocks that were not requested.
    ReadBack {
        /// The generation to complete.
        generation: Generation,
        /// The parts, in the order of the payload.
        parts: Vec<BlockPart>,
    },
    /// Make the stage complete and durable after the last delivery.
    Finish,
    /// Check the signature of an order and execute the order.
    Order(Arc<SignedOrder>),
    /// Run the hooks and the health check after a commit.
    Check,
}

impl Ask {
    /// Returns the answer of a disk that failed for the reason `why`.
    pub fn failed(&self, why: ReasonText) -> Answer {
        match self {
            Ask::Explore => Answer::Explored(Err(why)),
            Ask::Diff => Answer::Diffed(Err(why)),
            Ask::Deliver(_) => Answer::Delivered(Vec::new(), Err(why)),
            Ask::ReadBack { generation, .. } => Answer::ReadBack(*generation, Vec::new()),
            Ask::Finish => Answer::Finished(Err(why)),
            Ask::Order(_) => Answer::Ordered(Some(Ordered::Failed(why))),
            Ask::Check => Answer::Checked(Err(why)),
        }
    }
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
    /// True if the session is for other hosts: no failure of this one.
    pub for_others: bool,
}

impl OfferRefusal {
    /// Refusal of a verified release.
    pub fn proven(why: ReasonText) -> Self {
        Self {
            proven: true,
            ..Self::from(why)
        }
    }

    /// Refusal of a session that is for other hosts.
    pub fn for_others(why: ReasonText) -> Self {
        Self {
            for_others: true,
            ..Self::from(why)
        }
    }
}

impl From<ReasonText> for OfferRefusal {
    fn from(why: ReasonText) -> Self {
        Self {
            why,
            proven: false,
            for_others: false,
        }
    }
}

/// Reply of the disk.
#[derive(Debug, Clone)]
pub enum DiskReply {
    /// Answers [`DiskRequest::Open`].
    Opened(SessionId, Result<(), OfferRefusal>),
    /// Answers [`DiskRequest::Session`].
    Session(SessionId, Answer),
    /// Answers [`DiskRequest::Bury`]: true if the order is valid and stored.
    Buried(SignedOrder, bool),
    /// Answers [`DiskRequest::KeepOrder`]: true if the order is valid and stored.
    OrderKept(SignedOrder, bool),
    /// Answers [`DiskRequest::Verify`]: true if the release is acceptable.
    Verified(ReleaseId, bool),
    /// A tree changed its release, for any reason.
    Trees(Vec<TreeState>),
    /// Evidence of each tree's highest serial, for beacons.
    Shown(BTreeMap<TreeName, SerialProof>),
    /// The signed header of each tree's current release.
    Headers(BTreeMap<TreeName, ReleaseBytes>),
    /// The release could not be put in place, and no offer of it is taken for this time.
    Rests(TreeName, ReleaseId, Duration),
    /// No release of the tree rests any more.
    Resumes(TreeName),
    /// The tree drifted from its release.
    Drifted(TreeName),
    /// The tree catches up from now on; if the flag is set, other hosts may get releases from here.
    CatchesUp(TreeName, bool),
}

/// Answer to an [`Ask`].
#[derive(Debug, Clone)]
pub enum Answer {
    /// Answers [`Ask::Explore`] with the missing ordinals; an empty set is a complete manifest.
    Explored(Result<RangeSet, ReasonText>),
    /// Answers [`Ask::Diff`] with the plan's summary, the ordinals to fetch and the drift list.
    Diffed(Result<(DiffSummary, RangeSet, Arc<[u8]>), ReasonText>),
    /// Answers [`Ask::Deliver`] with the buffer, the ordinals with a wrong hash and the number of
    /// bytes kept, or the reason of a failure.
    Delivered(Vec<u8>, Result<(RangeSet, u64), ReasonText>),
    /// Answers [`Ask::ReadBack`] with the readable parts of valid blocks, in the same order.
    ReadBack(Generation, Vec<(BlockPart, Vec<u8>)>),
    /// Answers [`Ask::Finish`], with the reason if the host commits nothing now.
    Finished(Result<Option<ReasonText>, ReasonText>),
    /// Answers [`Ask::Order`] with the outcome, or `None` if the signature is invalid and the order
    /// ignored.
    Ordered(Option<Ordered>),
    /// Answers [`Ask::Check`].
    Checked(Result<(), ReasonText>),
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
    /// The release stays staged; the text says what it replaces.
    Staged(Option<ReasonText>),
    /// The commit failed and was undone.
    Failed(ReasonText),
    /// The commit failed and could not be undone: the tree is part new, part old.
    Torn(ReasonText),
}
