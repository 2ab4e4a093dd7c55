//! A host in memory, and a driver of its pulls.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::site::Site;
use super::store::{MemoryStore, NOW, keys, www};
use crate::block::{BlockHash, BlockRef};
use crate::manifest::fixtures::MemoryNodes;
use crate::manifest::read::Manifest;
use crate::repository::attempt::RequestId;
use crate::repository::object::{Etag, GetReply};
use crate::repository::pull::{PullError, PullStep, RepositoryPull};
use crate::repository::record::ReleaseRecord;
use crate::units::Moment;

/// A host between two steps.
pub(crate) struct Host {
    pub(crate) nodes: MemoryNodes,
    pub(crate) blocks: HashMap<BlockHash, Vec<u8>>,
    pub(crate) etag: Option<Etag>,
    pub(crate) release: Option<ReleaseRecord>,
    /// The release that is being pulled.
    pub(super) pulled: Option<ReleaseRecord>,
    /// Equal blocks are wanted by each of their ordinals, as for several hosts.
    pub(super) wants_twins: bool,
    /// Ordinals of blocks that came.
    pub(super) came: HashSet<u64>,
}

impl Host {
    pub(crate) fn new() -> Self {
        Self {
            nodes: MemoryNodes::default(),
            blocks: HashMap::new(),
            etag: None,
            release: None,
            pulled: None,
            wants_twins: false,
            came: HashSet::new(),
        }
    }

    /// Drops the blocks and nodes that `site` does not have, as a commit does.
    pub(crate) fn tidy(&mut self, site: &Site) {
        self.blocks.retain(|hash, _| site.has_block(hash));
    }

    /// Whether the host has exactly the content of `site`.
    pub(crate) fn has(&self, site: &Site) -> bool {
        let serial = self.release.as_ref().map(|r| r.release.header().root);
        serial == Some(site.root())
            && site
                .blocks()
                .all(|(hash, bytes)| self.blocks.get(hash) == Some(bytes))
    }
}

/// End of a pull.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PullEnd {
    Unchanged,
    Done,
    Superseded,
    Failed(PullError),
}

/// A pull between two steps.
pub(crate) struct Pulling {
    pub(crate) machine: RepositoryPull,
    pub(crate) now: Moment,
    pub(crate) steps: u64,
    /// Replies that come later, one at a time.
    waiting: Vec<(RequestId, std::vec::IntoIter<GetReply>)>,
}

impl Pulling {
    pub(crate) fn new(host: &Host, seed: u64) -> Self {
        Self {
            machine: RepositoryPull::new(www(), host.etag.clone(), seed),
            now: Moment(0),
            steps: 0,
            waiting: Vec::new(),
        }
    }

    /// Takes one step; returns the end.
    pub(crate) fn step(&mut self, host: &mut Host, store: &mut MemoryStore) -> Option<PullEnd> {
        self.steps += 1;
        match self.machine.poll(self.now) {
            PullStep::Get(id, get) => {
                self.waiting.push((id, store.get(&get).into_iter()));
                // Four ranges, and a head that is read again.
                assert!(self.waiting.len() <= 5, "too many requests at a time");
            }
            PullStep::Unchanged => return Some(PullEnd::Unchanged),
            PullStep::Head(signed) => match signed.verify(&www(), &keys(), None, NOW) {
                Ok(head) => {
                    host.etag = self.machine.etag().cloned();
                    self.machine.follow(&head, None);
                }
                Err(error) => self.machine.refuse(error),
            },
            PullStep::Record(record) => host.pulled = Some(*record),
            PullStep::Node(block, bytes) => {
                assert!(block.matches(&bytes));
                let again = host.nodes.0.insert(block.hash, bytes.into());
                assert!(again.is_none(), "a node came twice");
            }
            PullStep::Walk => {
                let nodes = &host.nodes;
                let is_here = |block: &BlockRef| nodes.0.contains_key(&block.hash);
                self.machine.walk(nodes, is_here).expect("a legal manifest");
            }
            PullStep::Complete => self.machine.want(wants(host)),
            PullStep::Block(ordinal, block, bytes) => {
                assert!(block.matches(&bytes));
                let again = host.blocks.insert(block.hash, bytes);
                assert!(again.is_none() || host.wants_twins, "a block came twice");
                let is_new = host.came.insert(ordinal.0);
                assert!(is_new || !host.wants_twins, "an ordinal came twice");
            }
            PullStep::Done => {
                host.release = host.pulled.take();
                return Some(PullEnd::Done);
            }
            PullStep::Superseded => return Some(PullEnd::Superseded),
            PullStep::Failed(error) => return Some(PullEnd::Failed(error)),
            PullStep::Wait(at) => self.wait(at, store),
        }
        None
    }

    /// Delivers the next reply of a random request, or lets time pass.
    fn wait(&mut self, at: Option<Moment>, store: &mut MemoryStore) {
        if self.waiting.is_empty() {
            self.now = at
                .expect("nothing is under way")
                .max(self.now + Duration::from_nanos(1));
            return;
        }

        let which = store.rng.usize(..self.waiting.len());
        let (id, replies) = &mut self.waiting[which];
        let id = *id;
        let reply = replies.next().expect("the last one ends it");
        if replies.len() == 0 {
            self.waiting.swap_remove(which);
        }
        self.machine.reply(id, reply, self.now);
    }

    pub(crate) fn run(mut self, host: &mut Host, store: &mut MemoryStore) -> PullEnd {
        loop {
            if let Some(end) = self.step(host, store) {
                return end;
            }
            assert!(self.steps < 10_000_000, "no end");
        }
    }
}

/// Ordinals of the blocks that the host lacks, each block once if it does not want twins.
pub(super) fn wants(host: &Host) -> Vec<std::ops::Range<u64>> {
    let root = host
        .pulled
        .as_ref()
        .expect("a record")
        .release
        .header()
        .root;
    let manifest = Manifest::new(root, Borrowed(&host.nodes));
    let mut seen = HashSet::new();
    let mut wants = Vec::new();
    for located in manifest.entries() {
        let located = located.expect("a whole manifest");
        if let crate::manifest::EntryKind::File(content) = &located.entry.kind {
            let blocks = manifest.blocks(content).expect("whole");
            for (at, block) in (located.first.0..).zip(blocks) {
                let is_first = seen.insert(block.hash);
                if !host.blocks.contains_key(&block.hash) && (is_first || host.wants_twins) {
                    wants.push(at..at + 1);
                }
            }
        }
    }
    wants
}

/// Nodes of somebody else.
#[derive(Debug)]
pub(crate) struct Borrowed<'a>(pub(crate) &'a MemoryNodes);

impl crate::manifest::read::NodeSource for Borrowed<'_> {
    fn node(&self, hash: &BlockHash) -> Result<Arc<[u8]>, crate::manifest::read::ReadError> {
        self.0.node(hash)
    }
}

/// A new host pulls the content of `site`.
#[track_caller]
pub(super) fn pulls(store: &mut MemoryStore, site: &Site) {
    let mut host = Host::new();
    let end = Pulling::new(&host, 1).run(&mut host, store);
    assert_eq!(end, PullEnd::Done);
    assert!(host.has(site), "another content");
}
