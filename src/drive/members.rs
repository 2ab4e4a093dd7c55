//! Who is there: a look around without a session.

use std::time::Duration;

use super::clock::{self, Clock};
use super::endpoint::{Arrived, Endpoint};
use super::host::member;
use super::outcome::Member;
use crate::Result;
use crate::id::InstanceId;
use crate::net::Links;
use crate::proto::Dest;
use crate::proto::control::Control;
use crate::proto::members::Table;
use crate::units::Moment;
use crate::wire::fragment::Reassembly;
use crate::wire::{Datagram, Message};

/// Hosts that have just started do not know of each other yet: nobody new for this long means that all have answered.
const QUIET: Duration = Duration::from_millis(60);
/// The wait between solicits.
const AGAIN: Duration = Duration::from_millis(250);

/// The hosts that answer within `longest`, sorted by name; ends early when all that the hosts know of have
/// answered.
pub fn look(links: impl Into<Links>, longest: Duration) -> Result<Vec<Member>> {
    let (clock, mut endpoint) = (Clock::start(), Endpoint::new(links)?);
    let mut control = Control::new(InstanceId(clock::seed()), endpoint.datagram(), endpoint.room());
    let (mut table, mut reassembly) = (Table::default(), Reassembly::default());
    let began = clock.now();
    let (mut next, mut newest, mut known) = (began, began, 0);
    loop {
        let now = clock.now();
        if table.len() != known {
            (known, newest) = (table.len(), now);
        }
        let all = known > 0 && known >= table.claimed() && now.since(newest) >= QUIET;
        if now.since(began) >= longest || all {
            break;
        }
        if next <= now {
            control.send(Dest::Group, &Message::Solicit);
            next = now + AGAIN;
        }
        endpoint.flush(|out| control.poll(out));
        endpoint.wait(Some((began + longest).min(next).since(now).min(QUIET)))?;
        endpoint.receive(|d| hear(&mut table, &mut reassembly, clock.now(), &d));
    }
    let mut members: Vec<Member> = table.iter().map(|(_, m)| member(m)).collect();
    members.sort_by(|a, b| (&a.host, a.address).cmp(&(&b.host, b.address)));
    Ok(members)
}

fn hear(table: &mut Table, reassembly: &mut Reassembly, now: Moment, datagram: &Arrived<'_>) {
    if let Ok(Datagram::Control(front, piece)) = Datagram::parse(datagram.bytes)
        && let Some(whole) = reassembly.add(now, front.source, piece)
        && let Ok(Message::Hello(hello)) = Message::decode(&whole)
    {
        table.heard(now, datagram.from, front.source, hello);
    }
}
