//! Daemons under the name makuosan, and clients of their consoles: msync and a telnet-like client.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::run::{Ran, Running};
use super::{Lab, Place, read, until, write};

/// Daemons named makuosan, one per place, each with its own base.
pub struct Old {
    daemons: Vec<Option<Child>>,
    places: Vec<Place>,
    settings: Vec<Settings>,
    pub lab: Lab,
}

/// Optional parts of a host's configuration.
#[derive(Debug, Clone, Default)]
struct Settings {
    top: String,
    console: String,
    tree: String,
}

impl Old {
    /// Makes `count` hosts mk1, mk2, ... at a switch; `None` without support for a switch.
    pub fn network(count: usize) -> Option<Self> {
        let lab = Lab::network_idle(count)?;
        let places = lab.hosts.iter().map(|h| h.place.clone()).collect();
        Some(Self::new(lab, places))
    }

    /// Makes hosts on the loopback interface, with a console only on request.
    pub fn loopback(count: usize) -> Option<Self> {
        let lab = Lab::loopback_idle()?;
        let places = vec![lab.admin.clone(); count];
        let mut old = Self::new(lab, places);
        old.settings
            .iter_mut()
            .for_each(|s| s.console = "listen = \"off\"\n".into());
        Some(old)
    }

    /// Runs in plain mode unless a key is given, like every makuosan.
    fn new(mut lab: Lab, places: Vec<Place>) -> Self {
        lab.go_plain();
        for name in ["makuosan", "msync"] {
            std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_makuo"), lab.path(name))
                .expect("a link");
        }

        let keys = String::from_utf8(read(&lab.path("key.pub"))).expect("text");
        write(&lab.path("keys"), keys);
        let settings = vec![Settings::default(); places.len()];
        let daemons = places.iter().map(|_| None).collect();
        let old = Self {
            daemons,
            places,
            settings,
            lab,
        };

        (0..old.places.len())
            .for_each(|host| std::fs::create_dir_all(old.base(host)).expect("new"));
        old
    }

    pub fn dir(&self, host: usize) -> PathBuf {
        self.lab.path(&format!("mk{}", host + 1))
    }

    pub fn base(&self, host: usize) -> PathBuf {
        self.dir(host).join("disk/base")
    }

    /// Returns the path of the control socket.
    pub fn control(&self, host: usize) -> PathBuf {
        self.dir(host).join("control")
    }

    pub fn place(&self, host: usize) -> &Place {
        &self.places[host]
    }

    /// Adds top-level lines to a host's configuration.
    pub fn top(&mut self, host: usize, lines: &str) {
        self.settings[host].top = format!("{lines}\n");
    }

    /// Adds lines to the console's table.
    pub fn console(&mut self, host: usize, lines: &str) {
        self.settings[host].console = format!("{lines}\n");
    }

    /// Adds lines to the base's table.
    pub fn tree(&mut self, host: usize, lines: &str) {
        self.settings[host].tree = format!(
            "[[tree]]\nname = \"default\"\npath = {:?}\n{lines}\n",
            self.base(host)
        );
    }

    /// Writes the configuration, and returns the daemon's command line.
    pub fn command(&self, host: usize, more: &[&str]) -> Command {
        let (dir, settings) = (self.dir(host), &self.settings[host]);
        let network = match &self.places[host] {
            Place::Loopback(port) => format!("interface = \"lo\"\nport = {port}\n"),
            Place::Namespace(_) => "interface = \"eth0\"\n".into(),
        };

        let text = format!(
            "name = \"mk{}\"\nauthorized_keys = {:?}\nsocket = {:?}\n{}[sender]\nkey = {:?}\n[network]\n{network}[console]\n{}{}",
            host + 1,
            self.lab.path("keys"),
            self.control(host),
            settings.top,
            self.lab.path("key"),
            settings.console,
            settings.tree,
        );

        write(&dir.join("makuo.toml"), text);
        let mut command =
            self.places[host].command(self.lab.path("makuosan").to_str().expect("UTF-8"));
        command
            .arg("-b")
            .arg(self.base(host))
            .arg("--config")
            .arg(dir.join("makuo.toml"))
            .args(more);

        command
            .env_remove("MAKUO_CONFIG")
            .env_remove("NOTIFY_SOCKET");

        command
    }

    /// Starts a daemon and waits until it listens.
    pub fn start(&mut self, host: usize, more: &[&str]) {
        let log = std::fs::File::create(self.dir(host).join("log")).expect("a log");
        let mut command = self.command(host, &[&["-n"], more].concat());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::from(log));
        let child = self.daemons[host].insert(command.spawn().expect("starts"));

        let (control, mut over) = (
            self.lab.path(&format!("mk{}", host + 1)).join("control"),
            None,
        );
        until("a daemon that listens", || {
            over = child.try_wait().expect("my child");
            over.is_some() || UnixStream::connect(&control).is_ok()
        });

        assert!(over.is_none(), "{over:?}: {}", self.log(host));
    }

    pub fn log(&self, host: usize) -> String {
        std::fs::read_to_string(self.dir(host).join("log")).unwrap_or_default()
    }

    pub fn pid(&self, host: usize) -> Pid {
        Pid::from_raw(
            self.daemons[host]
                .as_ref()
                .expect("runs")
                .id()
                .try_into()
                .expect("small"),
        )
    }

    /// Sends SIGTERM, and requires a clean exit.
    #[track_caller]
    pub fn stop(&mut self, host: usize) {
        kill(self.pid(host), Signal::SIGTERM).expect("mine");
        let ended = self.daemons[host]
            .take()
            .expect("runs")
            .wait()
            .expect("mine");
        assert!(
            ended.success(),
            "SIGTERM ends it well: {ended} {}",
            self.log(host)
        );
    }

    /// Runs msync at a host; `target` is the unix socket of the console, if not the default one.
    pub fn msync_at(&self, host: usize, target: Option<&Path>, args: &[&str]) -> Ran {
        self.start_msync_at(host, target, args).wait()
    }

    pub fn start_msync_at(&self, host: usize, target: Option<&Path>, args: &[&str]) -> Running {
        let mut command =
            self.places[host].command(self.lab.path("msync").to_str().expect("UTF-8"));
        command.args(args).env_remove("MSYNC_TARGET");
        if let Some(target) = target {
            command.env("MSYNC_TARGET", format!("unix:{}", target.display()));
        }
        Running::start(&mut command)
    }

    /// Runs msync at the first host.
    pub fn msync(&self, args: &[&str]) -> Ran {
        self.msync_at(0, None, args)
    }

    /// Runs makuo at a host, through the control socket.
    pub fn makuo(&self, host: usize, args: &[&str]) -> Ran {
        let mut command = self.places[host].command(env!("CARGO_BIN_EXE_makuo"));
        command
            .args(args)
            .arg("--socket")
            .arg(self.control(host))
            .env_remove("MAKUO_CONFIG");
        Running::start(&mut command).wait()
    }

    /// Waits until the first host has discovered all others.
    pub fn know_each_other(&self, target: Option<&Path>) {
        let all = format!("Total: {} members", self.places.len() - 1);
        until("members", || {
            self.msync_at(0, target, &["--members"]).out.contains(&all)
        });
    }
}

impl Drop for Old {
    fn drop(&mut self) {
        for daemon in self.daemons.iter_mut().flatten() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }

        if std::thread::panicking() {
            (0..self.daemons.len())
                .for_each(|host| eprintln!("--- log of mk{}\n{}", host + 1, self.log(host)));
        }
    }
}

/// A client as plain as telnet.
pub struct Plain(Box<dyn Stream>);

pub trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

impl Plain {
    pub fn tcp(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("listens");
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .expect("possible");
        Self(Box::new(stream))
    }

    pub fn unix(path: &Path) -> Self {
        let stream = UnixStream::connect(path).expect("listens");
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .expect("possible");
        Self(Box::new(stream))
    }

    /// Reads until the input ends with `end`.
    pub fn until(&mut self, end: &[u8]) -> String {
        let (mut all, mut byte) = (Vec::new(), [0]);
        while !all.ends_with(end) {
            // Repeats a read that a stop of this process interrupted.
            self.0
                .read_exact(&mut byte)
                .unwrap_or_else(|e| panic!("{e} after {:?}", String::from_utf8_lossy(&all)));
            all.push(byte[0]);
        }

        all.truncate(all.len() - end.len());
        String::from_utf8(all).expect("text")
    }

    pub fn say(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).expect("listens");
    }

    /// Returns true at the end of the input.
    pub fn is_over(&mut self) -> bool {
        match self.0.read_exact(&mut [0]) {
            Ok(()) => false,
            // Unread input on the other side turns the close into a reset.
            Err(e) => matches!(
                e.kind(),
                ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset
            ),
        }
    }

    /// Sends a line and returns the answer up to the next prompt, without the keepalive lines of a
    /// busy machine.
    pub fn ask(&mut self, line: &str) -> String {
        self.say(format!("{line}\r\n").as_bytes());
        let answer = self.until(b"> ");
        answer
            .split_inclusive('\n')
            .filter(|line| *line != "alive\n")
            .collect()
    }

    /// Plays a transcript: lines after `> ` are sent, all others expected.
    pub fn play(&mut self, transcript: &str) {
        assert_eq!(self.until(b"> "), "");
        let mut said: Option<&str> = None;
        let mut expected = String::new();
        for line in transcript
            .lines()
            .map(|l| l.strip_prefix("    ").unwrap_or(l))
            .chain(["> quit"])
        {
            match line.strip_prefix("> ") {
                Some(next) => {
                    if let Some(said) = said.replace(next) {
                        assert_eq!(self.ask(said), expected, "{said}");
                    }
                    expected.clear();
                }
                None => expected.push_str(&format!("{line}\n")),
            }
        }
    }
}
