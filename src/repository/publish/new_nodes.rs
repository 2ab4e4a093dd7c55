//! Nodes and blocks of the new manifest, and which of them are not stored.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use super::stock::Stock;
use crate::block::BlockHash;
use crate::id::Ordinal;
use crate::manifest::Node;
use crate::manifest::read::{NodeSource, ReadError, children};
use crate::repository::slots::{NodeAt, read_node};

/// Hashes of all nodes of a manifest.
pub(super) fn all_hashes<S: NodeSource>(
    root: &NodeAt,
    source: &S,
) -> Result<HashSet<BlockHash>, ReadError> {
    let mut all = HashSet::new();
    let mut open = vec![root.child];
    while let Some(child) = open.pop() {
        let block = child.block();
        if all.insert(block.hash) && !child.is_leaf() {
            let node = read_node(source, &child)?;
            open.extend(
                children(&node, Ordinal(0))
                    .into_iter()
                    .map(|(_, child)| child),
            );
        }
    }

    Ok(all)
}

/// All nodes of a manifest.
pub(super) fn all_nodes<S: NodeSource>(
    root: &NodeAt,
    source: &S,
) -> Result<HashMap<BlockHash, Node>, ReadError> {
    let mut all = HashMap::new();
    let mut open = vec![*root];
    while let Some(at) = open.pop() {
        if let Entry::Vacant(place) = all.entry(at.child.block().hash) {
            let node = place.insert(read_node(source, &at.child)?);
            open.extend(at.slots(node).children);
        }
    }

    Ok(all)
}

/// The blocks that are not in stock, and their bytes with those of new nodes.
pub(super) fn missing<S: NodeSource>(
    root: &NodeAt,
    source: &S,
    stock: &Stock,
) -> Result<(HashSet<BlockHash>, u64), ReadError> {
    let mut missing = HashSet::new();
    let mut bytes = 0;
    let mut seen = HashSet::new();
    let mut open = vec![*root];
    while let Some(at) = open.pop() {
        let node = at.child.block();
        if stock.nodes.contains_key(&node.hash) || !seen.insert(node.hash) {
            continue;
        }

        bytes += u64::from(node.size);
        let slots = at.slots(&read_node(source, &at.child)?);
        for (_, block) in &slots.blocks {
            if !stock.blocks.contains_key(&block.hash) && missing.insert(block.hash) {
                bytes += u64::from(block.size);
            }
        }
        open.extend(slots.children);
    }

    Ok((missing, bytes))
}
