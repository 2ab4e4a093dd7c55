//! Sealing with a group key: AES-256-GCM, with a separate key for every process.
//!
//! ```text
//! front     0  unchanged, the kind marked with 0x80      authenticated, readable
//!          20  the rest of the datagram                  encrypted in place
//! end          tag                                       16 bytes
//!              start                                     4 bytes, drawn for this key
//! ```
//! The key of a process is HKDF-SHA256 (RFC 5869) of the group key, with the source of its front
//! and `start` as context: 96 random bits from the system, so two starts with the same key are not
//! expected before 2^32 of them. Within a process a nonce is the kind and the counter, and a
//! counter that does not rise is never sealed. Every sender has another source, so each direction
//! has its own keys. A copied virtual machine that continues twice from the same state cannot be
//! detected here: restart makuo in a copy.
//!
//! Only a source whose datagram opened is remembered, so processes without the key cannot fill
//! memory or evict others. Each source has a window of counters, and each counter is accepted once.
//! Replays from before the start of this process open again; nonces repeated in the messages
//! distinguish them from fresh ones, see [`crate::proto::freshness`].
//!
//! **Measured** (the ciphers alone, one core, 1472-byte datagrams, ring 0.17;
//! `seal` in tests/bench/parts measures ciphers and the whole path):
//!
//! | | ns a datagram | GB/s |
//! |---|---|---|
//! | AES-256-GCM, seal / open | 330 / 300 | 4.4 / 5.0 |
//! | ChaCha20-Poly1305, seal / open | 930 / 1350 | 1.6 / 1.1 |
//! | a key derived, for the first datagram of a process | 380 | |
//!
//! AES was chosen because server processors have it in hardware; elsewhere the crate falls back at
//! run time. Another crate (aws-lc-rs) is a quarter faster and far more to build; either is far
//! faster than the hash of the sealed content. A forged datagram costs one key derivation and one
//! opening for each key of the group, 0.7 us.

mod front;
mod process_keys;
mod sources;
#[cfg(test)]
#[path = "tests.rs"]
mod tests;

use std::fmt;

use self::front::SealedFront;
use self::process_keys::{PreparedKey, Process, START_BYTES, SealingKey};
use self::sources::KnownSources;
use super::{OpenError, Seal, version_of};
use crate::keys::GroupKey;
use crate::wire::VERSION;
use crate::wire::datagram::{FRONT, KIND, SEALED};
use crate::wire::window::Seen;

/// Bytes behind every datagram: the tag, and the process's start.
pub const SEAL_OVERHEAD: usize = TAG_BYTES + START_BYTES;
const TAG_BYTES: usize = 16;

/// Seals with a group's first key and opens with any.
pub struct Sealed {
    keys: Vec<PreparedKey>,
    start: [u8; START_BYTES],
    own: Option<SealingKey>,
    sources: KnownSources,
}

impl Sealed {
    /// Seals with the first of `keys`, opens with all; `start` is fresh randomness from the system.
    /// `None` without keys.
    pub fn new(keys: &[GroupKey], start: [u8; START_BYTES]) -> Option<Self> {
        let roots: Vec<PreparedKey> = keys.iter().map(PreparedKey::new).collect();
        (!roots.is_empty()).then_some(Self {
            keys: roots,
            start,
            own: None,
            sources: KnownSources::default(),
        })
    }

    /// Sealing state of this process under the id `source`.
    fn own(&mut self, source: [u8; 8]) -> Option<&mut SealingKey> {
        if self.own.as_ref().is_none_or(|own| own.source != source) {
            let key = self.keys.first()?.derive(&(source, self.start))?;
            self.own = Some(SealingKey::new(source, key));
        }

        self.own.as_mut()
    }

    /// Opens the first datagram of a source, trying every key.
    fn open_first(
        &mut self,
        process: Process,
        front: &SealedFront,
        text: &mut [u8],
    ) -> Result<(), OpenError> {
        // A failed opening leaves noise behind.
        let copy = (self.keys.len() > 1).then(|| text.to_vec());
        for (root, key) in self.keys.iter().enumerate() {
            if let (Some(copy), true) = (&copy, root > 0) {
                text.copy_from_slice(copy);
            }
            let Some(key) = key.derive(&process) else {
                continue;
            };
            if front.open(&key, text) {
                self.sources.add(process, root);
                return Ok(());
            }
        }

        Err(OpenError::Wrong)
    }
}

impl Seal for Sealed {
    fn room(&self) -> usize {
        SEAL_OVERHEAD
    }

    fn seal(&mut self, datagram: &mut [u8]) {
        let start = self.start;
        let Some(end) = datagram
            .len()
            .checked_sub(SEAL_OVERHEAD)
            .filter(|end| *end >= FRONT)
        else {
            return datagram.fill(0);
        };

        datagram[KIND] |= SEALED;
        let (datagram, room) = datagram.split_at_mut(end);
        let front = SealedFront::of(datagram);
        let tag = self
            .own(front.source())
            .and_then(|own| own.seal(&front, &mut datagram[FRONT..]));

        match tag {
            Some(tag) => {
                room[..TAG_BYTES].copy_from_slice(tag.as_ref());
                room[TAG_BYTES..].copy_from_slice(&start);
            }
            // Better lost than sealed with a used nonce: a datagram of zeros is dropped everywhere.
            None => {
                tracing::error!(
                    "a defect in makuo: a datagram whose counter does not rise is not sent"
                );
                datagram.fill(0);
            }
        }
    }

    fn open<'a>(&mut self, datagram: &'a mut [u8]) -> Result<&'a [u8], OpenError> {
        match version_of(datagram) {
            Some(VERSION) => {}
            Some(_) => return Err(OpenError::Version),
            None => return Err(OpenError::Foreign),
        }

        if datagram[KIND] & SEALED == 0 {
            return Err(OpenError::Plain);
        }

        let Some(end) = datagram
            .len()
            .checked_sub(SEAL_OVERHEAD)
            .filter(|end| *end > FRONT)
        else {
            return Err(OpenError::Wrong);
        };

        let front = SealedFront::of(datagram);
        let mut start = [0; START_BYTES];
        start.copy_from_slice(&datagram[end + TAG_BYTES..]);
        let process = (front.source(), start);
        let text = &mut datagram[FRONT..end + TAG_BYTES];
        self.sources.tick();

        match self.sources.get(&process) {
            // Cheap, and reveals nothing that a listener does not know.
            Some(source) if source.look(&front) != Seen::New => return Err(OpenError::Replayed),
            Some(source) if source.open(&process, &front, text, &self.keys) => {}
            Some(_) => return Err(OpenError::Wrong),
            None => self.open_first(process, &front, text)?,
        }

        self.sources
            .take(&process, &front, &self.keys)
            .ok_or(OpenError::Wrong)?;
        datagram[KIND] &= !SEALED;
        Ok(&datagram[..end])
    }

    fn rekey(&mut self, keys: &[GroupKey], start: [u8; START_BYTES]) -> bool {
        let Some(fresh) = Sealed::new(keys, start) else {
            return false;
        };

        let old = std::mem::replace(&mut self.keys, fresh.keys);
        let places: Vec<_> = old
            .iter()
            .map(|old| self.keys.iter().position(|new| new.key == old.key))
            .collect();
        self.sources.rekey(&places);
        (self.start, self.own) = (start, None);
        true
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealed")
            .field("keys", &self.keys.len())
            .field("sources", &self.sources.len())
            .finish()
    }
}
