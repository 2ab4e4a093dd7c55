//! How a command ended, and how that is told.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use minicbor::{Decode, Encode};

use super::output::last_lines;
use super::{Command, Phase, seconds};

/// A command that passed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Ran {
    /// The last lines that it printed, printable.
    #[n(0)]
    pub output: String,
    /// How long it took, all tries together.
    #[n(1)]
    pub took: Duration,
    /// How often it was tried.
    #[n(2)]
    pub tries: u32,
}

/// A command that did not pass. Shown: a line that says what happened, then the last lines that it printed, indented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Which of the host's commands.
    pub phase: Phase,
    /// The command on one line, safe to show.
    pub command: String,
    /// What happened; of the last try.
    pub what: What,
    /// The last lines that it printed, printable.
    pub output: String,
    /// How often it was tried.
    pub tries: u32,
    /// How long that took, all tries together.
    pub took: Duration,
}

/// Why a command did not pass.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum What {
    /// There is no such program, or it may not be run; the system's words.
    #[n(0)]
    NotStarted(#[n(0)] String),
    /// It said so.
    #[n(1)]
    Exited(#[n(0)] i32),
    /// A signal ended it.
    #[n(2)]
    Killed(#[n(0)] i32),
    /// It did not end in time and was ended.
    #[n(3)]
    TimedOut(#[n(0)] Duration),
    /// It was ended because the daemon ends.
    #[n(4)]
    Stopped,
}

impl What {
    /// `None` when it passed.
    pub(super) fn of(status: ExitStatus) -> Option<Self> {
        match (status.code(), status.signal()) {
            (Some(0), _) => None,
            (Some(code), _) => Some(What::Exited(code)),
            (None, signal) => Some(What::Killed(signal.unwrap_or(0))),
        }
    }
}

impl Failure {
    pub(super) fn new(phase: Phase, command: &Command, what: What, ran: &Ran) -> Self {
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

    /// The line that says what happened.
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

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::NotStarted(why) => write!(f, "cannot be started: {why}"),
            What::Exited(code) => write!(f, "exit status {code}"),
            What::Killed(signal) => match signal_name(*signal) {
                Some(name) => write!(f, "killed by {name}"),
                None => write!(f, "killed by signal {signal}"),
            },
            What::TimedOut(limit) => write!(f, "timed out after {}", seconds(*limit)),
            What::Stopped => f.write_str("ended with the daemon"),
        }
    }
}

fn signal_name(number: i32) -> Option<&'static str> {
    nix::sys::signal::Signal::try_from(number)
        .ok()
        .map(nix::sys::signal::Signal::as_str)
}
