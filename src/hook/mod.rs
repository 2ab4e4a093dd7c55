//! Commands of a host around a commit: before it, after it, and a health check of the result.
//!
//! A command is an argument list; no shell reads it. It runs in its own process group with a clean
//! environment that describes the commit (`MAKUO_TREE`, `MAKUO_SERIAL`, ...), within a time limit,
//! and the end of its output is kept. Does not know the consequences of a success or failure: the
//! caller knows the release.
//!
//! - [`Command::run`] runs once, for [`Phase::Before`] and [`Phase::After`].
//! - [`Health::check`] retries until the command passes or the deadline is over.
//! - [`Command::run_with`] runs a sender's command, with something to read.
//! - [`Hooks::run`] runs the command of a phase, here or in a [`helper_process`].
//! - All stop at once when `stop` is set, which happens at the end of the daemon.

mod child;
mod command;
mod context;
mod failure;
pub mod helper_process;
mod output;
mod run;
#[cfg(test)]
mod tests;

use std::sync::atomic::AtomicBool;
use std::time::Duration;

pub use command::{Command, CommandError, MAX_WORD_BYTES, MAX_WORDS};
pub use context::{Cause, HookContext, Phase};
pub use failure::{Failure, FailureCause, RunRecord};

/// Default time limit of a hook.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
/// Default time limit of one health check attempt.
pub const DEFAULT_TRY: Duration = Duration::from_secs(10);
/// Default interval between two attempts.
pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(1);
/// Default time for a host to become healthy.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(30);

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

/// Formats a duration: `30 s`, `0.5 s`.
pub fn seconds(time: Duration) -> String {
    if time < Duration::from_secs(1) && !time.subsec_millis().is_multiple_of(100) {
        return format!("{} ms", time.as_millis());
    }
    format!("{} s", (time.as_secs_f64() * 10.0).round() / 10.0)
}
