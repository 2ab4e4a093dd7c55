//! Reads a source generation by generation, compressed for the rate of the network.

use std::sync::Arc;
use std::time::Duration;

use crate::Result;
use crate::block::frame::Compressor;
use crate::drive::clock::Clock;
use crate::id::Ordinal;
use crate::proto::RangeSet;
use crate::proto::compression::{Demand, LevelSelector};
use crate::proto::generation::{Buffers, KEPT_GENERATIONS, TARGET_BYTES, pack_to};
use crate::spec::Compress;
use crate::tree::{Blocks, SourceError};

/// Largest number of payloads whose memory is reused: those kept for repair, and some in flight.
const MAX_PAYLOADS: usize = KEPT_GENERATIONS as usize + 8;

/// A source ready to be read.
pub struct ReleaseSource {
    source: Box<dyn Blocks>,
    /// Bytes of a payload.
    target: usize,
    effort: LevelSelector,
    compressor: Compressor,
    buffers: Buffers,
    /// Unreadable ordinal of the last pack.
    failed: Option<Ordinal>,
    /// Payloads handed out, kept to reuse their memory.
    payloads: Vec<Arc<Vec<u8>>>,
}

impl ReleaseSource {
    /// A source of the data in `source`, sent with the compression `compress`.
    pub fn of(source: Box<dyn Blocks>, compress: Compress) -> Self {
        Self {
            source,
            target: TARGET_BYTES,
            effort: LevelSelector::new(compress),
            compressor: Compressor::new(),
            buffers: Buffers::default(),
            failed: None,
            payloads: Vec::new(),
        }
    }

    /// The same with payloads of about `target` bytes: both ends hold some 30 of them.
    pub fn in_payloads_of(self, target: usize) -> Self {
        Self { target, ..self }
    }

    /// Packs the first of `ordinals` into a generation's payload, compressed unless the link would
    /// have to wait.
    pub fn pack(
        &mut self,
        ordinals: &RangeSet,
        demand: Demand,
    ) -> Result<(RangeSet, Arc<Vec<u8>>), SourceError> {
        let place = self.free_payload();
        self.source.expect(ordinals);
        let Self {
            source,
            target,
            effort,
            compressor,
            buffers,
            failed,
            ..
        } = self;

        *failed = None;
        let level = effort.level(demand);
        let clock = Clock::start();
        let began = clock.now();
        let mut reading = Duration::ZERO;
        let packed = pack_to(
            *target,
            ordinals,
            level.map(|level| (&mut *compressor, level)),
            buffers,
            |ordinal, out| {
                let before = level.map(|_| clock.now());
                source
                    .read(ordinal, out)
                    .inspect_err(|_| *failed = Some(ordinal))?;
                reading += before.map_or(Duration::ZERO, |before| clock.now().since(before));
                Ok::<(), SourceError>(())
            },
        )?;

        if let (Some(level), Some((plain, frame))) = (level, packed.frame) {
            effort.record(
                level,
                plain,
                frame,
                clock.now().since(began).saturating_sub(reading),
            );
        }

        if packed.frame.is_none() {
            compressor.free_memory();
        }

        let payload = Arc::new(std::mem::take(&mut self.buffers.payload));
        match place {
            Some(place) => self.payloads[place] = Arc::clone(&payload),
            None if self.payloads.len() < MAX_PAYLOADS => self.payloads.push(Arc::clone(&payload)),
            None => {}
        }

        Ok((packed.taken, payload))
    }

    /// Appends the bytes of one block to `out`.
    pub fn read(&mut self, ordinal: Ordinal, out: &mut Vec<u8>) -> Result<(), SourceError> {
        self.source.read(ordinal, out).map(drop)
    }

    /// Unreadable ordinal of the last pack.
    pub fn failed_at(&self) -> Option<Ordinal> {
        self.failed
    }

    /// Finds a payload no longer kept for repair, to reuse the memory.
    fn free_payload(&mut self) -> Option<usize> {
        let place = self
            .payloads
            .iter()
            .position(|p| Arc::strong_count(p) == 1)?;
        self.buffers.payload = Arc::get_mut(&mut self.payloads[place])
            .map(std::mem::take)
            .unwrap_or_default();

        Some(place)
    }
}
