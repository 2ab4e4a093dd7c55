//! The group key: 32 random bytes shared by all hosts of a group, in a file of one line.

use std::fmt;
use std::path::Path;

use base64ct::{Base64, Encoding};

use super::{generate, random_bytes, read_key_file, shown};
use crate::block::BlockHash;
use crate::strict::Readers;
use crate::{Error, Result};

const KEY_PREFIX: &str = "makuo-group-key-v1";
/// Prefix of the secret in the hash that names the group.
const GROUP_ID_PREFIX: &[u8] = b"makuo-group@v1";

/// Secret of a group. Never displayed.
#[derive(Clone, PartialEq, Eq)]
pub struct GroupKey([u8; 32]);

impl GroupKey {
    /// A fresh key.
    pub fn random() -> Result<Self> {
        random_bytes().map(Self)
    }

    /// Reads a key file; refuses one that others than its owner and group can read.
    pub fn load(path: &Path) -> Result<Self> {
        let (bytes, _) = read_key_file(path, Readers::Group).map_err(unread)?;
        std::str::from_utf8(&bytes)
            .ok()
            .and_then(Self::parse)
            .ok_or_else(|| {
                Error::usage(format!(
                    "{} is not a group key: one line `{KEY_PREFIX} BASE64` of 32 bytes",
                    shown(path)
                ))
                .hint("`makuo keygen --group` makes a group key")
            })
    }

    /// Parses the text of a key file: one line with a key, besides empty lines and comments.
    pub fn parse(text: &str) -> Option<Self> {
        let mut lines = text
            .lines()
            .map(str::trim)
            .filter(|l| !l.is_empty() && !l.starts_with('#'));
        let (line, None) = (lines.next()?, lines.next()) else {
            return None;
        };

        let (prefix, base64) = line.split_once(' ')?;
        let mut bytes = [0u8; 32];
        let decoded = Base64::decode(base64.trim(), &mut bytes).ok()?.len();

        (prefix == KEY_PREFIX && decoded == bytes.len()).then_some(Self(bytes))
    }

    /// Text of a key file.
    pub fn to_text(&self) -> String {
        format!("{KEY_PREFIX} {}\n", Base64::encode_string(&self.0))
    }

    /// Writes the key file, readable by its owner only; replaces an existing one only with `force`.
    /// Creates a missing directory (0700).
    pub fn save(&self, path: &Path, force: bool) -> Result<()> {
        generate::write_file(path, self.to_text().as_bytes(), 0o600, force)
    }

    /// Name of the group, fit for a file, which reveals nothing of the secret.
    pub fn id(&self) -> String {
        let hash = BlockHash::of(&[GROUP_ID_PREFIX, &self.0].concat());
        hash.0[..8]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    /// The secret, for a cipher.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

fn unread(error: Error) -> Error {
    let hint = match error.is_os(std::io::ErrorKind::PermissionDenied) {
        true => {
            "users who run commands need a copy, as ~/.config/makuo/group.key; or run this as root"
        }
        false => "`makuo keygen --group` makes a group key",
    };
    error.hint_else(hint)
}

impl fmt::Debug for GroupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GroupKey(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_group_key_comes_back_and_stays_secret() {
        let dir = tempfile::tempdir().expect("temp");
        let path = dir.path().join("group.key");
        let key = GroupKey::random().expect("random");
        key.save(&path, false).expect("saves");
        assert_eq!(GroupKey::load(&path).expect("loads"), key);
        assert!(key.save(&path, false).is_err(), "never overwritten");
        key.save(&path, true).expect("forced");
        assert_eq!(format!("{key:?}"), "GroupKey(secret)");
        assert_eq!(
            (key.id().len(), key.id() == GroupKey([7; 32]).id()),
            (16, false)
        );
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("chmod");

        assert!(GroupKey::load(&path).is_err());
    }

    #[test]
    fn anything_else_is_refused() {
        let good = GroupKey([7; 32]).to_text();
        assert_eq!(
            GroupKey::parse(&format!("# ours\r\n{good}\n")),
            Some(GroupKey([7; 32]))
        );

        for bad in [
            "",
            "makuo-group-key-v1",
            "makuo-group-key-v1 AAAA",
            "makuo-group-key-v2 AAAA",
            &good.repeat(2),
        ] {
            assert_eq!(GroupKey::parse(bad), None, "{bad}");
        }
    }
}
