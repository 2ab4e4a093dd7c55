//! Entries and files of a release in a repository, read for people: nothing is kept here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::failure::{of_head, of_pull};
use super::requests::{StoreReply, StoreRequests, runtime, seed};
use crate::block::{BlockHash, BlockRef};
use crate::drive::clock;
use crate::drive::kept::KeptContent;
use crate::error::{Error, Result};
use crate::id::{Ordinal, Serial, TreeName};
use crate::keys::{AuthorizedKeys, Namespace, verify};
use crate::manifest::read::{NodeSource, ReadError};
use crate::proto::RangeSet;
use crate::repository::head::{HeadError, SignedHead, VerifiedHead};
use crate::repository::pull::{PullStep, RepositoryPull};
use crate::repository::record::ReleaseRecord;
use crate::store::Store;
use crate::sync::locked;
use crate::tree::{Blocks, SourceError, StoredRelease};

/// Opens the release `serial` of `tree`, or the newest one. The head may be signed by any key: the
/// caller shows the key of the release.
pub fn kept_content(
    store: Store,
    tree: &TreeName,
    serial: Option<Serial>,
    keys: &AuthorizedKeys,
) -> Result<KeptContent> {
    let runtime = runtime()?;
    let mut reading = Reading {
        requests: StoreRequests::new(store),
        machine: RepositoryPull::new(tree.clone(), None, seed()),
        nodes: Arc::default(),
        ready: HashMap::new(),
    };

    let record = runtime.block_on(reading.load(tree, serial, keys))?;
    let record = *record;
    let stored = StoredRelease {
        release: record.release,
        signature: record.signature,
    };
    let nodes = Arc::clone(&reading.nodes) as Arc<dyn NodeSource>;
    let blocks = RepositoryBlocks {
        runtime,
        reading,
        expected: RangeSet::default(),
    };
    Ok(KeptContent::new(stored, nodes, Box::new(blocks)))
}

/// Nodes of a manifest in memory.
#[derive(Debug, Default)]
struct NodeMap(Mutex<HashMap<BlockHash, Arc<[u8]>>>);

impl NodeSource for NodeMap {
    fn node(&self, hash: &BlockHash) -> std::result::Result<Arc<[u8]>, ReadError> {
        let nodes = locked(&self.0);
        nodes.get(hash).cloned().ok_or(ReadError::Missing(*hash))
    }
}

/// A pull that keeps what it loads in memory.
struct Reading {
    requests: StoreRequests,
    machine: RepositoryPull,
    nodes: Arc<NodeMap>,
    /// Blocks that came and were not read yet.
    ready: HashMap<Ordinal, (BlockRef, Vec<u8>)>,
}

impl Reading {
    /// Loads the whole manifest of a release.
    async fn load(
        &mut self,
        tree: &TreeName,
        serial: Option<Serial>,
        keys: &AuthorizedKeys,
    ) -> Result<Box<ReleaseRecord>> {
        let mut record = None;
        let changed = || Error::refused("the repository changed while it was read");
        loop {
            match self.next_step().await? {
                PullStep::Head(signed) => match verified(&signed, tree, keys) {
                    Ok(head) => self.follow(&head, tree, serial)?,
                    Err(e) if e.is_signed() => return Err(of_head(&e)),
                    Err(e) => self.machine.refuse(e),
                },
                PullStep::Record(found) => record = Some(found),
                PullStep::Complete => return record.ok_or_else(changed),
                PullStep::Superseded => return Err(changed()),
                _ => {}
            }
        }
    }

    fn follow(
        &mut self,
        head: &VerifiedHead,
        tree: &TreeName,
        serial: Option<Serial>,
    ) -> Result<()> {
        if let Some(serial) = serial.filter(|serial| head.head().kept(*serial).is_none()) {
            let kept = head.head().kept.iter();
            let kept: Vec<String> = kept.map(|kept| format!("{tree}@{}", kept.serial)).collect();
            let what = format!("the repository does not keep {tree}@{serial}");
            return Err(Error::refused(what).hint(format!("it keeps {}", kept.join(", "))));
        }

        self.machine.follow(head, serial);
        Ok(())
    }

    /// Loads blocks until the block `ordinal` is there.
    async fn load_block(&mut self, ordinal: Ordinal) -> Result<()> {
        while !self.ready.contains_key(&ordinal) {
            match self.next_step().await? {
                PullStep::Block(at, block, bytes) => drop(self.ready.insert(at, (block, bytes))),
                PullStep::Done | PullStep::Superseded => {
                    return Err(Error::refused("the repository changed while it was read"));
                }
                _ => {}
            }
        }

        Ok(())
    }

    /// Carries out the machine's requests, up to a step that the caller has to see.
    async fn next_step(&mut self) -> Result<PullStep> {
        loop {
            match self.machine.poll(self.requests.now()) {
                PullStep::Get(id, get) => self.requests.get(id, get),
                PullStep::Node(block, bytes) => {
                    locked(&self.nodes.0).insert(block.hash, bytes.into());
                }
                PullStep::Walk => {
                    let nodes = Arc::clone(&self.nodes);
                    let is_here = |block: &BlockRef| locked(&nodes.0).contains_key(&block.hash);
                    let walked = self.machine.walk(&*nodes, is_here);
                    walked.map_err(|e| Error::refused("the manifest is not legal").because(e))?;
                }
                PullStep::Wait(until) => {
                    if let Some(StoreReply::Get(id, reply)) = self.requests.next(until).await {
                        self.machine.reply(id, reply, self.requests.now());
                    }
                }
                PullStep::Failed(error) => return Err(of_pull(&error)),
                step => return Ok(step),
            }
        }
    }
}

/// Verifies a head by the keys of this machine, else by its own.
fn verified(
    signed: &SignedHead,
    tree: &TreeName,
    keys: &AuthorizedKeys,
) -> std::result::Result<VerifiedHead, HeadError> {
    let key = verify(Namespace::HEAD, &signed.head, &signed.signature)?;
    signed.verify(tree, keys, Some(&key), clock::wall_seconds())
}

/// The blocks of a release in a repository.
struct RepositoryBlocks {
    runtime: tokio::runtime::Runtime,
    reading: Reading,
    /// Blocks to be read next, which are not asked for yet.
    expected: RangeSet,
}

impl Blocks for RepositoryBlocks {
    fn read(
        &mut self,
        ordinal: Ordinal,
        out: &mut Vec<u8>,
    ) -> std::result::Result<BlockRef, SourceError> {
        let reading = &mut self.reading;
        if !reading.ready.contains_key(&ordinal) {
            self.expected.insert(ordinal.0..ordinal.0.saturating_add(1));
            reading
                .machine
                .want(std::mem::take(&mut self.expected).iter());
            let loaded = self.runtime.block_on(reading.load_block(ordinal));
            loaded.map_err(|e| SourceError::Repository(e.to_string()))?;
        }

        let Some((block, bytes)) = reading.ready.remove(&ordinal) else {
            return Err(SourceError::NoData);
        };
        out.extend_from_slice(&bytes);
        Ok(block)
    }

    fn expect(&mut self, ordinals: &RangeSet) {
        self.expected.extend(ordinals);
    }
}
