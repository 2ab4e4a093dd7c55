//! Counts of probes at a host, for a process that measures its paths to the hosts of a group.
//!
//! Anybody of the group may send probes and ask for counts. A host remembers few trains, and its
//! answers have a rate limit and are never larger than their questions.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::answer_budget::AnswerBudget;
use super::control::Control;
use super::{Dest, slot_interval};
use crate::id::InstanceId;
use crate::units::Moment;
use crate::wire::Message;
use crate::wire::count::{CountRequest, CountedProbe, ProbeCounts};
use crate::wire::window::{ReplayWindow, Seen};

/// Largest number of trains remembered; the oldest is forgotten first.
const MAX_TRAINS: usize = 64;
/// Words of the window over the numbers of a train, 64 numbers each.
const TRAIN_WORDS: usize = 64;
/// Answers to one address in a second.
const MAX_COUNTS_PER_ADDRESS: u32 = 40;
/// Answers of one host in a second.
const MAX_COUNTS_PER_HOST: u32 = 80;
/// Bound on questions that wait for their answers.
const MAX_REQUESTS: usize = 64;

/// Trains and questions of one host.
#[derive(Debug)]
pub struct ProbeCounter {
    trains: VecDeque<CountedTrain>,
    waiting: Vec<WaitingRequest>,
    budget: AnswerBudget,
    rng: fastrand::Rng,
}

/// Probes of one train.
#[derive(Debug)]
struct CountedTrain {
    key: (InstanceId, u64, u8),
    window: ReplayWindow,
    /// Highest number that arrived; `None` before the first.
    newest: Option<u32>,
    arrived: u32,
    repeated: u32,
    late: u32,
    largest: u16,
}

/// A question that waits for its answer.
#[derive(Debug)]
struct WaitingRequest {
    due: Moment,
    to: SocketAddr,
    key: (InstanceId, u64, u8),
    number: u32,
    by_group: bool,
}

impl ProbeCounter {
    /// Creates a counter without trains.
    pub fn new(now: Moment, seed: u64) -> Self {
        Self {
            trains: VecDeque::new(),
            waiting: Vec::new(),
            budget: AnswerBudget::new(now, MAX_COUNTS_PER_ADDRESS, MAX_COUNTS_PER_HOST),
            rng: fastrand::Rng::with_seed(seed),
        }
    }

    /// Counts a probe of the process `source`.
    pub fn on_probe(&mut self, source: InstanceId, probe: &CountedProbe) {
        let key = (source, probe.run, probe.train);
        let place = self.trains.iter().position(|train| train.key == key);
        if place.is_none() {
            if self.trains.len() >= MAX_TRAINS {
                self.trains.pop_front();
            }
            self.trains.push_back(CountedTrain::new(key));
        }

        let train = match place {
            Some(place) => self.trains.get_mut(place),
            None => self.trains.back_mut(),
        };
        if let Some(train) = train {
            train.count(probe);
        }
    }

    /// Takes a question of the process `asker`, in a fleet of `hosts`; `own` is this process.
    pub fn on_request(
        &mut self,
        now: Moment,
        (asker, from): (InstanceId, SocketAddr),
        ask: &CountRequest,
        (own, hosts): (InstanceId, u32),
    ) {
        let is_for_me = ask.host.is_none_or(|host| host == own);
        let key = (asker, ask.run, ask.train);
        let is_known = |other: &WaitingRequest| other.key == key && other.number == ask.number;
        let is_wanted = is_for_me && ask.is_padded() && !self.waiting.iter().any(is_known);
        if !is_wanted || self.waiting.len() >= MAX_REQUESTS || !self.budget.take(now, from.ip()) {
            return;
        }

        let spread = match ask.host {
            Some(_) => slot_interval(1),
            None => slot_interval(hosts),
        };
        self.waiting.push(WaitingRequest {
            due: now + spread.mul_f64(self.rng.f64()),
            to: from,
            key,
            number: ask.number,
            by_group: ask.by_group,
        });
    }

    /// Sends the due answers; the host's receive buffer lost `dropped` packets so far.
    pub fn handle_timeout(&mut self, now: Moment, dropped: u64, control: &mut Control) {
        let waiting = std::mem::take(&mut self.waiting);
        let (due, later) = waiting.into_iter().partition(|ask| ask.due <= now);
        self.waiting = later;

        let due: Vec<WaitingRequest> = due;
        for ask in due {
            let dest = match ask.by_group {
                true => Dest::Multicast,
                false => Dest::Host(ask.to),
            };
            let train = self.trains.iter().find(|train| train.key == ask.key);
            let (_, run, number) = ask.key;
            let counts = ProbeCounts {
                run,
                train: number,
                number: ask.number,
                by_group: ask.by_group,
                arrived: train.map_or(0, |train| train.arrived),
                repeated: train.map_or(0, |train| train.repeated),
                late: train.map_or(0, |train| train.late),
                largest: train.map_or(0, |train| train.largest),
                dropped,
            };
            control.send(dest, &Message::Counts(counts));
        }
    }

    /// Time of the next due answer.
    pub fn timeout(&self) -> Option<Moment> {
        self.waiting.iter().map(|ask| ask.due).min()
    }
}

impl CountedTrain {
    fn new(key: (InstanceId, u64, u8)) -> Self {
        Self {
            key,
            window: ReplayWindow::new(TRAIN_WORDS),
            newest: None,
            arrived: 0,
            repeated: 0,
            late: 0,
            largest: 0,
        }
    }

    fn count(&mut self, probe: &CountedProbe) {
        match self.window.take(u64::from(probe.number)) {
            Seen::Again => return self.repeated = self.repeated.saturating_add(1),
            Seen::New | Seen::TooOld => self.arrived = self.arrived.saturating_add(1),
        }

        if self.newest.is_some_and(|newest| probe.number < newest) {
            self.late = self.late.saturating_add(1);
        }
        self.newest = self.newest.max(Some(probe.number));
        self.largest = self.largest.max(probe.size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Datagram;
    use crate::wire::count::COUNT_PADDING;

    const START: Moment = Moment(1_000_000_000);
    const OWN: InstanceId = InstanceId(9);
    const ASKER: InstanceId = InstanceId(1);

    fn counter() -> (ProbeCounter, Control) {
        (ProbeCounter::new(START, 1), Control::new(OWN, 1472, 0))
    }

    fn probe(train: u8, number: u32) -> CountedProbe {
        CountedProbe {
            run: 7,
            train,
            number,
            size: 600 + number.min(100) as u16,
            padding: Vec::new(),
        }
    }

    fn request(number: u32) -> CountRequest {
        CountRequest {
            run: 7,
            train: 0,
            number,
            host: None,
            by_group: false,
            padding: vec![0; COUNT_PADDING],
        }
    }

    fn from(host: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, host], 5000))
    }

    /// Answers that are due.
    fn answers(
        (counter, control): &mut (ProbeCounter, Control),
        now: Moment,
    ) -> Vec<(Dest, ProbeCounts)> {
        counter.handle_timeout(now, 3, control);
        let mut out = Vec::new();
        let mut sent = Vec::new();
        while let Some(transmit) = control.poll(&mut out) {
            let Ok(Datagram::Control(_, piece)) = Datagram::parse(&out) else {
                panic!("a message")
            };
            let Ok(Message::Counts(counts)) = Message::decode(piece.bytes) else {
                panic!("counts")
            };
            sent.push((transmit.dest, counts));
        }
        sent
    }

    #[test]
    fn arrivals_repetitions_and_late_ones_are_told_apart() {
        let mut host = counter();
        for number in [0, 1, 3, 2, 3, 9] {
            host.0.on_probe(ASKER, &probe(0, number));
        }
        host.0.on_probe(ASKER, &probe(1, 0));
        host.0.on_probe(InstanceId(2), &probe(0, 5));

        host.0
            .on_request(START, (ASKER, from(1)), &request(4), (OWN, 1));
        let found = answers(&mut host, START);
        let expected = ProbeCounts {
            run: 7,
            train: 0,
            number: 4,
            by_group: false,
            arrived: 5,
            repeated: 1,
            late: 1,
            largest: 609,
            dropped: 3,
        };
        assert_eq!(found, [(Dest::Host(from(1)), expected)]);
    }

    #[test]
    fn a_question_for_another_host_or_without_padding_has_no_answer() {
        let mut host = counter();
        let other = CountRequest {
            host: Some(InstanceId(5)),
            ..request(1)
        };
        let small = CountRequest {
            padding: Vec::new(),
            ..request(2)
        };
        let back = CountRequest {
            host: Some(OWN),
            by_group: true,
            ..request(3)
        };
        for ask in [other, small, back.clone(), back] {
            host.0.on_request(START, (ASKER, from(1)), &ask, (OWN, 1));
        }

        let found = answers(&mut host, START);
        // Nothing arrived of the train, and that is an answer, too.
        let found: Vec<_> = found
            .iter()
            .map(|(to, c)| (*to, c.number, c.arrived))
            .collect();
        assert_eq!(found, [(Dest::Multicast, 3, 0)]);
    }

    #[test]
    fn answers_and_memory_are_bounded() {
        let mut host = counter();
        for n in 0..100_000_u32 {
            host.0
                .on_probe(InstanceId(u64::from(n)), &probe(n as u8, n));
            let asker = (InstanceId(u64::from(n)), from((n % 7) as u8));
            host.0.on_request(START, asker, &request(n), (OWN, 5_000));
        }
        assert_eq!(host.0.trains.len(), MAX_TRAINS);
        assert!(host.0.waiting.len() <= MAX_REQUESTS);

        let mut alone = counter();
        let mut given = 0;
        for n in 0..1_000 {
            alone
                .0
                .on_request(START, (ASKER, from(1)), &request(n), (OWN, 1));
            given += answers(&mut alone, START).len();
        }
        assert_eq!(given, MAX_COUNTS_PER_ADDRESS as usize);
    }

    #[test]
    fn a_large_fleet_spreads_its_answers() {
        let mut host = counter();
        host.0
            .on_request(START, (ASKER, from(1)), &request(1), (OWN, 5_000));
        let due = host.0.timeout().expect("waits");
        assert!(due > START && due <= START + slot_interval(5_000));
        assert!(answers(&mut host, START).is_empty());
        assert_eq!(answers(&mut host, due).len(), 1);
    }
}
