//! Machines that commands of a document run on: each has files of its own above those of this
//! system, a name, a network interface at the lab's switch, and ssh, scp and systemctl of the lab.
//!
//! All processes of the machines are in one process namespace, and end with it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::place::{Place, Switch};
use super::run::{tool, try_tool};
use super::{is_root, write};

const FILES: [(&str, &str); 5] = [
    ("lab.sh", include_str!("lab.sh")),
    ("machine.sh", include_str!("machine.sh")),
    ("ssh", include_str!("ssh")),
    ("scp", include_str!("scp")),
    ("systemctl", include_str!("systemctl")),
];

pub struct Machines {
    lab: Child,
    steps: ChildStdin,
    codes: BufReader<ChildStdout>,
    /// Ports of the machines, which live as long as the switch.
    _switch: Switch,
    dir: tempfile::TempDir,
}

impl Machines {
    /// Starts machines of these names, or returns what this system lacks for them. A fault of the
    /// lab itself panics. `prepare` writes the files that the first one has in its home directory.
    pub fn start(names: &[&str], prepare: impl Fn(&Path)) -> Result<Self, String> {
        if !is_root() {
            return Err("machines need root".to_string());
        }

        try_tool(Command::new("python3").arg("--version"))?;
        let dir = tempfile::tempdir().expect("a directory");
        try_layer(dir.path())?;
        let mut switch = Switch::new()?;
        let at = |name: &str| dir.path().join(name);
        for (name, text) in FILES {
            write(&at(name), text);
            let mode = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(at(name), mode).expect("mine");
        }

        let mut hosts = "127.0.0.1 localhost\n".to_string();
        let mut command = Command::new("unshare");
        command.args(["-m", "-p", "-f", "--kill-child", "sh"]);
        command.arg(at("lab.sh")).arg(dir.path());
        for (number, name) in (1..).zip(names) {
            let place = switch.plug();
            let holder = place.holder().expect("a port of a switch");
            hosts.push_str(&format!("10.77.0.{number} {name}\n"));
            command.arg(format!("{name}:{holder}"));
            std::fs::create_dir(at(name)).expect("new");
        }

        write(&at("hosts"), &hosts);
        std::fs::create_dir(at("lab")).expect("new");
        prepare(&at(names[0]));
        let errors = std::fs::File::create(at("errors")).expect("new");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut lab = command.stderr(errors).spawn().expect("a lab");
        let steps = lab.stdin.take().expect("piped");
        let codes = BufReader::new(lab.stdout.take().expect("piped"));
        let mut machines = Self {
            lab,
            steps,
            codes,
            _switch: switch,
            dir,
        };

        let line = machines.line();
        if line != "ready" {
            let errors = std::fs::read(machines.dir.path().join("errors")).expect("written");
            panic!("the lab: {line}\n{}", String::from_utf8_lossy(&errors));
        }

        Ok(machines)
    }

    /// Runs a shell script on a machine, in the directory and with the variables that the script
    /// before it left there. Returns the exit code and all output.
    pub fn run(&mut self, machine: &str, script: &str) -> (i32, String) {
        let head = format!(
            "cd \"$(cat /run/lab/cwd.{machine} 2>/dev/null || echo /root)\"\n\
             ! test -e /run/lab/env.{machine} || . /run/lab/env.{machine}\n\
             trap 'pwd >/run/lab/cwd.{machine}; export -p >/run/lab/env.{machine}' EXIT\n\
             set -ex\n"
        );
        let lab = self.dir.path().join("lab");
        write(&lab.join("step"), format!("{head}{script}\n"));
        writeln!(self.steps, "{machine}").expect("the lab runs");
        let code = self.line();
        let said = std::fs::read(lab.join("said")).expect("written");
        let said = String::from_utf8_lossy(&said).into_owned();
        (code.parse().unwrap_or(-1), said)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        let _ = self.codes.read_line(&mut line);
        line.trim().to_string()
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        let _ = self.lab.kill();
        let _ = self.lab.wait();
    }
}

/// Fails where a process cannot mount a layer over the files of this system.
fn try_layer(dir: &Path) -> Result<(), String> {
    let script = "set -e; mount --make-rprivate /; mount -t tmpfs none \"$0\"; cd \"$0\"; \
                  mkdir upper work root; \
                  mount -t overlay overlay -o \"lowerdir=/,upperdir=$0/upper,workdir=$0/work\" root";
    let mut command = Command::new("unshare");
    command
        .args(["-m", "-p", "-f", "sh", "-c", script])
        .arg(dir);
    try_tool(&mut command).map(drop)
}

/// Copies the files that a user has after a build into `home`/makuo.
pub fn built_source(home: &Path) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let source = home.join("makuo");
    std::fs::create_dir_all(source.join("target/release")).expect("new");
    for part in ["README.md", "packaging", "manifests", "completions"] {
        tool(
            Command::new("cp")
                .arg("-a")
                .arg(root.join(part))
                .arg(&source),
        );
    }

    let program = source.join("target/release/makuo");
    let made = env!("CARGO_BIN_EXE_makuo");
    let small = try_tool(Command::new("strip").arg("-o").arg(&program).arg(made));
    if small.is_err() {
        super::copy_program(&program);
    }
}
