//! Reads one file, cuts its content into blocks and hashes them.
//!
//! Further threads hash a large file during the cut. Holes are not read: within a run of zeros the
//! next block is [`sparse::hole`].

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

/// Bytes per read.
const SEGMENT_BYTES: usize = 1 << 20;
/// File size in bytes from which several threads hash.
const LARGE_FILE_BYTES: u64 = 8 << 20;
/// Threads that hash the output of one cutting thread: cutting is a little faster than hashing.
const HASHER_THREADS: usize = 2;

/// Reason for missing content.
#[derive(Debug)]
pub(super) enum ReadFailure {
    /// The file has become shorter.
    Shorter,
    /// The scan failed elsewhere.
    Stopped,
    /// I/O error of the file or of the sink of list nodes.
    Io(io::Error),
}

impl From<io::Error> for ReadFailure {
    fn from(e: io::Error) -> Self {
        ReadFailure::Io(e)
    }
}

/// Reads the first `size` bytes of `file` with up to `threads` threads, and polls `stopped`
/// meanwhile. `holes` marks a file with possible holes.
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

    if threads > 1 && size >= LARGE_FILE_BYTES {
        return read_large(
            &mut segments,
            threads.min(HASHER_THREADS + 1) - 1,
            sink,
            stopped,
        );
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

/// Returns whether the file has exactly this content.
pub(in crate::tree) fn holds(file: &File, content: &Content) -> io::Result<bool> {
    let now = FileStat::of(file)?;
    if now.size != content.size() {
        return Ok(false);
    }

    match read(
        file,
        now.size,
        now.has_holes(),
        HASHER_THREADS + 1,
        &mut Vec::new(),
        &mut DiscardNodes,
        &|| false,
    ) {
        Ok(found) => Ok(found == *content),
        Err(ReadFailure::Io(e)) => Err(e),
        Err(ReadFailure::Shorter | ReadFailure::Stopped) => Ok(false),
    }
}

/// Sink that drops list nodes, for callers that need only the hashes.
struct DiscardNodes;

impl NodeSink for DiscardNodes {
    type Error = io::Error;

    fn put(&mut self, _: BlockRef, _: Vec<u8>) -> io::Result<()> {
        Ok(())
    }
}

/// Reader that cuts a file into blocks, segment by segment.
struct Segments<'a> {
    file: &'a File,
    size: u64,
    offset: u64,
    /// Bytes after the last cut.
    rest: Vec<u8>,
    /// Data range found last; `None` if holes are not looked up.
    data: Option<Range<u64>>,
}

/// Next part of a file.
enum Segment {
    /// The ranges of complete blocks in the buffer.
    Cuts(Vec<Range<usize>>),
    /// Number of whole blocks in a hole.
    Holes(u64),
}

impl Segments<'_> {
    /// Fills `buffer` with the next segment; `None` at the end.
    fn next(&mut self, buffer: &mut Vec<u8>) -> Result<Option<Segment>, ReadFailure> {
        if self.offset == self.size && self.rest.is_empty() {
            return Ok(None);
        }

        let holes = self.holes()?;
        if holes > 0 {
            // The carried-over bytes lie in the hole, too.
            self.offset = self.offset - self.rest.len() as u64 + holes * chunk::MAX as u64;
            self.rest.clear();
            return Ok(Some(Segment::Holes(holes)));
        }

        buffer.clear();
        buffer.append(&mut self.rest);
        let carried = buffer.len();
        let wanted = usize::try_from(self.size - self.offset)
            .map_or(SEGMENT_BYTES, |left| left.min(SEGMENT_BYTES));
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

    /// Returns the number of whole blocks from here that lie in a hole.
    ///
    /// Cuts do not depend on earlier blocks: a block that begins in a long enough hole is the
    /// longest block of zeros.
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

/// Consecutive blocks.
enum HashedBlocks {
    These(Vec<BlockRef>),
    /// Number of whole blocks in a hole.
    Holes(u64),
}

struct CutPiece {
    number: u64,
    bytes: Vec<u8>,
    cuts: Vec<Range<usize>>,
}

struct Hashed {
    number: u64,
    blocks: HashedBlocks,
    /// The buffer, for reuse.
    bytes: Vec<u8>,
}

impl CutPiece {
    fn hash(self) -> Hashed {
        let blocks = self
            .cuts
            .into_iter()
            .map(|c| BlockRef::of(&self.bytes[c]))
            .collect();
        Hashed {
            number: self.number,
            blocks: HashedBlocks::These(blocks),
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
    let (pieces, work) = sync_channel::<CutPiece>(hashers);
    let work = Mutex::new(work);
    std::thread::scope(|scope| {
        let (results, hashed) = channel();
        for _ in 0..hashers {
            let results = results.clone();
            let work = &work;
            scope.spawn(move || hash_pieces(work, &results));
        }
        // `pieces` is moved in, so the hashers end with this call, even on an error.
        cut_pieces(segments, pieces, results, &hashed, sink, stopped)
    })
}

fn hash_pieces(work: &Mutex<Receiver<CutPiece>>, results: &Sender<Hashed>) {
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
    pieces: SyncSender<CutPiece>,
    results: Sender<Hashed>,
    hashed: &Receiver<Hashed>,
    sink: &mut impl NodeSink<Error = io::Error>,
    stopped: &dyn Fn() -> bool,
) -> Result<Content, ReadFailure> {
    let mut reassembler = Reassembler {
        next: 0,
        waiting: BTreeMap::new(),
        content: ContentBuilder::default(),
        spare: Vec::new(),
    };

    let mut number = 0;
    loop {
        let mut bytes = reassembler.spare.pop().unwrap_or_default();
        let Some(segment) = segments.next(&mut bytes)? else {
            break;
        };
        if stopped() {
            return Err(ReadFailure::Stopped);
        }
        let cuts = match segment {
            Segment::Cuts(cuts) => cuts,
            Segment::Holes(count) => {
                reassembler.add(
                    Hashed {
                        number,
                        blocks: HashedBlocks::Holes(count),
                        bytes,
                    },
                    sink,
                )?;
                number += 1;
                continue;
            }
        };
        match pieces.try_send(CutPiece {
            number,
            bytes,
            cuts,
        }) {
            Ok(()) => {}
            // The hashers are behind: hash this piece here.
            Err(TrySendError::Full(piece) | TrySendError::Disconnected(piece)) => {
                reassembler.add(piece.hash(), sink)?
            }
        }
        number += 1;
        while let Ok(done) = hashed.try_recv() {
            reassembler.add(done, sink)?;
        }
    }

    drop((pieces, results));
    while reassembler.next < number {
        let done = hashed
            .recv()
            .map_err(|_| io::Error::other("a thread that hashes ended early"))?;
        reassembler.add(done, sink)?;
    }

    Ok(reassembler.content.finish(sink)?)
}

/// Restores the order of hashed pieces.
struct Reassembler {
    next: u64,
    waiting: BTreeMap<u64, HashedBlocks>,
    content: ContentBuilder,
    spare: Vec<Vec<u8>>,
}

impl Reassembler {
    fn add(&mut self, done: Hashed, sink: &mut impl NodeSink<Error = io::Error>) -> io::Result<()> {
        self.spare.push(done.bytes);
        self.waiting.insert(done.number, done.blocks);
        while let Some(blocks) = self.waiting.remove(&self.next) {
            self.next += 1;
            match blocks {
                HashedBlocks::These(blocks) => blocks
                    .into_iter()
                    .try_for_each(|block| self.content.push(block, sink))?,
                HashedBlocks::Holes(count) => {
                    self.content.push_many(sparse::hole(), count, sink)?
                }
            }
        }

        Ok(())
    }
}

#[cfg(test)]
mod tests;
