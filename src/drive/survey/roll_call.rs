//! The hosts that answered the solicits of a survey, and whether others may be missing.

use std::net::SocketAddr;

use super::probe::{QUICK_ROUNDS, QUIET_TIME};
use crate::drive::clock;
use crate::drive::unproven::UnprovenHosts;
use crate::id::{HostName, InstanceId, Nonce};
use crate::proto::Dest;
use crate::proto::control::Control;
use crate::proto::members::Table;
use crate::units::Moment;
use crate::wire::Message;
use crate::wire::message::Hello;

/// Rounds of solicits after which a few hosts may claim more hosts than there are.
const DOUBTED_ROUNDS: usize = QUICK_ROUNDS + 2;

/// Solicits in progress.
pub(super) struct RollCall {
    nonce: Nonce,
    table: Table,
    unproven: UnprovenHosts,
    rounds: usize,
    /// Time of the last new host.
    newest: Moment,
}

impl RollCall {
    pub(super) fn new(now: Moment) -> Self {
        Self {
            nonce: Nonce(clock::seed()),
            table: Table::default(),
            unproven: UnprovenHosts::default(),
            rounds: 0,
            newest: now,
        }
    }

    /// Hosts that have answered.
    pub(super) fn table(&self) -> &Table {
        &self.table
    }

    /// Number of rounds so far.
    pub(super) fn rounds(&self) -> usize {
        self.rounds
    }

    /// Ends, and logs the hosts that did not prove that they are alive and are not `found`
    /// otherwise.
    pub(super) fn end(self, found: impl Fn(&HostName) -> bool) -> Table {
        self.unproven.warn(found);
        self.table
    }

    /// Begins a round, and solicits all hosts while some may be missing.
    pub(super) fn solicit(&mut self, control: &mut Control) {
        self.rounds += 1;
        if self.rounds <= QUICK_ROUNDS || self.table.len() < self.claimed() {
            control.send(Dest::Group, &Message::Solicit(Some(self.nonce), None));
        }
    }

    /// Takes a beacon or an answer.
    pub(super) fn on_hello(
        &mut self,
        now: Moment,
        from: SocketAddr,
        source: InstanceId,
        hello: Hello,
    ) {
        // A beacon without the nonce may be a replay.
        if !hello.repeats(self.nonce) {
            self.unproven.record(from, hello);
            return;
        }

        if self.table.on_hello(now, from, source, hello, true) {
            self.newest = now;
        }
    }

    /// Returns whether all hosts known to any other have answered, and no new one for a while.
    pub(super) fn is_complete(&self, now: Moment) -> bool {
        !self.table.is_empty()
            && self.rounds >= QUICK_ROUNDS
            && self.table.len() >= self.claimed()
            && now.since(self.newest) >= QUIET_TIME
    }

    /// Number of hosts by the claims of the members.
    fn claimed(&self) -> usize {
        match self.rounds >= DOUBTED_ROUNDS {
            true => self.table.claimed(),
            false => self.table.most_claimed(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const ROUND: Duration = Duration::from_millis(15);

    /// A roll call of hosts that answer from a given round on, and the number of hosts each claims.
    fn answered_until(rounds: usize, hosts: &[(usize, u32)]) -> (RollCall, Moment) {
        let mut roll_call = RollCall::new(Moment(0));
        let mut control = Control::new(InstanceId(99), 1472, 1472);
        let mut now = Moment(0);
        for round in 1..=rounds {
            roll_call.solicit(&mut control);
            for (number, &(from, members)) in hosts.iter().enumerate() {
                if from > round {
                    continue;
                }

                let id = number as u8 + 1;
                let hello = Hello {
                    name: HostName::new(&format!("web{id}")).expect("legal"),
                    version: String::new(),
                    trees: Vec::new(),
                    members,
                    heard: None,
                    strangers: None,
                    nonce: None,
                    echoes: Some(vec![roll_call.nonce]),
                    identity: None,
                    shown: None,
                    labels: None,
                };
                let address = SocketAddr::from(([10, 0, 0, id], 5000));
                roll_call.on_hello(now, address, InstanceId(id.into()), hello);
            }
            now = now + ROUND;
        }
        (roll_call, now + QUIET_TIME)
    }

    #[test]
    fn a_host_that_no_other_knows_is_found_by_any_quick_round() {
        for from in 1..=QUICK_ROUNDS {
            for rounds in 1..QUICK_ROUNDS {
                let (early, now) = answered_until(rounds, &[(1, 1), (from, 1)]);
                assert!(!early.is_complete(now), "complete after {rounds} rounds");
            }

            let (whole, now) = answered_until(QUICK_ROUNDS, &[(1, 1), (from, 1)]);
            assert!(whole.is_complete(now) && whole.table().len() == 2);
        }
    }

    #[test]
    fn a_host_that_one_member_alone_knows_is_waited_for_but_not_for_ever() {
        for rounds in QUICK_ROUNDS..DOUBTED_ROUNDS {
            let (waits, now) = answered_until(rounds, &[(1, 2), (1, 3)]);
            assert!(!waits.is_complete(now), "complete after {rounds} rounds");
        }

        let (ends, now) = answered_until(DOUBTED_ROUNDS, &[(1, 2), (1, 3)]);
        assert!(ends.is_complete(now));
    }
}
