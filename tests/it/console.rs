//! The console for msync and telnet: transcripts over TCP and a unix socket, the password, and
//! closed connections.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};

use crate::support::{self, Old, Plain, read, until, write};

const READ_ONLY: &str = "> members
    mk2 127.0.0.1 (VerVERSION)
    mk3 127.0.0.1 (VerVERSION)
    Total: 2 members
    > send -n -r
    (dryrun) [update:hoge.html]
    (dryrun) [update:sub/x]
    (dryrun) [update:way]
    > alive on
    > loglevel 2
    > send -n -r
    (dryrun) update mk2:hoge.html
    (dryrun) skip   mk3:hoge.html
    (dryrun) update mk2:sub/x
    (dryrun) update mk3:sub/x
    (dryrun) update mk2:way
    (dryrun) update mk3:way
    > check -r
    mk2: NG hoge.html
    mk3: OK hoge.html
    mk2: NG sub/x
    mk3: NG sub/x
    mk2: NG way
    mk3: NG way
    > exclude add *.html
    > exclude add sub/y
    > exclude list
    *.html
    sub/y
    > send -n -r
    (dryrun) update mk2:sub/x
    (dryrun) update mk3:sub/x
    (dryrun) update mk2:way
    (dryrun) update mk3:way
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
    > send ../x
    error: ../x is outside the base directory BASE
    > send /etc/passwd
    error: /etc/passwd is outside the base directory BASE
    > send way/passwd
    error: way/passwd is behind a symbolic link (name the path that the link leads to, when that is in the tree)
    > send -n 'hoge*'
    (dryrun) [update:hoge.html]
    > send -n *.nosuch
    error: No such file or directory *.nosuch
    > send \"hoge
    error: a quote is not closed
    > md5 hoge.html
    mk2: NG hoge.html
    > send -x
    error: invalid option -- x
    > send
    usage: send [-n] [-r] [-D] [-t host] [-g group] [path]
      -n  # dryrun
      -r  # recursive
      -D  # with delete
      -t  # target host
      -g  # group of what is written
    > sync -n
    usage: sync [-n] [-r] [-t host] [-g group] [path]
      -n  # dryrun
      -r  # recursive
      -t  # target host
      -g  # group of what is written
    > dsync
    usage: dsync [-n] [-r] [-t host] [path]
      -n  # dryrun
      -r  # recursive
      -t  # target host
    > check
    usage: check [-r] [-t host] [path]
      -r  # dir recursive
      -t  # target host
    > exclude
    usage: exclude add PATTERN
           exclude del PATTERN
           exclude list
           exclude clear
    > alive
    usage: alive on|off
    > sync -n -r
    (dryrun) [update:hoge.html]
    (dryrun) [update:sub/x]
    (dryrun) [update:way]
    (dryrun) [delete:extra]
    > 
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
    update mk2:way
    update mk3:way
    > check -r
    mk2: OK hoge.html
    mk3: OK hoge.html
    mk2: OK sub/x
    mk3: OK sub/x
    mk2: OK way
    mk3: OK way
    > dsync -r
    delete mk3:extra
    > sync -r
    skip   mk2:hoge.html
    skip   mk3:hoge.html
    skip   mk2:sub/x
    skip   mk3:sub/x
    skip   mk2:way
    skip   mk3:way";

const DELETES: &str = "> loglevel 1
    > sync -n sub/x
    (dryrun) delete mk2:sub/x
    (dryrun) delete mk3:sub/x
    > sync sub/x
    delete mk2:sub/x
    delete mk3:sub/x
    > sync sub/x
    error: No such file or directory sub/x
    > send -r -D sub
    > dsync -t mk2 -n -r
    (dryrun) delete mk2:other";

#[test]
fn the_console_says_what_the_old_one_said() {
    let Some(mut old) = Old::loopback(3) else {
        return;
    };

    let (port, socket) = (fastrand::u16(32_000..40_000), old.lab.path("console"));
    write(&old.base(0).join("hoge.html"), "hoge\n");
    write(&old.base(0).join("sub/x"), "x\n");
    let copied = Command::new("cp")
        .arg("-a")
        .arg(old.base(0).join("hoge.html"))
        .arg(old.base(2))
        .status();

    assert!(copied.expect("cp").success());
    write(&old.base(2).join("extra"), "");
    write(&old.base(2).join("sub/y"), "");
    std::fs::remove_file(old.base(2).join("sub/y")).expect("there");
    std::os::unix::fs::symlink("/etc", old.base(0).join("way")).expect("new");

    // The configuration sets the network's port; -p would set both ports.
    old.console(
        0,
        &format!("listen = \"127.0.0.1:{port}\"\nsocket = {socket:?}"),
    );

    (0..3).for_each(|host| old.start(host, &[]));
    old.know_each_other(Some(&socket));

    let transcript = READ_ONLY.replace("VERSION", env!("CARGO_PKG_VERSION"));
    let transcript = transcript.replace("BASE", old.base(0).to_str().expect("UTF-8"));
    Plain::tcp(port).play(&transcript);
    Plain::unix(&socket).play(&transcript);

    std::thread::scope(|scope| {
        for number in 0..6 {
            let (transcript, socket) = (&transcript, &socket);
            let client = move || {
                if number % 2 == 0 {
                    Plain::tcp(port)
                } else {
                    Plain::unix(socket)
                }
            };
            scope.spawn(move || client().play(transcript));
        }
    });

    Plain::unix(&socket).play(WRITES);
    // `sync` deletes files missing at the sender, but only below the path.
    write(&old.base(1).join("other"), "stays");
    std::fs::remove_file(old.base(0).join("sub/x")).expect("there");
    Plain::tcp(port).play(DELETES);
    assert!(old.base(1).join("other").exists() && !old.base(1).join("sub").join("x").exists());
    let mut plain = Plain::tcp(port);

    plain.until(b"> ");
    let status = plain.ask("status");
    assert!(
        status.contains(&format!("basedir: {}/\n", old.base(0).display())),
        "{status}"
    );
    let process = format!("process: {}", old.pid(0));

    for line in [
        process.as_str(),
        "version: ",
        "command: 0",
        "send op: 0",
        "recv op: 0",
    ] {
        assert!(status.lines().any(|l| l.starts_with(line)), "{status}");
    }

    for word in ["quit", "exit", "bye"] {
        let mut plain = Plain::unix(&socket);
        plain.until(b"> ");
        plain.say(format!("{word}\n").as_bytes());
        assert!(plain.is_over(), "{word}");
    }

    // Pipelined commands are answered one after the other.
    let mut plain = Plain::tcp(port);
    plain.say(b"echo one\necho two\r\n\nquit\n");
    assert_eq!(plain.until(b"> > "), "> one\n> two\n");
    assert!(plain.is_over());

    // An unterminated line does not block: a closed connection ends the session.
    let mut plain = Plain::tcp(port);
    plain.until(b"> ");
    plain.say(&[b'x'; 20_000]);
    assert!(plain.is_over());

    assert!(!old.log(0).contains("panicked"), "{}", old.log(0));
}

/// Requests that a web page, or a program tricked into a request, can send to the port.
const REQUESTS: [&str; 4] = [
    "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: text/plain\r\nContent-Length: 99\r\n\r\nsend -r\r\nsync gone\r\nquit\r\n",
    "GET /%0d%0asend%20-r HTTP/1.0\r\nX: y\r\nsend -r\r\n\r\n",
    // A page rebound to this address can choose the method.
    "send / HTTP/1.1\r\nHost: x\r\n\r\nsend -r\r\n",
    "\x16\x03\x01\x02\nsend -r\n",
];

#[test]
fn a_request_of_http_never_runs_a_command() {
    let Some(mut old) = Old::loopback(2) else {
        return;
    };

    let port = fastrand::u16(32_000..40_000);
    write(&old.base(0).join("page"), "new");
    write(&old.base(1).join("gone"), "stays");
    old.console(0, &format!("listen = \"127.0.0.1:{port}\""));
    (0..2).for_each(|host| old.start(host, &[]));
    let unharmed =
        |old: &Old| !old.base(1).join("page").exists() && old.base(1).join("gone").exists();

    for request in REQUESTS {
        let mut plain = Plain::tcp(port);
        plain.say(request.as_bytes());
        assert_eq!(plain.until(b"> "), "");
        assert!(
            plain.until(b"\n").starts_with("error: unknown command '"),
            "{request}"
        );
        assert!(plain.is_over(), "{request}");
        assert!(unharmed(&old), "{request}");
    }

    let curl = |args: &[&str]| {
        let mut command = Command::new("curl");
        command
            .args(["-s", "-m", "20"])
            .args(args)
            .arg(format!("http://127.0.0.1:{port}/"));
        command.output().is_ok()
    };

    let body = "send -r page\r\nsync gone\r\nquit\r\n";
    let posts = [
        &["-H", "Content-Type: text/plain", "--data-binary", body][..],
        &["-X", "sync -r .", "-d", body],
    ];

    for post in posts {
        if !curl(post) {
            support::skipped("there is no curl to ask with");
        }
        assert!(unharmed(&old), "{post:?}");
    }

    // The same lines work from a console client.
    let mut plain = Plain::tcp(port);
    plain.until(b"> ");
    assert_eq!(plain.ask("send -r page"), "");

    assert_eq!(read(&old.base(1).join("page")), b"new");
}

/// Sends `lines` to the console at `port` as user `uid`, from a separate process, and returns the
/// whole answer.
fn said_by(uid: u32, port: u16, lines: &str) -> String {
    let script = "exec 3<>/dev/tcp/127.0.0.1/$1; printf \"$2\" >&3; timeout 20 cat <&3";
    let ids = [
        format!("--reuid={uid}"),
        format!("--regid={uid}"),
        "--clear-groups".into(),
    ];
    let mut command = Command::new("setpriv");
    command
        .args(ids)
        .args(["bash", "-c", script, "bash", &port.to_string(), lines]);
    let output = command.output().expect("setpriv and bash");

    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

const NEEDS_A_PASSWORD: &str = "error: over TCP this needs a password";

#[test]
fn over_tcp_only_root_and_the_daemons_user_change_others_without_a_password() {
    let Some(mut old) = Old::loopback(2) else {
        return;
    };
    let (port, socket) = (fastrand::u16(32_000..40_000), old.lab.path("console"));
    write(&old.base(0).join("page"), "new");
    old.console(
        0,
        &format!("listen = \"127.0.0.1:{port}\"\nsocket = {socket:?}"),
    );
    (0..2).for_each(|host| old.start(host, &[]));
    old.know_each_other(Some(&socket));
    if support::is_root() {
        for command in ["send -r", "sync -r", "dsync -r", "send page", "sync page"] {
            let told = said_by(65_534, port, &format!("{command}\\nquit\\n"));
            assert!(told.contains(NEEDS_A_PASSWORD), "{command}: {told}");
        }
        let told = said_by(65_534, port, "send -n -r\\ncheck -r\\nmembers\\nquit\\n");
        assert!(
            told.contains("(dryrun) [update:page]") && told.contains("mk2: NG page"),
            "{told}"
        );
        // A socket closed at once has no owner, and the kernel shows root instead.
        for _ in 0..20 {
            let script = "exec 3<>/dev/tcp/127.0.0.1/$1; printf 'send -r\\n' >&3; exec 3>&-";
            let ids = ["--reuid=65534", "--regid=65534", "--clear-groups"];
            let mut command = Command::new("setpriv");
            command
                .args(ids)
                .args(["bash", "-c", script, "bash", &port.to_string()]);
            assert!(command.status().expect("setpriv").success());
        }
        support::pause(Duration::from_millis(500));
        assert!(!old.base(1).join("page").exists());
    } else {
        support::skipped("only root can become another user");
    }
    let mut plain = Plain::tcp(port);
    plain.until(b"> ");
    assert_eq!(plain.ask("send -r"), "");
    assert_eq!(read(&old.base(1).join("page")), b"new");
}

#[test]
fn without_the_old_name_there_is_no_port_unless_told_and_it_needs_the_password() {
    let Some(mut lab) = support::Lab::loopback_idle() else {
        return;
    };
    let (port, key) = (fastrand::u16(32_000..40_000), lab.path("key"));
    let password = lab.path("password");
    write(&password, "sesame\n");
    std::fs::set_permissions(&password, std::fs::Permissions::from_mode(0o600)).expect("mine");
    let flags = lab.admin.flags();
    let host = lab.host("web1");
    host.setting(&format!(
        "[sender]\nkey = {key:?}\n[console]\npassword = {password:?}"
    ));
    host.start();
    // Compares the process's descriptors with the kernel's table of listening sockets.
    let listens = |pid: u32| {
        let table = String::from_utf8(read(std::path::Path::new("/proc/net/tcp"))).expect("text");
        let inodes = table
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>());
        let inodes: Vec<String> = inodes
            .filter(|w| w.get(3) == Some(&"0A"))
            .map(|w| format!("socket:[{}]", w[9]))
            .collect();
        let open = std::fs::read_dir(format!("/proc/{pid}/fd"))
            .expect("it runs")
            .flatten();
        open.filter_map(|fd| std::fs::read_link(fd.path()).ok())
            .any(|to| inodes.iter().any(|i| to.as_os_str() == &**i))
    };
    assert!(!listens(host.pid()), "it listens at a TCP port");
    host.kill();

    let console = ["--console".to_string(), format!("127.0.0.1:{port}")];
    host.flags = Some([flags, console.to_vec()].concat());
    host.start();
    assert!(listens(host.pid()));
    let mut plain = Plain::tcp(port);
    assert_eq!(plain.until(b"password: \x1bE"), "");
    plain.say(b"sesame\r\n");
    assert_eq!(plain.until(b"> "), "");
    assert!(!plain.ask("send -r").contains(NEEDS_A_PASSWORD));
    host.kill();

    drop(lab);
    let Some(mut lab) = support::Lab::loopback_idle() else {
        return;
    };
    let (flags, key) = (lab.admin.flags(), lab.path("key"));
    let host = lab.host("web1");
    host.setting(&format!("[sender]\nkey = {key:?}"));
    host.flags = Some([flags, console.to_vec()].concat());
    host.start();
    // Root is refused as well.
    let mut plain = Plain::tcp(port);
    plain.until(b"> ");
    for command in ["send -r", "sync -r", "dsync -r"] {
        assert!(
            plain.ask(command).starts_with(NEEDS_A_PASSWORD),
            "{command}"
        );
    }
    assert!(!plain.ask("send -n -r").contains(NEEDS_A_PASSWORD));
}

#[test]
fn msync_says_nothing_to_somebody_elses_listener() {
    if !support::is_root() {
        return support::skipped("only root can listen as another user");
    }

    let Some(old) = Old::loopback(1) else { return };
    // The owner of a socket is the user of the thread that creates the socket.
    let listener = std::thread::spawn(|| {
        nix::unistd::setfsuid(65_534.into());
        std::net::TcpListener::bind("127.0.0.1:0")
    });

    let listener = listener.join().expect("no panic").expect("free");
    let target = format!("tcp:{}", listener.local_addr().expect("bound"));
    let password = old.lab.path("password");
    write(&password, "sesame\n");
    std::fs::set_permissions(&password, std::fs::Permissions::from_mode(0o600)).expect("mine");
    let password = password.to_str().expect("UTF-8");
    let ran = old
        .msync_at(0, None, &["-c", &target, "-K", password, "--status"])
        .exits(1);

    assert!(
        ran.err
            .contains("who is neither root nor you: nothing was sent"),
        "{ran}"
    );

    let mut said = Vec::new();
    std::io::Read::read_to_end(&mut listener.accept().expect("was there").0, &mut said)
        .expect("ended");

    assert_eq!(said, b"");
}

#[test]
fn who_hangs_up_takes_the_command_back() {
    let Some(mut old) = Old::loopback(2) else {
        return;
    };

    let socket = old.lab.path("console");
    write(
        &old.base(0).join("big"),
        support::Noise::new(1).bytes(8 << 20),
    );
    old.start(1, &["-o"]);

    // 8 MiB take a minute at one megabit.
    let path = socket.to_str().expect("UTF-8").to_string();
    old.start(0, &["-U", &path, "-T", "1"]);
    old.know_each_other(Some(&socket));
    let mut plain = Plain::unix(&socket);
    plain.until(b"> ");
    assert_eq!(plain.ask("alive on"), "");

    plain.say(b"send big\n");
    let status = || old.msync_at(0, Some(&socket), &["--status"]).exits(0).out;
    until("a session", || status().contains("send op: 1"));
    assert!(
        status().contains("> send big"),
        "the others' commands are told"
    );

    // A second command on the same tree waits for the first, and is dropped when its client
    // disconnects.
    let mut waiting = Plain::unix(&socket);
    waiting.until(b"> ");
    waiting.say(b"send -n -r\n");
    until("two commands", || status().contains("command: 2"));
    drop(waiting);
    until("one command", || status().contains("command: 1"));

    assert_eq!(plain.until(b"\n"), "alive", "a sign of life");
    drop(plain);
    until("its end", || status().contains("send op: 0"));
    assert!(!old.base(1).join("big").exists());
    write(&old.base(0).join("small"), "small");
    old.msync_at(0, Some(&socket), &["small"]).exits(0);
    assert_eq!(read(&old.base(1).join("small")), b"small");

    // The end of the daemon also reverts the command.
    let mut plain = Plain::unix(&socket);
    plain.until(b"> ");
    plain.say(b"send big\n");
    until("a session", || status().contains("send op: 1"));
    old.stop(0);
    assert!(!old.base(1).join("big").exists());

    assert!(
        !socket.exists(),
        "a socket that nobody listens to is removed"
    );
}

#[test]
fn a_password_is_asked_for() {
    let Some(mut old) = Old::loopback(1) else {
        return;
    };
    let file = |name: &str, text: &str| -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = old.lab.path(name);
        write(&path, text);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("mine");
        path
    };
    let (password, wrong, socket) = (
        file("password", "sesame\n"),
        file("wrong", "barley\n"),
        old.lab.path("console"),
    );
    let text = |path: &PathBuf| path.to_str().expect("UTF-8").to_string();
    let (password_text, wrong_text) = (text(&password), text(&wrong));
    old.start(0, &["-U", &text(&socket), "-K", &password_text, "-s"]);
    let mut plain = Plain::unix(&socket);
    assert_eq!(plain.until(b"password: \x1bE"), "");
    plain.say(b"sesame\r\n");
    assert_eq!(plain.until(b"> "), "");
    assert_eq!(plain.ask("send -r"), "error: this server can't send\n");
    // An older client expects another prompt, and gets that prompt after leaving the first
    // unanswered.
    let mut older = Plain::unix(&socket);
    older.until(b"\r\npassword: \x1b]E");
    older.say(b"sesame\r\n");
    assert_eq!(older.until(b"> "), "");
    let msync = |args: &[&str]| old.msync_at(0, Some(&socket), args);
    msync(&["-K", &password_text, "--status"]).exits(0);
    let ran = msync(&["-K", &wrong_text, "--status"]).exits(1);
    assert_eq!(ran.err, "error: wrong password\n");
    let ran = msync(&["--status"]).exits(2);
    assert!(
        ran.err.contains("asks for a password") && ran.err.lines().count() == 1,
        "{ran}"
    );
    // SIGHUP loads the new password.
    write(&password, "barley\n");
    kill(old.pid(0), Signal::SIGHUP).expect("runs");
    until("the new password", || old.log(0).contains("keys"));
    msync(&["-K", &wrong_text, "--status"]).exits(0);
}

#[test]
fn passwords_are_not_tried_faster_over_more_connections() {
    let Some(mut old) = Old::loopback(1) else {
        return;
    };

    let (socket, password) = (old.lab.path("console"), old.lab.path("password"));
    write(&password, "sesame\n");
    std::fs::set_permissions(&password, std::fs::Permissions::from_mode(0o600)).expect("mine");
    old.start(
        0,
        &[
            "-U",
            socket.to_str().expect("UTF-8"),
            "-K",
            password.to_str().expect("UTF-8"),
        ],
    );

    let watch = support::Stopwatch::start();
    let mut thieves: Vec<Plain> = (0..3).map(|_| Plain::unix(&socket)).collect();
    thieves
        .iter_mut()
        .for_each(|thief| thief.say(b"barley\r\n"));
    thieves
        .iter_mut()
        .for_each(|thief| drop(thief.until(b"error: wrong password")));

    // Two at a time, two seconds each: the third has waited for one of the others. A slow machine
    // takes longer.
    assert!(watch.read() >= Duration::from_secs(4), "{:?}", watch.read());
    let mut owner = Plain::unix(&socket);
    owner.until(b"password: \x1bE");
    owner.say(b"sesame\r\n");

    assert_eq!(owner.until(b"> "), "");
}

/// Returns the state of a process as in proc_pid_stat(5).
fn state(process: u32) -> String {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("runs");
    let after_name = stat.rsplit(')').next().expect("its form");
    after_name.split_whitespace().take(1).collect()
}

#[test]
fn an_msync_that_was_stopped_and_continued_goes_on() {
    let Some(mut old) = Old::loopback(1) else {
        return;
    };

    let socket = old.lab.path("console");
    old.start(0, &["-U", socket.to_str().expect("UTF-8")]);
    let daemon = old.pid(0);

    // The daemon does not answer yet: msync waits in a read.
    kill(daemon, Signal::SIGSTOP).expect("runs");
    let msync = old.start_msync_at(0, Some(&socket), &["--members"]);
    for _ in 0..3 {
        until("a read", || state(msync.pid()) == "S");
        msync.signal(Signal::SIGSTOP);
        until("a stop", || state(msync.pid()) == "T");
        msync.signal(Signal::SIGCONT);
    }
    kill(daemon, Signal::SIGCONT).expect("runs");

    let ran = msync.wait().exits(0);
    assert_eq!(ran.out, "Total: 0 members\n");
}

#[test]
fn msync_says_in_one_line_why_it_cannot() {
    let Some(old) = Old::loopback(1) else { return };
    let socket = old.lab.path("nobody");
    let ran = old.msync_at(0, Some(&socket), &["-r"]).exits(1);
    assert_eq!(
        (ran.err.lines().count(), ran.out.as_str()),
        (1, ""),
        "{ran}"
    );
    assert!(
        ran.err
            .starts_with(&format!("error: can't connect unix:{}", socket.display())),
        "{ran}"
    );
    for (args, code) in [
        (&["-c", "tcp:nowhere", "-r"][..], 2),
        (&["-f", "/nowhere/script"], 2),
        (&["-K", "/nowhere/password", "-r"], 2),
        (&["--check", "--delete"], 2),
        (&[], 2),
        (&["-c", "tcp:127.0.0.1:1", "--members"], 1),
    ] {
        let ran = old.msync_at(0, None, args).exits(code);
        assert!(!ran.err.is_empty() && ran.out.is_empty(), "{ran}");
    }
    for args in [["-h"], ["--help"], ["--version"]] {
        assert!(old.msync_at(0, None, &args).exits(0).out.contains("msync"));
    }
}
