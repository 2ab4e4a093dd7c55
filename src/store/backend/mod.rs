//! Opens the store behind a URL: which interface, whose credentials, which endpoint.

mod azure;
mod check;
mod google;
mod s3;
mod web;

use std::sync::Arc;

use object_store::{ObjectStore, RetryConfig};
pub(super) use web::web;

use super::client::{Clients, Redirects};
use super::limits::Limits;
use super::options::StoreOptions;
use super::transport::Transport;
use super::url::{BucketKind, BucketUrl};
use crate::Result;

/// An open store.
#[derive(Debug)]
pub(super) struct StoreBackend {
    /// The client of object_store.
    pub store: Arc<dyn ObjectStore>,
    /// The transport below it.
    pub transport: Transport,
    /// Path before that of each object, without slashes at its ends.
    pub prefix: String,
    /// Whose credentials are used, for messages.
    pub who: String,
    /// How the store takes conditions for a put.
    pub conditions: Conditions,
}

/// How a store takes conditions for a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Conditions {
    /// By entity tags.
    Etags,
    /// By entity tags, if the server does as its interface says: some ignore them.
    Unproven,
    /// By numbers of generations.
    Generations,
    /// Not at all, or nobody knows: web servers ignore conditions that they do not know.
    None,
}

/// A client of object_store, whose credentials it uses, and how the store takes conditions.
type OpenedBackend = (Arc<dyn ObjectStore>, String, Conditions);

/// object_store makes each request once: repetitions are decided in this room.
fn once() -> RetryConfig {
    RetryConfig {
        max_retries: 0,
        ..RetryConfig::default()
    }
}

/// Opens a bucket.
pub(super) fn bucket(
    url: &BucketUrl,
    options: &StoreOptions,
    limits: Arc<Limits>,
) -> Result<StoreBackend> {
    let clients = Clients::new(options, Redirects::None)?;
    let transport = Transport::new(clients, limits, None);
    let (store, who, conditions) = match url.kind {
        BucketKind::S3 => s3::open(url, options, &transport)?,
        BucketKind::Google => google::open(url, options, &transport)?,
        BucketKind::Azure => azure::open(url, options, &transport)?,
    };

    Ok(StoreBackend {
        store,
        transport,
        prefix: url.prefix.clone(),
        who,
        conditions,
    })
}
