//! The argument list of a command: checks and display. No shell reads the list.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::{Failure, HookContext, Phase, RunRecord, run};
use crate::units::printable;

/// Largest number of words in a command.
pub const MAX_WORDS: usize = 256;
/// Largest word of a command in bytes.
pub const MAX_WORD_BYTES: usize = 16 << 10;
/// Largest number of characters shown of a command.
pub(super) const MAX_COMMAND_CHARS: usize = 200;

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

    /// Runs the command once with `input` on its standard input, as this user and where this
    /// process is. Returns the reason of a failure, on one line.
    pub fn run_with(&self, input: &[u8]) -> Result<(), String> {
        let (cause, ran) = run::run_with(self, input);
        let Some(cause) = cause else { return Ok(()) };
        Err(match ran.output.lines().last() {
            Some(last) => format!("{self} failed: {cause}: {last}"),
            None => format!("{self} failed: {cause}"),
        })
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
