//! Hands a committed release with its source on, at the end of its session.

use std::fmt;
use std::sync::Arc;

use super::source::ReleaseSource;
use crate::manifest::Release;
use crate::wire::message::SignedOrder;

/// A release that hosts committed.
#[derive(Debug, Clone)]
pub struct CommittedRelease {
    /// The release.
    pub release: Release,
    /// Signature of its header.
    pub signature: Vec<u8>,
    /// The order by which hosts committed it.
    pub order: SignedOrder,
}

/// Takes a committed release.
type TakeRelease = dyn Fn(&mut ReleaseSource, CommittedRelease) + Send + Sync;

/// Stores a committed release elsewhere.
#[derive(Clone)]
pub struct Publisher(Arc<TakeRelease>);

impl Publisher {
    /// Calls `publish` once hosts have committed the release.
    pub fn new(
        publish: impl Fn(&mut ReleaseSource, CommittedRelease) + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(publish))
    }

    /// Hands the release on.
    pub(super) fn publish(&self, source: &mut ReleaseSource, committed: CommittedRelease) {
        (self.0)(source, committed);
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Publisher")
    }
}
