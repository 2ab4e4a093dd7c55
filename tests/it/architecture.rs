//! Checks of the source: the order of imports between rooms, a description at the top of each file,
//! a limit on file length, and `unsafe` only in listed places with a reason.

use std::path::{Path, PathBuf};

/// The rooms from the ground up. A room may import its own floor and all lower ones.
const FLOORS: &[&[&str]] = &[
    &["error", "id", "units", "sync", "recent", "strict", "helper"],
    &["block"],
    &["packed"],
    &["fec"],
    &["manifest"],
    &["hook"],
    &["spec", "config"],
    &["keys"],
    &["diff"],
    &["wire"],
    &["repository"],
    &["proto"],
    &["tree"],
    &["metrics"],
    &["net", "store"],
    &["outcome"],
    &["doctor"],
    &["drive"],
    &["report"],
    &["watch"],
    &["face"],
    &["web"],
    &["daemon"],
    &["cli"],
    &["fuzz"],
    &["main"],
];
/// The simulator may import all rooms up to this one; no room may import the simulator.
const SIM_UP_TO: &str = "tree";
/// Folders of a room from the ground up: a folder may import all earlier ones.
const FOLDERS: &[(&str, &[&str])] = &[(
    "tree",
    &[
        "fs",
        "index",
        "state",
        "scan",
        "prepare",
        "commit",
        "history",
        "lifecycle",
        "serve",
        "stage",
    ],
)];
/// Places where `unsafe` is allowed: system calls and vector instructions.
const UNSAFE_IN: &[&str] = &[
    "src/net/",
    "src/tree/",
    "src/fec/simd.rs",
    "src/block/sha_ni.rs",
];
/// Largest number of lines in a file.
const MAX_LINES: usize = 900;

#[test]
fn rooms_know_only_rooms_above_them() {
    let found = every_source()
        .iter()
        .flat_map(|(path, text)| wrong_imports(path, text))
        .collect::<Vec<_>>();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn folders_know_only_folders_before_them() {
    let found = every_source()
        .iter()
        .flat_map(|(path, text)| wrong_folders(path, text))
        .collect::<Vec<_>>();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn every_file_says_what_it_owns_and_stays_readable() {
    let found = every_source()
        .iter()
        .flat_map(|(path, text)| wrong_shape(path, text))
        .collect::<Vec<_>>();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn unsafe_stands_where_it_may_and_with_its_reason() {
    let sources = every_source();
    let found = sources
        .iter()
        .flat_map(|(path, text)| wrong_unsafe(path, text))
        .collect::<Vec<_>>();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
    let with = sources
        .iter()
        .filter(|(_, text)| !unsafe_lines(text).is_empty())
        .map(|(path, _)| path.as_str());

    assert_eq!(
        with.collect::<Vec<_>>(),
        [
            "src/block/sha_ni.rs",
            "src/fec/simd.rs",
            "src/net/sys.rs",
            "src/tree/fs/sys.rs"
        ],
        "one more is worth a second look"
    );

    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).expect("Cargo.toml");
    assert!(
        manifest.contains("\nunsafe_code = \"deny\"\n"),
        "the compiler holds the same"
    );
}

#[test]
fn the_tests_that_the_threat_model_names_exist() {
    let path = root().join(".github/SECURITY.md");
    let Ok(text) = std::fs::read_to_string(&path) else {
        return println!("skipped: {} is not part of a package", path.display());
    };

    let files = every_source().into_iter().chain(files_below("tests/it"));
    let code: Vec<String> = files
        .map(|(_, text)| text.replace("\n    fn ", "\nfn "))
        .collect();

    let (heads, rows): (Vec<&str>, Vec<&str>) = text
        .lines()
        .filter(|line| line.starts_with("| "))
        .partition(|line| *line == "| cannot | shown by |");
    assert_eq!(heads.len(), 9, "one table for each attacker");
    let shown: Vec<&str> = rows
        .iter()
        .filter_map(|row| row.rsplit('|').nth(1))
        .collect();

    assert!(shown.len() > 40, "the rows were not found");
    for (cell, row) in shown.iter().zip(&rows) {
        assert!(!quoted(cell).is_empty(), "no test shows it: {row}");
    }

    let sentences = text
        .lines()
        .filter(|line| !line.starts_with('|'))
        .flat_map(quoted);
    let named: Vec<&str> = sentences
        .filter(|name| name.matches('_').count() > 3)
        .collect();

    for name in shown.iter().flat_map(|cell| quoted(cell)).chain(named) {
        let test = format!("\nfn {name}(");
        assert!(
            code.iter().any(|text| text.contains(&test)),
            "there is no test {name}"
        );
    }
}

/// Returns the text between backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

#[test]
fn every_room_of_the_map_has_a_floor() {
    let map = std::fs::read_to_string(root().join("src/lib.rs")).expect("src/lib.rs");
    for room in map
        .lines()
        .filter_map(|l| l.strip_prefix("pub mod ")?.strip_suffix(';'))
    {
        assert!(
            room == "sim" || floor(room).is_some(),
            "src/lib.rs declares {room}, which has no floor here"
        );
    }
}

#[test]
fn the_checker_finds_what_it_is_for() {
    let wrong = |path: &str, text: &str| wrong_imports(path, text);
    assert_eq!(
        wrong(
            "src/block/hash.rs",
            "//! x\nuse crate::id::Serial;\nuse crate::manifest::Entry;\n"
        ),
        ["src/block/hash.rs:3: block must not know manifest"]
    );

    assert_eq!(
        wrong("src/proto/a.rs", "fn f() { crate::drive::run() }").len(),
        1
    );
    assert_eq!(
        wrong(
            "src/units.rs",
            "use crate::{\n    Error,\n    report::{Json, Human},\n};"
        )
        .len(),
        1
    );

    assert_eq!(
        wrong("src/units.rs", "use crate::{id, cli::Cli};")[0],
        "src/units.rs:1: units must not know cli"
    );
    assert_eq!(
        wrong("src/main.rs", "fn main() { makuo::cli::run() }").len(),
        0
    );

    assert_eq!(wrong("src/tree/mod.rs", "use crate::sim::Disk;").len(), 1);
    assert_eq!(wrong("src/sim/disk.rs", "use crate::net::Socket;").len(), 1);
    assert_eq!(wrong("src/sim/disk.rs", "use crate::tree::Root;").len(), 0);
    assert_eq!(
        wrong(
            "src/tree/mod.rs",
            "#[cfg(test)] mod tests { use crate::net::X; }"
        )
        .len(),
        1
    );

    for fine in [
        "//! see [`crate::drive`]\n/// and crate::cli::run",
        "// crate::drive::x",
        "use crate::{Error, Result};",
        "use crate::Error;",
        "let text = \"crate::drive::x\";",
        "macro_rules! x { () => { $crate::id::Serial } }",
    ] {
        assert_eq!(
            wrong("src/block/mod.rs", fine),
            Vec::<String>::new(),
            "{fine}"
        );
    }

    assert_eq!(
        wrong_folders("src/tree/fs/dir.rs", "use crate::tree::{Tree, state::x};"),
        ["src/tree/fs/dir.rs:1: fs must not know state"]
    );
    assert_eq!(
        wrong_folders("src/tree/scan/mod.rs", "use super::stage::Stage;").len(),
        1
    );
    assert_eq!(
        wrong_folders(
            "src/tree/stage/copy.rs",
            "use super::stage; use crate::tree::fs::x;"
        )
        .len(),
        0
    );

    let reason =
        "// SAFETY: one\n// and more.\nlet x = unsafe { f() };\nlet y = \"unsafe\"; // unsafe";
    assert_eq!(wrong_unsafe("src/net/sys.rs", reason), Vec::<String>::new());
    assert_eq!(
        wrong_unsafe("src/cli/mod.rs", reason),
        ["src/cli/mod.rs:3: `unsafe` may not stand here"]
    );

    for bare in [
        "unsafe { f() }",
        "// SAFETY: x\n\nunsafe fn f() {}",
        "// why not\nunsafe impl Send for X {}",
    ] {
        assert_eq!(wrong_unsafe("src/net/sys.rs", bare).len(), 1, "{bare}");
    }

    assert_eq!(unsafe_lines("#![allow(unsafe_code)]"), Vec::<usize>::new());
    assert_eq!(wrong_shape("src/x.rs", "use a;\n").len(), 1);
    assert_eq!(
        wrong_shape("src/x.rs", &format!("//! x\n{}", "\n".repeat(MAX_LINES))).len(),
        1
    );

    assert_eq!(wrong_shape("src/x.rs", "//! x\n").len(), 0);
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the path from the package's root and the text of every file in src/.
fn every_source() -> Vec<(String, String)> {
    let sources = files_below("src");
    assert!(sources.len() > 20, "the sources were not found");
    sources
}

/// Returns the same of every file of Rust below a directory.
fn files_below(top: &str) -> Vec<(String, String)> {
    let mut sources = Vec::new();
    let mut open = vec![root().join(top)];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).expect("readable") {
            let path: PathBuf = entry.expect("readable").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let name = path
                    .strip_prefix(root())
                    .expect("below")
                    .to_string_lossy()
                    .into_owned();
                sources.push((name, std::fs::read_to_string(&path).expect("UTF-8")));
            }
        }
    }

    sources.sort();
    sources
}

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

fn room_of(path: &str) -> &str {
    let below = path.strip_prefix("src/").unwrap_or(path);
    below
        .split('/')
        .next()
        .unwrap_or(below)
        .trim_end_matches(".rs")
}

fn wrong_shape(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    if !text.starts_with("//!") {
        found.push(format!(
            "{path}:1: opens without `//!`: say what it owns and what it must not know"
        ));
    }

    let lines = text.lines().count();
    if lines > MAX_LINES {
        found.push(format!("{path}:{lines}: longer than {MAX_LINES} lines"));
    }

    found
}

fn wrong_unsafe(path: &str, text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let may = UNSAFE_IN.iter().any(|place| path.starts_with(place));
    let has_reason = |at: &usize| {
        let above = lines[..*at]
            .iter()
            .rev()
            .map(|line| line.trim_start())
            .take_while(|line| line.starts_with("//"));
        above
            .into_iter()
            .any(|line| line.starts_with("// SAFETY: "))
    };

    let what = |at: usize| match may {
        false => Some(format!("{path}:{}: `unsafe` may not stand here", at + 1)),
        true if has_reason(&at) => None,
        true => Some(format!(
            "{path}:{}: `unsafe` without `// SAFETY: ` directly above",
            at + 1
        )),
    };

    unsafe_lines(text).into_iter().filter_map(what).collect()
}

/// Returns the lines, from 0, with the keyword in code.
fn unsafe_lines(text: &str) -> Vec<usize> {
    let code = without_comments(text);
    let has = |line: &str| {
        line.split(|c: char| !(c.is_alphanumeric() || c == '_'))
            .any(|word| word == "unsafe")
    };

    code.lines()
        .enumerate()
        .filter(|(_, line)| has(line))
        .map(|(at, _)| at)
        .collect()
}

fn wrong_imports(path: &str, text: &str) -> Vec<String> {
    let room = room_of(path);
    if room == "lib" {
        return Vec::new();
    }

    let allowed = |other: &str| match (floor(room), floor(other)) {
        _ if room == other => true,
        (Some(own), Some(other)) => other <= own,
        (None, Some(other)) if room == "sim" => Some(other) <= floor(SIM_UP_TO),
        (_, None) => other != "sim",
        (None, _) => false,
    };

    let code = without_comments(text);
    rooms_named(&code)
        .into_iter()
        .filter(|(_, other)| !allowed(other))
        .map(|(at, other)| {
            format!(
                "{path}:{}: {room} must not know {other}",
                line_of(&code, at)
            )
        })
        .collect()
}

fn wrong_folders(path: &str, text: &str) -> Vec<String> {
    let room = room_of(path);
    let Some((_, folders)) = FOLDERS.iter().find(|(with, _)| *with == room) else {
        return Vec::new();
    };

    let place = |folder: &str| folders.iter().position(|known| *known == folder);
    let parts: Vec<&str> = path.trim_end_matches(".rs").split('/').skip(2).collect();
    let Some(own) = parts.first().and_then(|folder| place(folder)) else {
        return Vec::new();
    };

    let code = without_comments(text);
    let mut found = named_after(&format!("crate::{room}::"), &code);
    // The head module of a folder has access to the other folders.
    if matches!(parts[..], [_] | [_, "mod"]) {
        found.extend(named_after("super::", &code));
    }

    found
        .into_iter()
        .filter(|(_, other)| place(other).is_some_and(|other| other > own))
        .map(|(at, other)| {
            format!(
                "{path}:{}: {} must not know {other}",
                line_of(&code, at),
                folders[own]
            )
        })
        .collect()
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// Returns every `crate::room` and every room in `crate::{...}`, with its position.
fn rooms_named(code: &str) -> Vec<(usize, String)> {
    named_after("crate::", code)
}

/// Returns every module named right after `prefix`, alone or in a group, with its position.
fn named_after(prefix: &str, code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices(prefix) {
        let start = at + prefix.len();
        let rest = &code[start..];
        if rest.starts_with('{') {
            found.extend(
                top_of_group(rest)
                    .into_iter()
                    .map(|(offset, name)| (start + offset, name)),
            );
        } else {
            found.push((at, word(rest)));
        }
    }

    // Capitalized names are re-exports of the root from the lowest floor.
    found.retain(|(_, name)| {
        name.chars().next().is_some_and(|c| c.is_ascii_lowercase()) && name != "self"
    });

    found
}

/// Returns the first words of the items in `{a, b::{c, d}}`.
fn top_of_group(group: &str) -> Vec<(usize, String)> {
    let (mut depth, mut fresh, mut found) = (0usize, true, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth <= 1 => break,
            '}' => depth -= 1,
            ',' if depth == 1 => fresh = true,
            c if depth == 1 && fresh && !c.is_whitespace() => {
                found.push((at, word(&group[at..])));
                fresh = false;
            }
            _ => {}
        }
    }

    found
}

fn word(text: &str) -> String {
    text.chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect()
}

/// Blanks line comments and plain strings, and keeps the line breaks.
fn without_comments(text: &str) -> String {
    let strip = |line: &str| {
        let (mut code, mut quoted, mut last) = (String::new(), false, ' ');
        for (at, c) in line.char_indices() {
            if !quoted && line[at..].starts_with("//") {
                break;
            }
            let char_literal = last == '\'' && line[at + c.len_utf8()..].starts_with('\'');
            if c == '"' && last != '\\' && !char_literal {
                quoted = !quoted;
            } else if !quoted {
                code.push(c);
            }
            last = if c == '\\' && last == '\\' { ' ' } else { c };
        }
        code
    };

    text.lines().map(strip).collect::<Vec<_>>().join("\n")
}
