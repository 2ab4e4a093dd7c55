//! Settings, steps and results of a gc.

use crate::id::TreeName;
use crate::repository::attempt::RequestId;
use crate::repository::head::{HeadError, HeadValidity, SignedHead};
use crate::repository::object::{Get, ObjectPath, Put, StoreFault};
use crate::repository::pack::{Extent, PackName};
use crate::repository::record::RecordError;
use crate::units::Moment;

/// Settings of a gc.
#[derive(Debug, Clone)]
pub struct GcSetup {
    /// Age in seconds below which a pack is not deleted.
    pub grace: u64,
    /// Set if the caller can sign heads.
    pub rewrites: Option<GcRewrite>,
    /// Seed of the jitter between attempts.
    pub seed: u64,
}

/// Settings of a gc that signs heads.
#[derive(Debug, Clone, Copy)]
pub struct GcRewrite {
    /// Number of releases to keep of each tree, at least 1.
    pub keep: usize,
    /// Time until a head is stale.
    pub valid_for: HeadValidity,
}

/// Next step of a gc.
#[derive(Debug)]
pub enum GcStep {
    /// The machine needs the paths of all heads.
    ListHeads,
    /// A request to the store.
    Get(RequestId, Get),
    /// A request to the store.
    Put(RequestId, Put),
    /// A head, not verified yet.
    Head(TreeName, SignedHead),
    /// The machine needs the list of all packs.
    ListPacks,
    /// A head needs its signature.
    Seal(TreeName),
    /// Objects to delete.
    Delete(Vec<ObjectPath>),
    /// The end.
    Done(GcReport),
    /// The end; nothing was deleted.
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
    /// Bytes of deleted packs.
    pub deleted: u64,
}

/// Reason for the end of a gc.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GcError {
    /// The store does not answer as it should.
    #[error("the store does not answer: {}", .0.text)]
    Store(StoreFault),
    /// A head is not legal.
    #[error("the head of {0} cannot be used: {1}")]
    Head(TreeName, HeadError),
    /// A record is not legal.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Bytes that are not those that a release refers to.
    #[error("the repository is damaged: wrong bytes in {} at {}", .0.pack.object(), .0.offset)]
    Damaged(Extent),
    /// A pack is missing.
    #[error("{} is missing: the repository is damaged, or changed meanwhile", .0.object())]
    Missing(PackName),
    /// Somebody published meanwhile.
    #[error("somebody published {0} meanwhile: nothing was deleted, run it again")]
    Changed(TreeName),
}
