//! Trees of files in memory, as releases.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::store::{Borrowed, NOW, signer, www};
use crate::block::{BlockHash, BlockRef, chunk};
use crate::id::Serial;
use crate::keys::{Namespace, Signer};
use crate::manifest::build::{Builder, ContentBuilder};
use crate::manifest::fixtures::{MemoryNodes, entry};
use crate::manifest::{EntryKind, FORMAT, Header, Intent, NodeRef, Release, Rules};
use crate::repository::packer::SignedRelease;

/// Files by path.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// A built tree.
#[derive(Debug, Clone)]
pub(crate) struct Site {
    built: Arc<Built>,
}

#[derive(Debug)]
struct Built {
    nodes: MemoryNodes,
    blocks: HashMap<BlockHash, Vec<u8>>,
    root: NodeRef,
}

impl Site {
    pub(crate) fn new(files: &Files) -> Self {
        let mut nodes = MemoryNodes::default();
        let mut blocks = HashMap::new();
        let mut builder = Builder::default();
        for (path, content) in files {
            let mut of_file = ContentBuilder::default();
            for range in chunk::cuts(content, true) {
                let bytes = &content[range];
                let block = BlockRef::of(bytes);
                blocks.insert(block.hash, bytes.to_vec());
                let Ok(()) = of_file.push(block, &mut nodes);
            }
            let Ok(content) = of_file.finish(&mut nodes);
            let Ok(()) = builder.push(entry(path, EntryKind::File(content)), &mut nodes);
        }

        let Ok(root) = builder.finish(&mut nodes);
        Self {
            built: Arc::new(Built {
                nodes,
                blocks,
                root,
            }),
        }
    }

    pub(crate) fn release(&self, serial: Serial) -> SignedRelease {
        let header = Header {
            format: FORMAT,
            tree: www(),
            serial,
            created: NOW,
            expires: None,
            intent: Intent::Deploy,
            scope: Vec::new(),
            targets: Vec::new(),
            root: self.built.root,
            rules: Rules::default(),
            top: None,
            again: None,
            session: None,
            sender: None,
            checksum: None,
            quick: None,
        };

        let release = Release::new(header).expect("legal");
        let signature = signer().sign(Namespace::RELEASE, release.bytes());
        SignedRelease {
            release,
            signature: signature.expect("signs").as_bytes().to_vec(),
            orders: Vec::new(),
        }
    }

    pub(crate) fn nodes(&self) -> Borrowed<'_> {
        Borrowed(&self.built.nodes)
    }

    pub(crate) fn root(&self) -> NodeRef {
        self.built.root
    }

    pub(crate) fn block(&self, hash: &BlockHash) -> &[u8] {
        &self.built.blocks[hash]
    }

    pub(crate) fn blocks(&self) -> impl Iterator<Item = (&BlockHash, &Vec<u8>)> {
        self.built.blocks.iter()
    }
}

/// Content without any pattern.
pub(crate) fn noise(rng: &mut fastrand::Rng, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    rng.fill(&mut bytes);
    bytes
}

/// `count` files of `len` bytes of noise.
pub(crate) fn many_files(rng: &mut fastrand::Rng, count: usize, len: usize) -> Files {
    let name = |n: usize| format!("dir{:03}-file{:05}.html", n / 100, n);
    (0..count).map(|n| (name(n), noise(rng, len))).collect()
}
