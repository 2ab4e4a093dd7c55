//! Attempts of a command, once or until success, with the result for the log.
#![expect(
    clippy::disallowed_methods,
    reason = "a time limit of a process is the clock's; nothing else is decided by it"
)]

use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::child::{ChildProcess, LONGEST_POLL_PAUSE};
use super::{Command, Failure, FailureCause, Health, HookContext, Phase, RunRecord, seconds};

/// Runs a command once; the cause is `None` if it passed.
pub(super) fn run_once(
    command: &Command,
    phase: Phase,
    context: &HookContext,
    stop: &AtomicBool,
) -> (Option<FailureCause>, RunRecord) {
    let start = || ChildProcess::start(command, phase, context);
    attempt(start, command.timeout(), stop)
}

/// Runs a command once with `input` on its standard input.
pub(super) fn run_with(command: &Command, input: &[u8]) -> (Option<FailureCause>, RunRecord) {
    let start = || ChildProcess::start_with(command, input);
    attempt(start, command.timeout(), &AtomicBool::new(false))
}

/// Runs a command until it passes. If the deadline cuts an attempt short, the result of the attempt
/// before is more informative and returned instead.
pub(super) fn until_healthy(
    health: &Health,
    context: &HookContext,
    stop: &AtomicBool,
) -> (Option<FailureCause>, RunRecord) {
    let command = &health.command;
    let began = Instant::now();
    let end = began + health.deadline;
    let mut tries = 0;
    let mut before = None;
    loop {
        let limit = command
            .timeout()
            .min(end.saturating_duration_since(Instant::now()));
        let start = || ChildProcess::start(command, Phase::Health, context);
        let found = attempt(start, limit, stop);
        tries += 1;
        let is_cut =
            limit < command.timeout() && matches!(found.0, Some(FailureCause::TimedOut(_)));
        let (what, one) = before.take_if(|_| is_cut).unwrap_or(found);
        let ran = RunRecord {
            took: began.elapsed(),
            tries,
            ..one
        };

        let last = match &what {
            None | Some(FailureCause::NotStarted(_) | FailureCause::Stopped) => true,
            Some(_) => Instant::now() + health.interval >= end,
        };

        if last {
            return (what, ran);
        }

        tracing::debug!(
            "{}@{}: try {tries} of {command}: not healthy yet",
            context.tree,
            context.serial
        );
        if !sleep_unless_stopped(health.interval, stop) {
            return (Some(FailureCause::Stopped), ran);
        }

        before = Some((what, ran));
    }
}

/// Logs the result.
pub(super) fn log_result(
    command: &Command,
    phase: Phase,
    context: &HookContext,
    what: Option<FailureCause>,
    ran: RunRecord,
) -> Result<RunRecord, Failure> {
    let tree = &context.tree;
    let serial = context.serial;
    let Some(what) = what else {
        tracing::info!(
            "{tree}@{serial}: {phase} {command}: ok after {}",
            seconds(ran.took)
        );
        return Ok(ran);
    };

    let failure = Failure::new(phase, command, what, &ran);
    tracing::warn!("{tree}@{serial}: {}", failure.headline());
    failure
        .output
        .lines()
        .for_each(|line| tracing::warn!("{tree}@{serial}: {phase}: {line}"));

    Err(failure)
}

/// Sleeps between two attempts; returns false if the daemon ends.
fn sleep_unless_stopped(time: Duration, stop: &AtomicBool) -> bool {
    let end = Instant::now() + time;
    loop {
        if stop.load(Ordering::Acquire) {
            return false;
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        std::thread::sleep(left.min(LONGEST_POLL_PAUSE));
    }
}

/// Runs one attempt; the cause is `None` if it passed.
fn attempt(
    start: impl FnOnce() -> std::io::Result<ChildProcess>,
    limit: Duration,
    stop: &AtomicBool,
) -> (Option<FailureCause>, RunRecord) {
    let began = Instant::now();
    let (what, output) = match start() {
        Ok(mut running) => (running.finish(began, limit, stop), running.into_output()),
        Err(e) => (
            Some(FailureCause::NotStarted(start_error(&e))),
            String::new(),
        ),
    };

    (
        what,
        RunRecord {
            output,
            took: began.elapsed(),
            tries: 1,
        },
    )
}

fn start_error(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => {
            "no such program, or the interpreter in its first line is missing".into()
        }
        ErrorKind::PermissionDenied => "not executable for this user".into(),
        _ => error.to_string(),
    }
}
