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

/// A survey in progress.
pub(super) trait SurveyProbe {
    /// Returns whether all hosts have answered.
    fn is_done(&mut self, now: Moment) -> bool;

    /// Sends the questions of one interval.
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
    let mut probe = begin(began);

    loop {
        let now = clock.now();
        if now.since(began) >= longest || probe.is_done(now) {
            return Ok((probe, endpoint));
        }

        if next <= now {
            probe.send(&mut control);
            next = now + QUESTION_INTERVAL;
        }

        endpoint.flush(|out| control.poll(out));
        endpoint.wait(Some((began + longest).min(next).since(now).min(QUIET_TIME)))?;
        endpoint.receive(|datagram| probe.receive(clock.now(), &datagram));
    }
}
