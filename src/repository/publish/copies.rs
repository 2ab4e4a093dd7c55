//! Blocks of new pages that are in unchanged pages too: files that were copied within the tree.

use std::collections::{HashMap, HashSet};

use super::compare::ReleaseComparison;
use super::stock::Stock;
use crate::block::BlockHash;
use crate::manifest::Node;
use crate::manifest::read::{NodeSource, ReadError};
use crate::repository::pack::PackTable;
use crate::repository::places::{PackedNode, PlacesRef, StoredNode};
use crate::repository::slots::{NodeAt, read_node};

/// Nodes on the way to blocks of interest.
#[derive(Default)]
struct Way {
    nodes: HashMap<BlockHash, Node>,
    seen: HashSet<BlockHash>,
}

impl ReleaseComparison {
    /// Asks for the places of unchanged nodes with blocks that are `missing`. Their content is
    /// read from the new manifest.
    pub(super) fn seek_copies<S: NodeSource>(
        &mut self,
        root: &NodeAt,
        source: &S,
        missing: &HashSet<BlockHash>,
        stock: &mut Stock,
        packs: &mut PackTable,
    ) -> Result<(), ReadError> {
        self.seeks_copies = false;
        let mut way = Way::default();
        let mut seen = HashSet::new();
        let mut open = vec![*root];
        while let Some(at) = open.pop() {
            let hash = at.child.block().hash;
            if !seen.insert(hash) {
                continue;
            }

            match stock.nodes.get(&hash) {
                None => open.extend(at.slots(&read_node(source, &at.child)?).children),
                Some(known) if leads_to(&at, source, missing, &mut way)? => {
                    self.open.push((at, stored(known, packs)));
                }
                Some(_) => {}
            }
        }

        self.shared = way.nodes.keys().copied().collect();
        self.nodes = way.nodes;
        self.look(stock, packs);
        Ok(())
    }
}

/// Returns whether a missing block is beneath the node, and notes the nodes on the way to it.
fn leads_to<S: NodeSource>(
    at: &NodeAt,
    source: &S,
    missing: &HashSet<BlockHash>,
    way: &mut Way,
) -> Result<bool, ReadError> {
    let hash = at.child.block().hash;
    if !way.seen.insert(hash) {
        return Ok(way.nodes.contains_key(&hash));
    }

    let node = read_node(source, &at.child)?;
    let slots = at.slots(&node);
    let is_missing = |block: &BlockHash| missing.contains(block);
    let mut leads = slots
        .blocks
        .iter()
        .any(|(_, block)| is_missing(&block.hash));
    for child in &slots.children {
        leads |= leads_to(child, source, missing, way)?;
    }

    if leads {
        way.nodes.insert(hash, node);
    }
    Ok(leads)
}

fn stored(known: &PackedNode, packs: &PackTable) -> StoredNode {
    StoredNode {
        node: packs.extent(&known.node),
        places: PlacesRef {
            extent: packs.extent(&known.places),
            hash: known.hash,
        },
    }
}
