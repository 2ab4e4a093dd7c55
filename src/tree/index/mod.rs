//! The stat cache: the manifest pages of a tree's last scan, with the stat of each entry.
//!
//! The next scan reads only changed files and rebuilds only their pages.
//!
//! **File.** A magic with a version; then for each page its stat records ([`stats`]), its block
//! filter ([`filter`]) and the page itself, mixed with list nodes of large files and indexes of
//! pages. The tail holds the scanned directory, time and options of the scan ([`Origin`]), and the
//! offset of every part. The last 28 bytes hold offset, size and checksum of the tail. Nodes are
//! verified by hash and all else by checksum at each read; damaged parts are not used.
//!
//! This module does not know how a tree is walked. An index is only a cache: without one, the tree
//! is read again.

mod filter;
mod format;
mod links;
mod open;
mod read;
mod stats;
#[cfg(test)]
mod tests;
mod write;

pub use self::format::{IndexEntry, Origin, PageRow, Totals, unread_content};
pub(super) use self::format::{TEMPORARY_PREFIX, is_unread};
pub(super) use self::links::is_dangling_link;
pub use self::read::{Index, IndexEntries};
pub(super) use self::stats::StatRecord;
pub use self::write::IndexWriter;
