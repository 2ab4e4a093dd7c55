//! Finds the hosts: by their answers, and by the beacons of those that hear no question.

use std::time::Duration;

use super::prober::Prober;
use super::target::CheckupTarget;
use crate::Result;
use crate::proto::Dest;

/// Time to listen: longer than the interval of the beacons of a small fleet, so that hosts are
/// found which hear no question.
const LISTEN_TIME: Duration = Duration::from_millis(3_400);
/// Interval of questions.
const ROUND_INTERVAL: Duration = Duration::from_millis(250);
/// Rounds after which a question goes to the group again.
const GROUP_ROUNDS: u32 = 3;

/// Finds the hosts.
pub(super) fn run(prober: &mut Prober, target: &CheckupTarget) -> Result<()> {
    let end = prober.now() + LISTEN_TIME;
    let mut round = 0;
    while prober.now() < end && !prober.hosts.has_all_of(target) {
        if round % GROUP_ROUNDS == 0 {
            prober.ask_presence(Dest::Group);
            prober.ask_machine(Dest::Group);
        }
        for address in &target.addresses {
            prober.ask_presence(Dest::Host(*address));
        }
        ask_alone(prober);
        round += 1;

        let until = (prober.now() + ROUND_INTERVAL).min(end);
        while prober.now() < until && !prober.hosts.has_all_of(target) {
            prober.turn(until)?;
        }
    }

    Ok(())
}

/// Asks hosts that have not told all, one by one.
fn ask_alone(prober: &mut Prober) {
    /// Largest number of hosts asked in a round.
    const MAX_ASKED: usize = 64;
    let open: Vec<_> = prober
        .hosts
        .iter()
        .filter(|host| !host.facts.answered || host.facts.report.is_none())
        .map(|host| (host.facts.address, host.facts.answered))
        .take(MAX_ASKED)
        .collect();

    for (address, answered) in open {
        if !answered {
            prober.ask_presence(Dest::Host(address));
        }
        prober.ask_machine(Dest::Host(address));
    }
}
