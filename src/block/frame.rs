//! Compressed content: zstd frames, and a quick test whether content is worth compressing.
//!
//! Pure: bytes in, bytes out, without knowledge of content, peers or time.

use std::fmt;

use zstd::zstd_safe::zstd_sys::ZSTD_EndDirective as End;
use zstd::zstd_safe::{
    CCtx, CParameter, DCtx, InBuffer, OutBuffer, ResetDirective, compress_bound,
};

/// Bytes of content for each sample.
const SAMPLE_EVERY: usize = 256 << 10;
/// Bytes of a sample. A sample is read once, byte by byte: a small share of the cost of hashing.
const SAMPLE_BYTES: usize = 2 << 10;

/// Compression level of zstd: 1 is fast, 19 is small.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Level(u8);

impl Level {
    /// Returns the level `number`, or `None` outside 1 to 19.
    pub const fn new(number: u8) -> Option<Self> {
        if number >= 1 && number <= 19 {
            Some(Self(number))
        } else {
            None
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Makes frames one after another, reusing memory. `None` from any step means that zstd could not
/// continue (for lack of memory) and the frame is lost.
pub struct Compressor {
    /// Made on first use.
    context: Option<CCtx<'static>>,
    frame: Vec<u8>,
}

impl Compressor {
    /// A compressor without a frame.
    pub fn new() -> Self {
        Self {
            context: None,
            frame: Vec::new(),
        }
    }

    /// Begins a frame. With a known `size`, in bytes of content, small content is compressed with
    /// small tables.
    pub fn begin(&mut self, level: Level, size: Option<usize>) -> Option<()> {
        self.frame.clear();
        if self.context.is_none() {
            self.context = CCtx::try_create();
        }

        let context = self.context.as_mut()?;
        context.reset(ResetDirective::SessionOnly).ok()?;
        context
            .set_parameter(CParameter::CompressionLevel(level.0.into()))
            .ok()?;
        context.set_pledged_src_size(size.map(|s| s as u64)).ok()?;

        Some(())
    }

    /// Adds content; returns the bytes of the frame so far.
    pub fn add(&mut self, content: &[u8]) -> Option<usize> {
        self.step(content, End::ZSTD_e_continue)?;
        Some(self.frame.len())
    }

    /// Ends the frame and returns it.
    pub fn end(&mut self) -> Option<&[u8]> {
        self.step(&[], End::ZSTD_e_end)?;
        Some(&self.frame)
    }

    /// Frees the memory, after content that does not shrink.
    pub fn free_memory(&mut self) {
        *self = Self::new();
    }

    fn step(&mut self, content: &[u8], end: End) -> Option<()> {
        let context = self.context.as_mut()?;
        let mut input = InBuffer::around(content);
        loop {
            // At least as much as one block of zstd takes.
            let left = content.len() - input.pos();
            self.frame
                .reserve(compress_bound(left).max(CCtx::out_size()));

            let at = self.frame.len();
            let mut output = OutBuffer::around_pos(&mut self.frame, at);
            let more = context
                .compress_stream2(&mut output, &mut input, end)
                .ok()?;

            let done = if matches!(end, End::ZSTD_e_end) {
                more == 0
            } else {
                input.pos() == content.len()
            };

            if done {
                return Some(());
            }
        }
    }
}

impl Default for Compressor {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compressor")
            .field("frame", &self.frame.len())
            .finish_non_exhaustive()
    }
}

/// Decompresses frames, reusing memory.
#[derive(Default)]
pub struct Expander {
    /// Made on first use.
    context: Option<DCtx<'static>>,
    content: Vec<u8>,
}

impl Expander {
    /// Returns the content of `frame`, which must be exactly `size` bytes; `None` for another size
    /// or an invalid frame. Uses no more memory than `size`, regardless of the size that the frame
    /// declares; the caller has checked `size` against a cap.
    pub fn expand(&mut self, frame: &[u8], size: usize) -> Option<&[u8]> {
        if self.context.is_none() {
            self.context = DCtx::try_create();
        }

        if self.content.len() < size {
            self.content.resize(size, 0);
        }

        let content = &mut self.content[..size];
        let got = self.context.as_mut()?.decompress(content, frame).ok()?;
        (got == size).then_some(content)
    }
}

impl fmt::Debug for Expander {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Expander")
            .field("memory", &self.content.len())
            .finish_non_exhaustive()
    }
}

/// Returns whether content is worth compressing: false if nearly all of it looks compressed or
/// encrypted.
///
/// Counts how often two bytes of a sample are equal. With all bytes equally frequent this is one
/// pair in 256; text, programs and numbers have several times as many. Repeated noise is not
/// detected.
pub fn may_shrink(content: &[u8]) -> bool {
    let samples = content.chunks(SAMPLE_EVERY).map(|piece| {
        // From the middle: files have headers.
        let from = piece.len().saturating_sub(SAMPLE_BYTES) / 2;
        &piece[from..piece.len().min(from + SAMPLE_BYTES)]
    });
    let mut all = 0;
    let mut uneven = 0;

    for sample in samples {
        all += 1;
        uneven += usize::from(is_uneven(sample));
    }

    uneven * 8 >= all.max(1)
}

fn is_uneven(sample: &[u8]) -> bool {
    let mut counts = [0u32; 256];
    sample
        .iter()
        .for_each(|&byte| counts[usize::from(byte)] += 1);
    let pairs: u64 = counts
        .iter()
        .map(|&n| u64::from(n) * u64::from(n.saturating_sub(1)))
        .sum();
    let all = sample.len() as u64 * (sample.len() as u64).saturating_sub(1);

    // 1.5 times as many pairs as by chance. Samples of few bytes prove nothing, and are tried.
    sample.len() < 256 || pairs * 256 * 2 > all * 3
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn noise(seed: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        fastrand::Rng::with_seed(seed).fill(&mut bytes);
        bytes
    }

    fn squeeze(level: u8, pieces: &[&[u8]], size: Option<usize>) -> Vec<u8> {
        let mut compressor = Compressor::new();
        compressor.begin(Level::new(level).unwrap(), size).unwrap();
        pieces
            .iter()
            .for_each(|piece| assert!(compressor.add(piece).is_some()));
        compressor.end().unwrap().to_vec()
    }

    #[test]
    fn levels_are_1_to_19() {
        assert_eq!(
            [0, 1, 19, 20].map(|n| Level::new(n).is_some()),
            [false, true, true, false]
        );
    }

    #[test]
    fn a_compressor_is_used_again_after_a_frame_that_was_left() {
        let text = b"some text, some text, some more text".repeat(1000);
        let mut compressor = Compressor::new();
        compressor.begin(Level(3), Some(7)).unwrap();

        // More than announced.
        let _ = compressor.add(&text);
        assert!(compressor.end().is_none());

        for level in [1, 9, 19] {
            compressor.begin(Level(level), None).unwrap();
            compressor.add(&text).unwrap();
            let frame = compressor.end().unwrap();
            assert!(frame.len() < text.len() / 50);
            assert_eq!(
                Expander::default().expand(frame, text.len()),
                Some(&text[..])
            );
        }
    }

    #[test]
    fn a_frame_that_holds_more_or_less_than_it_should_is_refused() {
        let bomb = squeeze(19, &vec![&[0u8; 1 << 20][..]; 1024], None);
        assert!(bomb.len() < 200_000);
        let mut expander = Expander::default();
        assert_eq!(expander.expand(&bomb, 1024), None);
        assert!(expander.content.capacity() < 4096);
        let frame = squeeze(3, &[&[7; 1000]], Some(1000));
        assert_eq!(expander.expand(&frame, 999), None);
        assert_eq!(expander.expand(&frame, 1001), None);
        assert_eq!(expander.expand(&frame, 1000), Some(&[7; 1000][..]));

        (0..frame.len())
            .for_each(|cut| assert_eq!(expander.expand(&frame[..cut], 1000), None, "{cut}"));
    }

    #[test]
    fn noise_is_told_from_what_shrinks() {
        assert!(!may_shrink(&noise(1, 2 << 20)));
        let text =
            b"The quick brown fox jumps over the lazy dog, and over 12 others. ".repeat(40_000);
        assert!(may_shrink(&text));
        let hex: Vec<u8> = noise(2, 1 << 20)
            .iter()
            .flat_map(|b| format!("{b:02x}").into_bytes())
            .collect();
        assert!(may_shrink(&hex));

        // A picture among pages.
        assert!(may_shrink(&[&noise(3, 1 << 20), &text[..1 << 20]].concat()));
        assert!(may_shrink(b"short"));

        // Compressed content is as good as noise.
        let packed = squeeze(9, &[&hex], None);
        assert!(!may_shrink(&packed));
    }

    proptest! {
        #[test]
        fn what_was_compressed_comes_back(
            pieces in prop::collection::vec(prop::collection::vec(0..4u8, 0..3000), 0..6),
            level in 1..8u8,
            known: bool,
        ) {
            let whole = pieces.concat();
            let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            let frame = squeeze(level, &pieces, known.then_some(whole.len()));
            let mut expander = Expander::default();
            prop_assert_eq!(expander.expand(&frame, whole.len()), Some(&whole[..]));
        }

        #[test]
        fn any_bytes_are_expanded_without_panic(
            mut bytes in prop::collection::vec(any::<u8>(), 0..300),
            size in 0..5000usize,
        ) {
            let mut expander = Expander::default();
            let _ = expander.expand(&bytes, size);
            bytes.splice(0..0, [0x28, 0xb5, 0x2f, 0xfd]);
            let _ = expander.expand(&bytes, size);
        }
    }
}
