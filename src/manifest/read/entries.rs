//! The entries of a whole manifest, in order.

use super::located::{Located, LocatedEntries};
use super::order::PathOrder;
use super::{MAX_DEPTH, Manifest, NodeSource, ReadError};
use crate::manifest::node::{MAX_INDEX_REFS, Node, NodeRef};

/// Node to be read.
struct Pending {
    node: NodeRef,
    /// Ordinal of the first block beneath.
    block: u64,
}

/// The entries of a manifest in order; ends after the first error.
pub struct Entries<'a, S> {
    manifest: &'a Manifest<S>,
    stack: Vec<Pending>,
    page: LocatedEntries,
    order: PathOrder,
    failed: bool,
}

impl<'a, S: NodeSource> Entries<'a, S> {
    /// Creates the iterator before the first entry.
    pub(super) fn of(manifest: &'a Manifest<S>) -> Self {
        let root = *manifest.root();
        Self {
            manifest,
            stack: vec![Pending {
                node: root,
                block: root.nodes,
            }],
            page: LocatedEntries::default(),
            order: PathOrder::default(),
            failed: false,
        }
    }

    fn advance(&mut self) -> Result<Option<Located>, ReadError> {
        loop {
            if let Some(located) = self.page.next() {
                self.order.check(&located.entry)?;
                return Ok(Some(located));
            }

            let Some(Pending { node, block }) = self.stack.pop() else {
                return Ok(None);
            };

            match self.manifest.decode(&node)? {
                Node::Page(entries) => self.page = LocatedEntries::new(entries, block),
                Node::Index(refs) => self.push_children(refs, block)?,
                Node::List(_) => return Err(ReadError::Illegal("a list among pages".into())),
            }
        }
    }

    /// Puts the children of an index on the stack, the first on top.
    fn push_children(&mut self, refs: Vec<NodeRef>, mut block: u64) -> Result<(), ReadError> {
        if self.stack.len() > MAX_DEPTH * MAX_INDEX_REFS {
            return Err(ReadError::Illegal("too deep".into()));
        }

        let mut children = Vec::with_capacity(refs.len());
        for node in refs {
            children.push(Pending { node, block });
            block += node.blocks;
        }

        self.stack.extend(children.into_iter().rev());
        Ok(())
    }
}

impl<S: NodeSource> Iterator for Entries<'_, S> {
    type Item = Result<Located, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let item = self.advance().transpose();
        self.failed = matches!(item, Some(Err(_)));
        item
    }
}
