//! Objects of a store, read whole, and its list.

use std::path::Path;

use super::failure::{REPAIR_HINT, of_fault};
use super::requests::runtime;
use crate::drive::clock;
use crate::drive::deploy::ReleaseKeys;
use crate::error::{Error, Kind, Result};
use crate::id::TreeName;
use crate::keys::AuthorizedKeys;
use crate::repository::head::{
    HeadError, HeadRelease, MAX_HEAD_BYTES, SignedHead, VerifiedHead, head_object, tree_of_head,
};
use crate::repository::object::{Get, GetReply, ListedObject, ObjectPath};
use crate::repository::record::ReleaseRecord;
use crate::store::Store;

/// Verifies the head of `tree` by the keys of a publisher.
pub(super) fn verified_by(
    keys: &ReleaseKeys,
    tree: &TreeName,
    head: &SignedHead,
) -> Result<VerifiedHead, HeadError> {
    let none = AuthorizedKeys::none(Path::new("authorized_keys"));
    let authorized = keys.authorized.as_deref().unwrap_or(&none);
    let own = Some(keys.signer.public());
    head.verify(tree, authorized, own, clock::wall_seconds())
}

/// Reads what `get` asks for; `None` if there is no such object.
pub(super) async fn read(store: &Store, get: Get) -> Result<Option<Vec<u8>>> {
    let mut reader = store.get(get);
    let mut bytes = Vec::new();
    while let Some(reply) = reader.next().await {
        match reply {
            GetReply::Bytes(more) => bytes.extend_from_slice(&more),
            GetReply::End { .. } => return Ok(Some(bytes)),
            GetReply::Missing | GetReply::NotModified => return Ok(None),
            GetReply::Failed(fault) => return Err(of_fault(&fault)),
        }
    }

    Err(Error::new(Kind::Io, "the store gave no last reply"))
}

/// Request for all of an object of at most `max` bytes.
pub(super) fn all_of(object: ObjectPath, max: u64) -> Get {
    Get {
        object,
        range: None,
        unless: None,
        max,
    }
}

/// Reads the head of `tree`, not verified; `None` if there is none.
pub(super) async fn read_head(store: &Store, tree: &TreeName) -> Result<Option<SignedHead>> {
    let get = all_of(head_object(tree), MAX_HEAD_BYTES as u64);
    let bytes = read(store, get).await?;
    let refused = |e| Error::refused(format!("{}: {e}", head_object(tree)));
    bytes
        .map(|bytes| SignedHead::decode(&bytes).map_err(refused))
        .transpose()
}

/// Reads the record of a kept release of `tree`; its signature is not verified.
pub(super) async fn read_record(
    store: &Store,
    tree: &TreeName,
    kept: &HeadRelease,
) -> Result<ReleaseRecord> {
    let start = u64::from(kept.offset);
    let get = Get {
        object: kept.pack.object(),
        range: Some(start..start + u64::from(kept.len)),
        unless: None,
        max: u64::from(kept.len),
    };

    let missing = || Error::refused(format!("{} is missing", kept.pack.object())).hint(REPAIR_HINT);
    let bytes = read(store, get).await?.ok_or_else(missing)?;
    let damaged = |e| {
        Error::refused("the repository is damaged")
            .because(e)
            .hint(REPAIR_HINT)
    };
    let record = ReleaseRecord::decode(&bytes, kept.pack, &kept.hash).map_err(damaged)?;
    record.check_tree(tree).map_err(damaged)?;
    Ok(record)
}

/// All objects of the store, by their paths.
pub(super) async fn list(store: &Store) -> Result<Vec<ListedObject>> {
    let mut listed = Vec::new();
    store
        .list(|object| listed.push(object))
        .await
        .map_err(|fault| of_fault(&fault))?;
    listed.sort_by(|a, b| a.object.cmp(&b.object));
    Ok(listed)
}

/// Trees of the repository.
pub fn trees_of(store: &Store) -> Result<Vec<TreeName>> {
    runtime()?.block_on(async { Ok(trees(&list(store).await?)) })
}

/// Trees among the objects.
pub(super) fn trees(listed: &[ListedObject]) -> Vec<TreeName> {
    listed
        .iter()
        .filter_map(|listed| tree_of_head(&listed.object))
        .collect()
}
