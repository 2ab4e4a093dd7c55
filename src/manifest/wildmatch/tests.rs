//! Rules of the format, and random patterns beside git and an exhaustive matcher.

use std::collections::BTreeSet;
use std::process::Command;

use proptest::prelude::*;

use super::*;

/// Rules of the format: a pattern, texts that match, and texts that do not.
type Rule = (
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
);

const STARS: &[Rule] = &[
    // A star stays within a component and may be empty.
    ("*", &["page", ""], &["page/two"]),
    (
        "*.css",
        &["site.css", ".css"],
        &["site.css.gz", "css/site.css"],
    ),
    ("log*1*", &["log1", "log-41-x"], &["log", "log/1"]),
    ("*-*-*", &["--", "a-b-c"], &["a-b"]),
    ("static/*", &["static/page"], &["static", "static/js/app"]),
    (
        "*/js/*",
        &["static/js/app"],
        &["js/app", "var/static/js/app"],
    ),
    // Two stars as a component are any number of directories.
    (
        "**/cache",
        &["cache", "var/cache", "var/lib/cache"],
        &["mycache"],
    ),
    (
        "var/**/log",
        &["var/log", "var/a/log", "var/a/b/log"],
        &["varlog", "var/alog"],
    ),
    ("var/**/**/log", &["var/log", "var/a/b/log"], &["log"]),
    ("var/**", &["var/log", "var/a/b/log"], &["var", "vary"]),
    ("**/*.o", &["main.o", "src/lib/io.o"], &["main.o/x"]),
    // Elsewhere two stars are one.
    ("v**r", &["vr", "visor"], &["v/r"]),
    ("**log", &["log", "weblog"], &["web/log"]),
    ("log**", &["log", "logs"], &["log/1"]),
];

const BYTES: &[Rule] = &[
    ("", &[""], &["page"]),
    ("page", &["page"], &["pag", "pages", "Page"]),
    ("p?ge", &["page", "p.ge"], &["pge", "p/ge", "paage"]),
    ("\\*", &["*"], &["page", "\\*"]),
    ("\\p\\\\", &["p\\"], &["p", "\\p\\"]),
    // A backslash at the end matches nothing.
    ("page\\", &[], &["page", "page\\"]),
    ("]", &["]"], &[""]),
];

const BRACKETS: &[Rule] = &[
    ("v[12]", &["v1", "v2"], &["v3", "v12", "v"]),
    ("v[0-9]", &["v0", "v7", "v9"], &["va", "v-"]),
    ("v[!0-9]", &["va", "v-"], &["v4", "v/"]),
    ("v[^0-9]", &["va", "v-"], &["v4", "v/"]),
    // No bracket matches a slash.
    ("v[/]x", &[], &["v/x"]),
    ("v[.-0]x", &["v.x", "v0x"], &["v/x"]),
    // The first member may be the closing bracket, the first and the last a dash.
    ("[]x]", &["]", "x"], &["[", "]x]"]),
    ("[!]x]", &["["], &["]", "x"]),
    ("[-x]", &["-", "x"], &["w"]),
    ("[x-]", &["-", "x"], &["y"]),
    ("[]-]", &["]", "-"], &["\\"]),
    // The end of a range begins no other range.
    ("[b-d-k]", &["c", "-", "k"], &["h"]),
    ("[+--]", &["+", ",", "-"], &["."]),
    ("[d-b]", &[], &["b", "c", "-"]),
    // Escaped members, also at the ends of a range.
    ("[\\]]", &["]"], &["\\"]),
    ("[\\3-\\5]", &["3", "4", "5"], &["\\", "6"]),
    ("[Z-\\]]", &["Z", "[", "\\", "]"], &["Y"]),
    // Without an end it matches nothing.
    ("v[12", &[], &["v1", "v[12"]),
    ("v[]", &[], &["v", "v[]"]),
    ("[\\]", &[], &["\\", "[\\]"]),
    // Named classes.
    ("[[:digit:]]*", &["1st"], &["first"]),
    ("[[:digit:]x-z_]", &["4", "y", "_"], &["a"]),
    ("[![:space:]]", &["a"], &[" ", "\t"]),
    ("[[:word:]]", &[], &["w", ":"]),
    ("[[:]w]", &[":w]", "[w]"], &["w"]),
];

fn matches(pattern: &[u8], text: &[u8]) -> bool {
    Wildcard::compile(pattern).is_some_and(|wildcard| wildcard.matches(text))
}

#[test]
fn patterns_match_by_the_rules() {
    for (pattern, alike, others) in [STARS, BYTES, BRACKETS].concat() {
        let found = |text: &&str| matches(pattern.as_bytes(), text.as_bytes());
        assert!(alike.iter().all(found), "{pattern:?} with {alike:?}");
        assert!(!others.iter().any(found), "{pattern:?} with {others:?}");
    }
}

/// Returns a random pattern that begins with a wildcard: git before 2.53 strips a literal prefix
/// before it looks at the stars that follow.
fn random_pattern(rng: &mut fastrand::Rng) -> String {
    const PARTS: [&str; 24] = [
        "a",
        "b",
        "-",
        "]",
        "/",
        "/",
        "*",
        "*",
        "**",
        "**/",
        "/**/",
        "?",
        "[ab]",
        "[!a]",
        "[^b]",
        "[a-c]",
        "[]-]",
        "[!]a]",
        "[a-]",
        "[--a]",
        "[\\]]",
        "[[:lower:]]",
        "[a[:punct:]]",
        "\\*",
    ];
    const FIRST: [&str; 6] = ["*", "**", "**/", "?", "[a-c]", "[!a]"];

    let first = FIRST[rng.usize(..FIRST.len())];
    let rest = (0..rng.usize(..6)).map(|_| PARTS[rng.usize(..PARTS.len())]);
    std::iter::once(first).chain(rest).collect()
}

fn random_path(rng: &mut fastrand::Rng) -> String {
    const BYTES: [&str; 7] = ["a", "a", "b", "b", "-", "]", "*"];
    let mut name = || -> String {
        let bytes = 1 + rng.usize(..3);
        (0..bytes)
            .map(|_| BYTES[rng.usize(..BYTES.len())])
            .collect()
    };

    let names: Vec<String> = [name(), name(), name(), name()].into();
    names[rng.usize(..4)..].join("/")
}

/// Compares with the patterns of git's attributes, each of which sets an attribute of its own.
#[test]
fn random_patterns_match_as_in_git() {
    const COUNT: usize = 400;
    let dir = tempfile::tempdir().unwrap();
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);

    // A pattern with a slash at its end is one of directories.
    let patterns: Vec<String> = std::iter::repeat_with(|| random_pattern(&mut rng))
        .filter(|pattern| !pattern.ends_with('/'))
        .take(COUNT)
        .collect();
    let paths: Vec<String> = (0..COUNT).map(|_| random_path(&mut rng)).collect();

    let line = |(number, pattern): (usize, &String)| format!("/{pattern} p{number}\n");
    let attributes: String = patterns.iter().enumerate().map(line).collect();
    std::fs::write(dir.path().join("attributes"), attributes).unwrap();
    std::fs::write(dir.path().join("paths"), paths.join("\0")).unwrap();

    let git = |args: &[&str]| {
        Command::new("git")
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .current_dir(dir.path())
            .args(args)
            .stdin(std::fs::File::open(dir.path().join("paths")).unwrap())
            .output()
    };

    if git(&["init", "-q"]).is_err() {
        return crate::skip::skipped("no git");
    }

    let checked = git(&[
        "-c",
        "core.attributesFile=attributes",
        "check-attr",
        "--stdin",
        "-z",
        "-a",
    ]);
    let checked = checked.unwrap();
    assert!(checked.status.success(), "{checked:?}");

    // Path, attribute and value, each with a zero byte.
    let found = String::from_utf8(checked.stdout).unwrap();
    let fields: Vec<&str> = found.split('\0').collect();
    let by_git: BTreeSet<(&str, &str)> = fields
        .chunks_exact(3)
        .map(|triple| (triple[0], triple[1]))
        .collect();
    assert!(by_git.len() > COUNT, "few of the patterns match");

    for (number, pattern) in patterns.iter().enumerate() {
        let attribute = format!("p{number}");
        for path in &paths {
            assert_eq!(
                matches(pattern.as_bytes(), path.as_bytes()),
                by_git.contains(&(path.as_str(), attribute.as_str())),
                "{pattern:?} with {path:?}, seed {seed}"
            );
        }
    }
}

#[test]
fn classes_have_the_bytes_that_git_gives_them() {
    // Number of members of each class among 256 bytes; the slash is never one.
    let sizes = [
        ("alnum", 62),
        ("alpha", 52),
        ("blank", 2),
        ("cntrl", 33),
        ("digit", 10),
        ("graph", 93),
        ("lower", 26),
        ("print", 94),
        ("punct", 31),
        ("space", 4),
        ("upper", 26),
        ("xdigit", 22),
    ];

    for (name, size) in sizes {
        for (pattern, wanted) in [
            (format!("[[:{name}:]]"), size),
            (format!("[![:{name}:]]"), 255 - size),
        ] {
            let found = (0..=u8::MAX)
                .filter(|byte| matches(pattern.as_bytes(), &[*byte]))
                .count();
            assert_eq!(found, wanted, "{pattern}");
        }
    }
}

/// Matches by exhaustive search.
fn plain(tokens: &[Token], text: &[u8]) -> bool {
    let Some((token, rest)) = tokens.split_first() else {
        return text.is_empty();
    };

    let one = |fits: bool| fits && plain(rest, &text[1..]);
    match token {
        Token::Rest => true,
        Token::Star => {
            let most = text
                .iter()
                .position(|byte| *byte == b'/')
                .unwrap_or(text.len());
            (0..=most).any(|taken| plain(rest, &text[taken..]))
        }
        Token::Directories { none } => {
            let mut slashes = (0..text.len()).filter(|at| text[*at] == b'/');
            (*none && plain(rest, text)) || slashes.any(|at| plain(rest, &text[at + 1..]))
        }
        _ if text.is_empty() => false,
        Token::Byte(byte) => one(text[0] == *byte),
        Token::Any => one(text[0] != b'/'),
        Token::Class(set) => one(set.has(text[0])),
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn stars_take_what_trying_everything_finds(
        pattern in "([ab/]|\\*|\\*\\*/|/\\*\\*/|\\?|\\[ab\\]|\\\\/){0,9}",
        text in "[ab]{1,3}(/[ab]{1,3}){0,4}"
    ) {
        if let Some(wildcard) = Wildcard::compile(pattern.as_bytes()) {
            let text = text.as_bytes();
            prop_assert_eq!(wildcard.matches(text), plain(&wildcard.tokens, text));
        }
    }

    #[test]
    fn no_bytes_are_too_odd_for_a_pattern(
        pattern in prop::collection::vec(any::<u8>(), 0..30),
        text in prop::collection::vec(any::<u8>(), 0..30)
    ) {
        matches(&pattern, &text);
    }
}
