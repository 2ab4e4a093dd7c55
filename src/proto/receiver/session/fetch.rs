//! Requests the blocks a session lacks, hands payloads to the disk, and reports losses.

use std::time::Duration;

use super::Session;
use crate::id::{Generation, Ordinal};
use crate::proto::control::Control;
use crate::proto::receiver::buffer::BlockPart;
use crate::proto::receiver::disk::{Ask, ReasonText};
use crate::proto::receiver::generations::{Delivery, Due, Generations, SymbolCounts};
use crate::proto::receiver::notice::HostNotice;
use crate::proto::{Dest, RangeSet, backoff, complaint_interval};
use crate::units::Moment;
use crate::wire::message::{Nack, Ranges, WantList};
use crate::wire::{HostStage, Message, Symbol};

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
    fn add_parts(
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
    fn on_result(&mut self, bytes: u64, wrong: &RangeSet) {
        self.received += bytes;

        // One forged symbol ruins at most one generation, so any valid block resets the count.
        self.damaged = if bytes > 0 || wrong.is_empty() {
            0
        } else {
            self.damaged + 1
        };
    }

    /// Returns true if every wanted block is on the disk.
    fn is_complete(&self) -> bool {
        self.wants.is_empty() && self.delivering == 0
    }

    /// Returns the time to repeat the outstanding wants if no useful data arrives before.
    fn retry_at(&self) -> Moment {
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

impl Session {
    /// Requests `wants` and starts to listen for their generations.
    pub(super) fn want(&mut self, now: Moment, wants: RangeSet) {
        self.fetch.wants = wants;
        self.fetch.generations.reset();
        self.send_wants(now);
        self.fetch.data_at = now;
    }

    /// Requests the rest on a new pass and drops generations that went by: the sender now serves
    /// slow hosts.
    pub(super) fn want_rest(&mut self, now: Moment) {
        if !self.fetch.wants.is_empty() {
            self.fetch.generations.reset();
            self.send_wants(now);
            self.fetch.data_at = now;
        }
    }

    /// Queues the messages that request the outstanding wants.
    fn send_wants(&mut self, due: Moment) {
        self.fetch.requested_at = due;

        let want = WantList {
            session: self.id,
            number: 0,
            ranges: Ranges(self.fetch.wants.cover(MAX_WANT_RANGES).iter().collect()),
            more: false,
            seen: self.intake.seen(),
            fetch: self.state.fetch_bytes(),
        };

        self.messages
            .queue_wants(due, &want, self.orders.is_granted());
    }

    /// Handles the disk's reply to a delivered payload.
    pub(super) fn on_delivered(
        &mut self,
        now: Moment,
        buffer: Vec<u8>,
        outcome: Result<(RangeSet, u64), ReasonText>,
    ) {
        self.fetch.delivering = self.fetch.delivering.saturating_sub(1);
        self.fetch.generations.recycle(buffer);
        if self.is_over() {
            return;
        }

        let (wrong, bytes) = match outcome {
            Ok(result) => result,
            Err(why) => return self.refuse(now, why),
        };

        self.fetch.on_result(bytes, &wrong);
        if !wrong.is_empty() {
            self.on_invalid_data();
            if self.fetch.damaged > MAX_DAMAGED_PAYLOADS {
                return self.refuse(now, "the sender's data does not match its release".into());
            }

            self.fetch.wants.extend(&wrong);
            self.send_wants(now);
        }

        if self.fetch.is_complete() {
            self.fetch.generations.reset();

            // Requests of other hosts fulfilled these wants before this host's turn.
            self.messages.drop_wants();
            self.ask(match self.state.stage() {
                HostStage::Fetching => Ask::Explore,
                _ => Ask::Finish,
            });
        }
    }

    /// Reports invalid data and restricts the sources.
    fn on_invalid_data(&mut self) {
        let sources = self.intake.restrict(self.sender.address());
        self.effects.notify(HostNotice::Damaged {
            tree: self.tree().clone(),
            serial: self.release.header().serial,
            sources,
        });
    }

    /// Handles blocks read back from disk.
    pub(super) fn on_read_back(
        &mut self,
        now: Moment,
        generation: Generation,
        parts: &[(BlockPart, Vec<u8>)],
    ) {
        if let Some(delivery) = self.fetch.add_parts(now, generation, parts) {
            self.ask(Ask::Deliver(delivery));
        }
    }

    /// Reports losses and repeats wants that the sender no longer serves.
    pub(super) fn repair(&mut self, now: Moment, control: &mut Control) {
        if self.fetch.wants.is_empty() {
            return;
        }

        let read_from = self.read_back_from();
        let hosts = self.sender.hosts();
        let is_second_hop = self.is_second_hop();
        let rng = &mut self.rng;
        let delay = || backoff(hosts, is_second_hop, rng.f64());
        let Due { missing, readbacks } =
            self.fetch
                .generations
                .due(now, complaint_interval(hosts), read_from, delay);

        for (generation, parts) in readbacks {
            self.ask(Ask::ReadBack { generation, parts });
        }

        if !missing.is_empty() {
            let nack = Nack {
                session: self.id,
                seen: self.intake.seen(),
                missing,
            };
            control.send(Dest::Host(self.sender.address()), &Message::Nack(nack));
        }

        let abandoned = self.fetch.generations.take_abandoned();
        if abandoned || self.retry_at().is_some_and(|at| at <= now) {
            self.fetch.data_at = now;
            self.send_wants(now);
        }
    }

    /// Returns the first ordinal the disk may read back: the first block of files, while staging.
    /// A slow disk would reply too late.
    fn read_back_from(&self) -> Option<Ordinal> {
        let may_read =
            self.state.stage() == HostStage::Staging && self.fetch.delivering <= SLOW_DISK_PAYLOADS;

        may_read.then_some(Ordinal(self.release.header().root.nodes))
    }

    /// Returns the time to repeat the outstanding wants, once the last request is acknowledged.
    fn retry_at(&self) -> Option<Moment> {
        self.messages.is_empty().then(|| self.fetch.retry_at())
    }

    /// Returns the due time of the next [`Session::repair`].
    pub(super) fn fetch_timeout(&self, now: Moment) -> Option<Moment> {
        if self.fetch.wants.is_empty() {
            return None;
        }

        self.fetch
            .generations
            .timeout(now)
            .into_iter()
            .chain(self.retry_at())
            .min()
    }
}
