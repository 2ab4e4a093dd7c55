//! Trees of files in memory, as releases.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::host::Borrowed;
use super::store::{NOW, signer, www};
use crate::block::{BlockHash, BlockRef, chunk};
use crate::id::{Serial, TreeName};
use crate::keys::{Namespace, Signer};
use crate::manifest::build::{Builder, ContentBuilder};
use crate::manifest::fixtures::{MemoryNodes, entry};
use crate::manifest::{EntryKind, FORMAT, Header, Intent, NodeRef, Release, Rules};
use crate::repository::packer::SignedRelease;
use crate::units::WallTime;

/// Files by path.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// A built tree.
#[derive(Debug, Clone)]
pub(crate) struct Site {
    built: Arc<Built>,
    pub(crate) tree: TreeName,
    /// Time of its releases.
    pub(crate) created: WallTime,
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
            tree: www(),
            created: NOW,
        }
    }

    pub(crate) fn release(&self, serial: Serial) -> SignedRelease {
        let header = Header {
            format: FORMAT,
            tree: self.tree.clone(),
            serial,
            created: self.created,
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
            message: None,
            paused: None,
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

    pub(crate) fn has_block(&self, hash: &BlockHash) -> bool {
        self.built.blocks.contains_key(hash)
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

/// Changes some files: content, new ones, deleted ones, copies, renamed ones.
pub(crate) fn edit(rng: &mut fastrand::Rng, files: &mut Files) {
    for _ in 0..rng.usize(1..6) {
        let names: Vec<String> = files.keys().cloned().collect();
        let pick = names.get(rng.usize(..names.len().max(1))).cloned();
        let fresh = format!("new{:08}", rng.u32(..100_000_000));
        let content = pick.as_ref().and_then(|name| files.get(name).cloned());
        match (rng.u32(..5), pick, content) {
            (0, Some(name), Some(mut content)) if !content.is_empty() => {
                let at = rng.usize(..content.len());
                content.truncate(at);
                let len = rng.usize(1..40_000);
                content.extend(noise(rng, len));
                files.insert(name, content);
            }
            (1, Some(name), _) if files.len() > 3 => drop(files.remove(&name)),
            (2, _, Some(content)) => drop(files.insert(fresh, content)),
            (3, Some(name), Some(content)) => {
                files.remove(&name);
                files.insert(fresh, content);
            }
            _ => {
                let len = rng.usize(..200_000);
                files.insert(fresh, noise(rng, len));
            }
        }
    }
}

/// Gives one file in `every` other content of `len` bytes.
pub(crate) fn replace(rng: &mut fastrand::Rng, files: &mut Files, every: u32, len: usize) {
    for content in files.values_mut() {
        if rng.u32(..every) == 0 {
            *content = noise(rng, len);
        }
    }
}

/// `count` files of `len` bytes of noise.
pub(crate) fn many_files(rng: &mut fastrand::Rng, count: usize, len: usize) -> Files {
    let name = |n: usize| format!("dir{:03}-file{:05}.html", n / 100, n);
    (0..count).map(|n| (name(n), noise(rng, len))).collect()
}
