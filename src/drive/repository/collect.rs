//! Deletes what no release of a repository refers to, and checks that all of it is whole.

use std::sync::Arc;

use super::requests::{StoreReply, StoreRequests, runtime, seed};
use super::whole::{all_of, list, of_fault, of_head, read};
use crate::block::BlockHash;
use crate::drive::clock;
use crate::error::{Error, Kind, Result};
use crate::keys::{AuthorizedKeys, Namespace, Signer};
use crate::outcome::{Event, Observer};
use crate::repository::gc::{Gc, GcError, GcReport, GcSetup, GcStep};
use crate::repository::head::SignedHead;
use crate::repository::pack::{MAX_PACK_BYTES, PackName};
use crate::store::Store;

/// Who vouches for heads.
#[derive(Debug, Clone)]
pub struct HeadKeys {
    /// Keys that may sign heads.
    pub authorized: Arc<AuthorizedKeys>,
    /// Key to sign heads with.
    pub signer: Option<Arc<dyn Signer>>,
}

/// Result of a check.
#[derive(Debug, Clone, Copy)]
pub struct CheckReport {
    /// Packs that were hashed.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes that releases refer to.
    pub live: u64,
}

/// Deletes what is not needed, by `setup`.
pub fn collect(store: &Store, setup: GcSetup, keys: &HeadKeys) -> Result<GcReport> {
    let collection = Collection {
        machine: Gc::new(GcSetup {
            seed: seed(),
            ..setup
        }),
        requests: StoreRequests::new(store.clone()),
        store,
        keys,
    };
    runtime()?.block_on(collection.run())
}

/// Hashes every pack, and follows every release down to its blocks' places.
pub fn check(store: &Store, keys: &HeadKeys, observer: &mut dyn Observer) -> Result<CheckReport> {
    let (packs, bytes, damaged) = runtime()?.block_on(async {
        let (mut packs, mut bytes, mut damaged) = (0, 0, 0);
        for listed in list(store).await? {
            let Some(pack) = PackName::of_object(&listed.object) else {
                continue;
            };
            packs += 1;
            bytes += listed.size;
            let content = read(
                store,
                all_of(
                    listed.object.clone(),
                    listed.size.min(u64::from(MAX_PACK_BYTES)),
                ),
            );
            let is_whole = content
                .await?
                .is_none_or(|content| BlockHash::of(&content) == pack.0);
            if !is_whole {
                damaged += 1;
                let note = format!("{} has other bytes than its name says", listed.object);
                observer.event(&Event::Note(note));
            }
        }
        Ok::<_, Error>((packs, bytes, damaged))
    })?;

    if damaged > 0 {
        let what = format!("the repository is damaged: {damaged} of {packs} packs");
        return Err(Error::refused(what)
            .hint("delete the damaged packs and publish again: what is missing is stored anew"));
    }

    // Nothing is old enough to be deleted.
    let setup = GcSetup {
        grace: u64::MAX,
        rewrites: None,
        seed: 0,
    };
    let found = collect(store, setup, keys)?;
    Ok(CheckReport {
        packs,
        bytes,
        live: found.live,
    })
}

/// A gc under way.
struct Collection<'a> {
    machine: Gc,
    requests: StoreRequests,
    store: &'a Store,
    keys: &'a HeadKeys,
}

impl Collection<'_> {
    async fn run(mut self) -> Result<GcReport> {
        loop {
            match self.machine.poll(self.requests.now()) {
                GcStep::ListHeads => self.machine.heads(list(self.store).await?),
                GcStep::ListPacks => {
                    let listed = list(self.store).await?;
                    self.machine.packs(listed, clock::wall_seconds());
                }
                GcStep::Get(id, get) => self.requests.get(id, get),
                GcStep::Put(id, put) => self.requests.put(id, put),
                GcStep::Head(tree, signed) => self.verify(&tree, &signed)?,
                GcStep::Seal(_) => {
                    let bytes = self.machine.head_to_sign(clock::wall_seconds());
                    let none = || Error::refused("there is no key to sign the head with");
                    let signer = self.keys.signer.as_ref().ok_or_else(none)?;
                    let signature = signer.sign(Namespace::HEAD, &bytes)?;
                    self.machine.signed(signature.as_bytes());
                }
                GcStep::Delete(objects) => {
                    for object in objects {
                        let deleted = self.store.delete(&object).await;
                        deleted.map_err(|fault| of_fault(&fault))?;
                    }
                }
                GcStep::Done(report) => return Ok(report),
                GcStep::Failed(error) => return Err(failed(error)),
                GcStep::Wait(until) => match self.requests.next(until).await {
                    Some(StoreReply::Get(id, reply)) => {
                        self.machine.reply(id, reply, self.requests.now());
                    }
                    Some(StoreReply::Put(id, reply)) => {
                        self.machine.stored(id, reply, self.requests.now());
                    }
                    None => {}
                },
            }
        }
    }

    fn verify(&mut self, tree: &crate::id::TreeName, signed: &SignedHead) -> Result<()> {
        let own = self.keys.signer.as_ref().map(|signer| signer.public());
        let now = clock::wall_seconds();
        let head = signed
            .verify(tree, &self.keys.authorized, own, now)
            .map_err(|e| of_head(&e))?;
        self.machine.head(&head);
        Ok(())
    }
}

fn failed(error: GcError) -> Error {
    match &error {
        GcError::Store(_) => Error::new(Kind::Io, error.to_string()),
        GcError::Missing(_) | GcError::Damaged(_) => {
            Error::refused(error.to_string()).hint("publish again: what is missing is stored anew")
        }
        _ => Error::refused(error.to_string()),
    }
}
