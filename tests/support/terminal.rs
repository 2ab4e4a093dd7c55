//! A terminal for a command, drawn by tmux.

use std::ffi::OsStr;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use super::run::{tool, try_tool};
use super::{skipped, until};

/// A terminal of its own tmux server, which ends with it.
pub struct Terminal {
    socket: PathBuf,
    done: PathBuf,
}

impl Terminal {
    /// Runs `command` in a terminal of `columns` and `rows`, with its files in `dir`. `None` without
    /// tmux.
    pub fn start(dir: &Path, command: &Command, columns: usize, rows: usize) -> Option<Self> {
        if let Err(why) = try_tool(Command::new("tmux").arg("-V")) {
            skipped(&why);
            return None;
        }

        // A server before may be about to end.
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let terminal = Self {
            socket: dir.join(format!("tmux{number}")),
            done: dir.join("done"),
        };
        let _ = std::fs::remove_file(&terminal.done);
        let script = dir.join("run.sh");
        super::write(&script, terminal.script(command));
        tool(
            terminal
                .tmux()
                .args(["-f", "/dev/null", "new-session", "-d", "-x"])
                .arg(columns.to_string())
                .arg("-y")
                .arg(rows.to_string())
                .arg(format!("sh '{}'", script.display())),
        );
        Some(terminal)
    }

    /// The command with its environment; the terminal stays open after it.
    fn script(&self, command: &Command) -> String {
        let quoted = |text: &OsStr| format!("'{}'", text.to_str().expect("text"));
        // An interrupt is for the command alone.
        let mut script = String::from("trap : INT\n");
        for (name, value) in command.get_envs() {
            let name = name.to_str().expect("text");
            let _ = match value {
                Some(value) => writeln!(script, "export {name}={}", quoted(value)),
                None => writeln!(script, "unset {name}"),
            };
        }
        if let Some(dir) = command.get_current_dir() {
            let _ = writeln!(script, "cd {}", quoted(dir.as_os_str()));
        }

        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let words: Vec<String> = words.map(quoted).collect();
        let _ = writeln!(script, "{}", words.join(" "));
        let _ = writeln!(script, "echo $? > '{}'", self.done.display());
        script + "exec sleep 1000\n"
    }

    fn tmux(&self) -> Command {
        let mut tmux = Command::new("tmux");
        tmux.arg("-S").arg(&self.socket).env_remove("TMUX");
        tmux
    }

    /// Rows on the screen and above it, without trailing blanks.
    pub fn rows(&self) -> Vec<String> {
        let shown = self
            .tmux()
            .args(["capture-pane", "-p", "-S", "-"])
            .output()
            .expect("tmux runs");
        let text = String::from_utf8_lossy(&shown.stdout).into_owned();
        let text = text.trim_end();
        text.lines().map(|row| row.trim_end().to_string()).collect()
    }

    /// Rows that contain `text`.
    pub fn count(&self, text: &str) -> usize {
        self.rows().iter().filter(|row| row.contains(text)).count()
    }

    /// Waits until a row contains `text`.
    pub fn shows(&self, text: &str) {
        until(&format!("{text:?} on the terminal"), || {
            self.count(text) > 0
        });
    }

    /// Changes the size.
    pub fn resize(&self, columns: usize, rows: usize) {
        let (columns, rows) = (columns.to_string(), rows.to_string());
        tool(
            self.tmux()
                .args(["resize-window", "-x", &columns, "-y", &rows]),
        );
    }

    /// Presses keys, in tmux's names.
    pub fn press(&self, keys: &[&str]) {
        tool(self.tmux().arg("send-keys").args(keys));
    }

    /// Returns the exit code of the command, once it has ended.
    pub fn exit(&self) -> Option<i32> {
        let code = std::fs::read_to_string(&self.done).ok()?;
        code.trim().parse().ok()
    }

    /// Waits for the end of the command and returns its exit code.
    pub fn ends(&self) -> i32 {
        let mut code = None;
        until("the end of the command", || {
            code = self.exit();
            code.is_some()
        });
        code.expect("just found")
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // A server that has ended already has nothing to kill.
        let _ = self.tmux().arg("kill-server").output();
    }
}
