//! `msync`: the old command-line tool. Its flags become console lines.
//!
//! The exit code is 0 after success, 1 if something failed, differs or could not be reached, and 2
//! for a wrong command line.

use std::io::{BufRead, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use clap::{ArgAction, Parser};

use super::client::{Client, ConsoleAddress};
use super::command::quoted;
use super::password::Password;
use super::{USAGE, not_parsed};
use crate::config::DEFAULT_CONSOLE;
use crate::error::IoResultExt;
use crate::{Error, Result};

/// Variable with the address of the console.
const TARGET_VARIABLE: &str = "MSYNC_TARGET";
/// Exit code of a failure.
const FAILED: u8 = 1;

/// The flags of msync, a field for each. A foreign command line, in the order of the old help text:
/// grouping would follow no owner, since every flag only becomes a part of a console line.
#[derive(Debug, Parser)]
#[command(
    name = "msync",
    version,
    about = "Put files of this host's tree on the other hosts, through the local daemon's console",
    after_help = "\
MSYNC_TARGET:
  tcp:HOST:PORT  as tcp:127.0.0.1:5000, the default
  unix:SOCKET    as unix:makuosan.sock

Paths are taken from the daemon's base directory, with wildcards; see `msync --status`.
Exit codes: 0 all is well, 1 something failed or differs, 2 the command line is wrong.",
    arg_required_else_help = true
)]
pub struct MsyncFlags {
    /// Show the daemon's status
    #[arg(long)]
    status: bool,
    /// Show the other hosts
    #[arg(long, conflicts_with = "status")]
    members: bool,
    /// Compare the content of files; differences are listed, and the exit code is 1
    #[arg(long, conflicts_with_all = ["status", "members"])]
    check: bool,
    /// Delete extra files on the others before sending
    #[arg(long, conflicts_with_all = ["status", "members", "check"])]
    delete: bool,
    /// Send, and delete extra files, in one go
    #[arg(long, conflicts_with_all = ["status", "members", "check"])]
    sync: bool,
    /// Leave out matching paths; a line of .gitignore (repeatable)
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<String>,
    /// Leave out paths that match a line of this file; - is standard input
    #[arg(long, value_name = "FILE")]
    exclude_from: Vec<PathBuf>,
    /// Amount of output, 0 to 9
    #[arg(short = 'l', value_name = "LEVEL", value_parser = clap::value_parser!(u8).range(0..=9))]
    loglevel: Option<u8>,
    /// More output: updated files; twice for skipped ones
    #[arg(short, action = ArgAction::Count)]
    verbose: u8,
    /// Address of the console [default: $MSYNC_TARGET, tcp:127.0.0.1:5000]
    #[arg(short, value_name = "TARGET")]
    console: Option<ConsoleAddress>,
    /// A script of console commands; - is standard input
    #[arg(short = 'f', value_name = "FILE")]
    script: Option<PathBuf>,
    /// Only this host
    #[arg(short, value_name = "HOST")]
    target: Option<String>,
    /// Group of the files on the others
    #[arg(short, value_name = "GROUP", conflicts_with_all = ["status", "members", "check"])]
    group: Option<String>,
    /// File with the console's password
    #[arg(short = 'K', value_name = "FILE")]
    password: Option<PathBuf>,
    /// Dry run
    #[arg(short = 'n')]
    dry_run: bool,
    /// Recurse into directories
    #[arg(short)]
    recurse: bool,
    /// Files and directories below the base directory
    #[arg(value_name = "PATH")]
    paths: Vec<std::ffi::OsString>,
}

impl MsyncFlags {
    /// Returns the lines to send before the commands. Their responses are shown only on errors.
    fn settings(&self) -> Result<Vec<Vec<u8>>> {
        let level = self
            .loglevel
            .unwrap_or(0)
            .saturating_add(self.verbose)
            .min(9);

        let mut lines = vec![format!("loglevel {level}").into_bytes()];
        let mut excludes: Vec<Vec<u8>> = self
            .exclude
            .iter()
            .map(|e| e.clone().into_bytes())
            .collect();

        for file in &self.exclude_from {
            excludes.extend(lines_of(file)?);
        }

        lines.extend(
            excludes
                .iter()
                .map(|pattern| [b"exclude add ".as_slice(), &quoted(pattern)].concat()),
        );

        Ok(lines)
    }

    /// Returns the lines of the commands.
    fn commands(&self) -> Result<Vec<Vec<u8>>> {
        if let Some(script) = &self.script {
            return lines_of(script);
        }
        if self.status || self.members {
            return Ok(vec![if self.status {
                b"status".to_vec()
            } else {
                b"members".to_vec()
            }]);
        }
        let mut flags = String::new();
        for (flag, set) in [(" -n", self.dry_run && !self.check), (" -r", self.recurse)] {
            flags.push_str(if set { flag } else { "" });
        }
        if let Some(target) = &self.target {
            flags = format!(
                "{flags} -t {}",
                String::from_utf8_lossy(&quoted(target.as_bytes()))
            );
        }
        let group = match &self.group {
            Some(group) => format!(" -g {}", String::from_utf8_lossy(&quoted(group.as_bytes()))),
            None => String::new(),
        };

        let verb = match (self.check, self.sync) {
            (true, _) => "check",
            (_, true) => "sync",
            _ => "send",
        };

        let mut lines = Vec::new();
        let paths: Vec<Option<Vec<u8>>> = match self.paths.is_empty() {
            true => vec![None],
            false => self
                .paths
                .iter()
                .map(|p| Some(quoted(p.as_bytes())))
                .collect(),
        };

        for path in paths {
            let path = path
                .map(|p| [b" -- ".as_slice(), &p].concat())
                .unwrap_or_default();
            if self.delete {
                lines.push([format!("dsync{flags}").as_bytes(), path.as_slice()].concat());
            }
            lines.push([format!("{verb}{flags}{group}").as_bytes(), path.as_slice()].concat());
        }
        Ok(lines)
    }
}

/// Runs msync with the arguments `argv`, the program's name first; returns the exit code.
pub fn run(argv: &[std::ffi::OsString]) -> u8 {
    let flags = match MsyncFlags::try_parse_from(argv) {
        Ok(flags) => flags,
        Err(error) => return not_parsed(&error),
    };

    match talk(&flags) {
        Ok(true) => 0,
        Ok(false) => FAILED,
        Err(error) => {
            let line = super::response::failure(&error);
            let _ = writeln!(std::io::stderr(), "{}", crate::report::words::safe(&line));
            if error.kind() == crate::Kind::Usage {
                USAGE
            } else {
                FAILED
            }
        }
    }
}

/// Sends all lines; returns true after full success.
fn talk(flags: &MsyncFlags) -> Result<bool> {
    let target = match &flags.console {
        Some(target) => target.clone(),
        None => default_target()?,
    };

    let password = flags.password.as_deref().map(Password::load).transpose()?;
    let settings = flags.settings()?;
    let commands = flags.commands()?;
    let mut client = Client::connect(&target, password.as_ref())?;
    let mut well = true;
    for line in settings {
        client.command(&line, |answer| well &= show(answer))?;
    }

    for line in commands {
        if matches!(line.as_slice(), b"quit" | b"exit" | b"bye") {
            break;
        }
        client.command(&line, |answer| well &= show(answer))?;
    }

    client.quit();
    Ok(well)
}

/// Shows a line of a response; returns false for a line that reports a failure.
fn show(line: &str) -> bool {
    let safe = crate::report::words::safe(line);
    let error = line.starts_with("error:");
    let shown = if error {
        writeln!(std::io::stderr(), "{safe}")
    } else {
        writeln!(std::io::stdout(), "{safe}")
    };

    // A closed output is no failure.
    drop(shown);
    !(error || is_failure(line))
}

fn is_failure(line: &str) -> bool {
    // Hosts of the same name are shown with their addresses.
    let name = |host: &str| {
        host.split_once(" (")
            .map_or(host, |(name, _)| name)
            .to_string()
    };

    let differs = line
        .split_once(": NG ")
        .is_some_and(|(host, _)| crate::id::HostName::new(&name(host)).is_ok());
    let unknown = line
        .strip_suffix(" is not contained in members")
        .is_some_and(|host| !host.contains(':'));
    line.starts_with("usage:") || unknown || differs
}

fn default_target() -> Result<ConsoleAddress> {
    match std::env::var(TARGET_VARIABLE) {
        Ok(text) if !text.is_empty() => text
            .parse()
            .map_err(|e: String| Error::usage(format!("${TARGET_VARIABLE}: {e}"))),
        _ => Ok(ConsoleAddress::Tcp(
            DEFAULT_CONSOLE.ip().to_string(),
            DEFAULT_CONSOLE.port(),
        )),
    }
}

/// Returns the non-empty lines of a file; `-` is standard input.
fn lines_of(path: &std::path::Path) -> Result<Vec<Vec<u8>>> {
    let lines = read_lines(path).context("cannot read", path);
    lines.map_err(|e| e.with_kind(crate::Kind::Usage))
}

fn read_lines(path: &std::path::Path) -> std::io::Result<Vec<Vec<u8>>> {
    let reader: Box<dyn BufRead> = match path.as_os_str().as_bytes() {
        b"-" => Box::new(std::io::stdin().lock()),
        _ => Box::new(std::io::BufReader::new(std::fs::File::open(path)?)),
    };

    let mut lines = Vec::new();
    for line in reader.split(b'\n') {
        let mut line = line?;
        line.pop_if(|b| *b == b'\r');
        if !line.is_empty() {
            lines.push(std::ffi::OsString::from_vec(line).into_vec());
        }
    }

    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(line: &str) -> Vec<String> {
        let flags = MsyncFlags::try_parse_from(line.split(' ')).expect("legal");
        let all = flags
            .settings()
            .expect("readable")
            .into_iter()
            .chain(flags.commands().expect("readable"));
        all.map(|l| String::from_utf8_lossy(&l).into_owned())
            .collect()
    }

    #[test]
    fn flags_become_what_the_console_understands() {
        assert_eq!(said("msync -r"), ["loglevel 0", "send -r"]);
        assert_eq!(said("msync -rn -vv"), ["loglevel 2", "send -n -r"]);
        assert_eq!(
            said("msync -t mk2 a b"),
            ["loglevel 0", "send -t mk2 -- a", "send -t mk2 -- b"]
        );

        assert_eq!(
            said("msync --delete -r sub"),
            ["loglevel 0", "dsync -r -- sub", "send -r -- sub"]
        );

        assert_eq!(
            said("msync --sync -r -g web"),
            ["loglevel 0", "sync -r -g web"]
        );

        assert_eq!(said("msync --check -r -l5"), ["loglevel 5", "check -r"]);
        assert_eq!(said("msync --members"), ["loglevel 0", "members"]);
        assert_eq!(
            said("msync --exclude=*.o -r"),
            ["loglevel 0", "exclude add *.o", "send -r"]
        );
    }

    #[test]
    fn what_is_not_well_is_known_by_its_line() {
        for line in [
            "mk3: NG sub/x",
            "nohost is not contained in members",
            "usage: send",
        ] {
            assert!(is_failure(line), "{line}");
        }

        for line in [
            "update mk3:x: NG y",
            "mk3: OK x",
            "(dryrun) [update:x is not contained in members]",
        ] {
            assert!(!is_failure(line), "{line}");
        }
    }

    #[test]
    fn clap_finds_no_contradiction() {
        <MsyncFlags as clap::CommandFactory>::command().debug_assert();
        assert!(MsyncFlags::try_parse_from(["msync", "--check", "--delete"]).is_err());
    }
}
