//! Times of change that this process caused itself.
//!
//! A rename or a further name gives a file another time of change, as a write does. Content that was known before stays
//! known only where nothing but our own operations came since: each of them finds the time that the one before it left.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::stat::{FileStat, Version};
use crate::manifest::Mtime;

/// An operation that took longer may hide a change by somebody else. Nobody meddles within one in a unit test, which may
/// have to wait for the processor.
const QUICK: Duration = if cfg!(test) {
    Duration::from_secs(60)
} else {
    Duration::from_micros(200)
};

/// What our operations did to inodes of one filesystem since a commit began.
#[derive(Debug, Default)]
pub(crate) struct CtimeChains {
    /// Whether anybody will ask.
    wanted: bool,
    inodes: HashMap<u64, Chain>,
}

/// The time of change before the first operation, and after the last.
#[derive(Debug, Clone, Copy)]
struct Chain {
    first: Mtime,
    last: Mtime,
}

/// An operation under way.
#[derive(Debug)]
pub(crate) struct Operation {
    before: FileStat,
    began: Instant,
}

impl Operation {
    /// Begins an operation on the inode of which `before` was just found.
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

    /// Records the operation, after which the inode is as in `after`.
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

/// A staged item on its way to its final name.
///
/// Nobody else could reach it before. It is still what was staged when size and time of modification are those that it
/// was given, which is for whoever uses the chain to check.
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

    /// Records the rename, after which the inode is as in `after`.
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
            // Somebody else changed it meanwhile. What is known of it from now on is nothing.
            *chain = Chain {
                first: after,
                last: after,
            };
        }
    }

    /// The present time of change of a file that was `known`, as far as our own operations lead.
    pub(crate) fn since(&self, known: &Version) -> Option<Mtime> {
        self.inodes
            .get(&known.ino)
            .filter(|chain| chain.first == known.ctime)
            .map(|chain| chain.last)
    }

    /// The time of change that the last operation left to the inode.
    pub(crate) fn last(&self, ino: u64) -> Option<Mtime> {
        self.inodes.get(&ino).map(|chain| chain.last)
    }

    /// Forgets everything. What comes is recorded when it is `wanted`.
    pub(crate) fn begin(&mut self, wanted: bool) {
        *self = Self {
            wanted,
            ..Self::default()
        };
    }

    /// Whether operations are recorded.
    pub(crate) fn wanted(&self) -> bool {
        self.wanted
    }
}
