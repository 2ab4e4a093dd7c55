//! Sealing with a group key: AES-256-GCM, a key of its own for every process that ever spoke.
//!
//! ```text
//! front     0  as it is, the kind marked with 0x80   authenticated, readable
//!          20  the rest of the datagram              encrypted in place
//! end          tag                                   16 bytes
//!              start                                  4 bytes, drawn when the process began to seal
//! ```
//! The key of a process is HKDF-SHA256 (RFC 5869) of the group key, with the source of its front and `start` as
//! context: 96 random bits from the system, so that two starts with the same key are not to be expected before there
//! were 2^32 of them. Within a process a nonce is the kind and the counter, and a counter that does not rise is never
//! sealed. Whoever sends has another source, hence each direction has keys of its own. What a copied virtual machine
//! would do, going on from the same state twice, nothing here can see: restart makuo in a copy.
//!
//! Only a source whose datagram opened is remembered, so that nobody without the key fills memory or pushes anyone out.
//! Of each source a window of counters is kept, and a counter comes once. Replays from before this process started open
//! again: what tells them from present words is a nonce that these repeat, see [`crate::proto::freshness`].
//!
//! **Measured** (the ciphers alone, one core, 1472-byte datagrams, ring 0.17; `cargo bench --bench seal` measures them and
//! the whole way):
//!
//! | | ns a datagram | GB/s |
//! |---|---|---|
//! | AES-256-GCM, seal / open | 330 / 300 | 4.4 / 5.0 |
//! | ChaCha20-Poly1305, seal / open | 930 / 1350 | 1.6 / 1.1 |
//! | a key derived, for the first datagram of a process | 380 | |
//!
//! AES it is: the processors of servers have it in hardware, and where one has not the crate falls back by itself at run
//! time. Another crate (aws-lc-rs) is a quarter faster and far more to build; either
//! is far above the hash of what is sealed. A forged datagram costs a derivation and one opening for each key that the
//! group has, 0.7 us.

use std::collections::HashMap;
use std::fmt;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, Tag, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Prk, Salt};

use super::{KIND, Refusal, SEALED, Seal, version_of};
use crate::keys::GroupKey;
use crate::wire::VERSION;
use crate::wire::datagram::{DATA, FRONT};
use crate::wire::window::{Seen, Window};

/// Bytes behind every datagram: the tag, and the process's start.
pub const ROOM: usize = TAG + START;
const TAG: usize = 16;
const START: usize = 4;
/// The sources that are remembered; of more, the half that was heard longest ago is forgotten.
pub const MAX_SOURCES: usize = 20_000;
/// The most sources of data that are remembered: each takes a key, and up to [`DATA_WORDS`] words.
pub const MAX_STREAMS: usize = 256;
/// Words of the window over messages, 64 numbers each: what goes to all may wait in a socket's buffer while what goes to
/// one host overtakes it.
const CONTROL_WORDS: usize = 64;
/// Words of the window over data: two interfaces may be as far apart as their receive buffers are deep.
const DATA_WORDS: usize = 1024;
/// What the keys are for: the salt of their derivation.
const PURPOSE: &[u8] = b"makuo datagrams v1";

/// A process, as its datagrams name it: the source of their front, and its start.
type Process = ([u8; 8], [u8; START]);

/// Seals with a group's first key and opens with any.
pub struct Sealed {
    keys: Vec<Root>,
    start: [u8; START],
    own: Option<Own>,
    sources: HashMap<Process, Source>,
    streams: usize,
    /// Datagrams opened: tells which source was heard last.
    clock: u64,
}

/// A group key, ready to derive from.
struct Root {
    key: GroupKey,
    prk: Prk,
}

/// What this process seals with.
struct Own {
    source: [u8; 8],
    key: LessSafeKey,
    /// The counters that were sealed last, of messages and of data.
    last: [u64; 2],
}

/// A process that was heard. Recorded words of many make many, so that each takes little memory.
struct Source {
    /// Under which of the keys.
    root: usize,
    heard: u64,
    control: Window,
    stream: Option<Box<Stream>>,
}

/// A process that sends data: its key is kept, as deriving it takes as long as opening a datagram.
struct Stream {
    key: LessSafeKey,
    window: Window,
}

impl Sealed {
    /// Seals with the first of `keys`, opens with all; `start` is fresh randomness from the system. `None` without keys.
    pub fn new(keys: &[GroupKey], start: [u8; START]) -> Option<Self> {
        let roots: Vec<Root> = keys.iter().map(Root::new).collect();
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

    /// The key of this process, and the counters that it has sealed.
    fn own(&mut self, source: [u8; 8]) -> Option<&mut Own> {
        if self.own.as_ref().is_none_or(|own| own.source != source) {
            let key = self.keys.first()?.derive(&(source, self.start))?;
            self.own = Some(Own {
                source,
                key,
                last: [0; 2],
            });
        }

        self.own.as_mut()
    }

    /// Opens what a process says that was heard before.
    fn open_known(
        &self,
        source: &Source,
        process: &Process,
        front: &Front,
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

    /// Opens what a process says that was not heard before, with whichever key does it.
    fn open_first(
        &mut self,
        process: Process,
        front: &Front,
        text: &mut [u8],
    ) -> Result<(), Refusal> {
        // A key that does not fit leaves noise behind.
        let copy = (self.keys.len() > 1).then(|| text.to_vec());
        for (root, key) in self.keys.iter().enumerate() {
            if let (Some(copy), true) = (&copy, root > 0) {
                text.copy_from_slice(copy);
            }
            let Some(key) = key.derive(&process) else {
                continue;
            };
            if front.open(&key, text) {
                let source = Source {
                    root,
                    heard: self.clock,
                    control: Window::new(CONTROL_WORDS),
                    stream: None,
                };
                self.make_room();
                self.sources.insert(process, source);
                return Ok(());
            }
        }

        Err(Refusal::Wrong)
    }

    /// Forgets the half that was heard longest ago, when there are too many.
    fn make_room(&mut self) {
        if self.sources.len() >= MAX_SOURCES {
            self.forget(|_| true);
        }
    }

    /// Of the sources that `fits`, forgets the half that was heard longest ago.
    fn forget(&mut self, fits: impl Fn(&Source) -> bool) {
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
        ROOM
    }

    fn seal(&mut self, datagram: &mut [u8]) {
        let start = self.start;
        let Some(end) = datagram.len().checked_sub(ROOM).filter(|end| *end >= FRONT) else {
            return datagram.fill(0);
        };

        datagram[KIND] |= SEALED;
        let (datagram, room) = datagram.split_at_mut(end);
        let front = Front::of(datagram);
        let tag = self
            .own(front.source())
            .and_then(|own| own.seal(&front, &mut datagram[FRONT..]));

        match tag {
            Some(tag) => {
                room[..TAG].copy_from_slice(tag.as_ref());
                room[TAG..].copy_from_slice(&start);
            }
            // Better lost than sealed with a nonce that was used: nobody takes a datagram of zeros.
            None => {
                tracing::error!(
                    "a defect in makuo: a datagram whose counter does not rise is not sent"
                );
                datagram.fill(0);
            }
        }
    }

    fn open<'a>(&mut self, datagram: &'a mut [u8]) -> Result<&'a [u8], Refusal> {
        match version_of(datagram) {
            Some(VERSION) => {}
            Some(_) => return Err(Refusal::Version),
            None => return Err(Refusal::Foreign),
        }

        if datagram[KIND] & SEALED == 0 {
            return Err(Refusal::Plain);
        }

        let Some(end) = datagram.len().checked_sub(ROOM).filter(|end| *end > FRONT) else {
            return Err(Refusal::Wrong);
        };

        let front = Front::of(datagram);
        let mut start = [0; START];
        start.copy_from_slice(&datagram[end + TAG..]);
        let (process, text) = ((front.source(), start), &mut datagram[FRONT..end + TAG]);
        self.clock += 1;

        match self.sources.get(&process) {
            // Cheap, and says nothing that a listener does not know.
            Some(source) if source.look(&front) != Seen::New => return Err(Refusal::Replayed),
            Some(source) if self.open_known(source, &process, &front, text) => {}
            Some(_) => return Err(Refusal::Wrong),
            None => self.open_first(process, &front, text)?,
        }

        if front.is_data()
            && self.streams >= MAX_STREAMS
            && self
                .sources
                .get(&process)
                .is_some_and(|s| s.stream.is_none())
        {
            self.forget(|source| source.stream.is_some());
        }

        let Some(source) = self.sources.get_mut(&process) else {
            return Err(Refusal::Wrong);
        };

        source.heard = self.clock;
        if front.is_data() && source.stream.is_none() {
            let key = self
                .keys
                .get(source.root)
                .and_then(|key| key.derive(&process))
                .ok_or(Refusal::Wrong)?;
            source.stream = Some(Box::new(Stream {
                key,
                window: Window::new(DATA_WORDS),
            }));
            self.streams += 1;
        }

        source.take(&front);
        datagram[KIND] &= !SEALED;
        Ok(&datagram[..end])
    }

    fn rekey(&mut self, keys: &[GroupKey], start: [u8; START]) -> bool {
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

impl Root {
    fn new(key: &GroupKey) -> Self {
        Self {
            key: key.clone(),
            prk: Salt::new(HKDF_SHA256, PURPOSE).extract(key.as_bytes()),
        }
    }

    /// The key of `process`. `None` never: the length is what the cipher asks for.
    fn derive(&self, (source, start): &Process) -> Option<LessSafeKey> {
        let context = [&source[..], &start[..]];
        let okm = self.prk.expand(&context, &AES_256_GCM).ok()?;
        Some(LessSafeKey::new(UnboundKey::from(okm)))
    }
}

impl Own {
    /// Encrypts `text`; `None` when the counter is not above that of the last datagram of the kind.
    fn seal(&mut self, front: &Front, text: &mut [u8]) -> Option<Tag> {
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

impl Source {
    fn look(&self, front: &Front) -> Seen {
        match front.is_data() {
            true => self
                .stream
                .as_ref()
                .map_or(Seen::New, |stream| stream.window.look(front.counter())),
            false => self.control.look(front.counter()),
        }
    }

    fn take(&mut self, front: &Front) {
        let window = match &mut self.stream {
            Some(stream) if front.is_data() => &mut stream.window,
            _ => &mut self.control,
        };
        window.take(front.counter());
    }
}

/// The front of a sealed datagram: what is authenticated beside the text, and what the nonce is made of.
struct Front([u8; FRONT]);

impl Front {
    /// Of a datagram that is long enough.
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

    /// Kind and counter: counters of messages and of data are apart.
    fn nonce(&self) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        nonce[0] = self.0[KIND];
        nonce[4..].copy_from_slice(&self.0[12..]);
        Nonce::assume_unique_for_key(nonce)
    }

    /// Decrypts `text`, behind which its tag stands; the tags are compared in constant time.
    fn open(&self, key: &LessSafeKey, text: &mut [u8]) -> bool {
        key.open_in_place(self.nonce(), Aad::from(self.0), text)
            .is_ok()
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
