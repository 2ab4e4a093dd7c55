//! Holds that the files of a room import each other in no circle. A module with its own children is
//! allowed: the parent declares a child and may use it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// For each module of a room, the modules that it imports. The room itself is the empty name.
type Imports = BTreeMap<String, BTreeSet<String>>;

#[test]
fn files_of_a_room_import_each_other_in_no_circle() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();

    for entry in std::fs::read_dir(&src).expect("src is readable") {
        let dir = entry.expect("src is readable").path();
        if !dir.is_dir() {
            continue;
        }

        let room = dir
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let mut files = BTreeMap::new();
        collect(&dir, &dir, &mut files);
        for circle in circles(&imports(&room, &files)) {
            found.push(format!("{room}: {}", circle.join(", ")));
        }
    }

    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn the_search_finds_circles_and_nothing_else() {
    let room = |files: &[(&str, &str)]| {
        let owned = |(name, text): &(&str, &str)| (name.to_string(), text.to_string());
        circles(&imports("room", &files.iter().map(owned).collect()))
    };

    assert_eq!(
        room(&[
            ("a", "use super::b::B;"),
            ("b", "use crate::room::{c, d};"),
            ("c", "fn f() { super::a::f() }")
        ]),
        [["a", "b", "c"]]
    );

    assert!(
        room(&[
            ("a", "use super::b::B;"),
            ("b", "// use super::a;\nuse crate::other::a;")
        ])
        .is_empty()
    );

    assert!(
        room(&[("a", "use self::b::B;"), ("a::b", "use super::A;")]).is_empty(),
        "its own child"
    );
    assert_eq!(
        room(&[
            ("a", "use self::b::B;"),
            ("a::b", "use super::super::c::C;"),
            ("c", "use super::a::A;")
        ]),
        [["a", "a::b", "c"]]
    );

    assert!(
        room(&[
            ("a", "use super::b::B;\n#[cfg(test)]\nmod tests {\n}"),
            (
                "b",
                "#[cfg(test)]\nmod tests {\n    use super::super::a;\n}"
            )
        ])
        .is_empty()
    );
}

/// Reads every module below `dir` that is not a test: its name from the room's top and its text.
fn collect(top: &Path, dir: &Path, files: &mut BTreeMap<String, String>) {
    for entry in std::fs::read_dir(dir).expect("a room is readable") {
        let path = entry.expect("a room is readable").path();
        let name = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        if path.is_dir() {
            if name != "tests" {
                collect(top, &path, files);
            }
        } else if let Some(stem) = name.strip_suffix(".rs")
            && stem != "tests"
            && !stem.ends_with("_tests")
        {
            let below = path.strip_prefix(top).expect("below the room");
            let name = below
                .with_extension("")
                .to_string_lossy()
                .replace('/', "::");
            let name = name.strip_suffix("::mod").unwrap_or(&name);
            let name = if name == "mod" { "" } else { name };
            files.insert(
                name.to_string(),
                std::fs::read_to_string(&path).expect("UTF-8"),
            );
        }
    }
}

fn imports(room: &str, files: &BTreeMap<String, String>) -> Imports {
    let of = |(name, text): (&String, &String)| {
        let code = code_of(text);
        let paths = paths_in(&code);
        let found = paths
            .iter()
            .filter_map(|path| resolve(room, name, path, files));

        (name.clone(), found.filter(|other| other != name).collect())
    };

    files.iter().map(of).collect()
}

/// The text without its test module and line comments.
fn code_of(text: &str) -> String {
    let text = text
        .split("\n#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or(text);
    let code = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or(line));
    code.collect::<Vec<_>>().join("\n")
}

/// Every path in the code that begins with `crate`, `super` or `self`, and every other one that is
/// used, groups in braces spread out.
fn paths_in(code: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for (at, keyword) in code.match_indices("use ") {
        let line = code[..at].rsplit('\n').next().unwrap_or_default().trim();
        if line.is_empty() || line.starts_with("pub") {
            // A child may be named without `self`.
            spread(
                &code[at + keyword.len()..],
                &["self".to_string()],
                &mut found,
            );
        }
    }

    for start in ["crate::", "super::", "self::"] {
        for (at, _) in code.match_indices(start) {
            let before = code[..at].chars().next_back();
            if !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':' || c == '$') {
                spread(&code[at..], &[], &mut found);
            }
        }
    }

    found
}

/// Adds the paths of one use tree, which `text` begins with; returns what follows the tree.
fn spread<'a>(text: &'a str, prefix: &[String], found: &mut Vec<Vec<String>>) -> &'a str {
    let mut path = prefix.to_vec();
    let mut rest = text.trim_start();
    loop {
        let end = rest
            .find(|c: char| !(c.is_alphanumeric() || c == '_'))
            .unwrap_or(rest.len());
        if end > 0 {
            path.push(rest[..end].to_string());
            rest = &rest[end..];
        }

        match rest.strip_prefix("::") {
            Some(next) => rest = next,
            None if rest.starts_with('{') && (end == 0 || path.len() == prefix.len()) => {
                rest = &rest[1..];
                while !rest.trim_start().starts_with('}') && !rest.trim_start().is_empty() {
                    let next = spread(rest, &path, found);
                    let after = next.find([',', '}']).unwrap_or(next.len());
                    rest = next[after..].strip_prefix(',').unwrap_or(&next[after..]);
                }
                return rest.trim_start().strip_prefix('}').unwrap_or("");
            }
            None => {
                found.push(path);
                return rest;
            }
        }
    }
}

/// The module of the room that a path in the module `own` leads to; none outside of the room, and
/// none for the room itself.
fn resolve(
    room: &str,
    own: &str,
    path: &[String],
    files: &BTreeMap<String, String>,
) -> Option<String> {
    let mut at: Vec<&str> = own.split("::").filter(|part| !part.is_empty()).collect();
    let mut rest = path.iter().map(String::as_str).peekable();
    match rest.next()? {
        "crate" => {
            (rest.next()? == room).then_some(())?;
            at.clear();
        }
        "super" => {
            at.pop()?;
            while rest.next_if_eq(&"super").is_some() {
                at.pop()?;
            }
        }
        _ => {}
    }

    at.extend(rest);

    let longest = (1..=at.len()).rev().map(|len| at[..len].join("::"));
    longest.into_iter().find(|name| files.contains_key(name))
}

/// Every set of modules that reach each other, but for a module with its own children.
fn circles(imports: &Imports) -> Vec<Vec<String>> {
    let reach: BTreeMap<&str, BTreeSet<&str>> = imports
        .keys()
        .map(|name| (name.as_str(), reached_from(name, imports)))
        .collect();
    let mut found: BTreeSet<Vec<String>> = BTreeSet::new();

    for (name, others) in &reach {
        let same = |other: &&&str| reach.get(*other).is_some_and(|back| back.contains(name));
        let circle: Vec<String> = others
            .iter()
            .filter(same)
            .map(|other| other.to_string())
            .collect();
        if circle.len() > 1 && !is_parent_and_children(&circle, imports) {
            found.insert(circle);
        }
    }

    found.into_iter().collect()
}

fn reached_from<'a>(name: &str, imports: &'a Imports) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<&str> = imports[name].iter().map(String::as_str).collect();
    while let Some(next) = open.pop() {
        if reached.insert(next) {
            open.extend(imports.get(next).into_iter().flatten().map(String::as_str));
        }
    }

    reached
}

/// Whether a circle is a module with its own children, none of which imports another one.
fn is_parent_and_children(circle: &[String], imports: &Imports) -> bool {
    let [parent, children @ ..] = circle else {
        return false;
    };

    let is_child = |name: &String| {
        let below = name.strip_prefix(parent.as_str());
        let rest = below.and_then(|rest| rest.strip_prefix("::"));
        rest.is_some_and(|rest| !rest.contains("::"))
    };

    let is_apart = |name: &String| imports[name].iter().all(|other| !children.contains(other));
    children.iter().all(is_child) && children.iter().all(is_apart)
}
