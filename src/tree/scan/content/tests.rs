//! Tests of reading and cutting files.

use std::io::Write;
use std::os::unix::fs::FileExt;

use super::*;
use crate::block::BlockHash;
use crate::block::chunk;
use crate::tree::fs::root::FileId;
use crate::tree::index::IndexWriter;

#[test]
fn several_threads_read_the_same_as_one() {
    let dir = tempfile::tempdir().unwrap();
    let id = FileId { dev: 1, ino: 1 };
    let mut rng = fastrand::Rng::with_seed(9);
    let bytes: Vec<u8> = std::iter::repeat_with(|| rng.u8(..))
        .take((LARGE_FILE_BYTES as usize) + (5 << 20) + 77)
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
            &|_| false,
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
        &|_| true,
    );

    assert!(matches!(stopped, Err(ReadFailure::Stopped)));
}

/// Content and list nodes.
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
        &|_| false,
    )
    .unwrap();

    (content, sink.0)
}

#[test]
fn skipping_holes_gives_the_same_content() {
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
            // A hole, then data, sometimes zeros as well.
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
fn a_terabyte_hole_is_not_read_and_needs_one_list() {
    let file = tempfile::tempfile().unwrap();
    let size = 1 << 40;
    if let Err(e) = file.set_len(size) {
        return crate::skip::skipped(format!("no file of this size here: {e}"));
    }

    let (content, nodes) = content(&file, size, true, 2);
    assert_eq!(content.block_count(), size / chunk::MAX as u64);
    assert_eq!((content.size(), nodes.len()), (size, 1));
}
