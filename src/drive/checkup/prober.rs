//! A process of the group that asks hosts and counts their answers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::found::FoundHosts;
use super::result::CheckupResult;
use super::trains::poll_train;
use crate::Result;
use crate::doctor::{ClockOffset, LinkFacts, NetworkFacts};
use crate::drive::clock::{self, Clock};
use crate::drive::endpoint::{Arrived, GroupEndpoint, GroupLinks};
use crate::drive::silence::silence;
use crate::drive::survey::merged_strangers;
use crate::id::{HostName, InstanceId, Nonce};
use crate::net::LinkSet;
use crate::proto::Dest;
use crate::proto::control::Control;
use crate::units::Moment;
use crate::wire::count::{COUNT_PADDING, CountRequest, ProbeCounts};
use crate::wire::fragment::Reassembly;
use crate::wire::query::Query;
use crate::wire::{Datagram, Message};

/// Room for the report of a host's machine: more than usual ones need.
const MACHINE_PADDING: usize = 4 << 10;
/// Largest number of hosts that are asked for such a report together.
const MAX_PADDED_HOSTS: usize = 16;
/// Longest wait for datagrams before a look at the clock.
const MAX_TURN: Duration = Duration::from_millis(20);
/// Rounds of questions about one train.
const ASK_ROUNDS: u32 = 8;
/// Time for the answers of a round.
const COUNTS_INTERVAL: Duration = Duration::from_millis(150);
/// Largest number of remembered answers.
const MAX_COUNTS: usize = 100_000;

/// Way of questions about a train: that of its datagrams, since a question by the other way may
/// overtake them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AskWay {
    /// Whether the datagrams went to the group.
    pub(super) by_group: bool,
    /// Whether later rounds go by the other way, too: for few datagrams.
    pub(super) switches: bool,
}

/// Links, questions and answers.
pub(super) struct Prober {
    endpoint: GroupEndpoint,
    clock: Clock,
    pub(super) control: Control,
    reassembly: Reassembly,
    pub(super) hosts: FoundHosts,
    /// Number of this run, for probes and the query.
    run: u64,
    nonce: Nonce,
    next_question: u32,
    /// Time of the first query, for the error of clocks.
    asked: Option<Duration>,
    /// Answers by question and host.
    counts: BTreeMap<(u32, InstanceId), ProbeCounts>,
    /// Addresses that hosts do not hear for lack of their key.
    plain: BTreeSet<IpAddr>,
    scratch: Vec<u8>,
}

impl Prober {
    /// Joins the group.
    pub(super) fn new(network: impl Into<GroupLinks>) -> Result<Self> {
        let clock = Clock::start();
        let endpoint = GroupEndpoint::new(network)?;
        let control = Control::new(endpoint.instance(), endpoint.datagram(), endpoint.room());

        Ok(Self {
            endpoint,
            clock,
            control,
            reassembly: Reassembly::default(),
            hosts: FoundHosts::default(),
            run: clock::seed(),
            nonce: Nonce(clock::seed()),
            next_question: 0,
            asked: None,
            counts: BTreeMap::new(),
            plain: BTreeSet::new(),
            scratch: Vec::new(),
        })
    }

    pub(super) fn links(&self) -> &LinkSet {
        self.endpoint.links()
    }

    /// Whether the group is reached by multicast.
    pub(super) fn has_multicast(&self) -> bool {
        self.links().first().is_multicast()
    }

    /// Largest datagram before the seal.
    pub(super) fn datagram(&self) -> usize {
        self.endpoint.datagram()
    }

    /// Bytes that the seal adds.
    pub(super) fn room(&self) -> usize {
        self.endpoint.room()
    }

    pub(super) fn now(&self) -> Moment {
        self.clock.now()
    }

    /// Asks for the presence of hosts, and for their machines.
    pub(super) fn ask_presence(&mut self, dest: Dest) {
        self.control
            .send(dest, &Message::Solicit(Some(self.nonce), None));
    }

    /// Asks for the machines of hosts.
    pub(super) fn ask_machine(&mut self, dest: Dest) {
        self.asked.get_or_insert_with(clock::since_epoch);

        // Every host answers the group: only few may do so at length.
        let is_padded = match dest {
            Dest::Host(_) => true,
            _ => (1..=MAX_PADDED_HOSTS).contains(&self.hosts.iter().count()),
        };
        let padding = vec![0; if is_padded { MACHINE_PADDING } else { 0 }];

        let query = Query {
            number: self.run,
            tree: None,
            serial: None,
            machine: Some(true),
            order: None,
            padding,
        };
        self.control.send(dest, &Message::Query(query));
    }

    /// Queues the datagram `number` of a train, of `size` bytes before the seal.
    pub(super) fn probe(&mut self, dest: Dest, size: usize, train: u8, number: u32) {
        self.control.counted(dest, size, (self.run, train), number);
    }

    /// Asks one host for its counts of a train, or every host; returns the number of the question.
    pub(super) fn ask_counts(
        &mut self,
        dest: Dest,
        train: u8,
        host: Option<InstanceId>,
        by_group: bool,
    ) -> u32 {
        self.next_question += 1;
        let ask = CountRequest {
            run: self.run,
            train,
            number: self.next_question,
            host,
            by_group,
            padding: vec![0; COUNT_PADDING],
        };
        self.control.send(dest, &Message::CountAsk(ask));
        self.next_question
    }

    /// The answer to a question.
    pub(super) fn answer(&self, question: u32, host: InstanceId) -> Option<&ProbeCounts> {
        self.counts.get(&(question, host))
    }

    /// Collects the counts of a train from all of `hosts`.
    pub(super) fn collect(
        &mut self,
        train: u8,
        hosts: &[(InstanceId, SocketAddr)],
        way: AskWay,
    ) -> Result<BTreeMap<InstanceId, ProbeCounts>> {
        let mut found = BTreeMap::new();
        let first = self.next_question + 1;
        for round in 0..ASK_ROUNDS {
            let open: Vec<_> = hosts
                .iter()
                .filter(|(id, _)| !found.contains_key(id))
                .copied()
                .collect();
            if open.is_empty() {
                break;
            }

            let switched = way.switches && round > 0;
            if self.has_multicast() && (way.by_group || switched) {
                self.ask_counts(Dest::Multicast, train, None, false);
            }
            if !way.by_group || switched {
                for (id, address) in open {
                    self.ask_counts(Dest::Host(address), train, Some(id), false);
                }
            }

            let until = self.now() + COUNTS_INTERVAL;
            while self.now() < until {
                self.turn(until)?;
                for question in first..=self.next_question {
                    for (id, _) in hosts {
                        if let Some(counts) = self.answer(question, *id) {
                            found.insert(*id, counts.clone());
                        }
                    }
                }
                if found.len() >= hosts.len() {
                    break;
                }
            }
        }

        Ok(found)
    }

    /// Sends, receives and waits until a moment.
    pub(super) fn pass(&mut self, time: Duration) -> Result<()> {
        let until = self.now() + time;
        while self.now() < until {
            self.turn(until)?;
        }
        Ok(())
    }

    /// Sends and receives once, and waits for datagrams until a moment at most.
    pub(super) fn turn(&mut self, until: Moment) -> Result<()> {
        let control = &mut self.control;
        self.endpoint.flush(|out| control.poll(out));
        let wait = until.since(self.clock.now()).min(MAX_TURN);
        self.endpoint.wait(Some(wait))?;
        self.receive();
        Ok(())
    }

    /// Like [`Prober::turn`], for queued datagrams of one size and destination alone: they leave in
    /// trains of the kernel.
    pub(super) fn turn_in_trains(&mut self, until: Moment) -> Result<()> {
        let Self {
            endpoint,
            control,
            scratch,
            ..
        } = self;
        endpoint.flush(|out| poll_train(control, scratch, out));
        self.turn(until)
    }

    fn receive(&mut self) {
        let Self {
            endpoint,
            reassembly,
            clock,
            ..
        } = self;
        let mut messages = Vec::new();
        endpoint.receive(|arrived: Arrived<'_>| {
            if let Ok(Datagram::Control(front, piece)) = Datagram::parse(arrived.bytes)
                && let Some(whole) = reassembly.add(clock.now(), front.source, piece)
                && let Ok(message) = Message::decode(&whole)
            {
                messages.push((front.source, arrived.from, message));
            }
        });

        for (source, from, message) in messages {
            self.on_message(source, from, message);
        }
    }

    fn on_message(&mut self, source: InstanceId, from: SocketAddr, message: Message) {
        match message {
            Message::Hello(hello) => {
                let answers = hello.repeats(self.nonce);
                self.plain.extend(hello.strangers.iter().flatten());
                self.hosts.on_hello(source, from, &hello, answers);
            }
            Message::Answer(answer) if answer.number == self.run => {
                let clock = answer.machine.as_ref().zip(self.asked);
                let clock = clock.map(|(machine, asked)| offset(machine.clock, asked));
                self.hosts.on_answer(source, from, answer, clock);
            }
            Message::Counts(counts) if counts.run == self.run && self.counts.len() < MAX_COUNTS => {
                // Hosts that are not measured answer questions to the group as well.
                if let Some(host) = self.hosts.get_mut(source) {
                    host.facts.counts = true;
                    self.counts.insert((counts.number, source), counts);
                }
            }
            _ => {}
        }
    }

    /// Ends with the measurements of all hosts.
    pub(super) fn end(self, heard: Vec<HostName>, links: Vec<LinkFacts>) -> CheckupResult {
        let endpoint = &self.endpoint;
        CheckupResult {
            network: NetworkFacts {
                group: endpoint.links().group(),
                multicast: endpoint.links().first().is_multicast(),
                links,
                largest: endpoint.datagram() + endpoint.room(),
            },
            strangers: merged_strangers(self.plain.into_iter(), endpoint),
            silence: heard.is_empty().then(|| silence(endpoint)),
            heard,
            tried: Vec::new(),
            hosts: self.hosts.into_facts(),
        }
    }
}

/// Offset of a host's clock, which showed `clock` milliseconds between `asked` and now.
fn offset(clock: u64, asked: Duration) -> ClockOffset {
    let asked = asked.as_millis() as i64;
    let now = clock::since_epoch().as_millis() as i64;
    let error = now.saturating_sub(asked).unsigned_abs() / 2;
    let clock = i64::try_from(clock).unwrap_or(i64::MAX);
    let middle = asked.saturating_add(error as i64);
    ClockOffset {
        ahead: clock.saturating_sub(middle),
        error,
    }
}
