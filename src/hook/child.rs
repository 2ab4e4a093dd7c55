//! A started command: the process group, the output, the end.
//!
//! Every wait here is bounded: for the command, for processes left behind, and for a process stuck
//! in the kernel.
#![expect(
    clippy::disallowed_methods,
    reason = "a time limit of a process is the clock's; nothing else is decided by it"
)]

use std::ffi::OsString;
use std::fs::File;
use std::io::{ErrorKind, PipeReader, Read, Seek, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

use super::output::OutputTail;
use super::{Command, FailureCause, HookContext, Phase};

/// PATH for commands if the daemon has none.
const USUAL_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Time for a command to end after SIGTERM.
const TERM_GRACE: Duration = Duration::from_secs(5);
/// Time for the kernel to end a command after SIGKILL.
const KILL_GRACE: Duration = Duration::from_secs(5);
/// Time that processes left behind may hold the output open after the command ended.
const OUTPUT_GRACE: Duration = Duration::from_millis(200);
/// First pause between two polls for events without a wakeup.
const FIRST_POLL_PAUSE: Duration = Duration::from_millis(1);
/// Longest pause between two polls for events without a wakeup.
pub(super) const LONGEST_POLL_PAUSE: Duration = Duration::from_millis(20);
/// Number and interval of retries for a busy program file. A program being written cannot be
/// started, and a fork elsewhere in this process may hold the file open for a moment.
const BUSY_TRIES: u32 = 20;
const BUSY_PAUSE: Duration = Duration::from_millis(25);
/// Bytes per read, and reads before the next look at the clock.
const READ_SIZE: usize = 16 << 10;
const READS_PER_POLL: usize = 16;

/// Started process, not yet reaped.
pub(super) struct ChildProcess {
    child: Child,
    /// Read end of the output, until every writer has closed it.
    pipe: Option<PipeReader>,
    tail: OutputTail,
}

impl ChildProcess {
    pub(super) fn start(
        command: &Command,
        phase: Phase,
        context: &HookContext,
    ) -> std::io::Result<Self> {
        let mut process = std::process::Command::new(command.program());
        process
            .args(&command.argv()[1..])
            .env_clear()
            .envs(base_environment())
            .envs(context.variables(phase));
        process.current_dir("/").stdin(Stdio::null());
        Self::spawn(process)
    }

    /// Starts a command of this user, with `input` on its standard input.
    pub(super) fn start_with(command: &Command, input: &[u8]) -> std::io::Result<Self> {
        // In a file: a command that reads nothing holds nobody up.
        let mut file = File::from(memfd_create("makuo", MemfdFlags::CLOEXEC)?);
        file.write_all(input)?;
        file.rewind()?;

        let mut process = std::process::Command::new(command.program());
        process.args(&command.argv()[1..]).stdin(file);
        Self::spawn(process)
    }

    fn spawn(mut process: std::process::Command) -> std::io::Result<Self> {
        let (pipe, printed) = std::io::pipe()?;
        rustix::io::ioctl_fionbio(&pipe, true)?;
        process
            .process_group(0)
            .stdout(printed.try_clone()?)
            .stderr(printed);
        let mut tries = 1;
        let child = loop {
            match process.spawn() {
                Err(e) if e.kind() == ErrorKind::ExecutableFileBusy && tries < BUSY_TRIES => {
                    tries += 1;
                    std::thread::sleep(BUSY_PAUSE);
                }
                child => break child?,
            }
        };

        let running = Self {
            child,
            pipe: Some(pipe),
            tail: OutputTail::default(),
        };

        running.restore_priority();
        Ok(running)
    }

    /// Restores the daemon's priority: staging threads run at a lower one, which the command would
    /// inherit. If not permitted, the command keeps the lower priority.
    fn restore_priority(&self) {
        if let Ok(daemon) = rustix::process::getpriority_process(Some(rustix::process::getpid())) {
            let _ = rustix::process::setpriority_process(Some(self.pid()), daemon);
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Waits for the end of the process, or ends and reaps the process.
    pub(super) fn finish(
        &mut self,
        began: Instant,
        limit: Duration,
        stop: &AtomicBool,
    ) -> Option<FailureCause> {
        let over = |running: &mut Self| running.has_exited() || stop.load(Ordering::Acquire);
        self.read_until(began + limit, over);
        if !self.has_exited() {
            let what = if stop.load(Ordering::Acquire) {
                FailureCause::Stopped
            } else {
                FailureCause::TimedOut(limit)
            };
            self.end();
            return Some(what);
        }

        self.read_until(Instant::now() + OUTPUT_GRACE, |running| {
            running.pipe.is_none()
        });

        match self.child.wait() {
            Ok(status) => FailureCause::of(status),
            Err(e) => Some(FailureCause::NotStarted(format!(
                "its exit status is unknown: {e}"
            ))),
        }
    }

    /// The end of the output read so far.
    pub(super) fn into_output(self) -> String {
        self.tail.text()
    }

    /// Ends the whole group, first with SIGTERM. The process is reaped last, because until then its
    /// group id cannot be reused.
    fn end(&mut self) {
        self.signal(Signal::TERM);
        self.read_until(Instant::now() + TERM_GRACE, |running| {
            running.has_exited() && running.pipe.is_none()
        });
        self.signal(Signal::KILL);

        if self.read_until(Instant::now() + KILL_GRACE, Self::has_exited) {
            let _ = self.child.wait();
        } else {
            tracing::warn!(
                "process {} does not end after SIGKILL: it waits in the kernel",
                self.child.id()
            );
            reap_later(self.pid());
        }
    }

    fn signal(&self, signal: Signal) {
        // Fails harmlessly if the last process of the group has ended.
        let _ = rustix::process::kill_process_group(self.pid(), signal);
    }

    /// Returns whether the process has exited, without reaping it.
    fn has_exited(&mut self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        match rustix::process::waitid(WaitId::Pid(self.pid()), options) {
            Ok(status) => status.is_some(),
            Err(rustix::io::Errno::INTR) => false,
            // No such child: nothing to wait for.
            Err(_) => true,
        }
    }

    /// Reads output until `enough` returns true (true) or until `end` (false).
    fn read_until(&mut self, end: Instant, enough: impl Fn(&mut Self) -> bool) -> bool {
        let mut pause = FIRST_POLL_PAUSE;
        loop {
            self.read();
            if enough(self) {
                self.read();
                return true;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            self.pause(pause.min(left));
            pause = (pause * 2).min(LONGEST_POLL_PAUSE);
        }
    }

    /// Sleeps until the timeout or until there is output.
    fn pause(&self, time: Duration) {
        let Some(pipe) = &self.pipe else {
            return std::thread::sleep(time);
        };

        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: i64::from(time.min(LONGEST_POLL_PAUSE).subsec_nanos()),
        };

        // A failed poll just ends the pause early.
        let _ = poll(&mut [PollFd::new(pipe, PollFlags::IN)], Some(&timeout));
    }

    fn read(&mut self) {
        let mut chunk = [0; READ_SIZE];
        for _ in 0..READS_PER_POLL {
            let Some(pipe) = &mut self.pipe else { return };
            match pipe.read(&mut chunk) {
                Ok(0) => self.pipe = None,
                Ok(n) => self.tail.add(&chunk[..n]),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.pipe = None,
            }
        }
    }
}

fn base_environment() -> [(&'static str, OsString); 3] {
    let own = |name: &str, usual: &str| {
        std::env::var_os(name)
            .filter(|v| !v.is_empty())
            .unwrap_or(usual.into())
    };

    [
        ("PATH", own("PATH", USUAL_PATH)),
        ("HOME", own("HOME", "/")),
        ("LANG", "C.UTF-8".into()),
    ]
}

/// Reaps the process in a separate thread.
fn reap_later(pid: Pid) {
    let wait = move || {
        let _ = rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED);
    };

    if let Err(e) = std::thread::Builder::new()
        .name("reaper".into())
        .spawn(wait)
    {
        tracing::warn!(
            "no thread to wait for process {}: {e}",
            pid.as_raw_nonzero()
        );
    }
}
