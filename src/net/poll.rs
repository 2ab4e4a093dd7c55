//! Waiting for the two sockets of each link, for another thread, and for a deadline, whichever
//! comes first.
//!
//! Owns the waiting only: reads no sockets and keeps no list of timers.

use std::io;
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::{InterfaceChanges, Link};
use crate::Result;
use crate::error::IoResultExt;

/// Events to wait for besides wakers and time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Interest {
    /// Datagrams of the group.
    pub group: bool,
    /// Datagrams to this process alone.
    pub own: bool,
    /// Room to send, after a blocked send.
    pub write: bool,
}

impl Interest {
    /// All incoming datagrams.
    pub const READ: Interest = Interest {
        group: true,
        own: true,
        write: false,
    };
    /// All incoming datagrams, and room to send.
    pub const READ_WRITE: Interest = Interest {
        group: true,
        own: true,
        write: true,
    };
}

/// Result of a wait; all false after a timeout or a signal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Readiness {
    /// Datagrams of the group are waiting.
    pub group: bool,
    /// Datagrams to this process alone are waiting.
    pub own: bool,
    /// There is room to send.
    pub write: bool,
    /// A [`Waker`] called since the last wait ended.
    pub woken: bool,
    /// An interface or an address may have changed.
    pub changed: bool,
}

/// Waiting point of one thread.
#[derive(Debug)]
pub struct Poller {
    bell: Arc<Bell>,
}

/// Ends the wait of a [`Poller`] from any thread. Calls before the wait are not lost; many calls
/// count as one.
#[derive(Debug, Clone)]
pub struct Waker {
    bell: Arc<Bell>,
}

#[derive(Debug)]
struct Bell {
    event: OwnedFd,
    /// Whether a call is pending: saves the system call of the next one.
    is_rung: AtomicBool,
}

impl Poller {
    /// A new poller.
    pub fn new() -> Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .io_context("cannot make an eventfd")?;
        Ok(Self {
            bell: Arc::new(Bell {
                event,
                is_rung: AtomicBool::new(false),
            }),
        })
    }

    /// A handle that ends this poller's waits.
    pub fn waker(&self) -> Waker {
        Waker {
            bell: Arc::clone(&self.bell),
        }
    }

    /// Waits until an event of `interest` occurs on `link`, a waker calls, or `timeout` expires
    /// (`None`: no timeout). Callers must check their clock afterwards: a signal ends a wait early.
    pub fn wait(
        &self,
        link: &Link,
        interest: Interest,
        timeout: Option<Duration>,
    ) -> io::Result<Readiness> {
        self.wait_any([(link, interest)], None, timeout)
    }

    /// [`Self::wait`] for several links: waits until an event occurs on any of them, or `changes`
    /// arrive.
    pub fn wait_any<'a>(
        &self,
        links: impl IntoIterator<Item = (&'a Link, Interest)>,
        changes: Option<&InterfaceChanges>,
        timeout: Option<Duration>,
    ) -> io::Result<Readiness> {
        let flag = |wanted, flag| if wanted { flag } else { PollFlags::empty() };
        let mut fds = vec![self.bell_fd()];
        let mut waiting = Vec::new();
        for (link, interest) in links {
            let own = flag(interest.own, PollFlags::IN) | flag(interest.write, PollFlags::OUT);
            // Without multicast, the second socket waits for both.
            fds.push(match link.group_fd() {
                Some(group) => PollFd::from_borrowed_fd(group, flag(interest.group, PollFlags::IN)),
                None => PollFd::from_borrowed_fd(link.own_fd(), PollFlags::empty()),
            });
            fds.push(PollFd::from_borrowed_fd(link.own_fd(), own));
            waiting.push(link);
        }

        // Behind the pairs of the links.
        fds.extend(changes.map(|changes| PollFd::new(changes, PollFlags::IN)));
        wait_for(&mut fds, timeout)?;
        let bell = fds[0].revents();
        let changed = changes.is_some() && fds.last().is_some_and(|fd| !fd.revents().is_empty());
        let mut ready = Readiness {
            changed,
            woken: bell.contains(PollFlags::IN) && self.bell.reset(),
            ..Readiness::default()
        };

        for (link, fds) in waiting.into_iter().zip(fds[1..].chunks_exact(2)) {
            let group = fds[0].revents();
            let own = fds[1].revents();
            if (group | own).contains(PollFlags::ERR) {
                // An error of an earlier datagram (ICMP): irrelevant for the next one, and left in
                // place it would end every wait at once.
                link.clear_errors();
            }
            ready.group |= group.contains(PollFlags::IN);
            ready.own |= own.contains(PollFlags::IN);
            ready.write |= own.contains(PollFlags::OUT);
        }

        Ok(ready)
    }

    /// Waits for a waker or `timeout` alone; returns whether a waker called.
    pub fn wait_for_waker(&self, timeout: Option<Duration>) -> io::Result<bool> {
        let mut fds = [self.bell_fd()];
        wait_for(&mut fds, timeout)?;
        Ok(fds[0].revents().contains(PollFlags::IN) && self.bell.reset())
    }

    fn bell_fd(&self) -> PollFd<'_> {
        PollFd::new(&self.bell.event, PollFlags::IN)
    }
}

impl Waker {
    /// Ends the poller's current wait, or its next one.
    pub fn wake(&self) {
        if !self.bell.is_rung.swap(true, Ordering::AcqRel) {
            // Fails only with a full counter, and then the poller wakes anyway.
            let _ = rustix::io::write(&self.bell.event, &1u64.to_ne_bytes());
        }
    }
}

impl Bell {
    /// Resets the bell. The counter is emptied before the flag is cleared: a call in between finds
    /// the flag set and writes nothing, and the thread that now leaves the wait sees all that the
    /// caller did before.
    fn reset(&self) -> bool {
        let _ = rustix::io::read(&self.event, &mut [0u8; 8]);
        self.is_rung.swap(false, Ordering::AcqRel)
    }
}

/// Lets the calling thread's waits end within about a microsecond of their time. The kernel's
/// default slack (50 us) would make a paced sender late on every datagram.
pub fn sharpen_timers() {
    if let Err(e) = rustix::thread::set_current_timer_slack(NonZeroU64::new(1_000)) {
        tracing::debug!("cannot lower the timer slack: {e}");
    }
}

/// Waits; a signal is an early end with nothing ready.
fn wait_for(fds: &mut [PollFd<'_>], timeout: Option<Duration>) -> io::Result<()> {
    // A timeout too large for the kernel is no timeout.
    let timeout = timeout.and_then(|t| Timespec::try_from(t).ok());
    match poll(fds, timeout.as_ref()) {
        Ok(_) => Ok(()),
        Err(rustix::io::Errno::INTR) => {
            fds.iter_mut().for_each(PollFd::clear_revents);
            Ok(())
        }
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::{collect, free_port, loopback};
    use crate::net::{Channel, Offload};

    #[test]
    fn a_waker_ends_a_wait_from_another_thread_and_many_calls_count_as_one() {
        let poller = Poller::new().unwrap();
        let waker = poller.waker();
        waker.wake();
        waker.clone().wake();
        assert!(poller.wait_for_waker(None).unwrap());
        assert!(
            !poller.wait_for_waker(Some(Duration::ZERO)).unwrap(),
            "the second call was the same bell"
        );
        let thread = std::thread::spawn(move || waker.wake());
        assert!(poller.wait_for_waker(None).unwrap());

        thread.join().unwrap();
    }

    #[test]
    fn calls_are_never_lost_between_threads() {
        let poller = Poller::new().unwrap();
        let sent = Arc::new(std::sync::atomic::AtomicU32::new(0));
        let waker = poller.waker();
        let counter = Arc::clone(&sent);
        let thread = std::thread::spawn(move || {
            for _ in 0..10_000 {
                counter.fetch_add(1, Ordering::Release);
                waker.wake();
            }
        });

        while sent.load(Ordering::Acquire) < 10_000 {
            assert!(
                poller
                    .wait_for_waker(Some(Duration::from_secs(30)))
                    .unwrap(),
                "a call was lost"
            );
        }

        thread.join().unwrap();
    }

    #[test]
    fn a_wait_tells_room_from_datagrams_from_wakers() {
        let Some(link) = loopback("224.0.0.108", free_port(), Offload::Full) else {
            return;
        };

        let poller = Poller::new().unwrap();
        let zero = Some(Duration::ZERO);
        assert_eq!(
            poller.wait(&link, Interest::READ, zero).unwrap(),
            Readiness::default()
        );
        assert!(
            poller
                .wait(&link, Interest::READ_WRITE, zero)
                .unwrap()
                .write
        );

        poller.waker().wake();
        assert!(poller.wait(&link, Interest::default(), None).unwrap().woken);
        let _ = link.send(link.local(), b"x", 1).unwrap();
        let ready = poller
            .wait(&link, Interest::READ, Some(Duration::from_secs(10)))
            .unwrap();
        assert_eq!(
            ready,
            Readiness {
                own: true,
                ..Readiness::default()
            }
        );

        assert_eq!(collect(&link, Channel::Own, 1), [b"x"]);
    }
}
