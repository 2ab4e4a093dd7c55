//! The place of a source's index between sessions.

use std::path::{Path, PathBuf};

use crate::block::BlockHash;
use crate::tree::Root;

/// Place of a source's index: in the cache, named by the source's path, or a temporary file.
pub(super) struct IndexPlace {
    pub(super) path: PathBuf,
    _temporary: Option<tempfile::TempDir>,
}

impl IndexPlace {
    /// The place for the source in `root`.
    pub(super) fn of(root: &Root, cache: Option<&Path>) -> Self {
        let path = std::fs::canonicalize(root.path()).unwrap_or_else(|_| root.path().to_path_buf());
        let name =
            BlockHash::of(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str())).to_string();
        let kept = cache.filter(|dir| std::fs::create_dir_all(dir).is_ok());

        if let Some(dir) = kept.filter(|dir| is_writable(dir)) {
            return Self {
                path: dir.join(&name[..32]),
                _temporary: None,
            };
        }

        match tempfile::tempdir() {
            Ok(dir) => Self {
                path: dir.path().join("index"),
                _temporary: Some(dir),
            },
            // The scan will report the problem.
            Err(_) => Self {
                path: std::env::temp_dir().join("makuo-index"),
                _temporary: None,
            },
        }
    }
}

fn is_writable(dir: &Path) -> bool {
    rustix::fs::access(dir, rustix::fs::Access::WRITE_OK).is_ok()
}
