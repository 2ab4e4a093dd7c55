//! Reads one file, cuts its content into blocks and hashes them.
//!
//! Further threads hash a large file during the cut. Holes are not read: within a run of zeros the
//! next block is [`sparse::hole`].

use std::fs::File;
use std::io;

use super::large_file::{HASHER_THREADS, read_large};
use super::segments::{FileSegment, ReadFailure, Segments, hash_cuts};
use crate::block::BlockRef;
use crate::manifest::Content;
use crate::manifest::build::{ContentBuilder, NodeSink};
use crate::tree::fs::sparse;
use crate::tree::fs::stat::FileStat;

/// File size in bytes from which several threads hash.
const LARGE_FILE_BYTES: u64 = 8 << 20;

/// Reads the first `size` bytes of `file` with up to `threads` threads. `holes` marks a file with
/// possible holes. `is_stopped` is told the bytes done after each segment.
pub(super) fn read(
    file: &File,
    size: u64,
    holes: bool,
    threads: usize,
    buffer: &mut Vec<u8>,
    sink: &mut impl NodeSink<Error = io::Error>,
    is_stopped: &dyn Fn(u64) -> bool,
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
            is_stopped,
        );
    }

    let mut content = ContentBuilder::default();
    while let Some(segment) = segments.next(buffer)? {
        if is_stopped(segments.offset) {
            return Err(ReadFailure::Stopped);
        }
        match segment {
            FileSegment::Holes(count) => content.push_many(sparse::hole(), count, sink)?,
            FileSegment::Cuts(cuts) => match &cuts[..] {
                // Most files are one block.
                [cut] => content.push(BlockRef::of(&buffer[cut.clone()]), sink)?,
                cuts => {
                    for block in hash_cuts(buffer, cuts) {
                        content.push(block, sink)?;
                    }
                }
            },
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
        &|_| false,
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

#[cfg(test)]
mod tests;
