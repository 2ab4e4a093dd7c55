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
//! `cargo bench --bench seal` measures ciphers and the whole path):
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

use std::collections::HashMap;
use std::fmt;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, Tag, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Prk, Salt};

use super::{KIND, OpenError, SEALED, Seal, version_of};
use crate::keys::GroupKey;
use crate::wire::VERSION;
use crate::wire::datagram::{DATA, FRONT};
use crate::wire::window::{ReplayWindow, Seen};

/// Bytes behind every datagram: the tag, and the process's start.
pub const SEAL_OVERHEAD: usize = TAG_BYTES + START_BYTES;
const TAG_BYTES: usize = 16;
const START_BYTES: usize = 4;
/// Largest number of remembered sources; beyond it, the half heard longest ago is forgotten.
pub const MAX_SEALED_SOURCES: usize = 20_000;
/// Largest number of remembered data sources: each takes a key, and up to [`DATA_WORDS`] words.
pub const MAX_DATA_SOURCES: usize = 256;
/// Words of the window over messages, 64 numbers each. A message to the group may wait in a
/// socket's buffer while one to a single host overtakes it.
const CONTROL_WORDS: usize = 64;
/// Words of the window over data: two interfaces may be as far apart as their receive buffers are
/// deep.
const DATA_WORDS: usize = 1024;
/// Salt of the key derivation.
const PURPOSE: &[u8] = b"makuo datagrams v1";

/// A process as identified by its datagrams: the source of the front, and the start.
type Process = ([u8; 8], [u8; START_BYTES]);

/// Seals with a group's first key and opens with any.
pub struct Sealed {
    keys: Vec<PreparedKey>,
    start: [u8; START_BYTES],
    own: Option<SealingKey>,
    sources: HashMap<Process, KnownSource>,
    streams: usize,
    /// Datagrams opened: orders sources by the time of their last datagram.
    clock: u64,
}

/// Group key prepared for derivation.
struct PreparedKey {
    key: GroupKey,
    prk: Prk,
}

/// Sealing state of this process.
struct SealingKey {
    source: [u8; 8],
    key: LessSafeKey,
    /// Counters sealed last, of messages and of data.
    last: [u64; 2],
}

/// A process whose datagrams opened. Replayed recordings can add many, so each takes little memory.
struct KnownSource {
    /// Index of the group key.
    root: usize,
    heard: u64,
    control: ReplayWindow,
    stream: Option<Box<DataStream>>,
}

/// State of a process that sends data. The key is kept, because deriving it takes as long as
/// opening a datagram.
struct DataStream {
    key: LessSafeKey,
    window: ReplayWindow,
}

impl Sealed {
    /// Seals with the first of `keys`, opens with all; `start` is fresh randomness from the system.
    /// `None` without keys.
    pub fn new(keys: &[GroupKey], start: [u8; START_BYTES]) -> Option<Self> {
        let roots: Vec<PreparedKey> = keys.iter().map(PreparedKey::new).collect();
        let sources = HashMap::new();
        (!roots.is_empty()).then_some(Self {
            keys: roots,
            start,
            own: None,
            sources,
            streams: 0,
            clock: 0,
        })
    }

    /// Sealing state of this process under the id `source`.
    fn own(&mut self, source: [u8; 8]) -> Option<&mut SealingKey> {
        if self.own.as_ref().is_none_or(|own| own.source != source) {
            let key = self.keys.first()?.derive(&(source, self.start))?;
            self.own = Some(SealingKey {
                source,
                key,
                last: [0; 2],
            });
        }

        self.own.as_mut()
    }

    /// Opens a datagram of a known source.
    fn open_known(
        &self,
        source: &KnownSource,
        process: &Process,
        front: &SealedFront,
        text: &mut [u8],
    ) -> bool {
        match &source.stream {
            Some(stream) => front.open(&stream.key, text),
            None => self
                .keys
                .get(source.root)
                .and_then(|key| key.derive(process))
                .is_some_and(|key| front.open(&key, text)),
        }
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
                let source = KnownSource {
                    root,
                    heard: self.clock,
                    control: ReplayWindow::new(CONTROL_WORDS),
                    stream: None,
                };
                self.make_room();
                self.sources.insert(process, source);
                return Ok(());
            }
        }

        Err(OpenError::Wrong)
    }

    /// Forgets the half heard longest ago, if there are too many.
    fn make_room(&mut self) {
        if self.sources.len() >= MAX_SEALED_SOURCES {
            self.forget(|_| true);
        }
    }

    /// Forgets the half heard longest ago of the sources that `fits`.
    fn forget(&mut self, fits: impl Fn(&KnownSource) -> bool) {
        let mut heard: Vec<u64> = self
            .sources
            .values()
            .filter(|s| fits(s))
            .map(|s| s.heard)
            .collect();
        let middle = heard.len() / 2;

        if let Some((_, &mut middle, _)) =
            (middle < heard.len()).then(|| heard.select_nth_unstable(middle))
        {
            self.sources
                .retain(|_, source| !fits(source) || source.heard > middle);
        }

        self.streams = self.sources.values().filter(|s| s.stream.is_some()).count();
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
        self.clock += 1;

        match self.sources.get(&process) {
            // Cheap, and reveals nothing that a listener does not know.
            Some(source) if source.look(&front) != Seen::New => return Err(OpenError::Replayed),
            Some(source) if self.open_known(source, &process, &front, text) => {}
            Some(_) => return Err(OpenError::Wrong),
            None => self.open_first(process, &front, text)?,
        }

        if front.is_data()
            && self.streams >= MAX_DATA_SOURCES
            && self
                .sources
                .get(&process)
                .is_some_and(|s| s.stream.is_none())
        {
            self.forget(|source| source.stream.is_some());
        }

        let Some(source) = self.sources.get_mut(&process) else {
            return Err(OpenError::Wrong);
        };

        source.heard = self.clock;
        if front.is_data() && source.stream.is_none() {
            let key = self
                .keys
                .get(source.root)
                .and_then(|key| key.derive(&process))
                .ok_or(OpenError::Wrong)?;
            source.stream = Some(Box::new(DataStream {
                key,
                window: ReplayWindow::new(DATA_WORDS),
            }));
            self.streams += 1;
        }

        source.take(&front);
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
        self.sources
            .retain(|_, source| match places.get(source.root) {
                Some(&Some(place)) => {
                    source.root = place;
                    true
                }
                _ => false,
            });

        self.streams = self.sources.values().filter(|s| s.stream.is_some()).count();
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

impl PreparedKey {
    fn new(key: &GroupKey) -> Self {
        Self {
            key: key.clone(),
            prk: Salt::new(HKDF_SHA256, PURPOSE).extract(key.as_bytes()),
        }
    }

    /// The key of `process`. Never `None`: the length matches the cipher.
    fn derive(&self, (source, start): &Process) -> Option<LessSafeKey> {
        let context = [&source[..], &start[..]];
        let okm = self.prk.expand(&context, &AES_256_GCM).ok()?;
        Some(LessSafeKey::new(UnboundKey::from(okm)))
    }
}

impl SealingKey {
    /// Encrypts `text`; `None` if the counter is not above that of the last datagram of the kind.
    fn seal(&mut self, front: &SealedFront, text: &mut [u8]) -> Option<Tag> {
        let last = &mut self.last[usize::from(front.is_data())];
        if front.counter() <= *last {
            return None;
        }

        *last = front.counter();
        self.key
            .seal_in_place_separate_tag(front.nonce(), Aad::from(front.0), text)
            .ok()
    }
}

impl KnownSource {
    fn look(&self, front: &SealedFront) -> Seen {
        match front.is_data() {
            true => self
                .stream
                .as_ref()
                .map_or(Seen::New, |stream| stream.window.look(front.counter())),
            false => self.control.look(front.counter()),
        }
    }

    fn take(&mut self, front: &SealedFront) {
        let window = match &mut self.stream {
            Some(stream) if front.is_data() => &mut stream.window,
            _ => &mut self.control,
        };
        window.take(front.counter());
    }
}

/// Front of a sealed datagram: authenticated beside the text, and the source of the nonce.
struct SealedFront([u8; FRONT]);

impl SealedFront {
    /// Reads the front of a datagram that is long enough.
    fn of(datagram: &[u8]) -> Self {
        let mut front = [0; FRONT];
        front.copy_from_slice(&datagram[..FRONT]);
        Self(front)
    }

    fn source(&self) -> [u8; 8] {
        let mut source = [0; 8];
        source.copy_from_slice(&self.0[4..12]);
        source
    }

    fn counter(&self) -> u64 {
        let mut counter = [0; 8];
        counter.copy_from_slice(&self.0[12..]);
        u64::from_be_bytes(counter)
    }

    fn is_data(&self) -> bool {
        self.0[KIND] & !SEALED == DATA
    }

    /// Kind and counter: messages and data are counted separately.
    fn nonce(&self) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        nonce[0] = self.0[KIND];
        nonce[4..].copy_from_slice(&self.0[12..]);
        Nonce::assume_unique_for_key(nonce)
    }

    /// Decrypts `text`, which includes its tag at the end; tags are compared in constant time.
    fn open(&self, key: &LessSafeKey, text: &mut [u8]) -> bool {
        key.open_in_place(self.nonce(), Aad::from(self.0), text)
            .is_ok()
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
