//! `makuosan`: runs a host with the command line of the old daemon.
//!
//! Without `-n` it detaches from the terminal: the first process waits until the daemon is ready or
//! has failed, and reports which. The daemon is the same program again, marked by an environment
//! variable.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use clap::Parser;

use super::daemon::{DaemonOptions, serve};
use super::network;
use crate::daemon::{HostMode, RunAs};
use crate::face::makuosan::{MakuosanFlags, Meant};
use crate::face::syslog::SystemLog;
use crate::face::{USAGE, not_parsed};
use crate::{Error, Kind, Result};

/// Environment variable that marks the daemon started by a `makuosan` without `-n`.
const DETACHED: &str = "MAKUOSAN_DETACHED";
/// Environment variable read by sd_notify(3).
const NOTIFY: &str = "NOTIFY_SOCKET";
/// Interval between checks whether the daemon has exited.
const EXIT_POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Runs makuosan with `argv`, program name first; returns its exit code.
pub(super) fn run(argv: &[OsString]) -> u8 {
    let flags = match MakuosanFlags::try_parse_from(argv) {
        Ok(flags) => flags,
        Err(error) => return not_parsed(&error),
    };

    let detached = std::env::var_os(DETACHED).is_some();
    super::daemon::trust_user(flags.user());
    let done = network::host_config(flags.config_file())
        .and_then(|config| flags.over(config))
        .and_then(|settings| match settings.foreground || detached {
            true => run_daemon(settings, detached).map(|()| 0),
            false => detach(argv, &settings),
        });

    done.unwrap_or_else(|error| {
        eprintln!(
            "{}",
            crate::report::words::safe(&crate::face::response::failure(&error))
        );
        error.kind().exit_code()
    })
}

/// Starts the daemon, waits until it is ready, and prints its process id.
fn detach(argv: &[OsString], settings: &Meant) -> Result<u8> {
    let failed = |e: std::io::Error| Error::new(Kind::Io, "cannot start the daemon").because(e);
    for flag in &settings.unused {
        eprintln!("makuosan: {flag} has no meaning any more and is ignored");
    }

    let dir = tempfile::tempdir().map_err(failed)?;
    let path = dir.path().join("ready");
    let ready = UnixDatagram::bind(&path).map_err(failed)?;
    ready
        .set_read_timeout(Some(EXIT_POLL_INTERVAL))
        .map_err(failed)?;
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    command
        .arg0(&argv[0])
        .args(&argv[1..])
        .env(DETACHED, "1")
        .env(NOTIFY, &path);

    // Until it is ready, the daemon writes errors to the terminal; afterwards it must not hold one.
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

    let errors = child.stderr.take().map(|mut errors| {
        std::thread::spawn(move || std::io::copy(&mut errors, &mut std::io::stderr()))
    });
    let mut message = [0; 256];

    loop {
        match ready.recv(&mut message) {
            Ok(n)
                if message[..n]
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
                    std::io::ErrorKind::WouldBlock
                        | std::io::ErrorKind::TimedOut
                        | std::io::ErrorKind::Interrupted
                ) => {}
            Err(e) => return Err(failed(e)),
        }
        if let Some(status) = child.try_wait().map_err(failed)? {
            // The daemon has printed the reason.
            let _ = errors.map(std::thread::JoinHandle::join);
            return Ok(status
                .code()
                .and_then(|code| u8::try_from(code).ok())
                .filter(|c| *c != 0)
                .unwrap_or(USAGE));
        }
    }
}

fn run_daemon(settings: Meant, detached: bool) -> Result<()> {
    if detached {
        // Cannot fail: a new process leads no group.
        let _ = nix::unistd::setsid();
        // Keeps no directory busy; all paths are absolute by now.
        let _ = std::env::set_current_dir("/");
    }

    let log = SystemLog::open("makuosan", detached);
    let system = log.is_system();
    start_log(log, settings.level);

    if !detached {
        for flag in &settings.unused {
            tracing::warn!("{flag} has no meaning any more and is ignored");
        }
    }

    tracing::info!(
        "makuosan {} started, pid {}",
        env!("CARGO_PKG_VERSION"),
        std::process::id()
    );

    let done = options(settings).and_then(serve);
    // Otherwise the error is printed where the log goes anyway.
    if let (Err(e), true) = (&done, system) {
        tracing::error!("{e}");
    }
    done
}

fn options(settings: Meant) -> Result<DaemonOptions> {
    let config = settings.config;
    let mode = HostMode {
        receives: settings.receives,
        sends: settings.sends,
        owned: settings.owned,
        rate: settings.rate,
    };

    // Several daemons on one machine differ in port and base; only the first gets the control
    // socket.
    let socket = Some(config.socket.clone()).filter(|path| {
        let free = std::os::unix::net::UnixStream::connect(path).is_err();
        if !free {
            tracing::warn!("another daemon has the control socket {}", path.display());
        }
        free
    });

    Ok(DaemonOptions {
        config,
        run_as: RunAs {
            user: settings.user,
            group: settings.group,
            groups: settings.groups,
        },
        group_keys_fixed: settings.group_keys_fixed,
        socket,
        mode,
    })
}

/// Maps levels 0 to 9 to three, which is as fine as they were.
fn start_log(log: SystemLog, level: u8) {
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

    // The system log adds its own timestamps. A subscriber already set by a test stays.
    let _ = if system {
        log.without_time().try_init()
    } else {
        log.try_init()
    };
}
