//! The front of a sealed datagram: readable, authenticated, and the source of the nonce.

use ring::aead::{Aad, LessSafeKey, NONCE_LEN, Nonce};

use crate::wire::datagram::{DATA, FRONT, KIND, RELAYED, SEALED};

/// Front of a sealed datagram: authenticated beside the text, and the source of the nonce.
pub(super) struct SealedFront(pub(super) [u8; FRONT]);

impl SealedFront {
    /// Reads the front of a datagram that is long enough.
    pub(super) fn of(datagram: &[u8]) -> Self {
        let mut front = [0; FRONT];
        front.copy_from_slice(&datagram[..FRONT]);
        Self(front)
    }

    /// Process that sealed the datagram.
    pub(super) fn source(&self) -> [u8; 8] {
        let mut source = [0; 8];
        source.copy_from_slice(&self.0[4..12]);
        source
    }

    /// Number of the datagram, within its kind.
    pub(super) fn counter(&self) -> u64 {
        let mut counter = [0; 8];
        counter.copy_from_slice(&self.0[12..]);
        u64::from_be_bytes(counter)
    }

    /// Kind of the datagram, without the mark of a seal.
    pub(super) fn kind(&self) -> u8 {
        self.0[KIND] & !SEALED
    }

    /// Returns whether the datagram carries data, not a message.
    pub(super) fn is_data(&self) -> bool {
        matches!(self.kind(), DATA | RELAYED)
    }

    /// Kind and counter: each kind is counted separately.
    pub(super) fn nonce(&self) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        nonce[0] = self.0[KIND];
        nonce[4..].copy_from_slice(&self.0[12..]);
        Nonce::assume_unique_for_key(nonce)
    }

    /// Decrypts `text`, which includes its tag at the end; tags are compared in constant time.
    pub(super) fn open(&self, key: &LessSafeKey, text: &mut [u8]) -> bool {
        key.open_in_place(self.nonce(), Aad::from(self.0), text)
            .is_ok()
    }
}
