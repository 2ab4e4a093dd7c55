//! Finds out whether a store keeps conditions. Some servers with the interface of S3 ignore
//! `If-Match` or `If-None-Match` and answer 200, and two publishers would overwrite each other.
//!
//! **On disk.** `makuo/stores/HASH` in the user's cache, where HASH is that of the store: it is
//! there once the store has kept its conditions, so that only the first publication asks.

use std::path::PathBuf;
use std::sync::OnceLock;

use super::{Remote, RemoteFailure};
use crate::block::BlockHash;
use crate::repository::marker::{marker, marker_object};
use crate::repository::object::{Etag, FaultKind, Put, PutCondition, PutReply};
use crate::store::backend::Conditions;
use crate::store::options::StoreOptions;
use crate::store::url::StoreUrl;

/// A tag that no object has.
const NO_TAG: &str = "\"00000000000000000000000000000000\"";
/// Variables that lead to another server under the same URL.
const PLACES: &[&str] = &[
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT",
    "AWS_PROFILE",
    "AWS_CONFIG_FILE",
];

/// What the store has shown so far.
#[derive(Debug)]
pub(super) struct ProvenConditions {
    keeps: OnceLock<bool>,
    memory: Option<PathBuf>,
}

impl ProvenConditions {
    /// What this machine knows of the store at `url`.
    pub fn new(url: &StoreUrl, options: &StoreOptions) -> Self {
        let place = |name: &&str| options.variable(name).unwrap_or_default().to_string();
        let places: Vec<String> = PLACES.iter().map(place).collect();
        let name = BlockHash::of(format!("{url:?}\n{}", places.join("\n")).as_bytes());
        let home = || Some(PathBuf::from(options.variable("HOME")?).join(".cache"));
        let cache = options.variable("XDG_CACHE_HOME").map(PathBuf::from);
        let memory = cache
            .or_else(home)
            .map(|cache| cache.join("makuo/stores").join(name.to_string()));

        let keeps = OnceLock::new();
        if memory.as_ref().is_some_and(|path| path.exists()) {
            let _ = keeps.set(true);
        }
        Self { keeps, memory }
    }

    fn found(&self, keeps: bool) {
        let _ = self.keeps.set(keeps);
        let Some(path) = self.memory.as_ref().filter(|_| keeps) else {
            return;
        };

        let made = path.parent().map(std::fs::create_dir_all).transpose();
        if let Err(e) = made.and_then(|_| std::fs::write(path, "keeps conditions\n")) {
            // The next process asks again.
            tracing::debug!("cannot remember what the store does: {e}");
        }
    }
}

impl Remote {
    /// Returns whether the store keeps conditions such as `condition`. A store that may not is
    /// asked once, by puts of the marker that it has to refuse.
    pub(super) async fn keeps(&self, condition: &PutCondition) -> Result<bool, RemoteFailure> {
        let conditions = self.backend.conditions;
        if *condition == PutCondition::Any || conditions == Conditions::None {
            return Ok(*condition == PutCondition::Any);
        }
        if conditions != Conditions::Unproven {
            return Ok(true);
        }
        if let Some(known) = self.proven.keeps.get() {
            return Ok(*known);
        }

        // The first put makes the marker, if there is none yet.
        let keeps = self.refuses(PutCondition::Absent, 2).await?
            && match Etag::new(NO_TAG) {
                Some(tag) => self.refuses(PutCondition::Unchanged(tag), 1).await?,
                None => false,
            };
        if !keeps {
            let url = &self.asked.url;
            tracing::debug!("{url} ignores conditions: the serial decides between publishers");
        }
        self.proven.found(keeps);
        Ok(keeps)
    }

    /// Returns whether one of `most` puts of the marker is refused for its condition.
    async fn refuses(&self, condition: PutCondition, most: u32) -> Result<bool, RemoteFailure> {
        let put = Put {
            object: marker_object(),
            bytes: marker().into(),
            condition,
        };

        for _ in 0..most {
            let failure = match self.put_once(&put).await {
                Ok(_) => continue,
                Err(failure) => failure,
            };
            return match failure.of_condition(&put) {
                Some(reply) => Ok(reply == PutReply::Conflict),
                // Nothing is known of a key that may not store the marker.
                None if failure.fault.kind == FaultKind::Denied => Ok(false),
                None => Err(failure),
            };
        }
        Ok(false)
    }
}
