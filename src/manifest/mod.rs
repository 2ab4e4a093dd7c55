//! The manifest: the sorted entries of a whole tree, as a tree of content-addressed nodes under one
//! signed root.
//!
//! **Nodes.** A *page* ([`node::Node::Page`]) holds about a thousand entries and ends at a path
//! with a certain hash, so that one changed file changes one page. A page of pages (`Index`) lists
//! other pages; the blocks of a very large file are in `List` nodes. A node is a block: named by
//! the SHA-256 of its bytes, and sent, stored and verified like every other block. The release
//! header signs the root only and fits one datagram at any size of the tree. A changed file costs
//! its page and the indexes above.
//!
//! **Order.** Entries are sorted by path bytes with `/` counted lowest, which is the order of a
//! depth-first walk: a directory is followed by everything below. Sorted walks, manifests and
//! indexes merge without a sort.
//!
//! **Ordinals.** Every node reference carries the numbers of nodes and blocks beneath. Nodes are
//! numbered depth-first from the root (0), blocks of files after the nodes in the order of their
//! entries. A host that holds a node therefore knows the ordinals of all its children, and can
//! request missing ones as ranges of ordinals, without a table.
//!
//! **Release.** [`header::Header`] is the signed part: tree, serial, scope, root, rules. Its exact
//! bytes are kept and never encoded again.

pub mod build;
mod dir_patterns;
pub mod entry;
mod exclude;
#[cfg(test)]
pub(crate) mod fixtures;
pub mod header;
#[cfg(test)]
mod hostile_tests;
mod message;
pub mod missing_nodes;
pub mod node;
pub mod pages;
pub mod path;
mod path_filter;
pub mod paused;
pub mod read;
pub mod rules;
mod wildmatch;

pub use entry::{Content, Entry, EntryKind, Mode, Mtime, Owner, Top, Xattr};
pub use header::{Header, Intent, Release, ReleaseId};
pub use message::{MessageError, ReleaseMessage};
pub use node::{ListRef, Node, NodeRef};
pub use path::TreePath;
pub use paused::PausedCommit;
pub use rules::Rules;

/// Version of the header and node formats in most releases.
pub const FORMAT: u16 = 1;
/// Format of a header with packed excludes. A host that cannot read packed excludes must not take
/// the release for one without excludes.
pub const FORMAT_PACKED: u16 = 2;
