//! What a filesystem can do beyond the usual, tried with two small files.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{Mode, OFlags, RenameFlags, ioctl_ficlone, openat, renameat_with};

use super::dir::discard;

/// Names of the files, in a directory that belongs to this process alone.
const ABILITY_FILES: [&CStr; 2] = [c"ability-a", c"ability-b"];

/// What a filesystem can do; `None` for what could not be tried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FsAbilities {
    /// Exchanges two names in one step (RENAME_EXCHANGE).
    pub exchange: Option<bool>,
    /// Shares blocks between files (reflinks).
    pub reflink: Option<bool>,
}

impl FsAbilities {
    /// Tries the filesystem of `dir`, in which nothing is left.
    pub(crate) fn try_in(dir: BorrowedFd<'_>) -> Self {
        let tried = try_with_files(dir);
        for name in ABILITY_FILES {
            let _ = discard(dir, name);
        }
        tried.unwrap_or_default()
    }
}

fn try_with_files(dir: BorrowedFd<'_>) -> io::Result<FsAbilities> {
    let [a, b] = ABILITY_FILES;
    // Left by an interrupted attempt.
    discard(dir, a)?;
    discard(dir, b)?;
    let [original, copy] = [new_file(dir, a)?, new_file(dir, b)?];
    rustix::io::write(&original, b"some bytes")?;

    Ok(FsAbilities {
        exchange: Some(renameat_with(dir, a, dir, b, RenameFlags::EXCHANGE).is_ok()),
        reflink: Some(ioctl_ficlone(copy.as_fd(), original.as_fd()).is_ok()),
    })
}

fn new_file(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(dir, name, flags, Mode::RUSR | Mode::WUSR)?;
    Ok(File::from(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filesystem_is_tried_and_nothing_is_left() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("ability-a"), "left").expect("writable");
        let handle = File::open(dir.path()).expect("there");
        let tried = FsAbilities::try_in(handle.as_fd());
        assert!(
            tried.exchange.is_some() && tried.reflink.is_some(),
            "{tried:?}"
        );
        assert_eq!(std::fs::read_dir(dir.path()).expect("there").count(), 0);

        let none = File::open("/proc/self").expect("there");
        assert_eq!(FsAbilities::try_in(none.as_fd()), FsAbilities::default());
    }
}
