//! Commands of a host around a commit: before it, after it, and a health check of the result.
//!
//! A command is an argument list; no shell reads it. It runs in its own process group with a clean
//! environment that describes the commit (`MAKUO_TREE`, `MAKUO_SERIAL`, ...), within a time limit,
//! and the end of its output is kept. Does not know the consequences of a success or failure: the
//! caller knows the release.
//!
//! - [`Command::run`] runs once, for [`Phase::Before`] and [`Phase::After`].
//! - [`Health::check`] retries until the command passes or the deadline is over.
//! - [`Hooks::run`] runs the command of a phase, here or in a [`helper_process`].
//! - All stop at once when `stop` is set, which happens at the end of the daemon.

mod failure;
pub mod helper_process;
mod output;
mod run;
#[cfg(test)]
mod tests;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use minicbor::{Decode, Encode};

pub use failure::{Failure, FailureCause, RunRecord};

use crate::id::{HostName, Serial, TreeName};
use crate::manifest::ReleaseId;
use crate::units::printable;

/// Largest number of words in a command.
pub const MAX_WORDS: usize = 256;
/// Largest word of a command in bytes.
pub const MAX_WORD_BYTES: usize = 16 << 10;
/// Default time limit of a hook.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
/// Default time limit of one health check attempt.
pub const DEFAULT_TRY: Duration = Duration::from_secs(10);
/// Default interval between two attempts.
pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(1);
/// Default time for a host to become healthy.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(30);
/// Largest number of characters shown of a command.
const MAX_COMMAND_CHARS: usize = 200;

/// Program with its arguments and time limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    argv: Vec<OsString>,
    timeout: Duration,
}

/// Reason to reject an argument list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// Empty list, or an empty program name.
    #[error("name a program and its arguments, as in [\"systemctl\", \"reload\", \"nginx\"]")]
    Empty,
    /// The program is neither a bare name nor an absolute path.
    #[error("{0} is neither an absolute path nor the bare name of a program in the PATH")]
    Relative(String),
    /// A word contains NUL, or a cap is exceeded.
    #[error(
        "an argument has a NUL byte or exceeds {MAX_WORD_BYTES} bytes, \
         or there are more than {MAX_WORDS}"
    )]
    Illegal,
}

impl Command {
    /// Checks `argv`, program first; the command gets `timeout` to end.
    pub fn new(argv: Vec<OsString>, timeout: Duration) -> Result<Self, CommandError> {
        let program = argv
            .first()
            .filter(|p| !p.is_empty())
            .ok_or(CommandError::Empty)?;

        // Commands run in /, where a relative path would not mean the expected program.
        if program.as_bytes().contains(&b'/') && !Path::new(program).is_absolute() {
            return Err(CommandError::Relative(printable(program.as_bytes())));
        }

        let legal = |word: &OsString| word.len() <= MAX_WORD_BYTES && !word.as_bytes().contains(&0);
        if argv.len() > MAX_WORDS || !argv.iter().all(legal) {
            return Err(CommandError::Illegal);
        }

        Ok(Self { argv, timeout })
    }

    /// Program: an absolute path, or a name to look up in the PATH.
    pub fn program(&self) -> &OsStr {
        self.argv
            .first()
            .map_or(OsStr::new(""), OsString::as_os_str)
    }

    /// Program and arguments.
    pub fn argv(&self) -> &[OsString] {
        &self.argv
    }

    /// Time limit.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Runs the command once and logs the result.
    pub fn run(
        &self,
        phase: Phase,
        context: &HookContext,
        stop: &AtomicBool,
    ) -> Result<RunRecord, Failure> {
        let (what, ran) = run::run_once(self, phase, context, stop);
        run::log_result(self, phase, context, what, ran)
    }
}

/// One line, safe to show; words with special characters are quoted.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |c: char| c.is_alphanumeric() || "_@%+=:,./-?&".contains(c);
        let mut line = String::new();
        for word in &self.argv {
            let word = printable(word.as_bytes());
            let space = if line.is_empty() { "" } else { " " };
            let quote = if !word.is_empty() && word.chars().all(plain) {
                ""
            } else {
                "'"
            };
            line.push_str(&format!("{space}{quote}{word}{quote}"));
        }

        match line.char_indices().nth(MAX_COMMAND_CHARS) {
            Some((at, _)) => write!(f, "{}...", &line[..at]),
            None => f.write_str(&line),
        }
    }
}

/// Health check of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Passes with exit status 0; its time limit applies to one attempt.
    pub command: Command,
    /// Wait between two attempts.
    pub interval: Duration,
    /// Time for all attempts.
    pub deadline: Duration,
}

impl Health {
    /// Retries until the command passes, and logs the result; returns the last failure.
    pub fn check(&self, context: &HookContext, stop: &AtomicBool) -> Result<RunRecord, Failure> {
        let (what, ran) = run::until_healthy(self, context, stop);
        run::log_result(&self.command, Phase::Health, context, what, ran)
    }
}

/// Commands of a host around the commits of one tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hooks {
    /// Runs before any change; a failure keeps the host as it is.
    pub before: Option<Command>,
    /// Runs after the commit.
    pub after: Option<Command>,
    /// Runs after that.
    pub health: Option<Health>,
    /// Helper process that runs the commands; `None` to run them here.
    pub helper: Option<helper_process::HelperProcess>,
}

impl Hooks {
    /// Runs the command of `phase` and logs the result; `None` without a command.
    pub fn run(
        &self,
        phase: Phase,
        context: &HookContext,
        stop: &AtomicBool,
    ) -> Option<Result<RunRecord, Failure>> {
        let command = self.command(phase)?;
        Some(match &self.helper {
            Some(helper) => helper.run(command, phase, context, stop),
            None => {
                let (what, ran) = self.attempt(phase, context, stop);
                run::log_result(command, phase, context, what, ran)
            }
        })
    }

    /// Command of `phase`.
    pub fn command(&self, phase: Phase) -> Option<&Command> {
        match phase {
            Phase::Before => self.before.as_ref(),
            Phase::After => self.after.as_ref(),
            Phase::Health => self.health.as_ref().map(|health| &health.command),
        }
    }

    /// Runs the command of `phase`; the cause is `None` if it passed.
    fn attempt(
        &self,
        phase: Phase,
        context: &HookContext,
        stop: &AtomicBool,
    ) -> (Option<FailureCause>, RunRecord) {
        match (&self.health, self.command(phase)) {
            (Some(health), _) if phase == Phase::Health => {
                run::until_healthy(health, context, stop)
            }
            (_, Some(command)) => run::run_once(command, phase, context, stop),
            (_, None) => (
                None,
                RunRecord {
                    output: String::new(),
                    took: Duration::ZERO,
                    tries: 0,
                },
            ),
        }
    }

    /// Returns whether there is no command.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Commands with their phases.
    pub fn commands(&self) -> impl Iterator<Item = (Phase, &Command)> {
        let health = self.health.as_ref().map(|h| &h.command);
        let all = [
            (Phase::Before, self.before.as_ref()),
            (Phase::After, self.after.as_ref()),
            (Phase::Health, health),
        ];
        all.into_iter()
            .filter_map(|(phase, command)| Some((phase, command?)))
    }
}

/// Phase of a commit in which a command runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Phase {
    /// Before any change.
    #[n(0)]
    Before,
    /// After the commit.
    #[n(1)]
    After,
    /// Health check after the commit.
    #[n(2)]
    Health,
}

impl Phase {
    /// Key in the configuration and value of `MAKUO_PHASE`.
    pub fn key(self) -> &'static str {
        match self {
            Phase::Before => "before",
            Phase::After => "after",
            Phase::Health => "health",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Phase::Before => "before hook",
            Phase::After => "after hook",
            Phase::Health => "health check",
        })
    }
}

/// Reason for the change of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Cause {
    /// Commit of a release.
    #[n(0)]
    Commit,
    /// Return to the previous release.
    #[n(1)]
    Revert,
    /// No change: undoes the preparations of a hook before the commit.
    #[n(2)]
    Abort,
}

impl Cause {
    /// Value of `MAKUO_CAUSE`.
    pub fn word(self) -> &'static str {
        match self {
            Cause::Commit => "commit",
            Cause::Revert => "revert",
            Cause::Abort => "abort",
        }
    }
}

/// Description of the commit for a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookContext {
    /// Name of the tree.
    pub tree: TreeName,
    /// New release of the tree.
    pub serial: Serial,
    /// Previous release, if any.
    pub previous: Option<Serial>,
    /// Identity of the release.
    pub release: ReleaseId,
    /// Root directory of the tree.
    pub path: PathBuf,
    /// This host.
    pub host: HostName,
    /// Sender of the release, if known.
    pub sender: Option<HostName>,
    /// Reason for the change of the tree.
    pub cause: Cause,
}

impl HookContext {
    /// Environment variables. Unknown values are empty instead of missing, so that `set -u` does
    /// not fail.
    fn variables(&self, phase: Phase) -> [(&'static str, OsString); 9] {
        let text = |text: String| OsString::from(text);
        let previous = self.previous.map(|s| s.to_string()).unwrap_or_default();
        let sender = self.sender.as_ref().map(|s| s.to_string());

        [
            ("MAKUO_TREE", text(self.tree.to_string())),
            ("MAKUO_SERIAL", text(self.serial.to_string())),
            ("MAKUO_PREVIOUS", text(previous)),
            ("MAKUO_RELEASE", text(self.release.to_string())),
            ("MAKUO_PATH", self.path.clone().into_os_string()),
            ("MAKUO_HOST", text(self.host.to_string())),
            ("MAKUO_SENDER", text(sender.unwrap_or_default())),
            ("MAKUO_PHASE", text(phase.key().to_string())),
            ("MAKUO_CAUSE", text(self.cause.word().to_string())),
        ]
    }
}

/// Formats a duration: `30 s`, `0.5 s`.
pub fn seconds(time: Duration) -> String {
    if time < Duration::from_secs(1) && !time.subsec_millis().is_multiple_of(100) {
        return format!("{} ms", time.as_millis());
    }
    format!("{} s", (time.as_secs_f64() * 10.0).round() / 10.0)
}
