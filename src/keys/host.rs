//! A host's own key, which signs its statements in a session, so that no other member of the group
//! can forge them.
//!
//! All members share the group key. The decisive statements of a deploy (ready, committed, failed,
//! the result of an audit) are therefore signed with a key of the host alone. The host keeps the
//! key in its state directory, so that a restarted daemon is recognized. A process is bound to the
//! key by its number: the hash of the key and of a value drawn at the start of the process.

use std::fmt;

use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use minicbor::{Decode, Encode};

use super::PublicKey;
use crate::block::BlockHash;
use crate::id::InstanceId;

/// Bytes of a signature.
pub const HOST_SIGNATURE_BYTES: usize = 64;
/// Prefix of the bytes whose hash is a process's number.
const INSTANCE_PREFIX: &[u8] = b"makuo-instance@v1";
/// Prefix of every signed statement.
const STATEMENT_PREFIX: &[u8] = b"makuo-word@v1";

/// Key of one host, in one process.
#[derive(Clone)]
pub struct HostKey {
    key: SigningKey,
    identity: Identity,
    instance: InstanceId,
}

impl HostKey {
    /// The key made from `seed`, in a process that drew `start`.
    pub fn new(seed: [u8; 32], start: u64) -> Self {
        let key = SigningKey::from_bytes(&seed);
        let identity = Identity {
            key: key.verifying_key().to_bytes(),
            start,
        };

        Self {
            key,
            identity,
            instance: identity.instance(),
        }
    }

    /// Public identity of the key and process.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Number of the process.
    pub fn instance(&self) -> InstanceId {
        self.instance
    }

    /// Signs a statement of the host.
    pub fn sign(&self, statement: &[u8]) -> [u8; HOST_SIGNATURE_BYTES] {
        self.key
            .sign(&[STATEMENT_PREFIX, statement].concat())
            .to_bytes()
    }
}

impl fmt::Debug for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostKey")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

/// Identity of a process: the host's public key, and the value drawn at the start of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Identity {
    /// The public key.
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub key: [u8; 32],
    /// Value drawn at the start.
    #[n(1)]
    pub start: u64,
}

impl Identity {
    /// Number of the process, unique to the key.
    pub fn instance(&self) -> InstanceId {
        let hash = BlockHash::of(&[INSTANCE_PREFIX, &self.key, &self.start.to_be_bytes()].concat());
        let (first, _) = hash.0.split_first_chunk().unwrap_or((&[0; 8], &[]));
        InstanceId(u64::from_be_bytes(*first))
    }

    /// The key for display; `None` if no private key can belong to it.
    pub fn public(&self) -> Option<PublicKey> {
        PublicKey::from_bytes(self.key).ok()
    }

    /// Returns whether the host signed `statement`.
    pub fn signed(&self, statement: &[u8], signature: &[u8; HOST_SIGNATURE_BYTES]) -> bool {
        let signature = ed25519_dalek::Signature::from_bytes(signature);
        VerifyingKey::from_bytes(&self.key).is_ok_and(|key| {
            key.verify_strict(&[STATEMENT_PREFIX, statement].concat(), &signature)
                .is_ok()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_signs_its_words_and_nobody_else_does() {
        let one = HostKey::new([1; 32], 7);
        let other = HostKey::new([2; 32], 7);
        let signature = one.sign(b"committed");
        assert!(one.identity().signed(b"committed", &signature));
        assert!(
            !one.identity().signed(b"ready", &signature)
                && !other.identity().signed(b"committed", &signature)
        );

        assert!(
            !one.identity()
                .signed(b"committed", &[0; HOST_SIGNATURE_BYTES])
        );
        let small = Identity {
            key: [0; 32],
            start: 7,
        };

        assert!(
            !small.signed(b"committed", &[0; HOST_SIGNATURE_BYTES]),
            "a key of small order"
        );
    }

    #[test]
    fn a_process_is_bound_to_its_key_and_its_start() {
        let instance = |seed, start| HostKey::new([seed; 32], start).instance();
        assert_eq!(instance(1, 7), instance(1, 7));
        assert_ne!(instance(1, 7), instance(1, 8));
        assert_ne!(instance(1, 7), instance(2, 7));
    }
}
