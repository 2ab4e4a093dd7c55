//! Isolation of a run: namespaces of processes and mounts that end with the runner, and memory for
//! the trees.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use super::say;
use crate::support::run::{tool, try_tool};

/// Set for the runner inside the namespaces.
const MARK: &str = "MAKUO_BENCH_INSIDE";
/// Directory of the trees: a private tmpfs, invisible to other processes.
const MEMORY: &str = "/dev/shm";

/// Position of this process.
pub enum Entered {
    /// Inside the namespaces, ready to measure.
    Here,
    /// Outside; the inner process has exited with this code.
    Over(u8),
    /// The machine does not support the namespaces.
    Impossible(String),
}

/// Restarts this program inside new namespaces. The runner is their first process, so the kernel
/// ends all others with the runner, and the runner ends with this process: no daemon, namespace or
/// tree remains, even after Ctrl-C.
pub fn enter() -> Entered {
    if std::env::var_os(MARK).is_some() {
        tool(Command::new("mount").args([
            "-t",
            "tmpfs",
            "-o",
            "size=90%,nr_inodes=0,mode=0700",
            "makuo-bench",
            MEMORY,
        ]));
        tempfile::env::override_temp_dir(Path::new(MEMORY)).expect("not asked for before");
        return Entered::Here;
    }

    let mut flags = vec!["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
    if !crate::support::is_root() {
        flags.extend(["--user", "--map-root-user"]);
    }

    if let Err(why) = try_tool(
        Command::new("unshare")
            .args(&flags)
            .args(["unshare", "--net", "true"]),
    ) {
        return Entered::Impossible(format!("no namespaces of one's own here: {why}"));
    }

    for program in ["ip", "tc", "nft", "rsync", "setpriv", "nsenter", "mount"] {
        let answers = try_tool(Command::new(program).arg("--version"));
        if let Err(why) = answers.or_else(|_| try_tool(Command::new(program).arg("-V"))) {
            return Entered::Impossible(why);
        }
    }

    again(&flags).unwrap_or_else(Entered::Impossible)
}

fn again(flags: &[&str]) -> Result<Entered, String> {
    let program = std::env::current_exe().map_err(|e| format!("this program's name: {e}"))?;
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "unshare"])
        .args(flags)
        .arg(program)
        .args(std::env::args_os().skip(1));

    let status = command
        .env(MARK, "1")
        .status()
        .map_err(|e| format!("{command:?}: {e}"))?;

    Ok(Entered::Over(
        status
            .code()
            .and_then(|code| u8::try_from(code).ok())
            .unwrap_or(1),
    ))
}

/// Touches `bytes` of memory once, or all available memory. The first use of a page costs several
/// times as much as later ones, at the expense of the first tool.
pub fn warm(bytes: u64) {
    let bytes = bytes.min(available() / 2);
    say(&format!("warming up {} MB of memory", bytes / 1_000_000));
    let mut file = tempfile::tempfile_in(MEMORY).expect("a file in memory");
    let piece = vec![1; 1 << 20];
    for _ in 0..bytes >> 20 {
        file.write_all(&piece).expect("there is room");
    }
}

/// Returns the bytes of free or reclaimable memory.
pub fn available() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").expect("readable");
    let line = text
        .lines()
        .find_map(|l| l.strip_prefix("MemAvailable:"))
        .expect("every kernel tells");
    line.trim()
        .trim_end_matches(" kB")
        .parse::<u64>()
        .expect("a number")
        << 10
}
