//! Parses a console line into a command. Pure: an invalid line has a response, too.

use crate::drive::adhoc::AdhocAction;

/// Largest number of excludes of a connection.
pub const MAX_CONNECTION_EXCLUDES: usize = 1000;

/// Command of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConsoleCommand {
    /// An empty line.
    Nothing,
    /// Put, delete or compare files.
    Files(Files),
    /// Exclude the paths that match this pattern.
    ExcludeAdd(String),
    /// Remove an exclude.
    ExcludeDel(String),
    /// List the patterns.
    ExcludeList,
    /// Remove all patterns.
    ExcludeClear,
    /// List the other hosts.
    Members,
    /// Show the state of the daemon.
    Status,
    /// Set the amount of output, 0 to 9.
    LogLevel(u8),
    /// Turn heartbeats during commands on or off.
    Alive(bool),
    /// Return the same line.
    Echo(String),
    /// List all commands.
    Help,
    /// End the session.
    Quit,
    /// An invalid line, with the response.
    Wrong(Vec<String>),
    /// A line that is no command and comes from no console client, with the last response before
    /// the end.
    Foreign(String),
}

/// `send`, `sync`, `dsync` and `check`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// Action on the files.
    pub deed: AdhocAction,
    /// Only report.
    pub dry_run: bool,
    /// Include the content of directories.
    pub recurse: bool,
    /// Limit to this host.
    pub target: Option<String>,
    /// Group of the written files.
    pub group: Option<String>,
    /// Paths; empty for everything.
    pub paths: Vec<Vec<u8>>,
}

/// First words of all commands, including old ones and other spellings.
const COMMAND_NAMES: &[&str] = &[
    "send", "sync", "dsync", "check", "md5", "exclude", "members", "status", "loglevel", "alive",
    "echo", "help", "quit", "exit", "bye",
];
/// Largest part of an unknown command that a response repeats.
const MAX_QUOTED: usize = 80;

/// Response to `help`: all commands.
pub const HELP: &[&str] = &[
    "COMMAND:",
    "  quit",
    "  exclude add PATTERN",
    "  exclude del PATTERN",
    "  exclude list",
    "  exclude clear",
    "  send  [-n] [-r] [-D] [-t host] [-g group] [path]",
    "  sync  [-n] [-r] [-t host] [-g group] [path]",
    "  dsync [-n] [-r] [-t host] [path]",
    "  check [-r] [-t host] [path]",
    "  alive on|off",
    "  loglevel num (0-9)",
    "  members",
    "  status",
    "  help",
];

const EXCLUDE_USAGE: &[&str] = &[
    "usage: exclude add PATTERN",
    "       exclude del PATTERN",
    "       exclude list",
    "       exclude clear",
];

/// Parses `line`, which has no line ending.
pub fn parse(line: &[u8]) -> ConsoleCommand {
    let is_name = |word: &[u8]| COMMAND_NAMES.iter().any(|name| name.as_bytes() == word);
    let words = match split(line) {
        Ok(words) => words,
        // A line that begins like a command is a client's mistake.
        Err(why)
            if line
                .split(|b| b" \t\"'\\".contains(b))
                .find(|w| !w.is_empty())
                .is_some_and(is_name) =>
        {
            return wrong(&[why]);
        }
        Err(_) => return foreign(line),
    };

    let Some((name, rest)) = words.split_first() else {
        return ConsoleCommand::Nothing;
    };

    if !is_name(name) || is_http(rest) {
        return foreign(name);
    }

    let text: Vec<String> = rest
        .iter()
        .map(|w| String::from_utf8_lossy(w).into_owned())
        .collect();
    let texts: Vec<&str> = text.iter().map(String::as_str).collect();

    match name.as_slice() {
        b"send" => files(AdhocAction::Send, "nrDt:g:", rest),
        b"sync" => files(AdhocAction::Sync, "nrt:g:", rest),
        b"dsync" => files(AdhocAction::Prune, "nrt:", rest),
        b"check" | b"md5" => files(AdhocAction::Check, "rt:", rest),
        b"exclude" => exclude(&texts),
        b"members" => ConsoleCommand::Members,
        b"status" => ConsoleCommand::Status,
        b"loglevel" => match texts.as_slice() {
            [level] if level.len() == 1 && level.as_bytes()[0].is_ascii_digit() => {
                ConsoleCommand::LogLevel(level.as_bytes()[0] - b'0')
            }
            _ => wrong(&["usage: loglevel num (0-9)"]),
        },
        b"alive" => match texts.as_slice() {
            ["on"] => ConsoleCommand::Alive(true),
            ["off"] => ConsoleCommand::Alive(false),
            _ => wrong(&["usage: alive on|off"]),
        },
        b"echo" => ConsoleCommand::Echo(text.join(" ")),
        b"help" => ConsoleCommand::Help,
        _ => ConsoleCommand::Quit,
    }
}

fn foreign(name: &[u8]) -> ConsoleCommand {
    let name = crate::units::printable(&name[..name.len().min(MAX_QUOTED)]);
    ConsoleCommand::Foreign(format!("error: unknown command '{name}': see help"))
}

/// Returns true for the first line of an HTTP request, with any word as method.
fn is_http(words: &[Vec<u8>]) -> bool {
    words.last().is_some_and(|word| word.starts_with(b"HTTP/"))
}

fn wrong(lines: &[&str]) -> ConsoleCommand {
    ConsoleCommand::Wrong(lines.iter().map(ToString::to_string).collect())
}

fn exclude(words: &[&str]) -> ConsoleCommand {
    match words {
        ["add", pattern] => ConsoleCommand::ExcludeAdd(pattern.to_string()),
        ["del", pattern] => ConsoleCommand::ExcludeDel(pattern.to_string()),
        ["list"] => ConsoleCommand::ExcludeList,
        ["clear"] => ConsoleCommand::ExcludeClear,
        _ => wrong(EXCLUDE_USAGE),
    }
}

fn usage(deed: AdhocAction) -> ConsoleCommand {
    match deed {
        AdhocAction::Send => wrong(&[
            "usage: send [-n] [-r] [-D] [-t host] [-g group] [path]",
            "  -n  # dryrun",
            "  -r  # recursive",
            "  -D  # with delete",
            "  -t  # target host",
            "  -g  # group of what is written",
        ]),
        AdhocAction::Sync => wrong(&[
            "usage: sync [-n] [-r] [-t host] [-g group] [path]",
            "  -n  # dryrun",
            "  -r  # recursive",
            "  -t  # target host",
            "  -g  # group of what is written",
        ]),
        AdhocAction::Prune => wrong(&[
            "usage: dsync [-n] [-r] [-t host] [path]",
            "  -n  # dryrun",
            "  -r  # recursive",
            "  -t  # target host",
        ]),
        AdhocAction::Check => wrong(&[
            "usage: check [-r] [-t host] [path]",
            "  -r  # dir recursive",
            "  -t  # target host",
        ]),
    }
}

/// Parses flags as getopt does: combined, with the value attached or as the next word, between the
/// paths.
fn files(deed: AdhocAction, flags: &str, words: &[Vec<u8>]) -> ConsoleCommand {
    let (dry_run, recurse, target, group, paths) = Default::default();
    let mut files = Files {
        deed,
        dry_run,
        recurse,
        target,
        group,
        paths,
    };

    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_slice() {
            b"--" => {
                files.paths.extend(words.by_ref().cloned());
            }
            [b'-', rest @ ..] if !rest.is_empty() => {
                let mut rest = rest;
                while let Some((&flag, more)) = rest.split_first() {
                    let Some(at) = flags.bytes().position(|f| f == flag && f != b':') else {
                        return wrong(&[&format!(
                            "error: invalid option -- {}",
                            crate::units::printable(&[flag])
                        )]);
                    };
                    rest = more;
                    if flags.as_bytes().get(at + 1) != Some(&b':') {
                        files.set(flag);
                        continue;
                    }
                    let value = if rest.is_empty() {
                        words.next().map(Vec::as_slice)
                    } else {
                        Some(rest)
                    };
                    let Some(value) = value else {
                        return usage(deed);
                    };
                    let value = String::from_utf8_lossy(value).into_owned();
                    *(if flag == b't' {
                        &mut files.target
                    } else {
                        &mut files.group
                    }) = Some(value);
                    rest = &[];
                }
            }
            path => files.paths.push(path.to_vec()),
        }
    }

    // msync sends an empty word for no path.
    files.paths.retain(|path| !path.is_empty());
    if files.paths.is_empty() && !files.recurse {
        return usage(deed);
    }

    ConsoleCommand::Files(files)
}

impl Files {
    /// Returns true for a command that changes other hosts.
    pub fn changes(&self) -> bool {
        !self.dry_run && self.deed != AdhocAction::Check
    }

    fn set(&mut self, flag: u8) {
        match flag {
            b'n' => self.dry_run = true,
            b'r' => self.recurse = true,
            _ => self.deed = AdhocAction::Sync,
        }
    }
}

/// Splits a line into words at blanks; quotes and backslashes keep blanks.
fn split(line: &[u8]) -> Result<Vec<Vec<u8>>, &'static str> {
    let (mut words, mut word): (Vec<Vec<u8>>, Option<Vec<u8>>) = (Vec::new(), None);
    let mut quote = None;
    let mut bytes = line.iter().copied();
    while let Some(byte) = bytes.next() {
        match (quote, byte) {
            (None, b' ' | b'\t') => words.extend(word.take()),
            (None, b'"' | b'\'') => {
                quote = Some(byte);
                word.get_or_insert_default();
            }
            (Some(q), byte) if byte == q => quote = None,
            (None | Some(b'"'), b'\\') => match bytes.next() {
                Some(next) => word.get_or_insert_default().push(next),
                None => return Err("error: nothing after the last \\"),
            },
            (_, byte) => word.get_or_insert_default().push(byte),
        }
    }

    if quote.is_some() {
        return Err("error: a quote is not closed");
    }

    words.extend(word);
    Ok(words)
}

/// Quotes `word` so that [`parse`] takes it as one word, with any content but a line ending.
pub fn quoted(word: &[u8]) -> Vec<u8> {
    let plain = |b: &u8| !b" \t\"'\\".contains(b);
    if !word.is_empty() && word.iter().all(plain) {
        return word.to_vec();
    }

    let mut quoted = Vec::with_capacity(word.len() + 2);
    for byte in word {
        if !plain(byte) {
            quoted.push(b'\\');
        }
        quoted.push(*byte);
    }

    quoted
}

#[cfg(test)]
mod tests;
