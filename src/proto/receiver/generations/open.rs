//! An open generation: its received parts, its one readback, and its loss reports.

use std::time::Duration;

use crate::fec::Grid;
use crate::id::Ordinal;
use crate::proto::RangeSet;
use crate::proto::receiver::buffer::{BlockPart, Buffer, Progress, Vote};
use crate::units::Moment;
use crate::wire::Symbol;

/// Wait after each repair before the next loss report, in addition to a [`crate::proto::backoff`].
pub(super) const REPAIR_GAP: Duration = Duration::from_millis(3);
/// Initial wait for a repair; doubles while none arrives.
const FIRST_REPAIR_WAIT: Duration = Duration::from_millis(25);
/// Longest delay of a loss report while the disk reads back blocks.
const READBACK_WAIT: Duration = Duration::from_millis(15);
/// Loss reports without any repair after which a generation is abandoned.
const MAX_LOSS_REPORTS: u32 = 12;

/// The last repair of any generation; later generations are repaired after it.
#[derive(Debug)]
pub(super) struct LastRepair {
    pub(super) generation: u32,
    pub(super) at: Moment,
}

/// An open generation and the time of its next loss report.
#[derive(Debug)]
pub(super) struct OpenGeneration {
    buffer: Buffer,
    /// Due time of the next loss report, set once the generation was sent in full.
    due: Option<Moment>,
    /// Random delay of this host, so that few hosts report for all.
    delay: Duration,
    /// Arrival of the last symbol.
    last_symbol_at: Option<Moment>,
    wait: Duration,
    /// Loss reports since the last symbol.
    loss_reports: u32,
    /// Set once the losses were counted.
    is_counted: bool,
    readback: ReadbackState,
}

/// State of the one readback per generation.
#[derive(Debug, Clone, Copy)]
enum ReadbackState {
    NotYet,
    /// Requested; the loss report waits until this time.
    Pending(Moment),
    Done,
}

impl Default for OpenGeneration {
    fn default() -> Self {
        Self {
            buffer: Buffer::default(),
            due: None,
            delay: Duration::ZERO,
            last_symbol_at: None,
            wait: FIRST_REPAIR_WAIT,
            loss_reports: 0,
            is_counted: false,
            readback: ReadbackState::NotYet,
        }
    }
}

impl OpenGeneration {
    /// Returns the received parts.
    pub(super) fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    /// Takes the received parts out.
    pub(super) fn into_buffer(self) -> Buffer {
        self.buffer
    }

    /// Adds a symbol. `memory` supplies the buffer for the first symbol. Returns false if the
    /// symbol added nothing.
    pub(super) fn symbol(
        &mut self,
        now: Moment,
        grid: Grid,
        symbol: &Symbol<'_>,
        memory: impl FnOnce() -> Vec<u8>,
    ) -> bool {
        match self.buffer.vote(grid) {
            Vote::Agrees => {}
            Vote::Differs => return false,
            // The first symbol was forged.
            Vote::Outvotes => {
                self.buffer = Buffer::default();
                self.readback = ReadbackState::Done;
            }
        }

        self.last_symbol_at = Some(now);
        self.wait = FIRST_REPAIR_WAIT;
        self.loss_reports = 0;
        self.buffer.take(grid, symbol, memory)
    }

    /// Adds parts read back from disk. Returns false if the parts added nothing.
    pub(super) fn add_parts(&mut self, now: Moment, parts: &[(BlockPart, Vec<u8>)]) -> bool {
        // The reply belongs to the current buffer, not to an outvoted one.
        let ReadbackState::Pending(until) = self.readback else {
            return false;
        };

        self.readback = ReadbackState::Done;
        if now < until {
            self.due = Some(now);
        }

        self.buffer.add_parts(parts)
    }

    /// Returns the completeness of the blocks in `wants`.
    pub(super) fn progress(&mut self, wants: &RangeSet) -> Progress {
        self.buffer.progress(wants)
    }

    /// Schedules the first loss report after the random `delay`.
    pub(super) fn schedule(&mut self, now: Moment, delay: Duration) {
        self.delay = delay;
        self.due = Some(now + delay);
    }

    /// Returns true if all loss reports were without effect.
    pub(super) fn is_hopeless(&self) -> bool {
        self.loss_reports == MAX_LOSS_REPORTS
    }

    /// Returns the time of the next loss report, postponed while repairs of this or an earlier
    /// generation arrive.
    ///
    /// Other hosts wait for the end of the repairs as well; the random delay again selects the few
    /// that report first.
    pub(super) fn due(&self, number: u32, repaired: &LastRepair) -> Option<Moment> {
        let before = if repaired.generation <= number {
            repaired.at
        } else {
            Moment(0)
        };

        let coming = self.last_symbol_at.unwrap_or(Moment(0)).max(before);
        self.due
            .map(|due| due.max(coming + REPAIR_GAP + self.delay))
    }

    /// Returns the parts to read back before the first loss report; empty after the first call or
    /// if nothing is useful.
    pub(super) fn start_readback(&mut self, now: Moment, from: Option<Ordinal>) -> Vec<BlockPart> {
        let (ReadbackState::NotYet, Some(from)) = (self.readback, from) else {
            return Vec::new();
        };

        let parts = self.buffer.readable_parts(from);
        if !parts.is_empty() {
            self.readback = ReadbackState::Pending(now + READBACK_WAIT);
            self.due = Some(now + READBACK_WAIT);
        }

        parts
    }

    /// Returns true once: at the first loss report after the size of the generation is known.
    pub(super) fn begin_loss(&mut self) -> bool {
        let is_first = !self.is_counted && self.buffer.has_begun();
        self.is_counted |= is_first;
        is_first
    }

    /// Records a loss report. The wait for the next one doubles each time up to `longest`; the
    /// random `delay` is added.
    pub(super) fn on_loss_report(&mut self, now: Moment, longest: Duration, delay: Duration) {
        self.delay = delay;
        self.loss_reports += 1;
        self.due = Some(now + self.wait + self.delay);
        self.wait = (self.wait * 2).min(longest);
    }
}
