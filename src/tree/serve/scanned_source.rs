//! A scanned tree as the source of a release: its manifest, and its blocks by ordinal.
//!
//! The manifest's nodes are those of the index; blocks stay in their files, and are read and
//! verified on demand.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::ordinals::OrdinalReader;
use crate::block::{BlockHash, BlockRef};
use crate::id::Ordinal;
use crate::manifest::read::{Manifest, NodeSource, ReadError};
use crate::manifest::{NodeRef, Top, TreePath};
use crate::proto::RangeSet;
use crate::tree::fs::errors::is_gone;
use crate::tree::fs::root::Root;
use crate::tree::index::Index;
use crate::tree::scan::Scanned;
use crate::{Error, Kind, Result};

/// Reason why a block cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The file changed since the scan: gone, replaced or written.
    #[error("{0} has changed since it was scanned")]
    Changed(TreePath),
    /// The file, or the spool of nodes, cannot be read.
    #[error("cannot read {0}: {1}")]
    Io(String, io::Error),
    /// Neither the live tree nor the kept content of older releases has the block.
    #[error("a part of {0} is not here any more: it is neither in the tree nor kept")]
    NotKept(TreePath),
    /// This machine has no data of the release at all.
    #[error("this machine has no data of the release")]
    NoData,
    /// The repository of the release does not give the block.
    #[error("{0}")]
    Repository(String),
    /// The release has no such block, or the spool is damaged.
    #[error(transparent)]
    Manifest(#[from] ReadError),
}

/// Nodes and blocks of a release for a sender, by ordinal.
pub trait Blocks {
    /// Appends the bytes of the block `ordinal` to `out`; leaves `out` unchanged on error.
    fn read(&mut self, ordinal: Ordinal, out: &mut Vec<u8>) -> Result<BlockRef, SourceError>;

    /// Notes the ordinals that will be read, in this order: a distant source loads them ahead.
    fn expect(&mut self, _ordinals: &RangeSet) {}
}

impl Blocks for ScannedSource {
    fn read(&mut self, ordinal: Ordinal, out: &mut Vec<u8>) -> Result<BlockRef, SourceError> {
        ScannedSource::read(self, ordinal, out)
    }
}

/// A source without any data.
#[derive(Debug)]
pub struct Nothing;

impl Blocks for Nothing {
    fn read(&mut self, _: Ordinal, _: &mut Vec<u8>) -> Result<BlockRef, SourceError> {
        Err(SourceError::NoData)
    }
}

/// Manifest and blocks of a scanned tree.
#[derive(Debug)]
pub struct ScannedSource {
    root: Arc<Root>,
    ordinals: OrdinalReader<Arc<Index>>,
    /// Holds the nodes of the manifest.
    index: Arc<Index>,
    /// Root directory of the tree.
    directory: Top,
    /// Files whose inode is unchanged since this time are as scanned.
    settled: Option<SystemTime>,
}

/// Largest lag of a filesystem clock behind the system's: it ticks some hundred times a second.
const CLOCK_TICK: Duration = Duration::from_millis(20);

impl ScannedSource {
    /// Creates the source for a scan of `root`.
    pub fn new(root: Arc<Root>, scanned: &Scanned) -> Result<Self> {
        let index = Arc::clone(&scanned.index);
        let ordinals = OrdinalReader::new(index.root(), Arc::clone(&index))
            .map_err(|e| Error::new(Kind::Io, "the manifest is broken").because(e))?;
        Ok(Self {
            root,
            ordinals,
            index,
            directory: scanned.top.clone(),
            settled: None,
        })
    }

    /// Root of the manifest, which is signed.
    pub fn top(&self) -> NodeRef {
        *self.ordinals.manifest.root()
    }

    /// Root directory of the tree, as in the header.
    pub fn directory(&self) -> &Top {
        &self.directory
    }

    /// The manifest, for readers of entries.
    pub fn manifest(&self) -> &Manifest<Arc<Index>> {
        &self.ordinals.manifest
    }

    /// Hash and size of the block `ordinal`.
    pub fn block(&mut self, ordinal: Ordinal) -> Result<BlockRef, SourceError> {
        if let Some(node) = self.ordinals.node_ref(ordinal) {
            return Ok(node);
        }
        let at = self.ordinals.run(ordinal)?;
        let run = &self.ordinals.runs[at];
        Ok(run.blocks[run.index_of(ordinal)])
    }

    /// Size in bytes of the block `ordinal`.
    pub fn size_of(&mut self, ordinal: Ordinal) -> Result<u32, SourceError> {
        self.block(ordinal).map(|b| b.size)
    }

    /// Trusts files whose inode is unchanged since the scan began at `scanned`: their bytes are not
    /// hashed again. Every host does so anyway.
    pub fn trust_unchanged(&mut self, scanned: SystemTime) {
        self.settled = scanned.checked_sub(CLOCK_TICK);
    }

    /// Appends the bytes of the block `ordinal` to `out`, verified if the file may have changed;
    /// leaves `out` unchanged on error.
    pub fn read(&mut self, ordinal: Ordinal, out: &mut Vec<u8>) -> Result<BlockRef, SourceError> {
        if let Some(node) = self.ordinals.node_ref(ordinal) {
            let bytes = self.index.node(&node.hash)?;
            out.extend_from_slice(&bytes);
            return Ok(node);
        }

        let at = self.ordinals.run(ordinal)?;
        let index = self.ordinals.runs[at].index_of(ordinal);
        let file = self.open(at)?;
        let run = &self.ordinals.runs[at];
        let block = run.blocks[index];
        let offset = run.offsets[index];
        let before = out.len();
        out.resize(before + block.size as usize, 0);

        let bytes = &mut out[before..];
        let failed = match file.read_exact_at(bytes, offset) {
            Ok(()) if is_settled(&file, self.settled) || block.matches(bytes) => return Ok(block),
            Err(e) if e.kind() != io::ErrorKind::UnexpectedEof => {
                SourceError::Io(run.path.to_string(), e)
            }
            _ => SourceError::Changed(run.path.clone()),
        };

        out.truncate(before);
        Err(failed)
    }

    /// Opens the file of a run at the first read.
    fn open(&mut self, at: usize) -> Result<Arc<File>, SourceError> {
        let run = &mut self.ordinals.runs[at];
        if let Some(file) = &run.file {
            return Ok(Arc::clone(file));
        }

        let file = self.root.open_file(&run.path).map_err(|e| {
            if is_gone(&e) || e.kind() == io::ErrorKind::InvalidInput {
                SourceError::Changed(run.path.clone())
            } else {
                SourceError::Io(run.path.to_string(), e)
            }
        })?;

        let file = Arc::new(file);
        run.file = Some(Arc::clone(&file));
        Ok(file)
    }
}

/// Returns whether the inode of `file` is unchanged since `since`: every write, rename and link
/// changes its ctime.
fn is_settled(file: &File, since: Option<SystemTime>) -> bool {
    let Some(since) = since.and_then(|t| t.duration_since(SystemTime::UNIX_EPOCH).ok()) else {
        return false;
    };
    let limit = (since.as_secs() as i64, i64::from(since.subsec_nanos()));
    rustix::fs::fstat(file).is_ok_and(|stat| (stat.st_ctime, stat.st_ctime_nsec as i64) < limit)
}

impl NodeSource for ScannedSource {
    fn node(&self, hash: &BlockHash) -> Result<Arc<[u8]>, ReadError> {
        self.index.node(hash)
    }
}

#[cfg(test)]
mod tests;
