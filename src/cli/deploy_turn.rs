//! The wait of `makuo deploy --wait` for the end of another session of the same tree.

use std::time::Duration;

use super::network;
use crate::Result;
use crate::config::NetworkConfig;
use crate::drive::clock::Clock;
use crate::drive::deploy::Interrupt;
use crate::drive::survey;
use crate::id::TreeName;
use crate::outcome::{Event, ExitStatus, HostState, Observer, Outcome, Standing};
use crate::proto::receiver::is_busy;
use crate::report::words;
use crate::units::{Moment, shown_duration};

/// Longest time for hosts to tell what they do.
const TURN_QUERY_TIMEOUT: Duration = Duration::from_secs(1);
/// Pause between two questions.
const TURN_POLL_INTERVAL: Duration = Duration::from_millis(500);

/// The wait of one deploy for its turn.
pub(super) struct DeployTurn<'a> {
    network: &'a NetworkConfig,
    tree: &'a TreeName,
    clock: Clock,
    end: Moment,
}

impl<'a> DeployTurn<'a> {
    /// A wait for `tree` that begins now and takes `wait` at most.
    pub(super) fn new(network: &'a NetworkConfig, tree: &'a TreeName, wait: Duration) -> Self {
        let clock = Clock::start();
        Self {
            network,
            tree,
            end: clock.now() + wait,
            clock,
        }
    }

    /// Waits until no host works on the tree, at the latest until the end of the wait.
    pub(super) fn wait(&self, interrupt: &Interrupt, observer: &mut dyn Observer) -> Result<()> {
        let mut is_told = false;
        while self.clock.now() < self.end && !interrupt.is_asked() {
            let links = network::open(self.network)?;
            let standings = survey::status(links, Some(self.tree), TURN_QUERY_TIMEOUT)?.found;
            let Some(other) = standings.iter().find_map(work_of) else {
                return Ok(());
            };

            if !is_told {
                let left = shown_duration(self.end.since(self.clock.now()));
                observer.event(&Event::Note(format!("{other}: waiting for up to {left}")));
                is_told = true;
            }
            std::thread::sleep(TURN_POLL_INTERVAL);
        }

        Ok(())
    }

    /// Returns whether another session came first, and there is time for a further attempt.
    pub(super) fn is_missed(&self, outcome: &Outcome) -> bool {
        self.clock.now() < self.end && outcome.exit == ExitStatus::Refused && is_refused(outcome)
    }
}

/// Returns whether hosts refused, and each since another session holds its tree: a further attempt
/// does not change another reason.
fn is_refused(outcome: &Outcome) -> bool {
    let hosts = outcome.hosts.iter();
    let mut reasons = hosts
        .filter(|host| host.state == HostState::Refused)
        .map(|host| host.error.as_deref())
        .peekable();
    reasons.peek().is_some() && reasons.all(|reason| reason.is_some_and(is_busy))
}

/// "web1: staging www@18 from ci", of a host at work.
fn work_of(standing: &Standing) -> Option<String> {
    let work = standing.status.as_ref()?.work.as_ref()?;
    Some(format!(
        "{}: {} {} from {}",
        standing.named,
        words::safe(&work.word),
        words::release(&standing.tree, Some(work.serial)),
        work.sender
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::HostName;
    use crate::outcome::{HostResult, Purpose};

    #[test]
    fn only_busy_hosts_are_worth_another_attempt() {
        let ended = |reasons: &[&str]| {
            let tree = TreeName::new("www").expect("legal");
            let mut outcome = Outcome::new(Purpose::Deploy, tree);
            outcome.hosts.extend(reasons.iter().map(|reason| {
                let host = HostName::new("web1").expect("legal");
                HostResult {
                    error: Some(reason.to_string()),
                    ..HostResult::new(host, HostState::Refused)
                }
            }));
            is_refused(&outcome.settle())
        };

        let busy = "busy with www@7 from ci; try again when it is over";
        assert!(ended(&[busy]) && ended(&[busy, busy]));
        for hopeless in [&["the key is not authorized", busy][..], &["no space"], &[]] {
            assert!(!ended(hopeless), "{hopeless:?}");
        }
    }
}
