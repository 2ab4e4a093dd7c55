//! Meeting point of a watch's threads: collected changes, requests from signals, and the loop that
//! waits for both.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::OwnedFd;

use super::batch::{Batcher, ChangeBatch, Pace, RescanCause};
use super::check::Checks;
use super::exclusion::WatchTarget;
use crate::drive::clock::Clock;
use crate::drive::deploy::Interrupt;
use crate::error::IoResultExt;
use crate::manifest::TreePath;
use crate::sync::locked;
use crate::tree::FileId;
use crate::tree::scan::Exposed;
use crate::units::Moment;
use crate::{Error, Result};

/// Interval between checks whether the pause file is gone.
const PAUSE_POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Command for the listener thread.
#[derive(Debug)]
pub enum ListenerCommand {
    /// Watch this target instead.
    Watch(WatchTarget),
    /// End the thread.
    Stop,
}

/// Reason for the end of [`Coordinator::wait`].
#[derive(Debug)]
pub enum Wake {
    /// A batch is complete.
    Batch(ChangeBatch),
    /// A full check is due. The listed files are still being written and left out.
    Check(BTreeSet<TreePath>),
    /// The next attempt is due.
    Attempt,
    /// SIGHUP requested a reload of the spec.
    Reload,
    /// Nothing is left to wait for.
    Quiet,
    /// A batch or an attempt is due, and the pause file holds it.
    Held,
    /// A signal requested the end.
    Stop,
    /// The watch cannot continue.
    Ended(Error),
}

/// Events besides a batch that end a wait.
#[derive(Debug, Default)]
pub struct Until {
    /// Time of the next attempt.
    pub attempt: Option<Moment>,
    /// Whether full checks are due from time to time.
    pub checks: bool,
    /// Time from which a quiet source ends the wait.
    pub quiet: Option<Moment>,
    /// While this file exists, collected changes stay queued.
    pub pause: Option<PathBuf>,
    /// Whether the loop knows that the pause file holds it.
    pub is_held: bool,
}

/// State shared by the threads of a watch.
pub struct Coordinator {
    state: Mutex<CoordinatorState>,
    changed: Condvar,
    clock: Clock,
    /// Wakes the listener thread.
    pub(super) wake: OwnedFd,
}

/// Shared state behind the lock.
pub(super) struct CoordinatorState {
    pub(super) batcher: Batcher,
    /// The source is being watched afresh: the collected changes are incomplete.
    pub(super) busy: bool,
    /// Identity of the watched directory.
    pub(super) id: Option<FileId>,
    checks: Checks,
    /// Files that can change without an event, for the listener thread.
    exposed: Vec<Exposed>,
    command: Option<ListenerCommand>,
    ended: Option<Error>,
    reload: bool,
    stop: bool,
    running: Option<Interrupt>,
}

impl Coordinator {
    /// Creates the coordinator, with nothing collected.
    pub fn new(pace: Pace) -> Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .io_context("cannot make an event descriptor")?;
        let clock = Clock::start();
        let state = CoordinatorState {
            batcher: Batcher::new(pace),
            busy: false,
            id: None,
            checks: Checks::new(clock.now()),
            exposed: Vec::new(),
            command: None,
            ended: None,
            reload: false,
            stop: false,
            running: None,
        };

        Ok(Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            clock,
            wake,
        })
    }

    /// Current time.
    pub fn now(&self) -> Moment {
        self.clock.now()
    }

    pub(super) fn state(&self) -> MutexGuard<'_, CoordinatorState> {
        locked(&self.state)
    }

    /// Changes the shared state and wakes the waiting loop.
    pub(super) fn change(&self, change: impl FnOnce(&mut CoordinatorState)) {
        change(&mut self.state());
        self.changed.notify_all();
    }

    /// Requests a reload of the spec.
    pub fn reload(&self) {
        self.change(|state| state.reload = true);
    }

    /// Requests a full rescan.
    pub fn rescan(&self) {
        let now = self.now();
        self.change(|state| state.batcher.everything(now, RescanCause::Asked));
    }

    /// Requests the end after the current deploy; a second request interrupts the deploy.
    pub fn stop(&self) {
        self.change(|state| {
            if let Some(running) = state.running.as_ref().filter(|_| state.stop) {
                running.interrupt();
            }
            state.stop = true;
        });
    }

    /// Ends the watch with an error.
    pub(super) fn end(&self, error: Error) {
        self.change(|state| state.ended = Some(error));
    }

    /// Sets the interrupt of the running deploy; `None` when the deploy has ended.
    pub fn set_running(&self, running: Option<Interrupt>) {
        self.state().running = running;
    }

    /// Identity of the watched directory.
    pub fn id(&self) -> Option<FileId> {
        self.state().id
    }

    /// Returns whether collected changes wait to be taken.
    pub fn is_dirty(&self) -> bool {
        !self.state().batcher.is_empty()
    }

    /// Sends a command to the listener thread.
    pub fn send(&self, command: ListenerCommand) {
        let mut state = self.state();
        state.busy |= matches!(command, ListenerCommand::Watch(_));
        state.command = Some(command);
        drop(state);
        self.wake();
    }

    /// Passes files that can change without an event to the listener thread, which polls them.
    pub fn expose(&self, exposed: Vec<Exposed>) {
        if !exposed.is_empty() {
            self.state().exposed.extend(exposed);
            self.wake();
        }
    }

    /// Wakes the listener thread.
    fn wake(&self) {
        // A full counter wakes the thread as well.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    pub(super) fn take_command(&self) -> (Option<ListenerCommand>, Vec<Exposed>) {
        let _ = rustix::io::read(&self.wake, &mut [0u8; 8]);
        let mut state = self.state();
        (state.command.take(), std::mem::take(&mut state.exposed))
    }

    /// Records the duration of a full scan, whatever the outcome.
    pub fn set_check_duration(&self, took: Duration) {
        self.state().checks.set_duration(took);
    }

    /// Records a full check; `took` is the duration if the check did nothing else.
    pub fn note_check(&self, took: Option<Duration>) {
        let now = self.now();
        self.state().checks.note_full(now, took);
    }

    /// Waits, without a ticking clock, for the next reason to act.
    pub fn wait(&self, until: &Until) -> Wake {
        let mut state = self.state();
        loop {
            let now = self.clock.now();
            let wake_at = match state.next(until, now) {
                WaitStep::Act(wake) => return wake,
                WaitStep::Retry => continue,
                WaitStep::Sleep(wake_at) => wake_at,
            };

            state = match wake_at {
                None => self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(at) => {
                    let waited = self.changed.wait_timeout(state, at.since(now));
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

/// Step of [`Coordinator::wait`].
enum WaitStep {
    /// Return this reason.
    Act(Wake),
    /// Look again at once.
    Retry,
    /// Sleep until this time, or until a change.
    Sleep(Option<Moment>),
}

impl CoordinatorState {
    /// Returns the step at `now`: a reason to act, or the time to sleep until.
    fn next(&mut self, until: &Until, now: Moment) -> WaitStep {
        if let Some(wake) = self.requested() {
            return WaitStep::Act(wake);
        }

        let attempt = until.attempt.filter(|_| !self.busy);
        let batch = self.batcher.due().filter(|_| !self.busy);
        let due = attempt.into_iter().chain(batch).min();
        let check = self.check_at().filter(|_| until.checks);
        let mut wake_at = due.into_iter().chain(check).min();

        if wake_at.is_some_and(|at| at <= now) {
            if until.pause.as_deref().is_some_and(Path::exists) {
                if !until.is_held && due.is_some_and(|at| at <= now) {
                    return WaitStep::Act(Wake::Held);
                }
                wake_at = Some(now + PAUSE_POLL_INTERVAL);
            } else if attempt.is_some_and(|at| at <= now) {
                return WaitStep::Act(Wake::Attempt);
            } else if check.is_some_and(|at| at <= now) {
                return WaitStep::Act(Wake::Check(self.held()));
            } else {
                return self.take_batch(now).map_or(WaitStep::Retry, WaitStep::Act);
            }
        }

        if let Some(quiet) = until.quiet.filter(|_| !self.busy && due.is_none()) {
            if quiet <= now && self.batcher.is_empty() {
                let check = until.checks && self.checks.is_pending();
                return WaitStep::Act(if check {
                    Wake::Check(self.held())
                } else {
                    Wake::Quiet
                });
            }

            let quiet = Some(quiet).filter(|quiet| *quiet > now);
            wake_at = wake_at.into_iter().chain(quiet).min();
        }

        WaitStep::Sleep(wake_at)
    }

    fn take_batch(&mut self, now: Moment) -> Option<Wake> {
        let batch = self.batcher.take(now)?;
        match batch {
            ChangeBatch::Paths(_) => self.checks.note_partial(now),
            ChangeBatch::Everything(_) => self.checks.note_full(now, None),
        }

        Some(Wake::Batch(batch))
    }

    /// Time of the next full check. Postponed while changes are pending, unless they keep coming.
    fn check_at(&self) -> Option<Moment> {
        let at = if self.batcher.is_ready() {
            self.checks.latest()
        } else {
            self.checks.due()
        };
        Some(at).filter(|_| !self.busy)
    }

    fn held(&self) -> BTreeSet<TreePath> {
        self.batcher.held().cloned().collect()
    }

    fn requested(&mut self) -> Option<Wake> {
        if let Some(error) = self.ended.take() {
            return Some(Wake::Ended(error));
        }
        if self.stop {
            return Some(Wake::Stop);
        }
        std::mem::take(&mut self.reload).then_some(Wake::Reload)
    }
}

#[cfg(test)]
mod tests;
