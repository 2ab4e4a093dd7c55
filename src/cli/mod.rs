//! The command line: one file a command.
//!
//! Owns the steps from arguments to options and from a result to an exit code. Does not know the
//! protocol: engines take resolved options and report events to an observer.

pub mod args;
mod batch_outcome;
mod check;
mod commit;
mod completions;
mod daemon;
mod demo;
mod deploy;
mod deploy_start;
mod deploy_turn;
mod diff;
mod doctor;
mod hold;
mod init;
mod interrupt;
mod kept;
mod keygen;
mod log;
mod makuosan;
mod man;
mod members;
mod network;
mod pin;
mod promote;
mod publish;
mod pull;
mod release_facts;
mod release_ref;
mod repo;
mod repo_head;
mod repo_list;
mod rollback;
mod send;
mod show;
mod sign;
mod staged_order;
mod status;
mod store;
mod survey;
mod watch;

use std::ffi::OsString;
use std::io::{self, Write};

use clap::Parser;
use clap::error::ErrorKind;

use crate::report::{Painter, Report, Settings, Verbosity, suspend_display};
use crate::{Error, Result};

pub use args::Cli;
pub use daemon::DaemonOptions;
pub use deploy::SessionOptions;
#[doc(hidden)]
pub use init::is_host_file;

/// Exit code for a wrong command line.
const USAGE_EXIT: u8 = 2;

/// Runs the command line `argv` and returns the exit code. The program name comes first and may be
/// that of an old program.
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

    if argv.get(1).is_some_and(|word| word == "complete") {
        return complete(&argv[1..]);
    }

    let cli = match Cli::try_parse_from(&argv) {
        Ok(cli) => cli,
        Err(error) => return report_usage_error(&argv, &error),
    };

    let settings = cli.common.settings();
    start_log(settings, matches!(cli.command, args::CliCommand::Daemon(_)));
    let mut report = Report::new(settings);

    dispatch(&cli, settings, &mut report).unwrap_or_else(|error| {
        report.failure(&error);
        error.kind().exit_code()
    })
}

/// Lists names for a completion script.
fn complete(argv: &[OsString]) -> u8 {
    let listed = args::CompleteCli::try_parse_from(argv)
        .map_err(|error| report_usage_error(argv, &error))
        .and_then(|cli| {
            completions::list_names(cli.what, cli.config.as_deref())
                .map_err(|error| error.kind().exit_code())
        });
    listed.unwrap_or_else(|exit| exit)
}

fn dispatch(cli: &Cli, settings: Settings, report: &mut Report) -> Result<u8> {
    use args::CliCommand::*;
    let config = cli.common.config.as_deref();

    match &cli.command {
        Deploy(args) => deploy_start::run(args, config, report),
        Watch(args) => watch::run(args, config, report),
        Diff(args) => diff::run(args, config, report),
        Commit(args) => commit::commit(args, config, report),
        Promote(args) => promote::run(args, config, report),
        Abort(args) => commit::abort(args, config, report),
        Hold(args) => hold::hold(args, config, report),
        Release(args) => hold::release(args, config, report),
        Rollback(args) => rollback::run(args, config, report),
        Publish(args) => publish::run(args, config, report),
        Pull(args) => pull::run(args, config, report),
        Repo(args) => repo::run(args, config, report),
        Log(args) => log::run(args, config, report),
        Show(args) => show::run(args, config, settings, report),
        Pin(args) => pin::run(args, true, config, report),
        Unpin(args) => pin::run(args, false, config, report),
        Status(args) => status::run(args, config, report),
        Members(args) => members::run(args, config, report),
        Send(args) => {
            let how = (args.delete, args.to.as_deref());
            send::run(&args.adhoc, how, config, report)
        }
        Sync(args) => send::run(&args.adhoc, (true, None), config, report),
        Check(args) => check::run(args, report),
        Doctor(args) => doctor::run(args, config, report),
        Init(args) => init::run(args, config, settings, report),
        Keygen(args) => keygen::run(args, settings, report),
        Daemon(args) => daemon::run(args, config, report),
        Demo(args) => demo::run(args, report),
        Completions(args) => completions::run(args),
        Man(args) => man::run(args, report),
    }
}

/// Prints help and version as output; everything else is an error, in JSON as well if --json is
/// given.
fn report_usage_error(argv: &[OsString], error: &clap::Error) -> u8 {
    // A closed pipe is not an error.
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

    USAGE_EXIT
}

/// Starts the log on standard error: warnings for a command, every session for a daemon.
fn start_log(settings: Settings, daemon: bool) {
    let level = match (settings.verbosity, daemon) {
        (Verbosity::Quiet, _) => tracing::Level::ERROR,
        (Verbosity::Normal, false) => tracing::Level::WARN,
        (Verbosity::Normal, true) | (Verbosity::Verbose, false) => tracing::Level::INFO,
        (Verbosity::Verbose, true) | (Verbosity::Debug, _) => tracing::Level::DEBUG,
    };

    let log = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(|| LogLine)
        .with_target(false);
    let log = log.with_ansi(Painter::stderr(settings.color).is_on());

    // A subscriber already set by a test stays.
    let _ = if is_journal() {
        log.without_time().try_init()
    } else {
        log.try_init()
    };
}

/// A line of the log on standard error, which takes the place of the live display.
struct LogLine;

impl Write for LogLine {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        suspend_display(|| io::stderr().write(line))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Returns whether standard error is the journal, which adds its own timestamps; systemd passes the
/// file's identity.
fn is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    rustix::fs::fstat(std::io::stderr())
        .is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// Error for a tree that no answering host has.
fn no_host_has(tree: &crate::id::TreeName) -> Error {
    Error::refused(format!("no host that answers has a tree {tree}")).hint(
        "`makuo members` lists the hosts that are alive and their trees; \
             --interface selects where to search for them",
    )
}

/// Prints a note on standard error, unless quiet.
fn print_note(settings: Settings, line: &str) {
    if settings.verbosity > Verbosity::Quiet && !settings.json {
        let line = crate::report::words::safe(line);
        let _ = suspend_display(|| writeln!(io::stderr(), "{line}"));
    }
}
