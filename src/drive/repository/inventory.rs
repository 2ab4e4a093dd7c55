//! What is in a repository: its trees, and the releases that it keeps of each.

use super::requests::runtime;
use super::whole::{list, read_head, read_record, trees};
use crate::drive::clock;
use crate::error::{Error, Result};
use crate::id::{Serial, TreeName};
use crate::keys::{AuthorizedKeys, Fingerprint, Namespace, Role, verify};
use crate::manifest::ReleaseMessage;
use crate::repository::head::{Head, HeadError, HeadRelease};
use crate::store::Store;
use crate::units::{ByteSize, WallTime};

/// A tree in a repository.
#[derive(Debug, Clone)]
pub struct ListedTree {
    /// The tree.
    pub tree: TreeName,
    /// Key that signed the head.
    pub key: Fingerprint,
    /// Whether that key may release the tree, by this machine's list.
    pub is_authorized: bool,
    /// Time from which the head is stale.
    pub valid_until: Option<WallTime>,
    /// Whether that is past.
    pub is_stale: bool,
    /// Its releases, the newest first.
    pub releases: Vec<ListedRelease>,
}

/// A release in a repository.
#[derive(Debug, Clone)]
pub struct ListedRelease {
    /// Its number.
    pub serial: Serial,
    /// Time of its signature.
    pub created: WallTime,
    /// Key that signed it, if the signature holds.
    pub key: Option<Fingerprint>,
    /// Entries of all kinds.
    pub entries: u64,
    /// Bytes of its files.
    pub bytes: ByteSize,
    /// What it changes, in its author's words.
    pub message: Option<ReleaseMessage>,
    /// Whether it stays beyond the number of releases to keep.
    pub is_pinned: bool,
}

/// Trees of a repository. One that cannot be read has the reason in its place.
pub type Inventory = Vec<(TreeName, Result<ListedTree>)>;

/// Lists the trees of the repository, or one of them.
pub fn inventory(
    store: &Store,
    only: Option<&TreeName>,
    keys: &AuthorizedKeys,
) -> Result<Inventory> {
    runtime()?.block_on(async {
        let trees = match only {
            Some(tree) => vec![tree.clone()],
            None => trees(&list(store).await?),
        };

        let mut listed = Vec::new();
        for tree in trees {
            let found = look_at(store, &tree, keys).await;
            listed.push((tree, found));
        }
        Ok(listed)
    })
}

async fn look_at(store: &Store, tree: &TreeName, keys: &AuthorizedKeys) -> Result<ListedTree> {
    let gone = || Error::refused(format!("the repository has no tree {tree}"));
    let signed = read_head(store, tree).await?.ok_or_else(gone)?;
    let key = verify(Namespace::HEAD, &signed.head, &signed.signature)
        .map_err(|e| Error::refused(format!("the head: {e}")))?;
    let head = Head::decode(&signed.head).map_err(|e| Error::refused(e.to_string()))?;
    if head.tree != *tree {
        return Err(Error::refused(HeadError::OtherTree(head.tree).to_string()));
    }

    let now = clock::wall_seconds();
    let mut releases = Vec::new();
    for kept in &head.kept {
        let listed = record_of(store, tree, kept).await?;
        releases.push(ListedRelease {
            is_pinned: head.is_pinned(kept.serial),
            ..listed
        });
    }
    Ok(ListedTree {
        is_authorized: keys.allows(&key, tree, Role::Rollback, now).is_ok(),
        valid_until: head.valid_until,
        is_stale: head.times().staleness(now, None).is_some(),
        key: key.fingerprint(),
        releases,
        tree: tree.clone(),
    })
}

async fn record_of(store: &Store, tree: &TreeName, kept: &HeadRelease) -> Result<ListedRelease> {
    let record = read_record(store, tree, kept).await?;
    let header = record.release.header();
    let key = verify(
        Namespace::RELEASE,
        record.release.bytes(),
        &record.signature,
    );

    Ok(ListedRelease {
        serial: header.serial,
        created: header.created,
        key: key.ok().map(|key| key.fingerprint()),
        entries: header.root.entries,
        bytes: ByteSize(header.root.bytes),
        message: header.message.clone(),
        is_pinned: false,
    })
}
