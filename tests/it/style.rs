//! Holds the style that `.github/CONTRIBUTING.md` describes, as far as a machine can count it:
//! plain sentences, lines and functions that can be read, and names that mean one thing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Words that make a sentence circle around a thing instead of naming it.
const CIRCLING: &[&str] = &[
    "what",
    "whatever",
    "whoever",
    "whom",
    "whose",
    "wherever",
    "whichever",
    "anew",
];
/// The most of them in 1,000 words of comments.
const MAX_CIRCLING: f64 = 5.0;
/// The most columns of a line.
const MAX_COLUMNS: usize = 100;
/// The most lines of a function body without a blank line.
const MAX_SOLID: usize = 15;

#[test]
fn comments_name_things() {
    let mut words = 0;
    let mut circling = 0;
    for (_, text) in sources() {
        for comment in text.lines().filter_map(comment_of) {
            for word in comment
                .split(|c: char| !c.is_alphanumeric())
                .filter(|w| !w.is_empty())
            {
                words += 1;
                circling += usize::from(CIRCLING.contains(&word.to_lowercase().as_str()));
            }
        }
    }

    let share = 1000.0 * circling as f64 / words as f64;

    assert!(
        share <= MAX_CIRCLING,
        "{share:.1} of 1,000 words in comments are one of {CIRCLING:?}: name the thing instead"
    );
}

/// Examples in comments would run in no test.
#[test]
fn comments_have_no_examples() {
    let mut found = Vec::new();
    for (path, text) in sources() {
        let comments = text.lines().filter_map(comment_of);
        let fences = comments.filter_map(|comment| comment.strip_prefix("```"));
        // Each second one ends a block.
        let examples = fences.step_by(2).filter(|kind| *kind != "text");
        found.extend(examples.map(|kind| format!("{path}: {kind:?}")));
    }
    assert!(
        found.is_empty(),
        "write a test instead:\n{}",
        found.join("\n")
    );
}

#[test]
fn lines_fit_the_page() {
    let long = |(path, text): (String, String)| {
        let lines = text.lines().enumerate();
        let long = lines.filter(|(_, line)| line.chars().count() > MAX_COLUMNS);
        long.map(|(at, _)| format!("{path}:{}", at + 1))
            .collect::<Vec<_>>()
    };

    let found: Vec<String> = sources().into_iter().flat_map(long).collect();
    assert!(
        found.is_empty(),
        "longer than {MAX_COLUMNS} columns:\n{}",
        found.join("\n")
    );
}

#[test]
fn long_functions_have_paragraphs() {
    let mut found = Vec::new();
    for (path, text) in sources() {
        for (at, body) in bodies(&text) {
            let solid = body.iter().all(|line| !line.trim().is_empty());
            if body.len() > MAX_SOLID && solid && statements(&body) > 1 {
                found.push(format!("{path}:{at}: {} lines", body.len()));
            }
        }
    }

    assert!(
        found.is_empty(),
        "functions without a blank line:\n{}",
        found.join("\n")
    );
}

#[test]
fn a_type_has_a_name_of_its_own() {
    let mut files: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, text) in sources() {
        for name in text.lines().filter(is_outside).filter_map(type_of) {
            files.entry(name).or_default().insert(path.clone());
        }
    }

    let shared: Vec<_> = files.iter().filter(|(_, files)| files.len() > 1).collect();
    assert!(shared.is_empty(), "one name, several types: {shared:#?}");
}

#[test]
fn a_constant_has_one_value() {
    let mut values: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for (path, text) in sources() {
        for (name, value) in text.lines().filter_map(constant_of) {
            values.entry(name).or_default().insert(value, path.clone());
        }
    }

    let several: Vec<_> = values
        .iter()
        .filter(|(_, values)| values.len() > 1)
        .collect();
    assert!(several.is_empty(), "one name, several values: {several:#?}");
}

#[test]
fn the_counters_count() {
    assert_eq!(comment_of("    /// What it is."), Some("What it is."));
    assert_eq!(comment_of("let url = \"http://x\";"), None);
    assert_eq!(
        type_of("pub(super) struct Page<'a> {"),
        Some("Page".to_string())
    );
    assert_eq!(type_of("        struct Local;"), None);

    assert_eq!(
        constant_of("pub const A: usize = 4;"),
        Some(("A".into(), "usize = 4".into()))
    );
    assert_eq!(
        constant_of("const A: &[&str] = &["),
        None,
        "its value is on the next lines"
    );

    let text = "impl X {\n    pub fn a() {\n        b();\n    }\n}\nfn c(\n    d: u8,\n) -> u8 {\n    d\n}\n";

    let found: Vec<(usize, usize)> = bodies(text)
        .iter()
        .map(|(at, body)| (*at, body.len()))
        .collect();

    assert_eq!(found, [(2, 1), (6, 1)]);
}

/// The path and text of every source file, without its test module; tests are left out.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut open = vec![root.join("src")];
    let mut found = Vec::new();
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).expect("src is readable") {
            let path: PathBuf = entry.expect("src is readable").path();
            let name = path
                .file_name()
                .expect("a name")
                .to_string_lossy()
                .into_owned();
            if path.is_dir() && name != "tests" {
                open.push(path);
            } else if name.ends_with(".rs") && name != "tests.rs" && !name.ends_with("_tests.rs") {
                let text = std::fs::read_to_string(&path).expect("UTF-8");
                let code = text
                    .split("\n#[cfg(test)]\nmod tests {")
                    .next()
                    .unwrap_or(&text);
                let below = path.strip_prefix(root).expect("below the root");
                found.push((below.to_string_lossy().into_owned(), code.to_string()));
            }
        }
    }

    assert!(found.len() > 100, "the sources were not found");

    found.sort();
    found
}

/// The text of a line that is a comment.
fn comment_of(line: &str) -> Option<&str> {
    let text = line.trim_start().strip_prefix("//")?;
    Some(text.trim_start_matches(['/', '!']).trim())
}

/// The name of the type that a line defines, outside of functions.
fn type_of(line: &str) -> Option<String> {
    let code = line.trim_start();
    if line.len() - code.len() > 4 {
        return None;
    }

    let (keyword, rest) = without_visibility(code).split_once(' ')?;
    let is_type = ["struct", "enum", "trait", "type", "union"].contains(&keyword);
    let name: String = rest
        .chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect();

    (is_type && !name.is_empty()).then_some(name)
}

/// The name of the constant that a line defines at the top of a file, and its type and value.
fn constant_of(line: &str) -> Option<(String, String)> {
    let rest = without_visibility(line).strip_prefix("const ")?;
    let (name, value) = rest.strip_suffix(';')?.split_once(": ")?;
    Some((name.to_string(), value.to_string()))
}

/// Returns whether a line belongs to no item: its own begins there.
fn is_outside(line: &&str) -> bool {
    !line.starts_with(char::is_whitespace)
}

fn without_visibility(code: &str) -> &str {
    let Some(rest) = code.strip_prefix("pub") else {
        return code;
    };

    let rest = rest
        .strip_prefix('(')
        .and_then(|rest| rest.split_once(')'))
        .map_or(rest, |(_, r)| r);
    rest.trim_start()
}

/// How many statements a body has: lines at its own indentation that open one. A body that is one
/// expression has no paragraphs.
fn statements(body: &[&str]) -> usize {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let own = body
        .iter()
        .map(|line| indent(line))
        .min()
        .unwrap_or_default();
    let opens = |line: &&&str| {
        indent(line) == own
            && !line
                .trim_start()
                .starts_with(['}', ')', ']', '{', '.', '|', '&'])
    };
    body.iter().filter(opens).count()
}

/// The bodies of all functions, as rustfmt lays them out: the line of each function and the lines
/// between its braces.
fn bodies(text: &str) -> Vec<(usize, Vec<&str>)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let is_function = without_visibility(code)
            .split(' ')
            .take_while(|word| ["const", "async", "unsafe", "fn"].contains(word))
            .any(|word| word == "fn");
        if !is_function {
            continue;
        }

        let indent = &line[..line.len() - code.len()];
        let opens = lines[at..]
            .iter()
            .position(|line| line.ends_with(['{', ';', '}']));
        let Some(open) = opens
            .map(|more| at + more)
            .filter(|open| lines[*open].ends_with('{'))
        else {
            continue;
        };
        let close = format!("{indent}}}");
        if let Some(more) = lines[open..].iter().position(|line| *line == close) {
            found.push((at + 1, lines[open + 1..open + more].to_vec()));
        }
    }

    found
}
