//! The journal of a commit: everything that is to be done and what was there before, on disk before the first change.
//!
//! Steps say what to do, not what was done: how far a commit came is seen from the tree and the numbered slots beside
//! it, so that the journal is written once, and every step can be taken again, forward ([`super::run`]) or backward
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
/// Bytes that are written at a time.
const WRITE_BUFFER_BYTES: usize = 64 << 10;
/// The most bytes of a journal: some ten million steps.
const MAX_JOURNAL: u64 = 4 << 30;

/// One commit.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Journal {
    /// What the tree becomes.
    #[n(0)]
    pub commit: CommitMark,
    /// What the tree was before.
    #[n(1)]
    pub previous: Option<CommitMark>,
    /// What is done, in this order.
    #[n(2)]
    pub steps: Packed<Step>,
    /// Directories whose mode, time or owner is set when all steps are done; in the order of their paths.
    #[n(3)]
    pub dirs: Vec<DirStep>,
    /// The release's header, exactly as signed.
    #[n(4)]
    #[cbor(with = "minicbor::bytes")]
    pub header: Vec<u8>,
    /// The signature over it.
    #[n(5)]
    #[cbor(with = "minicbor::bytes")]
    pub signature: Vec<u8>,
    /// The exchange of whole trees that this commit is, in place of steps.
    #[n(6)]
    pub swap: Option<Swap>,
}

/// An exchange of the live tree with the one beside it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Swap {
    /// The tree that was live before.
    #[n(0)]
    pub old: Side,
    /// The tree that is live after.
    #[n(1)]
    pub new: Side,
    /// The paths that the release made, changed or removed, sorted; all others are in both trees, or move.
    #[n(2)]
    pub changed: Vec<TreePath>,
    /// The directories that the release does not govern, which move from the old tree into the new one.
    #[n(3)]
    pub moves: Option<Vec<Move>>,
    /// The directories that those are in, but for the top, sorted.
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
    /// Its path.
    #[n(0)]
    pub path: TreePath,
    /// Its inode: another one at this path does not move.
    #[n(1)]
    pub ino: u64,
}

/// A directory of both trees from or into which another one moves: what it has before and gets again after.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Above {
    /// Its path.
    #[n(0)]
    pub path: TreePath,
    /// Of the one in the old tree.
    #[n(1)]
    pub old: Times,
    /// Of the one in the new tree.
    #[n(2)]
    pub new: Times,
}

/// What moving names into or out of a directory changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Times {
    /// Permission bits.
    #[n(0)]
    pub mode: Mode,
    /// The time of modification.
    #[n(1)]
    pub mtime: Mtime,
}

/// One of the two directories of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Side {
    /// Its inode: how the two are told from each other.
    #[n(0)]
    pub ino: u64,
    /// Its permission bits.
    #[n(1)]
    pub mode: Mode,
    /// The time of modification, which an exchange changes on some filesystems.
    #[n(2)]
    pub mtime: Option<Mtime>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub enum Step {
    /// Make a directory.
    #[n(0)]
    Mkdir(#[n(0)] TreePath),
    /// Put a staged item under its final name; what it replaces goes to the same slot of the undo directory.
    #[n(1)]
    Place {
        /// The final name.
        #[n(0)]
        path: TreePath,
        /// The staged item, by number.
        #[n(1)]
        slot: u64,
        /// Its inode: how it is told from what it replaced.
        #[n(2)]
        ino: u64,
        /// Whether something is replaced.
        #[n(3)]
        replaces: bool,
        /// Whether it has the content of what it replaces, which is then not kept.
        #[n(4)]
        copy: Option<bool>,
        /// When its inode was made, where the number alone does not tell it from what it replaced.
        #[n(5)]
        born: Option<Mtime>,
    },
    /// Move what is at a path to the undo directory.
    #[n(2)]
    Remove {
        /// The path.
        #[n(0)]
        path: TreePath,
        /// Where to, by number.
        #[n(1)]
        slot: u64,
        /// Whether it is a directory, which must be empty by then.
        #[n(2)]
        is_dir: bool,
    },
    /// Set metadata of what is not a directory.
    #[n(3)]
    Set {
        /// The path.
        #[n(0)]
        path: TreePath,
        /// What it has.
        #[n(1)]
        old: Box<Metadata>,
        /// What it gets.
        #[n(2)]
        new: Box<Metadata>,
        /// Its inode: another one at this path is not touched.
        #[n(3)]
        ino: u64,
    },
}

/// How a staged item is told from what it replaced.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inode {
    pub(crate) ino: u64,
    pub(crate) born: Option<Mtime>,
}

impl Inode {
    /// Whether `found` is the staged item.
    pub(crate) fn is(self, found: &FileStat) -> bool {
        found.id.ino == self.ino && self.born.is_none_or(|born| found.born == Some(born))
    }
}

/// One directory that a commit touches.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct DirStep {
    /// The directory; `None` is the top of the tree.
    #[n(0)]
    pub path: Option<TreePath>,
    /// What it has; `None` when it is made by the commit.
    #[n(1)]
    pub old: Option<Metadata>,
    /// What it gets; `None` when it is removed by the commit.
    #[n(2)]
    pub new: Option<Metadata>,
}

/// Writes to a file, and sums up what was written.
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
    /// The number of the release.
    pub fn serial(&self) -> Serial {
        self.commit.release.serial
    }

    /// The release that was there before, when it is another one of the same serial.
    pub(crate) fn twin(&self) -> Option<Mark> {
        let (before, new) = (self.previous?.release, self.commit.release);
        (before.serial == new.serial && before.id != new.id).then_some(before)
    }

    /// Writes the journal, durably: after this a crash is followed by going on or going back.
    pub fn write(&self, state: &StateDir) -> Result<()> {
        state.write_with(FORWARD, |file| {
            // The sum comes when it is known: a million steps are many bytes, which are never all in memory.
            file.write_all(&[JOURNAL_MAGIC.as_slice(), &[0; 32]].concat())?;
            let out = BufWriter::with_capacity(
                WRITE_BUFFER_BYTES,
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

    /// The journal in the state file `name`, when there is one.
    pub fn read(state: &StateDir, name: &str) -> Result<Option<Self>> {
        let path = state.here().join(name);
        let mut bytes = Vec::with_capacity(WRITE_BUFFER_BYTES);
        let read = File::open(&path).and_then(|f| f.take(MAX_JOURNAL).read_to_end(&mut bytes));
        match read {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io("cannot read", &path, e)),
            Ok(_) => Self::parse(&bytes).map(Some).ok_or_else(|| {
                Error::new(crate::Kind::Io, format!("the journal {} is damaged", state.path().join(name).display())).hint(
                    "a commit was interrupted here and its journal is lost: compare the tree with a good host, move the journal away, and deploy again",
                )
            }),
        }
    }

    /// The journal that `bytes` are.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let (sum, payload) = bytes.strip_prefix(JOURNAL_MAGIC)?.split_at_checked(32)?;
        // What fuzzing finds behind the sum is worth finding.
        if Sha256::digest(payload).as_slice() != sum && !cfg!(fuzzing) {
            return None;
        }
        minicbor::decode(payload).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::BlockHash;
    use crate::manifest::ReleaseId;
    use crate::tree::state::reader::Mark;

    #[test]
    fn a_journal_is_whole_or_refused() {
        let path = TreePath::new(b"a".as_slice()).unwrap();
        let journal = Journal {
            commit: CommitMark {
                release: Mark {
                    serial: Serial(3),
                    id: ReleaseId(BlockHash::of(b"x")),
                },
                number: 1,
            },
            previous: None,
            steps: [
                Step::Mkdir(path.clone()),
                Step::Place {
                    path,
                    slot: 1,
                    ino: 2,
                    replaces: true,
                    copy: None,
                    born: None,
                },
            ]
            .into_iter()
            .collect(),
            dirs: vec![DirStep {
                path: None,
                old: Some(Metadata::default()),
                new: None,
            }],
            header: vec![1, 2],
            signature: vec![3],
            swap: None,
        };

        let payload = minicbor::to_vec(&journal).unwrap();
        let bytes = [
            JOURNAL_MAGIC.as_slice(),
            &Sha256::digest(&payload),
            &payload,
        ]
        .concat();
        assert_eq!(Journal::parse(&bytes), Some(journal));

        for at in 0..bytes.len() {
            let mut broken = bytes.clone();
            broken[at] ^= 1;
            assert_eq!(Journal::parse(&broken), None);
            assert_eq!(Journal::parse(&bytes[..at]), None);
        }
    }
}
