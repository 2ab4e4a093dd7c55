//! Space that a state directory takes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, openat, statat};

use super::reader::StateReader;
use crate::tree::fs::dir::names_in;

/// Unit of the blocks of a file's metadata, in bytes.
const BLOCK_BYTES: u64 = 512;

impl StateReader {
    /// Bytes on disk of the state: staged content, earlier releases, records. What goes away
    /// meanwhile is left out.
    pub(crate) fn size(&self) -> io::Result<u64> {
        below(self.root().as_fd())
    }
}

fn below(dir: BorrowedFd<'_>) -> io::Result<u64> {
    let mut bytes = 0;
    for name in names_in(dir)? {
        let Ok(entry) = statat(dir, &name, AtFlags::SYMLINK_NOFOLLOW) else {
            continue;
        };
        bytes += u64::try_from(entry.st_blocks).unwrap_or(0) * BLOCK_BYTES;
        if FileType::from_raw_mode(entry.st_mode) != FileType::Directory {
            continue;
        }

        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        if let Ok(inner) = openat(dir, &name, flags, Mode::empty()) {
            bytes += below(inner.as_fd()).unwrap_or(0);
        }
    }

    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::fs::dir::open_dir;

    #[test]
    fn files_at_every_depth_count_and_links_are_not_followed() {
        let dir = tempfile::tempdir().expect("temp");
        let outside = tempfile::tempdir().expect("temp");
        let size = || below(open_dir(dir.path()).expect("opens").as_fd()).expect("reads");
        let empty = size();
        std::fs::create_dir_all(dir.path().join("a/b")).expect("new");
        std::fs::write(dir.path().join("a/b/file"), vec![1; 300_000]).expect("written");
        let filled = size();
        assert!((300_000..400_000).contains(&(filled - empty)), "{filled}");

        std::fs::write(outside.path().join("file"), vec![1; 300_000]).expect("written");
        std::os::unix::fs::symlink(outside.path(), dir.path().join("link")).expect("new");
        assert!(size() - filled < 100_000);
    }
}
