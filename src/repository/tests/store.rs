//! A store in memory with faults, and drivers that run the machines against it.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::site::Site;
use crate::block::{BlockHash, BlockRef};
use crate::id::{Serial, TreeName};
use crate::keys::{AuthorizedKeys, FileSigner, Namespace, Signer};
use crate::manifest::fixtures::MemoryNodes;
use crate::manifest::read::Manifest;
use crate::repository::attempt::RequestId;
use crate::repository::head::{SignedHead, VerifiedHead};
use crate::repository::object::{
    Etag, FaultKind, Get, GetReply, ListedObject, ObjectPath, Put, PutCondition, PutReply,
    StoreFault,
};
use crate::repository::publish::{
    Publish, PublishError, PublishNote, PublishSetup, PublishStep, Published,
};
use crate::repository::pull::{Pull, PullError, PullStep};
use crate::repository::record::ReleaseRecord;
use crate::units::{Moment, WallTime};

/// Time of all tests.
pub(crate) const NOW: WallTime = WallTime(1_790_000_000);

pub(crate) fn www() -> TreeName {
    TreeName::new("www").expect("legal")
}

pub(crate) fn signer() -> FileSigner {
    FileSigner::from_seed([7; 32])
}

/// Keys that allow [`signer`] everything on the tree www.
pub(crate) fn keys() -> AuthorizedKeys {
    let line = format!("tree=\"www\",deploy {}\n", signer().public());
    AuthorizedKeys::parse(line.as_bytes(), "keys".as_ref()).expect("legal")
}

/// One object.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    bytes: Arc<[u8]>,
    state: u64,
    stored: WallTime,
}

/// Requests and bytes since the last look.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Traffic {
    pub(crate) gets: u64,
    pub(crate) puts: u64,
    pub(crate) out: u64,
    pub(crate) into: u64,
    pub(crate) faults: u64,
}

impl Traffic {
    pub(crate) fn requests(&self) -> u64 {
        self.gets + self.puts
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.out + self.into
    }
}

/// Objects in memory.
#[derive(Debug, Clone)]
pub(crate) struct MemoryStore {
    pub(crate) objects: BTreeMap<ObjectPath, Stored>,
    pub(crate) states: u64,
    pub(crate) now: WallTime,
    pub(crate) has_conditions: bool,
    pub(crate) traffic: Traffic,
    /// Requests for heads in their order; true for a put that was carried out.
    pub(crate) head_requests: Vec<bool>,
    /// Earlier states of heads, with which one of three requests for a head is answered.
    pub(crate) old_heads: Option<Vec<Stored>>,
    /// Nothing below `trees/` is listed.
    pub(crate) hides_trees: bool,
    /// Heads are listed and answered as missing.
    pub(crate) hides_heads: bool,
    /// Packs cannot be read, for a reason.
    pub(crate) packs_fail: Option<FaultKind>,
    /// One of as many requests fails in some way; 0 is none.
    pub(crate) fault_every: u32,
    pub(crate) rng: fastrand::Rng,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            states: 0,
            now: NOW,
            has_conditions: true,
            traffic: Traffic::default(),
            head_requests: Vec::new(),
            old_heads: None,
            hides_trees: false,
            hides_heads: false,
            packs_fail: None,
            fault_every: 0,
            rng: fastrand::Rng::with_seed(1),
        }
    }
}

impl MemoryStore {
    /// Traffic since the last call.
    pub(crate) fn take_traffic(&mut self) -> Traffic {
        std::mem::take(&mut self.traffic)
    }

    pub(crate) fn list(&self) -> Vec<ListedObject> {
        let listed = |(object, stored): (&ObjectPath, &Stored)| ListedObject {
            object: object.clone(),
            size: stored.bytes.len() as u64,
            stored: stored.stored,
        };
        let is_listed = |object: &ListedObject| {
            !self.hides_trees || !object.object.as_str().starts_with("trees/")
        };
        let all = self.objects.iter().map(listed);
        all.filter(is_listed).collect()
    }

    pub(crate) fn size(&self) -> u64 {
        self.list().iter().map(|object| object.size).sum()
    }

    pub(crate) fn bytes(&self, object: &ObjectPath) -> Option<Arc<[u8]>> {
        self.objects
            .get(object)
            .map(|stored| Arc::clone(&stored.bytes))
    }

    pub(crate) fn delete(&mut self, object: &ObjectPath) {
        self.objects.remove(object);
    }

    /// Replaces an object behind the back of everybody.
    pub(crate) fn overwrite(&mut self, object: &ObjectPath, bytes: Vec<u8>) {
        self.states += 1;
        let before = self.objects.get(object).filter(|_| !object.is_immutable());
        if let (Some(old), Some(before)) = (&mut self.old_heads, before) {
            old.push(before.clone());
        }
        let stored = Stored {
            bytes: bytes.into(),
            state: self.states,
            stored: self.now,
        };
        self.objects.insert(object.clone(), stored);
    }

    /// All replies to a request.
    pub(crate) fn get(&mut self, get: &Get) -> Vec<GetReply> {
        self.traffic.gets += 1;
        if !get.object.is_immutable() {
            self.head_requests.push(false);
        }
        if let Some(kind) = self.packs_fail.filter(|_| get.object.is_immutable()) {
            return vec![failed(kind)];
        }
        let old = self.old_heads.as_deref().unwrap_or_default();
        let old = old.get(self.rng.usize(..3 * old.len().max(1))).cloned();
        let old = old.filter(|_| !get.object.is_immutable());
        let present = self.objects.get(&get.object).cloned();
        let present = present.filter(|_| !self.hides_heads || get.object.is_immutable());
        let Some(stored) = old.or(present) else {
            return vec![self.faulty().unwrap_or(GetReply::Missing)];
        };

        let etag = Etag::new(&format!("\"{}\"", stored.state));
        if get.unless.is_some() && get.unless == etag {
            return vec![GetReply::NotModified];
        }

        let all = 0..stored.bytes.len() as u64;
        let range = get.range.clone().unwrap_or(all.clone());
        assert!(!range.is_empty() && get.max >= range.end - range.start || get.range.is_none());
        if range.end > all.end {
            return vec![failed(FaultKind::TooShort)];
        }

        let mut body = stored.bytes[range.start as usize..range.end as usize].to_vec();
        let mut last = GetReply::End { etag };
        match self.faulty() {
            Some(_) if self.rng.bool() && !body.is_empty() => {
                let at = self.rng.usize(..body.len());
                body[at] ^= 1 << self.rng.u32(..8);
            }
            Some(fault) => {
                body.truncate(self.rng.usize(..=body.len()));
                last = if self.rng.bool() { last } else { fault };
            }
            None => {}
        }

        self.traffic.out += body.len() as u64;
        let piece = 1 + self.rng.usize(..200_000);
        let pieces = body
            .chunks(piece)
            .map(|piece| GetReply::Bytes(piece.to_vec()));
        pieces.chain([last]).collect()
    }

    pub(crate) fn put(&mut self, put: &Put) -> PutReply {
        self.traffic.puts += 1;
        let before = self.objects.get(&put.object);
        let etag = before.and_then(|stored| Etag::new(&format!("\"{}\"", stored.state)));
        let holds = match &put.condition {
            PutCondition::Any => true,
            _ if !self.has_conditions => return PutReply::NoConditions,
            PutCondition::Absent => etag.is_none(),
            PutCondition::Unchanged(tag) => etag.as_ref() == Some(tag),
        };

        if !holds {
            return PutReply::Conflict;
        }
        if !put.object.is_immutable() {
            self.head_requests.push(true);
        }
        if let Some(GetReply::Failed(fault)) = self.faulty() {
            if self.rng.bool() {
                self.overwrite(&put.object, put.bytes.to_vec());
            }
            return PutReply::Failed(fault);
        }

        self.traffic.into += put.bytes.len() as u64;
        self.overwrite(&put.object, put.bytes.to_vec());
        PutReply::Done {
            etag: Etag::new(&format!("\"{}\"", self.states)),
        }
    }

    fn faulty(&mut self) -> Option<GetReply> {
        let hit = self.fault_every > 0 && self.rng.u32(..self.fault_every) == 0;
        self.traffic.faults += u64::from(hit);
        hit.then(|| failed(FaultKind::Temporary))
    }
}

fn failed(kind: FaultKind) -> GetReply {
    GetReply::Failed(StoreFault::new(kind, "a fault of the test"))
}

/// Replies of the store that have not come.
enum Replies {
    Get(std::vec::IntoIter<GetReply>),
    Put(PutReply),
}

/// A publisher between two steps.
pub(crate) struct Publisher {
    pub(crate) machine: Publish,
    pub(crate) site: Site,
    pub(crate) serial: Serial,
    pub(crate) now: Moment,
    pub(crate) steps: u64,
    /// Replies that come later, one at a time.
    waiting: VecDeque<(RequestId, Replies)>,
    pub(crate) way: PublishWay,
    /// The head of the last look.
    head: Option<VerifiedHead>,
    /// Looks that found the content of the site.
    pub(crate) found: u32,
    pub(crate) notes: Vec<PublishNote>,
}

/// What a publisher does with the head that is there.
#[derive(Clone)]
pub(crate) enum PublishWay {
    /// Publishes its site.
    Begin,
    /// The same, unless the newest release has this content.
    Look,
    /// Only signs the head again.
    Renew,
    /// Publishes an earlier release again, whose content is that of its site.
    Restore(Box<ReleaseRecord>),
}

impl Publisher {
    pub(crate) fn new(site: &Site, setup: PublishSetup) -> Self {
        Self {
            machine: Publish::new(setup),
            site: site.clone(),
            serial: Serial(0),
            now: Moment(0),
            steps: 0,
            waiting: VecDeque::new(),
            way: PublishWay::Begin,
            head: None,
            found: 0,
            notes: Vec::new(),
        }
    }

    /// Takes one step; returns the result at the end.
    pub(crate) fn step(
        &mut self,
        store: &mut MemoryStore,
    ) -> Option<Result<Published, PublishError>> {
        self.steps += 1;
        match self.machine.poll(self.now) {
            PublishStep::Get(id, get) => {
                let replies = Replies::Get(store.get(&get).into_iter());
                self.waiting.push_back((id, replies));
            }
            PublishStep::Put(id, put) => {
                let reply = Replies::Put(store.put(&put));
                self.waiting.push_back((id, reply));
            }
            PublishStep::Head(head) => {
                let head = head.map(|signed| signed.verify(&www(), &keys(), None, NOW));
                match head.transpose() {
                    Ok(head) => self.head = head,
                    Err(error) => {
                        self.machine.refuse(error, self.now);
                        return None;
                    }
                }
                match (&self.head, &self.way) {
                    (Some(head), _) if self.machine.is_followed(head) => {}
                    (Some(head), PublishWay::Renew) => self.machine.renew(head),
                    (Some(head), PublishWay::Look) => self.machine.look(head),
                    _ => self.begin(),
                }
            }
            PublishStep::Newest(record) => {
                let newest = record.map(|record| record.release.header().root);
                match &self.head {
                    Some(head) if newest == Some(self.site.root()) => {
                        self.found += 1;
                        self.machine.renew(head);
                    }
                    _ => self.begin(),
                }
            }
            PublishStep::Note(note) => self.notes.push(note),
            PublishStep::Walk => self
                .machine
                .walk(&self.site.nodes())
                .expect("a whole manifest"),
            PublishStep::Read(ordinal, block) => {
                let content = self.site.block(&block.hash);
                self.machine.block(ordinal, content);
            }
            PublishStep::Seal => {
                let upload = self.machine.upload().expect("laid out");
                assert_eq!(upload.done(u64::MAX), upload.total);
                let bytes = self.machine.head_to_sign(store.now);
                let signature = signer().sign(Namespace::HEAD, &bytes).expect("signs");
                self.machine.signed(signature.as_bytes());
            }
            PublishStep::Done(published) => return Some(Ok(published)),
            PublishStep::Failed(error) => return Some(Err(error)),
            PublishStep::Wait(at) => self.wait(at),
        }
        None
    }

    fn begin(&mut self) {
        let head = self.head.as_ref();
        let last = head.map_or(Serial(0), |head| head.head().serial());
        self.serial = last.next();
        let new = self.site.release(self.serial);
        match (head, &self.way) {
            (Some(head), PublishWay::Restore(earlier)) => {
                self.machine.restore(head, &earlier.root, new);
            }
            _ => self.machine.begin(head, new),
        }
    }

    /// Delivers the next reply of a request, or lets time pass.
    fn wait(&mut self, at: Option<Moment>) {
        let Some((id, mut replies)) = self.waiting.pop_front() else {
            self.now = at.expect("nothing is under way").max(self.now);
            return;
        };

        let reply = match &mut replies {
            Replies::Put(reply) => return self.machine.stored(id, reply.clone(), self.now),
            Replies::Get(replies) => replies.next().expect("the last one ends it"),
        };
        if matches!(&replies, Replies::Get(left) if left.len() > 0) {
            self.waiting.push_back((id, replies));
        }
        self.machine.reply(id, reply, self.now);
    }

    pub(crate) fn run(mut self, store: &mut MemoryStore) -> Result<Published, PublishError> {
        loop {
            if let Some(result) = self.step(store) {
                return result;
            }
            assert!(self.steps < 1_000_000, "no end");
        }
    }
}

pub(crate) fn verified(signed: &SignedHead) -> VerifiedHead {
    signed.verify(&www(), &keys(), None, NOW).expect("signed")
}

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
    pub(crate) machine: Pull,
    pub(crate) now: Moment,
    pub(crate) steps: u64,
    /// Replies that come later, one at a time.
    waiting: Vec<(RequestId, std::vec::IntoIter<GetReply>)>,
}

impl Pulling {
    pub(crate) fn new(host: &Host, seed: u64) -> Self {
        Self {
            machine: Pull::new(www(), host.etag.clone(), seed),
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
