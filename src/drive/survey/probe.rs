//! The loop of a survey: sends questions in intervals until all hosts have answered.

use std::time::Duration;

use crate::Result;
use crate::drive::clock::Clock;
use crate::drive::endpoint::{Arrived, GroupEndpoint, GroupLinks};
use crate::proto::control::Control;
use crate::units::Moment;

/// Time without a new host after which a survey may be complete.
///
/// Hosts that have just started do not know each other yet.
pub(super) const QUIET_TIME: Duration = Duration::from_millis(60);
/// Interval of questions.
const QUESTION_INTERVAL: Duration = Duration::from_millis(250);
/// Rounds of questions that follow each other at once: where some hosts do not know of others,
/// nothing else tells that a datagram was lost.
pub(super) const QUICK_ROUNDS: usize = 4;
/// Interval of these rounds. All are over within [`QUIET_TIME`].
const QUICK_ROUND_INTERVAL: Duration = Duration::from_millis(15);

/// A survey in progress.
pub(super) trait SurveyProbe {
    /// Returns whether all hosts have answered.
    fn is_done(&mut self, now: Moment) -> bool;

    /// Sends the questions of the next round.
    fn send(&mut self, control: &mut Control);

    /// Takes a received datagram.
    fn receive(&mut self, now: Moment, datagram: &Arrived<'_>);
}

/// Runs the survey from `begin` until all hosts have answered, at the latest after `longest`.
pub(super) fn run<P: SurveyProbe>(
    links: impl Into<GroupLinks>,
    longest: Duration,
    begin: impl FnOnce(Moment) -> P,
) -> Result<(P, GroupEndpoint)> {
    let clock = Clock::start();
    let mut endpoint = GroupEndpoint::new(links)?;
    let mut control = Control::new(endpoint.instance(), endpoint.datagram(), endpoint.room());

    let began = clock.now();
    let mut next = began;
    let mut rounds = 0;
    let mut probe = begin(began);

    loop {
        let now = clock.now();
        if now.since(began) >= longest || probe.is_done(now) {
            return Ok((probe, endpoint));
        }

        if next <= now {
            probe.send(&mut control);
            rounds += 1;
            next = now
                + match rounds < QUICK_ROUNDS {
                    true => QUICK_ROUND_INTERVAL,
                    false => QUESTION_INTERVAL,
                };
        }

        endpoint.flush(|out| control.poll(out));
        endpoint.wait(Some((began + longest).min(next).since(now).min(QUIET_TIME)))?;
        endpoint.receive(|datagram| probe.receive(clock.now(), &datagram));
    }
}
