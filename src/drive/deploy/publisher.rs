//! Hands a committed release with its source on, at the end of its session.

use std::fmt;
use std::sync::Arc;

use super::source::ReleaseSource;
use crate::Result;
use crate::id::Serial;
use crate::manifest::Release;
use crate::outcome::{Observer, RepositoryResult};
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
type TakeRelease =
    dyn Fn(&mut ReleaseSource, CommittedRelease, &mut dyn Observer) -> Result<()> + Send + Sync;

/// Stores a committed release in a repository.
#[derive(Clone)]
pub struct Publisher {
    url: String,
    newest: Serial,
    take: Arc<TakeRelease>,
}

impl Publisher {
    /// Calls `publish` once hosts have committed the release; `url` names the repository, and
    /// `newest` is its newest release, which the new one has to follow.
    pub fn new(
        url: String,
        newest: Serial,
        publish: impl Fn(&mut ReleaseSource, CommittedRelease, &mut dyn Observer) -> Result<()>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        let take = Arc::new(publish);
        Self { url, newest, take }
    }

    /// The newest release of the repository.
    pub(super) fn newest(&self) -> Serial {
        self.newest
    }

    /// Hands the release on, with progress to `observer`.
    pub(super) fn publish(
        &self,
        source: &mut ReleaseSource,
        committed: CommittedRelease,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        (self.take)(source, committed, observer)
    }

    /// The result for the outcome; `None` if there was nothing to publish.
    pub(super) fn result(&self, published: Option<Result<()>>) -> RepositoryResult {
        let (error, hint) = match published {
            Some(Ok(())) => (None, None),
            Some(Err(e)) => (Some(e.to_string()), e.hint_text().map(str::to_string)),
            None => (Some("no host is known to have committed it".into()), None),
        };
        let url = self.url.clone();
        RepositoryResult { url, error, hint }
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}
