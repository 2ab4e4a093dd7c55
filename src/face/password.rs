//! The console's password: a line in a file that only its owner can read.

use std::io::Read;
use std::path::Path;

use crate::block::BlockHash;
use crate::error::IoResultExt;
use crate::strict::{self, Readers};
use crate::{Error, Result};

/// Longest password, in bytes.
pub const MAX_PASSWORD: usize = 255;
/// Shortest password, in bytes.
const MIN_PASSWORD: usize = 4;

/// A password. It is never shown.
#[derive(Clone)]
pub struct Password(BlockHash, Vec<u8>);

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password")
    }
}

impl Password {
    /// Loads the first line of the file `path`, which must be private to its owner.
    pub fn load(path: &Path) -> Result<Self> {
        let name = crate::units::printable(path.as_os_str().as_encoded_bytes());
        let bytes = read(path).map_err(|e| e.with_kind(crate::Kind::Usage))?;
        let line = bytes
            .split(|b| matches!(b, b'\r' | b'\n'))
            .next()
            .unwrap_or_default();

        if !(MIN_PASSWORD..=MAX_PASSWORD).contains(&line.len()) {
            let what = format!(
                "{name}: a password has {MIN_PASSWORD} to {MAX_PASSWORD} bytes, on the first line"
            );
            return Err(Error::usage(what));
        }

        Ok(Self(BlockHash::of(line), line.to_vec()))
    }

    /// Compares `given` with the password. Hashes are compared in full, so the time does not depend
    /// on the difference.
    pub fn is(&self, given: &[u8]) -> bool {
        let given = BlockHash::of(given);
        self.0
            .0
            .iter()
            .zip(given.0)
            .fold(0, |differ, (a, b)| differ | (a ^ b))
            == 0
    }

    /// Returns the bytes, for a client to send.
    pub fn bytes(&self) -> &[u8] {
        &self.1
    }
}

/// Reads as much as the longest password needs.
fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    strict::open(path, Readers::Owner)?
        .take(MAX_PASSWORD as u64 + 3)
        .read_to_end(&mut bytes)
        .context("cannot read the password in", path)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn load(text: &str, mode: u32) -> Result<Password> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        Password::load(&path)
    }

    #[test]
    fn only_the_very_password_is_it() {
        let password = load("sesame\r\nmore", 0o600).unwrap();
        assert!(password.is(b"sesame"));
        for wrong in [&b"sesam"[..], b"sesame ", b"Sesame", b""] {
            assert!(!password.is(wrong));
        }
        assert_eq!(format!("{password:?}"), "Password");
    }

    #[test]
    fn a_password_that_others_read_is_refused() {
        assert!(
            load("sesame", 0o640)
                .unwrap_err()
                .to_string()
                .contains("others can read")
        );
        assert!(load("abc", 0o600).is_err());
        assert!(load(&"x".repeat(300), 0o600).is_err());
        assert!(Password::load(Path::new("/nonexistent/x")).is_err());
    }
}
