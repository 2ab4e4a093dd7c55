//! The data and holes of a file, read in order.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use crate::block::{BlockRef, chunk};
use crate::tree::fs::sparse;

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

/// Bytes per read.
pub(super) const SEGMENT_BYTES: usize = 1 << 20;

/// Reader that cuts a file into blocks, segment by segment.
pub(super) struct Segments<'a> {
    pub(super) file: &'a File,
    pub(super) size: u64,
    pub(super) offset: u64,
    /// Bytes after the last cut.
    pub(super) rest: Vec<u8>,
    /// Data range found last; `None` if holes are not looked up.
    pub(super) data: Option<Range<u64>>,
}

/// Next part of a file.
pub(super) enum FileSegment {
    /// The ranges of complete blocks in the buffer.
    Cuts(Vec<Range<usize>>),
    /// Number of whole blocks in a hole.
    Holes(u64),
}

impl Segments<'_> {
    /// Fills `buffer` with the next segment; `None` at the end.
    pub(super) fn next(
        &mut self,
        buffer: &mut Vec<u8>,
    ) -> Result<Option<FileSegment>, ReadFailure> {
        if self.offset == self.size && self.rest.is_empty() {
            return Ok(None);
        }

        let holes = self.holes()?;
        if holes > 0 {
            // The carried-over bytes lie in the hole, too.
            self.offset = self.offset - self.rest.len() as u64 + holes * chunk::MAX as u64;
            self.rest.clear();
            return Ok(Some(FileSegment::Holes(holes)));
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

        Ok(Some(FileSegment::Cuts(cuts)))
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

/// References to the blocks of a buffer.
pub(super) fn hash_cuts(buffer: &[u8], cuts: &[Range<usize>]) -> Vec<BlockRef> {
    let blocks: Vec<&[u8]> = cuts.iter().map(|cut| &buffer[cut.clone()]).collect();
    BlockRef::many(&blocks)
}
