//! Disks in memory: a sender's release and a host's blocks, and the answers to the state machines'
//! requests.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::block::frame::{Compressor, Expander, Level};
use crate::block::{BlockHash, BlockRef};
use crate::id::{Ordinal, Serial, SessionId, TreeName};
use crate::manifest::build::Builder;
use crate::manifest::missing_nodes::Explorer;
use crate::manifest::read::{Manifest, NodeSource, ReadError};
use crate::manifest::{
    Content, Entry, EntryKind, FORMAT, Header, Intent, Mode, Mtime, Owner, Release, Rules, TreePath,
};
use crate::proto::RangeSet;
use crate::proto::generation::{Body, Buffers, Encoding, PlacedBlock, pack_to};
use crate::proto::receiver::{
    Answer, Ask, BlockPart, Delivery, DiskReply, DiskRequest, OfferRefusal, OfferedRelease, Ordered,
};
use crate::units::WallTime;
use crate::wire::message::{
    DiffSummary, MAX_BEACON_TOMBSTONES, Order, OrderKind, SignedOrder, Tombstone, TreeState,
};
use crate::wire::query::ReleaseBytes;

/// Placeholder for a signature: any changed byte makes it invalid.
pub fn signature(bytes: &[u8]) -> Vec<u8> {
    BlockHash::of(&[b"signed", bytes].concat()).0[..6].to_vec()
}

/// Blocks by hash.
#[derive(Debug, Clone, Default)]
pub struct BlockMap(HashMap<BlockHash, Arc<[u8]>>);

impl NodeSource for &BlockMap {
    fn node(&self, hash: &BlockHash) -> Result<Arc<[u8]>, ReadError> {
        self.0.get(hash).cloned().ok_or(ReadError::Missing(*hash))
    }
}

/// Release that a simulated sender offers.
#[derive(Debug, Clone)]
pub struct SimOffer {
    /// The release.
    pub release: Release,
    blocks: Arc<BlockMap>,
    /// Blocks of files, by ordinal less the number of nodes.
    data: Vec<BlockHash>,
}

impl SimOffer {
    /// Returns the order that committed the release elsewhere.
    pub fn grant(&self) -> SignedOrder {
        let kind = OrderKind::Commit;
        let session = SessionId(77);
        let order = Order::new(session, &self.release, kind).encode();
        SignedOrder {
            signature: signature(&order),
            order,
            hosts: None,
        }
    }

    /// Creates a release of `files` files with one to four blocks of up to `size` bytes each, all
    /// drawn from `seed`.
    pub fn random(seed: u64, serial: u64, intent: Intent, files: u32, size: usize) -> Self {
        Self::drawn(seed, serial, intent, files, size, |rng| rng.u8(..))
    }

    /// Same as [`SimOffer::random`], with bytes that compress to about half.
    pub fn letters(seed: u64, serial: u64, files: u32, size: usize) -> Self {
        Self::drawn(seed, serial, Intent::Deploy, files, size, |rng| {
            rng.u8(b'a'..=b'p')
        })
    }

    fn drawn(
        seed: u64,
        serial: u64,
        intent: Intent,
        files: u32,
        size: usize,
        byte: fn(&mut fastrand::Rng) -> u8,
    ) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut blocks = BlockMap::default();
        let mut data = Vec::new();
        let mut builder = Builder::default();
        let mut nodes = Vec::new();
        let mut sink = |block: BlockRef, bytes: Vec<u8>| nodes.push((block, bytes));
        let owner = Arc::new(Owner {
            uid: 0,
            gid: 0,
            user: None,
            group: None,
        });

        for file in 0..files {
            let refs: Vec<BlockRef> = (0..rng.u32(1..=4))
                .map(|_| {
                    let len = rng.usize(1..=size);
                    let bytes: Vec<u8> = std::iter::repeat_with(|| byte(&mut rng))
                        .take(len)
                        .collect();
                    let block = BlockRef::of(&bytes);
                    blocks.0.insert(block.hash, bytes.into());
                    data.push(block.hash);
                    block
                })
                .collect();
            let entry = Entry {
                path: TreePath::new(format!("f{file:06}").into_bytes()).expect("legal"),
                kind: EntryKind::File(Content::Blocks(refs)),
                mode: Mode::from_bits(0o644),
                owner: Arc::clone(&owner),
                mtime: Mtime::default(),
                xattrs: Vec::new(),
            };
            let Ok(()) = builder.push(entry, &mut sink);
        }

        let Ok(root) = builder.finish(&mut sink);
        blocks.0.extend(
            nodes
                .into_iter()
                .map(|(block, bytes)| (block.hash, bytes.into())),
        );

        let header = Header {
            format: FORMAT,
            tree: tree(),
            serial: Serial(serial),
            created: WallTime(0),
            expires: None,
            intent,
            scope: Vec::new(),
            targets: Vec::new(),
            root,
            rules: Rules::default(),
            top: None,
            again: None,
            session: None,
            sender: None,
            checksum: None,
            quick: None,
        };

        Self {
            release: Release::new(header).expect("legal"),
            blocks: Arc::new(blocks),
            data,
        }
    }

    /// Answers [`crate::proto::sender::SenderRequest::Pack`] with about `target` bytes, compressed
    /// at `level`.
    pub fn pack(
        &self,
        ordinals: &RangeSet,
        target: usize,
        level: Option<Level>,
    ) -> (RangeSet, Arc<Vec<u8>>) {
        let nodes = self.release.header().root.nodes;
        let manifest = Manifest::of(self.release.header(), &*self.blocks);
        let mut compressor = Compressor::new();
        let level = level.map(|level| (&mut compressor, level));
        let mut buffers = Buffers::default();
        let Ok(packed) = pack_to::<std::convert::Infallible>(
            target,
            ordinals,
            level,
            &mut buffers,
            |ordinal, out| {
                let hash = match ordinal.0.checked_sub(nodes) {
                    None => manifest.node_at(ordinal).expect("a node of ours").hash,
                    Some(at) => self.data[at as usize],
                };
                out.extend_from_slice(&self.blocks.0[&hash]);
                Ok(())
            },
        );

        (packed.taken, Arc::new(buffers.payload))
    }

    /// Returns the bytes of all nodes and blocks.
    pub fn bytes(&self) -> u64 {
        self.blocks.0.values().map(|b| b.len() as u64).sum()
    }
}

/// Returns the name of the tree on all simulated hosts.
pub fn tree() -> TreeName {
    TreeName::new("www").expect("legal")
}

/// State of a simulated host that survives a crash.
#[derive(Debug, Clone, Default)]
pub struct SimDisk {
    blocks: BlockMap,
    /// Blocks of the sender: equal content is kept once for all hosts.
    shared: Arc<BlockMap>,
    /// The release in place.
    pub committed: Option<Release>,
    /// The previous release, while a revert is possible.
    before: Option<Option<Release>>,
    /// Number of commits.
    pub commits: u32,
    /// Number of reverts.
    pub reverts: u32,
    /// Result of the hook before a commit; `Err` is a veto.
    pub vote: Option<Result<(), String>>,
    /// Number of runs of the hook before a commit.
    pub votes: u32,
    /// Result of the check after a commit.
    pub health: Option<Result<(), String>>,
    /// Reason for refusing every release.
    pub refuse: Option<String>,
    /// Number of delivered payloads to corrupt.
    pub corrupt: u32,
    /// Number of compressed payloads delivered.
    pub frames: u32,
    /// Read back none of the blocks.
    forgetful: bool,
    /// Orders to abort or revert a release.
    pub tombstones: Vec<SignedOrder>,
    open: BTreeMap<SessionId, OpenSession>,
}

#[derive(Debug, Clone)]
struct OpenSession {
    release: Release,
    granted: bool,
    wants: BTreeMap<u64, BlockRef>,
}

impl SimDisk {
    /// Creates an empty disk that shares the blocks of `offer` with all others. Without `recall`
    /// the disk reads no block back.
    pub fn sharing(offer: &SimOffer, recall: bool) -> Self {
        Self {
            shared: Arc::clone(&offer.blocks),
            forgetful: !recall,
            ..Self::default()
        }
    }

    /// Stores blocks of the files of `offer` before the transfer: those with a position for which
    /// `has` returns true.
    pub fn preload(&mut self, offer: &SimOffer, mut has: impl FnMut(usize) -> bool) {
        let here = offer.data.iter().enumerate().filter(|(nth, _)| has(*nth));
        self.blocks
            .0
            .extend(here.map(|(_, hash)| (*hash, Arc::clone(&offer.blocks.0[hash]))));
    }

    /// Returns the state of the tree as the host reports it.
    pub fn state(&self) -> TreeState {
        let release = self.committed.as_ref();
        TreeState {
            tree: tree(),
            serial: release.map(|r| r.header().serial).unwrap_or_default(),
            release: release.map(Release::id),
            running: release.map(|r| r.header().serial),
            created: release.map(|r| r.header().created),
            tombstones: Some(self.stones()),
            unhealthy: None,
            base: None,
        }
    }

    /// Returns the signed part of the release in place.
    pub fn headers(&self) -> BTreeMap<TreeName, ReleaseBytes> {
        let told = |release: &Release| {
            let header = release.bytes().to_vec();
            ReleaseBytes {
                signature: signature(&header),
                header,
            }
        };

        self.committed
            .iter()
            .map(|release| (tree(), told(release)))
            .collect()
    }

    fn stones(&self) -> Vec<Tombstone> {
        let stone = |signed: &SignedOrder| Some(Order::decode(&signed.order)?.tombstone()?.1);
        self.tombstones
            .iter()
            .rev()
            .filter_map(stone)
            .take(MAX_BEACON_TOMBSTONES)
            .collect()
    }

    /// Crashes the host: everything in memory is lost.
    pub fn crash(&mut self) {
        self.open.clear();
    }

    /// Returns true if every block of the release in place is present.
    pub fn is_whole(&self) -> bool {
        let Some(release) = &self.committed else {
            return true;
        };

        let manifest = Manifest::of(release.header(), &self.blocks);
        manifest.entries().all(|located| {
            let Ok(located) = located else { return false };
            let EntryKind::File(content) = &located.entry.kind else {
                return true;
            };
            manifest.blocks(content).is_ok_and(|blocks| {
                blocks.iter().all(|b| {
                    self.blocks
                        .0
                        .get(&b.hash)
                        .is_some_and(|bytes| b.matches(bytes))
                })
            })
        })
    }

    /// Answers a request; `Close` has no answer.
    pub fn answer(&mut self, request: DiskRequest) -> Option<DiskReply> {
        Some(match request {
            DiskRequest::Open(session, offer) => {
                DiskReply::Opened(session, self.open(session, offer))
            }
            DiskRequest::Session(session, ask) => {
                DiskReply::Session(session, self.carry_out(session, ask))
            }
            DiskRequest::Verify(release, signed) => {
                let newer = self
                    .committed
                    .as_ref()
                    .is_none_or(|c| c.header().serial < release.header().serial);
                DiskReply::Verified(release.id(), newer && *signed == signature(release.bytes()))
            }
            DiskRequest::Bury(order) => {
                let holds = order.signature == signature(&order.order);
                if holds {
                    self.tombstones.push(order.clone());
                }
                DiskReply::Buried(order, holds)
            }
            DiskRequest::GoBack(_) => {
                if let Some(before) = self.before.take() {
                    self.reverts += 1;
                    self.committed = before;
                }
                DiskReply::Trees(vec![self.state()])
            }
            DiskRequest::Close(session) => {
                if self.open.remove(&session).is_some() {
                    self.before = None;
                }
                return None;
            }
        })
    }

    fn open(&mut self, session: SessionId, offer: OfferedRelease) -> Result<(), OfferRefusal> {
        let release = offer.release;
        if *offer.signature != signature(release.bytes()) {
            return Err("not signed".to_string().into());
        }

        let buried = self
            .stones()
            .iter()
            .any(|stone| stone.release == release.id());
        let refused = self.refuse.clone().or_else(|| {
            if buried {
                return Some("it was taken back".to_string());
            }
            let newer = self
                .committed
                .as_ref()
                .is_none_or(|c| c.header().serial < release.header().serial);
            (!newer && release.header().intent == Intent::Deploy)
                .then(|| "an old serial".to_string())
        });

        self.open.insert(
            session,
            OpenSession {
                release,
                granted: offer.grant.is_some(),
                wants: BTreeMap::new(),
            },
        );

        refused.map_or(Ok(()), |why| Err(why.into()))
    }

    fn carry_out(&mut self, session: SessionId, ask: Ask) -> Answer {
        match ask {
            Ask::Explore => Answer::Explored(self.explore(session)),
            Ask::Diff => Answer::Diffed(self.diff(session)),
            Ask::Deliver(Delivery {
                mut payload,
                body,
                blocks,
            }) => {
                if self.corrupt > 0 {
                    self.corrupt -= 1;
                    let at = match body.encoding {
                        Encoding::Plain => body.start + blocks[0].bytes.start,
                        Encoding::Zstd => usize::midpoint(body.start, payload.len()),
                    };

                    payload[at] ^= 1;
                }
                let outcome = self.deliver(session, &payload, body, &blocks);
                Answer::Delivered(payload, outcome)
            }
            Ask::ReadBack { generation, parts } => {
                Answer::ReadBack(generation, self.recall(session, parts))
            }
            Ask::Finish => Answer::Finished(self.finish(session)),
            Ask::Order(order) => Answer::Ordered(self.order(session, &order)),
            Ask::Check => Answer::Checked(self.health.clone().unwrap_or(Ok(()))),
        }
    }

    fn explore(&mut self, session: SessionId) -> Result<RangeSet, String> {
        let open = self.open.get_mut(&session).ok_or("not open")?;
        let mut explorer = Explorer::new(open.release.header().root);
        let missing = explorer
            .advance(&&self.blocks, |_| false)
            .map_err(|e| e.to_string())?;
        open.wants = missing
            .iter()
            .map(|(ordinal, child)| (ordinal.0, child.block()))
            .collect();

        Ok(open.wants.keys().map(|&o| o..o + 1).collect())
    }

    fn diff(&mut self, session: SessionId) -> Result<(DiffSummary, RangeSet, Arc<[u8]>), String> {
        let open = self.open.get_mut(&session).ok_or("not open")?;
        let manifest = Manifest::of(open.release.header(), &self.blocks);
        let mut summary = DiffSummary::default();
        for located in manifest.entries() {
            let located = located.map_err(|e| e.to_string())?;
            let EntryKind::File(content) = &located.entry.kind else {
                continue;
            };
            let blocks = manifest.blocks(content).map_err(|e| e.to_string())?;
            for (block, ordinal) in blocks.into_iter().zip(located.first.0..) {
                if !self.blocks.0.contains_key(&block.hash) {
                    summary.written += 1;
                    summary.fetch += u64::from(block.size);
                    open.wants.insert(ordinal, block);
                }
            }
        }

        summary.votes = Some(self.vote.is_some());
        // Hosts with the same missing blocks have the same list.
        let list = format!("{:?}", open.wants.keys().collect::<Vec<_>>());

        if !open.wants.is_empty() {
            let hash = BlockHash::of(list.as_bytes());
            summary.drift = u64::from_be_bytes(hash.0[..8].try_into().expect("eight bytes")) | 1;
            summary.drift_bytes = list.len() as u64;
        }

        Ok((
            summary,
            open.wants.keys().map(|&o| o..o + 1).collect(),
            Arc::from(list.as_bytes()),
        ))
    }

    fn deliver(
        &mut self,
        session: SessionId,
        payload: &[u8],
        at: Body,
        blocks: &[PlacedBlock],
    ) -> Result<(RangeSet, u64), String> {
        let open = self.open.get_mut(&session).ok_or("not open")?;
        let mut expander = Expander::default();
        let content = match at.encoding {
            Encoding::Plain => Some(&payload[at.start..]),
            Encoding::Zstd => {
                self.frames += 1;
                expander.expand(&payload[at.start..], at.plain)
            }
        };

        let Some(whole) = content else {
            return Ok((
                blocks
                    .iter()
                    .map(|b| b.ordinal.0..b.ordinal.0 + 1)
                    .collect(),
                0,
            ));
        };

        let mut wrong = RangeSet::default();
        let mut bytes = 0;
        for placed in blocks {
            let Ordinal(ordinal) = placed.ordinal;
            let content = whole.get(placed.bytes.clone()).unwrap_or_default();
            match open.wants.get(&ordinal) {
                Some(block) if block.matches(content) => {
                    let kept = self
                        .shared
                        .0
                        .get(&block.hash)
                        .cloned()
                        .unwrap_or_else(|| content.into());
                    self.blocks.0.insert(block.hash, kept);
                    open.wants.remove(&ordinal);
                    bytes += content.len() as u64;
                }
                Some(_) => wrong.insert(ordinal..ordinal + 1),
                None => {}
            }
        }

        Ok((wrong, bytes))
    }

    fn recall(&self, session: SessionId, parts: Vec<BlockPart>) -> Vec<(BlockPart, Vec<u8>)> {
        let Some(open) = self.open.get(&session).filter(|_| !self.forgetful) else {
            return Vec::new();
        };

        let manifest = Manifest::of(open.release.header(), &self.blocks);
        let read = |part: &BlockPart| {
            let located = manifest.entry_of_block(part.ordinal).ok()?;
            let EntryKind::File(content) = &located.entry.kind else {
                return None;
            };
            let nth = usize::try_from(part.ordinal.0 - located.first.0).ok()?;
            let block = *manifest.blocks(content).ok()?.get(nth)?;
            self.blocks
                .0
                .get(&block.hash)?
                .get(part.bytes.clone())
                .map(<[u8]>::to_vec)
        };

        parts
            .into_iter()
            .filter_map(|part| read(&part).map(|bytes| (part, bytes)))
            .collect()
    }

    fn finish(&self, session: SessionId) -> Result<(), String> {
        let open = self.open.get(&session).ok_or("not open")?;
        if open.wants.is_empty() {
            Ok(())
        } else {
            Err("blocks are missing".into())
        }
    }

    fn order(&mut self, session: SessionId, signed: &SignedOrder) -> Option<Ordered> {
        let order = Order::decode(&signed.order)
            .filter(|_| signed.signature == signature(&signed.order))?;
        let open = self.open.get(&session).filter(|o| {
            o.release.id() == order.release && (order.session == session || o.granted)
        })?;

        Some(match order.kind {
            OrderKind::Revert if self.before.is_some() => {
                self.reverts += 1;
                self.committed = self.before.take().flatten();
                Ordered::Reverted("went back".into())
            }
            OrderKind::Abort | OrderKind::Revert => Ordered::Aborted,
            OrderKind::Prepare => {
                self.votes += u32::from(self.vote.is_some());
                match self.vote.clone().unwrap_or(Ok(())) {
                    Ok(()) => Ordered::Prepared,
                    Err(why) => Ordered::Vetoed(why),
                }
            }
            OrderKind::Commit => {
                self.commits += 1;
                self.before = Some(self.committed.replace(open.release.clone()));
                Ordered::Committed {
                    serial: open.release.header().serial,
                    checks: self.health.is_some(),
                }
            }
        })
    }
}
