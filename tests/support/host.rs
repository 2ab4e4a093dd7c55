//! One host: a daemon with a tree, a state directory beside the tree, a control socket and a log.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::place::Place;
use super::wait::until;

/// Path of the group key within a lab's directory: the default place of a user's key.
pub const GROUP_KEY: &str = ".config/makuo/group.key";

pub struct Host {
    pub name: String,
    pub place: Place,
    dir: PathBuf,
    keys: PathBuf,
    /// Lines of the tree's table in the host's configuration.
    rules: String,
    /// Top-level lines of the configuration.
    settings: String,
    /// Network flags, if other than the flags of the host's place.
    pub flags: Option<Vec<String>>,
    /// Runs without a group key. Otherwise, the key beside the authorized keys is used, if present.
    pub plain: bool,
    /// Fetches missed releases from peers. Off in most tests, since they check each host's release.
    pub catch_up: bool,
    /// Serves its release to every peer.
    pub gives_anyone: bool,
    /// Environment variables of the daemon.
    pub env: Vec<(String, String)>,
    /// The makuo of this host.
    pub program: String,
    /// Wrapper of the daemon, as in `unshare -m sh -c`.
    wrapper: Option<String>,
    child: Option<Child>,
}

impl Host {
    pub fn new(name: &str, place: Place, dir: PathBuf, keys: PathBuf) -> Self {
        std::fs::create_dir_all(dir.join("disk/www")).expect("new");
        let group_key = keys.with_file_name(GROUP_KEY);
        if group_key.exists() {
            std::fs::copy(group_key, dir.join("group.key")).expect("room");
        }

        let (rules, settings, env) = (String::new(), String::new(), Vec::new());
        let name = name.to_string();
        let (plain, catch_up, gives_anyone, flags, wrapper, child) =
            (false, false, false, None, None, None);

        Self {
            name,
            place,
            dir,
            keys,
            rules,
            settings,
            flags,
            plain,
            catch_up,
            gives_anyone,
            env,
            program: env!("CARGO_BIN_EXE_makuo").to_string(),
            wrapper,
            child,
        }
    }

    /// Returns the path of the tree.
    pub fn tree(&self) -> PathBuf {
        self.dir.join("disk/www")
    }

    /// Returns the mount point for the tree and its state, if on a separate filesystem.
    pub fn disk(&self) -> PathBuf {
        self.dir.join("disk")
    }

    /// Adds lines to the tree's table in the configuration.
    pub fn rule(&mut self, line: &str) {
        self.rules.push_str(line);
        self.rules.push('\n');
    }

    /// Adds a top-level line to the configuration.
    pub fn setting(&mut self, line: &str) {
        self.settings.push_str(line);
        self.settings.push('\n');
    }

    /// Returns the path of the control socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("makuo.sock")
    }

    /// Starts the daemon through the shell script `script`, with the command line as arguments.
    pub fn wrap(&mut self, script: &str) {
        self.wrapper = Some(script.to_string());
    }

    /// Starts the daemon and waits until it listens.
    pub fn start(&mut self) {
        self.begin();
        self.listens();
    }

    /// Starts the daemon without waiting.
    pub fn begin(&mut self) {
        assert!(self.child.is_none(), "{} runs", self.name);
        let socket = self.socket();
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_path())
            .expect("a log");
        let again = log.try_clone().expect("a file");
        let mut command = self.command(&socket);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::from(log))
            .stderr(Stdio::from(again));

        self.child = Some(command.spawn().expect("the daemon starts"));
    }

    /// Waits until the daemon listens.
    pub fn listens(&mut self) {
        let socket = self.socket();
        let child = self.child.as_mut().expect("runs");
        let mut over = None;
        until("a daemon that listens", || {
            over = child.try_wait().expect("my child");
            over.is_some() || UnixStream::connect(&socket).is_ok()
        });

        assert!(over.is_none(), "{}: {over:?}\n{}", self.name, self.log());
    }

    fn command(&self, socket: &Path) -> Command {
        let config = self.dir.join("makuo.toml");
        let quoted = |path: &Path| format!("{:?}", path.to_str().expect("UTF-8"));
        let text = format!(
            "name = {:?}\nauthorized_keys = {}\nstate_dir = {}\nsocket = {}\n{}[[tree]]\nname = \"www\"\npath = {}\ncatch_up = {}\n{}{}",
            self.name,
            quoted(&self.keys),
            quoted(&self.dir.join("disk/state")),
            quoted(socket),
            self.settings,
            quoted(&self.tree()),
            if self.gives_anyone {
                "\"anyone\"".to_string()
            } else {
                self.catch_up.to_string()
            },
            if self.rules.contains("swap =") {
                ""
            } else {
                "swap = true\n"
            },
            self.rules
        );

        std::fs::write(&config, text).expect("writable");
        let makuo = self.program.as_str();
        let mut command = match &self.wrapper {
            None => self.place.command(makuo),
            Some(script) => {
                let mut command = self.place.command("unshare");
                command.args(["-m", "sh", "-c", script, "sh", makuo]);
                command
            }
        };

        command.envs(self.env.iter().map(|(key, value)| (key, value)));
        command
            .args(["daemon", "--color", "never", "-c"])
            .arg(config)
            .args(self.flags.clone().unwrap_or_else(|| self.place.flags()));
        if self.plain {
            command.arg("--plain");
        }

        command.env_remove("MAKUO_GROUP_KEY");
        command
    }

    /// Sends SIGKILL.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("runs");
        child.kill().expect("my child");
        child.wait().expect("my child");
    }

    /// Sends SIGTERM and returns the exit status.
    pub fn stop(&mut self) -> std::process::ExitStatus {
        let mut child = self.child.take().expect("runs");
        let pid = nix::unistd::Pid::from_raw(child.id().try_into().expect("small"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("my child");
        child.wait().expect("my child")
    }

    /// Sends SIGHUP.
    pub fn reload(&self) {
        self.signal(nix::sys::signal::Signal::SIGHUP);
    }

    /// Sends a signal to the daemon.
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.pid().try_into().expect("small"));
        nix::sys::signal::kill(pid, signal).expect("runs");
    }

    /// Sends SIGKILL and starts the daemon again.
    pub fn restart(&mut self) {
        self.kill();
        self.start();
    }

    /// Returns the daemon's process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("runs").id()
    }

    /// Returns the daemon's current memory in KiB.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("runs");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .expect("a line");
        line.trim()
            .trim_end_matches(" kB")
            .parse()
            .expect("a number")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Returns the path of the host's copy of the group key.
    pub fn group_key(&self) -> PathBuf {
        self.dir.join("group.key")
    }

    /// Returns the path of the configuration as of the last start.
    pub fn config_path(&self) -> PathBuf {
        self.dir.join("makuo.toml")
    }

    /// Returns the path of the state directory.
    pub fn state(&self) -> PathBuf {
        self.dir.join("disk/state")
    }

    fn log_path(&self) -> PathBuf {
        self.dir.join("log")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- log of {}\n{}", self.name, self.log());
        }
    }
}
