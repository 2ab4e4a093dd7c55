//! Thread that reads inotify events, even during a deploy, so that the kernel's queue stays short.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::batch::{Batcher, RescanCause};
use super::coordinator::{Coordinator, ListenerCommand};
use super::exclusion::WatchTarget;
use super::inotify::{Events, Watcher};
use super::polled_files;
use super::source::source_gone;
use crate::error::IoResultExt;
use crate::units::Moment;
use crate::{Error, Kind, Result};

/// Delay that groups events close together: a storm costs one pass per delay instead of one per
/// event.
const EVENT_COALESCING: Duration = Duration::from_millis(10);
/// Interval between checks for directories moved away.
const FORGET_INTERVAL: Duration = Duration::from_secs(1);

/// Handle of the thread, which ends on drop.
pub struct Listener {
    coordinator: Arc<Coordinator>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// Watches `target`; no change after the return is missed.
    pub fn start(coordinator: &Arc<Coordinator>, target: WatchTarget) -> Result<Self> {
        let watcher = Watcher::establish(target)?;
        log_watches(&watcher);
        coordinator.state().id = Some(watcher.id());
        let own = Arc::clone(coordinator);
        let thread = std::thread::Builder::new()
            .name("watch".into())
            .spawn(move || {
                let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    listen(&own, watcher)
                }));
                match ended {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => own.end(error),
                    Err(_) => own.end(Error::new(
                        Kind::Io,
                        "a defect in makuo: the thread that watches the source failed",
                    )),
                }
            });

        Ok(Self {
            coordinator: Arc::clone(coordinator),
            thread: Some(thread.io_context("cannot start a thread")?),
        })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.coordinator.send(ListenerCommand::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn log_watches(watcher: &Watcher) {
    tracing::info!("{} directories are watched", watcher.directories());
    if let Some((count, first)) = watcher.polled().unwatched() {
        tracing::info!(
            "{count} files, such as {first}, have further names that are not watched: \
             writes through those are polled for every {} s",
            polled_files::FILE_POLL_INTERVAL.as_secs()
        );
    }

    if watcher.polled().is_full() {
        tracing::warn!(
            "more than {} files have several names: writes to the others through an unwatched name \
             are sent with the next change of the file, or after SIGUSR1",
            polled_files::MAX_FILES
        );
    }
}

fn listen(coordinator: &Coordinator, mut watcher: Watcher) -> Result<()> {
    let mut poll_at = coordinator.now() + polled_files::FILE_POLL_INTERVAL;
    loop {
        let woken = wait(coordinator, &watcher, poll_at)?;
        if woken.commanded {
            let (command, exposed) = coordinator.take_command();
            watcher.expose(coordinator.now(), &exposed);
            match command {
                Some(ListenerCommand::Stop) => return Ok(()),
                Some(ListenerCommand::Watch(target)) => {
                    watcher = rewatch(coordinator, watcher, target, RescanCause::Asked)?;
                    continue;
                }
                None => {}
            }
        }

        let mut events = if woken.mounted {
            watcher.mounted()?
        } else {
            Events::Drained
        };

        if woken.changed && events == Events::Drained {
            events = read_events(coordinator, &mut watcher)?;
        }

        if let Events::Lost(why) = &events {
            tracing::warn!("{why}");
            let target = watcher.target().clone();
            watcher = rewatch(coordinator, watcher, target, RescanCause::Missed)?;
        }

        if events == Events::Drained {
            watcher.forget(coordinator.now());
            std::thread::sleep(EVENT_COALESCING);
            let is_due = |at: Moment| at <= coordinator.now();
            if coordinator
                .state()
                .batcher
                .open_check_at()
                .is_some_and(is_due)
            {
                update_batcher(coordinator, |now, batcher| {
                    watcher.check_open_files(now, batcher)
                });
            }
        }

        if poll_at <= coordinator.now() {
            update_batcher(coordinator, |now, batcher| watcher.poll_files(now, batcher));
            poll_at = coordinator.now() + polled_files::FILE_POLL_INTERVAL;
        }
    }
}

/// Reads the queued events.
fn read_events(coordinator: &Coordinator, watcher: &mut Watcher) -> Result<Events> {
    update_batcher(coordinator, |now, batcher| {
        watcher.read_events(now, batcher)
    })
}

/// Updates the batcher through `update`, and wakes the waiting loop if a batch is now due earlier.
fn update_batcher<T>(
    coordinator: &Coordinator,
    update: impl FnOnce(Moment, &mut Batcher) -> T,
) -> T {
    let mut state = coordinator.state();
    let before = state.batcher.due();
    let result = update(coordinator.now(), &mut state.batcher);
    let after = state.batcher.due();
    drop(state);
    if after.is_some_and(|after| before.is_none_or(|before| after < before)) {
        coordinator.change(|_| {});
    }

    result
}

/// Watches the source afresh and requests a full rescan, since changes in the meantime are unknown.
fn rewatch(
    coordinator: &Coordinator,
    old: Watcher,
    target: WatchTarget,
    why: RescanCause,
) -> Result<Watcher> {
    coordinator.state().busy = true;
    let id = Some(old.id()).filter(|_| why == RescanCause::Missed);

    // The old watches go first, so that the limit admits the new ones.
    let polled = old.into_polled();
    let mut watcher = Watcher::establish(target)?;
    watcher.keep_open_files(polled);
    log_watches(&watcher);
    if id.is_some_and(|id| id != watcher.id()) {
        return Err(source_gone(
            &watcher.target().source,
            "is another directory now",
        ));
    }

    let now = coordinator.now();
    coordinator.change(|state| {
        state.id = Some(watcher.id());
        state.batcher.everything(now, why);
        state.busy = false;
    });

    Ok(watcher)
}

/// Reasons for which the thread woke.
struct Woken {
    changed: bool,
    mounted: bool,
    commanded: bool,
}

fn wait(coordinator: &Coordinator, watcher: &Watcher, poll_at: Moment) -> Result<Woken> {
    let mut fds = vec![
        PollFd::new(watcher, PollFlags::IN),
        PollFd::new(&coordinator.wake, PollFlags::IN),
    ];
    let mounts = watcher.mounts();
    fds.extend(mounts.iter().map(|list| PollFd::new(list, PollFlags::PRI)));
    let now = coordinator.now();

    let forget = watcher.is_waiting().then(|| now + FORGET_INTERVAL);
    let poll_at = Some(poll_at).filter(|_| !watcher.polled().is_empty());
    let ask = coordinator.state().batcher.open_check_at();
    let until = [forget, poll_at, ask].into_iter().flatten().min();

    // A timeout too long for a timespec is as good as none.
    let timeout = until.and_then(|until| Timespec::try_from(until.since(now)).ok());
    match poll(&mut fds, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => {}
        failed => drop(failed.io_context("cannot wait for changes")?),
    }

    let is = |at: usize| fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
    Ok(Woken {
        changed: is(0),
        commanded: is(1),
        mounted: is(2),
    })
}
