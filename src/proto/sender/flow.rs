//! Flow of data: sends the stream of symbols within window and pace, controlled by the reports of
//! hosts.

mod relaying;

use std::time::Duration;

use super::hosts::Hosts;
use super::reach::Reach;
use super::receiver_reports::ReceiverStats;
use super::relays::Relays;
use super::setup::{DatagramSizes, RateLimits};
use super::stream::{SendStats, SymbolStream};
use crate::id::{InstanceId, SessionId};
use crate::proto::rate::{Controller, Pacer};
use crate::proto::{Dest, RangeSet, Transmit, alive_interval, slot_interval};
use crate::units::{Moment, Rate};
use crate::wire::message::{Nack, ReceiverReport, WantList};
use crate::wire::{DATA_OVERHEAD, HostStage};

/// Time for which NACKs of a generation are gathered, so that one repair answers many hosts.
const NACK_GATHERING: Duration = Duration::from_millis(2);
/// Up to this many hosts, resend exactly the reported symbols. In larger fleets early NACKs stand
/// for hosts that lost other symbols, so send coded ones.
const FEW_HOSTS: usize = 8;
/// Interval between checks of a closed window, in case the report that would open it is lost.
const CLOSED_RECHECK: Duration = Duration::from_millis(10);
/// Longest time on the link of a single send, so that one send does not fill a slow link's queue.
const SEND_TIME: Duration = Duration::from_micros(300);
/// The same for a send to one of many relays. Each passes it on by a send to each host, and short
/// ones cost all of them more processor time than their bytes.
const RELAYED_SEND_TIME: Duration = Duration::from_micros(900);
/// Relays from which a send is that long. Fewer show by more of their sends whether they pass on.
const MANY_RELAYS: usize = 8;
/// Longest time that a late process may catch up on.
const MAX_CATCH_UP: Duration = Duration::from_millis(4);
/// Period over which a ceiling holds.
const CEILING_PERIOD: Duration = Duration::from_millis(100);
/// Fraction of the period's bytes that may go at once: one in this many.
const BURSTS_PER_PERIOD: u64 = 16;
/// Largest burst under a ceiling, in bytes: the queue of a small switch.
const MAX_BURST: u64 = 50_000;

/// Bytes up to which all copies of a payload are sent directly: one hop is faster than two.
const MAX_DIRECT_BYTES: u64 = 256 << 10;
/// Copies up to which a small payload is sent directly: more take longer than two hops.
const MAX_DIRECT_COPIES: usize = 64;

/// Bytes of data up to which the rates over relays mean nothing.
const MAX_SHORT_START: u64 = 1 << 20;

/// Longest wait of the first data for relays in a small fleet, and delay of a host's signs of life
/// that counts as none.
const RELAY_PATIENCE: Duration = Duration::from_millis(100);
/// Percentage of the hosts in groups for which the first data waits.
const EXPECTED_SHARE: usize = 75;

/// Parameters of a flow.
#[derive(Debug, Clone, Copy)]
pub struct FlowSetup {
    /// The session.
    pub session: SessionId,
    /// This process.
    pub instance: InstanceId,
    /// Sizes of datagrams.
    pub sizes: DatagramSizes,
    /// Limits of the rate.
    pub rates: RateLimits,
    /// Seed of all randomness.
    pub seed: u64,
}

/// Flow of one session.
#[derive(Debug)]
pub struct Flow {
    setup: FlowSetup,
    stream: SymbolStream,
    /// Data counter at the last moment without anything to send.
    idle: u64,
    controller: Controller,
    pacer: Pacer,
    /// Copies of each datagram of data for the group that leave this machine.
    copies: usize,
    /// Copies of each message to the group that leave this machine.
    message_copies: usize,
    /// Hosts that this machine's multicast reaches beside relays, sorted.
    near: Vec<InstanceId>,
    relays: Relays,
    /// Relays for which the first data waits.
    relays_expected: usize,
    /// Time of the first data for which relays are worth a wait.
    relays_awaited_since: Option<Moment>,
    receivers: ReceiverStats,
}

impl Flow {
    /// Creates a flow that begins now.
    pub fn new(now: Moment, setup: FlowSetup) -> Self {
        Self {
            stream: SymbolStream::new(setup.session, symbol_of(setup.sizes.datagram)),
            idle: 0,
            controller: Controller::new(now, setup.rates.ceiling),
            pacer: Pacer::new(now),
            copies: 1,
            message_copies: 1,
            near: Vec::new(),
            relays: Relays::default(),
            relays_expected: 0,
            relays_awaited_since: None,
            receivers: ReceiverStats::new(
                setup.sizes.overhead + DATA_OVERHEAD,
                setup.rates.floor,
                setup.seed,
            ),
            setup,
        }
    }

    /// Sets the size of datagrams, before any is sent.
    pub fn fit_datagram(&mut self, datagram: usize) {
        self.setup.sizes.datagram = datagram;
        self.stream = SymbolStream::new(self.setup.session, symbol_of(datagram));
    }

    /// Sets the number of copies of each message to the group.
    pub fn set_message_copies(&mut self, copies: usize) {
        self.message_copies = copies.max(1);
    }

    /// Sets the ways to the hosts: the copies of each datagram for the group and the number of
    /// relays follow.
    pub fn set_reach(&mut self, reach: &Reach) {
        self.copies = reach.copies();
        self.near = reach.near().to_vec();
        let grouped = reach.grouped();
        self.relays_expected = match grouped < reach.least_relays() {
            true => 0,
            false => (grouped * EXPECTED_SHARE).div_ceil(100),
        };
    }

    /// Returns whether relays save much: the copies of a payload, or of `fetch` further bytes, are
    /// many, or many bytes.
    pub fn is_worth_relays(&self, fetch: u64) -> bool {
        let payload = (self.stream.largest_payload() as u64).max(fetch);
        let bytes = payload.saturating_mul(self.copies as u64);
        self.copies > MAX_DIRECT_COPIES || self.copies > 1 && bytes > MAX_DIRECT_BYTES
    }

    /// Lets each host pass data on that has confirmed its targets, was heard lately and is not
    /// slow.
    pub fn choose_relays(&mut self, now: Moment, reach: &Reach, hosts: &Hosts) {
        let patience = alive_interval(hosts.len() as u32) * 2 + RELAY_PATIENCE;
        let receivers = &self.receivers;
        let able = reach.confirmed(hosts).filter(|(id, host, _)| {
            let takes_part = !host.is_lost() && host.stage.is_some_and(HostStage::is_rightful);
            takes_part && now.since(host.heard) < patience && !receivers.is_slow(*id)
        });

        let able = able.map(|(id, _, address)| (id, address));
        self.relays.choose(now, reach.least_relays(), able);
        self.on_chosen(self.relays.present());
    }

    /// Returns whether a host gets data by this machine's multicast.
    fn is_near(&self, host: InstanceId) -> bool {
        self.near.binary_search(&host).is_ok()
    }

    /// Lets a host that is gone pass nothing on.
    pub fn on_gone(&mut self, host: InstanceId) {
        self.relays.remove(host);
    }

    /// Returns whether a relay takes the next train. All hosts get it directly with multicast, and
    /// if the copies of the payload are few bytes.
    fn begin_train(&mut self) -> bool {
        self.relays.has_any() && self.is_worth_relays(0) && self.relays.begin_train()
    }

    /// Returns whether data waits for relays to confirm their targets.
    fn awaits_relays(&self, now: Moment) -> bool {
        let is_early = self.relays_awaited_until().is_some_and(|until| now < until);
        is_early && self.relays.present() < self.relays_expected
    }

    /// Returns the end of the wait for relays; none if the copies of the payload are few and take
    /// less time than the wait.
    fn relays_awaited_until(&self) -> Option<Moment> {
        let since = self.relays_awaited_since?;
        // Hosts confirm in their slots.
        let patience = RELAY_PATIENCE + slot_interval(self.copies as u32) * 2;
        let payload = self.stream.largest_payload() as u64;
        let copies = payload.saturating_mul(self.copies as u64);
        // Copies share the link, so the present rate of one says too little.
        let rate = self.controller.rate().max(self.controller.start_rate());
        let is_quick = rate.time_for(copies) <= patience;
        // Many copies weigh more than a small payload is worth, however soon they are sent.
        (!is_quick || self.copies > MAX_DIRECT_COPIES).then(|| since + patience)
    }

    /// The stream of wants, generations and symbols.
    pub fn stream(&self) -> &SymbolStream {
        &self.stream
    }

    /// Mutable access to the stream.
    pub fn stream_mut(&mut self) -> &mut SymbolStream {
        &mut self.stream
    }

    /// Measurements reported by hosts.
    pub fn receivers(&self) -> &ReceiverStats {
        &self.receivers
    }

    /// Traffic so far.
    pub fn stats(&self) -> SendStats {
        self.stream.stats()
    }

    /// Present rate.
    pub fn rate(&self) -> Rate {
        self.controller.rate()
    }

    /// Takes a host's want for ordinals below `all`; wants of slow hosts are ignored for now.
    pub fn on_want(&mut self, host: InstanceId, want: &WantList, all: u64) {
        if !self.receivers.is_slow(host) {
            self.stream.on_want(want, self.known(want.seen), all);
        }
    }

    /// Takes a NACK, in a session of `hosts` hosts; NACKs of slow hosts are ignored for now.
    pub fn on_nack(&mut self, now: Moment, host: InstanceId, nack: &Nack, hosts: usize) {
        if self.receivers.is_slow(host) {
            return;
        }

        let due = if hosts == 1 {
            now
        } else {
            now + NACK_GATHERING
        };
        let few = hosts <= FEW_HOSTS;
        let seen = self.known(nack.seen);
        if self.relays.has_any() && !self.is_near(host) {
            self.blame_relays(now, host, nack);
        }
        nack.missing
            .iter()
            .for_each(|missing| self.stream.on_missing(missing, seen, due, few));

        self.stream.decide(now);
    }

    /// Charges the losses of a host to the relays that took the symbols.
    fn blame_relays(&mut self, now: Moment, host: InstanceId, nack: &Nack) {
        let seen = self.known(nack.seen);
        for missing in &nack.missing {
            if let Some(sent) = self.stream.sent_symbols(missing.generation) {
                self.relays.on_missing(host, missing, sent, seen);
            }
        }

        if self.relays.judge(now) {
            self.excuse_relays();
        }
    }

    /// Ways from one host to another that carry nothing.
    pub fn broken_ways(&self) -> impl Iterator<Item = (InstanceId, InstanceId)> {
        self.relays.broken_ways()
    }

    /// Limits a reported counter to the datagrams actually sent.
    fn known(&self, seen: u64) -> u64 {
        seen.min(self.stream.counter())
    }

    /// Takes a report and returns whether the host has become slow.
    pub fn on_report(&mut self, now: Moment, host: InstanceId, report: ReceiverReport) -> bool {
        let report = ReceiverReport {
            seen: self.known(report.seen),
            ..report
        };

        let before = self.receivers.is_slow(host);
        self.heed_relay(now, host, &report);
        let is_near = self.is_near(host);
        let relays = &self.relays;
        let excused = |counters| match is_near {
            true => 0,
            false => relays.lost_by_relays(host, counters),
        };
        match self
            .receivers
            .on_report(now, host, report, self.idle, excused)
        {
            Some(sample) => self.controller.sample(now, sample),
            // The effect of a slow host on the rate means nothing for the others.
            None if !before && self.receivers.is_slow(host) => self.controller.restart(now),
            None => {}
        }

        let others_need = self.receivers.probe(host);
        if !self.receivers.is_slow(host)
            && others_need.is_some_and(|rate| self.controller.rate() < rate)
        {
            self.controller.probe();
        }

        let is_new = !before && self.receivers.is_slow(host);
        if is_new {
            self.relays.remove(host);
        }
        is_new
    }

    /// Sets the number of hosts in the fast pass that still fetch.
    pub fn set_fetching(&mut self, hosts: usize) {
        self.receivers.set_fetching(hosts);
    }

    /// Ends the fast pass and readmits the slow hosts.
    pub fn readmit(&mut self, now: Moment) {
        self.receivers.readmit();
        self.controller.restart(now);
    }

    /// Chooses the reporters and returns whether the choice changed.
    pub fn choose_reporters(
        &mut self,
        now: Moment,
        hosts: impl ExactSizeIterator<Item = InstanceId>,
    ) -> bool {
        self.receivers.choose(now, hosts)
    }

    /// Performs due work.
    pub fn handle_timeout(&mut self, now: Moment) {
        self.stream.decide(now);
        if self.stream.has_data() {
            let before = self.receivers.slow().len();
            self.receivers
                .check_blocking(now, self.stream.counter(), self.stream.segment());
            if self.receivers.slow().len() > before {
                self.controller.restart(now);
            }
        }
    }

    /// Charges a message of `bytes` against the ceiling.
    pub fn charge(&mut self, now: Moment, bytes: usize, dest: Dest) {
        if self.setup.rates.ceiling.is_some() {
            let copies = match dest {
                Dest::Group => self.message_copies,
                Dest::Host(_) | Dest::Multicast | Dest::Relay(_) => 1,
            };
            self.spend(now, bytes + self.setup.sizes.overhead, copies);
        }
    }

    /// Writes the next send into `out`, as pace and window allow.
    pub fn poll(&mut self, now: Moment, out: &mut Vec<u8>) -> Option<Transmit> {
        if self.pacer.due() > now || !self.may_send(now) {
            return None;
        }

        if self.is_worth_relays(0) {
            self.relays_awaited_since.get_or_insert(now);
        }
        if self.awaits_relays(now) {
            return None;
        }

        let sent = (now.0 / 1000) as u32;
        let relayed = self.begin_train();
        let written = self.stream.write(
            self.setup.instance,
            sent,
            self.most(relayed),
            self.setup.sizes.room,
            relayed,
            out,
        )?;

        let end = self.stream.counter() + 1;
        let counters = end - written.datagrams..end;
        let relay = if relayed {
            Some(self.relays.take(counters, &written)?)
        } else {
            self.relays.on_direct(counters);
            None
        };

        let segment = self.stream.segment() + self.setup.sizes.room;
        let datagrams = out.len().div_ceil(segment);
        let bytes =
            out.len() - datagrams * self.setup.sizes.room + datagrams * self.setup.sizes.overhead;
        let copies = match relay {
            None => self.copies,
            Some(_) => 1 + usize::from(!self.near.is_empty()),
        };
        self.spend(now, bytes, copies);
        if !self.stream.has_data() {
            self.idle = self.stream.counter();
        }

        Some(Transmit {
            dest: relay.map_or(Dest::Group, Dest::Relay),
            segment,
        })
    }

    /// Charges `copies` copies of `bytes`. The controller's rate is that of one copy, because hosts
    /// report their own; the ceiling is that of all copies.
    fn spend(&mut self, now: Moment, bytes: usize, copies: usize) {
        let bytes = match self.setup.rates.ceiling {
            None => bytes,
            Some(_) => bytes * copies,
        };
        let (rate, catch_up) = match self.burst() {
            None => (self.controller.rate(), MAX_CATCH_UP),
            // Stay so far below the ceiling that one extra burst still fits into the period.
            Some((ceiling, burst)) => {
                let room = ceiling
                    .bytes_in(CEILING_PERIOD)
                    .saturating_sub(burst)
                    .max(1);
                let most =
                    Rate((room as f64 * 8.0 / CEILING_PERIOD.as_secs_f64()) as u64).max(Rate(1));
                let rate = self.controller.rate().min(most);
                (rate, rate.time_for(burst / 2))
            }
        };

        self.pacer.sent(now, bytes, rate, catch_up);
    }

    /// Returns the ceiling and the bytes that may go at once: half in one send, half to catch up.
    fn burst(&self) -> Option<(Rate, u64)> {
        let ceiling = self.setup.rates.ceiling?;
        Some((
            ceiling,
            (ceiling.bytes_in(CEILING_PERIOD) / BURSTS_PER_PERIOD).min(MAX_BURST),
        ))
    }

    fn may_send(&self, now: Moment) -> bool {
        self.stream.has_repairs()
            || (self.stream.has_data()
                && self
                    .receivers
                    .window(now, self.stream.counter(), self.stream.segment())
                    > 0)
    }

    /// Largest number of datagrams in one send, at least one.
    fn most(&self, relayed: bool) -> usize {
        let time = match relayed && self.relays.present() >= MANY_RELAYS {
            true => RELAYED_SEND_TIME,
            false => SEND_TIME,
        };
        let mut bytes = self.controller.rate().bytes_in(time);
        if let Some((_, burst)) = self.burst() {
            bytes = bytes.min(burst / 2);
        }
        bytes as usize / (self.stream.segment() + self.setup.sizes.overhead)
    }

    /// Time of the next useful call of [`Flow::poll`] or [`Flow::handle_timeout`].
    pub fn timeout(&self, now: Moment) -> Option<Moment> {
        let data = self.stream.has_data().then(|| {
            if self.awaits_relays(now) {
                self.relays_awaited_until().unwrap_or(now)
            } else if self.may_send(now) {
                self.pacer.due()
            } else {
                now + CLOSED_RECHECK
            }
        });
        [data, self.stream.repair_due()].into_iter().flatten().min()
    }

    /// Takes a packed generation.
    pub fn on_packed(&mut self, now: Moment, ordinals: RangeSet, payload: std::sync::Arc<Vec<u8>>) {
        let before = self.stream.counter() * self.stream.segment() as u64;
        let is_first = before < MAX_SHORT_START && payload.len() as u64 > MAX_SHORT_START;
        self.stream.on_packed(ordinals, payload);
        // The nodes before the first blocks are too few to measure the ways over relays.
        if is_first && self.copies > 1 {
            self.controller.restart(now);
        }
    }
}

/// Returns the symbol size of datagrams of `datagram` bytes.
fn symbol_of(datagram: usize) -> u16 {
    datagram.saturating_sub(DATA_OVERHEAD).clamp(64, 65_000) as u16
}
