//! Holes: files are copied and written without disk blocks for long runs of zeros.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::LazyLock;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::block::{BlockHash, BlockRef, chunk};

/// Bytes copied at a time.
const PIECE: usize = 1 << 20;
/// Unit and alignment of holes, in bytes.
const HOLE: usize = 64 << 10;

/// Hash of the block that long holes are cut into.
static ZEROS: LazyLock<BlockHash> = LazyLock::new(|| BlockHash::of(&[0; chunk::MAX]));

/// Block at the beginning of every long hole.
pub(crate) fn hole() -> BlockRef {
    BlockRef {
        hash: *ZEROS,
        size: chunk::MAX as u32,
    }
}

/// Returns whether the block belongs to a long hole.
pub(crate) fn is_hole(block: &BlockRef) -> bool {
    *block == hole()
}

/// Adds a range that begins at the end of the last range, or later.
pub(crate) fn extend(ranges: &mut Vec<Range<u64>>, range: Range<u64>) {
    match ranges.last_mut() {
        Some(last) if last.end == range.start => last.end = range.end,
        _ => ranges.push(range),
    }
}

/// Writes `bytes` into an empty part of a file and skips long runs of zeros. The file may end up
/// too short.
pub(crate) fn write(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    let mut data: Vec<Range<u64>> = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let to_next = HOLE - ((offset + at as u64) % HOLE as u64) as usize;
        let end = bytes.len().min(at + to_next);
        if end - at < HOLE || bytes[at..end].iter().any(|&b| b != 0) {
            extend(&mut data, at as u64..end as u64);
        }
        at = end;
    }

    data.into_iter().try_for_each(|d| {
        file.write_all_at(&bytes[d.start as usize..d.end as usize], offset + d.start)
    })
}

/// Copies `from` to the empty file `to`: shares disk blocks if the filesystem can, else copies all
/// but holes.
pub(crate) fn copy(from: &File, to: &File) -> io::Result<()> {
    if rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }

    let size = from.metadata()?.len();
    let mut buffer = vec![0; PIECE.min(size as usize)];
    let mut at = 0;
    while let Some((start, end)) = next_data(from, at, size)? {
        at = start;
        while at < end {
            let piece = &mut buffer[..PIECE.min((end - at) as usize)];
            from.read_exact_at(piece, at)?;
            to.write_all_at(piece, at)?;
            at += piece.len() as u64;
        }
    }

    to.set_len(size)
}

/// Next range of data at or after `at`; `None` without any before `size`.
pub(crate) fn next_data(file: &File, at: u64, size: u64) -> io::Result<Option<(u64, u64)>> {
    if at >= size {
        return Ok(None);
    }

    let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        // This filesystem cannot report holes: everything is data.
        Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(Some((at, size))),
        Err(e) => return Err(e.into()),
    };

    let end = rustix::fs::seek(file, SeekFrom::Hole(start))?;
    Ok((start < size).then_some((start, end.min(size))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_zeros_are_left_out_and_everything_else_is_written() {
        let file = tempfile::tempfile().unwrap();
        let mut bytes = vec![0; 5 * HOLE];
        (bytes[3], bytes[HOLE + 5], bytes[2 * HOLE - 1]) = (1, 2, 3);

        // Old bytes remain visible wherever the write skipped.
        file.write_all_at(&vec![9; 6 * HOLE], 0).unwrap();
        write(&file, &bytes, 100).unwrap();
        let mut now = vec![0; 6 * HOLE];
        file.read_exact_at(&mut now, 0).unwrap();
        assert!(now[100..3 * HOLE] == bytes[..3 * HOLE - 100]);
        assert!(
            now[3 * HOLE..5 * HOLE].iter().all(|&b| b == 9),
            "two whole pieces are zeros"
        );

        assert!(now[5 * HOLE..5 * HOLE + 100].iter().all(|&b| b == 0));
    }

    #[test]
    fn a_hole_is_known_by_its_name_and_ranges_join() {
        assert!(is_hole(&BlockRef::of(&[0; chunk::MAX])));
        assert!(!is_hole(&BlockRef::of(&[0; 16])));
        let mut ranges = Vec::new();
        for range in [0..5, 5..9, 12..13] {
            extend(&mut ranges, range);
        }
        assert_eq!(ranges, [0..9, 12..13]);
    }

    #[test]
    fn a_copy_has_the_holes_of_its_original() {
        let dir = tempfile::tempdir().unwrap();
        let open = |name: &str| {
            File::options()
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .open(dir.path().join(name))
                .unwrap()
        };

        let from = open("from");
        let to = open("to");
        from.write_all_at(b"middle", 5 << 20).unwrap();
        from.set_len(9 << 20).unwrap();
        copy(&from, &to).unwrap();
        let read = |file: &File| {
            let mut all = vec![1; file.metadata().unwrap().len() as usize];
            file.read_exact_at(&mut all, 0).unwrap();
            all
        };

        assert!(read(&from) == read(&to));
        use std::os::unix::fs::MetadataExt;
        let taken = |file: &File| file.metadata().unwrap().blocks();

        assert!(
            taken(&to) <= taken(&from) + 16,
            "{} {}",
            taken(&to),
            taken(&from)
        );
    }
}
