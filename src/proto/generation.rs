//! A generation: some consecutive blocks packed into one payload that is sent and repaired as a unit.
//!
//! ```text
//! payload   0  map size        4 bytes, big-endian
//!           4  map             CBOR: encoding, and runs of ordinals with the size of each block
//!              content         the blocks one after the other, as the map says; or one zstd frame of that
//! ```
//! Many small blocks in one frame shrink as a stream does. Hashes are always of the plain blocks.
//!
//! The payload is cut into symbols of the session's size, those into rows of a few columns. Coded symbols (see
//! [`crate::fec`]) are sums within a column, with the same coefficients in all columns of a row: losses in a row, as a
//! network that drops a whole send makes them, spread over the columns, and coding is work on long vectors.

use std::ops::Range;

use minicbor::{Decode, Encode};

use crate::block::frame::{Compressor, Level, may_shrink};
use crate::fec::Grid;
use crate::id::Ordinal;
use crate::proto::RangeSet;
use crate::wire::SymbolHeader;

/// What the packer aims at, in bytes of payload: the larger a generation, the nearer are the losses of all hosts to
/// their mean, and the fewer coded symbols mend them all.
pub const TARGET_BYTES: usize = 3 << 20;
/// The most plain bytes of a compressed generation: what a host has to have memory for.
pub const MAX_PLAIN: usize = 16 << 20;
/// A plain payload is this much larger than what is aimed at, at most, unless it is one block.
const MAX_OVER: usize = 64 << 10;
/// With so many plain bytes a frame is ended: one more piece and one more block, of 1 MiB at most, stay within
/// [`MAX_PLAIN`].
const FULL_PLAIN: usize = 14 << 20;
/// What is compressed between two looks at the size of the frame.
const PIECE: usize = 256 << 10;
/// Content below this is not compressed: it fits a datagram or two anyway.
const MIN_FRAME: usize = 1 << 10;
/// Generations behind the newest that a sender keeps for repair.
pub const KEPT: u32 = 12;
/// The most blocks of one generation.
pub const MAX_BLOCKS: usize = 8192;
/// The most bytes of a map, in which a block takes 5 and a run of blocks about 15.
const MAX_MAP: usize = MAX_BLOCKS * 24;
/// Rows that a full generation has at least: with fewer a column would often need more than its share.
const ROWS: usize = 256;
/// Columns of a generation of small symbols.
const COLUMNS: usize = 8;

/// How blocks stand in a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Encoding {
    /// As they are.
    #[n(0)]
    Plain,
    /// As one zstd frame.
    #[n(1)]
    Zstd,
}

/// A run of consecutive ordinals.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Run {
    /// The first of them.
    #[n(0)]
    pub first: Ordinal,
    /// The plain size of each block, in bytes.
    #[n(1)]
    pub sizes: Vec<u32>,
}

/// What a payload contains.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Map {
    /// How blocks stand in it.
    #[n(0)]
    pub encoding: Encoding,
    /// Which they are, in order.
    #[n(1)]
    pub runs: Vec<Run>,
}

impl Default for Map {
    fn default() -> Self {
        Self {
            encoding: Encoding::Plain,
            runs: Vec::new(),
        }
    }
}

/// One block of a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// Which block.
    pub ordinal: Ordinal,
    /// Where in the plain content.
    pub bytes: Range<usize>,
}

/// Where the content of a payload is, and how it stands there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Body {
    /// How.
    pub encoding: Encoding,
    /// Where in the payload it begins.
    pub start: usize,
    /// Its plain size in bytes; never more than [`MAX_PLAIN`].
    pub plain: usize,
}

impl Map {
    /// Adds a block after those that are there.
    pub fn push(&mut self, ordinal: Ordinal, size: u32) {
        match self.runs.last_mut() {
            Some(run) if run.first.0 + run.sizes.len() as u64 == ordinal.0 => run.sizes.push(size),
            _ => self.runs.push(Run {
                first: ordinal,
                sizes: vec![size],
            }),
        }
    }

    /// The ordinals as ranges.
    pub fn ranges(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.runs
            .iter()
            .map(|r| r.first.0..r.first.0.saturating_add(r.sizes.len() as u64))
    }

    /// The payload: the map, then `content`, which is the map's blocks one after the other, encoded as it says.
    pub fn payload(&self, content: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(content, &mut out);
        out
    }

    /// The same in place of what is in `out`.
    fn write(&self, content: &[u8], out: &mut Vec<u8>) {
        let map = crate::manifest::node::to_vec(self);
        out.clear();
        out.reserve_exact(4 + map.len() + content.len());
        out.extend_from_slice(&(map.len() as u32).to_be_bytes());
        out.extend_from_slice(&map);
        out.extend_from_slice(content);
    }

    /// The map at the front of a payload of `total` bytes of which `front` is the beginning. `Ok(None)` when more of
    /// the beginning is needed; an error when it is not legal.
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

    /// The plain size of what the map says, when `content` bytes may hold that.
    fn check(&self, content: usize) -> Result<usize, &'static str> {
        let blocks: usize = self.runs.iter().map(|r| r.sizes.len()).sum();
        if blocks > MAX_BLOCKS {
            return Err("a map of too many blocks");
        }

        if self
            .runs
            .iter()
            .any(|r| r.first.0.checked_add(r.sizes.len() as u64).is_none())
        {
            return Err("a map beyond the last ordinal");
        }

        // At most MAX_BLOCKS numbers of 32 bits.
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

    /// The blocks with their places in the plain content.
    pub fn placed(&self) -> impl Iterator<Item = Placed> + '_ {
        let mut at = 0;
        self.runs
            .iter()
            .flat_map(|r| r.sizes.iter().zip(r.first.0..))
            .map(move |(&size, ordinal)| {
                let bytes = at..at + size as usize;
                at = bytes.end;
                Placed {
                    ordinal: Ordinal(ordinal),
                    bytes,
                }
            })
    }
}

/// Memory for packing, used again and again: fresh pages cost more than what is written to them.
#[derive(Debug, Default)]
pub struct Buffers {
    content: Vec<u8>,
    /// The payload that was packed last.
    pub payload: Vec<u8>,
}

/// What became of what was asked for.
#[derive(Debug)]
pub struct Packed {
    /// What is in it.
    pub taken: RangeSet,
    /// Plain bytes, and those of the frame that they became: when compressing was tried, whether or not it is used.
    pub frame: Option<(usize, usize)>,
}

/// Packs the first of `ordinals` into a payload of about [`TARGET_BYTES`]. `read` appends the block's content to the
/// buffer. With a compressor what may shrink is compressed, and left plain when that gained little.
pub fn pack<E>(
    ordinals: &RangeSet,
    compressor: Option<(&mut Compressor, Level)>,
    buffers: &mut Buffers,
    read: impl FnMut(Ordinal, &mut Vec<u8>) -> Result<(), E>,
) -> Result<Packed, E> {
    pack_to(TARGET_BYTES, ordinals, compressor, buffers, read)
}

/// The same with about `target` bytes.
pub fn pack_to<E>(
    target: usize,
    ordinals: &RangeSet,
    compressor: Option<(&mut Compressor, Level)>,
    buffers: &mut Buffers,
    read: impl FnMut(Ordinal, &mut Vec<u8>) -> Result<(), E>,
) -> Result<Packed, E> {
    let mut pile = Pile::new(target, ordinals, buffers, read);
    pile.fill(target)?;
    let Some((compressor, level)) = compressor.filter(|_| pile.is_worth_it()) else {
        return Ok(pile.plain(None));
    };

    match pile.squeeze(compressor, level)? {
        Some(frame) if frame.len() < pile.content.len() / 20 * 19 => Ok(pile.compressed(frame)),
        Some(frame) => {
            let size = frame.len();
            Ok(pile.plain(Some(size)))
        }
        None => Ok(pile.plain(None)),
    }
}

/// Blocks on their way into a payload.
struct Pile<'a, R> {
    target: usize,
    left: Box<dyn Iterator<Item = u64> + 'a>,
    read: R,
    map: Map,
    content: &'a mut Vec<u8>,
    payload: &'a mut Vec<u8>,
}

impl<'a, R, E> Pile<'a, R>
where
    R: FnMut(Ordinal, &mut Vec<u8>) -> Result<(), E>,
{
    fn new(target: usize, ordinals: &'a RangeSet, buffers: &'a mut Buffers, read: R) -> Self {
        let left = Box::new(ordinals.iter().flatten().take(MAX_BLOCKS));
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

    /// Adds blocks until there are `until` bytes; false when there is none to be added.
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

    fn is_worth_it(&self) -> bool {
        self.content.len() >= MIN_FRAME && may_shrink(self.content)
    }

    /// Compresses, and adds blocks, until the frame is large enough; `None` when the compressor failed.
    fn squeeze<'c>(
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
            if is_all || size >= self.target || done >= FULL_PLAIN || !self.fill(done + PIECE)? {
                return Ok(compressor.end());
            }
        }
    }

    /// Takes away blocks at the end until hardly more bytes are left than were aimed at, or one block: what is kept for
    /// repair, here and at the hosts, is of one size. What is taken away is read again for the next payload.
    fn keep_the_aim(&mut self) {
        let most = self.target + MAX_OVER;
        if self.content.len() <= most {
            return;
        }

        let mut kept = Map::default();
        let fits = |p: &Placed| p.bytes.end <= most || p.bytes.start == 0;
        self.map
            .placed()
            .take_while(fits)
            .for_each(|p| kept.push(p.ordinal, p.bytes.len() as u32));
        self.content
            .truncate(kept.placed().last().map_or(0, |p| p.bytes.end));

        self.map = kept;
    }

    fn plain(mut self, frame: Option<usize>) -> Packed {
        let frame = frame.map(|size| (self.content.len(), size));
        self.keep_the_aim();
        self.map.write(self.content, self.payload);
        Packed {
            taken: self.map.ranges().collect(),
            frame,
        }
    }

    fn compressed(mut self, frame: &[u8]) -> Packed {
        self.map.encoding = Encoding::Zstd;
        let sizes = Some((self.content.len(), frame.len()));
        self.map.write(frame, self.payload);
        Packed {
            taken: self.map.ranges().collect(),
            frame: sizes,
        }
    }
}

/// How the payload of a symbol lies in rows, by what its header and the session's symbol size say; `None` when that is
/// beyond the caps.
pub fn grid_of(header: &SymbolHeader, symbol: u16) -> Option<Grid> {
    Grid::new(header.payload, symbol, header.columns)
}

/// How a sender cuts `payload` bytes into symbols of `symbol` bytes: payloads of all sizes into equally many columns.
/// `None` when there is nothing to cut, or too much.
pub fn grid_for(payload: usize, symbol: u16) -> Option<Grid> {
    let columns = (TARGET_BYTES / usize::from(symbol.max(1)) / ROWS).clamp(1, COLUMNS) as u8;
    Grid::new(u32::try_from(payload).ok()?, symbol, columns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::frame::Expander;
    use crate::fec::MAX_PAYLOAD;
    use proptest::prelude::*;

    /// A payload taken apart as a host does it.
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

    /// A payload and what is in it.
    struct Whole {
        taken: RangeSet,
        payload: Vec<u8>,
        frame: Option<(usize, usize)>,
    }

    /// Packs `blocks` at a level until all are packed.
    fn pack_all(blocks: &[Vec<u8>], level: u8) -> Vec<Whole> {
        let (mut left, mut packed): (RangeSet, Vec<Whole>) =
            ([0..blocks.len() as u64].into_iter().collect(), vec![]);
        let mut buffers = Buffers::default();
        let mut compressor = Compressor::new();

        while !left.is_empty() {
            let level = Level::new(level).map(|level| (&mut compressor, level));
            let Packed { taken, frame } = pack::<()>(&left, level, &mut buffers, |ordinal, out| {
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

        // What shrinks to nearly nothing is bounded by what a host takes, even with the largest blocks.
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
        // Bytes that are not equally frequent and hardly shrink all the same.
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
        let mut pile = Pile::new(
            650_000,
            &ordinals,
            &mut buffers,
            |ordinal: Ordinal, out: &mut Vec<u8>| {
                out.extend(std::iter::repeat_n(ordinal.0 as u8, 100_000));
                Ok::<(), ()>(())
            },
        );
        assert_eq!(pile.fill(1_000_000), Ok(true));
        let packed = pile.plain(None);
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
            sizes in prop::collection::vec((any::<bool>(), prop_oneof![0..2000usize, 0..300_000usize]), 1..30),
            level in 0..8u8,
        ) {
            let blocks: Vec<_> = sizes.iter().map(|&(even, len)| if even { noise(len) } else { text(len) }).collect();
            prop_assert!(comes_back(&blocks, &pack_all(&blocks, level)));
        }

        #[test]
        fn any_frame_is_taken_apart_without_panic(
            sizes in prop::collection::vec(any::<u16>(), 0..20),
            frame in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut map = Map { encoding: Encoding::Zstd, runs: Vec::new() };
            sizes.iter().zip(0..).for_each(|(&size, i)| map.push(Ordinal(i), size.into()));
            let _ = unpacked(&map.payload(&frame));
            let _ = unpacked(&map.payload(&[&[0x28, 0xb5, 0x2f, 0xfd], &frame[..]].concat()));
        }

        #[test]
        fn blocks_are_found_where_they_were_put(
            blocks in prop::collection::vec((0..3u64, prop::collection::vec(any::<u8>(), 1..50)), 0..40),
            symbol in 64..200u16,
        ) {
            let (mut map, mut body, mut ordinal) = (Map::default(), Vec::new(), 5);
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
            let found: Vec<_> = back.placed().map(|p| (p.ordinal, content[p.bytes].to_vec())).collect();
            prop_assert_eq!(found, expected);

            let grid = grid_for(payload.len(), symbol).expect("within the caps");
            let cut: Vec<u8> = (0..grid.symbols()).flat_map(|i| payload[grid.bytes_of(i)].to_vec()).collect();
            prop_assert_eq!(cut, payload);
        }

        #[test]
        fn any_front_is_parsed_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..100), total in 0..5000usize) {
            let _ = Map::parse(&bytes, total);
            let mut near = vec![0, 0, 0, bytes.len() as u8];
            near.extend_from_slice(&bytes);
            let _ = Map::parse(&near, total.max(near.len()));
        }
    }
}
