//! A prepared source whose entries appear at another path. Their blocks stay in their order, so
//! only the nodes of the manifest are made anew.

use std::collections::HashMap;
use std::sync::Arc;

use super::node_reader::NodeReader;
use super::prepared::PreparedRelease;
use super::reader::ReleaseSource;
use crate::block::{BlockHash, BlockRef};
use crate::id::Ordinal;
use crate::manifest::build::Builder;
use crate::manifest::read::{Manifest, NodeSource, ReadError};
use crate::manifest::{Content, Entry, EntryKind, Mode, NodeRef, TreePath};
use crate::proto::RangeSet;
use crate::spec::Compress;
use crate::tree::{Blocks, SourceError};
use crate::{Error, Result};

/// Mode of directories that lead to the new path, where a host lacks them.
const DIR_MODE: u32 = 0o755;

/// Moves the entries at `from`, the only path of a prepared source, to the path `to`.
pub fn moved(
    (mut source, facts): (ReleaseSource, PreparedRelease),
    from: &TreePath,
    to: &TreePath,
    compress: Compress,
) -> Result<(ReleaseSource, PreparedRelease)> {
    let unreadable =
        |e: &dyn std::fmt::Display| Error::refused(format!("{from} cannot be sent to {to}: {e}"));
    let reader = NodeReader::open(&facts.root, &mut source).map_err(|e| unreadable(&e))?;
    let mut nodes = Nodes::default();
    let manifest = Manifest::new(facts.root, reader);
    let root = rebuild(&manifest, from, to, &mut nodes).map_err(|e| unreadable(&e))?;
    drop(manifest);

    let mut rules = facts.rules.clone();
    for exclude in &mut rules.excludes {
        if let Some(base) = &exclude.base {
            exclude.base = Some(renamed(base, from, to).map_err(|e| unreadable(&e))?);
        }
    }

    let old_nodes = facts.root.nodes;
    let facts = PreparedRelease {
        root,
        scope: vec![to.clone()],
        rules,
        ..facts
    };
    let blocks = MovedBlocks {
        source,
        manifest: Manifest::new(root, nodes.clone()),
        nodes,
        old_nodes,
    };
    Ok((ReleaseSource::of(Box::new(blocks), compress), facts))
}

/// Builds a manifest with the entries of `old` at `from` moved to `to`, and returns its root.
fn rebuild<S: NodeSource>(
    old: &Manifest<S>,
    from: &TreePath,
    to: &TreePath,
    nodes: &mut Nodes,
) -> Result<NodeRef, ReadError> {
    let mut builder = Builder::default();
    let mut sink = |block: BlockRef, bytes: Vec<u8>| nodes.put(block, bytes);
    let mut lists = Vec::new();
    for located in old.entries() {
        let mut entry = located?.entry;
        if !entry.path.is_within(from) {
            continue;
        }

        if entry.path == *from {
            for path in above(to) {
                let Ok(()) = builder.push(directory(path, &entry), &mut sink);
            }
        }
        entry.path = renamed(&entry.path, from, to)?;
        match &mut entry.kind {
            EntryKind::Hardlink(first) => *first = renamed(first, from, to)?,
            EntryKind::File(Content::Lists(of)) => lists.extend(of.iter().map(|list| list.block)),
            _ => {}
        }
        let Ok(()) = builder.push(entry, &mut sink);
    }

    let Ok(root) = builder.finish(&mut sink);
    for list in lists {
        let bytes = old.source().node(&list.hash)?;
        nodes.put(list, bytes.to_vec());
    }
    Ok(root)
}

/// The directories above `path`, from the top.
fn above(path: &TreePath) -> Vec<TreePath> {
    let mut dirs: Vec<TreePath> = std::iter::successors(path.parent(), TreePath::parent).collect();
    dirs.reverse();
    dirs
}

/// A directory on the way to `entry`, with its owner.
fn directory(path: TreePath, entry: &Entry) -> Entry {
    Entry {
        path,
        kind: EntryKind::Directory,
        mode: Mode::from_bits(DIR_MODE),
        owner: Arc::clone(&entry.owner),
        mtime: entry.mtime,
        xattrs: Vec::new(),
    }
}

/// The new path of one at or below `from`.
fn renamed(path: &TreePath, from: &TreePath, to: &TreePath) -> Result<TreePath, ReadError> {
    let illegal = |why: String| ReadError::Illegal(why);
    if !path.is_within(from) {
        return Err(illegal(format!(
            "{path} is a name of a file outside of {from}"
        )));
    }
    let rest = &path.as_bytes()[from.as_bytes().len()..];
    TreePath::new([to.as_bytes(), rest].concat()).map_err(|e| illegal(e.to_string()))
}

/// Nodes of the new manifest.
#[derive(Debug, Clone, Default)]
struct Nodes(HashMap<BlockHash, Arc<[u8]>>);

impl Nodes {
    fn put(&mut self, block: BlockRef, bytes: Vec<u8>) {
        self.0.insert(block.hash, bytes.into());
    }
}

impl NodeSource for Nodes {
    fn node(&self, hash: &BlockHash) -> Result<Arc<[u8]>, ReadError> {
        self.0.get(hash).cloned().ok_or(ReadError::Missing(*hash))
    }
}

/// Nodes of the new manifest, and blocks of the old one.
struct MovedBlocks {
    source: ReleaseSource,
    manifest: Manifest<Nodes>,
    nodes: Nodes,
    /// Number of nodes before the first block of the old manifest.
    old_nodes: u64,
}

impl Blocks for MovedBlocks {
    fn read(&mut self, ordinal: Ordinal, out: &mut Vec<u8>) -> Result<BlockRef, SourceError> {
        let new_nodes = self.manifest.root().nodes;
        if ordinal.0 < new_nodes {
            let node = self.manifest.node_at(ordinal)?;
            out.extend_from_slice(&self.nodes.node(&node.hash)?);
            return Ok(node);
        }

        let before = out.len();
        self.source
            .read(Ordinal(ordinal.0 - new_nodes + self.old_nodes), out)?;
        Ok(BlockRef::of(&out[before..]))
    }

    fn expect(&mut self, _: &RangeSet) {}
}
