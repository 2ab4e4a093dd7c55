//! One JSON object a line, for scripts.
//!
//! Owns the order of lines; `line` has their fields. Every stream ends with exactly one `result`,
//! even if the command failed before it began. A watch has one for each batch, without a serial if
//! nothing was sent.

use std::io::Write;

use serde::Serialize;

use super::line::{Line, ResultLine};
use super::{fleet, put_line};
use crate::Error;
use crate::outcome::{
    DriftLine, Event, ExitStatus, MemberInfo, Observer, Outcome, PathDifference, ReleaseLog,
    Standing, Stranger, Survey, log_status, paused_rollouts, standings_status,
};

/// Writes JSON lines.
pub struct Json {
    out: Box<dyn Write + Send>,
    changes_told: bool,
}

impl Json {
    /// Writes to standard output.
    pub fn stdout() -> Self {
        Self::to(Box::new(std::io::stdout()))
    }

    /// Writes to `out`.
    pub fn to(out: Box<dyn Write + Send>) -> Self {
        Self {
            out,
            changes_told: false,
        }
    }

    /// Writes the changes not reported before, the final state of every host, and the result.
    pub fn outcome(&mut self, outcome: &Outcome) {
        if !self.changes_told {
            for group in &outcome.drift {
                group
                    .lines
                    .iter()
                    .for_each(|line| self.put(&Line::change(&group.hosts, line)));
            }
        }

        for group in &outcome.drift {
            Line::limits(group).iter().for_each(|line| self.put(line));
        }
        outcome
            .hosts
            .iter()
            .for_each(|host| self.put(&Line::last_of(host)));
        self.put(&Line::Result(ResultLine::of(outcome)));
    }

    /// Writes the members, the peers that are ignored, and the result.
    pub fn members(&mut self, around: &Survey<Vec<MemberInfo>>) {
        around.found.iter().for_each(|member| self.member(member));
        self.strangers(&around.strangers);
        self.members_result(around);
    }

    /// Writes a member.
    pub(super) fn member(&mut self, member: &MemberInfo) {
        self.put(&Line::member(member));
    }

    /// Writes the result of a list of members.
    pub(super) fn members_result(&mut self, around: &Survey<Vec<MemberInfo>>) {
        self.plain(&Count {
            members: around.found.len(),
            strangers: around.strangers.len(),
        });
    }

    /// Writes the peers that are ignored.
    pub fn strangers(&mut self, strangers: &[Stranger]) {
        for Stranger { address, kind } in strangers {
            let address = address.to_string();
            let why = Stranger::describe(*kind);
            self.put(&Line::Stranger { address, why });
        }
    }

    /// Writes the releases known in the fleet, and the result.
    pub fn log(&mut self, log: &Survey<ReleaseLog>) {
        let Survey { found, .. } = log;
        let releases = found.releases.iter();
        releases.for_each(|release| self.put(&fleet::ReleaseLine::new(found, release)));
        self.strangers(&log.strangers);
        self.result(log_status(found), &fleet::LogResult::new(log));
    }

    /// Writes the standing of each host, and the result.
    pub fn status(&mut self, standings: &Survey<Vec<Standing>>) {
        let hosts = standings.found.iter();
        hosts.for_each(|standing| self.put(&fleet::StandingLine::new(standing)));
        let paused = paused_rollouts(&standings.found);
        paused
            .iter()
            .for_each(|rollout| self.put(&fleet::RolloutLine::new(rollout)));
        self.strangers(&standings.strangers);
        self.status_result(standings);
    }

    /// Writes the result of a status.
    pub(super) fn status_result(&mut self, standings: &Survey<Vec<Standing>>) {
        let exit = standings_status(&standings.found);
        self.result(exit, &fleet::StatusResult::new(standings));
    }

    /// Writes a difference of two releases.
    pub(super) fn change(&mut self, line: &DriftLine) {
        self.put(&Line::change(&[], line));
    }

    /// Writes the result of a success with extra fields.
    pub fn plain(&mut self, fields: &impl Serialize) {
        self.result(ExitStatus::Success, fields);
    }

    fn result(&mut self, exit: ExitStatus, fields: &impl Serialize) {
        self.checked(fields, exit.code());
    }

    /// Writes a result with extra fields and the exit code.
    pub fn checked(&mut self, fields: &impl Serialize, exit: u8) {
        self.put(&PlainResult {
            event: "result",
            exit,
            fields,
        });
    }

    /// Writes the result of a command that failed early.
    pub fn failure(&mut self, error: &Error) {
        self.put(&Line::Result(ResultLine::of_failure(error)));
    }

    pub(super) fn put(&mut self, line: &impl Serialize) {
        // Only maps with keys other than strings can fail here, and there are none.
        if let Ok(text) = serde_json::to_string(line) {
            put_line(&mut *self.out, &text);
        }
    }
}

/// The result of a session as one line of JSON.
pub fn result_line(outcome: &Outcome) -> String {
    // Only maps with keys other than strings can fail here, and there are none.
    let line = serde_json::to_string(&Line::Result(ResultLine::of(outcome)));
    line.unwrap_or_default() + "\n"
}

impl Observer for Json {
    fn event(&mut self, event: &Event) {
        match event {
            Event::Member(member) => self.put(&Line::member(member)),
            Event::Scanned(scanned) => self.put(&Line::scanned(scanned)),
            Event::Released(released) => self.put(&Line::released(released)),
            Event::Host(host) => self.put(&Line::host(host)),
            Event::Change(PathDifference { hosts, line }) => {
                self.changes_told = true;
                self.put(&Line::change(hosts, line));
            }
            Event::Progress(progress) => self.put(&Line::progress(progress)),
            // Every differing path has a line of its own.
            Event::Files(_) => {}
            Event::Note(text) => self.put(&Line::Note { text }),
        }
    }
}

#[derive(Serialize)]
struct PlainResult<'a, T: Serialize> {
    event: &'static str,
    exit: u8,
    #[serde(flatten)]
    fields: &'a T,
}

#[derive(Serialize)]
struct Count {
    members: usize,
    strangers: usize,
}

#[cfg(test)]
mod tests {
    use super::super::sample::{self, SharedBuffer};
    use super::*;

    fn told(tell: impl FnOnce(&mut Json)) -> String {
        let buffer = SharedBuffer::default();
        tell(&mut Json::to(Box::new(buffer.clone())));
        let text = buffer.text();
        for line in text.lines() {
            assert!(
                serde_json::from_str::<serde_json::Value>(line).is_ok(),
                "{line}"
            );
        }

        let last: serde_json::Value = text
            .lines()
            .last()
            .and_then(|l| serde_json::from_str(l).ok())
            .expect("a last line");

        assert_eq!(last["event"], "result");
        text
    }

    #[test]
    fn a_deploy() {
        insta::assert_snapshot!(told(|json| {
            sample::events().iter().for_each(|e| json.event(e));
            json.outcome(&sample::deployed());
        }));
    }

    #[test]
    fn a_diff() {
        insta::assert_snapshot!(told(|json| json.outcome(&sample::drifted())));
    }

    #[test]
    fn changes_are_told_once() {
        let text = told(|json| {
            let group = &sample::drifted().drift[0];
            let change = PathDifference {
                hosts: group.hosts.clone(),
                line: group.lines[0].clone(),
            };
            json.event(&Event::Change(change));
            json.outcome(&sample::drifted());
        });
        assert_eq!(text.matches("\"change\"").count(), 1, "{text}");
    }

    #[test]
    fn a_mixed_end() {
        insta::assert_snapshot!(told(|json| json.outcome(&sample::mixed())));
    }

    #[test]
    fn members() {
        insta::assert_snapshot!(told(|json| json.members(&sample::around())));
    }

    #[test]
    fn an_early_failure() {
        let error = Error::usage("no key to sign with").hint("`makuo keygen` makes one");
        insta::assert_snapshot!(told(|json| json.failure(&error)));
    }
}
