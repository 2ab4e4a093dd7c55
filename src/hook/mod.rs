//! A host's own commands around a commit: before it, after it, and whether the host is healthy with what it has.
//!
//! A command is an argument list: no shell reads it. It runs in a process group of its own with a clean environment
//! that says what happens (`MAKUO_TREE`, `MAKUO_SERIAL`, ...), within a time limit, and what it printed last is kept.
//! The room must not know what a success or a failure decides: who calls knows the release.
//!
//! - [`Command::run`] runs once, for [`Phase::Before`] and [`Phase::After`].
//! - [`Health::check`] tries until the command passes or the deadline is over.
//! - [`Hooks::run`] does what a phase asks for, here or in a process [`outside`].
//! - All end at once when `stop` is set: the daemon is ending.

mod failure;
mod output;
pub mod outside;
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

pub use failure::{Failure, Ran, What};

use crate::id::{HostName, Serial, TreeName};
use crate::manifest::ReleaseId;
use crate::units::printable;

/// The most words of a command.
pub const MAX_WORDS: usize = 256;
/// The most bytes of one of them.
pub const MAX_WORD: usize = 16 << 10;
/// The time limit of a hook when nothing else is said.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
/// The time limit of one try of a health check when nothing else is said.
pub const DEFAULT_TRY: Duration = Duration::from_secs(10);
/// The wait between two tries when nothing else is said.
pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(1);
/// How long a host may take to become healthy when nothing else is said.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(30);
/// The most characters that a command is shown with.
const MAX_SHOWN: usize = 200;

/// A program with its arguments and its time limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    argv: Vec<OsString>,
    timeout: Duration,
}

/// Why words are no command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// No word at all, or an empty one where the program is.
    #[error("name a program and its arguments, as in [\"systemctl\", \"reload\", \"nginx\"]")]
    Empty,
    /// Neither a name nor a place.
    #[error("{0} is neither an absolute path nor the bare name of a program in the PATH")]
    Relative(String),
    /// A NUL, or beyond a cap.
    #[error(
        "an argument with a NUL byte, one beyond {MAX_WORD} bytes, or more than {MAX_WORDS} of them"
    )]
    Illegal,
}

impl Command {
    /// The command that `argv` is, the program first. It has `timeout` to end.
    pub fn new(argv: Vec<OsString>, timeout: Duration) -> Result<Self, CommandError> {
        let program = argv
            .first()
            .filter(|p| !p.is_empty())
            .ok_or(CommandError::Empty)?;

        // It runs in /, so another path would not mean what it seems to.
        if program.as_bytes().contains(&b'/') && !Path::new(program).is_absolute() {
            return Err(CommandError::Relative(printable(program.as_bytes())));
        }

        let legal = |word: &OsString| word.len() <= MAX_WORD && !word.as_bytes().contains(&0);
        if argv.len() > MAX_WORDS || !argv.iter().all(legal) {
            return Err(CommandError::Illegal);
        }

        Ok(Self { argv, timeout })
    }

    /// The program: an absolute path, or a name that is looked up in the PATH.
    pub fn program(&self) -> &OsStr {
        self.argv
            .first()
            .map_or(OsStr::new(""), OsString::as_os_str)
    }

    /// The program and its arguments.
    pub fn argv(&self) -> &[OsString] {
        &self.argv
    }

    /// How long it may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Runs it once. What it did is in the log as well.
    pub fn run(
        &self,
        phase: Phase,
        occasion: &Occasion,
        stop: &AtomicBool,
    ) -> Result<Ran, Failure> {
        let (what, ran) = run::once(self, phase, occasion, stop);
        run::ended(self, phase, occasion, what, ran)
    }
}

/// On one line, safe to show; a word that is not plain stands in quotes.
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

        match line.char_indices().nth(MAX_SHOWN) {
            Some((at, _)) => write!(f, "{}...", &line[..at]),
            None => f.write_str(&line),
        }
    }
}

/// How a host finds out whether it is well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Passes when it exits with 0; its time limit is that of one try.
    pub command: Command,
    /// The wait between two tries.
    pub interval: Duration,
    /// How long it is tried.
    pub deadline: Duration,
}

impl Health {
    /// Tries until the command passes; fails with its last failure. What it did is in the log as well.
    pub fn check(&self, occasion: &Occasion, stop: &AtomicBool) -> Result<Ran, Failure> {
        let (what, ran) = run::until_healthy(self, occasion, stop);
        run::ended(&self.command, Phase::Health, occasion, what, ran)
    }
}

/// What a host runs around the commits of one tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hooks {
    /// Before anything changes; its failure keeps the host as it is.
    pub before: Option<Command>,
    /// After the tree is the release.
    pub after: Option<Command>,
    /// After that.
    pub health: Option<Health>,
    /// Where they run, when that is not here.
    pub outside: Option<outside::Outside>,
}

impl Hooks {
    /// Runs what there is for `phase`; `None` when that is nothing. What it did is in the log as well.
    pub fn run(
        &self,
        phase: Phase,
        occasion: &Occasion,
        stop: &AtomicBool,
    ) -> Option<Result<Ran, Failure>> {
        let command = self.command(phase)?;
        Some(match &self.outside {
            Some(outside) => outside.run(command, phase, occasion, stop),
            None => {
                let (what, ran) = self.attempt(phase, occasion, stop);
                run::ended(command, phase, occasion, what, ran)
            }
        })
    }

    /// The command for `phase`.
    pub fn command(&self, phase: Phase) -> Option<&Command> {
        match phase {
            Phase::Before => self.before.as_ref(),
            Phase::After => self.after.as_ref(),
            Phase::Health => self.health.as_ref().map(|health| &health.command),
        }
    }

    /// What becomes of the command for `phase`; the first is `None` when it passed.
    fn attempt(&self, phase: Phase, occasion: &Occasion, stop: &AtomicBool) -> (Option<What>, Ran) {
        match (&self.health, self.command(phase)) {
            (Some(health), _) if phase == Phase::Health => {
                run::until_healthy(health, occasion, stop)
            }
            (_, Some(command)) => run::once(command, phase, occasion, stop),
            (_, None) => (
                None,
                Ran {
                    output: String::new(),
                    took: Duration::ZERO,
                    tries: 0,
                },
            ),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The commands with their phases.
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

/// Which of its commands a host runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Phase {
    /// Before anything changes.
    #[n(0)]
    Before,
    /// After the tree is the release.
    #[n(1)]
    After,
    /// After that: is the host well?
    #[n(2)]
    Health,
}

impl Phase {
    /// Its key in the configuration, and `MAKUO_PHASE`.
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

/// Why the tree changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Cause {
    /// To a release.
    #[n(0)]
    Commit,
    /// Back to the release before.
    #[n(1)]
    Revert,
    /// Not at all: what a hook before the commit prepared is to be undone.
    #[n(2)]
    Abort,
}

impl Cause {
    /// `MAKUO_CAUSE`.
    pub fn word(self) -> &'static str {
        match self {
            Cause::Commit => "commit",
            Cause::Revert => "revert",
            Cause::Abort => "abort",
        }
    }
}

/// What a command is told about why it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occasion {
    /// The tree.
    pub tree: TreeName,
    /// The release that it becomes, or became.
    pub serial: Serial,
    /// The release that it was before, when it was one.
    pub previous: Option<Serial>,
    /// The identity of the release.
    pub release: ReleaseId,
    /// The tree's directory.
    pub path: PathBuf,
    /// This host.
    pub host: HostName,
    /// Who sent the release, when that is known.
    pub sender: Option<HostName>,
    /// Why the tree changes.
    pub cause: Cause,
}

impl Occasion {
    /// The variables of the environment. What is not known is empty and not missing: `set -u` is no trap.
    fn variables(&self, phase: Phase) -> [(&'static str, OsString); 9] {
        let text = |text: String| OsString::from(text);
        [
            ("MAKUO_TREE", text(self.tree.to_string())),
            ("MAKUO_SERIAL", text(self.serial.to_string())),
            (
                "MAKUO_PREVIOUS",
                text(self.previous.map(|s| s.to_string()).unwrap_or_default()),
            ),
            ("MAKUO_RELEASE", text(self.release.to_string())),
            ("MAKUO_PATH", self.path.clone().into_os_string()),
            ("MAKUO_HOST", text(self.host.to_string())),
            (
                "MAKUO_SENDER",
                text(
                    self.sender
                        .as_ref()
                        .map(|s| s.to_string())
                        .unwrap_or_default(),
                ),
            ),
            ("MAKUO_PHASE", text(phase.key().to_string())),
            ("MAKUO_CAUSE", text(self.cause.word().to_string())),
        ]
    }
}

/// A time as it is told: `30 s`, `0.5 s`.
pub fn seconds(time: Duration) -> String {
    if time < Duration::from_secs(1) && !time.subsec_millis().is_multiple_of(100) {
        return format!("{} ms", time.as_millis());
    }
    format!("{} s", (time.as_secs_f64() * 10.0).round() / 10.0)
}
