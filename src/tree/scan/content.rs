//! The content of one file as blocks: read, cut, hashed. A large file is hashed by further threads while it is cut.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel};

use crate::block::{BlockRef, chunk};
use crate::manifest::Content;
use crate::manifest::build::{ContentBuilder, NodeSink};
use crate::tree::meta::locked;

/// How much is read in one go, in bytes.
const SEGMENT: usize = 1 << 20;
/// Files from this size on are hashed by more than one thread, in bytes.
const LARGE: u64 = 8 << 20;
/// Threads that hash what one thread cuts: cutting is a little quicker than hashing.
const HASHERS: usize = 2;

/// Why a file's content is not at hand.
#[derive(Debug)]
pub(super) enum ReadFailure {
    /// It has fewer bytes than it had.
    Shorter,
    /// The scan has failed elsewhere.
    Stopped,
    /// The file, or the sink of its list nodes, failed.
    Io(io::Error),
}

impl From<io::Error> for ReadFailure {
    fn from(e: io::Error) -> Self {
        ReadFailure::Io(e)
    }
}

/// Reads the `size` bytes of `file` with up to `threads` threads. `stopped` is asked now and then.
pub(super) fn read(
    file: &File,
    size: u64,
    threads: usize,
    buffer: &mut Vec<u8>,
    sink: &mut impl NodeSink<Error = io::Error>,
    stopped: &dyn Fn() -> bool,
) -> Result<Content, ReadFailure> {
    let mut segments = Segments { file, size, offset: 0, rest: Vec::new() };
    if threads > 1 && size >= LARGE {
        return read_large(&mut segments, threads.min(HASHERS + 1) - 1, sink, stopped);
    }
    let mut content = ContentBuilder::default();
    while let Some(cuts) = segments.next(buffer)? {
        if stopped() {
            return Err(ReadFailure::Stopped);
        }
        for cut in cuts {
            content.push(BlockRef::of(&buffer[cut]), sink)?;
        }
    }
    Ok(content.finish(sink)?)
}

/// A file cut into blocks, piece by piece.
struct Segments<'a> {
    file: &'a File,
    size: u64,
    offset: u64,
    /// What came after the last cut.
    rest: Vec<u8>,
}

impl Segments<'_> {
    /// Fills `buffer` with the next piece and says where its blocks are; `None` at the end.
    fn next(&mut self, buffer: &mut Vec<u8>) -> Result<Option<Vec<Range<usize>>>, ReadFailure> {
        if self.offset == self.size && self.rest.is_empty() {
            return Ok(None);
        }
        buffer.clear();
        buffer.append(&mut self.rest);
        let carried = buffer.len();
        let wanted = usize::try_from(self.size - self.offset).map_or(SEGMENT, |left| left.min(SEGMENT));
        buffer.resize(carried + wanted, 0);
        match self.file.read_exact_at(&mut buffer[carried..], self.offset) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Err(ReadFailure::Shorter),
            read => read?,
        }
        self.offset += wanted as u64;
        let cuts: Vec<_> = chunk::cuts(buffer, self.offset == self.size).collect();
        let end = cuts.last().map_or(0, |c| c.end);
        self.rest.extend_from_slice(&buffer[end..]);
        Ok(Some(cuts))
    }
}

struct Piece {
    number: u64,
    bytes: Vec<u8>,
    cuts: Vec<Range<usize>>,
}

struct Hashed {
    number: u64,
    blocks: Vec<BlockRef>,
    /// The buffer, to be filled again.
    bytes: Vec<u8>,
}

impl Piece {
    fn hash(self) -> Hashed {
        let blocks = self.cuts.into_iter().map(|c| BlockRef::of(&self.bytes[c])).collect();
        Hashed { number: self.number, blocks, bytes: self.bytes }
    }
}

fn read_large(
    segments: &mut Segments<'_>,
    hashers: usize,
    sink: &mut impl NodeSink<Error = io::Error>,
    stopped: &dyn Fn() -> bool,
) -> Result<Content, ReadFailure> {
    let (pieces, work) = sync_channel::<Piece>(hashers);
    let work = Mutex::new(work);
    std::thread::scope(|scope| {
        let (results, hashed) = channel();
        for _ in 0..hashers {
            let (results, work) = (results.clone(), &work);
            scope.spawn(move || hash_pieces(work, &results));
        }
        // `pieces` is moved in, so that the hashers end when this does, however it does.
        cut_pieces(segments, pieces, results, &hashed, sink, stopped)
    })
}

fn hash_pieces(work: &Mutex<Receiver<Piece>>, results: &Sender<Hashed>) {
    loop {
        let next = locked(work).recv();
        let Ok(piece) = next else { return };
        if results.send(piece.hash()).is_err() {
            return;
        }
    }
}

fn cut_pieces(
    segments: &mut Segments<'_>,
    pieces: SyncSender<Piece>,
    results: Sender<Hashed>,
    hashed: &Receiver<Hashed>,
    sink: &mut impl NodeSink<Error = io::Error>,
    stopped: &dyn Fn() -> bool,
) -> Result<Content, ReadFailure> {
    let mut order = Order { next: 0, waiting: BTreeMap::new(), content: ContentBuilder::default(), spare: Vec::new() };
    let mut number = 0;
    loop {
        let mut bytes = order.spare.pop().unwrap_or_default();
        let Some(cuts) = segments.next(&mut bytes)? else { break };
        if stopped() {
            return Err(ReadFailure::Stopped);
        }
        match pieces.try_send(Piece { number, bytes, cuts }) {
            Ok(()) => {}
            // The hashers are behind: help them.
            Err(TrySendError::Full(piece) | TrySendError::Disconnected(piece)) => order.add(piece.hash(), sink)?,
        }
        number += 1;
        while let Ok(done) = hashed.try_recv() {
            order.add(done, sink)?;
        }
    }
    drop((pieces, results));
    while order.next < number {
        let done = hashed.recv().map_err(|_| io::Error::other("a thread that hashes ended early"))?;
        order.add(done, sink)?;
    }
    Ok(order.content.finish(sink)?)
}

/// Puts pieces back into their order.
struct Order {
    next: u64,
    waiting: BTreeMap<u64, Vec<BlockRef>>,
    content: ContentBuilder,
    spare: Vec<Vec<u8>>,
}

impl Order {
    fn add(&mut self, done: Hashed, sink: &mut impl NodeSink<Error = io::Error>) -> io::Result<()> {
        self.spare.push(done.bytes);
        self.waiting.insert(done.number, done.blocks);
        while let Some(blocks) = self.waiting.remove(&self.next) {
            self.next += 1;
            for block in blocks {
                self.content.push(block, sink)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::tree::index::IndexWriter;
    use crate::tree::root::FileId;

    #[test]
    fn many_threads_read_what_one_reads() {
        let dir = tempfile::tempdir().unwrap();
        let id = FileId { dev: 1, ino: 1 };
        let mut rng = fastrand::Rng::with_seed(9);
        let bytes: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take((LARGE as usize) + (5 << 20) + 77).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        let mut sink = IndexWriter::create(&dir.path().join("i"), id).unwrap();
        let mut content = |threads, size| read(&file, size, threads, &mut Vec::new(), &mut sink, &|| false);
        let one = content(1, bytes.len() as u64).unwrap();
        let many = content(3, bytes.len() as u64).unwrap();
        assert_eq!(one, many);
        let Content::Blocks(blocks) = one else { panic!("few blocks") };
        let direct: Vec<BlockRef> = chunk::cuts(&bytes, true).map(|r| BlockRef::of(&bytes[r])).collect();
        assert_eq!(blocks, direct);
        assert!(matches!(content(1, bytes.len() as u64 + 1), Err(ReadFailure::Shorter)));
        assert!(matches!(content(3, bytes.len() as u64 + 1), Err(ReadFailure::Shorter)));
        assert_eq!(content(1, 0).unwrap(), Content::Blocks(Vec::new()));
        let stopped = read(&file, bytes.len() as u64, 3, &mut Vec::new(), &mut sink, &|| true);
        assert!(matches!(stopped, Err(ReadFailure::Stopped)));
    }
}
