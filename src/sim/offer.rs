//! The release of a simulated sender, with content drawn at random.

use std::sync::Arc;

use super::blocks::BlockMap;
use crate::block::frame::{Compressor, Level};
use crate::block::{BlockHash, BlockRef};
use crate::id::{Serial, SessionId, TreeName};
use crate::manifest::build::Builder;
use crate::manifest::read::Manifest;
use crate::manifest::{
    Content, Entry, EntryKind, FORMAT, Header, Intent, Mode, Mtime, Owner, Release, Rules, TreePath,
};
use crate::proto::RangeSet;
use crate::proto::generation::{Buffers, pack_to};
use crate::proto::sender::PackedPayload;
use crate::units::WallTime;
use crate::wire::message::{Order, OrderKind, SignedOrder};

/// Placeholder for a signature: any changed byte makes it invalid.
pub fn signature(bytes: &[u8]) -> Vec<u8> {
    BlockHash::of(&[b"signed", bytes].concat()).0[..6].to_vec()
}

/// Returns the name of the tree on all simulated hosts.
pub fn tree() -> TreeName {
    TreeName::new("www").expect("legal")
}

/// Release that a simulated sender offers.
#[derive(Debug, Clone)]
pub struct SimOffer {
    /// The release.
    pub release: Release,
    /// Its nodes and blocks.
    pub(super) blocks: Arc<BlockMap>,
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
                    blocks.insert(block.hash, bytes.into());
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
        for (block, bytes) in nodes {
            blocks.insert(block.hash, bytes.into());
        }

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
            message: None,
            paused: None,
        };

        Self {
            release: Release::new(header).expect("legal"),
            blocks: Arc::new(blocks),
            data,
        }
    }

    /// Answers [`crate::proto::sender::SenderRequest::Pack`] with about `target` bytes, compressed
    /// at `level`.
    pub fn pack(&self, ordinals: &RangeSet, target: usize, level: Option<Level>) -> PackedPayload {
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
                out.extend_from_slice(self.blocks.get(&hash).expect("a block of ours"));
                Ok(())
            },
        );

        PackedPayload {
            ordinals: packed.taken,
            payload: Arc::new(buffers.payload),
        }
    }

    /// Returns the bytes of all nodes and blocks.
    pub fn bytes(&self) -> u64 {
        self.blocks.bytes()
    }

    /// Returns the blocks of files with a position for which `has` returns true.
    pub(super) fn chosen(
        &self,
        mut has: impl FnMut(usize) -> bool,
    ) -> impl Iterator<Item = (BlockHash, Arc<[u8]>)> {
        let chosen = self
            .data
            .iter()
            .enumerate()
            .filter(move |(nth, _)| has(*nth));
        chosen.filter_map(|(_, hash)| Some((*hash, Arc::clone(self.blocks.get(hash)?))))
    }
}
