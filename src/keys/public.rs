//! Public keys and their fingerprints. Ed25519 only.

use std::fmt;

use base64ct::{Base64, Base64Unpadded, Encoding};
use ed25519_dalek::VerifyingKey;
use sha2::{Digest, Sha256};

use super::sshwire::{Malformed, SshReader, put_string};
use crate::units::printable;

/// Name of the only key type.
pub(super) const ED25519: &str = "ssh-ed25519";

/// Largest number of base64 characters of a key: far more than an Ed25519 key, so that an RSA key
/// is still reported as one.
const MAX_BASE64: usize = 16 << 10;

/// Ed25519 public key: a point of the curve that is not of small order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

/// Name of a key: SHA-256 over its SSH form, displayed as by `ssh-keygen -l`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 32]);

/// Reason why a key is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Another algorithm.
    #[error("it is a {0} key, and makuo takes only {ED25519} keys")]
    Algorithm(String),
    /// Not the form of an SSH public key.
    #[error("it is not an SSH public key (`{ED25519} AAAA... comment`)")]
    Malformed,
    /// Not a point of the curve, or one for which anything verifies.
    #[error("it is not a sound Ed25519 key")]
    Unsound,
}

impl From<Malformed> for KeyError {
    fn from(_: Malformed) -> Self {
        KeyError::Malformed
    }
}

impl PublicKey {
    /// The key with these 32 bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, KeyError> {
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| KeyError::Unsound)?;
        if key.is_weak() {
            Err(KeyError::Unsound)
        } else {
            Ok(Self(bytes))
        }
    }

    /// Parses SSH's binary form.
    pub fn from_blob(blob: &[u8]) -> Result<Self, KeyError> {
        let mut reader = SshReader::new(blob);
        let algorithm = reader.string()?;
        if algorithm != ED25519.as_bytes() {
            return Err(KeyError::Algorithm(printable(
                &algorithm[..algorithm.len().min(64)],
            )));
        }

        let key = reader
            .string()?
            .try_into()
            .map_err(|_| KeyError::Malformed)?;
        reader.end()?;

        Self::from_bytes(key)
    }

    /// Parses a line `ssh-ed25519 AAAA... comment`, as in a `.pub` file; returns key and comment.
    pub fn from_openssh(line: &str) -> Result<(Self, String), KeyError> {
        let mut fields = line.trim().splitn(2, [' ', '\t']);
        let algorithm = fields
            .next()
            .filter(|a| !a.is_empty())
            .ok_or(KeyError::Malformed)?;
        let rest = fields.next().unwrap_or("").trim_start();

        if algorithm != ED25519 {
            let known = ["ssh-", "ecdsa-", "sk-"]
                .iter()
                .any(|p| algorithm.starts_with(p));
            let named = known && algorithm.len() < 64;
            return Err(if named {
                KeyError::Algorithm(printable(algorithm.as_bytes()))
            } else {
                KeyError::Malformed
            });
        }

        let (base64, comment) = rest.split_once([' ', '\t']).unwrap_or((rest, ""));
        if base64.len() > MAX_BASE64 {
            return Err(KeyError::Malformed);
        }

        let blob = Base64::decode_vec(base64).map_err(|_| KeyError::Malformed)?;
        Ok((Self::from_blob(&blob)?, comment.trim().to_string()))
    }

    /// SSH's binary form.
    pub fn blob(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(51);
        put_string(&mut out, ED25519.as_bytes());
        put_string(&mut out, &self.0);
        out
    }

    /// The key's 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key's fingerprint.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint(Sha256::digest(self.blob()).into())
    }
}

impl fmt::Display for PublicKey {
    /// `ssh-ed25519 AAAA...`, without a comment.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ED25519} {}", Base64::encode_string(&self.blob()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fingerprint().fmt(f)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SHA256:{}", Base64Unpadded::encode_string(&self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl github";

    #[test]
    fn a_public_key_comes_back_and_has_the_known_fingerprint() {
        let (key, comment) = PublicKey::from_openssh(LINE).expect("legal");
        assert_eq!(comment, "github");
        assert_eq!(format!("{key} github"), LINE);
        assert_eq!(
            key.fingerprint().to_string(),
            "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU"
        );

        assert_eq!(PublicKey::from_blob(&key.blob()), Ok(key));
    }

    #[test]
    fn other_algorithms_are_named_and_small_orders_refused() {
        let said = |line: &str| {
            PublicKey::from_openssh(line)
                .map(|_| ())
                .map_err(|e| e.to_string())
        };

        assert_eq!(
            said("ssh-rsa AAAA x"),
            Err("it is a ssh-rsa key, and makuo takes only ssh-ed25519 keys".into())
        );
        assert!(PublicKey::from_openssh("ssh-ed25519 AAAA!").is_err());
        assert!(PublicKey::from_openssh("").is_err());
        let mut identity = [0; 32];
        identity[0] = 1;
        assert_eq!(PublicKey::from_bytes(identity), Err(KeyError::Unsound));

        assert_eq!(PublicKey::from_bytes([0; 32]), Err(KeyError::Unsound));
    }
}
