//! The records of an index file: entries, pages, tail, and the placeholder for unread content.

use std::io;

use minicbor::{Decode, Encode};
use sha2::{Digest, Sha256};

use crate::block::{BlockHash, BlockRef};
use crate::manifest::rules::Exclude;
use crate::manifest::{Content, Entry, EntryKind, Mtime, NodeRef, Owner, TreePath};
use crate::tree::fs::stat::Version;

/// Name prefix of an unfinished index file.
pub(in crate::tree) const TEMPORARY_PREFIX: &str = ".index-";
pub(super) const INDEX_MAGIC: &[u8; 16] = b"makuo index v004";
/// Largest size of the tail in bytes: some million pages, a billion entries.
pub(super) const MAX_TAIL_BYTES: usize = 256 << 20;

/// Size of the trailer: offset, size and checksum of the tail.
pub(super) const TRAILER_BYTES: usize = 8 + 4 + CHECKSUM_BYTES;
pub(super) const CHECKSUM_BYTES: usize = 16;

/// An entry and the stat of its file when the content was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexEntry {
    /// The manifest entry.
    pub entry: Entry,
    /// Version of the file from which the content was read.
    pub version: Version,
}

/// Returns placeholder content for a file that was listed but not read.
///
/// The single block has an all-zero hash, which no real content has, so a comparison with a release
/// never finds it equal.
pub fn unread_content() -> Content {
    Content::Blocks(vec![UNREAD_BLOCK])
}

const UNREAD_BLOCK: BlockRef = BlockRef {
    hash: BlockHash([0; 32]),
    size: 1,
};

/// Returns whether `kind` is a file that was listed but not read.
pub(in crate::tree) fn is_unread(kind: &EntryKind) -> bool {
    matches!(kind, EntryKind::File(Content::Blocks(blocks)) if *blocks == [UNREAD_BLOCK])
}

/// Totals of an index or of one page.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
pub struct Totals {
    /// Entries of every kind.
    #[n(0)]
    pub entries: u64,
    /// Regular files; further hard links are not counted.
    #[n(1)]
    pub files: u64,
    /// Directories.
    #[n(2)]
    pub dirs: u64,
    /// Bytes of the regular files.
    #[n(3)]
    pub bytes: u64,
    /// Files listed but not read.
    #[n(4)]
    pub unread: u64,
    /// Hard links to a file that has an earlier name.
    #[n(5)]
    pub links: u64,
}

/// Source and options of an index. Page-by-page comparison with a tree needs the same options.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Origin {
    /// Start of the scan. The scan may have missed changes made at or after this time.
    #[n(0)]
    pub started: Mtime,
    /// Hash of the scan options. An index with other options contributes only file contents.
    #[n(1)]
    pub options: BlockHash,
    /// Version of the scanned directory itself.
    #[n(2)]
    pub top: Version,
    /// User and group numbers found in the tree, with the owner written to the entries.
    #[n(3)]
    pub owners: Vec<(u32, u32, Owner)>,
    /// Patterns of the ignore files in the tree.
    #[n(4)]
    pub patterns: Vec<Exclude>,
    /// The ignore files and their versions.
    #[n(5)]
    pub ignore_files: Vec<(TreePath, Version)>,
    /// Skipped paths and the reason for each.
    #[n(6)]
    pub skipped: Vec<(TreePath, String)>,
    /// Mount points in the tree. Older indexes do not record them.
    #[n(7)]
    #[cbor(default)]
    pub mounts: Vec<TreePath>,
}

/// One page of an index.
#[derive(Debug, Clone, Encode, Decode)]
pub struct PageRow {
    /// The page as a node of the manifest.
    #[n(0)]
    pub node: NodeRef,
    /// First path of the page.
    #[n(1)]
    pub first: TreePath,
    /// Last path of the page.
    #[n(2)]
    pub last: TreePath,
    /// Totals of the page.
    #[n(3)]
    pub(super) totals: Totals,
    /// Whether the end of the page is a content-defined cut, independent of later entries.
    #[n(4)]
    pub(super) settled: bool,
    #[n(5)]
    pub(super) at: u64,
    #[n(6)]
    pub(super) stats: u32,
    #[n(7)]
    #[cbor(with = "minicbor::bytes")]
    pub(super) stats_sum: [u8; CHECKSUM_BYTES],
    #[n(8)]
    pub(super) filter: u32,
}

impl PageRow {
    /// Returns the number of hard links to earlier names.
    pub(super) fn links(&self) -> u64 {
        self.totals.links
    }
}

#[derive(Debug, Clone, Encode, Decode)]
pub(super) struct IndexTail {
    #[n(0)]
    pub(super) root_ino: u64,
    #[n(1)]
    pub(super) root_dev: u64,
    #[n(2)]
    pub(super) origin: Origin,
    #[n(3)]
    pub(super) root: NodeRef,
    #[n(4)]
    pub(super) rows: Vec<PageRow>,
    #[n(5)]
    pub(super) nodes: Vec<(BlockHash, NodeLocation)>,
    /// Whether the writer checked the hard links. Older indexes do not record this.
    #[n(6)]
    pub(super) checked: Option<bool>,
}

#[derive(Debug, Clone, Copy, Encode, Decode)]
pub(super) struct NodeLocation {
    #[n(0)]
    pub(super) offset: u64,
    #[n(1)]
    pub(super) size: u32,
}

impl Totals {
    pub(super) fn add(&mut self, more: &Totals) {
        self.entries += more.entries;
        self.files += more.files;
        self.dirs += more.dirs;
        self.bytes += more.bytes;
        self.unread += more.unread;
        self.links += more.links;
    }
}

/// First half of SHA-256. Guards against accidents, not against an attacker with write access.
pub(super) fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut half = [0; CHECKSUM_BYTES];
    half.copy_from_slice(&Sha256::digest(bytes)[..CHECKSUM_BYTES]);
    half
}

pub(super) fn damaged(why: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("damaged: {why}"))
}
