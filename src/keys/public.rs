//! Public keys and their fingerprints. Ed25519 only, perhaps on a security key.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

use base64ct::{Base64, Base64Unpadded, Encoding};
use ed25519_dalek::VerifyingKey;
use sha2::{Digest, Sha256};

use super::security_key::{Application, SK_ED25519};
use super::sshwire::{Malformed, SshReader, put_string};
use crate::units::printable;

/// Name of the key type.
pub(super) const ED25519: &str = "ssh-ed25519";

/// Largest number of base64 characters of a key: far more than an Ed25519 key, so that an RSA key
/// is still reported as one.
const MAX_BASE64: usize = 16 << 10;

/// Ed25519 public key: a point of the curve that is not of small order.
#[derive(Clone, Copy)]
pub struct PublicKey {
    point: [u8; 32],
    /// Set for a key on a security key.
    application: Option<Application>,
    /// Set if the signature that named the key was made without a touch of its security key. It is
    /// no part of the key: only permissions depend on it.
    untouched: bool,
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for PublicKey {}

impl PartialOrd for PublicKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for PublicKey {
    fn cmp(&self, other: &Self) -> Ordering {
        (&self.point, &self.application).cmp(&(&other.point, &other.application))
    }
}

impl Hash for PublicKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.point, &self.application).hash(state);
    }
}

/// Name of a key: SHA-256 over its SSH form, displayed as by `ssh-keygen -l`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 32]);

/// Reason why a key is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Another algorithm.
    #[error("it is a {0} key, and makuo takes only {ED25519} keys, also on security keys")]
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
            Ok(Self {
                point: bytes,
                application: None,
                untouched: false,
            })
        }
    }

    /// Parses SSH's binary form.
    pub fn from_blob(blob: &[u8]) -> Result<Self, KeyError> {
        let mut reader = SshReader::new(blob);
        let algorithm = reader.string()?;
        let is_on_device = algorithm == SK_ED25519.as_bytes();
        if algorithm != ED25519.as_bytes() && !is_on_device {
            return Err(KeyError::Algorithm(printable(
                &algorithm[..algorithm.len().min(64)],
            )));
        }

        let point = reader
            .string()?
            .try_into()
            .map_err(|_| KeyError::Malformed)?;
        let application = match is_on_device {
            true => Some(Application::new(reader.string()?)?),
            false => None,
        };
        reader.end()?;

        Ok(Self {
            application,
            ..Self::from_bytes(point)?
        })
    }

    /// Application of a key on a security key.
    pub(super) fn application(&self) -> Option<&Application> {
        self.application.as_ref()
    }

    /// Returns whether a security key has the private half.
    pub fn is_on_device(&self) -> bool {
        self.application.is_some()
    }

    /// The same key, named by a signature without a touch.
    pub(super) fn without_touch(self) -> Self {
        Self {
            untouched: true,
            ..self
        }
    }

    /// Returns whether the signature that named the key was made without a touch.
    pub(super) fn is_untouched(&self) -> bool {
        self.untouched
    }

    /// Returns whether an order with a signature by this key is for a release by `other`: it is the
    /// same key, and touched if that one was.
    pub fn orders_for(&self, other: &Self) -> bool {
        self == other && (!self.untouched || other.untouched)
    }

    /// Name of the key type.
    pub(super) fn algorithm(&self) -> &'static str {
        match self.application {
            Some(_) => SK_ED25519,
            None => ED25519,
        }
    }

    /// Parses a line `ssh-ed25519 AAAA... comment`, as in a `.pub` file; returns key and comment.
    pub fn from_openssh(line: &str) -> Result<(Self, String), KeyError> {
        let mut fields = line.trim().splitn(2, [' ', '\t']);
        let algorithm = fields
            .next()
            .filter(|a| !a.is_empty())
            .ok_or(KeyError::Malformed)?;
        let rest = fields.next().unwrap_or("").trim_start();

        if algorithm != ED25519 && algorithm != SK_ED25519 {
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
        let key = Self::from_blob(&blob)?;
        match key.algorithm() == algorithm {
            true => Ok((key, comment.trim().to_string())),
            false => Err(KeyError::Malformed),
        }
    }

    /// SSH's binary form.
    pub fn blob(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(51);
        put_string(&mut out, self.algorithm().as_bytes());
        put_string(&mut out, &self.point);
        if let Some(application) = &self.application {
            put_string(&mut out, application.as_bytes());
        }
        out
    }

    /// The key's 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.point
    }

    /// The key's fingerprint.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint(Sha256::digest(self.blob()).into())
    }
}

impl fmt::Display for PublicKey {
    /// `ssh-ed25519 AAAA...`, without a comment.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let base64 = Base64::encode_string(&self.blob());
        write!(f, "{} {base64}", self.algorithm())
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
            Err(
                "it is a ssh-rsa key, and makuo takes only ssh-ed25519 keys, also on security keys"
                    .into()
            )
        );
        assert!(PublicKey::from_openssh("ssh-ed25519 AAAA!").is_err());
        assert!(PublicKey::from_openssh("").is_err());
        let mut identity = [0; 32];
        identity[0] = 1;
        assert_eq!(PublicKey::from_bytes(identity), Err(KeyError::Unsound));

        assert_eq!(PublicKey::from_bytes([0; 32]), Err(KeyError::Unsound));
    }
}
