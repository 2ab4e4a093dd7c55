//! Finds the nodes of a manifest that a host lacks, by a walk from the root over the nodes at hand.

use super::NodeRef;
use super::node::Node;
use super::read::{Child, NodeSource, ReadError, children};
use crate::block::BlockRef;
use crate::id::Ordinal;

/// Largest number of missing nodes held at a time: a manifest may name one node many millions of
/// times.
pub const MAX_MISSING: usize = 1 << 18;

/// A walk over the nodes of a manifest that can be resumed.
#[derive(Debug)]
pub struct Explorer {
    /// Missing nodes, by ordinal.
    frontier: Vec<(Ordinal, Child)>,
    /// Nodes not visited yet because enough were missing: fewer than all references of a few nodes.
    later: Vec<(Ordinal, Child)>,
}

impl Explorer {
    /// Begins a walk at `root`.
    pub fn new(root: NodeRef) -> Self {
        Self {
            frontier: vec![(Ordinal(0), Child::Node(root))],
            later: Vec::new(),
        }
    }

    /// Continues the walk through the nodes that `source` has, and returns the missing ones, at
    /// most [`MAX_MISSING`]. An empty result means a complete manifest. A node without children is
    /// not read if `is_here` returns true.
    pub fn advance<S: NodeSource>(
        &mut self,
        source: &S,
        mut is_here: impl FnMut(&BlockRef) -> bool,
    ) -> Result<&[(Ordinal, Child)], ReadError> {
        let mut open = std::mem::take(&mut self.later);
        open.append(&mut self.frontier);
        while self.frontier.len() < MAX_MISSING {
            let Some((ordinal, child)) = open.pop() else {
                break;
            };
            let block = child.block();
            if child.is_leaf() && is_here(&block) {
                continue;
            }
            match source.node(&block.hash) {
                Err(ReadError::Missing(_)) => self.frontier.push((ordinal, child)),
                Err(error) => return Err(error),
                Ok(bytes) => {
                    let node = Node::decode(&bytes)?;
                    child.check(&node)?;
                    open.extend(children(&node, ordinal));
                }
            }
        }

        self.later = open;
        self.frontier.sort_by_key(|(ordinal, _)| *ordinal);
        Ok(&self.frontier)
    }

    /// Returns the missing node with this ordinal, as of the last step.
    pub fn missing(&self, ordinal: Ordinal) -> Option<BlockRef> {
        let at = self
            .frontier
            .binary_search_by_key(&ordinal, |(o, _)| *o)
            .ok()?;
        Some(self.frontier[at].1.block())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashSet};

    use super::*;
    use crate::manifest::fixtures::MemoryNodes;

    #[test]
    fn a_few_nodes_that_name_each_other_many_times_do_not_fill_memory() {
        let mut memory = MemoryNodes::default();
        let page = Node::Page(Vec::new()).encode();
        let leaf = NodeRef {
            block: BlockRef::of(&page),
            nodes: 1,
            blocks: 0,
            entries: 0,
            bytes: 0,
        };

        let root = [256, 256, 200].into_iter().fold(leaf, |below, times| {
            memory.add(&Node::Index(vec![below; times]))
        });
        assert!(root.nodes > 13_000_000);
        let mut explorer = Explorer::new(root);

        for _ in 0..3 {
            let missing = explorer.advance(&memory, |_| false).expect("legal so far");
            assert!(
                missing.len() == MAX_MISSING && missing.is_sorted_by_key(|(ordinal, _)| *ordinal)
            );
            assert!(explorer.later.len() < 3 * 256, "{}", explorer.later.len());
        }
    }

    #[test]
    fn a_walk_that_was_cut_short_goes_on_where_it_was() {
        const LEAVES: u64 = 5 * 256 * 256;
        let mut memory = MemoryNodes::default();
        let leaf = |n: u64| NodeRef {
            block: BlockRef::of(&n.to_be_bytes()),
            nodes: 1,
            blocks: 0,
            entries: 1,
            bytes: 0,
        };

        let mut level: Vec<NodeRef> = (0..LEAVES).map(leaf).collect();
        while level.len() > 1 {
            level = level
                .chunks(256)
                .map(|refs| memory.add(&Node::Index(refs.to_vec())))
                .collect();
        }

        let mut explorer = Explorer::new(level[0]);
        let mut here = HashSet::new();
        let mut asked = BTreeSet::new();
        for wanted in [MAX_MISSING, LEAVES as usize - MAX_MISSING, 0] {
            let missing = explorer
                .advance(&memory, |block| here.contains(&block.hash))
                .expect("legal");
            assert_eq!(missing.len(), wanted);
            here.extend(missing.iter().map(|(_, child)| child.block().hash));
            asked.extend(missing.iter().map(|(ordinal, _)| ordinal.0));
        }

        assert_eq!(
            (here.len(), asked.len()),
            (LEAVES as usize, LEAVES as usize),
            "each was asked for once"
        );
    }
}
