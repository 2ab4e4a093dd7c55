//! How data flows: the stream of symbols through window and pace, and what hosts say of it.

use std::time::Duration;

use super::readings::Readings;
use super::stream::{Stats, Stream};
use crate::id::{InstanceId, SessionId};
use crate::proto::Dest;
use crate::proto::rate::{Controller, Pacer};
use crate::proto::{RangeSet, Transmit};
use crate::units::{Floor, Moment, Rate};
use crate::wire::DATA_OVERHEAD;
use crate::wire::message::{Nack, Report, Want};

/// Complaints about a generation are gathered for this long, so that one repair answers many hosts.
const GATHER: Duration = Duration::from_millis(2);
/// Hosts that are few: what they miss may be sent again as it is. Of many, those who speak first stand for others that
/// miss something else.
const FEW: usize = 8;
/// A closed window opens with a report; it is looked at again after this in case that none comes.
const CLOSED: Duration = Duration::from_millis(10);
/// A send takes at most this much of the link's time, so that a slow link's queue is not filled by one.
const SEND_TIME: Duration = Duration::from_micros(300);
/// How much sending may catch up after the process was late.
const CATCH_UP: Duration = Duration::from_millis(4);
/// The time over which a ceiling holds.
const CEILING_OVER: Duration = Duration::from_millis(100);
/// The share of that time that may go out at once.
const CEILING_BURSTS: u64 = 16;
/// The most bytes that go out at once under a ceiling: what the queue of a small switch takes.
const MAX_BURST: u64 = 50_000;

/// What a flow is to be.
#[derive(Debug, Clone, Copy)]
pub struct FlowSetup {
    /// The session.
    pub session: SessionId,
    /// This process.
    pub instance: InstanceId,
    /// Bytes of a datagram with a symbol.
    pub datagram: usize,
    /// Bytes that are left free behind every datagram.
    pub room: usize,
    /// Bytes that the network adds to each datagram, sealing included.
    pub overhead: usize,
    /// The most that is sent, with what the network adds.
    pub ceiling: Option<Rate>,
    /// Below which a host is served after the others.
    pub floor: Floor,
    /// The seed of everything random.
    pub seed: u64,
}

/// The flow of one session.
#[derive(Debug)]
pub struct Flow {
    setup: FlowSetup,
    stream: Stream,
    /// The data counter at which there was nothing more to send, last.
    idle: u64,
    controller: Controller,
    pacer: Pacer,
    readings: Readings,
}

impl Flow {
    /// A flow that begins now.
    pub fn new(now: Moment, setup: FlowSetup) -> Self {
        Self {
            stream: Stream::new(setup.session, symbol_of(setup.datagram)),
            idle: 0,
            controller: Controller::new(now, setup.ceiling),
            pacer: Pacer::new(now),
            readings: Readings::new(setup.overhead + DATA_OVERHEAD, setup.floor, setup.seed),
            setup,
        }
    }

    /// Datagrams have `datagram` bytes from the beginning, which is now.
    pub fn fit(&mut self, datagram: usize) {
        self.setup.datagram = datagram;
        self.stream = Stream::new(self.setup.session, symbol_of(datagram));
    }

    /// What is wanted, packed and sent.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// The same, to be given wants and payloads.
    pub fn stream_mut(&mut self) -> &mut Stream {
        &mut self.stream
    }

    /// What hosts measured.
    pub fn readings(&self) -> &Readings {
        &self.readings
    }

    /// What went out.
    pub fn stats(&self) -> Stats {
        self.stream.stats()
    }

    /// The present rate.
    pub fn rate(&self) -> Rate {
        self.controller.rate()
    }

    /// A host asks for ordinals below `all`. A slow one has to wait.
    pub fn want(&mut self, host: InstanceId, want: &Want, all: u64) {
        if !self.readings.is_slow(host) {
            self.stream.want(want, self.known(want.seen), all);
        }
    }

    /// A host misses symbols. A slow one has to wait.
    /// `hosts` take part.
    pub fn nack(&mut self, now: Moment, host: InstanceId, nack: &Nack, hosts: usize) {
        if self.readings.is_slow(host) {
            return;
        }

        let due = if hosts == 1 { now } else { now + GATHER };
        let few = hosts <= FEW;
        let seen = self.known(nack.seen);
        nack.missing
            .iter()
            .for_each(|missing| self.stream.missing(missing, seen, due, few));

        self.stream.decide(now);
    }

    /// A counter that a host says it saw: none beyond what was sent.
    fn known(&self, seen: u64) -> u64 {
        seen.min(self.stream.counter())
    }

    /// A host reports; says whether that made it a slow one.
    pub fn report(&mut self, now: Moment, host: InstanceId, report: Report) -> bool {
        let report = Report {
            seen: self.known(report.seen),
            ..report
        };

        let before = self.readings.is_slow(host);
        match self.readings.report(now, host, report, self.idle) {
            Some(sample) => self.controller.sample(now, sample),
            // What the slow host made of the rate says nothing about the others.
            None if !before && self.readings.is_slow(host) => self.controller.restart(now),
            None => {}
        }

        !before && self.readings.is_slow(host)
    }

    /// Says how many hosts of the fast pass still fetch.
    pub fn set_fetching(&mut self, hosts: usize) {
        self.readings.set_fetching(hosts);
    }

    /// The fast pass is over: the slow hosts are served.
    pub fn readmit(&mut self, now: Moment) {
        self.readings.readmit();
        self.controller.restart(now);
    }

    /// Chooses who reports; says whether that changed.
    pub fn choose_reporters(
        &mut self,
        now: Moment,
        hosts: impl ExactSizeIterator<Item = InstanceId>,
    ) -> bool {
        self.readings.choose(now, hosts)
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Moment) {
        self.stream.decide(now);
        if self.stream.has_data() {
            let before = self.readings.slow().len();
            self.readings
                .look(now, self.stream.counter(), self.stream.segment());
            if self.readings.slow().len() > before {
                self.controller.restart(now);
            }
        }
    }

    /// A message of `bytes` goes out beside the data: it counts against a ceiling.
    pub fn charge(&mut self, now: Moment, bytes: usize) {
        if self.setup.ceiling.is_some() {
            self.spend(now, bytes + self.setup.overhead);
        }
    }

    /// The next send, written into `out`, as pace and window allow.
    pub fn poll(&mut self, now: Moment, out: &mut Vec<u8>) -> Option<Transmit> {
        if self.pacer.due() > now || !self.may_send(now) {
            return None;
        }

        let sent = (now.0 / 1000) as u32;
        if !self
            .stream
            .write(self.setup.instance, sent, self.most(), self.setup.room, out)
        {
            return None;
        }

        let segment = self.stream.segment() + self.setup.room;
        let datagrams = out.len().div_ceil(segment);
        self.spend(
            now,
            out.len() - datagrams * self.setup.room + datagrams * self.setup.overhead,
        );
        if !self.stream.has_data() {
            self.idle = self.stream.counter();
        }

        Some(Transmit {
            dest: Dest::Group,
            segment,
        })
    }

    fn spend(&mut self, now: Moment, bytes: usize) {
        let (rate, catch_up) = match self.burst() {
            None => (self.controller.rate(), CATCH_UP),
            // So far below the ceiling that one burst more than the average stays below it over `CEILING_OVER`.
            Some((ceiling, burst)) => {
                let room = ceiling.bytes_in(CEILING_OVER).saturating_sub(burst).max(1);
                let most =
                    Rate((room as f64 * 8.0 / CEILING_OVER.as_secs_f64()) as u64).max(Rate(1));
                let rate = self.controller.rate().min(most);
                (rate, rate.time_for(burst / 2))
            }
        };

        self.pacer.sent(now, bytes, rate, catch_up);
    }

    /// The ceiling, and how many bytes may go out at once under it: half of them in one send, as many to catch up.
    fn burst(&self) -> Option<(Rate, u64)> {
        let ceiling = self.setup.ceiling?;
        Some((
            ceiling,
            (ceiling.bytes_in(CEILING_OVER) / CEILING_BURSTS).min(MAX_BURST),
        ))
    }

    fn may_send(&self, now: Moment) -> bool {
        self.stream.has_repairs()
            || (self.stream.has_data()
                && self
                    .readings
                    .window(now, self.stream.counter(), self.stream.segment())
                    > 0)
    }

    /// The most datagrams of one send; one in any case.
    fn most(&self) -> usize {
        let mut bytes = self.controller.rate().bytes_in(SEND_TIME);
        if let Some((_, burst)) = self.burst() {
            bytes = bytes.min(burst / 2);
        }
        bytes as usize / (self.stream.segment() + self.setup.overhead)
    }

    /// When [`Flow::poll`] or [`Flow::handle_timeout`] is worth a call.
    pub fn timeout(&self, now: Moment) -> Option<Moment> {
        let data = self.stream.has_data().then(|| {
            if self.may_send(now) {
                self.pacer.due()
            } else {
                now + CLOSED
            }
        });
        [data, self.stream.repair_due()].into_iter().flatten().min()
    }

    /// Takes a packed generation.
    pub fn packed(&mut self, ordinals: RangeSet, payload: std::sync::Arc<Vec<u8>>) {
        self.stream.packed(ordinals, payload);
    }
}

/// The bytes of a symbol in datagrams of `datagram` bytes.
fn symbol_of(datagram: usize) -> u16 {
    datagram.saturating_sub(DATA_OVERHEAD).clamp(64, 65_000) as u16
}
