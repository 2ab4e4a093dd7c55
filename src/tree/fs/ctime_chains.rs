//! Changes of ctime that this process caused itself.
//!
//! A rename or a new link changes the ctime of an inode, as a write does. Recorded content stays
//! valid only while every change since the recording was ours: each of our operations must find the
//! ctime that the previous one left.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::stat::{FileStat, Version};
use crate::manifest::Mtime;

/// Longest duration of one operation. A slower operation may hide a change by another process. Unit
/// tests have no other writers and may wait for the processor.
const QUICK: Duration = if cfg!(test) {
    Duration::from_secs(60)
} else {
    Duration::from_micros(200)
};

/// Operations of this process on the inodes of one filesystem since a commit began.
#[derive(Debug, Default)]
pub(crate) struct CtimeChains {
    /// Whether operations are recorded at all.
    wanted: bool,
    inodes: HashMap<u64, Chain>,
}

/// The ctime before the first operation and after the last.
#[derive(Debug, Clone, Copy)]
struct Chain {
    first: Mtime,
    last: Mtime,
}

/// An operation in progress.
#[derive(Debug)]
pub(crate) struct Operation {
    before: FileStat,
    began: Instant,
}

impl Operation {
    /// Begins an operation on the inode with the status `before`.
    #[expect(
        clippy::disallowed_methods,
        reason = "measures one system call, decides nothing in a protocol"
    )]
    pub(crate) fn on(before: FileStat) -> Self {
        Self {
            before,
            began: Instant::now(),
        }
    }

    /// Records the operation; `after` is the status of the inode now.
    pub(crate) fn done(self, after: &FileStat, chains: &mut CtimeChains) {
        let quick = self.began.elapsed() < QUICK;
        let alike = |s: &FileStat| (s.id, s.size, s.mtime);
        if quick && alike(&self.before) == alike(after) {
            chains.add(after.id.ino, self.before.ctime, after.ctime);
        } else {
            chains.inodes.remove(&self.before.id.ino);
        }
    }
}

/// A staged item on the way to its final name.
///
/// No other process could reach the item before. Its content is intact while size and mtime are as
/// staged; users of the chain check both.
#[derive(Debug)]
pub(crate) struct Placement {
    began: Instant,
}

impl Placement {
    /// Begins the rename.
    #[expect(
        clippy::disallowed_methods,
        reason = "measures one system call, decides nothing in a protocol"
    )]
    pub(crate) fn begin() -> Self {
        Self {
            began: Instant::now(),
        }
    }

    /// Records the rename; `after` is the status of the inode now.
    pub(crate) fn done(self, after: &FileStat, chains: &mut CtimeChains) {
        if self.began.elapsed() < QUICK {
            chains.inodes.insert(
                after.id.ino,
                Chain {
                    first: after.ctime,
                    last: after.ctime,
                },
            );
        } else {
            chains.inodes.remove(&after.id.ino);
        }
    }
}

impl CtimeChains {
    fn add(&mut self, ino: u64, before: Mtime, after: Mtime) {
        let chain = self.inodes.entry(ino).or_insert(Chain {
            first: before,
            last: before,
        });

        if chain.last == before {
            chain.last = after;
        } else {
            // Another process changed the inode in between: recorded content is no longer valid.
            *chain = Chain {
                first: after,
                last: after,
            };
        }
    }

    /// The present ctime of a file recorded as `known`, if only our operations changed it.
    pub(crate) fn since(&self, known: &Version) -> Option<Mtime> {
        self.inodes
            .get(&known.ino)
            .filter(|chain| chain.first == known.ctime)
            .map(|chain| chain.last)
    }

    /// The ctime that the last operation left on the inode.
    pub(crate) fn last(&self, ino: u64) -> Option<Mtime> {
        self.inodes.get(&ino).map(|chain| chain.last)
    }

    /// Forgets all operations; later ones are recorded if `wanted`.
    pub(crate) fn begin(&mut self, wanted: bool) {
        *self = Self {
            wanted,
            ..Self::default()
        };
    }

    /// Returns whether operations are recorded.
    pub(crate) fn wanted(&self) -> bool {
        self.wanted
    }
}
