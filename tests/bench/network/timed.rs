//! Commands with timestamps on their output lines, and their run time.
#![expect(clippy::disallowed_methods, reason = "a benchmark measures time")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::trouble::Trouble;

/// A running command.
pub struct Started {
    child: Child,
    began: Instant,
    deadline: Instant,
    lines: Receiver<(Instant, String)>,
    err: tempfile::NamedTempFile,
    shown: String,
}

/// A finished command.
#[derive(Debug)]
pub struct Ran {
    pub seconds: f64,
    /// Output lines, as JSON where valid, each with the seconds since the start.
    pub events: Vec<(f64, Value)>,
}

impl Started {
    /// Starts a command that must end within `limit`.
    pub fn start(command: &mut Command, limit: Duration) -> Result<Self, Trouble> {
        let err = tempfile::NamedTempFile::new()?;
        let talk = err.reopen()?;
        let shown = command
            .get_args()
            .last()
            .map(|a| a.to_string_lossy().into_owned())
            .unwrap_or_default();

        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(talk);
        let began = Instant::now();
        let mut child = command.spawn()?;
        let out = child
            .stdout
            .take()
            .ok_or_else(|| std::io::Error::other("no output"))?;

        let (say, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).split(b'\n').map_while(Result::ok) {
                let _ = say.send((Instant::now(), String::from_utf8_lossy(&line).into_owned()));
            }
        });

        Ok(Self {
            child,
            began,
            deadline: began + limit,
            lines,
            err,
            shown,
        })
    }

    /// Reads the next line as JSON (null if invalid), with the seconds since the start; `None` at
    /// the end.
    pub fn next(&mut self) -> Result<Option<(f64, Value)>, Trouble> {
        match self
            .lines
            .recv_timeout(self.deadline.saturating_duration_since(Instant::now()))
        {
            Ok((at, line)) => {
                let value = serde_json::from_str(&line).unwrap_or(Value::Null);
                Ok(Some((at.duration_since(self.began).as_secs_f64(), value)))
            }
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => Err(Trouble::Late(
                self.deadline.duration_since(self.began).as_secs(),
            )),
        }
    }

    /// Sends SIGINT, like Ctrl-C.
    pub fn interrupt(&self) {
        let _ = kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGINT);
    }

    /// Waits for a successful end.
    pub fn finish(mut self) -> Result<Ran, Trouble> {
        let mut events = Vec::new();
        while let Some(event) = self.next()? {
            events.push(event);
        }

        let status = self.child.wait()?;
        let seconds = self.began.elapsed().as_secs_f64();
        if status.success() {
            return Ok(Ran { seconds, events });
        }

        let talk = std::fs::read_to_string(self.err.path()).unwrap_or_default();
        let error = events
            .iter()
            .rev()
            .find_map(|(_, e)| e["error"].as_str())
            .unwrap_or_default();

        let last = talk
            .lines()
            .rfind(|l| !l.trim().is_empty())
            .unwrap_or_default();

        Err(Trouble::Failed(format!(
            "{}: {status} {error} {last}",
            self.shown
        )))
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command to a successful end.
pub fn run(command: &mut Command, limit: Duration) -> Result<Ran, Trouble> {
    Started::start(command, limit)?.finish()
}

/// Runs commands in parallel until all have succeeded, and returns the total seconds.
pub fn together(commands: &mut [Command], limit: Duration) -> Result<f64, Trouble> {
    let began = Instant::now();
    let started = commands
        .iter_mut()
        .map(|c| Started::start(c, limit))
        .collect::<Result<Vec<_>, _>>()?;
    for one in started {
        one.finish()?;
    }

    Ok(began.elapsed().as_secs_f64())
}

/// Daemons that are killed on drop.
#[derive(Default)]
pub struct Daemons(Vec<Child>);

impl Daemons {
    pub fn start(&mut self, command: &mut Command) -> Result<(), Trouble> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.0.push(command.spawn()?);
        Ok(())
    }

    /// Waits until all have exited.
    pub fn wait(&mut self, limit: Duration) -> Result<(), Trouble> {
        let began = Instant::now();
        while self
            .0
            .iter_mut()
            .any(|child| matches!(child.try_wait(), Ok(None)))
        {
            if began.elapsed() > limit {
                return Err(Trouble::Late(limit.as_secs()));
            }
            std::thread::sleep(Duration::from_millis(1));
        }

        Ok(())
    }
}

impl Drop for Daemons {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Returns true if `is` becomes true within `limit`.
pub fn comes(limit: Duration, mut is: impl FnMut() -> bool) -> bool {
    let began = Instant::now();
    loop {
        if is() {
            return true;
        }
        if began.elapsed() > limit {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Starts a stopwatch that counts seconds.
pub fn stopwatch() -> impl Fn() -> f64 {
    let began = Instant::now();
    move || began.elapsed().as_secs_f64()
}
