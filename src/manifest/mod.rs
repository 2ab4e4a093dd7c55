//! The manifest: the sorted entries of a whole tree, as a tree of content-addressed nodes under one signed root.
//!
//! **Nodes.** A *page* ([`node::Node::Page`]) holds about a thousand entries and ends where a hash of a path says so, so
//! that one changed file changes one page. A page of pages (`Index`) lists them; a very large file's blocks stand in
//! `List` nodes of their own. A node is a block: it is named by the SHA-256 of its bytes and travels, is stored and is
//! verified as every other block. The release header signs the root only, and so fits one datagram whatever the
//! size of the tree; a changed file costs its page and the indexes above it.
//!
//! **Order.** Entries are sorted by path bytes with `/` counted lowest, which is the order of a depth-first walk:
//! a directory is followed by all that is below it. Sorted walks, manifests and indexes merge without a sort.
//!
//! **Ordinals.** Every node reference carries how many nodes and blocks lie beneath it. Nodes are numbered depth-first
//! from the root (0), blocks of files after them in the order of their entries; so a host that holds a node knows the
//! ordinals of all its children and can ask for what it misses as ranges of ordinals, without a table.
//!
//! **Release.** [`header::Header`] is what is signed: tree, serial, scope, root, rules. Its exact bytes are kept and
//! never encoded again.

pub mod build;
pub mod entry;
pub mod explore;
pub mod header;
#[cfg(test)]
mod hostile_tests;
pub mod node;
pub mod pages;
pub mod path;
mod patterns;
pub mod read;
pub mod rules;
mod wildmatch;

pub use entry::{Content, Entry, EntryKind, Mode, Mtime, Owner, Top, Xattr};
pub use header::{Header, Intent, Release, ReleaseId};
pub use node::{ListRef, Node, NodeRef};
pub use path::TreePath;
pub use rules::Rules;

/// The version of the header and node formats that most releases have.
pub const FORMAT: u16 = 1;
/// The format of a header whose excludes are packed: who cannot read them must not take the release for one without.
pub const FORMAT_PACKED: u16 = 2;
