//! The last word on a name that two trees have side by side: that of the outside.
//!
//! Both trees held something under the name when they were looked at last, and hold something now. Where only one of
//! them changed, the other follows. Where both did, the tree that others reach by path is right, unless what is in the
//! other one came later by a handle. It must not know how a name comes from one tree into the other.

use crate::manifest::Mtime;
use crate::tree::fs::stat::FileStat;

/// What a name stands for in the tree that is followed and in the one that follows, by inode; zero for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Inodes {
    pub(crate) from: u64,
    pub(crate) to: u64,
}

impl Inodes {
    pub(crate) const NONE: Self = Self { from: 0, to: 0 };
    /// An inode that no file has: a tree that is known by it has changed since.
    pub(crate) const UNKNOWN: u64 = u64::MAX;

    pub(crate) fn of(from: Option<&FileStat>, to: Option<&FileStat>) -> Self {
        let ino = |found: Option<&FileStat>| found.map_or(0, |found| found.id.ino);
        Self {
            from: ino(from),
            to: ino(to),
        }
    }

    /// What is known from now on of a name that is not followed and was `known` before: what the other tree has of its
    /// own is still to be followed the other way.
    pub(crate) fn unfollowed(self, known: Self) -> Self {
        let to = match self.to {
            to if self.from == to || self.from == known.from && known.to == to => to,
            to if to == known.to => Self::UNKNOWN,
            _ => known.to,
        };

        Self {
            from: self.from,
            to,
        }
    }
}

/// Who else works in the tree that follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rival {
    /// Nobody.
    Nobody,
    /// Those who hold a directory of it open.
    Handles,
    /// Everybody, by path, since this time of the filesystem. The tree that is followed is changed by handles since.
    Everybody(Mtime),
}

/// Whether the tree that follows gets what the other one has under a name. `known` is what the name stood for when
/// both were looked at last; with `touched` the one that follows was changed since, whatever it shows; `live` is the
/// last change of the directory that others reach by path.
pub(crate) fn follows(
    known: Inodes,
    from: Option<&FileStat>,
    to: Option<&FileStat>,
    touched: bool,
    rival: Rival,
    live: Mtime,
) -> bool {
    let now = Inodes::of(from, to);
    if now.from == known.from || now.from == now.to {
        return false;
    }

    if rival == Rival::Nobody || now.to == known.to && !touched {
        return true;
    }

    match (from, to, rival) {
        // What was put there before the exchange is older than anything that everybody did after it.
        (Some(from), Some(to), Rival::Everybody(since)) => {
            from.ctime > since && from.ctime > to.ctime
        }
        // When a name was removed is not known: not after the last change of its directory.
        (Some(from), None, Rival::Everybody(since)) => {
            from.ctime > since && from.ctime > live && !touched
        }
        (Some(from), Some(to), _) => from.ctime >= to.ctime,
        (None, Some(to), Rival::Handles) => to.ctime <= live,
        (Some(_), None, _) => true,
        (None, ..) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with this inode that changed at this second; zero for none.
    fn node(ino: u64, secs: i64) -> Option<FileStat> {
        let mut found = FileStat::of(std::fs::File::open("/").unwrap()).unwrap();
        (found.id.ino, found.ctime) = (ino, Mtime { secs, nanos: 0 });
        (ino != 0).then_some(found)
    }

    #[test]
    fn the_outside_has_the_last_word() {
        let at = |secs| Mtime { secs, nanos: 0 };
        let live = Rival::Everybody(at(10));

        // Known in both, the inode and time in each now, whether the one that follows was touched, who works in it. The
        // directory that others reach by path changed last at 15.
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
                Rival::Nobody,
                true,
            ),
            (
                "by path before, by a handle later",
                (1, 1),
                (2, 4),
                (3, 5),
                false,
                Rival::Handles,
                false,
            ),
            (
                "by a handle before, by path later",
                (1, 1),
                (2, 6),
                (3, 5),
                false,
                Rival::Handles,
                true,
            ),
            (
                "removed by path, replaced by a handle later",
                (1, 1),
                (0, 0),
                (3, 16),
                false,
                Rival::Handles,
                false,
            ),
            (
                "removed by path, replaced by a handle before",
                (1, 1),
                (0, 0),
                (3, 5),
                false,
                Rival::Handles,
                true,
            ),
            (
                "made by path, removed by a handle",
                (1, 1),
                (2, 6),
                (0, 0),
                false,
                Rival::Handles,
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
            let (a, b) = (node(a.0, a.1), node(b.0, b.1));
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
