//! Manifest nodes of the releases that a host keeps, content-addressed, in one file.
//!
//! The file only grows: records of hash, length and bytes, one after the other. Nodes of a session
//! are appended as they arrive and synced together before a commit. When more than half of the file
//! belongs to no kept release, it is rewritten. Every read verifies the hash, so a damaged record
//! is a missing node.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::block::{BlockHash, BlockRef};
use crate::error::{Error, IoResultExt as _, Result};
use crate::id::Ordinal;
use crate::manifest::build::NodeSink;
use crate::manifest::node::MAX_NODE_BYTES;
use crate::manifest::read::{NodeSource, ReadError, children};
use crate::manifest::{Node, NodeRef};
use crate::sync::locked;

const MAGIC: &[u8; 16] = b"makuo nodes v001";
const RECORD_HEAD: usize = 32 + 4;

/// Node store of one tree, shared by threads.
#[derive(Debug)]
pub struct NodeStore {
    path: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    file: File,
    places: HashMap<BlockHash, NodePlace>,
    end: u64,
}

#[derive(Debug, Clone, Copy)]
struct NodePlace {
    at: u64,
    size: u32,
}

impl NodeStore {
    /// Opens or creates the store at `path`. Cuts off a partial last record after a crash.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let inner = Inner::open(&path).context("cannot open", &path)?;
        Ok(Self {
            path,
            inner: Mutex::new(inner),
        })
    }

    /// Opens the store at `path` for reading, while another process may write. Later records are
    /// not seen.
    pub fn look(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let failed = |e| Error::io("cannot read", &path, e);
        let file = File::open(&path).map_err(failed)?;
        let mut magic = [0; MAGIC.len()];

        match file.read_exact_at(&mut magic, 0) {
            Ok(()) if magic == *MAGIC => {}
            _ => {
                return Err(failed(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "not a store of manifests",
                )));
            }
        }

        let inner = Inner::index(file).map_err(failed)?;
        Ok(Self {
            path,
            inner: Mutex::new(inner),
        })
    }

    /// Returns whether the node is present.
    pub fn has(&self, hash: &BlockHash) -> bool {
        locked(&self.inner).places.contains_key(hash)
    }

    /// Stores `bytes` if they are the node `block`; returns whether they are.
    pub fn put_node(&self, block: BlockRef, bytes: &[u8]) -> Result<bool> {
        if bytes.len() > MAX_NODE_BYTES || !block.matches(bytes) {
            return Ok(false);
        }
        locked(&self.inner)
            .append(block.hash, bytes)
            .context("cannot write", &self.path)?;
        Ok(true)
    }

    /// Syncs all stored nodes.
    pub fn sync(&self) -> Result<()> {
        locked(&self.inner)
            .file
            .sync_data()
            .context("cannot sync", &self.path)
    }

    /// Returns whether every node of the manifest under `root` is present; reads all of them.
    pub fn has_all(&self, root: &NodeRef) -> Result<bool, ReadError> {
        self.reachable(root, &mut HashSet::new())
    }

    /// Rewrites the store with the nodes of the manifests under `roots`, if this at least halves
    /// the file.
    pub fn prune(&self, roots: &[NodeRef]) -> Result<()> {
        // Reading all manifests is unnecessary while the largest one makes up half of the store.
        let largest = roots.iter().map(|r| r.nodes).max().unwrap_or(0);
        if (locked(&self.inner).places.len() as u64) < largest.saturating_mul(2) {
            return Ok(());
        }

        let mut live = HashSet::new();
        for root in roots {
            self.reachable(root, &mut live)
                .map_err(|e| Error::refused("cannot read a kept manifest").because(e))?;
        }

        let mut inner = locked(&self.inner);
        let size = |(_, p): (&BlockHash, &NodePlace)| RECORD_HEAD as u64 + u64::from(p.size);
        let live_bytes: u64 = inner
            .places
            .iter()
            .filter(|(h, _)| live.contains(*h))
            .map(size)
            .sum();

        if inner.end < 2 * live_bytes + (64 << 10) {
            return Ok(());
        }

        *inner = inner
            .rewrite(&self.path, &live)
            .context("cannot rewrite", &self.path)?;

        Ok(())
    }

    /// Adds all present nodes of the manifest under `root`; returns whether the manifest is
    /// complete.
    fn reachable(&self, root: &NodeRef, seen: &mut HashSet<BlockHash>) -> Result<bool, ReadError> {
        let mut whole = true;
        let mut open = vec![root.block];
        while let Some(block) = open.pop() {
            if !seen.insert(block.hash) {
                continue;
            }
            let node = match self.node(&block.hash) {
                // The rest of a damaged manifest need not be fetched again.
                Err(ReadError::Missing(_)) => {
                    whole = false;
                    continue;
                }
                node => Node::decode(&node?)?,
            };
            open.extend(
                children(&node, Ordinal(0))
                    .into_iter()
                    .map(|(_, child)| child.block()),
            );
        }

        Ok(whole)
    }
}

impl NodeSource for NodeStore {
    fn node(&self, hash: &BlockHash) -> Result<Arc<[u8]>, ReadError> {
        let (file, place) = {
            let inner = locked(&self.inner);
            let place = *inner.places.get(hash).ok_or(ReadError::Missing(*hash))?;
            (
                inner
                    .file
                    .try_clone()
                    .map_err(|e| ReadError::Io(*hash, e))?,
                place,
            )
        };

        let mut bytes = vec![0; place.size as usize];
        file.read_exact_at(&mut bytes, place.at)
            .map_err(|e| ReadError::Io(*hash, e))?;

        if BlockHash::of(&bytes) != *hash {
            // Drops the node, so it will be fetched again.
            let mut inner = locked(&self.inner);
            if inner.places.get(hash).is_some_and(|now| now.at == place.at) {
                inner.places.remove(hash);
            }
            return Err(ReadError::Missing(*hash));
        }

        Ok(bytes.into())
    }
}

impl NodeSource for &NodeStore {
    fn node(&self, hash: &BlockHash) -> Result<Arc<[u8]>, ReadError> {
        (**self).node(hash)
    }
}

impl NodeSink for &NodeStore {
    type Error = Error;
    fn put(&mut self, block: BlockRef, bytes: Vec<u8>) -> Result<()> {
        locked(&self.inner)
            .append(block.hash, &bytes)
            .context("cannot write", &self.path)
    }
}

impl Inner {
    fn open(path: &Path) -> io::Result<Self> {
        let mut options = File::options();
        options
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600);

        let file = options.open(path)?;
        let length = file.metadata()?.len();
        let mut magic = [0; MAGIC.len()];
        if length < MAGIC.len() as u64
            || file.read_exact_at(&mut magic, 0).is_err()
            || magic != *MAGIC
        {
            // Nothing here is usable, and all nodes can be fetched again.
            file.set_len(0)?;
            file.write_all_at(MAGIC, 0)?;
        }

        let inner = Self::index(file)?;
        inner.file.set_len(inner.end)?;
        Ok(inner)
    }

    /// Reads the store in `file`, up to the last complete record.
    fn index(file: File) -> io::Result<Self> {
        let mut inner = Self {
            file,
            places: HashMap::new(),
            end: MAGIC.len() as u64,
        };

        let length = inner.file.metadata()?.len();
        let mut head = [0; RECORD_HEAD];
        while inner.end + RECORD_HEAD as u64 <= length {
            inner.file.read_exact_at(&mut head, inner.end)?;
            let (hash, size) = parse_head(&head);
            let after = inner.end + RECORD_HEAD as u64 + u64::from(size);
            if size as usize > MAX_NODE_BYTES || after > length {
                break;
            }
            inner.places.insert(
                hash,
                NodePlace {
                    at: inner.end + RECORD_HEAD as u64,
                    size,
                },
            );
            inner.end = after;
        }

        Ok(inner)
    }

    fn append(&mut self, hash: BlockHash, bytes: &[u8]) -> io::Result<()> {
        if self
            .places
            .get(&hash)
            .is_some_and(|&p| self.is_whole(hash, p))
        {
            return Ok(());
        }

        let mut record = Vec::with_capacity(RECORD_HEAD + bytes.len());
        record.extend_from_slice(&hash.0);
        record.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
        record.extend_from_slice(bytes);
        self.file.write_all_at(&record, self.end)?;
        self.places.insert(
            hash,
            NodePlace {
                at: self.end + RECORD_HEAD as u64,
                size: bytes.len() as u32,
            },
        );

        self.end += record.len() as u64;
        Ok(())
    }

    /// Returns whether a record is intact; a damaged record is written again.
    fn is_whole(&self, hash: BlockHash, place: NodePlace) -> bool {
        let mut bytes = vec![0; place.size as usize];
        self.file.read_exact_at(&mut bytes, place.at).is_ok() && BlockHash::of(&bytes) == hash
    }

    fn rewrite(&self, path: &Path, live: &HashSet<BlockHash>) -> io::Result<Self> {
        let temporary = path.with_extension("new");
        let mut options = File::options();
        options.create(true).truncate(true).write(true).mode(0o600);
        let mut out = BufWriter::new(options.open(&temporary)?);
        out.write_all(MAGIC)?;
        let mut kept: Vec<(&BlockHash, &NodePlace)> = self
            .places
            .iter()
            .filter(|(h, _)| live.contains(*h))
            .collect();

        kept.sort_by_key(|(_, place)| place.at);
        for (_, place) in kept {
            let mut record = vec![0; RECORD_HEAD + place.size as usize];
            self.file
                .read_exact_at(&mut record, place.at - RECORD_HEAD as u64)?;
            out.write_all(&record)?;
        }

        out.into_inner()
            .map_err(io::IntoInnerError::into_error)?
            .sync_all()?;
        std::fs::rename(&temporary, path)?;

        Self::open(path)
    }
}

fn parse_head(head: &[u8; RECORD_HEAD]) -> (BlockHash, u32) {
    let mut hash = [0; 32];
    let mut size = [0; 4];
    hash.copy_from_slice(&head[..32]);
    size.copy_from_slice(&head[32..]);
    (BlockHash(hash), u32::from_be_bytes(size))
}

#[cfg(test)]
mod tests;
