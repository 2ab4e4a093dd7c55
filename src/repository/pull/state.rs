//! Requests of a pull under way, the release that it follows, and the caller's part in it.

use crate::block::BlockRef;
use crate::id::Ordinal;
use crate::manifest::ReleaseId;
use crate::repository::attempt::SmallGet;
use crate::repository::head::HeadRelease;
use crate::repository::places::PlacesRef;
use crate::repository::record::ReleaseRecord;

/// Use of a piece under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum PullPurpose {
    /// The record of a release, with the bytes before it.
    Window(HeadRelease),
    Places(PlacesRef),
    Node(BlockRef),
    Block(Ordinal, BlockRef),
}

/// Request for a small object under way.
#[derive(Debug)]
pub(super) enum Asking {
    Head(SmallGet),
    Marker(SmallGet),
}

/// The release that is pulled.
#[derive(Debug)]
pub(super) struct FollowedRelease {
    pub(super) kept: HeadRelease,
    pub(super) id: Option<ReleaseId>,
    pub(super) record: Option<ReleaseRecord>,
}

/// Part that the caller's walk has in the pull.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WalkState {
    /// No walk is due: before the record, after the last block.
    Idle,
    /// Pieces of the last walk are under way.
    Loading,
    /// The caller was asked to walk.
    Asked,
}
