//! The blocks a session lacks, and the generations that bring them.

use std::time::Duration;

use crate::id::{Generation, Ordinal};
use crate::proto::RangeSet;
use crate::proto::receiver::buffer::BlockPart;
use crate::proto::receiver::generations::{Delivery, Due, Generations, SymbolCounts};
use crate::units::Moment;
use crate::wire::Symbol;
use crate::wire::message::Ranges;

/// Largest number of ranges in one list of wants; finer lists are coarsened.
const MAX_WANT_RANGES: usize = 16 * 1024;
/// Time without any data after which outstanding wants are requested again.
const IDLE_RETRY_AFTER: Duration = Duration::from_millis(1000);
/// The same where hosts pass data on, once the sender shows that it has sent nothing more since.
const QUIET_RETRY_AFTER: Duration = Duration::from_millis(100);
/// Time without useful data after which outstanding wants are requested again.
///
/// The data may be for other hosts, or the request was lost: on an unsealed network anyone can
/// forge its acknowledgement.
const STARVED_RETRY_AFTER: Duration = Duration::from_secs(4);
/// Consecutive payloads without a valid block before the session is refused; more are no accident.
const MAX_DAMAGED_PAYLOADS: u32 = 32;
/// Pending payloads above which the disk counts as slow.
const SLOW_DISK_PAYLOADS: u32 = 2;

/// Wanted blocks of a session and the generations that bring them.
#[derive(Debug)]
pub(super) struct Fetch {
    /// Requested ordinals that have not arrived.
    wants: RangeSet,
    generations: Generations,
    /// Payloads without a reply of the disk.
    delivering: u32,
    /// Consecutive payloads without a single valid block.
    damaged: u32,
    /// Bytes kept by the disk.
    received: u64,
    /// Arrival of the last data, or the time of the last request.
    data_at: Moment,
    /// Time of the last request for wants.
    requested_at: Moment,
    /// The sender's pass over the hosts.
    pass: u32,
    pauses: SenderPauses,
}

/// Pauses of a sender whose data hosts pass on.
#[derive(Debug, Default)]
struct SenderPauses {
    is_relayed: bool,
    /// Data counter in the last status.
    counter: u64,
    /// The last two statuses show the same counter, and no data has come since.
    is_quiet: bool,
}

impl Fetch {
    /// Starts without wants, for symbols of `symbol` bytes.
    pub(super) fn new(now: Moment, symbol: u16) -> Self {
        Self {
            wants: RangeSet::default(),
            generations: Generations::new(symbol),
            delivering: 0,
            damaged: 0,
            received: 0,
            data_at: now,
            requested_at: now,
            pass: 0,
            pauses: SenderPauses::default(),
        }
    }

    /// Listens for the generations of `wants` from now on.
    pub(super) fn begin(&mut self, now: Moment, wants: RangeSet) {
        self.wants = wants;
        self.listen_again(now);
    }

    /// Drops open generations.
    pub(super) fn listen_again(&mut self, now: Moment) {
        self.generations.reset();
        self.data_at = now;
    }

    /// Waits for data of a repeated request.
    pub(super) fn wait_again(&mut self, now: Moment) {
        self.data_at = now;
    }

    /// Returns true if no block is wanted that has not arrived.
    pub(super) fn is_idle(&self) -> bool {
        self.wants.is_empty()
    }

    /// Returns the outstanding wants for a request at `due`.
    pub(super) fn request(&mut self, due: Moment) -> Ranges {
        self.requested_at = due;
        Ranges(self.wants.cover(MAX_WANT_RANGES).iter().collect())
    }

    /// Wants the damaged ordinals `wrong` once more.
    pub(super) fn want_again(&mut self, wrong: &RangeSet) {
        self.wants.extend(wrong);
    }

    /// Returns true if so many payloads in a row were damaged that it is no accident.
    pub(super) fn is_hopeless(&self) -> bool {
        self.damaged > MAX_DAMAGED_PAYLOADS
    }

    /// Returns true if the disk keeps up with the payloads.
    pub(super) fn is_disk_quick(&self) -> bool {
        self.delivering <= SLOW_DISK_PAYLOADS
    }

    /// Takes a payload's buffer back from the disk.
    pub(super) fn recycle(&mut self, buffer: Vec<u8>) {
        self.delivering = self.delivering.saturating_sub(1);
        self.generations.recycle(buffer);
    }

    /// Returns losses to report and parts to read back, which are at or above `read_from`.
    pub(super) fn due(
        &mut self,
        now: Moment,
        interval: Duration,
        read_from: Option<Ordinal>,
        delay: impl FnMut() -> Duration,
    ) -> Due {
        self.generations.due(now, interval, read_from, delay)
    }

    /// Returns true if generations were given up since the last call.
    pub(super) fn take_abandoned(&mut self) -> bool {
        self.generations.take_abandoned()
    }

    /// Returns the time of the next loss report.
    pub(super) fn timeout(&self, now: Moment) -> Option<Moment> {
        self.generations.timeout(now)
    }

    /// Returns the number of bytes kept by the disk.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// Takes the counts of lost symbols and of repairs.
    pub(super) fn take_symbol_counts(&mut self) -> SymbolCounts {
        self.generations.take_counts()
    }

    /// Returns the number of bytes pending on the disk.
    pub(super) fn backlog(&self) -> u64 {
        self.generations.delivered()
    }

    /// Returns the number of buffered bytes.
    pub(super) fn held(&self) -> usize {
        self.generations.held()
    }

    /// Records that hosts pass data on in this session.
    pub(super) fn on_relayed(&mut self) {
        self.generations.on_relayed();
        self.pauses.is_relayed = true;
    }

    /// Records the arrival of data.
    pub(super) fn on_data(&mut self, now: Moment) {
        self.data_at = now;
        self.pauses.is_quiet = false;
    }

    /// Takes the data counter of a status.
    pub(super) fn on_counter(&mut self, counter: u64) {
        let last = std::mem::replace(&mut self.pauses.counter, counter);
        self.pauses.is_quiet = self.pauses.is_relayed && last == counter;
    }

    /// Records that all generations below `sent` were sent in full.
    pub(super) fn on_sent(&mut self, sent: Generation) {
        self.generations.on_sent(sent);
    }

    /// Handles the sender's pass over the hosts. Returns true for a new one.
    pub(super) fn on_pass(&mut self, pass: u32) -> bool {
        let new = pass > self.pass;
        self.pass = self.pass.max(pass);
        new
    }

    /// Adds a symbol. Returns the generation once complete.
    pub(super) fn symbol(&mut self, now: Moment, symbol: &Symbol<'_>) -> Option<Delivery> {
        let delivery = self.generations.symbol(now, symbol, &self.wants)?;
        Some(self.take(delivery))
    }

    /// Adds parts read back from disk. Returns the generation if now complete.
    pub(super) fn add_parts(
        &mut self,
        now: Moment,
        generation: Generation,
        parts: &[(BlockPart, Vec<u8>)],
    ) -> Option<Delivery> {
        let delivery = self
            .generations
            .add_parts(now, generation, parts, &self.wants)?;

        Some(self.take(delivery))
    }

    /// Removes the blocks of a complete generation from the wants.
    fn take(&mut self, delivery: Delivery) -> Delivery {
        for block in &delivery.blocks {
            self.wants.remove(block.ordinal.0..block.ordinal.0 + 1);
        }

        self.delivering += 1;
        delivery
    }

    /// Drops all wants and open generations.
    pub(super) fn stop(&mut self) {
        self.wants = RangeSet::default();
        self.generations.reset();
    }

    /// Counts the result of a delivery, `bytes` kept and the ordinals in `wrong` damaged.
    pub(super) fn on_result(&mut self, bytes: u64, wrong: &RangeSet) {
        self.received += bytes;

        // One forged symbol ruins at most one generation, so any valid block resets the count.
        self.damaged = if bytes > 0 || wrong.is_empty() {
            0
        } else {
            self.damaged + 1
        };
    }

    /// Returns true if every wanted block is on the disk.
    pub(super) fn is_complete(&self) -> bool {
        self.wants.is_empty() && self.delivering == 0
    }

    /// Returns the time to repeat the outstanding wants if no useful data arrives before.
    pub(super) fn retry_at(&self) -> Moment {
        let last_use = self.generations.taken_at().max(self.requested_at);
        let starved = last_use + STARVED_RETRY_AFTER;

        // Data since the request may have been for others, and the wants not in it.
        let is_quiet = self.pauses.is_quiet && self.data_at > self.requested_at;
        if self.generations.is_settled() {
            let wait = match is_quiet {
                true => QUIET_RETRY_AFTER,
                false => IDLE_RETRY_AFTER,
            };
            starved.min(self.data_at + wait)
        } else {
            starved
        }
    }
}
