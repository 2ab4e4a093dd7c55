//! A generation: consecutive blocks packed into one payload, which is sent and repaired as a unit.
//!
//! ```text
//! payload   0  map size        4 bytes, big-endian
//!           4  map             CBOR: encoding, and runs of ordinals with the size of each block
//!              content         the mapped blocks, concatenated; or one zstd frame of them
//! ```
//!
//! Many small blocks in one frame compress like a stream. Hashes always cover the plain blocks.
//!
//! The payload is cut into symbols of the session's size, and the symbols into rows of a few
//! columns. Coded symbols (see [`crate::fec`]) are sums within a column, with the same coefficients
//! in all columns of a row. Losses within a row, typical of a network that drops a whole send,
//! spread over the columns, and coding works on long vectors.

use std::ops::Range;

use minicbor::{Decode, Encode};

use crate::block::frame::{Compressor, Level, may_shrink};
use crate::fec::Grid;
use crate::id::Ordinal;
use crate::proto::RangeSet;
use crate::wire::SymbolHeader;

/// Target size of a payload, in bytes. In a larger generation the losses of all hosts are nearer to
/// their mean, so fewer coded symbols repair all of them.
pub const TARGET_BYTES: usize = 3 << 20;
/// Largest plain size of a compressed generation, in bytes: the memory that a host must provide.
pub const MAX_PLAIN: usize = 16 << 20;
/// Largest excess of a plain payload over the target, in bytes, unless the payload is a single
/// block.
const MAX_OVERSHOOT: usize = 64 << 10;
/// Plain bytes at which a frame ends: one more step and one more block of at most 1 MiB stay within
/// [`MAX_PLAIN`].
const FULL_PLAIN: usize = 14 << 20;
/// Bytes compressed between two checks of the frame's size.
const COMPRESS_STEP: usize = 256 << 10;
/// Smallest content worth compressing, in bytes; less fits a datagram or two anyway.
const MIN_COMPRESSED: usize = 1 << 10;
/// Generations behind the newest that a sender keeps for repair.
pub const KEPT_GENERATIONS: u32 = 12;
/// Largest number of blocks in a generation.
pub const MAX_GENERATION_BLOCKS: usize = 8192;
/// Largest map, in bytes. A block takes 5 bytes and a run of blocks about 15.
const MAX_MAP: usize = MAX_GENERATION_BLOCKS * 24;
/// Smallest number of rows in a full generation. With fewer rows a column would often need more
/// than its share.
const MIN_ROWS: usize = 256;
/// Columns of a generation of small symbols.
const SMALL_SYMBOL_COLUMNS: usize = 8;

/// Encoding of the blocks in a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Encoding {
    /// Concatenated, uncompressed.
    #[n(0)]
    Plain,
    /// One zstd frame.
    #[n(1)]
    Zstd,
}

/// A run of consecutive ordinals.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct OrdinalRun {
    /// First ordinal.
    #[n(0)]
    pub first: Ordinal,
    /// Plain size of each block, in bytes.
    #[n(1)]
    pub sizes: Vec<u32>,
}

/// Contents of a payload.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Map {
    /// Encoding of the blocks.
    #[n(0)]
    pub encoding: Encoding,
    /// Blocks, in order.
    #[n(1)]
    pub runs: Vec<OrdinalRun>,
}

impl Default for Map {
    fn default() -> Self {
        Self {
            encoding: Encoding::Plain,
            runs: Vec::new(),
        }
    }
}

/// Position of a block in the plain content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedBlock {
    /// The block's ordinal.
    pub ordinal: Ordinal,
    /// Its byte range in the plain content.
    pub bytes: Range<usize>,
}

/// Position and encoding of the content in a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Body {
    /// Encoding of the content.
    pub encoding: Encoding,
    /// Offset of the content in the payload.
    pub start: usize,
    /// Plain size in bytes, at most [`MAX_PLAIN`].
    pub plain: usize,
}

impl Map {
    /// Appends a block.
    pub fn push(&mut self, ordinal: Ordinal, size: u32) {
        match self.runs.last_mut() {
            Some(run) if run.first.0 + run.sizes.len() as u64 == ordinal.0 => run.sizes.push(size),
            _ => self.runs.push(OrdinalRun {
                first: ordinal,
                sizes: vec![size],
            }),
        }
    }

    /// Returns the ordinals as ranges.
    pub fn ranges(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.runs
            .iter()
            .map(|r| r.first.0..r.first.0.saturating_add(r.sizes.len() as u64))
    }

    /// Builds the payload: the map, then `content`, the concatenated blocks in the map's encoding.
    pub fn payload(&self, content: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(content, &mut out);
        out
    }

    /// Writes the same payload into `out`, replacing the old contents.
    fn write(&self, content: &[u8], out: &mut Vec<u8>) {
        let map = crate::manifest::node::to_vec(self);
        out.clear();
        out.reserve_exact(4 + map.len() + content.len());
        out.extend_from_slice(&(map.len() as u32).to_be_bytes());
        out.extend_from_slice(&map);
        out.extend_from_slice(content);
    }

    /// Parses the map at the front of a payload of `total` bytes, given its first bytes in `front`.
    /// Returns `Ok(None)` if more bytes are needed, and an error for an illegal map.
    pub fn parse(front: &[u8], total: usize) -> Result<Option<(Map, Body)>, &'static str> {
        let Some(size) = front.first_chunk::<4>() else {
            return Ok(None);
        };

        let start = 4 + u32::from_be_bytes(*size) as usize;
        if start > total || start > MAX_MAP {
            return Err("a map longer than its payload, or than any");
        }

        let Some(bytes) = front.get(4..start) else {
            return Ok(None);
        };

        let map: Map = minicbor::decode(bytes).map_err(|_| "a map that cannot be decoded")?;
        let plain = map.check(total - start)?;
        let body = Body {
            encoding: map.encoding,
            start,
            plain,
        };

        Ok(Some((map, body)))
    }

    /// Returns the plain size of the mapped blocks, if `content` bytes can hold them.
    fn check(&self, content: usize) -> Result<usize, &'static str> {
        let blocks: usize = self.runs.iter().map(|r| r.sizes.len()).sum();
        if blocks > MAX_GENERATION_BLOCKS {
            return Err("a map of too many blocks");
        }

        if self
            .runs
            .iter()
            .any(|r| r.first.0.checked_add(r.sizes.len() as u64).is_none())
        {
            return Err("a map beyond the last ordinal");
        }

        // At most MAX_GENERATION_BLOCKS numbers of 32 bits.
        let plain: u64 = self
            .runs
            .iter()
            .flat_map(|r| &r.sizes)
            .map(|&s| u64::from(s))
            .sum();

        match self.encoding {
            Encoding::Plain if plain != content as u64 => {
                Err("a map that differs from its payload")
            }
            Encoding::Zstd if plain > MAX_PLAIN as u64 => Err("a map of more than a host takes"),
            _ => Ok(plain as usize),
        }
    }

    /// Returns the blocks with their positions in the plain content.
    pub fn placed(&self) -> impl Iterator<Item = PlacedBlock> + '_ {
        let mut at = 0;
        self.runs
            .iter()
            .flat_map(|r| r.sizes.iter().zip(r.first.0..))
            .map(move |(&size, ordinal)| {
                let bytes = at..at + size as usize;
                at = bytes.end;
                PlacedBlock {
                    ordinal: Ordinal(ordinal),
                    bytes,
                }
            })
    }
}

/// Buffers reused between generations: fresh pages cost more than the bytes written into them.
#[derive(Debug, Default)]
pub struct Buffers {
    content: Vec<u8>,
    /// Payload packed last.
    pub payload: Vec<u8>,
}

/// Result of packing.
#[derive(Debug)]
pub struct PackedGeneration {
    /// Ordinals in the payload.
    pub taken: RangeSet,
    /// Plain size and frame size in bytes, if compression was tried, even if the frame is not used.
    pub frame: Option<(usize, usize)>,
}

/// Packs the first of `ordinals` into a payload of about [`TARGET_BYTES`]. `read` appends a block's
/// content to the buffer. With a compressor, compressible content is compressed, and left plain if
/// the gain is small.
pub fn pack<E>(
    ordinals: &RangeSet,
    compressor: Option<(&mut Compressor, Level)>,
    buffers: &mut Buffers,
    read: impl FnMut(Ordinal, &mut Vec<u8>) -> Result<(), E>,
) -> Result<PackedGeneration, E> {
    pack_to(TARGET_BYTES, ordinals, compressor, buffers, read)
}

/// Like [`pack`], with a payload of about `target` bytes.
pub fn pack_to<E>(
    target: usize,
    ordinals: &RangeSet,
    compressor: Option<(&mut Compressor, Level)>,
    buffers: &mut Buffers,
    read: impl FnMut(Ordinal, &mut Vec<u8>) -> Result<(), E>,
) -> Result<PackedGeneration, E> {
    let mut packer = Packer::new(target, ordinals, buffers, read);
    packer.fill(target)?;
    let Some((compressor, level)) = compressor.filter(|_| packer.is_compressible()) else {
        return Ok(packer.into_plain(None));
    };

    match packer.compress(compressor, level)? {
        Some(frame) if frame.len() < packer.content.len() / 20 * 19 => {
            Ok(packer.into_compressed(frame))
        }
        Some(frame) => {
            let size = frame.len();
            Ok(packer.into_plain(Some(size)))
        }
        None => Ok(packer.into_plain(None)),
    }
}

/// Collects blocks for a payload.
struct Packer<'a, R> {
    target: usize,
    left: Box<dyn Iterator<Item = u64> + 'a>,
    read: R,
    map: Map,
    content: &'a mut Vec<u8>,
    payload: &'a mut Vec<u8>,
}

impl<'a, R, E> Packer<'a, R>
where
    R: FnMut(Ordinal, &mut Vec<u8>) -> Result<(), E>,
{
    fn new(target: usize, ordinals: &'a RangeSet, buffers: &'a mut Buffers, read: R) -> Self {
        let left = Box::new(ordinals.iter().flatten().take(MAX_GENERATION_BLOCKS));
        let Buffers { content, payload } = buffers;
        content.clear();
        Self {
            target,
            left,
            read,
            map: Map::default(),
            content,
            payload,
        }
    }

    /// Adds blocks up to `until` bytes; returns false if none was added.
    fn fill(&mut self, until: usize) -> Result<bool, E> {
        let before = self.content.len();
        while self.content.len() < until
            && let Some(ordinal) = self.left.next()
        {
            let at = self.content.len();
            (self.read)(Ordinal(ordinal), self.content)?;
            self.map
                .push(Ordinal(ordinal), (self.content.len() - at) as u32);
        }

        Ok(self.content.len() > before)
    }

    fn is_compressible(&self) -> bool {
        self.content.len() >= MIN_COMPRESSED && may_shrink(self.content)
    }

    /// Compresses and adds blocks until the frame is large enough. Returns `None` if the compressor
    /// failed.
    fn compress<'c>(
        &mut self,
        compressor: &'c mut Compressor,
        level: Level,
    ) -> Result<Option<&'c [u8]>, E> {
        let is_all = self.content.len() < self.target;
        if compressor
            .begin(level, is_all.then_some(self.content.len()))
            .is_none()
        {
            return Ok(None);
        }

        let mut done = 0;
        loop {
            let Some(size) = compressor.add(&self.content[done..]) else {
                return Ok(None);
            };
            done = self.content.len();
            if is_all
                || size >= self.target
                || done >= FULL_PLAIN
                || !self.fill(done + COMPRESS_STEP)?
            {
                return Ok(compressor.end());
            }
        }
    }

    /// Drops blocks from the end until the content barely exceeds the target, or a single block is
    /// left. Every payload kept for repair, at the sender and the hosts, then has about the same
    /// size. The next payload reads the dropped blocks again.
    fn trim_to_target(&mut self) {
        let most = self.target + MAX_OVERSHOOT;
        if self.content.len() <= most {
            return;
        }

        let mut kept = Map::default();
        let fits = |p: &PlacedBlock| p.bytes.end <= most || p.bytes.start == 0;
        self.map
            .placed()
            .take_while(fits)
            .for_each(|p| kept.push(p.ordinal, p.bytes.len() as u32));
        self.content
            .truncate(kept.placed().last().map_or(0, |p| p.bytes.end));

        self.map = kept;
    }

    fn into_plain(mut self, frame: Option<usize>) -> PackedGeneration {
        let frame = frame.map(|size| (self.content.len(), size));
        self.trim_to_target();
        self.map.write(self.content, self.payload);
        PackedGeneration {
            taken: self.map.ranges().collect(),
            frame,
        }
    }

    fn into_compressed(mut self, frame: &[u8]) -> PackedGeneration {
        self.map.encoding = Encoding::Zstd;
        let sizes = Some((self.content.len(), frame.len()));
        self.map.write(frame, self.payload);
        PackedGeneration {
            taken: self.map.ranges().collect(),
            frame: sizes,
        }
    }
}

/// Returns the grid of a symbol's payload, from the symbol's header and the session's symbol size.
/// `None` beyond the limits.
pub fn grid_of(header: &SymbolHeader, symbol: u16) -> Option<Grid> {
    Grid::new(header.payload, symbol, header.columns)
}

/// Returns the grid by which a sender cuts `payload` bytes into symbols of `symbol` bytes: the same
/// number of columns for every payload size. `None` if the payload is empty or too large.
pub fn grid_for(payload: usize, symbol: u16) -> Option<Grid> {
    let columns =
        (TARGET_BYTES / usize::from(symbol.max(1)) / MIN_ROWS).clamp(1, SMALL_SYMBOL_COLUMNS) as u8;
    Grid::new(u32::try_from(payload).ok()?, symbol, columns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::frame::Expander;
    use crate::fec::MAX_PAYLOAD;
    use proptest::prelude::*;

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
        let mut packer = Packer::new(
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
}
