//! Files in the user's cache, shared by processes: one lock for a directory, a rename for a change.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// Creates `dir` and waits for the lock of the files there, held by the returned file.
pub(in crate::drive) fn lock(dir: &Path) -> io::Result<File> {
    std::fs::create_dir_all(dir)?;
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(dir.join(".lock"))?;

    flock(&lock, FlockOperation::LockExclusive)?;
    Ok(lock)
}

/// Replaces the file at `path`; the new content is on the disk before the rename.
pub(in crate::drive) fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push("~");
    let temporary = PathBuf::from(temporary);
    let mut file = File::create(&temporary)?;
    file.write_all(text)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)
}
