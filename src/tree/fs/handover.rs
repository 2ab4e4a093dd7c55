//! Rights that end when an inode changes hands: attributes that the previous owner set, and his
//! rights in a directory.

use super::stat::FileStat;
use super::xattrs::{ACL, CAPABILITY, DEFAULT_ACL, LABEL};

/// Attributes by which an inode grants rights.
const GRANTS: [&[u8]; 4] = [ACL, DEFAULT_ACL, CAPABILITY, LABEL];
/// Write bits of owner, group and others.
const OWNER: u32 = 0o200;
const GROUP: u32 = 0o020;
const OTHERS: u32 = 0o002;

/// Returns whether rights granted by the user `uid` end when the inode passes to `to`: the users
/// differ, and `uid` is neither root nor this process's user.
pub(crate) fn is_foreign(uid: u32, to: Option<u32>) -> bool {
    uid != 0 && uid != nix::unistd::geteuid().as_raw() && to.is_some_and(|to| to != uid)
}

/// Returns whether an attribute of this name grants rights.
pub(crate) fn is_grant(name: &[u8]) -> bool {
    GRANTS.contains(&name)
}

/// Returns whether a user who could change names under `from` may lack this right under `to`.
pub(crate) fn is_closed(from: &FileStat, to: &FileStat) -> bool {
    let old = from.mode.bits();
    let new = to.mode.bits();
    if new & OTHERS != 0 {
        return false;
    }
    let by_owner = old & OWNER != 0 && is_foreign(from.uid, Some(to.uid));
    let by_group = old & GROUP != 0 && (new & GROUP == 0 || from.gid != to.gid);
    by_owner || by_group || old & OTHERS != 0
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::manifest::Mode;

    #[test]
    fn a_directory_is_closed_to_those_who_lose_the_right_to_write() {
        let dir = tempfile::tempdir().unwrap();
        let handle = std::fs::File::open(dir.path()).unwrap();
        let any = FileStat::of(handle.as_fd()).unwrap();
        let of = |uid, gid, mode| FileStat {
            uid,
            gid,
            mode: Mode::from_bits(mode),
            ..any
        };

        for (from, to, closed) in [
            (of(7, 7, 0o755), of(7, 7, 0o755), false),
            (of(7, 7, 0o755), of(0, 7, 0o755), true),
            (of(7, 7, 0o555), of(0, 7, 0o755), false),
            (of(7, 7, 0o755), of(0, 7, 0o777), false),
            (of(0, 7, 0o755), of(7, 7, 0o755), false),
            (of(0, 7, 0o775), of(0, 7, 0o775), false),
            (of(0, 7, 0o775), of(0, 8, 0o775), true),
            (of(0, 7, 0o775), of(0, 7, 0o755), true),
            (of(0, 7, 0o777), of(0, 7, 0o775), true),
        ] {
            assert_eq!(is_closed(&from, &to), closed, "{from:?} {to:?}");
        }
    }
}
