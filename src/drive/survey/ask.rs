//! Asks all hosts for their releases, without a session.
//!
//! The query goes to the group together with a solicit. Hosts that are named by beacons and have
//! not answered are asked again, one by one.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::answers::{HostAnswer, add_addresses};
use super::probe::{self, QUICK_ROUNDS, SurveyProbe};
use super::roll_call::RollCall;
use super::strangers::strangers;
use crate::Result;
use crate::drive::clock;
use crate::drive::endpoint::{Arrived, GroupLinks};
use crate::drive::silence::silence;
use crate::id::{HostName, InstanceId, Serial, TreeName};
use crate::outcome::Survey;
use crate::proto::Dest;
use crate::proto::control::Control;
use crate::proto::members::MAX_MEMBERS;
use crate::units::Moment;
use crate::wire::fragment::Reassembly;
use crate::wire::hold::SignedHold;
use crate::wire::query::{Query, QueryAnswer};
use crate::wire::{Datagram, Message};

/// Largest number of bytes of all answers.
const MAX_ANSWER_BYTES: usize = 64 << 20;
/// Largest number of hosts asked one by one in a round.
const MAX_ASKED_ALONE: usize = 64;

/// Asks for `tree`, or all trees, and the bytes of the release `serial`; sorted by name.
///
/// Ends when all hosts with the tree have answered, at the latest after `longest`.
pub fn ask(
    network: impl Into<GroupLinks>,
    tree: Option<&TreeName>,
    serial: Option<Serial>,
    longest: Duration,
) -> Result<Survey<Vec<HostAnswer>>> {
    let query = Query {
        number: clock::seed(),
        tree: tree.cloned(),
        serial,
        machine: None,
        order: None,
        padding: Vec::new(),
    };
    ask_with(network, query, longest)
}

/// Gives `order` to its hosts, and returns what they say of `tree`, or of all trees, afterwards.
pub fn order(
    network: impl Into<GroupLinks>,
    tree: Option<&TreeName>,
    order: SignedHold,
    longest: Duration,
) -> Result<Survey<Vec<HostAnswer>>> {
    let query = Query {
        number: clock::seed(),
        tree: tree.cloned(),
        serial: None,
        machine: None,
        order: Some(order),
        padding: Vec::new(),
    };
    ask_with(network, query, longest)
}

fn ask_with(
    network: impl Into<GroupLinks>,
    ask: Query,
    longest: Duration,
) -> Result<Survey<Vec<HostAnswer>>> {
    let (query, endpoint) = probe::run(network, longest, |began| FleetQuery::new(began, ask))?;
    let strangers = strangers(query.roll_call.table(), &endpoint);
    let hosts = query.end();
    let silence = hosts.is_empty().then(|| silence(&endpoint));

    Ok(Survey {
        found: hosts,
        strangers,
        silence,
    })
}

/// A query in progress.
struct FleetQuery {
    ask: Query,
    roll_call: RollCall,
    reassembly: Reassembly,
    answers: BTreeMap<InstanceId, (SocketAddr, QueryAnswer)>,
    /// Bytes of the answers as received.
    received: usize,
}

impl FleetQuery {
    fn new(now: Moment, ask: Query) -> Self {
        Self {
            ask,
            roll_call: RollCall::new(now),
            reassembly: Reassembly::default(),
            answers: BTreeMap::new(),
            received: 0,
        }
    }

    /// Returns whether the query concerns a tree of the host.
    fn concerns(&self, trees: &[crate::wire::message::TreeState]) -> bool {
        match &self.ask.tree {
            Some(tree) => trees.iter().any(|t| t.tree == *tree),
            None => !trees.is_empty(),
        }
    }

    /// Hosts without an answer yet.
    fn unanswered(&self) -> Vec<SocketAddr> {
        let members = self.roll_call.table().iter();
        let members = members
            .filter(|(id, m)| self.concerns(&m.hello.trees) && !self.answers.contains_key(id));
        members.map(|(_, member)| member.address).collect()
    }

    /// Combines beacons and answers.
    fn end(mut self) -> Vec<HostAnswer> {
        let mut hosts = Vec::new();
        for (id, member) in self.roll_call.table().iter() {
            let trees = member.hello.trees.iter().map(|t| t.tree.clone()).collect();
            let answer = self.answers.remove(id).map(|(_, answer)| answer);
            hosts.push(HostAnswer::new(
                member.hello.name.clone(),
                (member.address, member.hello.labels().clone()),
                trees,
                answer,
            ));
        }

        // The beacon was lost. The query's random number in the answer proves freshness.
        for (address, answer) in self.answers.into_values() {
            // One answer for each name at an address.
            if hosts.iter().any(|host: &HostAnswer| {
                host.host == answer.host && host.address.ip() == address.ip()
            }) {
                continue;
            }
            let trees = answer.trees.iter().map(|t| t.tree.clone()).collect();
            hosts.push(HostAnswer::new(
                answer.host.clone(),
                (address, answer.labels.clone().unwrap_or_default()),
                trees,
                Some(answer),
            ));
        }

        let found = |name: &HostName| hosts.iter().any(|host: &HostAnswer| host.host == *name);
        self.roll_call.end(found);
        hosts.sort_by(|a, b| (&a.host, a.address).cmp(&(&b.host, b.address)));
        add_addresses(&mut hosts);

        hosts
    }
}

impl SurveyProbe for FleetQuery {
    fn is_done(&mut self, now: Moment) -> bool {
        self.roll_call.is_complete(now) && self.unanswered().is_empty()
    }

    fn send(&mut self, control: &mut Control) {
        let question = Message::Query(self.ask.clone());
        let is_first = self.roll_call.rounds() == 0;
        self.roll_call.solicit(control);

        if is_first || self.roll_call.table().is_empty() {
            control.send(Dest::Group, &question);
            return;
        }

        // Until the quick rounds are over, most answers are under way.
        let Some(round) = self.roll_call.rounds().checked_sub(QUICK_ROUNDS + 1) else {
            return;
        };
        let unanswered = self.unanswered();
        if unanswered.is_empty() {
            return;
        }

        // Start at another host in each round: some may never answer.
        let first = (round * MAX_ASKED_ALONE) % unanswered.len();
        let asked = unanswered
            .iter()
            .cycle()
            .skip(first)
            .take(unanswered.len().min(MAX_ASKED_ALONE));
        asked.for_each(|&host| control.send(Dest::Host(host), &question));
    }

    fn receive(&mut self, now: Moment, datagram: &Arrived<'_>) {
        let Ok(Datagram::Control(front, piece)) = Datagram::parse(datagram.bytes) else {
            return;
        };

        let Some(whole) = self.reassembly.add(now, front.source, piece) else {
            return;
        };

        match Message::decode(&whole) {
            Ok(Message::Hello(hello)) => {
                self.roll_call
                    .on_hello(now, datagram.from, front.source, hello)
            }
            Ok(Message::Answer(answer))
                if answer.number == self.ask.number && self.answers.len() < MAX_MEMBERS =>
            {
                self.received += whole.len();
                if self.received > MAX_ANSWER_BYTES {
                    return;
                }
                self.answers.insert(front.source, (datagram.from, answer));
            }
            _ => {}
        }
    }
}
