//! What a host asks of its disk, and what the disk answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Part;
use crate::id::{Generation, HostName, Serial, SessionId, TreeName};
use crate::manifest::{Release, ReleaseId};
use crate::proto::RangeSet;
use crate::proto::generation::{Body, PlacedBlock};
use crate::wire::message::{DiffSummary, SerialProof, SignedOrder, TreeState};
use crate::wire::query::ReleaseBytes;

/// What a host asks of its disk. Requests of one session are answered in order.
#[derive(Debug, Clone)]
pub enum Request {
    /// Check signature, role, serial, expiry, scope; open the tree.
    Open {
        /// The session.
        session: SessionId,
        /// The offered release.
        release: Release,
        /// The signature of its header.
        signature: Arc<[u8]>,
        /// How the tree is looked at.
        look: Look,
        /// The sender's host, by its own word.
        sender: HostName,
        /// The order to commit that came with the offer, when no other will.
        grant: Option<SignedOrder>,
    },
    /// Which ordinals of manifest nodes are missing, as far as can be told from the nodes that are here?
    Explore(SessionId),
    /// Compare the tree with the manifest.
    Diff(SessionId),
    /// Verify and keep the blocks of a payload.
    Deliver {
        /// The session.
        session: SessionId,
        /// The payload.
        payload: Vec<u8>,
        /// Where the content is in it.
        body: Body,
        /// The wanted blocks, and where in the plain content they are.
        blocks: Vec<PlacedBlock>,
    },
    /// Read back these parts of blocks of files that were not asked for.
    Recall {
        /// The session.
        session: SessionId,
        /// The generation that they are for.
        generation: Generation,
        /// In the order in which they lie in its payload.
        parts: Vec<Part>,
    },
    /// Everything has been delivered: make the stage complete and durable.
    Finish(SessionId),
    /// Check the order's signature and carry it out.
    Order {
        /// The session.
        session: SessionId,
        /// The order.
        order: Arc<SignedOrder>,
    },
    /// The release is in place: run what is to run then, and see whether all is well.
    Check(SessionId),
    /// Check whether a release that others have may be put here; its signature is the second part.
    Verify(Release, Arc<[u8]>),
    /// Check the signature of an order to abort or revert a release, of whichever session, and keep it.
    Bury(SignedOrder),
    /// The tree's release was taken back: go back behind it, when what it replaced is there.
    GoBack(TreeName),
    /// The session is over: what was committed stays, and nothing else will be. What is staged may stay for a next
    /// session.
    Close(SessionId),
}

/// How closely a host looks at its tree before it is compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Look {
    /// Every file is read.
    pub checksum: bool,
    /// Only what differs between the release that is there and the new one is looked at.
    pub quick: bool,
    /// Its health is checked also when nothing changes.
    pub recheck: bool,
}

/// Why a host does not take part, or failed: for people.
pub type Reason = String;

/// Why an offer is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    /// For people.
    pub why: Reason,
    /// Whether the release is rightful all the same: signed by somebody who may, and newer than what is here. Else the
    /// refusal is of anybody's making.
    pub proven: bool,
}

impl From<Reason> for Denied {
    fn from(why: Reason) -> Self {
        Self { why, proven: false }
    }
}

/// What the disk answers.
#[derive(Debug, Clone)]
pub enum Reply {
    /// To [`Request::Open`].
    Opened(SessionId, Result<(), Denied>),
    /// To [`Request::Explore`]: the missing ordinals; none is a complete manifest.
    Explored(SessionId, Result<RangeSet, Reason>),
    /// To [`Request::Diff`]: the plan in numbers, what to fetch, and the list of differences.
    Diffed(
        SessionId,
        Result<(DiffSummary, RangeSet, Arc<[u8]>), Reason>,
    ),
    /// To [`Request::Deliver`]: the buffer back, the ordinals that were not what their hash says, and bytes kept; or
    /// why nothing could be kept.
    Delivered(SessionId, Vec<u8>, Result<(RangeSet, u64), Reason>),
    /// To [`Request::Recall`]: what could be read and is what its block's hash says, in the same order.
    Recalled(SessionId, Generation, Vec<(Part, Vec<u8>)>),
    /// To [`Request::Finish`].
    Finished(SessionId, Result<(), Reason>),
    /// To [`Request::Order`]: what became of it. `None`: the signature does not hold, the order is ignored.
    Ordered(SessionId, Option<Ordered>),
    /// To [`Request::Check`].
    Checked(SessionId, Result<(), Reason>),
    /// To [`Request::Bury`]: whether the order holds, and is kept.
    Buried(SignedOrder, bool),
    /// To [`Request::Verify`]: whether it may.
    Verified(ReleaseId, bool),
    /// A tree has another release now, whoever caused it.
    Trees(Vec<TreeState>),
    /// What shows the highest serial of each tree to others.
    Shown(BTreeMap<TreeName, SerialProof>),
    /// The signed part of the release that each tree has.
    Headers(BTreeMap<TreeName, ReleaseBytes>),
    /// The tree is not what its release says.
    Drifted(TreeName),
    /// The tree takes from others what it missed, from now on, and is given to them when that is said.
    CatchesUp(TreeName, bool),
}

/// What became of an order.
#[derive(Debug, Clone)]
pub enum Ordered {
    /// What runs before a commit agrees.
    Prepared,
    /// It does not.
    Vetoed(Reason),
    /// The release is in place.
    Committed {
        /// Under this serial.
        serial: Serial,
        /// Whether something is to be run now.
        checks: bool,
    },
    /// The release was taken back; the text says where the tree is now.
    Reverted(Reason),
    /// The release could not be taken back.
    Stuck(Reason),
    /// Aborted as ordered; the tree is as it was.
    Aborted,
    /// The commit failed and was taken back.
    Failed(Reason),
    /// The commit failed and could not be undone: the tree is part new, part old.
    Torn(Reason),
}

impl Reply {
    /// The session that it is for.
    pub(super) fn session(&self) -> Option<SessionId> {
        match self {
            Reply::Opened(id, _)
            | Reply::Explored(id, _)
            | Reply::Diffed(id, _)
            | Reply::Delivered(id, ..)
            | Reply::Recalled(id, ..)
            | Reply::Finished(id, _)
            | Reply::Checked(id, _)
            | Reply::Ordered(id, _) => Some(*id),
            Reply::Buried(..) | Reply::Verified(..) | Reply::Trees(_) | Reply::Shown(_) => None,
            Reply::Headers(_) | Reply::Drifted(_) | Reply::CatchesUp(..) => None,
        }
    }
}
