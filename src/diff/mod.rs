//! What a host has to do to make its tree the release: pure comparison of sorted entries.
//!
//! [`diff`] walks the host's own entries and the release's side by side, once, and says what is to change ([`Change`]),
//! which blocks have to come over the network and which are on the host already ([`Plan`]), or why the release cannot
//! be put here ([`Refusal`]). Whoever compares the same tree again and again has a [`Memory`] of it, and compares only
//! the pages that changed on either side. Limits of deletion are checked here, before anything is touched. It must not know a
//! file, a socket or a clock; memory follows what changed, not the size of the tree, and a plan does not hold the blocks
//! of large files: it is told where to read them ([`Lists`]).

mod again;
mod change;
mod changes;
mod compare;
mod guard;
mod plan;
mod refusal;
mod search;
#[cfg(test)]
mod tests;

pub use again::Memory;
pub use change::{Action, Change, Delta, LocalOwner, Shape, TopChange};
pub use changes::Changes;
pub use compare::diff;
pub use guard::{HostRules, OwnerResolver};
pub use plan::{FurtherName, LocalBlock, Plan, Summary};
pub use refusal::Refusal;

use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::Result;
use crate::block::{BlockHash, BlockRef};
use crate::manifest::pages::{PageKey, Pages};
use crate::manifest::read::{Located, Manifest, NodeSource, ReadError};
use crate::manifest::{Content, Entry, EntryKind, ListRef, Top, TreePath};

/// A host's own tree: every entry in order, content hashed. Read twice when blocks are looked for.
///
/// What is protected or excluded has to be among the entries, or at least the top of it: that is how a directory is
/// known to hold it.
pub trait Have {
    /// All entries in the order of their paths.
    fn entries(&self) -> Box<dyn Iterator<Item = Result<Entry>> + '_>;
    /// The blocks of a file's content.
    fn blocks(&self, content: &Content) -> Result<Vec<BlockRef>>;
    /// The tree's own directory; `None` leaves it out of the comparison.
    fn top(&self) -> Option<&Top> {
        None
    }
    /// The entries in which one of these blocks may be found, in order; all of them where that is not known.
    fn holding(
        &self,
        _blocks: &mut dyn ExactSizeIterator<Item = &BlockHash>,
    ) -> Box<dyn Iterator<Item = Result<Entry>> + '_> {
        self.entries()
    }
    /// The tree by pages, when it is known so.
    fn paged(&self) -> Option<&dyn Paged> {
        None
    }
}

/// Where the lists of blocks are that large files have in nodes of their own: a plan does not hold them.
pub trait Lists {
    /// The blocks of one list.
    fn list(&self, list: &ListRef) -> Result<Arc<[BlockRef]>>;
}

/// A host's own tree that can be read in part.
pub trait Paged {
    /// Its pages, in order.
    fn keys(&self) -> Vec<PageKey>;
    /// How many entries it has.
    fn count(&self) -> u64;
    /// The entries from path to path, in order.
    fn within(&self, bounds: &RangeInclusive<TreePath>) -> Result<Vec<Entry>>;
}

/// A release's manifest.
pub trait Want {
    /// All entries in the order of their paths, with the ordinals of their blocks.
    fn entries(&self) -> Box<dyn Iterator<Item = Result<Located>> + '_>;
    /// The blocks of a file's content.
    fn blocks(&self, content: &Content) -> Result<Vec<BlockRef>>;
    /// The tree's own directory; `None` when the release does not govern it.
    fn top(&self) -> Option<&Top> {
        None
    }
    /// The first of `paths`, which are in order, that no hard link can lead to.
    fn no_link_target<'p>(
        &self,
        paths: &mut dyn Iterator<Item = &'p TreePath>,
    ) -> Result<Option<&'p TreePath>> {
        let mut entries = self.entries();
        for path in paths {
            let found = loop {
                match entries.next().transpose()? {
                    Some(located) if located.entry.path < *path => {}
                    found => break found.filter(|located| located.entry.path == *path),
                }
            };
            if !found.is_some_and(|located| is_link_target(&located.entry.kind)) {
                return Ok(Some(path));
            }
        }

        Ok(None)
    }
}

/// Whether a hard link can lead to it: a file of any kind under its first name.
fn is_link_target(kind: &EntryKind) -> bool {
    !matches!(kind, EntryKind::Directory | EntryKind::Hardlink(_))
}

/// As [`Want::no_link_target`], of a manifest whose pages are known.
fn no_link_target<'p, S: NodeSource>(
    manifest: &Manifest<S>,
    pages: &Pages,
    paths: &mut dyn Iterator<Item = &'p TreePath>,
) -> Result<Option<&'p TreePath>> {
    for path in paths {
        let found = pages.find(manifest, path).map_err(unreadable)?;
        if !found.is_some_and(|located| is_link_target(&located.entry.kind)) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

impl<S: NodeSource> Want for Manifest<S> {
    fn entries(&self) -> Box<dyn Iterator<Item = Result<Located>> + '_> {
        Box::new(Manifest::entries(self).map(|located| located.map_err(unreadable)))
    }

    fn blocks(&self, content: &Content) -> Result<Vec<BlockRef>> {
        Manifest::blocks(self, content).map_err(unreadable)
    }

    fn top(&self) -> Option<&Top> {
        Manifest::top(self)
    }

    fn no_link_target<'p>(
        &self,
        paths: &mut dyn Iterator<Item = &'p TreePath>,
    ) -> Result<Option<&'p TreePath>> {
        no_link_target(self, &Pages::of(self).map_err(unreadable)?, paths)
    }
}

impl<S: NodeSource> Lists for Manifest<S> {
    fn list(&self, list: &ListRef) -> Result<Arc<[BlockRef]>> {
        Manifest::list(self, list)
            .map(Arc::from)
            .map_err(unreadable)
    }
}

fn unreadable(e: ReadError) -> crate::Error {
    crate::Error::refused("the release's manifest cannot be read").because(e)
}
