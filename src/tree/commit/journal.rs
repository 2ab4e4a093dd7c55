//! The journal of a commit: all steps, and the state before them, on disk before the first change.
//!
//! Steps describe the work, not the progress: tree and numbered slots show the progress. So the
//! journal is written once, and every step can be repeated, forward ([`super::run`]) or backward
//! ([`super::undo`]), from any point at which a machine may stop.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;

use minicbor::{Decode, Encode};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::id::Serial;
use crate::manifest::{Mode, Mtime, TreePath};
use crate::packed::Packed;
use crate::tree::fs::metadata::Metadata;
use crate::tree::fs::stat::FileStat;
use crate::tree::state::dir::StateDir;
use crate::tree::state::reader::{CommitMark, FORWARD, Mark};

const JOURNAL_MAGIC: &[u8; 16] = b"makuo journal v2";
/// Bytes written at a time.
const JOURNAL_BUFFER_BYTES: usize = 64 << 10;
/// Most bytes of a journal: some ten million steps.
const MAX_JOURNAL: u64 = 4 << 30;

/// One commit.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Journal {
    /// Release after the commit.
    #[n(0)]
    pub commit: CommitMark,
    /// Release before the commit.
    #[n(1)]
    pub previous: Option<CommitMark>,
    /// Steps in order.
    #[n(2)]
    pub steps: Packed<Step>,
    /// Directories with new mode, time or owner, set after all steps; sorted by path.
    #[n(3)]
    pub dirs: Vec<DirStep>,
    /// Header of the release, exactly as signed.
    #[n(4)]
    #[cbor(with = "minicbor::bytes")]
    pub header: Vec<u8>,
    /// Signature over the header.
    #[n(5)]
    #[cbor(with = "minicbor::bytes")]
    pub signature: Vec<u8>,
    /// Exchange of whole trees, which replaces the steps.
    #[n(6)]
    pub swap: Option<Swap>,
}

/// An exchange of the live tree with the one beside it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Swap {
    /// The tree that is live before.
    #[n(0)]
    pub old: Side,
    /// The tree that is live after.
    #[n(1)]
    pub new: Side,
    /// Paths that the release creates, changes or removes, sorted; all others are in both trees, or
    /// move.
    #[n(2)]
    pub changed: Vec<TreePath>,
    /// Directories outside of the release, which move from the old tree into the new one.
    #[n(3)]
    pub moves: Option<Vec<Move>>,
    /// Parents of these directories except the root, sorted.
    #[n(4)]
    pub above: Option<Vec<Above>>,
}

impl Swap {
    pub(crate) fn moves(&self) -> &[Move] {
        self.moves.as_deref().unwrap_or_default()
    }

    pub(crate) fn above(&self) -> &[Above] {
        self.above.as_deref().unwrap_or_default()
    }
}

/// A directory that moves from one tree into the other.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Move {
    /// Path.
    #[n(0)]
    pub path: TreePath,
    /// Inode; another directory at this path does not move.
    #[n(1)]
    pub ino: u64,
}

/// A directory of both trees that gains or loses a moving directory, with the values to restore.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Above {
    /// Path.
    #[n(0)]
    pub path: TreePath,
    /// Values in the old tree.
    #[n(1)]
    pub old: Times,
    /// Values in the new tree.
    #[n(2)]
    pub new: Times,
}

/// Values that a move into or out of a directory changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Times {
    /// Permission bits.
    #[n(0)]
    pub mode: Mode,
    /// Modification time.
    #[n(1)]
    pub mtime: Mtime,
}

/// One of the two directories of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Side {
    /// Inode, which tells the two directories apart.
    #[n(0)]
    pub ino: u64,
    /// Permission bits.
    #[n(1)]
    pub mode: Mode,
    /// Modification time, which an exchange changes on some filesystems.
    #[n(2)]
    pub mtime: Option<Mtime>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub enum Step {
    /// Create a directory.
    #[n(0)]
    Mkdir(#[n(0)] TreePath),
    /// Rename a staged item to its final name; a replaced entry goes to the same slot of the undo
    /// directory.
    #[n(1)]
    Place {
        /// Final name.
        #[n(0)]
        path: TreePath,
        /// Number of the staged item.
        #[n(1)]
        slot: u64,
        /// Inode of the item, to tell it from the replaced entry.
        #[n(2)]
        ino: u64,
        /// Whether an entry is replaced.
        #[n(3)]
        replaces: bool,
        /// Whether the item has the content of the replaced entry, which is then not kept.
        #[n(4)]
        copy: Option<bool>,
        /// Creation time of the item's inode, if the number alone cannot tell it from the replaced
        /// entry.
        #[n(5)]
        born: Option<Mtime>,
    },
    /// Move the entry at a path to the undo directory.
    #[n(2)]
    Remove {
        /// Path.
        #[n(0)]
        path: TreePath,
        /// Number of the slot.
        #[n(1)]
        slot: u64,
        /// Whether it is a directory, empty by then.
        #[n(2)]
        is_dir: bool,
    },
    /// Set the metadata of an entry that is no directory.
    #[n(3)]
    Set {
        /// Path.
        #[n(0)]
        path: TreePath,
        /// Old metadata.
        #[n(1)]
        old: Box<Metadata>,
        /// New metadata.
        #[n(2)]
        new: Box<Metadata>,
        /// Inode; another entry at this path is not touched.
        #[n(3)]
        ino: u64,
    },
}

/// Identity of a staged item, to tell it from the replaced entry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inode {
    pub(crate) ino: u64,
    pub(crate) born: Option<Mtime>,
}

impl Inode {
    /// Returns whether `found` is the staged item.
    pub(crate) fn is(self, found: &FileStat) -> bool {
        found.id.ino == self.ino && self.born.is_none_or(|born| found.born == Some(born))
    }
}

/// One directory that a commit touches.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct DirStep {
    /// The directory; `None` is the root of the tree.
    #[n(0)]
    pub path: Option<TreePath>,
    /// Old metadata; `None` for a directory that the commit creates.
    #[n(1)]
    pub old: Option<Metadata>,
    /// New metadata; `None` for a directory that the commit removes.
    #[n(2)]
    pub new: Option<Metadata>,
}

/// Writes to a file and hashes the written bytes.
struct Summed<'a> {
    file: &'a mut File,
    sum: Sha256,
}

impl Write for Summed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.sum.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Journal {
    /// Serial of the release.
    pub fn serial(&self) -> Serial {
        self.commit.release.serial
    }

    /// The release before, if it is another one of the same serial.
    pub(crate) fn twin(&self) -> Option<Mark> {
        let before = self.previous?.release;
        let new = self.commit.release;
        (before.serial == new.serial && before.id != new.id).then_some(before)
    }

    /// Writes the journal durably. From then on a crash leads to completion or undo.
    pub fn write(&self, state: &StateDir) -> Result<()> {
        state.write_with(FORWARD, |file| {
            // The hash follows at the end: a million steps are never in memory at once.
            file.write_all(&[JOURNAL_MAGIC.as_slice(), &[0; 32]].concat())?;
            let out = BufWriter::with_capacity(
                JOURNAL_BUFFER_BYTES,
                Summed {
                    file,
                    sum: Sha256::new(),
                },
            );

            let mut out = minicbor::encode::write::Writer::new(out);
            minicbor::encode(self, &mut out).map_err(io::Error::other)?;
            let Summed { file, sum } = out
                .into_inner()
                .into_inner()
                .map_err(io::IntoInnerError::into_error)?;
            file.write_all_at(&sum.finalize(), JOURNAL_MAGIC.len() as u64)
        })
    }

    /// Reads the journal in the state file `name`, if present.
    pub fn read(state: &StateDir, name: &str) -> Result<Option<Self>> {
        let path = state.here().join(name);
        let mut bytes = Vec::with_capacity(JOURNAL_BUFFER_BYTES);
        let read = File::open(&path).and_then(|f| f.take(MAX_JOURNAL).read_to_end(&mut bytes));

        match read {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io("cannot read", &path, e)),
            Ok(_) => Self::parse(&bytes).map(Some).ok_or_else(|| {
                Error::new(
                    crate::Kind::Io,
                    format!(
                        "the journal {} is damaged",
                        state.path().join(name).display()
                    ),
                )
                .hint(
                    "a commit was interrupted here and its journal is lost: compare the tree \
                     with a good host, move the journal away, and deploy again",
                )
            }),
        }
    }

    /// Parses a journal.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let (sum, payload) = bytes.strip_prefix(JOURNAL_MAGIC)?.split_at_checked(32)?;
        // Fuzzing should reach the code behind the checksum.
        if Sha256::digest(payload).as_slice() != sum && !cfg!(fuzzing) {
            return None;
        }
        minicbor::decode(payload).ok()
    }
}

#[cfg(test)]
mod tests;
