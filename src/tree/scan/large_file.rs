//! Reads a large file: one thread cuts, others hash, and the blocks come back in order.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel};

use super::segments::{FileSegment, ReadFailure, Segments, hash_cuts};
use crate::block::BlockRef;
use crate::manifest::Content;
use crate::manifest::build::{ContentBuilder, NodeSink};
use crate::sync::locked;
use crate::tree::fs::sparse;

/// Threads that hash the output of one cutting thread: cutting is a little faster than hashing.
pub(super) const HASHER_THREADS: usize = 2;

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
        Hashed {
            number: self.number,
            blocks: HashedBlocks::These(hash_cuts(&self.bytes, &self.cuts)),
            bytes: self.bytes,
        }
    }
}

pub(super) fn read_large(
    segments: &mut Segments<'_>,
    hashers: usize,
    sink: &mut impl NodeSink<Error = io::Error>,
    is_stopped: &dyn Fn(u64) -> bool,
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
        cut_pieces(segments, pieces, results, &hashed, sink, is_stopped)
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
    is_stopped: &dyn Fn(u64) -> bool,
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
        if is_stopped(segments.offset) {
            return Err(ReadFailure::Stopped);
        }
        let cuts = match segment {
            FileSegment::Cuts(cuts) => cuts,
            FileSegment::Holes(count) => {
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
