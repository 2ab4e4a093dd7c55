//! Tests of payloads: packed, mapped, cut into symbols, and unpacked as a host does.

use proptest::prelude::*;

use super::pack::PayloadPacker;
use super::*;
use crate::block::frame::{Compressor, Expander, Level};
use crate::fec::MAX_PAYLOAD;
use crate::id::Ordinal;
use crate::proto::RangeSet;

/// Unpacks a payload as a host does.
fn unpacked(payload: &[u8]) -> Option<Vec<(u64, Vec<u8>)>> {
    let (map, at) = Map::parse(payload, payload.len()).ok()??;
    let mut expander = Expander::default();
    let content = match at.encoding {
        Encoding::Plain => &payload[at.start..],
        Encoding::Zstd => expander.expand(&payload[at.start..], at.plain)?,
    };

    Some(
        map.placed()
            .map(|p| (p.ordinal.0, content[p.bytes].to_vec()))
            .collect(),
    )
}

fn text(len: usize) -> Vec<u8> {
    (0..)
        .flat_map(|i: u32| format!("line {i} of {len}\n").into_bytes())
        .take(len)
        .collect()
}

fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(len as u64).fill(&mut bytes);
    bytes
}

/// A payload and its ordinals.
struct Whole {
    taken: RangeSet,
    payload: Vec<u8>,
    frame: Option<(usize, usize)>,
}

/// Packs all `blocks` at a level.
fn pack_all(blocks: &[Vec<u8>], level: u8) -> Vec<Whole> {
    let mut left: RangeSet = [0..blocks.len() as u64].into_iter().collect();
    let mut packed: Vec<Whole> = Vec::new();
    let mut buffers = Buffers::default();
    let mut compressor = Compressor::new();

    while !left.is_empty() {
        let level = Level::new(level).map(|level| (&mut compressor, level));
        let PackedGeneration { taken, frame } =
            pack::<()>(&left, level, &mut buffers, |ordinal, out| {
                out.extend_from_slice(&blocks[ordinal.0 as usize]);
                Ok(())
            })
            .expect("no error");
        let one = Whole {
            taken,
            payload: buffers.payload.clone(),
            frame,
        };
        assert!(
            !one.taken.is_empty() && one.payload.len() <= MAX_PAYLOAD as usize,
            "{}",
            one.payload.len()
        );
        left.subtract(&one.taken);
        packed.push(one);
    }

    packed
}

fn comes_back(blocks: &[Vec<u8>], packed: &[Whole]) -> bool {
    let back = packed
        .iter()
        .flat_map(|one| unpacked(&one.payload).expect("legal"));
    back.eq(blocks
        .iter()
        .cloned()
        .enumerate()
        .map(|(i, bytes)| (i as u64, bytes)))
}

#[test]
fn a_compressed_generation_is_as_large_as_a_plain_one_and_within_the_cap() {
    let hex: Vec<Vec<u8>> = (0..800)
        .map(|i| {
            noise(16_000 + i)
                .iter()
                .flat_map(|b| format!("{b:02x}").into_bytes())
                .collect()
        })
        .collect();

    let packed = pack_all(&hex, 3);
    assert!(comes_back(&hex, &packed));
    let (last, whole) = packed.split_last().expect("some");
    assert!(whole.len() > 1 && last.payload.len() < MAX_PAYLOAD as usize);

    for one in whole {
        assert!(
            (TARGET_BYTES..TARGET_BYTES * 5 / 4).contains(&one.payload.len()),
            "{}",
            one.payload.len()
        );
    }

    // Highly compressible content is bounded by the memory of a host, even with the largest
    // blocks.
    let large = vec![vec![b'x'; 1 << 20]; 20];
    let packed = pack_all(&large, 1);
    assert!(comes_back(&large, &packed));

    assert!(packed.len() <= 4 && packed.iter().all(|p| p.payload.len() < 10_000));
}

#[test]
fn noise_travels_as_it_is_and_is_not_even_tried() {
    let blocks = vec![noise(100_000); 50];
    let packed = pack_all(&blocks, 19);
    assert!(comes_back(&blocks, &packed));
    assert!(packed.iter().all(|p| p.frame.is_none()));
    let plain: usize = pack_all(&blocks, 0).iter().map(|p| p.payload.len()).sum();
    assert_eq!(packed.iter().map(|p| p.payload.len()).sum::<usize>(), plain);
}

#[test]
fn a_frame_that_gains_little_is_not_used() {
    // Bytes of uneven frequency that still hardly compress.
    let mut rng = fastrand::Rng::with_seed(1);
    let uneven: Vec<u8> = (0..500_000)
        .map(|_| if rng.u8(..) < 14 { 0 } else { rng.u8(..) })
        .collect();
    let packed = pack_all(&[uneven], 3);
    let (plain, frame) = packed[0].frame.expect("tried");

    assert!(
        frame > plain / 20 * 19 && packed[0].payload.len() >= plain,
        "{plain} {frame}"
    );
}

#[test]
fn what_is_taken_away_again_is_neither_in_the_map_nor_in_the_content() {
    let ordinals: RangeSet = [3..8, 10..14].into_iter().collect();
    let mut buffers = Buffers::default();
    let mut packer = PayloadPacker::new(
        650_000,
        &ordinals,
        &mut buffers,
        |ordinal: Ordinal, out: &mut Vec<u8>| {
            out.extend(std::iter::repeat_n(ordinal.0 as u8, 100_000));
            Ok::<(), ()>(())
        },
    );
    assert_eq!(packer.fill(1_000_000), Ok(true));
    let packed = packer.into_plain(None);
    assert_eq!(packed.taken, [3..8, 10..12].into_iter().collect());

    assert_eq!(unpacked(&buffers.payload).expect("legal").len(), 7);
}

#[test]
fn a_map_that_says_more_than_the_cap_is_refused() {
    let mut map = Map {
        encoding: Encoding::Zstd,
        runs: Vec::new(),
    };

    (0..16).for_each(|i| map.push(Ordinal(i), 1 << 20));
    let payload = map.payload(b"anything");
    assert_eq!(
        Map::parse(&payload, payload.len())
            .expect("legal")
            .expect("whole")
            .1
            .plain,
        MAX_PLAIN
    );

    map.push(Ordinal(16), 1);
    let payload = map.payload(b"anything");
    assert!(Map::parse(&payload, payload.len()).is_err());
    map.push(Ordinal(17), u32::MAX);

    assert!(Map::parse(&map.payload(b""), 1000).is_err());
}

#[test]
fn a_frame_that_is_not_what_its_map_says_is_no_content() {
    let whole = &pack_all(&[text(5000)], 3)[0].payload;
    assert!(unpacked(whole).is_some());
    let (_, at) = Map::parse(whole, whole.len())
        .expect("legal")
        .expect("whole");
    for cut in at.start..whole.len() {
        assert_eq!(unpacked(&whole[..cut]), None);
    }

    let mut bomb = Compressor::new();
    bomb.begin(Level::new(1).expect("legal"), None)
        .expect("begins");
    (0..1024).for_each(|_| assert!(bomb.add(&[0; 1 << 20]).is_some()));
    let mut map = Map {
        encoding: Encoding::Zstd,
        runs: Vec::new(),
    };

    map.push(Ordinal(0), 1024);
    assert_eq!(unpacked(&map.payload(bomb.end().expect("ends"))), None);
}

proptest! {
    #[test]
    fn any_mix_of_blocks_comes_back_at_any_level(
        sizes in prop::collection::vec(
            (any::<bool>(), prop_oneof![0..2000usize, 0..300_000usize]),
            1..30,
        ),
        level in 0..8u8,
    ) {
        let blocks: Vec<_> = sizes
            .iter()
            .map(|&(even, len)| if even { noise(len) } else { text(len) })
            .collect();
        prop_assert!(comes_back(&blocks, &pack_all(&blocks, level)));
    }

    #[test]
    fn any_frame_is_taken_apart_without_panic(
        sizes in prop::collection::vec(any::<u16>(), 0..20),
        frame in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut map = Map { encoding: Encoding::Zstd, runs: Vec::new() };
        sizes
            .iter()
            .zip(0..)
            .for_each(|(&size, i)| map.push(Ordinal(i), size.into()));
        let _ = unpacked(&map.payload(&frame));
        let magic = [0x28, 0xb5, 0x2f, 0xfd];
        let _ = unpacked(&map.payload(&[&magic, &frame[..]].concat()));
    }

    #[test]
    fn blocks_are_found_where_they_were_put(
        blocks in prop::collection::vec(
            (0..3u64, prop::collection::vec(any::<u8>(), 1..50)),
            0..40,
        ),
        symbol in 64..200u16,
    ) {
        let mut map = Map::default();
        let mut body = Vec::new();
        let mut ordinal = 5;
        let mut expected = Vec::new();
        for (skip, bytes) in &blocks {
            ordinal += skip;
            map.push(Ordinal(ordinal), bytes.len() as u32);
            body.extend_from_slice(bytes);
            expected.push((Ordinal(ordinal), bytes.clone()));
            ordinal += 1;
        }

        let payload = map.payload(&body);
        let (back, at) = Map::parse(&payload, payload.len()).expect("legal").expect("whole");
        prop_assert_eq!(&back, &map);
        prop_assert_eq!((at.encoding, at.plain), (Encoding::Plain, body.len()));
        let content = &payload[at.start..];
        let found: Vec<_> = back
            .placed()
            .map(|p| (p.ordinal, content[p.bytes].to_vec()))
            .collect();
        prop_assert_eq!(found, expected);

        let grid = grid_for(payload.len(), symbol).expect("within the caps");
        let cut: Vec<u8> = (0..grid.symbols())
            .flat_map(|i| payload[grid.bytes_of(i)].to_vec())
            .collect();
        prop_assert_eq!(cut, payload);
    }

    #[test]
    fn any_front_is_parsed_without_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..100),
        total in 0..5000usize,
    ) {
        let _ = Map::parse(&bytes, total);
        let mut near = vec![0, 0, 0, bytes.len() as u8];
        near.extend_from_slice(&bytes);
        let _ = Map::parse(&near, total.max(near.len()));
    }
}
