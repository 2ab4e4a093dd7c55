//! `makuo man`: manual pages from the definitions that parse the command line, with the sections
//! that all pages share.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::Path;

use clap::CommandFactory;
use clap_mangen::Man;
use serde::Serialize;

use super::args::{Cli, EXIT_CODES, ManArgs};
use crate::Result;
use crate::error::IoResultExt;
use crate::report::Report;

/// Failed action when a page cannot be written.
const WRITE_FAILED: &str = "cannot write man pages to";
/// Starts of the lines that roff needs once at the top of a page.
const PREAMBLE: [&str; 2] = [".ie \\n(.g .ds Aq", ".el .ds Aq"];
/// Pages of the two files that people write.
const FILE_PAGES: [(&str, &str); 2] = [
    (
        "makuo.toml.5",
        include_str!("../../packaging/man/makuo.toml.5"),
    ),
    (
        "makuo-manifest.5",
        include_str!("../../packaging/man/makuo-manifest.5"),
    ),
];
/// Variables of the environment, and what they set.
const VARIABLES: [(&str, &str); 7] = [
    ("MAKUO_CONFIG", "path of the host's configuration"),
    ("MAKUO_KEY", "key that signs releases"),
    (
        "MAKUO_PASSPHRASE",
        "passphrase of that key, where nobody can be asked",
    ),
    ("MAKUO_GROUP_KEY", "group key of commands"),
    (
        "SSH_AUTH_SOCK",
        "agent that signs for a key with a .pub file",
    ),
    ("XDG_CACHE_HOME", "place of indexes and known host keys"),
    ("NO_COLOR", "no colour, unless --color always"),
];
/// Files, and what they hold.
const FILES: [(&str, &str); 9] = [
    ("/etc/makuo/makuo.toml", "configuration of a host"),
    (
        "/etc/makuo/authorized_keys",
        "keys whose releases a host accepts",
    ),
    ("/etc/makuo/group.key", "group key of a host"),
    (
        "/etc/makuo/sender.key",
        "key that signs what a host sends itself",
    ),
    ("/run/makuo/makuo.sock", "control socket of the daemon"),
    (
        ".makuo/TREE",
        "state of a tree, beside it or in state_dir: index, staged blocks, kept releases",
    ),
    (
        "~/.config/makuo/deploy.key",
        "key of a user, which signs releases",
    ),
    ("~/.config/makuo/group.key", "group key of a user"),
    (
        "~/.cache/makuo",
        "indexes of sources, keys of known hosts, hosts of the last deploys",
    ),
];

#[derive(Serialize)]
struct WrittenPages {
    pages: usize,
}

pub(super) fn run(args: &ManArgs, report: &mut Report) -> Result<u8> {
    let dir = &args.dir;
    std::fs::create_dir_all(dir).context("cannot make the directory", dir)?;

    let mut pages = FILE_PAGES.len() + write_all(Cli::command(), dir)?;
    for old in [
        crate::face::makuosan::MakuosanFlags::command(),
        crate::face::msync::MsyncFlags::command(),
    ] {
        clap_mangen::generate_to(old, dir).context(WRITE_FAILED, dir)?;
        pages += 1;
    }
    for (name, text) in FILE_PAGES {
        std::fs::write(dir.join(name), text).context(WRITE_FAILED, dir)?;
    }

    report.plain("", &WrittenPages { pages });
    Ok(0)
}

/// Writes the pages of a command and its subcommands; returns their number.
fn write_all(command: clap::Command, dir: &Path) -> Result<usize> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    write(&command, dir)
}

fn write(command: &clap::Command, dir: &Path) -> Result<usize> {
    let mut pages = 1;
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        pages += write(sub, dir)?;
    }

    let (page, text) = page(command).context(WRITE_FAILED, dir)?;
    std::fs::write(dir.join(page), text).context(WRITE_FAILED, dir)?;
    Ok(pages)
}

/// File name and text of a command's page.
fn page(command: &clap::Command) -> std::io::Result<(String, Vec<u8>)> {
    let notes = Notes::of(command);
    let man = Man::new(command.clone().after_help("").after_long_help(""));
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    if command.get_arguments().any(|arg| !arg.is_hide_set()) {
        man.render_options_section(&mut text)?;
    }
    if command.has_subcommands() {
        man.render_subcommands_section(&mut text)?;
    }
    text.extend(notes.sections().into_bytes());
    if command.get_version().is_some() {
        man.render_version_section(&mut text)?;
    }

    let text = String::from_utf8_lossy(&text);
    Ok((man.get_filename(), with_one_preamble(&text).into_bytes()))
}

/// Keeps the first of the preambles, one of which each section brings.
fn with_one_preamble(text: &str) -> String {
    let mut seen = HashSet::new();
    let mut kept = String::new();
    for line in text.split_inclusive('\n') {
        let is_preamble = PREAMBLE.iter().any(|start| line.starts_with(start));
        if !is_preamble || seen.insert(line) {
            kept.push_str(line);
        }
    }

    kept
}

/// The text after a command's help, by its sections.
#[derive(Default)]
struct Notes {
    text: Vec<String>,
    codes: Vec<String>,
    examples: Vec<String>,
}

impl Notes {
    fn of(command: &clap::Command) -> Self {
        let help = command.get_after_help().map(ToString::to_string);
        let mut notes = Self::default();
        let mut section = &mut notes.text;
        for line in help.unwrap_or_default().lines() {
            match line {
                "Examples:" => section = &mut notes.examples,
                _ if line.starts_with("Exit codes") => section = &mut notes.codes,
                // A paragraph after a list belongs to the text again.
                _ if !line.is_empty() && !line.starts_with(' ') => {
                    section = &mut notes.text;
                    section.push(line.to_string());
                }
                _ => section.push(line.to_string()),
            }
        }

        if notes.codes.is_empty() {
            let lines = EXIT_CODES.lines().skip(1).map(ToString::to_string);
            notes.codes.extend(lines);
        }
        notes
    }

    fn sections(&self) -> String {
        let mut text = String::new();
        if !self.text.is_empty() {
            text.push_str(".SH NOTES\n");
            self.text.iter().for_each(|line| put(&mut text, line));
        }
        put_as_written(&mut text, "EXIT STATUS", &self.codes);
        put_list(&mut text, "ENVIRONMENT", &VARIABLES);
        put_list(&mut text, "FILES", &FILES);
        if !self.examples.is_empty() {
            put_as_written(&mut text, "EXAMPLES", &self.examples);
        }
        text.push_str(".SH SEE ALSO\n");
        put(&mut text, "makuo(1), makuo.toml(5), makuo-manifest(5)");

        text
    }
}

/// Adds a section whose lines stay as they are.
fn put_as_written(text: &mut String, title: &str, lines: &[String]) {
    let _ = writeln!(text, ".SH {}\n.nf", quoted(title));
    lines.iter().for_each(|line| put(text, line));
    text.push_str(".fi\n");
}

/// Adds a section of terms and their meanings.
fn put_list(text: &mut String, title: &str, list: &[(&str, &str)]) {
    let _ = writeln!(text, ".SH {}", quoted(title));
    for (term, meaning) in list {
        text.push_str(".TP\n");
        put(text, term);
        put(text, meaning);
    }
}

fn quoted(title: &str) -> String {
    match title.contains(' ') {
        true => format!("\"{title}\""),
        false => title.to_string(),
    }
}

/// Adds a line of text, which roff must not read as a command.
fn put(text: &mut String, line: &str) {
    if line.starts_with(['.', '\'']) {
        text.push_str("\\&");
    }
    for c in line.chars() {
        match c {
            '\\' => text.push_str("\\e"),
            '-' => text.push_str("\\-"),
            c => text.push(c),
        }
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_has_the_shared_sections() {
        let mut command = Cli::command();
        command.build();
        let shown = command.get_subcommands().filter(|sub| !sub.is_hide_set());
        for sub in shown.chain([&command]) {
            let (name, text) = page(sub).expect("in memory");
            let text = String::from_utf8(text).expect("UTF-8");
            for section in [".SH \"EXIT STATUS\"", ".SH ENVIRONMENT", ".SH FILES"] {
                assert_eq!(text.matches(section).count(), 1, "{section} of {name}");
            }
            assert!(text.contains("MAKUO_PASSPHRASE"), "{name}");
            assert!(!text.contains(".SH EXTRA"), "{name}");
        }
    }

    #[test]
    fn a_line_is_text_whatever_it_begins_with() {
        let mut text = String::new();
        put(&mut text, ".SH trap");
        put(&mut text, "a\\b --c");
        assert_eq!(text, "\\&.SH trap\na\\eb \\-\\-c\n");
    }
}
