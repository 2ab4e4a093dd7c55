//! The stages of a publication, and the heads before and after it.

use std::sync::Arc;

use crate::repository::head::{Head, HeadRelease};
use crate::repository::object::Etag;

/// Stage of a publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PublishStage {
    /// The head, or the marker, is under way.
    Opening,
    /// The caller has the head.
    Opened,
    /// The newest release is read, or the caller has it.
    Looking,
    /// Earlier releases are compared.
    Comparing,
    /// Blocks, and then nodes, are laid out in packs.
    Packing,
    /// The last packs are under way.
    Flushing,
    /// The caller signs the head.
    Sealing,
    /// The head is under way.
    Committing,
    /// The head is read again before it is replaced, or after a conflict.
    Checking,
    /// The head is read again after a store without conditions has taken it: another publisher may
    /// have stored one at the same time.
    Confirming,
    Ended,
}

/// The head before the publication.
#[derive(Debug, Default)]
pub(super) struct Base {
    /// Its bytes; empty without a head.
    pub(super) object: Vec<u8>,
    pub(super) etag: Option<Etag>,
    pub(super) head: Option<Head>,
    /// Releases of it that cannot be read whole: they leave the repository.
    pub(super) damaged: Vec<HeadRelease>,
}

/// The new head.
#[derive(Debug, Default)]
pub(super) struct SealedHead {
    pub(super) head: Vec<u8>,
    pub(super) object: Arc<Vec<u8>>,
    /// The release that it adds.
    pub(super) added: Option<HeadRelease>,
}
