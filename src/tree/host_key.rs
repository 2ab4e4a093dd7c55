//! The secret that a host signs its own words with, kept in the state of a tree: whoever reads a tree's state is the
//! host already.
//!
//! **On disk.** `host_key` in a tree's state: 32 bytes of randomness, mode 0600.

use super::state::State;
use crate::error::Result;

/// The file with the secret.
const HOST_KEY: &str = "host_key";

impl State {
    /// The secret that is kept here; none where there is no whole one.
    pub fn kept_host_key(&self) -> Result<Option<[u8; 32]>> {
        Ok(self.read(HOST_KEY)?.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok()))
    }

    /// The secret; `draw` gives a new one where there is none.
    pub fn host_key(&self, draw: impl FnOnce() -> Result<[u8; 32]>) -> Result<[u8; 32]> {
        if let Some(seed) = self.kept_host_key()? {
            return Ok(seed);
        }
        let seed = draw()?;
        self.write(HOST_KEY, &seed)?;
        Ok(seed)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::id::TreeName;
    use crate::tree::root::Root;

    #[test]
    fn the_secret_stays_and_only_the_daemon_reads_it() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(dir.path().join("www")).expect("new");
        let root = Root::open(dir.path().join("www")).expect("opens");
        let state = State::open(&TreeName::new("www").expect("legal"), &root, None).expect("opens");
        assert_eq!(state.host_key(|| Ok([7; 32])).expect("drawn"), [7; 32]);
        assert_eq!(state.host_key(|| Ok([8; 32])).expect("kept"), [7; 32]);
        let file = state.path().join(HOST_KEY);
        assert_eq!(std::fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
        std::fs::write(&file, "cut").expect("writable");
        assert_eq!(state.host_key(|| Ok([9; 32])).expect("drawn"), [9; 32]);
    }
}
