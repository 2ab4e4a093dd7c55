//! Deletes what no release of a repository refers to, and checks that all of it is whole.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::failure::{REPAIR_HINT, of_fault, of_gc};
use super::head_memory::HeadMemory;
use super::requests::{StoreReply, StoreRequests, runtime, seed};
use super::whole::{all_of, list};
use crate::block::{BlockHash, BlockHasher};
use crate::drive::clock;
use crate::error::{Error, Kind, Result};
use crate::id::TreeName;
use crate::keys::{AuthorizedKeys, Namespace, Signer};
use crate::outcome::{Event, Observer};
use crate::repository::gc::{Gc, GcReport, GcSetup, GcStep};
use crate::repository::head::SignedHead;
use crate::repository::object::{FaultKind, GetReply, ListedObject, ObjectPath, StoreFault};
use crate::repository::pack::{MAX_PACK_BYTES, PackName};
use crate::store::Store;

/// Deletions under way at the same time.
const MAX_DELETIONS: usize = 8;
/// What to do about packs that cannot be read.
const UNREAD_HINT: &str = "the notes above name them: is the store reachable, and may these \
    credentials read them?";
/// Packs in a row without an answer, after which nobody waits for the next one.
const MAX_UNANSWERED_PACKS: u32 = 3;

/// Keys that verify and sign heads, and what this machine knows of them.
#[derive(Debug, Clone)]
pub struct HeadKeys {
    /// Keys that may sign heads.
    pub authorized: Arc<AuthorizedKeys>,
    /// Key to sign heads with.
    pub signer: Option<Arc<dyn Signer>>,
    /// Newest releases of the repository, as far as this machine knows.
    pub memory: HeadMemory,
}

/// Result of a check.
#[derive(Debug, Clone, Copy, Default)]
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
    let setup = GcSetup {
        seed: seed(),
        ..setup
    };
    runtime()?.block_on(Collection::new(store, setup, keys).run())
}

/// Hashes every pack, and follows every release down to its blocks' places. All packs that are
/// damaged or cannot be read are notes to `observer`, before the error.
pub fn check(store: &Store, keys: &HeadKeys, observer: &mut dyn Observer) -> Result<CheckReport> {
    let (report, bad) = runtime()?.block_on(hash_all(store, observer))?;
    let setup = GcSetup {
        grace: None,
        no_trees: false,
        rewrites: None,
        seed: seed(),
    };
    let mut collection = Collection::new(store, setup, keys);
    let found = runtime()?.block_on(collection.run());

    let is_needed = |pack: &PackName| found.is_err() || collection.machine.refers_to(pack);
    let needed = |packs: &[PackName]| packs.iter().filter(|pack| is_needed(pack)).count();
    match (needed(&bad.damaged), needed(&bad.unread), report.packs) {
        (0, 0, _) => {}
        (0, unread, all) => {
            let what = format!("{unread} of {all} packs cannot be read");
            let error = Error::new(Kind::Io, what).hint(UNREAD_HINT);
            return Err(match found {
                Err(cause) => error.because(cause),
                Ok(_) => error,
            });
        }
        (damaged, unread, all) => {
            let unread = match unread {
                0 => String::new(),
                unread => format!(", and {unread} cannot be read"),
            };
            let what = format!("the repository is damaged: {damaged} of {all} packs{unread}");
            let error = Error::refused(what).hint(REPAIR_HINT);
            let first = bad.damaged.iter().find(|pack| is_needed(pack));
            return Err(match first {
                Some(pack) => error.because(has_other_bytes(&pack.object())),
                None => error,
            });
        }
    }

    for pack in bad.damaged.iter().chain(&bad.unread) {
        let note = format!(
            "no release refers to {}: `makuo repo gc` deletes it",
            pack.object()
        );
        observer.event(&Event::Note(note));
    }

    Ok(CheckReport {
        live: found?.live,
        ..report
    })
}

/// Packs that are not whole.
#[derive(Debug, Default)]
struct BadPacks {
    damaged: Vec<PackName>,
    unread: Vec<PackName>,
}

/// Hashes every pack; returns the bad ones as well. A store that answers nothing is an error.
async fn hash_all(store: &Store, observer: &mut dyn Observer) -> Result<(CheckReport, BadPacks)> {
    let mut report = CheckReport::default();
    let mut bad = BadPacks::default();
    let mut unanswered = 0;
    for listed in list(store).await? {
        let Some(pack) = PackName::of_object(&listed.object) else {
            continue;
        };

        report.packs += 1;
        report.bytes = report.bytes.saturating_add(listed.size);
        let hashed = match listed.size <= u64::from(MAX_PACK_BYTES) {
            true => hash_of(store, &listed).await,
            false => Ok(Some(BlockHash([0; 32]))),
        };
        match hashed {
            Ok(found) => {
                unanswered = 0;
                if found.is_some_and(|hash| hash != pack.0) {
                    bad.damaged.push(pack);
                    observer.event(&Event::Note(has_other_bytes(&listed.object)));
                }
            }
            Err(fault) => {
                unanswered = if fault.kind.is_temporary() {
                    unanswered + 1
                } else {
                    0
                };
                if unanswered >= MAX_UNANSWERED_PACKS {
                    return Err(of_fault(&fault));
                }
                bad.unread.push(pack);
                observer.event(&Event::Note(fault.to_string()));
            }
        }
    }

    Ok((report, bad))
}

fn has_other_bytes(object: &ObjectPath) -> String {
    format!("{object} has other bytes than its name says")
}

/// Hashes an object as it comes; `None` if it is gone.
async fn hash_of(
    store: &Store,
    listed: &ListedObject,
) -> std::result::Result<Option<BlockHash>, StoreFault> {
    let mut reader = store.get(all_of(listed.object.clone(), listed.size));
    let mut hasher = BlockHasher::default();
    while let Some(reply) = reader.next().await {
        match reply {
            GetReply::Bytes(more) => hasher.update(&more),
            GetReply::End { .. } => return Ok(Some(hasher.finish())),
            GetReply::Missing | GetReply::NotModified => return Ok(None),
            GetReply::Failed(fault) => return Err(fault),
        }
    }

    let text = format!("the store gave no last reply for {}", listed.object);
    Err(StoreFault::new(FaultKind::Permanent, &text))
}

/// A gc under way.
struct Collection<'a> {
    machine: Gc,
    requests: StoreRequests,
    store: &'a Store,
    keys: &'a HeadKeys,
}

impl<'a> Collection<'a> {
    fn new(store: &'a Store, setup: GcSetup, keys: &'a HeadKeys) -> Self {
        Self {
            machine: Gc::new(setup),
            requests: StoreRequests::new(store.clone()),
            store,
            keys,
        }
    }

    async fn run(&mut self) -> Result<GcReport> {
        loop {
            match self.machine.poll(self.requests.now()) {
                GcStep::List => {
                    let listed = list(self.store).await?;
                    self.machine.listed(listed, clock::wall_seconds());
                }
                GcStep::Get(id, get) => self.requests.get(id, get),
                GcStep::Put(id, put) => self.requests.put(id, put),
                GcStep::Head(tree, signed) => self.verify(&tree, &signed)?,
                GcStep::Seal => {
                    let bytes = self.machine.head_to_sign();
                    let none = || Error::refused("there is no key to sign the head with");
                    let signer = self.keys.signer.as_ref().ok_or_else(none)?;
                    let signature = signer.sign(Namespace::HEAD, &bytes)?;
                    self.machine.signed(signature.as_bytes());
                }
                GcStep::Delete(objects) => delete(self.store, objects).await?,
                GcStep::Done(report) => return Ok(report),
                GcStep::Failed(error) => return Err(of_gc(&error)),
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

    fn verify(&mut self, tree: &TreeName, signed: &SignedHead) -> Result<()> {
        let own = self.keys.signer.as_ref().map(|signer| signer.public());
        let now = clock::wall_seconds();
        let head = match signed.verify(tree, &self.keys.authorized, own, now) {
            Ok(head) => head,
            Err(e) => {
                self.machine.refuse(e, self.requests.now());
                return Ok(());
            }
        };

        let serial = head.head().serial();
        self.keys.memory.check(tree, serial)?;
        match self.keys.signer {
            Some(_) => self.keys.memory.remember(tree, serial),
            // Nothing is signed here, so nobody has to know that it fails.
            None => drop(self.keys.memory.keep(tree, serial)),
        }
        self.machine.head(&head);
        Ok(())
    }
}

/// Deletes objects, a few at a time.
async fn delete(store: &Store, objects: Vec<ObjectPath>) -> Result<()> {
    let mut under_way = JoinSet::new();
    let mut objects = objects.into_iter();
    loop {
        while under_way.len() < MAX_DELETIONS
            && let Some(object) = objects.next()
        {
            let store = store.clone();
            under_way.spawn(async move { store.delete(&object).await });
        }

        let Some(deleted) = under_way.join_next().await else {
            return Ok(());
        };
        let deleted = deleted.map_err(|e| Error::new(Kind::Io, format!("cannot delete: {e}")))?;
        deleted.map_err(|fault| of_fault(&fault))?;
    }
}
