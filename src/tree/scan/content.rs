//! The content of one file as blocks: read, cut, hashed. A large file is hashed by further threads while it is cut.
//!
//! Holes are not read: where nothing but zeros follows, the next block is [`sparse::hole`].

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
use crate::sync::locked;
use crate::tree::fs::sparse;
use crate::tree::fs::stat::FileStat;

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

/// Reads the `size` bytes of `file`, which may have holes, with up to `threads` threads. `stopped` is asked now and then.
pub(super) fn read(
    file: &File,
    size: u64,
    holes: bool,
    threads: usize,
    buffer: &mut Vec<u8>,
    sink: &mut impl NodeSink<Error = io::Error>,
    stopped: &dyn Fn() -> bool,
) -> Result<Content, ReadFailure> {
    let mut segments = Segments {
        file,
        size,
        offset: 0,
        rest: Vec::new(),
        data: holes.then_some(0..0),
    };

    if threads > 1 && size >= LARGE {
        return read_large(&mut segments, threads.min(HASHERS + 1) - 1, sink, stopped);
    }

    let mut content = ContentBuilder::default();
    while let Some(segment) = segments.next(buffer)? {
        if stopped() {
            return Err(ReadFailure::Stopped);
        }
        match segment {
            Segment::Holes(count) => content.push_many(sparse::hole(), count, sink)?,
            Segment::Cuts(cuts) => {
                for cut in cuts {
                    content.push(BlockRef::of(&buffer[cut]), sink)?;
                }
            }
        }
    }

    Ok(content.finish(sink)?)
}

/// Whether the file holds exactly this content.
pub(in crate::tree) fn holds(file: &File, content: &Content) -> io::Result<bool> {
    let now = FileStat::of(file)?;
    if now.size != content.size() {
        return Ok(false);
    }

    match read(
        file,
        now.size,
        now.has_holes(),
        HASHERS + 1,
        &mut Vec::new(),
        &mut Nowhere,
        &|| false,
    ) {
        Ok(found) => Ok(found == *content),
        Err(ReadFailure::Io(e)) => Err(e),
        Err(ReadFailure::Shorter | ReadFailure::Stopped) => Ok(false),
    }
}

/// List nodes of which the names are enough.
struct Nowhere;

impl NodeSink for Nowhere {
    type Error = io::Error;

    fn put(&mut self, _: BlockRef, _: Vec<u8>) -> io::Result<()> {
        Ok(())
    }
}

/// A file cut into blocks, piece by piece.
struct Segments<'a> {
    file: &'a File,
    size: u64,
    offset: u64,
    /// What came after the last cut.
    rest: Vec<u8>,
    /// The stretch of data that was found last; `None` when holes are not looked for.
    data: Option<Range<u64>>,
}

/// What comes next in a file.
enum Segment {
    /// Bytes, and where their blocks are.
    Cuts(Vec<Range<usize>>),
    /// So many blocks of a hole.
    Holes(u64),
}

impl Segments<'_> {
    /// Fills `buffer` with the next piece; `None` at the end.
    fn next(&mut self, buffer: &mut Vec<u8>) -> Result<Option<Segment>, ReadFailure> {
        if self.offset == self.size && self.rest.is_empty() {
            return Ok(None);
        }

        let holes = self.holes()?;
        if holes > 0 {
            // What is carried over lies in the hole, too.
            self.offset = self.offset - self.rest.len() as u64 + holes * chunk::MAX as u64;
            self.rest.clear();
            return Ok(Some(Segment::Holes(holes)));
        }

        buffer.clear();
        buffer.append(&mut self.rest);
        let carried = buffer.len();
        let wanted =
            usize::try_from(self.size - self.offset).map_or(SEGMENT, |left| left.min(SEGMENT));
        buffer.resize(carried + wanted, 0);

        match self.file.read_exact_at(&mut buffer[carried..], self.offset) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Err(ReadFailure::Shorter),
            read => read?,
        }

        self.offset += wanted as u64;
        let cuts: Vec<_> = chunk::cuts(buffer, self.offset == self.size).collect();
        let end = cuts.last().map_or(0, |c| c.end);
        self.rest.extend_from_slice(&buffer[end..]);

        Ok(Some(Segment::Cuts(cuts)))
    }

    /// How many blocks from here on are nothing but a hole. A block depends on none before it: where one begins in a
    /// hole that is long enough, it is the longest block of zeros.
    fn holes(&mut self) -> io::Result<u64> {
        let at = self.offset - self.rest.len() as u64;
        let Some(data) = &mut self.data else {
            return Ok(0);
        };

        if at >= data.end {
            *data = match sparse::next_data(self.file, at, self.size)? {
                Some((start, end)) => start..end,
                None => self.size..self.size,
            };
        }

        Ok(data.start.saturating_sub(at) / chunk::MAX as u64)
    }
}

/// Blocks that follow each other.
enum Blocks {
    These(Vec<BlockRef>),
    /// So many blocks of a hole.
    Holes(u64),
}

struct Piece {
    number: u64,
    bytes: Vec<u8>,
    cuts: Vec<Range<usize>>,
}

struct Hashed {
    number: u64,
    blocks: Blocks,
    /// The buffer, to be filled again.
    bytes: Vec<u8>,
}

impl Piece {
    fn hash(self) -> Hashed {
        let blocks = self
            .cuts
            .into_iter()
            .map(|c| BlockRef::of(&self.bytes[c]))
            .collect();
        Hashed {
            number: self.number,
            blocks: Blocks::These(blocks),
            bytes: self.bytes,
        }
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
    let mut order = Order {
        next: 0,
        waiting: BTreeMap::new(),
        content: ContentBuilder::default(),
        spare: Vec::new(),
    };

    let mut number = 0;
    loop {
        let mut bytes = order.spare.pop().unwrap_or_default();
        let Some(segment) = segments.next(&mut bytes)? else {
            break;
        };
        if stopped() {
            return Err(ReadFailure::Stopped);
        }
        let cuts = match segment {
            Segment::Cuts(cuts) => cuts,
            Segment::Holes(count) => {
                order.add(
                    Hashed {
                        number,
                        blocks: Blocks::Holes(count),
                        bytes,
                    },
                    sink,
                )?;
                number += 1;
                continue;
            }
        };
        match pieces.try_send(Piece {
            number,
            bytes,
            cuts,
        }) {
            Ok(()) => {}
            // The hashers are behind: help them.
            Err(TrySendError::Full(piece) | TrySendError::Disconnected(piece)) => {
                order.add(piece.hash(), sink)?
            }
        }
        number += 1;
        while let Ok(done) = hashed.try_recv() {
            order.add(done, sink)?;
        }
    }

    drop((pieces, results));
    while order.next < number {
        let done = hashed
            .recv()
            .map_err(|_| io::Error::other("a thread that hashes ended early"))?;
        order.add(done, sink)?;
    }

    Ok(order.content.finish(sink)?)
}

/// Puts pieces back into their order.
struct Order {
    next: u64,
    waiting: BTreeMap<u64, Blocks>,
    content: ContentBuilder,
    spare: Vec<Vec<u8>>,
}

impl Order {
    fn add(&mut self, done: Hashed, sink: &mut impl NodeSink<Error = io::Error>) -> io::Result<()> {
        self.spare.push(done.bytes);
        self.waiting.insert(done.number, done.blocks);
        while let Some(blocks) = self.waiting.remove(&self.next) {
            self.next += 1;
            match blocks {
                Blocks::These(blocks) => blocks
                    .into_iter()
                    .try_for_each(|block| self.content.push(block, sink))?,
                Blocks::Holes(count) => self.content.push_many(sparse::hole(), count, sink)?,
            }
        }

        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::block::BlockHash;
    use crate::tree::fs::root::FileId;
    use crate::tree::index::IndexWriter;

    #[test]
    fn many_threads_read_what_one_reads() {
        let dir = tempfile::tempdir().unwrap();
        let id = FileId { dev: 1, ino: 1 };
        let mut rng = fastrand::Rng::with_seed(9);
        let bytes: Vec<u8> = std::iter::repeat_with(|| rng.u8(..))
            .take((LARGE as usize) + (5 << 20) + 77)
            .collect();
        let mut file = tempfile::tempfile().unwrap();

        file.write_all(&bytes).unwrap();
        let mut sink = IndexWriter::create(&dir.path().join("i"), id).unwrap();
        let mut content = |threads, size| {
            read(
                &file,
                size,
                true,
                threads,
                &mut Vec::new(),
                &mut sink,
                &|| false,
            )
        };

        let one = content(1, bytes.len() as u64).unwrap();
        let many = content(3, bytes.len() as u64).unwrap();
        assert_eq!(one, many);
        let Content::Blocks(blocks) = one else {
            panic!("few blocks")
        };

        let direct: Vec<BlockRef> = chunk::cuts(&bytes, true)
            .map(|r| BlockRef::of(&bytes[r]))
            .collect();
        assert_eq!(blocks, direct);
        assert!(matches!(
            content(1, bytes.len() as u64 + 1),
            Err(ReadFailure::Shorter)
        ));

        assert!(matches!(
            content(3, bytes.len() as u64 + 1),
            Err(ReadFailure::Shorter)
        ));
        assert_eq!(content(1, 0).unwrap(), Content::Blocks(Vec::new()));
        let stopped = read(
            &file,
            bytes.len() as u64,
            false,
            3,
            &mut Vec::new(),
            &mut sink,
            &|| true,
        );

        assert!(matches!(stopped, Err(ReadFailure::Stopped)));
    }

    /// Blocks and list nodes.
    type Found = (Content, std::collections::HashMap<BlockHash, Vec<u8>>);

    fn content(file: &File, size: u64, holes: bool, threads: usize) -> Found {
        struct Sink(std::collections::HashMap<BlockHash, Vec<u8>>);
        impl NodeSink for Sink {
            type Error = io::Error;
            fn put(&mut self, block: BlockRef, bytes: Vec<u8>) -> io::Result<()> {
                self.0.insert(block.hash, bytes);
                Ok(())
            }
        }

        let mut sink = Sink(Default::default());
        let content = read(
            file,
            size,
            holes,
            threads,
            &mut Vec::new(),
            &mut sink,
            &|| false,
        )
        .unwrap();

        (content, sink.0)
    }

    #[test]
    fn a_file_read_by_its_holes_is_the_file_read_whole() {
        let seed = std::env::var("MAKUO_SPARSE_SEED")
            .ok()
            .and_then(|s| s.parse().ok())
            .unwrap_or(1);
        let rounds = std::env::var("MAKUO_SPARSE_ROUNDS")
            .ok()
            .and_then(|s| s.parse().ok())
            .unwrap_or(12);

        println!("MAKUO_SPARSE_SEED={seed} MAKUO_SPARSE_ROUNDS={rounds}");
        let mut rng = fastrand::Rng::with_seed(seed);
        for round in 0..rounds {
            let file = tempfile::tempfile().unwrap();
            let mut size = 0;
            for _ in 0..rng.usize(..8) {
                // A hole, then data, some of which are zeros, too.
                size += [
                    0,
                    rng.u64(..5000),
                    rng.u64(..3 << 20),
                    chunk::MAX as u64 * rng.u64(..9),
                ][rng.usize(..4)];
                let length = [0, 1, rng.usize(..9000), rng.usize(..700_000)][rng.usize(..4)];
                let zeros = rng.bool();
                let bytes: Vec<u8> = (0..length)
                    .map(|_| if zeros { 0 } else { rng.u8(..) })
                    .collect();
                file.write_all_at(&bytes, size).unwrap();
                size += length as u64;
            }
            size += [0, rng.u64(..3 << 20), chunk::MAX as u64 * 3][rng.usize(..3)];
            file.set_len(size).unwrap();
            let whole = content(&file, size, false, 1);
            for threads in [1, 3] {
                assert!(
                    content(&file, size, true, threads) == whole,
                    "seed {seed}, round {round}, {threads} threads"
                );
            }
        }
    }

    #[test]
    fn a_terabyte_of_nothing_is_not_read_and_names_one_list() {
        let file = tempfile::tempfile().unwrap();
        let size = 1 << 40;
        if let Err(e) = file.set_len(size) {
            return println!("skipped: no file of this size here: {e}");
        }

        let (content, nodes) = content(&file, size, true, 2);
        assert_eq!(content.block_count(), size / chunk::MAX as u64);
        assert_eq!((content.size(), nodes.len()), (size, 1));
    }
}
