//! Settings, steps and results of a gc.

use crate::id::TreeName;
use crate::repository::attempt::RequestId;
use crate::repository::head::{HeadError, SignedHead};
use crate::repository::object::{Get, ObjectPath, Put, StoreFault};
use crate::repository::pack::{Extent, MAX_PACK_BYTES, PackName};
use crate::repository::record::RecordError;
use crate::units::Moment;

/// Settings of a gc.
#[derive(Debug, Clone)]
pub struct GcSetup {
    /// Age in seconds below which nothing is deleted. `None` deletes and writes nothing, whatever
    /// else is set.
    pub grace: Option<u64>,
    /// Whether a repository without any head may be one: its first publication never ended. The
    /// store has to show that its lists have what is beside heads.
    pub no_trees: bool,
    /// Set if the caller can sign heads.
    pub rewrites: Option<GcRewrite>,
    /// Seed of the jitter between attempts.
    pub seed: u64,
}

/// Settings of a gc that signs heads.
#[derive(Debug, Clone, Copy, Default)]
pub struct GcRewrite {
    /// Number of releases to keep of each tree, at least 1; `None` keeps all that its head has.
    pub keep: Option<usize>,
}

/// Next step of a gc.
#[derive(Debug)]
pub enum GcStep {
    /// The machine needs the list of all objects.
    List,
    /// A request to the store.
    Get(RequestId, Get),
    /// A request to the store.
    Put(RequestId, Put),
    /// A head, not verified yet.
    Head(TreeName, SignedHead),
    /// A head needs its signature.
    Seal,
    /// Objects to delete.
    Delete(Vec<ObjectPath>),
    /// The end.
    Done(GcReport),
    /// The end. What earlier steps deleted is not needed.
    Failed(GcError),
    /// Nothing until a reply comes, or until this time.
    Wait(Option<Moment>),
}

/// Result of a gc.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GcReport {
    /// Bytes that releases refer to.
    pub live: u64,
    /// Bytes of all packs before.
    pub before: u64,
    /// Packs whose live pieces moved.
    pub rewritten: u64,
    /// Bytes of deleted objects.
    pub deleted: u64,
    /// Bytes that no release needs and that a later gc deletes: they are young, or a publisher may
    /// still refer to them.
    pub later: u64,
}

/// Reason for the end of a gc.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GcError {
    /// The store does not answer as it should.
    #[error("{}", .0.text)]
    Store(StoreFault),
    /// There are packs, and no head that refers to any. Nothing is deleted then, unless
    /// [`GcSetup::no_trees`] is set.
    #[error("there are packs and no tree: is this the URL of a repository?")]
    NoTrees,
    /// A head is not legal.
    #[error("tree {0}: {1}")]
    Head(TreeName, HeadError),
    /// A record is not legal.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The head of the first tree names a record of the second.
    #[error("the repository is damaged: the head of {0} names a release of {1}")]
    OtherTree(TreeName, TreeName),
    /// A pack beyond the cap, with its size in bytes.
    #[error("{} has {} bytes, a pack has at most {MAX_PACK_BYTES}", .0.object(), .1)]
    TooLarge(PackName, u64),
    /// Bytes that are not those that a release refers to.
    #[error("the repository is damaged: wrong bytes in {} at {}", .0.pack.object(), .0.offset)]
    Damaged(Extent),
    /// A pack is missing, or too short.
    #[error(
        "{} is missing, or too short: the repository is damaged, or changed meanwhile",
        .0.object()
    )]
    Missing(PackName),
    /// The head of a tree is another one than before, or gone.
    #[error("the head of {0} changed meanwhile: run it again")]
    Changed(TreeName),
}
