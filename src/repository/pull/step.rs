//! Steps of a pull, and the reasons for its end.

use crate::block::BlockRef;
use crate::id::{Ordinal, TreeName};
use crate::repository::attempt::RequestId;
use crate::repository::head::{HeadError, SignedHead};
use crate::repository::object::{Get, StoreFault};
use crate::repository::pack::{Extent, PackName};
use crate::repository::record::{RecordError, ReleaseRecord};
use crate::units::Moment;

/// Next step of a pull.
#[derive(Debug)]
pub enum PullStep {
    /// A request to the store.
    Get(RequestId, Get),
    /// The head is in the state that the caller knows.
    Unchanged,
    /// The head, not verified yet.
    Head(SignedHead),
    /// The followed release, not verified yet.
    Record(Box<ReleaseRecord>),
    /// A node of the manifest, verified.
    Node(BlockRef, Vec<u8>),
    /// All requested nodes came; the walk goes on.
    Walk,
    /// The manifest is complete.
    Complete,
    /// A wanted block, verified.
    Block(Ordinal, BlockRef, Vec<u8>),
    /// All wanted blocks came.
    Done,
    /// The repository does not keep the release any more.
    Superseded,
    /// The end of the pull.
    Failed(PullError),
    /// Nothing until a reply comes, or until this time.
    Wait(Option<Moment>),
}

/// Reason for the end of a pull.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PullError {
    /// The store does not answer as it should.
    #[error("{}", .0.text)]
    Store(StoreFault),
    /// There is no repository.
    #[error("there is no repository here")]
    NoRepository,
    /// There is a repository without this tree.
    #[error("the repository has no tree {0}")]
    NoTree(TreeName),
    /// The head is not legal.
    #[error(transparent)]
    Head(#[from] HeadError),
    /// The record is not legal.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A pack is missing, or too short, that the current head refers to.
    #[error("the repository is damaged: {} is missing, or too short", .0.object())]
    Missing(PackName),
    /// Bytes that are not those that the release refers to, again and again.
    #[error("the repository is damaged: wrong bytes in {} at {}", .0.pack.object(), .0.offset)]
    Damaged(Extent),
    /// Places that do not fit the manifest.
    #[error("the repository is damaged: places that do not fit the manifest")]
    Misplaced,
    /// Packs vanished too often.
    #[error("the repository changes faster than it can be read")]
    Unsteady,
}
