//! Copies a repository to another store: packs first, each head after what it refers to.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::failure::{of_fault, of_head};
use super::requests::runtime;
use super::whole::{all_of, list, read, trees};
use crate::block::BlockHash;
use crate::drive::clock;
use crate::error::{Error, Kind, Result};
use crate::id::{Serial, TreeName};
use crate::keys::{AuthorizedKeys, Namespace, verify};
use crate::outcome::{Event, Observer};
use crate::repository::head::{Head, HeadError, MAX_HEAD_BYTES, SignedHead, head_object};
use crate::repository::object::{
    Etag, GetReply, ListedObject, ObjectPath, Put, PutCondition, PutReply,
};
use crate::repository::pack::{MAX_PACK_BYTES, PackName};
use crate::store::Store;
use crate::units::WallTime;

/// Times that the copy begins again because a head of the source changed meanwhile.
const MAX_COPY_ROUNDS: u32 = 8;
/// Times that packs are missing although no head changed: gc may be at work.
const MAX_GAPS: u32 = 3;
/// Times that a head is stored again because the destination's own changed meanwhile.
const MAX_CONFLICTS: u32 = 8;

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

/// Copies everything in `from` that `to` lacks. With `keys`, every head has to be signed by one of
/// them; without, by any.
pub fn copy(
    from: &Store,
    to: &Store,
    keys: Option<&AuthorizedKeys>,
    observer: &mut dyn Observer,
) -> Result<CopyReport> {
    let copying = Copying {
        from,
        to,
        keys,
        report: CopyReport::default(),
    };
    runtime()?.block_on(copying.run(observer))
}

/// A head of a repository.
#[derive(Debug, PartialEq)]
struct HeadState {
    object: Vec<u8>,
    head: Head,
}

impl HeadState {
    /// Orders heads by what they are worth.
    fn age(&self) -> (Serial, WallTime) {
        (self.head.serial(), self.head.made)
    }
}

type Objects = HashSet<(ObjectPath, u64)>;

struct Copying<'a> {
    from: &'a Store,
    to: &'a Store,
    keys: Option<&'a AuthorizedKeys>,
    report: CopyReport,
}

impl Copying<'_> {
    async fn run(mut self, observer: &mut dyn Observer) -> Result<CopyReport> {
        let mut gaps = 0;
        for _ in 0..MAX_COPY_ROUNDS {
            // The heads first: what they refer to is there when the packs are listed, and still
            // there when it is read if the heads are the same afterwards.
            let heads = self.heads().await?;
            let is_complete = self.packs(&heads).await?;
            if self.heads().await? != heads {
                continue;
            }

            if is_complete {
                for (tree, head) in &heads {
                    self.put_head(tree, head, observer).await?;
                }
                return Ok(self.report);
            }
            gaps += 1;
            if gaps == MAX_GAPS {
                return Err(
                    Error::refused("the repository lacks packs, or the copy loses them")
                        .hint("`makuo repo check` lists all that is damaged"),
                );
            }
        }

        Err(Error::refused("the repository changes faster than it can be copied").hint("try again"))
    }

    /// The heads of the source.
    async fn heads(&self) -> Result<BTreeMap<TreeName, HeadState>> {
        let mut heads = BTreeMap::new();
        for tree in trees(&list(self.from).await?) {
            let gone = || Error::refused(format!("the head of {tree} is listed, and missing"));
            let (object, _) = read_state(self.from, &tree).await?.ok_or_else(gone)?;
            let head = self.verified(&tree, &object).map_err(|e| of_head(&e))?;
            heads.insert(tree, HeadState { object, head });
        }

        match heads.is_empty() {
            true => {
                Err(Error::refused("there is no tree").hint("is this the URL of a repository?"))
            }
            false => Ok(heads),
        }
    }

    /// The head in the bytes of an object.
    fn verified(&self, tree: &TreeName, object: &[u8]) -> std::result::Result<Head, HeadError> {
        let signed = SignedHead::decode(object)?;
        if let Some(keys) = self.keys {
            let verified = signed.verify(tree, keys, None, clock::wall_seconds())?;
            return Ok(verified.head().clone());
        }

        verify(Namespace::HEAD, &signed.head, &signed.signature)?;
        let head = Head::decode(&signed.head)?;
        match head.tree == *tree {
            true => Ok(head),
            false => Err(HeadError::OtherTree(head.tree)),
        }
    }

    /// Copies all objects but heads; returns false if some of them vanished meanwhile.
    async fn packs(&mut self, heads: &BTreeMap<TreeName, HeadState>) -> Result<bool> {
        let listed = list(self.from).await?;
        let is_whole = |listed: &&ListedObject| !listed.object.is_temporary();
        self.report.objects = listed.iter().filter(is_whole).count() as u64;
        let wanted: Vec<&ListedObject> = listed
            .iter()
            .filter(is_whole)
            .filter(|listed| listed.object.is_immutable())
            .collect();

        let names: HashSet<&ObjectPath> = wanted.iter().map(|listed| &listed.object).collect();
        let kept = heads.values().flat_map(|state| &state.head.kept);
        if !kept
            .map(|kept| kept.pack.object())
            .all(|pack| names.contains(&pack))
        {
            return Ok(false);
        }

        let there = objects(self.to).await?;
        let mut is_complete = true;
        for listed in &wanted {
            if !there.contains(&(listed.object.clone(), listed.size)) {
                is_complete &= self.copy_one(listed).await?;
            }
        }

        // gc of the destination may have deleted what nothing referred to there.
        let there = objects(self.to).await?;
        let is_there = |l: &&ListedObject| there.contains(&(l.object.clone(), l.size));
        Ok(is_complete && wanted.iter().all(is_there))
    }

    /// Copies an object; returns false if it is gone.
    async fn copy_one(&mut self, listed: &ListedObject) -> Result<bool> {
        if listed.size > u64::from(MAX_PACK_BYTES) {
            let what = format!("{} has {} bytes", listed.object, listed.size);
            return Err(Error::refused(what).hint("no object of a repository is as large"));
        }

        let get = all_of(listed.object.clone(), listed.size);
        let Some(content) = read(self.from, get).await? else {
            return Ok(false);
        };
        let pack = PackName::of_object(&listed.object);
        if pack.is_some_and(|pack| BlockHash::of(&content) != pack.0) {
            let what = format!("{} has other bytes than its name says", listed.object);
            return Err(Error::refused(what).hint("`makuo repo check` lists all that is damaged"));
        }

        let put = (listed.object.clone(), content, PutCondition::Any);
        match self.put(put).await {
            PutReply::Failed(fault) => Err(of_fault(&fault)),
            _ => Ok(true),
        }
    }

    /// Stores a head, unless the destination has a newer one.
    async fn put_head(
        &mut self,
        tree: &TreeName,
        source: &HeadState,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let mut has_conditions = true;
        for _ in 0..MAX_CONFLICTS {
            let present = read_state(self.to, tree).await?;
            let condition = match present {
                Some((object, _)) if object == source.object => return Ok(()),
                Some((object, etag)) => {
                    if let Some(note) = self.stays(tree, source, &object)? {
                        observer.event(&Event::Note(note));
                        return Ok(());
                    }
                    etag.map_or(PutCondition::Any, PutCondition::Unchanged)
                }
                None => PutCondition::Absent,
            };

            let condition = match has_conditions {
                true => condition,
                false => PutCondition::Any,
            };
            let put = (head_object(tree), source.object.clone(), condition);
            match self.put(put).await {
                PutReply::Done { .. } => return Ok(()),
                PutReply::Conflict => {}
                PutReply::NoConditions => has_conditions = false,
                PutReply::Failed(fault) => return Err(of_fault(&fault)),
            }
        }

        let what = format!("the head of {tree} at the destination keeps changing");
        Err(Error::refused(what).hint("try again"))
    }

    /// Returns a note if the destination's head has to stay.
    fn stays(&self, tree: &TreeName, source: &HeadState, there: &[u8]) -> Result<Option<String>> {
        let there = match self.verified(tree, there) {
            Ok(head) => head,
            // Hosts would refuse it.
            Err(_) if self.keys.is_some() => return Ok(None),
            Err(error) => return Err(of_head(&error)),
        };

        let (serial, other) = (source.head.serial(), there.serial());
        let is_newer = (other, there.made) > source.age();
        Ok(is_newer.then(|| match other == serial {
            true => {
                format!("the head of {tree}@{other} at the destination is signed later: it stays")
            }
            false => format!(
                "{tree}@{other} of the destination is newer than {tree}@{serial}: its head stays"
            ),
        }))
    }

    async fn put(
        &mut self,
        (object, content, condition): (ObjectPath, Vec<u8>, PutCondition),
    ) -> PutReply {
        let bytes = content.len() as u64;
        let put = Put {
            object,
            bytes: Arc::new(content),
            condition,
        };
        let reply = self.to.put(&put).await;
        if let PutReply::Done { .. } = &reply {
            self.report.copied += 1;
            self.report.bytes += bytes;
        }
        reply
    }
}

/// Reads the head of `tree` with its state; `None` if there is none.
async fn read_state(store: &Store, tree: &TreeName) -> Result<Option<(Vec<u8>, Option<Etag>)>> {
    let mut reader = store.get(all_of(head_object(tree), MAX_HEAD_BYTES as u64));
    let mut bytes = Vec::new();
    while let Some(reply) = reader.next().await {
        match reply {
            GetReply::Bytes(more) => bytes.extend_from_slice(&more),
            GetReply::End { etag } => return Ok(Some((bytes, etag))),
            GetReply::Missing | GetReply::NotModified => return Ok(None),
            GetReply::Failed(fault) => return Err(of_fault(&fault)),
        }
    }

    Err(Error::new(Kind::Io, "the store gave no last reply"))
}

async fn objects(store: &Store) -> Result<Objects> {
    let listed = list(store).await?.into_iter();
    Ok(listed.map(|listed| (listed.object, listed.size)).collect())
}
