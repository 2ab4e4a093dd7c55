//! The command line: one file a command.
//!
//! Owns the way from arguments to options and from a result to an exit code. Must not know the protocol: engines are
//! called with resolved options and tell an observer what happens.

pub mod args;
mod check;
mod completions;
mod daemon;
mod demo;
mod deploy;
mod diff;
mod init;
mod keygen;
mod log;
mod makuosan;
mod members;
mod network;
mod rollback;
mod send;
mod sign;
mod status;
mod watch;

use std::ffi::OsString;
use std::io::Write;

use clap::Parser;
use clap::error::ErrorKind;

use crate::report::{Painter, Report, Settings, Verbosity};
use crate::{Error, Result};

pub use args::Cli;
pub use daemon::DaemonOptions;
pub use deploy::SessionOptions;
#[doc(hidden)]
pub use init::is_host_file;

/// The exit code of a wrong command line.
const USAGE: u8 = 2;

/// Runs the command that `argv` (with the program's name first, which may be that of an old program) asks for, and returns the process's exit code.
pub fn run(argv: Vec<OsString>) -> u8 {
    let called = argv
        .first()
        .map(std::path::Path::new)
        .and_then(std::path::Path::file_name);

    match called.and_then(std::ffi::OsStr::to_str) {
        Some("makuosan") => return makuosan::run(&argv),
        Some("msync") => return crate::face::msync::run(&argv),
        _ => {}
    }

    let cli = match Cli::try_parse_from(&argv) {
        Ok(cli) => cli,
        Err(error) => return not_understood(&argv, &error),
    };

    let settings = cli.common.settings();
    start_log(settings, matches!(cli.command, args::Command::Daemon(_)));
    let mut report = Report::new(settings);

    dispatch(&cli, settings, &mut report).unwrap_or_else(|error| {
        report.failure(&error);
        error.kind().exit_code()
    })
}

fn dispatch(cli: &Cli, settings: Settings, report: &mut Report) -> Result<u8> {
    use args::Command::*;
    let config = cli.common.config.as_deref();
    match &cli.command {
        Deploy(args) => deploy::run(args, config, report),
        Watch(args) => watch::run(args, config, report),
        Diff(args) => diff::run(args, config, report),
        Rollback(args) => rollback::run(args, config, report),
        Log(args) => log::run(args, config, report),
        Status(args) => status::run(args, config, report),
        Members(args) => members::run(args, config, report),
        Send(args) => send::run(&args.adhoc, args.delete, config, report),
        Sync(args) => send::run(&args.adhoc, true, config, report),
        Check(args) => check::run(args, report),
        Init(args) => init::run(args, config, settings, report),
        Keygen(args) => keygen::run(args, settings, report),
        Daemon(args) => daemon::run(args, config, report),
        Demo(args) => demo::run(args, report),
        Completions(args) => completions::run(args),
        Complete(args) => completions::complete(args.what, config),
        Man(args) => completions::man(args, report),
    }
}

/// Help and version are answers; everything else is a mistake, which a script that asked for JSON gets as JSON too.
fn not_understood(argv: &[OsString], error: &clap::Error) -> u8 {
    // Output that nobody reads any more is no failure.
    let _ = error.print();
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    ) {
        return 0;
    }

    if argv
        .iter()
        .skip(1)
        .take_while(|a| *a != "--")
        .any(|a| a == "--json")
    {
        let text = error.to_string();
        let first = text.lines().next().unwrap_or_default();
        let error =
            Error::usage(first.strip_prefix("error: ").unwrap_or(first)).hint("see `makuo --help`");
        crate::report::Json::stdout().failure(&error);
    }

    USAGE
}

/// The engine's log, on standard error: little for a command, every session for a daemon.
fn start_log(settings: Settings, daemon: bool) {
    let level = match (settings.verbosity, daemon) {
        (Verbosity::Quiet, _) => tracing::Level::ERROR,
        (Verbosity::Normal, false) => tracing::Level::WARN,
        (Verbosity::Normal, true) | (Verbosity::Verbose, false) => tracing::Level::INFO,
        (Verbosity::Verbose, true) | (Verbosity::Debug, _) => tracing::Level::DEBUG,
    };

    let log = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_target(false);
    let log = log.with_ansi(Painter::stderr(settings.color).is_on());

    // A subscriber that is set already (in a test) stays.
    let _ = if is_journal() {
        log.without_time().try_init()
    } else {
        log.try_init()
    };
}

/// Whether standard error goes to the journal, which has times of its own: systemd says which file that is.
fn is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    rustix::fs::fstat(std::io::stderr())
        .is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// What the command line names and this version cannot do: refused, never ignored.
fn not_yet(what: &str) -> Error {
    Error::usage(format!("{what} is not supported yet"))
}

/// Nobody that was heard has the tree that was asked for.
fn nobody_has(tree: &crate::id::TreeName) -> Error {
    Error::refused(format!("no host that answers has a tree {tree}"))
        .hint("`makuo members` shows the hosts that are alive and their trees; --interface says where to look for them")
}

/// A line of talk on standard error, unless quiet.
fn talk(settings: Settings, line: &str) {
    if settings.verbosity > Verbosity::Quiet && !settings.json {
        let _ = writeln!(std::io::stderr(), "{}", crate::report::words::safe(line));
    }
}
