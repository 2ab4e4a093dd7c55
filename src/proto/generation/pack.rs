//! Packs blocks into payloads of even size, compressed if that gains enough.

use super::TARGET_BYTES;
use super::map::{Encoding, MAX_GENERATION_BLOCKS, Map, PlacedBlock};
use crate::block::frame::{Compressor, Level, may_shrink};
use crate::id::Ordinal;
use crate::proto::RangeSet;

/// Largest excess of a plain payload over the target, in bytes, unless the payload is a single
/// block.
const MAX_OVERSHOOT: usize = 64 << 10;
/// Plain bytes at which a frame ends: one more step and one more block of at most 1 MiB stay within
/// [`super::MAX_PLAIN`].
const FULL_PLAIN: usize = 14 << 20;
/// Bytes compressed between two checks of the frame's size.
const COMPRESS_STEP: usize = 256 << 10;
/// Smallest content worth compressing, in bytes; less fits a datagram or two anyway.
const MIN_COMPRESSED: usize = 1 << 10;

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
    let mut packer = PayloadPacker::new(target, ordinals, buffers, read);
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
pub(super) struct PayloadPacker<'a, R> {
    target: usize,
    left: Box<dyn Iterator<Item = u64> + 'a>,
    read: R,
    map: Map,
    content: &'a mut Vec<u8>,
    payload: &'a mut Vec<u8>,
}

impl<'a, R, E> PayloadPacker<'a, R>
where
    R: FnMut(Ordinal, &mut Vec<u8>) -> Result<(), E>,
{
    pub(super) fn new(
        target: usize,
        ordinals: &'a RangeSet,
        buffers: &'a mut Buffers,
        read: R,
    ) -> Self {
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
    pub(super) fn fill(&mut self, until: usize) -> Result<bool, E> {
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

    pub(super) fn into_plain(mut self, frame: Option<usize>) -> PackedGeneration {
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
