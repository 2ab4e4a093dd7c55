//! Keys of single processes, derived from the group key.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Tag, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Prk, Salt};

use super::front::SealedFront;
use crate::keys::GroupKey;
use crate::wire::datagram::{DATA, PEER, RELAYED};

/// Bytes of a process's start.
pub(super) const START_BYTES: usize = 4;
/// Salt of the key derivation.
const PURPOSE: &[u8] = b"makuo datagrams v1";

/// A process as identified by its datagrams: the source of the front, and the start.
pub(super) type Process = ([u8; 8], [u8; START_BYTES]);

/// Group key prepared for derivation.
pub(super) struct PreparedKey {
    pub(super) key: GroupKey,
    prk: Prk,
}

impl PreparedKey {
    /// Prepares `key`.
    pub(super) fn new(key: &GroupKey) -> Self {
        Self {
            key: key.clone(),
            prk: Salt::new(HKDF_SHA256, PURPOSE).extract(key.as_bytes()),
        }
    }

    /// The key of `process`. Never `None`: the length matches the cipher.
    pub(super) fn derive(&self, (source, start): &Process) -> Option<LessSafeKey> {
        let context = [&source[..], &start[..]];
        let okm = self.prk.expand(&context, &AES_256_GCM).ok()?;
        Some(LessSafeKey::new(UnboundKey::from(okm)))
    }
}

/// Sealing state of this process.
pub(super) struct SealingKey {
    pub(super) source: [u8; 8],
    key: LessSafeKey,
    /// Counters sealed last, by kind: of messages, of data, between peers, and of data to pass on.
    last: [u64; 4],
}

impl SealingKey {
    /// Creates the state of a process with the id `source`, before its first datagram.
    pub(super) fn new(source: [u8; 8], key: LessSafeKey) -> Self {
        Self {
            source,
            key,
            last: [0; 4],
        }
    }

    /// Encrypts `text`; `None` if the counter is not above that of the last datagram of the kind.
    pub(super) fn seal(&mut self, front: &SealedFront, text: &mut [u8]) -> Option<Tag> {
        let last = match front.kind() {
            DATA => &mut self.last[1],
            PEER => &mut self.last[2],
            // Some hosts get the same datagram as data of the other kind.
            RELAYED => &mut self.last[3],
            _ => &mut self.last[0],
        };
        if front.counter() <= *last {
            return None;
        }

        *last = front.counter();
        self.key
            .seal_in_place_separate_tag(front.nonce(), Aad::from(front.0), text)
            .ok()
    }
}
