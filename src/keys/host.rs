//! A host's own key: what it says of itself in a session is signed with it, so that no other member of the group can.
//!
//! The group key is everybody's. What counts at the end of a deploy (ready, committed, failed, what an audit found) is
//! signed with a key that the host alone has; it keeps it in its state, so that a daemon that was restarted is known. A
//! process is bound to it by its number: the hash of the key and of what the process drew at its start.

use std::fmt;

use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use minicbor::{Decode, Encode};

use super::PublicKey;
use crate::block::BlockHash;
use crate::id::InstanceId;

/// The bytes of a signature.
pub const WORD_SIGNATURE: usize = 64;
/// What a process's number is the hash of, beside its key and start.
const INSTANCE: &[u8] = b"makuo-instance@v1";
/// What stands before every word that is signed.
const WORD: &[u8] = b"makuo-word@v1";

/// The key of one host, in one process.
#[derive(Clone)]
pub struct HostKey {
    key: SigningKey,
    identity: Identity,
    instance: InstanceId,
}

impl HostKey {
    /// The key that `seed` is, in a process that drew `start`.
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

    /// Whose key it is.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// The process's number.
    pub fn instance(&self) -> InstanceId {
        self.instance
    }

    /// Signs what the host says.
    pub fn sign(&self, word: &[u8]) -> [u8; WORD_SIGNATURE] {
        self.key.sign(&[WORD, word].concat()).to_bytes()
    }
}

impl fmt::Debug for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostKey")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

/// Whose process it is that speaks: the host's public key, and what the process drew at its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Identity {
    /// The key.
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub key: [u8; 32],
    /// What was drawn.
    #[n(1)]
    pub start: u64,
}

impl Identity {
    /// The number of the process, which no other key leads to.
    pub fn instance(&self) -> InstanceId {
        let hash = BlockHash::of(&[INSTANCE, &self.key, &self.start.to_be_bytes()].concat());
        let (first, _) = hash.0.split_first_chunk().unwrap_or((&[0; 8], &[]));
        InstanceId(u64::from_be_bytes(*first))
    }

    /// The key as people see it; none when nobody can sign with it.
    pub fn public(&self) -> Option<PublicKey> {
        PublicKey::from_bytes(self.key).ok()
    }

    /// Whether the host signed `word`.
    pub fn signed(&self, word: &[u8], signature: &[u8; WORD_SIGNATURE]) -> bool {
        let signature = ed25519_dalek::Signature::from_bytes(signature);
        VerifyingKey::from_bytes(&self.key).is_ok_and(|key| {
            key.verify_strict(&[WORD, word].concat(), &signature)
                .is_ok()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_signs_its_words_and_nobody_else_does() {
        let (one, other) = (HostKey::new([1; 32], 7), HostKey::new([2; 32], 7));
        let signature = one.sign(b"committed");
        assert!(one.identity().signed(b"committed", &signature));
        assert!(
            !one.identity().signed(b"ready", &signature)
                && !other.identity().signed(b"committed", &signature)
        );

        assert!(!one.identity().signed(b"committed", &[0; WORD_SIGNATURE]));
        let small = Identity {
            key: [0; 32],
            start: 7,
        };

        assert!(
            !small.signed(b"committed", &[0; WORD_SIGNATURE]),
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
