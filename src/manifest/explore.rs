//! Which nodes of a manifest are not here yet: a walk from the root that goes as far as the nodes at hand lead.

use super::NodeRef;
use super::node::Node;
use super::read::{Child, NodeSource, ReadError, children};
use crate::block::BlockRef;
use crate::id::Ordinal;

/// The walk; remembers where it has to go on.
#[derive(Debug)]
pub struct Explorer {
    frontier: Vec<(Ordinal, Child)>,
}

impl Explorer {
    /// A walk that begins at `root`.
    pub fn new(root: NodeRef) -> Self {
        Self { frontier: vec![(Ordinal(0), Child::Node(root))] }
    }

    /// Walks on through the nodes that `source` has. A node without others beneath it need not be read when `is_here`
    /// says that it is here. Gives the nodes that are missing; none is a whole manifest.
    pub fn advance<S: NodeSource>(
        &mut self,
        source: &S,
        mut is_here: impl FnMut(&BlockRef) -> bool,
    ) -> Result<&[(Ordinal, Child)], ReadError> {
        let mut open = std::mem::take(&mut self.frontier);
        while let Some((ordinal, child)) = open.pop() {
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
        self.frontier.sort_by_key(|(ordinal, _)| *ordinal);
        Ok(&self.frontier)
    }

    /// The missing node with this ordinal, as of the last step.
    pub fn missing(&self, ordinal: Ordinal) -> Option<BlockRef> {
        let at = self.frontier.binary_search_by_key(&ordinal, |(o, _)| *o).ok()?;
        Some(self.frontier[at].1.block())
    }
}
