//! Running commands and their output.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::wait::{LONG, Stopwatch, until};

/// A running command.
pub struct Running {
    child: Child,
    out: tempfile::NamedTempFile,
    err: tempfile::NamedTempFile,
    shown: String,
}

/// A finished command.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
    shown: String,
}

impl Running {
    pub fn start(command: &mut Command) -> Self {
        let file = || tempfile::NamedTempFile::new().expect("a temporary file");
        let (out, err) = (file(), file());
        let to = |f: &tempfile::NamedTempFile| Stdio::from(f.reopen().expect("open"));
        command
            .stdin(Stdio::null())
            .stdout(to(&out))
            .stderr(to(&err));
        let shown = format!("{command:?}");
        let child = command.spawn().unwrap_or_else(|e| panic!("{shown}: {e}"));

        Self {
            child,
            out,
            err,
            shown,
        }
    }

    /// Returns the events printed so far, in whole lines.
    pub fn events(&self) -> Vec<Value> {
        let text = text(self.out.path());
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole
            .lines()
            .filter_map(|l| serde_json::from_str(l).ok())
            .collect()
    }

    /// Waits for an event, or for the end of the command.
    pub fn until_event(&mut self, what: &str, is: impl Fn(&Value) -> bool) {
        let has = |running: &Self| running.events().iter().any(&is);
        let mut ended = false;
        until(what, || {
            ended = self.is_over();
            ended || has(self)
        });
        assert!(
            !ended || has(self),
            "{} ended before {what}: {}{}",
            self.shown,
            text(self.out.path()),
            self.talk()
        );
    }

    /// Sends a signal.
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().try_into().expect("small"));
        nix::sys::signal::kill(pid, signal).expect("my child");
    }

    /// Returns the process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn is_over(&mut self) -> bool {
        self.child.try_wait().expect("my child").is_some()
    }

    /// Sends SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().expect("my child");
        self.child.wait().expect("my child");
    }

    pub fn talk(&self) -> String {
        text(self.err.path())
    }

    pub fn wait(mut self) -> Ran {
        let watch = Stopwatch::start();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("my child") {
                break status;
            }
            if watch.read() > LONG {
                let _ = self.child.kill();
                panic!(
                    "{} does not end: {}{}",
                    self.shown,
                    text(self.out.path()),
                    self.talk()
                );
            }
            super::pause(std::time::Duration::from_millis(5));
        };

        let (out, err) = (text(self.out.path()), self.talk());
        Ran {
            code: status.code().unwrap_or(-1),
            out,
            err,
            shown: std::mem::take(&mut self.shown),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ran {
    /// Fails with all output unless the exit code is `code`.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self}");
        self
    }

    /// Returns the JSON lines; each has to be an object with an `event`.
    #[track_caller]
    pub fn events(&self) -> Vec<Value> {
        let line = |line: &str| {
            let value: Value =
                serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in {line:?}: {self}"));
            assert!(value["event"].is_string(), "no event in {line:?}: {self}");
            value
        };
        self.out.lines().map(line).collect()
    }

    /// Returns the last JSON line.
    #[track_caller]
    pub fn result(&self) -> Value {
        let last = self
            .events()
            .pop()
            .unwrap_or_else(|| panic!("no output: {self}"));
        assert_eq!(last["event"], "result", "{self}");
        last
    }

    /// Returns the last state of `host` and its error.
    #[track_caller]
    pub fn host(&self, host: &str) -> (String, String) {
        let events = self.events();
        let last = events
            .iter()
            .rev()
            .find(|e| e["event"] == "host" && e["host"] == host);
        let last = last.unwrap_or_else(|| panic!("nothing about {host}: {self}"));
        let text = |key: &str| last[key].as_str().unwrap_or_default().to_string();

        (text("state"), text("error"))
    }

    /// Fails unless the output (standard output and standard error) contains each of `words`.
    #[track_caller]
    pub fn says(self, words: &[&str]) -> Self {
        let all = format!("{}{}", self.out, self.err);
        words
            .iter()
            .for_each(|word| assert!(all.contains(word), "{word:?} is missing: {self}"));
        self
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} exited with {}\n--- stdout\n{}--- stderr\n{}",
            self.shown, self.code, self.out, self.err
        )
    }
}

/// Copies the built program. A process that another test starts would inherit a file that this
/// process has open for writing, and a program that is written cannot run.
pub fn copy_program(to: &Path) {
    tool(Command::new("cp").arg(env!("CARGO_BIN_EXE_makuo")).arg(to));
}

/// Runs a tool that must succeed.
#[track_caller]
pub fn tool(command: &mut Command) -> String {
    match try_tool(command) {
        Ok(out) => out,
        Err(why) => panic!("{why}"),
    }
}

/// Runs a tool, and returns its output or the reason for the failure.
pub fn try_tool(command: &mut Command) -> Result<String, String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("{command:?}: {e}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }

    Err(format!(
        "{command:?}: {}: {}",
        output.status,
        text(&output.stderr).trim()
    ))
}

fn text(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).expect("readable")).into_owned()
}
