//! Objects of a store, read whole, and its list.

use crate::error::{Error, Kind, Result};
use crate::id::TreeName;
use crate::repository::head::{MAX_HEAD_BYTES, SignedHead, head_object, tree_of_head};
use crate::repository::object::{Get, GetReply, ListedObject, ObjectPath, StoreFault};
use crate::store::Store;

/// Error for a fault of the store.
pub(super) fn of_fault(fault: &StoreFault) -> Error {
    Error::new(Kind::Io, format!("the store does not answer: {fault}"))
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
    let refused = |e| Error::refused(format!("the head of {tree} cannot be used")).because(e);
    let bytes = read(store, get).await?;
    bytes
        .map(|bytes| SignedHead::decode(&bytes).map_err(refused))
        .transpose()
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

/// Trees among the objects.
pub(super) fn trees(listed: &[ListedObject]) -> Vec<TreeName> {
    listed
        .iter()
        .filter_map(|listed| tree_of_head(&listed.object))
        .collect()
}
