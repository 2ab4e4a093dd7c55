//! Pure comparison of sorted entries: the changes that turn a host's tree into the release.
//!
//! [`diff`] walks the host's own entries and the release's side by side, once. The result is a
//! [`Plan`] with every [`Change`], the blocks to fetch over the network and those on the host
//! already; or a [`Refusal`] with the reason. A caller that compares the same tree repeatedly keeps
//! a [`Memory`], and compares only the pages that changed on either side. Limits on deletions are
//! checked here, before anything is touched. The code knows no file, socket or clock. Memory grows
//! with the changes, not with the tree, and a plan does not hold the blocks of large files:
//! [`BlockLists`] reads them.

mod change;
mod changes;
mod compare;
mod dir_times;
mod incremental;
mod links;
mod metadata;
mod permitted;
mod plan;
mod protected;
mod refusal;
mod reuse;
#[cfg(test)]
mod tests;
mod walk;

pub use change::{Action, Change, Delta, LocalOwner, Shape, TopChange};
pub use changes::Changes;
pub use compare::diff;
pub use incremental::Memory;
pub use permitted::{HostRules, OwnerResolver};
pub use plan::{FurtherName, LocalBlock, Plan, Summary};
pub use protected::{ProtectedPaths, protected};
pub use refusal::Refusal;

use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::Result;
use crate::block::{BlockHash, BlockRef};
use crate::manifest::pages::{PageKey, Pages};
use crate::manifest::read::{Located, Manifest, NodeSource, ReadError};
use crate::manifest::{Content, Entry, EntryKind, ListRef, Top, TreePath};

/// A host's own tree: every entry in order, content hashed. Read twice to look for blocks.
///
/// Protected or excluded paths have to be among the entries, or at least the topmost ones, which
/// show that their directory is not empty.
pub trait Have {
    /// Returns all entries in the order of their paths.
    fn entries(&self) -> Box<dyn Iterator<Item = Result<Entry>> + '_>;
    /// Returns the blocks of a file's content.
    fn blocks(&self, content: &Content) -> Result<Vec<BlockRef>>;
    /// Returns the root directory; `None` leaves it out of the comparison.
    fn top(&self) -> Option<&Top> {
        None
    }
    /// Returns the entries in which one of these blocks may be found, in order; all entries if
    /// unknown.
    fn holding(
        &self,
        _blocks: &mut dyn ExactSizeIterator<Item = &BlockHash>,
    ) -> Box<dyn Iterator<Item = Result<Entry>> + '_> {
        self.entries()
    }
    /// Returns the tree by pages, if known.
    fn paged(&self) -> Option<&dyn Paged> {
        None
    }
}

/// Source of large files' block lists, which have nodes of their own and are not part of a plan.
pub trait BlockLists {
    /// Returns the blocks of one list.
    fn list(&self, list: &ListRef) -> Result<Arc<[BlockRef]>>;
}

/// A host's own tree that can be read in part.
pub trait Paged {
    /// Returns the pages, in order.
    fn keys(&self) -> Vec<PageKey>;
    /// Returns the number of entries.
    fn count(&self) -> u64;
    /// Returns the entries within `bounds`, in order.
    fn within(&self, bounds: &RangeInclusive<TreePath>) -> Result<Vec<Entry>>;
}

/// A release's manifest.
pub trait Want {
    /// Returns all entries in the order of their paths, with the ordinals of their blocks.
    fn entries(&self) -> Box<dyn Iterator<Item = Result<Located>> + '_>;
    /// Returns the blocks of a file's content.
    fn blocks(&self, content: &Content) -> Result<Vec<BlockRef>>;
    /// Returns the root directory; `None` if the release does not govern it.
    fn top(&self) -> Option<&Top> {
        None
    }
    /// Returns the first of the sorted `paths` that no hard link can lead to.
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

/// Returns true for a possible target of a hard link: a file of any kind under its first name.
fn is_link_target(kind: &EntryKind) -> bool {
    !matches!(kind, EntryKind::Directory | EntryKind::Hardlink(_))
}

/// Same as [`Want::no_link_target`], for a manifest with known pages.
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

impl<S: NodeSource> BlockLists for Manifest<S> {
    fn list(&self, list: &ListRef) -> Result<Arc<[BlockRef]>> {
        Manifest::list(self, list)
            .map(Arc::from)
            .map_err(unreadable)
    }
}

fn unreadable(e: ReadError) -> crate::Error {
    crate::Error::refused("the release's manifest cannot be read").because(e)
}
