//! Asks all hosts what they have, without a session.
//!
//! The question goes to the group together with a solicit: who is there says so, and answers. Whom the beacons name and
//! who has not answered is asked again, alone.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::clock::{self, Clock};
use super::endpoint::{Arrived, Door, Endpoint};
use super::unproven::Unproven;
use crate::Result;
use crate::id::{HostName, InstanceId, NamedHost, Nonce, Serial, TreeName};
use crate::proto::Dest;
use crate::proto::control::Control;
use crate::proto::members::{MAX_MEMBERS, Table};
use crate::units::Moment;
use crate::wire::fragment::Reassembly;
use crate::wire::query::{Query, QueryAnswer};
use crate::wire::{Datagram, Message};

/// Nobody new for this long, and all whom they know of were heard: nobody else is there.
const QUIET: Duration = Duration::from_millis(60);
/// The wait between two questions.
const AGAIN: Duration = Duration::from_millis(250);
/// The most bytes of all answers together.
const MAX_TOLD: usize = 64 << 20;
/// The most hosts that are asked alone at a time.
const ALONE: usize = 64;

/// A host that was heard.
#[derive(Debug, Clone)]
pub(super) struct Heard {
    pub(super) host: HostName,
    /// The name, with the address where another host has it as well.
    pub(super) named: NamedHost,
    pub(super) address: SocketAddr,
    /// The trees that its beacon names.
    pub(super) trees: Vec<TreeName>,
    /// Its answer; a makuo that is too old gives none.
    pub(super) tell: Option<QueryAnswer>,
}

impl Heard {
    /// A host whose name is taken to be its own.
    pub(super) fn new(
        host: HostName,
        address: SocketAddr,
        trees: Vec<TreeName>,
        tell: Option<QueryAnswer>,
    ) -> Self {
        Self {
            named: host.clone().into(),
            host,
            address,
            trees,
            tell,
        }
    }
}

/// Shows hosts of one name, which are neighbours, with their addresses.
pub(super) fn tell_apart(heard: &mut [Heard]) {
    for same in heard.chunk_by_mut(|a, b| a.host == b.host) {
        let first = same.first().map(|host| host.address.ip());
        if same.iter().any(|host| Some(host.address.ip()) != first) {
            same.iter_mut()
                .for_each(|host| host.named.address = Some(host.address.ip()));
        }
    }
}

/// Asks for `tree`, or for all trees, and for the bytes of the release `serial`. Ends when all hosts that have it have
/// answered, at the latest after `longest`. Sorted by name.
pub(super) fn ask(
    door: impl Into<Door>,
    tree: Option<&TreeName>,
    serial: Option<Serial>,
    longest: Duration,
) -> Result<Vec<Heard>> {
    let (clock, mut endpoint) = (Clock::start(), Endpoint::new(door)?);
    let mut control = Control::new(endpoint.instance(), endpoint.datagram(), endpoint.room());
    let ask = Query {
        number: clock::seed(),
        tree: tree.cloned(),
        serial,
    };

    let began = clock.now();
    let mut asking = Asking::new(began, ask);
    let mut next = began;

    loop {
        let now = clock.now();
        if now.since(began) >= longest || asking.is_done(now) {
            return Ok(asking.end());
        }
        if next <= now {
            asking.send(&mut control);
            next = now + AGAIN;
        }
        endpoint.flush(|out| control.poll(out));
        endpoint.wait(Some((began + longest).min(next).since(now).min(QUIET)))?;
        endpoint.receive(|datagram| asking.hear(clock.now(), &datagram));
    }
}

/// A question under way.
struct Asking {
    ask: Query,
    nonce: Nonce,
    unproven: Unproven,
    rounds: usize,
    table: Table,
    reassembly: Reassembly,
    tells: BTreeMap<InstanceId, (SocketAddr, QueryAnswer)>,
    /// Bytes of the answers as they came.
    told: usize,
    /// When somebody new was heard last.
    newest: Moment,
}

impl Asking {
    fn new(now: Moment, ask: Query) -> Self {
        let (table, reassembly, tells) = Default::default();
        let nonce = Nonce(clock::seed());
        Self {
            ask,
            nonce,
            unproven: Unproven::default(),
            rounds: 0,
            table,
            reassembly,
            tells,
            told: 0,
            newest: now,
        }
    }

    /// Whether the host has what the question is about.
    fn concerns(&self, trees: &[crate::wire::message::TreeState]) -> bool {
        match &self.ask.tree {
            Some(tree) => trees.iter().any(|t| t.tree == *tree),
            None => !trees.is_empty(),
        }
    }

    /// Who has not answered yet.
    fn owing(&self) -> Vec<SocketAddr> {
        let members = self
            .table
            .iter()
            .filter(|(id, m)| self.concerns(&m.hello.trees) && !self.tells.contains_key(id));
        members.map(|(_, member)| member.address).collect()
    }

    fn is_done(&self, now: Moment) -> bool {
        let all = !self.table.is_empty() && self.table.len() >= self.table.claimed();
        all && now.since(self.newest) >= QUIET && self.owing().is_empty()
    }

    fn send(&mut self, control: &mut Control) {
        let question = Message::Query(self.ask.clone());
        let owing = self.owing();
        if self.table.is_empty() || self.table.len() < self.table.claimed() {
            control.send(Dest::Group, &Message::Solicit(Some(self.nonce), None));
        }

        if self.rounds == 0 || self.table.is_empty() {
            control.send(Dest::Group, &question);
        } else if !owing.is_empty() {
            // Not always the same ones first: some may never answer.
            let first = (self.rounds * ALONE) % owing.len();
            let whom = owing
                .iter()
                .cycle()
                .skip(first)
                .take(owing.len().min(ALONE));
            whom.for_each(|&host| control.send(Dest::Host(host), &question));
        }

        self.rounds += 1;
    }

    fn hear(&mut self, now: Moment, datagram: &Arrived<'_>) {
        let Ok(Datagram::Control(front, piece)) = Datagram::parse(datagram.bytes) else {
            return;
        };

        let Some(whole) = self.reassembly.add(now, front.source, piece) else {
            return;
        };

        match Message::decode(&whole) {
            // What does not repeat the nonce may be recorded.
            Ok(Message::Hello(hello)) if hello.repeats(self.nonce) => {
                let new = self
                    .table
                    .on_hello(now, datagram.from, front.source, hello, true);
                self.newest = if new { now } else { self.newest };
            }
            Ok(Message::Hello(hello)) => self.unproven.hear(datagram.from, hello),
            Ok(Message::Answer(tell))
                if tell.number == self.ask.number && self.tells.len() < MAX_MEMBERS =>
            {
                self.told += whole.len();
                if self.told > MAX_TOLD {
                    return;
                }
                self.tells.insert(front.source, (datagram.from, tell));
            }
            _ => {}
        }
    }

    fn end(mut self) -> Vec<Heard> {
        let mut heard = Vec::new();
        for (id, member) in self.table.iter() {
            let trees = member.hello.trees.iter().map(|t| t.tree.clone()).collect();
            let tell = self.tells.remove(id).map(|(_, tell)| tell);
            heard.push(Heard::new(
                member.hello.name.clone(),
                member.address,
                trees,
                tell,
            ));
        }

        // Whose beacon was lost. A question has a number of its own: what repeats it was said after it.
        for (address, tell) in self.tells.into_values() {
            // One voice for each name at an address.
            if heard
                .iter()
                .any(|one: &Heard| one.host == tell.host && one.address.ip() == address.ip())
            {
                continue;
            }
            let trees = tell.trees.iter().map(|t| t.tree.clone()).collect();
            heard.push(Heard::new(tell.host.clone(), address, trees, Some(tell)));
        }

        let found = |name: &HostName| heard.iter().any(|heard: &Heard| heard.host == *name);
        self.unproven.warn(found);
        heard.sort_by(|a, b| (&a.host, a.address).cmp(&(&b.host, b.address)));
        tell_apart(&mut heard);

        heard
    }
}
