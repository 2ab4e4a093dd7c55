//! Opens an index file and refuses a damaged one, or one of another directory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::format::{INDEX_MAGIC, IndexTail, MAX_TAIL_BYTES, TRAILER_BYTES, checksum, damaged};
use super::links;
use super::read::Index;
use crate::tree::fs::root::FileId;

impl Index {
    /// Opens the index at `path`. Returns `None` unless the file is intact and belongs to the
    /// directory `root`.
    pub fn open(path: &Path, root: FileId) -> Option<Self> {
        let refused = |why: &dyn std::fmt::Display| {
            tracing::warn!(
                index = %path.display(),
                "index not used, reading the whole tree: {why}"
            );
        };

        let file = match File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return None,
            Err(e) => {
                refused(&e);
                return None;
            }
        };

        match read_tail(&file) {
            Ok(tail) if tail.root_ino == root.ino => {
                let index = Self::new(file, path.to_path_buf(), root.dev, tail);
                let checked = if index.links_checked() {
                    Ok(())
                } else {
                    links::check(&index)
                };
                checked.inspect_err(|e| refused(e)).is_ok().then_some(index)
            }
            Ok(_) => {
                refused(&"another directory's index");
                None
            }
            Err(e) => {
                refused(&e);
                None
            }
        }
    }

    /// Returns whether `path` holds an index of a directory other than `root`.
    pub fn is_of_another(path: &Path, root: FileId) -> bool {
        File::open(path)
            .and_then(|file| read_tail(&file))
            .is_ok_and(|tail| tail.root_ino != root.ino)
    }
}

fn read_tail(file: &File) -> io::Result<IndexTail> {
    let length = file.metadata()?.len();
    let mut magic = [0; INDEX_MAGIC.len()];
    file.read_exact_at(&mut magic, 0)?;
    if &magic != INDEX_MAGIC {
        return Err(damaged("not an index of this version"));
    }

    let mut trailer = [0; TRAILER_BYTES];
    let trailer_at = length.saturating_sub(TRAILER_BYTES as u64);
    file.read_exact_at(&mut trailer, trailer_at)?;

    let mut at = [0; 8];
    at.copy_from_slice(&trailer[..8]);
    let at = u64::from_le_bytes(at);

    let mut size = [0; 4];
    size.copy_from_slice(&trailer[8..12]);
    let size = u32::from_le_bytes(size) as usize;

    if size > MAX_TAIL_BYTES || at.checked_add(size as u64) != Some(trailer_at) {
        return Err(damaged("the tail is not at the end of the file"));
    }

    let mut tail = vec![0; size];
    file.read_exact_at(&mut tail, at)?;

    // Fuzzing skips the checksum, to reach the decoder.
    if checksum(&tail) != trailer[12..] && !cfg!(fuzzing) {
        return Err(damaged("a checksum does not match"));
    }

    minicbor::decode(&tail).map_err(damaged)
}
