//! Who is there: a look around without a session.

use std::collections::BTreeSet;
use std::time::Duration;

use super::clock::{self, Clock};
use super::endpoint::{Arrived, Door, Endpoint};
use super::host::member;
use super::outcome::{Around, Member};
use super::strangers::Stranger;
use super::unproven::Unproven;
use crate::Result;
use crate::id::{InstanceId, Nonce};
use crate::proto::Dest;
use crate::proto::control::Control;
use crate::proto::members::Table;
use crate::units::Moment;
use crate::wire::fragment::Reassembly;
use crate::wire::message::Hello;
use crate::wire::seal::OpenError;
use crate::wire::{Datagram, Message};

/// Hosts that have just started do not know of each other yet: nobody new for this long means that all have answered.
const QUIET: Duration = Duration::from_millis(60);
/// The wait between solicits.
const AGAIN: Duration = Duration::from_millis(250);

/// The hosts that answer within `longest`, sorted by name; ends early when all that the hosts know of have
/// answered. Strangers are those that were heard by us or by any of them.
pub fn look(door: impl Into<Door>, longest: Duration) -> Result<Around> {
    let (clock, mut endpoint) = (Clock::start(), Endpoint::new(door)?);
    let mut control = Control::new(endpoint.instance(), endpoint.datagram(), endpoint.room());
    let (mut table, mut reassembly) = (Table::default(), Reassembly::default());
    let (nonce, mut unproven) = (Nonce(clock::seed()), Unproven::default());
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
            control.send(Dest::Group, &Message::Solicit(Some(nonce), None));
            next = now + AGAIN;
        }
        endpoint.flush(|out| control.poll(out));
        endpoint.wait(Some((began + longest).min(next).since(now).min(QUIET)))?;
        endpoint.receive(|datagram| {
            let Some((source, hello)) = hello(&mut reassembly, clock.now(), &datagram) else {
                return;
            };
            // What does not repeat the nonce may be recorded.
            match hello.repeats(nonce) {
                true => drop(table.on_hello(clock.now(), datagram.from, source, hello, true)),
                false => unproven.hear(datagram.from, hello),
            }
        });
    }

    let mut members: Vec<Member> = table.iter().map(|(_, m)| member(m)).collect();
    members.sort_by(|a, b| (&a.host, a.address).cmp(&(&b.host, b.address)));
    unproven.warn(|name| members.iter().any(|member| member.host == *name));
    let mut strangers: BTreeSet<Stranger> =
        endpoint.strangers().lately(clock::since_epoch()).collect();
    let plain = table
        .iter()
        .flat_map(|(_, m)| m.hello.strangers.iter().flatten());

    strangers.extend(plain.map(|&address| Stranger {
        address,
        kind: OpenError::Plain,
    }));

    Ok(Around {
        members,
        strangers: strangers.into_iter().collect(),
    })
}

/// The beacon or answer that a datagram completes.
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
