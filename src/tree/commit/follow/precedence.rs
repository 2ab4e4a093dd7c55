//! Precedence for a name that two trees hold side by side: a pure decision.
//!
//! Both trees had an entry under the name at the last look, and have one now. If only one changed,
//! the other follows. If both changed, the tree that others reach by path wins, unless the entry in
//! the other tree came later, by a handle.

use crate::manifest::Mtime;
use crate::tree::fs::stat::FileStat;

/// Inodes of a name in the source and the target of a transfer; zero for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Inodes {
    pub(crate) from: u64,
    pub(crate) to: u64,
}

impl Inodes {
    pub(crate) const NONE: Self = Self { from: 0, to: 0 };
    /// An inode number that no file has; a tree recorded with it has changed since.
    pub(crate) const UNKNOWN: u64 = u64::MAX;

    pub(crate) fn of(from: Option<&FileStat>, to: Option<&FileStat>) -> Self {
        let ino = |found: Option<&FileStat>| found.map_or(0, |found| found.id.ino);
        Self {
            from: ino(from),
            to: ino(to),
        }
    }

    /// Record for a name that is not transferred and was `known` before: the other tree's own entry
    /// is still to be transferred the other way.
    pub(crate) fn unfollowed(self, known: Self) -> Self {
        let is_followed = self.from == self.to || self == known;
        let to = if is_followed { self.to } else { Self::UNKNOWN };

        Self {
            from: self.from,
            to,
        }
    }
}

/// Other writers in the target tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rivals {
    /// None.
    Nobody,
    /// Processes that hold a directory of the target open.
    Handles,
    /// Everyone, by path, since this time of the filesystem. Since then only handles reach the
    /// source.
    Everybody(Mtime),
}

/// Returns whether the target gets the entry of the source. `known` are the inodes at the last
/// look; `touched` means that the target changed since, whatever it shows; `live` is the last
/// change of the directory that others reach by path.
pub(crate) fn follows(
    known: Inodes,
    from: Option<&FileStat>,
    to: Option<&FileStat>,
    touched: bool,
    rival: Rivals,
    live: Mtime,
) -> bool {
    let now = Inodes::of(from, to);
    if now.from == known.from || now.from == now.to {
        return false;
    }

    if rival == Rivals::Nobody || now.to == known.to && !touched {
        return true;
    }

    match (from, to, rival) {
        // An entry from before the exchange is older than every later change by path.
        (Some(from), Some(to), Rivals::Everybody(since)) => {
            from.ctime > since && from.ctime > to.ctime
        }
        // The time of a removal is unknown, but not after the last change of the directory.
        (Some(from), None, Rivals::Everybody(since)) => {
            from.ctime > since && from.ctime > live && !touched
        }
        (Some(from), Some(to), _) => from.ctime >= to.ctime,
        (None, Some(to), Rivals::Handles) => to.ctime <= live,
        (Some(_), None, _) => true,
        (None, ..) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with this inode, changed at this second; zero for none.
    fn node(ino: u64, secs: i64) -> Option<FileStat> {
        let mut found = FileStat::of(std::fs::File::open("/").unwrap()).unwrap();
        (found.id.ino, found.ctime) = (ino, Mtime { secs, nanos: 0 });
        (ino != 0).then_some(found)
    }

    #[test]
    fn an_entry_that_is_not_followed_yet_counts_as_changed_whatever_becomes_of_it() {
        let known = Inodes::NONE;
        let unfollowed = Inodes { from: 2, to: 3 }.unfollowed(known);
        assert_eq!((unfollowed.from, unfollowed.to), (2, Inodes::UNKNOWN));

        // It was made and removed again: the other tree's entry is not to come back.
        let back = Inodes {
            from: unfollowed.to,
            to: unfollowed.from,
        };
        let there = node(2, 5);
        let live = Mtime { secs: 15, nanos: 0 };
        assert!(follows(
            back,
            None,
            there.as_ref(),
            false,
            Rivals::Handles,
            live
        ));
    }

    #[test]
    fn the_outside_has_the_last_word() {
        let at = |secs| Mtime { secs, nanos: 0 };
        let live = Rivals::Everybody(at(10));

        // Each case: inodes known in both, inode and time in each now, whether the target was
        // touched, and the rival. The directory that others reach by path changed last at 15.
        let cases = [
            ("unchanged", (1, 1), (1, 5), (1, 5), false, live, false),
            (
                "replaced before the exchange",
                (1, 1),
                (2, 9),
                (1, 5),
                false,
                live,
                true,
            ),
            (
                "made before the exchange",
                (0, 0),
                (2, 9),
                (0, 0),
                false,
                live,
                true,
            ),
            (
                "removed before the exchange",
                (1, 1),
                (0, 0),
                (1, 5),
                false,
                live,
                true,
            ),
            (
                "made, and after the exchange made and removed",
                (0, 0),
                (2, 9),
                (0, 0),
                true,
                live,
                false,
            ),
            (
                "made, and after the exchange made again",
                (0, 0),
                (2, 9),
                (3, 12),
                false,
                live,
                false,
            ),
            (
                "replaced, and after the exchange removed",
                (1, 1),
                (2, 9),
                (0, 0),
                false,
                live,
                false,
            ),
            (
                "removed, and after the exchange made",
                (1, 1),
                (0, 0),
                (3, 12),
                false,
                live,
                false,
            ),
            (
                "followed before, and removed since",
                (1, 1),
                (1, 9),
                (0, 0),
                false,
                live,
                false,
            ),
            (
                "its other name was replaced, which changes its time",
                (2, 2),
                (2, 13),
                (3, 12),
                false,
                live,
                false,
            ),
            (
                "replaced by a handle, and after that by path",
                (1, 1),
                (2, 11),
                (3, 12),
                false,
                live,
                false,
            ),
            (
                "replaced by path, and after that by a handle",
                (1, 1),
                (2, 13),
                (3, 12),
                false,
                live,
                true,
            ),
            (
                "removed by path, replaced by a handle later",
                (1, 1),
                (2, 16),
                (0, 0),
                false,
                live,
                true,
            ),
            (
                "removed by path, replaced by a handle before",
                (1, 1),
                (2, 13),
                (0, 0),
                false,
                live,
                false,
            ),
            (
                "made by a handle",
                (0, 0),
                (2, 13),
                (0, 0),
                false,
                live,
                true,
            ),
            (
                "replaced at the very exchange, removed after it",
                (1, 1),
                (2, 16),
                (0, 0),
                true,
                live,
                false,
            ),
            (
                "nobody else can have changed it",
                (1, 1),
                (2, 4),
                (3, 5),
                false,
                Rivals::Nobody,
                true,
            ),
            (
                "by path before, by a handle later",
                (1, 1),
                (2, 4),
                (3, 5),
                false,
                Rivals::Handles,
                false,
            ),
            (
                "by a handle before, by path later",
                (1, 1),
                (2, 6),
                (3, 5),
                false,
                Rivals::Handles,
                true,
            ),
            (
                "removed by path, replaced by a handle later",
                (1, 1),
                (0, 0),
                (3, 16),
                false,
                Rivals::Handles,
                false,
            ),
            (
                "removed by path, replaced by a handle before",
                (1, 1),
                (0, 0),
                (3, 5),
                false,
                Rivals::Handles,
                true,
            ),
            (
                "made by path, removed by a handle",
                (1, 1),
                (2, 6),
                (0, 0),
                false,
                Rivals::Handles,
                true,
            ),
            (
                "it is there by now",
                (1, 1),
                (2, 9),
                (2, 9),
                false,
                live,
                false,
            ),
        ];

        for (what, (from, to), a, b, touched, rival, wanted) in cases {
            let a = node(a.0, a.1);
            let b = node(b.0, b.1);
            let found = follows(
                Inodes { from, to },
                a.as_ref(),
                b.as_ref(),
                touched,
                rival,
                at(15),
            );
            assert_eq!(found, wanted, "{what}");
        }
    }
}
