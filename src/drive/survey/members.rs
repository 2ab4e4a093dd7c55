//! Finds the hosts of a network, without a session.

use std::collections::BTreeSet;
use std::time::Duration;

use super::probe::{self, SurveyProbe};
use crate::Result;
use crate::drive::clock;
use crate::drive::endpoint::{Arrived, GroupLinks};
use crate::drive::unproven::UnprovenHosts;
use crate::id::{InstanceId, Nonce};
use crate::outcome::Stranger;
use crate::outcome::{MemberInfo, Survey};
use crate::proto::Dest;
use crate::proto::control::Control;
use crate::proto::members::Table;
use crate::units::Moment;
use crate::wire::fragment::Reassembly;
use crate::wire::message::Hello;
use crate::wire::seal::OpenError;
use crate::wire::{Datagram, Message};

/// Returns the hosts that answer within `longest`, sorted by name, and the peers whose datagrams do
/// not open here or there.
///
/// Ends early once all hosts known to the others have answered.
pub fn members(network: impl Into<GroupLinks>, longest: Duration) -> Result<Survey> {
    let (roll_call, endpoint) = probe::run(network, longest, RollCall::new)?;
    let RollCall {
        table, unproven, ..
    } = roll_call;

    let mut members: Vec<MemberInfo> = table.iter().map(|(_, member)| member.into()).collect();
    members.sort_by(|a, b| (&a.host, a.address).cmp(&(&b.host, b.address)));
    unproven.warn(|name| members.iter().any(|member| member.host == *name));
    let mut strangers: BTreeSet<Stranger> =
        endpoint.unheard().recent(clock::since_epoch()).collect();
    let plain = table
        .iter()
        .flat_map(|(_, m)| m.hello.strangers.iter().flatten());

    strangers.extend(plain.map(|&address| Stranger {
        address,
        kind: OpenError::Plain,
    }));

    Ok(Survey {
        members,
        strangers: strangers.into_iter().collect(),
    })
}

/// A solicit in progress.
struct RollCall {
    nonce: Nonce,
    table: Table,
    reassembly: Reassembly,
    unproven: UnprovenHosts,
    /// Number of hosts at the last check.
    known: usize,
    /// Time of the last new host.
    newest: Moment,
}

impl RollCall {
    fn new(now: Moment) -> Self {
        Self {
            nonce: Nonce(clock::seed()),
            table: Table::default(),
            reassembly: Reassembly::default(),
            unproven: UnprovenHosts::default(),
            known: 0,
            newest: now,
        }
    }
}

impl SurveyProbe for RollCall {
    fn is_done(&mut self, now: Moment) -> bool {
        if self.table.len() != self.known {
            self.known = self.table.len();
            self.newest = now;
        }

        let all = self.known > 0 && self.known >= self.table.claimed();
        all && now.since(self.newest) >= probe::QUIET_TIME
    }

    fn send(&mut self, control: &mut Control) {
        control.send(Dest::Group, &Message::Solicit(Some(self.nonce), None));
    }

    fn receive(&mut self, now: Moment, datagram: &Arrived<'_>) {
        let Some((source, hello)) = hello(&mut self.reassembly, now, datagram) else {
            return;
        };

        // A beacon without the nonce may be a replay.
        match hello.repeats(self.nonce) {
            true => drop(self.table.on_hello(now, datagram.from, source, hello, true)),
            false => self.unproven.record(datagram.from, hello),
        }
    }
}

/// The beacon or answer completed by a datagram.
fn hello(
    reassembly: &mut Reassembly,
    now: Moment,
    datagram: &Arrived<'_>,
) -> Option<(InstanceId, Hello)> {
    let Ok(Datagram::Control(front, piece)) = Datagram::parse(datagram.bytes) else {
        return None;
    };
    match Message::decode(&reassembly.add(now, front.source, piece)?) {
        Ok(Message::Hello(hello)) => Some((front.source, hello)),
        _ => None,
    }
}
