//! The comparison of a new release with earlier ones: which nodes and blocks the repository has.
//!
//! A node that both manifests have is not read. The nodes that only the earlier one has are read
//! with their places: the blocks of a page that changed are in its earlier version. A block that
//! moved from another page is found as well, because that page changed too.

use std::collections::{HashMap, HashSet, VecDeque};

use super::{Publish, Stage, Stock};
use crate::block::frame::Expander;
use crate::block::{BlockHash, BlockRef};
use crate::id::Ordinal;
use crate::manifest::Node;
use crate::manifest::read::{NodeSource, ReadError, children};
use crate::repository::head::KeptRelease;
use crate::repository::loader::{Loaded, Loader};
use crate::repository::pack::{Extent, PackTable, unpack};
use crate::repository::places::{PackedNode, Places, PlacesRef, StoredNode};
use crate::repository::record::ReleaseRecord;
use crate::repository::slots::{NodeAt, read_node};

/// New bytes below which a further release is not looked at.
const FEW_BYTES: u64 = 256 << 10;

/// Use of a piece under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum OldPiece {
    /// A record, with the top of the manifest.
    Top(KeptRelease),
    Node(BlockRef),
    Places(PlacesRef),
}

/// Compares with one earlier release after another.
#[derive(Debug)]
pub(super) struct Comparison {
    pub(super) loader: Loader<OldPiece>,
    expander: Expander,
    /// Releases to compare with, the newest first.
    earlier: VecDeque<KeptRelease>,
    /// The newest release, if it was read ahead: its root, and its record for the caller.
    newest: Option<(NodeAt, StoredNode)>,
    record: Option<Box<ReleaseRecord>>,
    /// Whether the manifests are compared; the newest release may be read before.
    is_begun: bool,
    /// Nodes of the new manifest.
    new: HashSet<BlockHash>,
    /// Nodes of the earlier release that have to be looked at.
    pub(super) open: Vec<(NodeAt, StoredNode)>,
    pub(super) nodes: HashMap<BlockHash, Node>,
    pages: HashMap<PlacesRef, Places>,
    /// Nodes whose blocks are in stock: a manifest may name one many times.
    seen: HashSet<BlockHash>,
    /// Nodes of both manifests that are looked at nevertheless.
    pub(super) shared: HashSet<BlockHash>,
    pub(super) seeks_copies: bool,
}

impl Comparison {
    pub(super) fn new(kept: &[KeptRelease]) -> Self {
        Self {
            loader: Loader::new(),
            expander: Expander::default(),
            earlier: kept.iter().copied().collect(),
            newest: None,
            record: None,
            is_begun: false,
            new: HashSet::new(),
            open: Vec::new(),
            nodes: HashMap::new(),
            pages: HashMap::new(),
            seen: HashSet::new(),
            shared: HashSet::new(),
            seeks_copies: true,
        }
    }

    /// Reads the newest earlier release before the comparison begins.
    pub(super) fn look_at_newest(&mut self) {
        if let Some(kept) = self.earlier.pop_front() {
            self.loader.ask(kept.top_window(), OldPiece::Top(kept));
        }
    }

    /// The record of the newest release, if it could be read.
    pub(super) fn newest(&mut self) -> Option<Box<ReleaseRecord>> {
        self.record.take()
    }

    /// Returns whether all pieces that were asked for have been used.
    pub(super) fn is_idle(&self) -> bool {
        self.loader.is_idle() && self.open.is_empty()
    }

    /// Uses the next piece that came; returns false if there is none.
    pub(super) fn advance(&mut self, stock: &mut Stock, packs: &mut PackTable) -> bool {
        let Some(loaded) = self.loader.next() else {
            // The end of an answer may come after its last piece.
            let is_due = self.loader.is_idle() && !self.open.is_empty();
            if is_due {
                self.look(stock, packs);
            }
            return is_due;
        };

        let whole = match loaded {
            Loaded::Missing(..) | Loaded::Failed(_) => false,
            Loaded::Piece(extent, purpose, stored) => {
                self.take(extent, purpose, stored) || self.loader.reject(extent, purpose)
            }
        };
        if !whole {
            self.give_up(stock);
        }
        if self.loader.is_idle() {
            self.look(stock, packs);
        }
        true
    }

    /// Forgets all earlier releases: what cannot be read is stored again.
    fn give_up(&mut self, stock: &mut Stock) {
        self.loader.clear();
        self.earlier.clear();
        self.newest = None;
        self.open.clear();
        stock.keep_own();
    }

    /// Uses a piece; returns false if its bytes are wrong.
    fn take(&mut self, extent: Extent, purpose: OldPiece, stored: Vec<u8>) -> bool {
        match purpose {
            OldPiece::Top(kept) => {
                let bytes = &stored[(kept.top as usize).min(stored.len())..];
                let Ok(record) = ReleaseRecord::decode(bytes, kept.pack, &kept.hash) else {
                    return false;
                };
                let root = NodeAt::root(&record.release.header().root);
                if self.is_begun {
                    self.open.push((root, record.root));
                } else {
                    self.newest = Some((root, record.root));
                    self.record = Some(Box::new(record));
                }
                self.loader.open_window(extent, stored);
            }
            OldPiece::Node(block) => {
                let plain = unpack(&mut self.expander, stored, &block);
                let Some(node) = plain.and_then(|plain| Node::decode(&plain).ok()) else {
                    return false;
                };
                self.nodes.insert(block.hash, node);
            }
            OldPiece::Places(reference) => {
                let Some(places) = reference.open(&stored) else {
                    return false;
                };
                self.pages.insert(reference, places);
            }
        }

        true
    }

    /// Looks at the open nodes whose pieces came, and asks for the pieces of the others.
    pub(super) fn look(&mut self, stock: &mut Stock, packs: &mut PackTable) {
        let mut later = Vec::new();
        while let Some((at, stored)) = self.open.pop() {
            let block = at.child.block();
            if self.new.contains(&block.hash) {
                let known = PackedNode::of(&stored, packs);
                stock.nodes.entry(block.hash).or_insert(known);
                if !self.shared.contains(&block.hash) {
                    continue;
                }
            }

            match (self.nodes.get(&block.hash), self.pages.get(&stored.places)) {
                _ if self.seen.contains(&block.hash) => {}
                (Some(node), Some(places)) => {
                    self.seen.insert(block.hash);
                    let slots = at.slots(node);
                    // A publisher that made an error: nothing beneath is used.
                    if at.child.check(node).is_err() || !slots.fit(places) {
                        continue;
                    }
                    for ((_, block), piece) in slots.blocks.iter().zip(places.blocks()) {
                        let piece = packs.piece(&piece);
                        stock.blocks.entry(block.hash).or_insert(piece);
                    }
                    self.open.extend(slots.stored(places));
                }
                (node, places) => {
                    if node.is_none() {
                        self.loader.ask(stored.node, OldPiece::Node(block));
                    }
                    if places.is_none() {
                        let purpose = OldPiece::Places(stored.places);
                        self.loader.ask(stored.places.extent, purpose);
                    }
                    later.push((at, stored));
                }
            }
        }

        self.open = later;
    }
}

impl Publish {
    /// Goes on with the next earlier release, or with the packs.
    pub(super) fn compare<S: NodeSource>(&mut self, source: &S) -> Result<(), ReadError> {
        let (Some(comparison), Some(new)) = (&mut self.comparison, &self.new) else {
            return Ok(());
        };

        let root = NodeAt::root(&new.release.header().root);
        if !comparison.is_begun {
            comparison.is_begun = true;
            comparison.new = all_nodes(&root, source)?;
        }

        comparison.nodes.clear();
        comparison.pages.clear();
        let has_earlier = !comparison.earlier.is_empty() || comparison.newest.is_some();
        let is_first = !has_earlier && self.stock.nodes.is_empty();
        let (missing, bytes) = if !is_first {
            missing(&root, source, &self.stock)?
        } else {
            (HashSet::new(), 0)
        };

        if bytes > FEW_BYTES
            && let Some(newest) = comparison.newest.take()
        {
            comparison.open.push(newest);
            comparison.look(&mut self.stock, &mut self.packer.packs);
            return Ok(());
        }

        if bytes > FEW_BYTES && !self.stock.nodes.is_empty() && comparison.seeks_copies {
            let packs = &mut self.packer.packs;
            comparison.seek_copies(&root, source, &missing, &mut self.stock, packs)?;
            if !comparison.is_idle() {
                return Ok(());
            }
        }

        let next = comparison.earlier.pop_front();
        match next.filter(|_| bytes > FEW_BYTES) {
            Some(kept) => comparison
                .loader
                .ask(kept.top_window(), OldPiece::Top(kept)),
            None => {
                self.comparison = None;
                let all = new.release.header().root.bytes;
                self.layout.begin(root, if is_first { all } else { bytes });
                self.stage = Stage::Packing;
            }
        }

        Ok(())
    }
}

/// Hashes of all nodes of a manifest.
fn all_nodes<S: NodeSource>(root: &NodeAt, source: &S) -> Result<HashSet<BlockHash>, ReadError> {
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

/// The blocks that are not in stock, and their bytes with those of new nodes.
fn missing<S: NodeSource>(
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
