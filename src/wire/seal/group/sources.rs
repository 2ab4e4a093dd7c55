//! Processes whose datagrams opened, with the windows of their counters, in bounded memory.

use std::collections::HashMap;

use ring::aead::LessSafeKey;

use super::front::SealedFront;
use super::process_keys::{PreparedKey, Process};
use crate::wire::datagram::{DATA, PEER, RELAYED};
use crate::wire::window::{ReplayWindow, Seen};

/// Largest number of remembered sources; beyond it, the half heard longest ago is forgotten.
pub(super) const MAX_SEALED_SOURCES: usize = 20_000;
/// Largest number of remembered data sources: each takes a key, and up to [`DATA_WORDS`] words.
pub(super) const MAX_DATA_SOURCES: usize = 256;
/// Words of the window over messages, 64 numbers each. A message to the group may wait in a
/// socket's buffer while one to a single host overtakes it.
const CONTROL_WORDS: usize = 64;
/// Words of the window over datagrams between peers: few, and of little value when repeated.
const PEER_WORDS: usize = 4;
/// Words of the window over data: two interfaces may be as far apart as their receive buffers are
/// deep.
const DATA_WORDS: usize = 1024;

/// The processes, by their ids and starts.
#[derive(Default)]
pub(super) struct KnownSources {
    sources: HashMap<Process, KnownSource>,
    /// Number of sources that send data.
    streams: usize,
    /// Datagrams opened: orders sources by the time of their last datagram.
    clock: u64,
}

/// A process whose datagrams opened. Replayed recordings can add many, so each takes little memory.
pub(super) struct KnownSource {
    /// Index of the group key.
    root: usize,
    heard: u64,
    control: ReplayWindow,
    peer: ReplayWindow,
    stream: Option<Box<DataStream>>,
}

/// State of a process that sends data. The key is kept, because deriving it takes as long as
/// opening a datagram.
struct DataStream {
    key: LessSafeKey,
    window: ReplayWindow,
}

impl KnownSources {
    /// Number of sources.
    pub(super) fn len(&self) -> usize {
        self.sources.len()
    }

    /// Number of sources that send data, as counted so far and as they are.
    #[cfg(test)]
    pub(super) fn streams(&self) -> (usize, usize) {
        let streams = self.sources.values().filter(|s| s.stream.is_some());
        (self.streams, streams.count())
    }

    /// Counts a datagram.
    pub(super) fn tick(&mut self) {
        self.clock += 1;
    }

    /// Returns a known source.
    pub(super) fn get(&self, process: &Process) -> Option<&KnownSource> {
        self.sources.get(process)
    }

    /// Adds a source with the group key at index `root`. Forgets the half heard longest ago, if
    /// there are too many.
    pub(super) fn add(&mut self, process: Process, root: usize) {
        if self.sources.len() >= MAX_SEALED_SOURCES {
            self.forget(|_| true);
        }

        let source = KnownSource {
            root,
            heard: self.clock,
            control: ReplayWindow::new(CONTROL_WORDS),
            peer: ReplayWindow::new(PEER_WORDS),
            stream: None,
        };
        self.sources.insert(process, source);
    }

    /// Takes the counter of a datagram that opened. `None` if the source is not known.
    pub(super) fn take(
        &mut self,
        process: &Process,
        front: &SealedFront,
        keys: &[PreparedKey],
    ) -> Option<()> {
        let mut source = self.sources.get_mut(process)?;
        let starts_stream = front.is_data() && source.stream.is_none();
        if starts_stream && self.streams >= MAX_DATA_SOURCES {
            self.forget(|source| source.stream.is_some());
            source = self.sources.get_mut(process)?;
        }

        source.heard = self.clock;
        if starts_stream {
            source.stream = Some(Box::new(DataStream {
                key: source.derive(process, keys)?,
                window: ReplayWindow::new(DATA_WORDS),
            }));
            self.streams += 1;
        }

        source.take(front);
        Some(())
    }

    /// Follows a change of the group keys: `places` has the new index of each, or `None` for one
    /// that is gone, with its sources.
    pub(super) fn rekey(&mut self, places: &[Option<usize>]) {
        self.sources
            .retain(|_, source| match places.get(source.root) {
                Some(&Some(place)) => {
                    source.root = place;
                    true
                }
                _ => false,
            });

        self.count_streams();
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

        self.count_streams();
    }

    fn count_streams(&mut self) {
        self.streams = self.sources.values().filter(|s| s.stream.is_some()).count();
    }
}

impl KnownSource {
    /// Decrypts a datagram of `process` in place; returns whether that succeeds.
    pub(super) fn open(
        &self,
        process: &Process,
        front: &SealedFront,
        text: &mut [u8],
        keys: &[PreparedKey],
    ) -> bool {
        match &self.stream {
            Some(stream) => front.open(&stream.key, text),
            None => self
                .derive(process, keys)
                .is_some_and(|key| front.open(&key, text)),
        }
    }

    fn derive(&self, process: &Process, keys: &[PreparedKey]) -> Option<LessSafeKey> {
        keys.get(self.root)?.derive(process)
    }

    /// Returns whether the datagram came before.
    pub(super) fn look(&self, front: &SealedFront) -> Seen {
        match front.kind() {
            DATA | RELAYED => self
                .stream
                .as_ref()
                .map_or(Seen::New, |stream| stream.window.look(front.counter())),
            PEER => self.peer.look(front.counter()),
            _ => self.control.look(front.counter()),
        }
    }

    fn take(&mut self, front: &SealedFront) {
        let window = match (&mut self.stream, front.kind()) {
            (Some(stream), DATA | RELAYED) => &mut stream.window,
            (_, PEER) => &mut self.peer,
            _ => &mut self.control,
        };
        window.take(front.counter());
    }
}
