//! Copies a repository to another store: packs first, each head after what it refers to.

use std::sync::Arc;

use super::requests::runtime;
use super::whole::{all_of, list, of_fault, read, read_head};
use crate::block::BlockHash;
use crate::error::{Error, Result};
use crate::id::{Serial, TreeName};
use crate::outcome::{Event, Observer};
use crate::repository::head::{Head, MAX_HEAD_BYTES, tree_of_head};
use crate::repository::object::{ListedObject, ObjectPath, Put, PutCondition, PutReply};
use crate::repository::pack::{MAX_PACK_BYTES, PackName};
use crate::store::Store;

/// Result of a copy.
#[derive(Debug, Clone, Copy, Default)]
pub struct CopyReport {
    /// Objects of the source.
    pub objects: u64,
    /// Those that were copied.
    pub copied: u64,
    /// Bytes of these.
    pub bytes: u64,
}

/// Copies everything in `from` that `to` lacks.
pub fn copy(from: &Store, to: &Store, observer: &mut dyn Observer) -> Result<CopyReport> {
    runtime()?.block_on(async {
        // The heads first: what they refer to is there when the packs are listed.
        let heads: Vec<ListedObject> = list(from).await?;
        let heads = heads.iter().filter_map(|l| tree_of_head(&l.object));
        let mut trees = Vec::new();
        for tree in heads {
            let older = check_serials(from, to, &tree).await?;
            match older {
                Some(note) => observer.event(&Event::Note(note)),
                None => trees.push(tree),
            }
        }

        let mut contents = Vec::new();
        for tree in &trees {
            let object = crate::repository::head::head_object(tree);
            let content = read(from, all_of(object.clone(), MAX_HEAD_BYTES as u64)).await?;
            contents.extend(content.map(|content| (object, content)));
        }

        let mut report = CopyReport::default();
        let there = list(to).await?;
        for listed in list(from).await? {
            report.objects += 1;
            if !listed.object.is_immutable() {
                continue;
            }
            let has =
                |other: &ListedObject| (&other.object, other.size) == (&listed.object, listed.size);
            if !there.iter().any(has) {
                copy_one(from, to, &listed, &mut report).await?;
            }
        }

        for (object, content) in contents {
            report.copied += 1;
            report.bytes += content.len() as u64;
            put(to, object, content).await?;
        }
        Ok(report)
    })
}

/// Returns a note if the destination has a later release of `tree`, which has to stay.
async fn check_serials(from: &Store, to: &Store, tree: &TreeName) -> Result<Option<String>> {
    let here = serial_of(from, tree).await?.unwrap_or_default();
    let there = serial_of(to, tree).await?.unwrap_or_default();
    Ok((there > here).then(|| {
        format!("{tree}@{there} of the destination is newer than {tree}@{here}: its head stays")
    }))
}

async fn serial_of(store: &Store, tree: &TreeName) -> Result<Option<Serial>> {
    let Some(signed) = read_head(store, tree).await? else {
        return Ok(None);
    };
    let refused = |e| Error::refused(format!("the head of {tree} cannot be used")).because(e);
    let head = Head::decode(&signed.head).map_err(refused)?;
    Ok(Some(head.serial()))
}

async fn copy_one(
    from: &Store,
    to: &Store,
    listed: &ListedObject,
    report: &mut CopyReport,
) -> Result<()> {
    let max = listed.size.min(u64::from(MAX_PACK_BYTES));
    // gc may have deleted it meanwhile.
    let Some(content) = read(from, all_of(listed.object.clone(), max)).await? else {
        return Ok(());
    };

    let pack = PackName::of_object(&listed.object);
    if pack.is_some_and(|pack| BlockHash::of(&content) != pack.0) {
        let what = format!("{} has other bytes than its name says", listed.object);
        return Err(Error::refused(what).hint("`makuo repo check` lists all that is damaged"));
    }

    report.copied += 1;
    report.bytes += content.len() as u64;
    put(to, listed.object.clone(), content).await
}

async fn put(store: &Store, object: ObjectPath, content: Vec<u8>) -> Result<()> {
    let put = Put {
        object,
        bytes: Arc::new(content),
        condition: PutCondition::Any,
    };
    match store.put(&put).await {
        PutReply::Done { .. } | PutReply::Conflict | PutReply::NoConditions => Ok(()),
        PutReply::Failed(fault) => Err(of_fault(&fault)),
    }
}
