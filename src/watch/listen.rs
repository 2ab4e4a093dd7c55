//! The thread that listens to the kernel, also while a deploy runs, so that the kernel's queue stays short.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::batch::{Batcher, Why};
use super::inotify::{Heard, Target, Watcher, gone};
use super::links;
use super::shared::{Order, Shared};
use crate::units::Moment;
use crate::{Error, Kind, Result};

/// What comes close together is taken together: a storm of events costs a turn every so often, and not one each.
const NAP: Duration = Duration::from_millis(10);
/// How soon it is looked again at what was moved away.
const FORGET: Duration = Duration::from_secs(1);

/// The thread. It ends when this is dropped.
pub struct Listener {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// Watches `target`: when this returns, nothing that changes there is missed.
    pub fn start(shared: &Arc<Shared>, target: Target) -> Result<Self> {
        let watcher = Watcher::establish(target)?;
        tell(&watcher);
        shared.state().id = Some(watcher.id());
        let own = Arc::clone(shared);
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

        let thread =
            thread.map_err(|e| Error::new(Kind::Io, "cannot start a thread").because(e))?;
        Ok(Self {
            shared: Arc::clone(shared),
            thread: Some(thread),
        })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.shared.order(Order::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn tell(watcher: &Watcher) {
    tracing::info!("{} directories are watched", watcher.directories());
    if let Some((count, first)) = watcher.links().unwatched() {
        tracing::info!(
            "{count} files, {first} for one, have further names that are not watched: what is written through those is \
             looked for every {} s",
            links::EVERY.as_secs()
        );
    }

    if watcher.links().is_full() {
        tracing::warn!(
            "more than {} files have several names: what is written to the others through a name that is not watched \
             is sent with their next change, or after SIGUSR1",
            links::MAX_FILES
        );
    }
}

fn listen(shared: &Shared, mut watcher: Watcher) -> Result<()> {
    let mut look = shared.now() + links::EVERY;
    loop {
        let woken = wait(shared, &watcher, look)?;
        if woken.ordered {
            let (order, exposed) = shared.take_order();
            watcher.expose(shared.now(), &exposed);
            match order {
                Some(Order::Stop) => return Ok(()),
                Some(Order::Watch(target)) => {
                    watcher = anew(shared, watcher, target, Why::Asked)?;
                    continue;
                }
                None => {}
            }
        }
        let mut heard = if woken.mounted {
            watcher.mounted()?
        } else {
            Heard::All
        };
        if woken.changed && heard == Heard::All {
            heard = hear(shared, &mut watcher)?;
        }
        if let Heard::Lost(why) = &heard {
            tracing::warn!("{why}");
            let target = watcher.target().clone();
            watcher = anew(shared, watcher, target, Why::Missed)?;
        }
        if heard == Heard::All {
            watcher.forget(shared.now());
            std::thread::sleep(NAP);
            let is_due = |at: Moment| at <= shared.now();
            if shared.state().batcher.ask_at().is_some_and(is_due) {
                tell_batcher(shared, |now, batcher| watcher.ask(now, batcher));
            }
        }
        if look <= shared.now() {
            tell_batcher(shared, |now, batcher| watcher.look_at_links(now, batcher));
            look = shared.now() + links::EVERY;
        }
    }
}

/// Takes what the kernel has to tell.
fn hear(shared: &Shared, watcher: &mut Watcher) -> Result<Heard> {
    tell_batcher(shared, |now, batcher| watcher.hear(now, batcher))
}

/// Lets `tell` tell of changes; wakes who waits for a batch when that is due earlier now.
fn tell_batcher<T>(shared: &Shared, tell: impl FnOnce(Moment, &mut Batcher) -> T) -> T {
    let mut state = shared.state();
    let before = state.batcher.due();
    let told = tell(shared.now(), &mut state.batcher);
    let after = state.batcher.due();
    drop(state);
    if after.is_some_and(|after| before.is_none_or(|before| after < before)) {
        shared.change(|_| {});
    }

    told
}

/// Watches everything anew; what happened meanwhile is not known, so that everything is looked at.
fn anew(shared: &Shared, old: Watcher, target: Target, why: Why) -> Result<Watcher> {
    shared.state().busy = true;
    let id = Some(old.id()).filter(|_| why == Why::Missed);

    // First, so that its watches can be used again.
    let links = old.into_links();
    let mut watcher = Watcher::establish(target)?;
    watcher.keep_open_files(links);
    tell(&watcher);
    if id.is_some_and(|id| id != watcher.id()) {
        return Err(gone(&watcher.target().source, "is another directory now"));
    }

    let now = shared.now();
    shared.change(|state| {
        state.id = Some(watcher.id());
        state.batcher.everything(now, why);
        state.busy = false;
    });

    Ok(watcher)
}

/// Why the thread was woken.
struct Woken {
    changed: bool,
    mounted: bool,
    ordered: bool,
}

fn wait(shared: &Shared, watcher: &Watcher, look: Moment) -> Result<Woken> {
    let mut fds = vec![
        PollFd::new(watcher, PollFlags::IN),
        PollFd::new(&shared.wake, PollFlags::IN),
    ];
    let mounts = watcher.mounts();
    fds.extend(mounts.iter().map(|list| PollFd::new(list, PollFlags::PRI)));
    let now = shared.now();

    let forget = watcher.is_waiting().then(|| now + FORGET);
    let look = Some(look).filter(|_| !watcher.links().is_empty());
    let ask = shared.state().batcher.ask_at();
    let until = [forget, look, ask].into_iter().flatten().min();

    // A time that is too long to be told is as good as none.
    let timeout = until.and_then(|until| Timespec::try_from(until.since(now)).ok());
    match poll(&mut fds, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(e) => {
            return Err(
                Error::new(Kind::Io, "cannot wait for changes").because(std::io::Error::from(e))
            );
        }
    }

    let is = |at: usize| fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
    Ok(Woken {
        changed: is(0),
        ordered: is(1),
        mounted: is(2),
    })
}
