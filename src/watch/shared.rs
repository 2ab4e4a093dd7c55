//! Where the threads of a watch meet: what was gathered, what was asked for by signals, and who waits for it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::OwnedFd;

use super::batch::{Batch, Batcher, Pace, Why};
use super::check::Checks;
use super::inotify::Target;
use crate::drive::clock::Clock;
use crate::drive::deploy::Interrupt;
use crate::manifest::TreePath;
use crate::tree::FileId;
use crate::tree::scan::Exposed;
use crate::units::Moment;
use crate::{Error, Kind, Result};

/// How often it is looked whether the pause is over.
const PAUSED: Duration = Duration::from_secs(1);

/// What is asked of the thread that listens to the kernel.
#[derive(Debug)]
pub enum Order {
    /// Watch this instead.
    Watch(Target),
    /// End.
    Stop,
}

/// Whose turn it is.
#[derive(Debug)]
pub enum Turn {
    /// A batch is over.
    Batch(Batch),
    /// Everything is to be looked at, but for these files, which are still being written.
    Check(BTreeSet<TreePath>),
    /// The time that was given for another attempt has come.
    Attempt,
    /// The spec is to be read again.
    Reload,
    /// There is nothing more to wait for.
    Quiet,
    /// Somebody asked for the end.
    Stop,
    /// It cannot go on.
    Ended(Error),
}

/// What ends a wait besides a batch.
#[derive(Debug, Default)]
pub struct Until {
    /// When another attempt is due.
    pub attempt: Option<Moment>,
    /// Whether it is looked at everything now and then.
    pub checks: bool,
    /// From when on it ends when nothing has changed.
    pub quiet: Option<Moment>,
    /// While this file exists nothing is done with what was gathered.
    pub pause: Option<PathBuf>,
}

/// What the threads share.
pub struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    clock: Clock,
    /// Wakes the thread that listens to the kernel.
    pub(super) wake: OwnedFd,
}

/// What they share under the lock.
pub(super) struct State {
    pub(super) batcher: Batcher,
    /// Everything is being watched anew: what was gathered is not all.
    pub(super) busy: bool,
    /// The directory that is watched.
    pub(super) id: Option<FileId>,
    checks: Checks,
    /// Files that can change unheard, for the thread that listens.
    exposed: Vec<Exposed>,
    order: Option<Order>,
    ended: Option<Error>,
    reload: bool,
    stop: bool,
    running: Option<Interrupt>,
}

impl Shared {
    /// Nothing has happened.
    pub fn new(pace: Pace) -> Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|e| {
            Error::new(Kind::Io, "cannot make an event descriptor").because(std::io::Error::from(e))
        })?;
        let clock = Clock::start();
        let state = State {
            batcher: Batcher::new(pace),
            busy: false,
            id: None,
            checks: Checks::new(clock.now()),
            exposed: Vec::new(),
            order: None,
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

    /// The time.
    pub fn now(&self) -> Moment {
        self.clock.now()
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is shared, and wakes who waits for it.
    pub(super) fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_all();
    }

    /// The spec is to be read again.
    pub fn reload(&self) {
        self.change(|state| state.reload = true);
    }

    /// Everything is to be looked at.
    pub fn rescan(&self) {
        let now = self.now();
        self.change(|state| state.batcher.everything(now, Why::Asked));
    }

    /// It is to end: after the deploy that is under way, or, asked for again, without it.
    pub fn stop(&self) {
        self.change(|state| {
            if let Some(running) = state.running.as_ref().filter(|_| state.stop) {
                running.interrupt();
            }
            state.stop = true;
        });
    }

    /// It cannot go on.
    pub(super) fn end(&self, error: Error) {
        self.change(|state| state.ended = Some(error));
    }

    /// A deploy is under way, or none is any more.
    pub fn running(&self, running: Option<Interrupt>) {
        self.state().running = running;
    }

    /// The directory that is watched.
    pub fn id(&self) -> Option<FileId> {
        self.state().id
    }

    /// Whether something was gathered that was not taken.
    pub fn is_dirty(&self) -> bool {
        !self.state().batcher.is_empty()
    }

    /// Asks something of the thread that listens to the kernel.
    pub fn order(&self, order: Order) {
        let mut state = self.state();
        state.busy |= matches!(order, Order::Watch(_));
        state.order = Some(order);
        drop(state);
        self.wake();
    }

    /// Files that can change unheard: the thread that listens looks at them from time to time.
    pub fn expose(&self, exposed: Vec<Exposed>) {
        if !exposed.is_empty() {
            self.state().exposed.extend(exposed);
            self.wake();
        }
    }

    /// Wakes the thread that listens.
    fn wake(&self) {
        // A counter that is full wakes as well.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    pub(super) fn take_order(&self) -> (Option<Order>, Vec<Exposed>) {
        let _ = rustix::io::read(&self.wake, &mut [0u8; 8]);
        let mut state = self.state();
        (state.order.take(), std::mem::take(&mut state.exposed))
    }

    /// A look at everything took so long, whatever became of it.
    pub fn timed(&self, took: Duration) {
        self.state().checks.timed(took);
    }

    /// Everything was looked at; how long that took, when nothing else was done.
    pub fn checked(&self, took: Option<Duration>) {
        let now = self.now();
        self.state().checks.checked(now, took);
    }

    /// Waits, without a clock that ticks, until something is to be done.
    pub fn wait(&self, until: &Until) -> Turn {
        let mut state = self.state();
        loop {
            if let Some(turn) = state.asked() {
                return turn;
            }
            let now = self.clock.now();
            let attempt = until.attempt.filter(|_| !state.busy);
            let due = attempt
                .into_iter()
                .chain(state.batcher.due().filter(|_| !state.busy))
                .min();
            let check = state.check_at().filter(|_| until.checks);
            let mut wake = due.into_iter().chain(check).min();
            if wake.is_some_and(|at| at <= now) {
                if until.pause.as_deref().is_some_and(Path::exists) {
                    wake = Some(now + PAUSED);
                } else if attempt.is_some_and(|at| at <= now) {
                    return Turn::Attempt;
                } else if check.is_some_and(|at| at <= now) {
                    return Turn::Check(state.held());
                } else if let Some(batch) = state.batcher.take(now) {
                    match batch {
                        Batch::Paths(_) => state.checks.looked(now),
                        Batch::Everything(_) => state.checks.checked(now, None),
                    }
                    return Turn::Batch(batch);
                } else {
                    continue;
                }
            }
            if let Some(quiet) = until.quiet.filter(|_| !state.busy && due.is_none()) {
                if quiet <= now && state.batcher.is_empty() {
                    let check = until.checks && state.checks.is_pending();
                    return if check {
                        Turn::Check(state.held())
                    } else {
                        Turn::Quiet
                    };
                }
                wake = wake
                    .into_iter()
                    .chain(Some(quiet).filter(|quiet| *quiet > now))
                    .min();
            }
            state = match wake {
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

impl State {
    /// When it is time to look at everything: not while something waits to be looked at anyway, unless that goes on.
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

    fn asked(&mut self) -> Option<Turn> {
        if let Some(error) = self.ended.take() {
            return Some(Turn::Ended(error));
        }
        if self.stop {
            return Some(Turn::Stop);
        }
        std::mem::take(&mut self.reload).then_some(Turn::Reload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace {
        settle: Duration::ZERO,
        max_delay: Duration::from_secs(5),
    };

    fn shared() -> Shared {
        Shared::new(PACE).expect("an event descriptor")
    }

    fn dirty(shared: &Shared) {
        let (now, path) = (shared.now(), TreePath::new(b"a".as_slice()).expect("legal"));
        shared.change(|state| state.batcher.touched(now, &path));
    }

    #[test]
    fn what_is_asked_comes_before_what_was_gathered() {
        let shared = shared();
        dirty(&shared);
        shared.reload();
        assert!(matches!(shared.wait(&Until::default()), Turn::Reload));
        assert!(matches!(
            shared.wait(&Until::default()),
            Turn::Batch(Batch::Paths(_))
        ));
        dirty(&shared);
        shared.stop();
        assert!(matches!(shared.wait(&Until::default()), Turn::Stop));
        shared.end(Error::refused("gone"));

        assert!(matches!(shared.wait(&Until::default()), Turn::Ended(_)));
    }

    #[test]
    fn an_attempt_is_due_before_a_batch_and_quiet_comes_last() {
        let shared = shared();
        dirty(&shared);
        let now = Some(shared.now());
        let until = Until {
            attempt: now,
            quiet: now,
            ..Until::default()
        };

        assert!(matches!(shared.wait(&until), Turn::Attempt));
        let until = Until {
            attempt: None,
            ..until
        };

        assert!(matches!(shared.wait(&until), Turn::Batch(_)));
        assert!(matches!(shared.wait(&until), Turn::Quiet));
    }

    #[test]
    fn a_pause_holds_what_was_gathered() {
        let shared = shared();
        dirty(&shared);
        let file = tempfile::NamedTempFile::new().expect("a file");
        let until = Until {
            pause: Some(file.path().into()),
            ..Until::default()
        };

        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| shared.wait(&until));
            shared.reload();
            assert!(matches!(waiting.join().expect("ends"), Turn::Reload));
        });
        drop(file);

        assert!(matches!(shared.wait(&until), Turn::Batch(_)));
    }

    #[test]
    fn the_second_word_to_stop_ends_what_is_under_way() {
        let (shared, running) = (shared(), Interrupt::default());
        shared.running(Some(running.clone()));
        shared.stop();
        assert!(!running.is_asked());
        shared.stop();
        assert!(running.is_asked());
    }
}
