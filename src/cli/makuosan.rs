//! `makuosan`: the old daemon's command line, run as a host of makuo.
//!
//! Without `-n` it lets go of the terminal: the process that was started waits until its daemon is ready or has failed,
//! and says which. The daemon is the same program again, told so by a variable of its environment.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use clap::Parser;

use super::daemon::{DaemonOptions, engine};
use super::network;
use crate::daemon::Manner;
use crate::face::makuosan::{Flags, Meant};
use crate::face::syslog::Log;
use crate::face::{USAGE, not_parsed};
use crate::{Error, Kind, Result};

/// Set for the daemon that a `makuosan` without `-n` starts.
const DETACHED: &str = "MAKUOSAN_DETACHED";
/// The variable that sd_notify(3) reads.
const NOTIFY: &str = "NOTIFY_SOCKET";
/// How often it is looked whether the daemon has failed.
const LOOK: Duration = Duration::from_millis(50);

/// Runs makuosan with the arguments `argv`, the program's name first; gives its exit code.
pub(super) fn run(argv: &[OsString]) -> u8 {
    let flags = match Flags::try_parse_from(argv) {
        Ok(flags) => flags,
        Err(error) => return not_parsed(&error),
    };

    let detached = std::env::var_os(DETACHED).is_some();
    super::daemon::runs_as(flags.user());
    let done = network::host_config(flags.config_file())
        .and_then(|config| flags.over(config))
        .and_then(|meant| match meant.foreground || detached {
            true => serve(meant, detached).map(|()| 0),
            false => detach(argv, &meant),
        });

    done.unwrap_or_else(|error| {
        eprintln!(
            "{}",
            crate::report::words::safe(&crate::face::answer::failure(&error))
        );
        error.kind().exit_code()
    })
}

/// Starts the daemon, waits until it is ready, and tells its process.
fn detach(argv: &[OsString], meant: &Meant) -> Result<u8> {
    let failed = |e: std::io::Error| Error::new(Kind::Io, "cannot start the daemon").because(e);
    for flag in &meant.unused {
        eprintln!("makuosan: {flag} has no meaning any more and is ignored");
    }

    let dir = tempfile::tempdir().map_err(failed)?;
    let path = dir.path().join("ready");
    let ready = UnixDatagram::bind(&path).map_err(failed)?;
    ready.set_read_timeout(Some(LOOK)).map_err(failed)?;
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    command
        .arg0(&argv[0])
        .args(&argv[1..])
        .env(DETACHED, "1")
        .env(NOTIFY, &path);

    // Until the daemon is ready, what it says is for whoever started it; then it must not hold a terminal.
    let keep = std::io::stderr()
        .as_fd()
        .try_clone_to_owned()
        .map(File::from)
        .and_then(|f| f.metadata());

    let keep = keep.is_ok_and(|meta| meta.is_file());
    let stderr = if keep {
        Stdio::inherit()
    } else {
        Stdio::piped()
    };

    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr)
        .spawn()
        .map_err(failed)?;

    let words = child.stderr.take().map(|mut words| {
        std::thread::spawn(move || std::io::copy(&mut words, &mut std::io::stderr()))
    });
    let mut word = [0; 256];

    loop {
        match ready.recv(&mut word) {
            Ok(n)
                if word[..n]
                    .split(|&b| b == b'\n')
                    .any(|line| line == b"READY=1") =>
            {
                eprintln!("pid       : {}", child.id());
                return Ok(0);
            }
            Ok(_) => {}
            Err(e)
                if matches!(
                    e.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                ) => {}
            Err(e) => return Err(failed(e)),
        }
        if let Some(status) = child.try_wait().map_err(failed)? {
            // It has said why.
            let _ = words.map(std::thread::JoinHandle::join);
            return Ok(status
                .code()
                .and_then(|code| u8::try_from(code).ok())
                .filter(|c| *c != 0)
                .unwrap_or(USAGE));
        }
    }
}

fn serve(meant: Meant, detached: bool) -> Result<()> {
    if detached {
        // A process that was just started leads no group yet.
        let _ = nix::unistd::setsid();
        // No directory stays in use; all paths are absolute by now.
        let _ = std::env::set_current_dir("/");
    }

    let log = Log::open("makuosan", detached);
    let system = log.is_system();
    start_log(log, meant.level);

    if !detached {
        for flag in &meant.unused {
            tracing::warn!("{flag} has no meaning any more and is ignored");
        }
    }

    tracing::info!(
        "makuosan {} started, pid {}",
        env!("CARGO_PKG_VERSION"),
        std::process::id()
    );

    let done = options(meant).and_then(engine);
    match &done {
        Ok(()) => tracing::info!("ended"),
        // Else it is said where the log is anyway.
        Err(e) if system => tracing::error!("{e}"),
        Err(_) => {}
    }

    done
}

fn options(meant: Meant) -> Result<DaemonOptions> {
    let config = meant.config;
    let manner = Manner {
        receives: meant.receives,
        sends: meant.sends,
        owned: meant.owned,
        rate: meant.rate,
    };

    // Several of them on one machine are told apart by port and base: only the first has the control socket.
    let socket = Some(config.socket.clone()).filter(|path| {
        let free = std::os::unix::net::UnixStream::connect(path).is_err();
        if !free {
            tracing::warn!("another daemon has the control socket {}", path.display());
        }
        free
    });

    Ok(DaemonOptions {
        config,
        user: meant.user,
        run_group: meant.group,
        groups: meant.groups,
        group_keys_fixed: meant.group_keys_fixed,
        socket,
        manner,
    })
}

/// From little to all: levels 0 to 9 were not finer than this either.
fn start_log(log: Log, level: u8) {
    let level = match level {
        0..=1 => tracing::Level::INFO,
        2..=7 => tracing::Level::DEBUG,
        _ => tracing::Level::TRACE,
    };

    let system = log.is_system();
    let log = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(log)
        .with_target(false)
        .with_ansi(false);

    // The system's log has times of its own. A subscriber that is set already (in a test) stays.
    let _ = if system {
        log.without_time().try_init()
    } else {
        log.try_init()
    };
}
