//! Finds the hosts of a network, without a session.

use std::time::Duration;

use super::probe::{self, SurveyProbe};
use super::roll_call::RollCall;
use super::strangers::strangers;
use crate::Result;
use crate::drive::endpoint::{Arrived, GroupLinks};
use crate::drive::silence::silence;
use crate::id::{HostName, InstanceId};
use crate::outcome::{MemberInfo, Survey};
use crate::proto::control::Control;
use crate::units::Moment;
use crate::wire::fragment::Reassembly;
use crate::wire::message::Hello;
use crate::wire::{Datagram, Message};

/// Returns the hosts that answer within `longest`, sorted by name, and the peers whose datagrams do
/// not open here or there.
///
/// Ends early once all hosts known to the others have answered.
pub fn members(
    network: impl Into<GroupLinks>,
    longest: Duration,
) -> Result<Survey<Vec<MemberInfo>>> {
    let (probe, endpoint) = probe::run(network, longest, MembersProbe::new)?;
    let found = probe.roll_call.table().iter();
    let mut members: Vec<MemberInfo> = found.map(|(_, member)| member.into()).collect();
    members.sort_by(|a, b| (&a.host, a.address).cmp(&(&b.host, b.address)));

    let is_found = |name: &HostName| members.iter().any(|member| member.host == *name);
    let table = probe.roll_call.end(is_found);
    let silence = members.is_empty().then(|| silence(&endpoint));

    Ok(Survey {
        strangers: strangers(&table, &endpoint),
        found: members,
        silence,
    })
}

/// A roll call alone.
struct MembersProbe {
    roll_call: RollCall,
    reassembly: Reassembly,
}

impl MembersProbe {
    fn new(now: Moment) -> Self {
        Self {
            roll_call: RollCall::new(now),
            reassembly: Reassembly::default(),
        }
    }
}

impl SurveyProbe for MembersProbe {
    fn is_done(&mut self, now: Moment) -> bool {
        self.roll_call.is_complete(now)
    }

    fn send(&mut self, control: &mut Control) {
        self.roll_call.solicit(control);
    }

    fn receive(&mut self, now: Moment, datagram: &Arrived<'_>) {
        if let Some((source, hello)) = hello(&mut self.reassembly, now, datagram) {
            self.roll_call.on_hello(now, datagram.from, source, hello);
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
