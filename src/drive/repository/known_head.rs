//! The head of the last look: what a host knows of a repository.

use std::sync::Arc;
use std::time::Duration;

use crate::drive::clock;
use crate::id::{Serial, TreeName};
use crate::keys::shown_time;
use crate::manifest::ReleaseId;
use crate::repository::head::{HeadTimes, Staleness};
use crate::repository::object::Etag;
use crate::repository::record::ReleaseRecord;
use crate::units::{shown_age, shown_duration};

/// A head that was seen: its state, and how long it holds.
#[derive(Debug, Clone, Default)]
pub struct KnownHead {
    pub(super) etag: Option<Etag>,
    pub(super) newest: Option<(Serial, ReleaseId)>,
    pub(super) times: Option<HeadTimes>,
    /// Its newest release, if that was not for this host: the keys or the tree may change.
    pub(super) refused: Option<Arc<ReleaseRecord>>,
}

impl KnownHead {
    /// Warning about a head of `tree` that is stale, or older than `max_age`.
    pub fn warning(&self, tree: &TreeName, max_age: Option<Duration>) -> Option<String> {
        let now = clock::wall_seconds();
        let why =
            "nobody signs it again (`makuo repo renew`), or somebody withholds newer releases";
        let seconds = max_age.map(|max| max.as_secs());

        match (self.times?.staleness(now, seconds)?, max_age) {
            (Staleness::Old(age), Some(max_age)) => {
                let (age, max_age) = (shown_age(age), shown_duration(max_age));
                Some(format!(
                    "the head of {tree} was signed {age} ago, and max_age is {max_age}: {why}"
                ))
            }
            (Staleness::Ended(until), _) => {
                let since = shown_time(until);
                Some(format!("the head of {tree} is stale since {since}: {why}"))
            }
            (Staleness::Old(_), None) => None,
        }
    }
}
