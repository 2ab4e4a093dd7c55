//! Result of a command and its message.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use minicbor::{Decode, Encode};

use super::output::last_lines;
use super::{Command, Phase, seconds};

/// Command that passed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct RunRecord {
    /// Last lines of its output, printable.
    #[n(0)]
    pub output: String,
    /// Duration of all attempts together.
    #[n(1)]
    pub took: Duration,
    /// Number of attempts.
    #[n(2)]
    pub tries: u32,
}

/// Command that failed. Displayed as one line with the cause, then the last lines of output,
/// indented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Phase of the command.
    pub phase: Phase,
    /// Command on one line, safe to show.
    pub command: String,
    /// Cause of the failure, from the last attempt.
    pub what: FailureCause,
    /// Last lines of its output, printable.
    pub output: String,
    /// Number of attempts.
    pub tries: u32,
    /// Duration of all attempts together.
    pub took: Duration,
}

/// Cause of a failure.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum FailureCause {
    /// The program is missing or not executable; carries the system's message.
    #[n(0)]
    NotStarted(#[n(0)] String),
    /// Nonzero exit status.
    #[n(1)]
    Exited(#[n(0)] i32),
    /// Killed by a signal.
    #[n(2)]
    Killed(#[n(0)] i32),
    /// Killed at its time limit.
    #[n(3)]
    TimedOut(#[n(0)] Duration),
    /// Killed because the daemon ends.
    #[n(4)]
    Stopped,
}

impl FailureCause {
    /// Cause for an exit status; `None` if the command passed.
    pub(super) fn of(status: ExitStatus) -> Option<Self> {
        match (status.code(), status.signal()) {
            (Some(0), _) => None,
            (Some(code), _) => Some(FailureCause::Exited(code)),
            (None, signal) => Some(FailureCause::Killed(signal.unwrap_or(0))),
        }
    }
}

impl Failure {
    pub(super) fn new(
        phase: Phase,
        command: &Command,
        what: FailureCause,
        ran: &RunRecord,
    ) -> Self {
        let output = last_lines(&ran.output);
        Self {
            phase,
            command: command.to_string(),
            what,
            output,
            tries: ran.tries,
            took: ran.took,
        }
    }

    /// Line with the cause.
    pub fn headline(&self) -> String {
        let tries = match self.tries {
            0 | 1 => String::new(),
            n => format!(" ({n} tries in {})", seconds(self.took)),
        };

        format!(
            "{} {} failed: {}{tries}",
            self.phase, self.command, self.what
        )
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.headline())?;
        self.output
            .lines()
            .try_for_each(|line| write!(f, "\n  {line}"))
    }
}

impl std::error::Error for Failure {}

impl fmt::Display for FailureCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FailureCause::NotStarted(why) => write!(f, "cannot be started: {why}"),
            FailureCause::Exited(code) => write!(f, "exit status {code}"),
            FailureCause::Killed(signal) => match signal_name(*signal) {
                Some(name) => write!(f, "killed by {name}"),
                None => write!(f, "killed by signal {signal}"),
            },
            FailureCause::TimedOut(limit) => write!(f, "timed out after {}", seconds(*limit)),
            FailureCause::Stopped => f.write_str("ended with the daemon"),
        }
    }
}

fn signal_name(number: i32) -> Option<&'static str> {
    nix::sys::signal::Signal::try_from(number)
        .ok()
        .map(nix::sys::signal::Signal::as_str)
}
