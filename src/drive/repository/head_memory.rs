//! Remembers the newest release that a repository has had, on the machine that signs its heads.
//!
//! A store that answers with an older head would otherwise get that one signed again, with a new
//! time. Hosts that never saw the newer release could then not tell that it is withheld.
//!
//! **On disk.** `heads/HASH` in the cache, where HASH is that of the repository's URL and the tree:
//! the serial and a line break.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::block::BlockHash;
use crate::drive::deploy::cache_file;
use crate::error::{Error, Result};
use crate::id::{Serial, TreeName};
use crate::store::StoreUrl;
use crate::units::printable_path;

/// Memory of the heads of one repository.
#[derive(Debug, Clone)]
pub struct HeadMemory {
    dir: Option<PathBuf>,
    place: String,
    has_warned: Arc<AtomicBool>,
}

impl HeadMemory {
    /// Memory about the repository at `url`, in the cache; without a cache there is none.
    pub fn new(cache: Option<&Path>, url: &StoreUrl) -> Self {
        Self {
            dir: cache.map(|cache| cache.join("heads")),
            // Other than the display, it has endpoints and regions.
            place: format!("{url:?}"),
            has_warned: Arc::default(),
        }
    }

    /// Refuses a head of `tree` whose newest release is older than one that was there.
    pub(super) fn check(&self, tree: &TreeName, serial: Serial) -> Result<()> {
        let Some(path) = self.path(tree) else {
            return Ok(());
        };

        match read(&path) {
            Some(known) if known > serial => Err(Error::refused(format!(
                "the repository shows {tree}@{serial} and has had {tree}@{known}: it is not signed \
                 again, or hosts would not notice that the newer one is missing"
            ))
            .hint(format!(
                "is there a cache before the store, or was it restored? Publish again; or delete \
                 {} if {tree}@{serial} is right",
                printable_path(&path)
            ))),
            _ => Ok(()),
        }
    }

    /// Remembers a release of a head; a failure is a warning, once for the repository.
    pub(super) fn remember(&self, tree: &TreeName, serial: Serial) {
        let Err(error) = self.keep(tree, serial) else {
            return;
        };

        if !self.has_warned.swap(true, Ordering::Relaxed) {
            let dir = self.dir.as_deref().unwrap_or(Path::new(""));
            tracing::warn!(
                "cannot remember {tree}@{serial} in {}: {error}; if the store withholds it later, \
                 an older head is signed again (XDG_CACHE_HOME may name another directory)",
                printable_path(dir)
            );
        }
    }

    /// Remembers a release of a head, if that is possible.
    pub(super) fn keep(&self, tree: &TreeName, serial: Serial) -> io::Result<()> {
        let (Some(dir), Some(path)) = (&self.dir, self.path(tree)) else {
            return Ok(());
        };

        let _lock = cache_file::lock(dir)?;
        if read(&path).is_some_and(|known| known >= serial) {
            return Ok(());
        }
        cache_file::replace(&path, format!("{serial}\n").as_bytes())
    }

    fn path(&self, tree: &TreeName) -> Option<PathBuf> {
        let name = BlockHash::of(format!("{}\n{tree}", self.place).as_bytes());
        Some(self.dir.as_ref()?.join(name.to_string()))
    }
}

fn read(path: &Path) -> Option<Serial> {
    let text = std::fs::read_to_string(path).ok()?;
    text.trim_end().parse().ok().map(Serial)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_head_is_refused_and_each_repository_has_its_own() {
        let cache = tempfile::tempdir().expect("a directory");
        let memory = |url: &str| {
            let url = StoreUrl::parse(url, Path::new("/")).expect("legal");
            HeadMemory::new(Some(cache.path()), &url)
        };
        let tree = |name: &str| TreeName::new(name).expect("legal");
        let (one, other) = (memory("/srv/one"), memory("/srv/other"));
        assert!(one.check(&tree("www"), Serial(1)).is_ok());
        for serial in [4, 3] {
            one.keep(&tree("www"), Serial(serial)).expect("writable");
        }

        assert!(one.check(&tree("www"), Serial(4)).is_ok());
        let error = one.check(&tree("www"), Serial(3)).expect_err("older");
        assert!(error.to_string().contains("has had www@4"), "{error}");
        assert!(one.check(&tree("db"), Serial(3)).is_ok());
        assert!(other.check(&tree("www"), Serial(3)).is_ok());
    }

    #[test]
    fn without_a_cache_every_head_passes() {
        let url = StoreUrl::parse("/srv/one", Path::new("/")).expect("legal");
        let memory = HeadMemory::new(None, &url);
        let www = TreeName::new("www").expect("legal");
        memory.keep(&www, Serial(4)).expect("nothing to write");
        assert!(memory.check(&www, Serial(3)).is_ok());
    }
}
