//! Records of which block lies where in numbered files, and reads of these blocks.
//!
//! A record is a hint: a block counts only after it was read and hashed.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::block::{BlockHash, chunk};
use crate::error::{Error, Result};
use crate::tree::fs::dir::slot_name;
use crate::tree::fs::root::open_file_at;

/// Bytes of a record: hash, size, slot, offset.
pub(crate) const RECORD: usize = 32 + 4 + 8 + 8;
/// Most bytes of records read from one file: some hundred million blocks.
const MAX_RECORDS: u64 = 5 << 30;

/// Location of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlockLocation {
    /// Number of the file.
    pub(crate) slot: u64,
    /// Offset in the file, in bytes.
    pub(crate) offset: u64,
    /// Size of the block in bytes.
    pub(crate) size: u32,
}

/// Encodes the record of the block `hash` at `place`.
pub(crate) fn record(hash: &BlockHash, place: &BlockLocation) -> [u8; RECORD] {
    let mut record = [0; RECORD];
    record[..32].copy_from_slice(&hash.0);
    record[32..36].copy_from_slice(&place.size.to_be_bytes());
    record[36..44].copy_from_slice(&place.slot.to_be_bytes());
    record[44..].copy_from_slice(&place.offset.to_be_bytes());
    record
}

/// Calls back for every record in the file `path` from the byte `start` on; ignores half a record
/// at the end.
pub(crate) fn each_record(
    path: &Path,
    start: u64,
    mut found: impl FnMut(BlockHash, BlockLocation),
) -> Result<()> {
    let failed = |e| Error::io("cannot read", path, e);
    let mut file = File::open(path).map_err(failed)?;
    file.seek(SeekFrom::Start(start)).map_err(failed)?;
    let mut records = BufReader::with_capacity(RECORD << 10, file.take(MAX_RECORDS));
    let mut record = [0; RECORD];

    loop {
        match records.read_exact(&mut record) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            Err(e) => return Err(failed(e)),
        }
        let number = |range: std::ops::Range<usize>| {
            record[range]
                .iter()
                .fold(0u64, |n, &b| n << 8 | u64::from(b))
        };
        let mut hash = [0; 32];
        hash.copy_from_slice(&record[..32]);
        let size = number(32..36) as u32;
        let slot = number(36..44);
        let offset = number(44..52);
        if size as usize <= chunk::MAX {
            found(BlockHash(hash), BlockLocation { slot, offset, size });
        }
    }
}

/// Reads `blocks` from the files in `dir`, in the order of their location, and hands on every block
/// with a matching hash. Returns the number of missing blocks.
pub(crate) fn read_each(
    dir: BorrowedFd<'_>,
    blocks: &HashMap<BlockHash, BlockLocation>,
    mut found: impl FnMut(&BlockHash, &[u8]),
) -> usize {
    let mut places: Vec<_> = blocks.iter().collect();
    places.sort_by_key(|(_, p)| (p.slot, p.offset));
    let mut open: Option<(u64, Option<File>)> = None;
    let mut bytes = Vec::new();
    let mut missing = 0;

    for (hash, place) in places {
        if open.as_ref().is_none_or(|(slot, _)| *slot != place.slot) {
            open = Some((place.slot, open_file_at(dir, &slot_name(place.slot)).ok()));
        }
        let file = open.as_ref().and_then(|(_, file)| file.as_ref());
        if file.is_some_and(|file| read(file, hash, place, &mut bytes)) {
            found(hash, &bytes);
        } else {
            missing += 1;
        }
    }

    missing
}

/// Reads one block; false if the bytes do not match.
pub(crate) fn read(
    file: &File,
    hash: &BlockHash,
    place: &BlockLocation,
    bytes: &mut Vec<u8>,
) -> bool {
    bytes.resize(place.size as usize, 0);
    file.read_exact_at(bytes, place.offset).is_ok() && BlockHash::of(bytes) == *hash
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn records_come_back_and_only_what_is_really_there_is_found() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("7"), b"..first.second").unwrap();
        let first = BlockHash::of(b"first");
        let second = BlockHash::of(b"second");
        let gone = BlockHash::of(b"gone");

        let all = [
            (
                first,
                BlockLocation {
                    slot: 7,
                    offset: 2,
                    size: 5,
                },
            ),
            (
                second,
                BlockLocation {
                    slot: 7,
                    offset: 7,
                    size: 6,
                },
            ),
            (
                gone,
                BlockLocation {
                    slot: u64::MAX,
                    offset: u64::MAX,
                    size: 4,
                },
            ),
        ];

        let mut bytes = b"head".to_vec();
        all.iter()
            .for_each(|(hash, place)| bytes.extend_from_slice(&record(hash, place)));

        // A record with an impossible size, and half a record.
        bytes.extend_from_slice(&record(
            &first,
            &BlockLocation {
                slot: 1,
                offset: 0,
                size: u32::MAX,
            },
        ));

        bytes.extend_from_slice(&[1; RECORD - 1]);
        let path = dir.path().join("records");
        std::fs::write(&path, bytes).unwrap();
        let mut seen = Vec::new();
        each_record(&path, 4, |hash, place| seen.push((hash, place))).unwrap();
        assert_eq!(seen, all);
        let handle = File::open(dir.path()).unwrap();

        let mut found = Vec::new();
        let missing = read_each(handle.as_fd(), &all.into_iter().collect(), |_, bytes| {
            found.push(bytes.to_vec())
        });

        // The second block is not at its recorded location.
        assert_eq!((found, missing), (vec![b"first".to_vec()], 2));
    }
}
