//! Settings, steps and results of a publication.

use crate::block::BlockRef;
use crate::block::frame::Level;
use crate::id::{Ordinal, Serial, TreeName};
use crate::repository::attempt::RequestId;
use crate::repository::head::{HeadError, HeadValidity, PinChange, SignedHead};
use crate::repository::object::{Get, Put, StoreFault};
use crate::repository::pack::PackName;
use crate::repository::record::ReleaseRecord;
use crate::units::{Moment, WallTime};

/// Settings of a publication.
#[derive(Debug, Clone)]
pub struct PublishSetup {
    /// The tree.
    pub tree: TreeName,
    /// Number of releases to keep, with the new one: 1 to [`crate::repository::head::MAX_KEPT`].
    /// `None` keeps as many as before, and 3 at least.
    pub keep: Option<usize>,
    /// Compression of blocks and nodes; `None` stores them as they are.
    pub level: Option<Level>,
    /// Time until the head is stale, unless it is signed again.
    pub valid_for: HeadValidity,
    /// Whether everything that earlier releases refer to is read first, so that what is missing or
    /// damaged is stored again. Releases that cannot be mended so leave the repository.
    pub repair: bool,
    /// Change of the pins.
    pub pin: Option<PinChange>,
    /// Seed of the jitter between attempts.
    pub seed: u64,
}

/// Next step of a publication.
#[derive(Debug)]
pub enum PublishStep {
    /// A request to the store.
    Get(RequestId, Get),
    /// A request to the store.
    Put(RequestId, Put),
    /// The present head, not verified yet; `None` if the repository does not have the tree.
    Head(Option<SignedHead>),
    /// The newest release, its signature not verified yet; `None` if it cannot be read.
    Newest(Option<Box<ReleaseRecord>>),
    /// Something that people want to know.
    Note(PublishNote),
    /// The machine needs the nodes of the new manifest.
    Walk,
    /// The machine needs the content of a block.
    Read(Ordinal, BlockRef),
    /// All packs are stored, and the head needs its signature.
    Seal,
    /// The release is published.
    Done(Published),
    /// The end of the publication; readers see the old release.
    Failed(PublishError),
    /// Nothing until a reply comes, or until this time.
    Wait(Option<Moment>),
}

/// What a publication found wrong with the repository, and mends as far as it can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PublishNote {
    /// A pack that earlier releases refer to is not there.
    #[error("{} is missing, or too short", .0.object())]
    Missing(PackName),
    /// A pack has other bytes than its name says.
    #[error("{} is damaged: it has other bytes than its name says", .0.object())]
    Damaged(PackName),
    /// A release leaves the repository, because its content there is not whole.
    #[error("the release {0} is not whole, and leaves the repository")]
    Dropped(Serial),
    /// The store has taken the head, and answers with the one before.
    #[error(
        "the store keeps answering with an old head, so it does not show whether somebody else \
         published at the same time: is there a cache before it?"
    )]
    Unconfirmed,
}

/// Result of a publication.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Published {
    /// Blocks that the repository did not have.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packs that were stored.
    pub packs: u64,
    /// Bytes of these packs.
    pub stored: u64,
    /// Time from which the new head is stale.
    pub valid_until: Option<WallTime>,
}

/// What a publication stores, as far as it is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upload {
    /// Bytes of new content; a bound for the first release of a tree.
    pub total: u64,
    /// Bytes of content in packs.
    pub(super) packed: u64,
    /// Bytes of these packs.
    pub(super) stored: u64,
}

impl Upload {
    /// Bytes of content in the first `taken` bytes of the packs.
    pub fn done(&self, taken: u64) -> u64 {
        let share = u128::from(self.packed) * u128::from(taken.min(self.stored));
        let done = share.checked_div(u128::from(self.stored)).unwrap_or(0);
        u64::try_from(done).unwrap_or(self.packed).min(self.total)
    }
}

/// Reason for the end of a publication.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The store does not answer as it should.
    #[error("{}", .0.text)]
    Store(StoreFault),
    /// There is something else where the repository should be.
    #[error("there is something else than a repository")]
    NoRepository,
    /// The head is not legal.
    #[error(transparent)]
    Head(#[from] HeadError),
    /// The repository has this serial or a later one.
    #[error("the repository has serial {0} already: release again")]
    Outdated(Serial),
    /// A release of another tree.
    #[error("the release is of the tree {0}")]
    OtherTree(TreeName),
    /// The source changed during the publication.
    #[error("the source changed while it was read: release again")]
    SourceChanged,
}
