//! A driver of a gc on the store in memory, and stores to collect.

use super::budgets::setup;
use super::publisher::Publisher;
use super::site::{Files, Site, many_files, replace};
use super::store::{MemoryStore, NOW, keys, signer, stored_head};
use crate::block::BlockHash;
use crate::keys::{Namespace, Signer};
use crate::repository::gc::{Gc, GcError, GcReport, GcRewrite, GcSetup, GcStep};
use crate::repository::head::Head;
use crate::repository::object::ObjectPath;
use crate::repository::pack::PackName;
use crate::repository::publish::PublishSetup;
use crate::units::Moment;

/// A gc that keeps two releases of each tree, and what is younger than an hour.
pub(crate) fn gc(seed: u64) -> GcSetup {
    GcSetup {
        grace: Some(3600),
        no_trees: false,
        rewrites: Some(GcRewrite { keep: Some(2) }),
        seed,
    }
}

/// A gc between two steps.
pub(crate) struct Collector {
    machine: Gc,
    pub(crate) now: Moment,
    /// Seconds by which this machine's clock is ahead of the store's.
    pub(crate) ahead: i64,
    /// Lists so far.
    pub(crate) lists: u32,
    /// Deletions so far, of several objects each.
    pub(crate) deletions: u32,
}

impl Collector {
    pub(crate) fn new(setup: GcSetup) -> Self {
        Self {
            machine: Gc::new(setup),
            now: Moment(0),
            ahead: 0,
            lists: 0,
            deletions: 0,
        }
    }

    /// Takes one step; returns the result at the end.
    pub(crate) fn step(&mut self, store: &mut MemoryStore) -> Option<Result<GcReport, GcError>> {
        match self.machine.poll(self.now) {
            GcStep::List => {
                self.lists += 1;
                let mut clock = store.now;
                clock.0 += self.ahead;
                self.machine.listed(store.list(), clock);
            }
            GcStep::Get(id, get) => {
                for reply in store.get(&get) {
                    self.machine.reply(id, reply, self.now);
                }
            }
            GcStep::Put(id, put) => {
                let reply = store.put(&put);
                self.machine.stored(id, reply, self.now);
            }
            GcStep::Head(tree, signed) => match signed.verify(&tree, &keys(), None, NOW) {
                Ok(head) => self.machine.head(&head),
                Err(error) => self.machine.refuse(error, self.now),
            },
            GcStep::Seal => {
                let bytes = self.machine.head_to_sign();
                let signature = signer().sign(Namespace::HEAD, &bytes).expect("signs");
                self.machine.signed(signature.as_bytes());
            }
            GcStep::Delete(objects) => {
                self.deletions += 1;
                objects.iter().for_each(|object| store.delete(object));
            }
            GcStep::Done(report) => return Some(Ok(report)),
            GcStep::Failed(error) => return Some(Err(error)),
            GcStep::Wait(at) => self.now = at.expect("nothing is under way").max(self.now),
        }
        None
    }

    pub(crate) fn run(mut self, store: &mut MemoryStore) -> Result<GcReport, GcError> {
        self.run_until(store, |_| false).expect("an end")
    }

    /// Goes on until the end, or until `enough`.
    pub(crate) fn run_until(
        &mut self,
        store: &mut MemoryStore,
        enough: impl Fn(&Self) -> bool,
    ) -> Option<Result<GcReport, GcError>> {
        for _ in 0..1_000_000 {
            if enough(self) {
                return None;
            }
            if let Some(result) = self.step(store) {
                return Some(result);
            }
        }
        panic!("no end");
    }
}

pub(super) const HOUR: i64 = 3600;

/// A gc that only deletes.
pub(super) fn plain() -> GcSetup {
    GcSetup {
        rewrites: None,
        ..gc(1)
    }
}

pub(super) fn publish(store: &mut MemoryStore, files: &Files) -> Site {
    let site = Site::new(files);
    Publisher::new(&site, setup())
        .run(store)
        .expect("published");
    site
}

/// A store with releases of `count` states of a site; most of the content changes each time.
pub(super) fn busy_store(rng: &mut fastrand::Rng, count: u32, keep: usize) -> (MemoryStore, Files) {
    let mut store = MemoryStore::default();
    let mut files = many_files(rng, 100, 20_000);
    for _ in 0..count {
        replace(rng, &mut files, 2, 20_000);
        let setup = PublishSetup {
            keep: Some(keep),
            ..setup()
        };
        Publisher::new(&Site::new(&files), setup)
            .run(&mut store)
            .expect("published");
    }
    (store, files)
}

pub(super) fn head(store: &MemoryStore) -> Head {
    stored_head(store).head().clone()
}

/// A pack that nobody refers to.
pub(super) fn orphan(store: &mut MemoryStore, n: u32) -> ObjectPath {
    let bytes = n.to_be_bytes();
    let object = PackName(BlockHash::of(&bytes)).object();
    store.overwrite(&object, bytes.to_vec());
    object
}
