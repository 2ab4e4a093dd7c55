//! The host's secret signing key, kept in the state of each of its trees. A reader of a tree's
//! state has the host's rights already.
//!
//! **On disk.** `host_key` in a tree's state: 32 random bytes, mode 0600.

use std::path::PathBuf;

use super::dir::StateDir;
use crate::error::Result;

/// Name of the file.
const HOST_KEY: &str = "host_key";

impl StateDir {
    /// Reads the stored secret; `None` if missing or incomplete.
    pub fn kept_host_key(&self) -> Result<Option<[u8; 32]>> {
        Ok(self
            .read(HOST_KEY)?
            .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok()))
    }

    /// Stores the secret `seed`.
    pub fn keep_host_key(&self, seed: &[u8; 32]) -> Result<()> {
        self.write(HOST_KEY, seed)
    }

    /// Path of the file, for messages.
    pub fn host_key_file(&self) -> PathBuf {
        self.path().join(HOST_KEY)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::id::TreeName;
    use crate::tree::fs::root::Root;

    #[test]
    fn the_secret_stays_and_only_the_daemon_reads_it() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(dir.path().join("www")).expect("new");
        let root = Root::open(dir.path().join("www")).expect("opens");
        let state =
            StateDir::open(&TreeName::new("www").expect("legal"), &root, None).expect("opens");
        assert_eq!(state.kept_host_key().expect("readable"), None);
        state.keep_host_key(&[7; 32]).expect("writable");
        assert_eq!(state.kept_host_key().expect("readable"), Some([7; 32]));

        let file = state.host_key_file();
        assert_eq!(
            std::fs::metadata(&file)
                .expect("there")
                .permissions()
                .mode()
                & 0o777,
            0o600
        );

        std::fs::write(&file, "cut").expect("writable");
        assert_eq!(state.kept_host_key().expect("readable"), None);
    }
}
