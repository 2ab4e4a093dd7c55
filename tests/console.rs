//! The old face: makuosan on several hosts, msync, the console's lines over TCP and a unix socket, and `makuo send`.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use support::run::Running;
use support::{Lab, Place, Ran, append, read, until, write};

/// Daemons called makuosan, one at each place, with bases of their own.
struct Old {
    daemons: Vec<Option<Child>>,
    places: Vec<Place>,
    lab: Lab,
}

impl Old {
    /// `count` hosts mk1, mk2, ... at a switch; none where there can be no switch.
    fn network(count: usize) -> Option<Self> {
        let lab = Lab::network_idle(count)?;
        let places = lab.hosts.iter().map(|h| h.place.clone()).collect();
        Some(Self::new(lab, places))
    }

    /// The same on the loopback interface.
    fn loopback(count: usize) -> Option<Self> {
        let lab = Lab::loopback_idle()?;
        let places = vec![lab.admin.clone(); count];
        Some(Self::new(lab, places))
    }

    fn new(lab: Lab, places: Vec<Place>) -> Self {
        for name in ["makuosan", "msync"] {
            std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_makuo"), lab.path(name)).expect("a link");
        }
        let keys = String::from_utf8(read(&lab.path("key.pub"))).expect("text");
        write(&lab.path("keys"), keys);
        let mut old = Self { daemons: Vec::new(), places, lab };
        for host in 0..old.places.len() {
            std::fs::create_dir_all(old.base(host)).expect("new");
            old.daemons.push(None);
        }
        old
    }

    fn dir(&self, host: usize) -> PathBuf {
        self.lab.path(&format!("mk{}", host + 1))
    }

    fn base(&self, host: usize) -> PathBuf {
        self.dir(host).join("disk/base")
    }

    fn command(&self, host: usize, more: &[&str]) -> Command {
        let dir = self.dir(host);
        let (interface, port) = match &self.places[host] {
            Place::Loopback(port) => ("lo", Some(port.to_string())),
            Place::Namespace(_) => ("eth0", None),
        };
        let text = format!(
            "name = \"mk{}\"\nauthorized_keys = {:?}\nsocket = {:?}\n[sender]\nkey = {:?}\n[network]\ninterface = \"{interface}\"\n{}",
            host + 1,
            self.lab.path("keys"),
            dir.join("control"),
            self.lab.path("key"),
            port.map(|p| format!("port = {p}\n[console]\nlisten = \"off\"\n")).unwrap_or_default(),
        );
        write(&dir.join("makuo.toml"), text);
        let mut command = self.places[host].command(self.lab.path("makuosan").to_str().expect("UTF-8"));
        command.arg("-b").arg(self.base(host)).arg("--config").arg(dir.join("makuo.toml")).args(more);
        command.env_remove("MAKUO_CONFIG").env_remove("NOTIFY_SOCKET");
        command
    }

    fn start(&mut self, host: usize, more: &[&str]) {
        let log = std::fs::File::create(self.dir(host).join("log")).expect("a log");
        let mut command = self.command(host, &[&["-n"], more].concat());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::from(log));
        self.daemons[host] = Some(command.spawn().expect("starts"));
        let control = self.dir(host).join("control");
        until("a daemon that listens", || UnixStream::connect(&control).is_ok());
    }

    fn log(&self, host: usize) -> String {
        std::fs::read_to_string(self.dir(host).join("log")).unwrap_or_default()
    }

    fn msync_at(&self, host: usize, target: Option<&Path>, args: &[&str]) -> Ran {
        let mut command = self.places[host].command(self.lab.path("msync").to_str().expect("UTF-8"));
        command.args(args).env_remove("MSYNC_TARGET");
        if let Some(target) = target {
            command.env("MSYNC_TARGET", format!("unix:{}", target.display()));
        }
        Running::start(&mut command).wait()
    }

    fn msync(&self, args: &[&str]) -> Ran {
        self.msync_at(0, None, args)
    }

    /// Waits until the first host knows the others.
    fn know_each_other(&self, target: Option<&Path>) {
        let all = format!("Total: {} members", self.places.len() - 1);
        until("members", || self.msync_at(0, target, &["--members"]).out.contains(&all));
    }
}

impl Drop for Old {
    fn drop(&mut self) {
        for daemon in self.daemons.iter_mut().flatten() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        if std::thread::panicking() {
            (0..self.daemons.len()).for_each(|host| eprintln!("--- log of mk{}\n{}", host + 1, self.log(host)));
        }
    }
}

#[test]
fn four_hosts_as_the_old_readme_has_them() {
    let Some(mut old) = Old::network(4) else { return };
    (0..4).for_each(|host| old.start(host, &[]));
    let base = old.base(0);
    write(&base.join("hoge.html"), "hoge\n");
    write(&base.join("sub/x"), "x\n");
    std::fs::set_permissions(base.join("hoge.html"), std::fs::Permissions::from_mode(0o640)).expect("mine");
    if support::is_root() {
        std::os::unix::fs::chown(base.join("hoge.html"), Some(1), Some(1)).expect("root may");
    }
    old.know_each_other(None);
    let members = old.msync(&["--members"]).exits(0).out;
    assert!(members.starts_with("mk2 10.77.0.2 (Ver"), "{members}");

    let dry = "(dryrun) [update:hoge.html]\n(dryrun) [update:sub/x]\n";
    assert_eq!(old.msync(&["-r", "-n"]).exits(0).out, dry);
    assert!(!old.base(1).join("hoge.html").exists());
    assert_eq!(old.msync(&["-r"]).exits(0).out, "");
    let facts = |p: &Path| std::fs::metadata(p).map(|m| (m.mode(), m.uid(), m.gid(), m.mtime())).expect("there");
    for host in 1..4 {
        for file in ["hoge.html", "sub/x"] {
            let (here, there) = (base.join(file), old.base(host).join(file));
            assert_eq!((read(&here), facts(&here)), (read(&there), facts(&there)), "{file}");
        }
    }
    let out = old.msync(&["-r", "-vv", "-t", "mk3"]).exits(0).out;
    assert_eq!(out, "skip   mk3:hoge.html\nskip   mk3:sub/x\n");
    assert_eq!(old.msync(&["-r", "-t", "nohost"]).exits(1).out, "nohost is not contained in members\n");

    append(&old.base(2).join("sub/x"), b"!");
    write(&old.base(3).join("extra/file"), "extra");
    assert_eq!(old.msync(&["--check", "-r"]).exits(1).out, "mk3: NG sub/x\n");
    assert_eq!(old.msync(&["-v", "-t", "mk3", "sub/x"]).exits(0).out, "update mk3:sub/x\n");
    assert_eq!(old.msync(&["--check", "-r"]).exits(0).out, "");
    let extra = "(dryrun) delete mk4:extra/file\n(dryrun) delete mk4:extra\n";
    assert_eq!(old.msync(&["--delete", "-n", "-r"]).exits(0).out, extra);
    assert_eq!(old.msync(&["--delete", "-r"]).exits(0).out, extra.replace("(dryrun) ", ""));
    assert!(!old.base(3).join("extra").exists());

    // What is not here any more goes, but for what is excluded.
    std::fs::remove_file(base.join("sub/x")).expect("there");
    write(&old.base(1).join("sub/keep.tmp"), "");
    let out = old.msync(&["--sync", "-r", "-v", "--exclude=*.tmp"]).exits(0).out;
    assert!(out.contains("delete mk2:sub/x\n") && !out.contains("keep"), "{out}");
    assert!(old.base(1).join("sub/keep.tmp").exists() && !old.base(1).join("sub/x").exists());

    let script = old.lab.path("script");
    write(&script, "loglevel 1\nsend hoge.html\n\nsend 'nosuch'\n");
    let ran = old.msync(&["-f", script.to_str().expect("UTF-8")]).exits(1);
    assert_eq!(ran.err, "error: No such file or directory nosuch\n");
    for (path, why) in [("../x", "outside the base directory"), ("/etc/passwd", "outside the base directory")] {
        let ran = old.msync(&[path]).exits(1);
        assert!(ran.err.starts_with("error: ") && ran.err.contains(why) && ran.err.lines().count() == 1, "{ran}");
    }
    write(&base.join("a1.txt"), "1");
    write(&base.join("a2.txt"), "2");
    assert_eq!(old.msync(&["-v", "-t", "mk2", "a*.txt"]).exits(0).out, "update mk2:a1.txt\nupdate mk2:a2.txt\n");

    // The daemon is gone: one line, and no 0.
    let mut daemon = old.daemons[0].take().expect("runs");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(daemon.id() as i32), nix::sys::signal::Signal::SIGTERM)
        .expect("mine");
    assert!(daemon.wait().expect("mine").success(), "SIGTERM ends it well: {}", old.log(0));
    let ran = old.msync(&["-r"]).exits(1);
    assert!(ran.err.starts_with("error: can't connect tcp:127.0.0.1:5000") && ran.err.lines().count() == 1, "{ran}");
}

/// A client as plain as telnet.
struct Plain(Box<dyn Stream>);

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

impl Plain {
    fn tcp(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("listens");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("possible");
        Self(Box::new(stream))
    }

    fn unix(path: &Path) -> Self {
        let stream = UnixStream::connect(path).expect("listens");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("possible");
        Self(Box::new(stream))
    }

    /// What comes until it ends with `end`.
    fn until(&mut self, end: &[u8]) -> String {
        let (mut all, mut byte) = (Vec::new(), [0]);
        while !all.ends_with(end) {
            let got =
                self.0.read(&mut byte).unwrap_or_else(|e| panic!("{e} after {:?}", String::from_utf8_lossy(&all)));
            assert_eq!(got, 1, "ends after {:?}", String::from_utf8_lossy(&all));
            all.push(byte[0]);
        }
        all.truncate(all.len() - end.len());
        String::from_utf8(all).expect("text")
    }

    /// Says a line; the answer up to the next prompt.
    fn ask(&mut self, line: &str) -> String {
        self.0.write_all(format!("{line}\r\n").as_bytes()).expect("listens");
        self.until(b"> ")
    }

    /// Plays a transcript: lines that begin with `> ` are said, the others expected.
    fn play(&mut self, transcript: &str) {
        assert_eq!(self.until(b"> "), "");
        let mut said: Option<&str> = None;
        let mut expected = String::new();
        for line in transcript.lines().map(|l| l.strip_prefix("    ").unwrap_or(l)).chain(["> quit"]) {
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

const READ_ONLY: &str = "> members
    mk2 127.0.0.1 (VerVERSION)
    mk3 127.0.0.1 (VerVERSION)
    Total: 2 members
    > send -n -r
    (dryrun) [update:hoge.html]
    (dryrun) [update:sub/x]
    > alive on
    > loglevel 2
    > send -n -r
    (dryrun) update mk2:hoge.html
    (dryrun) skip   mk3:hoge.html
    (dryrun) update mk2:sub/x
    (dryrun) update mk3:sub/x
    > check -r
    mk2: NG hoge.html
    mk3: OK hoge.html
    mk2: NG sub/x
    mk3: NG sub/x
    > exclude add *.html
    > exclude add sub/y
    > exclude list
    *.html
    sub/y
    > send -n -r
    (dryrun) update mk2:sub/x
    (dryrun) update mk3:sub/x
    > exclude del sub/y
    > exclude del sub/y
    error: pattern not found sub/y
    > exclude clear
    > exclude list
    > loglevel 0
    > check -r sub
    mk2: NG sub/x
    mk3: NG sub/x
    > dsync -n -r
    (dryrun) delete mk3:extra
    > send nosuch
    error: No such file or directory nosuch
    > send -t nohost -r
    nohost is not contained in members
    > send -x
    error: invalid option -- x
    > fetch
    error: unknown command 'fetch': see help
    > loglevel
    usage: loglevel num (0-9)
    > alive off
    > echo > a
    \\x3e a
    > help
    COMMAND:
      quit
      exclude add PATTERN
      exclude del PATTERN
      exclude list
      exclude clear
      send  [-n] [-r] [-D] [-t host] [-g group] [path]
      sync  [-n] [-r] [-t host] [-g group] [path]
      dsync [-n] [-r] [-t host] [path]
      check [-r] [-t host] [path]
      alive on|off
      loglevel num (0-9)
      members
      status
      help";

const WRITES: &str = "> loglevel 2
    > send -r
    update mk2:hoge.html
    skip   mk3:hoge.html
    update mk2:sub/x
    update mk3:sub/x
    > check -r
    mk2: OK hoge.html
    mk3: OK hoge.html
    mk2: OK sub/x
    mk3: OK sub/x
    > dsync -r
    delete mk3:extra
    > sync -r
    skip   mk2:hoge.html
    skip   mk3:hoge.html
    skip   mk2:sub/x
    skip   mk3:sub/x";

#[test]
fn the_console_says_what_the_old_one_said() {
    let Some(mut old) = Old::loopback(3) else { return };
    let (port, socket) = (fastrand::u16(32_000..40_000), old.lab.path("console"));
    write(&old.base(0).join("hoge.html"), "hoge\n");
    write(&old.base(0).join("sub/x"), "x\n");
    let copied = Command::new("cp").arg("-a").arg(old.base(0).join("hoge.html")).arg(old.base(2)).status();
    assert!(copied.expect("cp").success());
    write(&old.base(2).join("extra"), "");
    write(&old.base(2).join("sub/y"), "");
    std::fs::remove_file(old.base(2).join("sub/y")).expect("there");
    old.start(1, &["-o"]);
    old.start(2, &["-o"]);
    // The network's port is in the configuration; -p would be both.
    let config = format!("[console]\nlisten = \"127.0.0.1:{port}\"\nsocket = {socket:?}\n");
    old.start_with(0, &config);
    old.know_each_other(Some(&socket));

    let transcript = READ_ONLY.replace("VERSION", env!("CARGO_PKG_VERSION"));
    Plain::tcp(port).play(&transcript);
    Plain::unix(&socket).play(&transcript);
    std::thread::scope(|scope| {
        for number in 0..6 {
            let (transcript, socket) = (&transcript, &socket);
            let client = move || if number % 2 == 0 { Plain::tcp(port) } else { Plain::unix(socket) };
            scope.spawn(move || client().play(transcript));
        }
    });
    Plain::unix(&socket).play(WRITES);
    let mut plain = Plain::tcp(port);
    plain.until(b"> ");
    let status = plain.ask("status");
    assert!(status.contains(&format!("basedir: {}/\n", old.base(0).display())), "{status}");
    for line in ["process: ", "version: ", "command: 0", "send op: 0", "recv op: 0"] {
        assert!(status.lines().any(|l| l.starts_with(line)), "{status}");
    }
    plain.0.write_all(b"quit\n").expect("listens");
    assert_eq!(plain.0.read(&mut [0]).expect("the end"), 0);
}

impl Old {
    /// Starts a host with a console as `console` says.
    fn start_with(&mut self, host: usize, console: &str) {
        // Writes the configuration as a host without a console has it.
        let _ = self.command(host, &[]);
        let path = self.dir(host).join("makuo.toml");
        let text = String::from_utf8(read(&path)).expect("text");
        write(&path, text.replace("[console]\nlisten = \"off\"\n", console));
        let log = std::fs::File::create(self.dir(host).join("log")).expect("a log");
        let mut command = self.places[host].command(self.lab.path("makuosan").to_str().expect("UTF-8"));
        command.args(["-n", "-b"]).arg(self.base(host)).arg("--config").arg(path);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::from(log));
        self.daemons[host] = Some(command.spawn().expect("starts"));
        let control = self.dir(host).join("control");
        until("a daemon that listens", || UnixStream::connect(&control).is_ok());
    }
}

#[test]
fn who_hangs_up_takes_the_command_back() {
    let Some(mut old) = Old::loopback(2) else { return };
    let socket = old.lab.path("console");
    write(&old.base(0).join("big"), support::Noise::new(1).bytes(8 << 20));
    old.start(1, &["-o"]);
    // 8 MiB at a megabit take a minute.
    let path = socket.to_str().expect("UTF-8").to_string();
    old.start(0, &["-U", &path, "-T", "1"]);
    old.know_each_other(Some(&socket));
    let mut plain = Plain::unix(&socket);
    plain.until(b"> ");
    plain.0.write_all(b"send big\n").expect("listens");
    let status = || old.msync_at(0, Some(&socket), &["--status"]).exits(0).out;
    until("a session", || status().contains("send op: 1"));
    assert!(status().contains("> send big"), "the others' commands are told");
    drop(plain);
    until("its end", || status().contains("send op: 0"));
    assert!(!old.base(1).join("big").exists());
    write(&old.base(0).join("small"), "small");
    old.msync_at(0, Some(&socket), &["small"]).exits(0);
    assert_eq!(read(&old.base(1).join("small")), b"small");
    // The daemon's end takes it back, too.
    let mut plain = Plain::unix(&socket);
    plain.until(b"> ");
    plain.0.write_all(b"send big\n").expect("listens");
    until("a session", || status().contains("send op: 1"));
    let mut daemon = old.daemons[0].take().expect("runs");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(daemon.id() as i32), nix::sys::signal::Signal::SIGTERM)
        .expect("mine");
    assert!(daemon.wait().expect("mine").success(), "{}", old.log(0));
    assert!(!old.base(1).join("big").exists());
}

#[test]
fn a_password_is_asked_for() {
    let Some(mut old) = Old::loopback(1) else { return };
    let (socket, password, wrong) = (old.lab.path("console"), old.lab.path("password"), old.lab.path("wrong"));
    for (file, text) in [(&password, "sesame\n"), (&wrong, "barley\n")] {
        write(file, text);
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).expect("mine");
    }
    old.start(0, &["-U", socket.to_str().expect("UTF-8"), "-K", password.to_str().expect("UTF-8"), "-s"]);
    let mut plain = Plain::unix(&socket);
    assert_eq!(plain.until(b"password: \x1bE"), "");
    plain.0.write_all(b"sesame\r\n").expect("listens");
    assert_eq!(plain.until(b"> "), "");
    assert_eq!(plain.ask("send -r"), "error: this server can't send\n");
    // An older client knows another prompt, and gets it when it does not answer the first.
    let mut older = Plain::unix(&socket);
    older.until(b"\r\npassword: \x1b]E");
    older.0.write_all(b"sesame\r\n").expect("listens");
    assert_eq!(older.until(b"> "), "");
    let msync = |args: &[&str]| old.msync_at(0, Some(&socket), args);
    msync(&["-K", password.to_str().expect("UTF-8"), "--status"]).exits(0);
    let ran = msync(&["-K", wrong.to_str().expect("UTF-8"), "--status"]).exits(1);
    assert_eq!(ran.err, "error: wrong password\n");
    let ran = msync(&["--status"]).exits(2);
    assert!(ran.err.contains("asks for a password"), "{ran}");
}

#[test]
fn passwords_are_not_tried_faster_over_more_connections() {
    let Some(mut old) = Old::loopback(1) else { return };
    let (socket, password) = (old.lab.path("console"), old.lab.path("password"));
    write(&password, "sesame\n");
    std::fs::set_permissions(&password, std::fs::Permissions::from_mode(0o600)).expect("mine");
    old.start(0, &["-U", socket.to_str().expect("UTF-8"), "-K", password.to_str().expect("UTF-8")]);
    let watch = support::Stopwatch::start();
    let mut thieves: Vec<Plain> = (0..3).map(|_| Plain::unix(&socket)).collect();
    thieves.iter_mut().for_each(|thief| thief.0.write_all(b"barley\r\n").expect("listens"));
    thieves.iter_mut().for_each(|thief| drop(thief.until(b"error: wrong password")));
    // Two at a time, and two seconds each: the third has waited for one of the others. A slow machine takes longer.
    assert!(watch.read() >= Duration::from_secs(4), "{:?}", watch.read());
    let mut owner = Plain::unix(&socket);
    owner.until(b"password: \x1bE");
    owner.0.write_all(b"sesame\r\n").expect("listens");
    assert_eq!(owner.until(b"> "), "");
}

#[test]
fn makuosan_lets_go_of_the_terminal() {
    let Some(old) = Old::loopback(1) else { return };
    let ran = Running::start(&mut old.command(0, &["-f", "5", "-R", "1000"])).wait().exits(0);
    let process = ran.err.lines().find_map(|l| l.strip_prefix("pid       : ")).expect("a process");
    let process: i32 = process.trim().parse().expect("a number");
    assert_eq!(ran.err.matches("-f has no meaning any more").count(), 1, "{ran}");
    assert!(ran.err.contains(&format!("makuosan[{process}]: ")), "{ran}");
    let stat = String::from_utf8(read(Path::new(&format!("/proc/{process}/stat")))).expect("text");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
    assert_eq!(fields[3], process.to_string(), "a session of its own: {stat}");
    // A second one for the same base says why it cannot.
    let ran = Running::start(&mut old.command(0, &[])).wait();
    assert!(ran.code != 0 && ran.err.contains("another makuo daemon serves"), "{ran}");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(process), nix::sys::signal::Signal::SIGTERM).expect("mine");
    let control = old.dir(0).join("control");
    until("its end", || !control.exists());
}

#[test]
fn files_are_sent_through_the_control_socket() {
    let Some(mut old) = Old::loopback(3) else { return };
    (0..3).for_each(|host| old.start(host, &["-o"]));
    let control = old.dir(0).join("control");
    assert_eq!(std::fs::metadata(&control).expect("there").mode() & 0o777, 0o600);
    let socket = control.to_str().expect("UTF-8");
    let makuo = |args: &[&str]| {
        let mut command = old.places[0].command(env!("CARGO_BIN_EXE_makuo"));
        command.args(args).args(["--socket", socket]).env_remove("MAKUO_CONFIG");
        Running::start(&mut command).wait()
    };
    let base = old.base(0);
    for file in ["img/a.png", "img/b.png", "img/c.txt", "img/deep/d.png"] {
        write(&base.join(file), file);
    }
    until("members", || makuo(&["send", "-n", "img/a.png", "--json"]).result()["targets"].as_u64() == Some(2));
    makuo(&["send", "img/*.png"]).exits(0);
    assert_eq!(read(&old.base(1).join("img/b.png")), b"img/b.png");
    assert!(!old.base(1).join("img/c.txt").exists() && !old.base(1).join("img/deep").exists());
    makuo(&["send", "-r", "-t", "mk2", "img"]).exits(0);
    assert!(old.base(1).join("img/deep/d.png").exists() && !old.base(2).join("img/deep").exists());

    // A deletion never leaves the scope.
    write(&old.base(1).join("img/extra"), "");
    write(&old.base(1).join("outside"), "");
    std::fs::remove_file(base.join("img/a.png")).expect("there");
    let json = makuo(&["sync", "-r", "--json", "img"]).exits(0);
    assert_eq!(json.result()["files_deleted"].as_u64(), Some(3), "{json}");
    assert!(!old.base(1).join("img/extra").exists() && old.base(1).join("outside").exists());
    assert!(!old.base(2).join("img/a.png").exists());
    makuo(&["send", "nosuch"]).exits(2).says(&["No such file or directory nosuch"]);
    makuo(&["send", "-r", "-D", "."]).exits(0);
    assert!(!old.base(1).join("outside").exists());
    // This host itself took no part in any of it.
    assert!(!old.log(0).contains("Committed"), "{}", old.log(0));
}
