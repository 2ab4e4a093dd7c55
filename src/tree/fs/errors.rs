//! Classes of filesystem errors: missing path, missing ability, full disk.

use std::io;

use rustix::io::Errno;

use crate::error::Error;

/// Adds a hint for a filesystem that is full or read-only.
pub(crate) fn with_space_hint(error: Error) -> Error {
    match () {
        () if error.is_os(io::ErrorKind::StorageFull) => {
            error.hint("free some space on the tree's filesystem")
        }
        () if error.is_os(io::ErrorKind::QuotaExceeded) => {
            error.hint("raise the quota of the daemon's user there")
        }
        () if error.is_os(io::ErrorKind::ReadOnlyFilesystem) => {
            error.hint("mount the tree's filesystem writable")
        }
        () => error,
    }
}

/// Returns whether a path leads nowhere: a component is missing, or a link replaced a directory.
pub(crate) fn is_gone(e: &io::Error) -> bool {
    is_absent(e) || e.raw_os_error() == Some(Errno::LOOP.raw_os_error())
}

/// Returns whether a path leads nowhere: a component is missing or is no directory.
pub(crate) fn is_absent(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Returns whether a filesystem lacks the exchange of two names.
pub(crate) fn is_unsupported(e: Errno) -> bool {
    matches!(e, Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP)
}
