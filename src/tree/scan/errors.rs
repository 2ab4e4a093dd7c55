//! Errors of a scan.

use std::io;
use std::path::Path;

use crate::manifest::rules::{Exclude, check_excludes};
use crate::{Error, Kind, Result};

/// Error for a new index that cannot be written.
pub(super) fn unwritable(e: io::Error) -> Error {
    Error::new(Kind::Io, "cannot write the index").because(e)
}

pub(super) fn check_patterns(excludes: &[Exclude], found: &[Exclude]) -> Result<()> {
    let all = [excludes, found].concat();
    check_excludes(&all).map_err(|why| {
        Error::usage(format!("with the patterns of ignore files, {why}"))
            .hint("a release carries its patterns to every host: use fewer, broader ones")
    })
}

/// Error for a path of the tree that cannot be read.
pub(super) fn unreadable(path: &Path, e: io::Error) -> Error {
    let denied = e.kind() == io::ErrorKind::PermissionDenied;
    let error = Error::io("cannot read", path, e).with_kind(Kind::Usage);
    if denied {
        error.hint("make it readable for this user, or exclude it")
    } else {
        error
    }
}

/// Error for an old index that cannot be read.
pub(super) fn unreadable_index(e: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(Kind::Io, "the index cannot be read").because(e)
}

/// Error for a stopped scan.
pub(super) fn stopped() -> Error {
    Error::new(Kind::Io, "the scan was stopped")
}
