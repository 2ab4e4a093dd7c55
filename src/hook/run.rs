//! Runs a command as a process group of its own, within its time, and reads what it prints.
//!
//! Nothing here waits for anything without a limit: not for the command, not for what it left behind, and not for a
//! process that the kernel does not let die.
#![expect(
    clippy::disallowed_methods,
    reason = "a time limit of a process is the clock's; nothing else is decided by it"
)]

use std::ffi::OsString;
use std::io::{ErrorKind, PipeReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

use super::output::Tail;
use super::{Command, Failure, Health, Occasion, Phase, Ran, What, seconds};

/// Where programs are when the daemon has no PATH itself.
const USUAL_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How long a command may take to end when it is asked to.
const TERM_GRACE: Duration = Duration::from_secs(5);
/// How long the kernel may take to end it.
const KILL_GRACE: Duration = Duration::from_secs(5);
/// How long what a command left behind may hold its output, once it has ended itself.
const OUTPUT_GRACE: Duration = Duration::from_millis(200);
/// The first and the longest pause between two looks at what nothing wakes us for.
const PAUSES: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(20)];
/// A program that is being written cannot be started, and a fork elsewhere in this process may hold it open for a
/// moment: how often and how long that is waited for.
const BUSY_TRIES: u32 = 20;
const BUSY_PAUSE: Duration = Duration::from_millis(25);
/// How much is read at a time, and how often before the clock is looked at.
const CHUNK: usize = 16 << 10;
const CHUNKS: usize = 16;

/// What becomes of a command that runs once; the first is `None` when it passed.
pub(super) fn once(
    command: &Command,
    phase: Phase,
    occasion: &Occasion,
    stop: &AtomicBool,
) -> (Option<What>, Ran) {
    attempt(command, command.timeout, phase, occasion, stop)
}

/// What becomes of a command that is tried until it passes. When the deadline cuts a try short, the one before it says
/// more about what is wrong.
pub(super) fn until_healthy(
    health: &Health,
    occasion: &Occasion,
    stop: &AtomicBool,
) -> (Option<What>, Ran) {
    let (command, began) = (&health.command, Instant::now());
    let end = began + health.deadline;
    let (mut tries, mut before) = (0, None);
    loop {
        let limit = command
            .timeout
            .min(end.saturating_duration_since(Instant::now()));
        let found = attempt(command, limit, Phase::Health, occasion, stop);
        tries += 1;
        let is_cut = limit < command.timeout && matches!(found.0, Some(What::TimedOut(_)));
        let (what, one) = before.take_if(|_| is_cut).unwrap_or(found);
        let ran = Ran {
            took: began.elapsed(),
            tries,
            ..one
        };
        let last = match &what {
            None | Some(What::NotStarted(_) | What::Stopped) => true,
            Some(_) => Instant::now() + health.interval >= end,
        };
        if last {
            return (what, ran);
        }
        tracing::debug!(
            "{}@{}: try {tries} of {command}: not healthy yet",
            occasion.tree,
            occasion.serial
        );
        if !rest(health.interval, stop) {
            return (Some(What::Stopped), ran);
        }
        before = Some((what, ran));
    }
}

/// Writes into the log what became of it.
pub(super) fn ended(
    command: &Command,
    phase: Phase,
    occasion: &Occasion,
    what: Option<What>,
    ran: Ran,
) -> Result<Ran, Failure> {
    let (tree, serial) = (&occasion.tree, occasion.serial);
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

/// Waits between two tries; false when the daemon ends.
fn rest(time: Duration, stop: &AtomicBool) -> bool {
    let end = Instant::now() + time;
    loop {
        if stop.load(Ordering::Acquire) {
            return false;
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        std::thread::sleep(left.min(PAUSES[1]));
    }
}

/// One run: `None` when it passed.
fn attempt(
    command: &Command,
    limit: Duration,
    phase: Phase,
    occasion: &Occasion,
    stop: &AtomicBool,
) -> (Option<What>, Ran) {
    let began = Instant::now();
    let (what, output) = match Running::start(command, phase, occasion) {
        Ok(mut running) => (running.finish(began, limit, stop), running.tail.text()),
        Err(e) => (Some(What::NotStarted(why_not_started(&e))), String::new()),
    };

    (
        what,
        Ran {
            output,
            took: began.elapsed(),
            tries: 1,
        },
    )
}

fn why_not_started(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => {
            "there is no such program, or the interpreter that its first line names is missing"
                .into()
        }
        ErrorKind::PermissionDenied => "it is not executable for this daemon".into(),
        _ => error.to_string(),
    }
}

/// A process that was started and is not yet reaped.
struct Running {
    child: Child,
    /// Until its other end is closed by all.
    pipe: Option<PipeReader>,
    tail: Tail,
}

impl Running {
    fn start(command: &Command, phase: Phase, occasion: &Occasion) -> std::io::Result<Self> {
        let (pipe, printed) = std::io::pipe()?;
        rustix::io::ioctl_fionbio(&pipe, true)?;
        let mut process = std::process::Command::new(command.program());
        process
            .args(&command.argv()[1..])
            .env_clear()
            .envs(basics())
            .envs(occasion.variables(phase));

        process.current_dir("/").process_group(0);
        process
            .stdin(Stdio::null())
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
            tail: Tail::default(),
        };

        running.step_forward();
        Ok(running)
    }

    /// The threads that stage are nicer than the daemon; what they start for it is not. Where the system does not
    /// allow that, it stays a little nicer.
    fn step_forward(&self) {
        if let Ok(daemon) = rustix::process::getpriority_process(Some(rustix::process::getpid())) {
            let _ = rustix::process::setpriority_process(Some(self.pid()), daemon);
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Waits for the end, or makes one; the process is reaped.
    fn finish(&mut self, began: Instant, limit: Duration, stop: &AtomicBool) -> Option<What> {
        let over = |running: &mut Self| running.has_exited() || stop.load(Ordering::Acquire);
        self.listen(began + limit, over);
        if !self.has_exited() {
            let what = if stop.load(Ordering::Acquire) {
                What::Stopped
            } else {
                What::TimedOut(limit)
            };
            self.end();
            return Some(what);
        }

        self.listen(Instant::now() + OUTPUT_GRACE, |running| {
            running.pipe.is_none()
        });

        match self.child.wait() {
            Ok(status) => What::of(status),
            Err(e) => Some(What::NotStarted(format!("its end cannot be known: {e}"))),
        }
    }

    /// Ends the whole group: it is asked first. The process is reaped after that, for as long as it is not its group's
    /// number belongs to nobody else.
    fn end(&mut self) {
        self.signal(Signal::TERM);
        self.listen(Instant::now() + TERM_GRACE, |running| {
            running.has_exited() && running.pipe.is_none()
        });
        self.signal(Signal::KILL);

        if self.listen(Instant::now() + KILL_GRACE, Self::has_exited) {
            let _ = self.child.wait();
        } else {
            tracing::warn!(
                "process {} does not end though it was killed; it waits in the kernel",
                self.child.id()
            );
            reap_later(self.pid());
        }
    }

    fn signal(&self, signal: Signal) {
        // A group whose last process has ended meanwhile needs none.
        let _ = rustix::process::kill_process_group(self.pid(), signal);
    }

    /// Whether it has ended; it is not reaped by the question.
    fn has_exited(&mut self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        match rustix::process::waitid(WaitId::Pid(self.pid()), options) {
            Ok(status) => status.is_some(),
            Err(rustix::io::Errno::INTR) => false,
            // There is no such child: nothing is to be waited for.
            Err(_) => true,
        }
    }

    /// Reads what is printed until `enough` says so (true) or until `end` (false).
    fn listen(&mut self, end: Instant, enough: impl Fn(&mut Self) -> bool) -> bool {
        let mut pause = PAUSES[0];
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
            pause = (pause * 2).min(PAUSES[1]);
        }
    }

    /// Sleeps, but not when there is something to read.
    fn pause(&self, time: Duration) {
        let Some(pipe) = &self.pipe else {
            return std::thread::sleep(time);
        };

        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: i64::from(time.min(PAUSES[1]).subsec_nanos()),
        };

        // A failed wait is a short one.
        let _ = poll(&mut [PollFd::new(pipe, PollFlags::IN)], Some(&timeout));
    }

    fn read(&mut self) {
        let mut chunk = [0; CHUNK];
        for _ in 0..CHUNKS {
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

fn basics() -> [(&'static str, OsString); 3] {
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

/// A thread waits for what cannot be waited for here.
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
