//! Vectors of git's wildmatch with components, and random patterns beside an exhaustive matcher.

use proptest::prelude::*;

use super::*;

/// Patterns, each with texts that git matches.
const MATCHING: &[(&str, &[&str])] = &[
    ("foo", &["foo"]),
    ("", &[""]),
    ("???", &["foo"]),
    ("*", &["foo"]),
    ("f*", &["foo"]),
    ("*foo*", &["foo"]),
    ("*ob*a*r*", &["foobar"]),
    ("*ab", &["aaaaaaabababab"]),
    ("foo\\*", &["foo*"]),
    ("f\\\\oo", &["f\\oo"]),
    ("*[al]?", &["ball"]),
    ("**[!te]", &["ten"]),
    ("t[a-g]n", &["ten"]),
    ("t[!a-g]n", &["ton"]),
    ("t[^a-g]n", &["ton"]),
    ("a[]]b", &["a]b"]),
    ("a[]-]b", &["a-b", "a]b"]),
    ("a[]a-]b", &["aab"]),
    ("]", &["]"]),
    ("foo**bar", &["foobazbar"]),
    ("foo/**/bar", &["foo/baz/bar", "foo/b/a/z/bar", "foo/bar"]),
    (
        "foo/**/**/bar",
        &["foo/baz/bar", "foo/b/a/z/bar", "foo/bar"],
    ),
    ("f[^eiu][^eiu][^eiu][^eiu][^eiu]r", &["foo-bar"]),
    ("**/foo", &["foo", "XXX/foo", "bar/baz/foo"]),
    ("**/bar/*", &["deep/foo/bar/baz"]),
    ("**/bar/**", &["deep/foo/bar/baz/", "deep/foo/bar/"]),
    ("*/bar/**", &["foo/bar/baz/x"]),
    ("**/bar/*/*", &["deep/foo/bar/baz/x"]),
    ("a[c-c]rt", &["acrt"]),
    ("[!]-]", &["a"]),
    ("*/\\\\", &["XXX/\\"]),
    ("@foo", &["@foo"]),
    ("\\[ab]", &["[ab]"]),
    ("[[]ab]", &["[ab]"]),
    ("[[:]ab]", &["[ab]"]),
    ("[[:digit]ab]", &["[ab]"]),
    ("[\\[:]ab]", &["[ab]"]),
    ("\\??\\?b", &["?a?b"]),
    ("\\a\\b\\c", &["abc"]),
    ("**/t[o]", &["foo/bar/baz/to"]),
    ("[[:alpha:]][[:digit:]][[:upper:]]", &["a1B"]),
    ("[[:digit:][:upper:][:space:]]", &["A", "1", " "]),
    ("[[:digit:][:punct:][:space:]]", &["."]),
    ("[[:xdigit:]]", &["5", "f", "D"]),
    (
        "[[:alnum:][:alpha:][:blank:][:cntrl:][:digit:][:graph:]\
         [:lower:][:print:][:punct:][:space:][:upper:][:xdigit:]]",
        &["_"],
    ),
    (
        "[^[:alnum:][:alpha:][:blank:][:cntrl:][:digit:][:lower:][:space:][:upper:][:xdigit:]]",
        &["."],
    ),
    ("[a-c[:digit:]x-z]", &["5", "b", "y"]),
    ("[\\\\-^]", &["]"]),
    ("[\\-_]", &["-"]),
    ("[\\]]", &["]"]),
    ("[-]", &["-"]),
    ("[--A]", &["-", "5"]),
    ("[ --]", &[" ", "$", "-"]),
    ("[---]", &["-"]),
    ("[------]", &["-"]),
    ("[a-e-n]", &["-"]),
    ("[!------]", &["a"]),
    ("[]-a]", &["^"]),
    ("[!]-a]", &["["]),
    ("[a^bc]", &["^"]),
    ("[a-]b]", &["-b]"]),
    ("[\\\\]", &["\\"]),
    ("[A-\\\\]", &["G"]),
    ("[,]", &[","]),
    ("[\\\\,]", &[",", "\\"]),
    ("[,-.]", &["-"]),
    ("[\\1-\\3]", &["2", "3"]),
    ("[[-\\]]", &["\\", "[", "]"]),
    (
        "-*-*-*-*-*-*-12-*-*-*-m-*-*-*",
        &["-adobe-courier-bold-o-normal--12-120-75-75-m-70-iso8859-1"],
    ),
    (
        "XXX/*/*/*/*/*/*/12/*/*/*/m/*/*/*",
        &["XXX/adobe/courier/bold/o/normal//12/120/75/75/m/70/iso8859/1"],
    ),
    (
        "**/*a*b*g*n*t",
        &["abcd/abcdefg/abcdefghijk/abcdefghijklmnop.txt"],
    ),
    ("*/*/*", &["foo/bba/arr"]),
    ("**/**/**", &["foo/bb/aa/rr"]),
    ("*X*i", &["abcXdefXghi"]),
    ("*/*X*/*/*i", &["ab/cXd/efXg/hi"]),
    ("**/*X*/**/*i", &["ab/cXd/efXg/hi"]),
    ("foo/bar", &["foo/bar"]),
    ("foo/*", &["foo/bar"]),
    ("foo/**", &["foo/bba/arr"]),
    ("[A-Z]", &["A"]),
    ("[a-z]", &["a"]),
    ("[[:upper:]]", &["A"]),
    ("[[:lower:]]", &["a"]),
    ("[B-Za]", &["a"]),
    ("[B-a]", &["a"]),
    ("[Z-y]", &["Z"]),
];

/// Patterns, each with texts that git does not match.
const OTHER: &[(&str, &[&str])] = &[
    ("bar", &["foo"]),
    ("??", &["foo"]),
    ("*f", &["foo"]),
    ("foo\\*bar", &["foobar"]),
    ("foo\\", &["foo\\"]),
    ("[ten]", &["ten"]),
    ("**[!ten]", &["ten"]),
    ("t[!a-g]n", &["ten"]),
    ("a[]-]b", &["aab"]),
    ("foo*bar", &["foo/baz/bar"]),
    ("foo**bar", &["foo/baz/bar"]),
    ("foo?bar", &["foo/bar"]),
    ("foo[/]bar", &["foo/bar"]),
    ("foo[^a-z]bar", &["foo/bar"]),
    ("f[^eiu][^eiu][^eiu][^eiu][^eiu]r", &["foo/bar"]),
    ("*/foo", &["bar/baz/foo"]),
    ("**/bar*", &["foo/bar/baz"]),
    ("**/bar/*", &["deep/foo/bar/baz/", "deep/foo/bar"]),
    ("**/bar**", &["foo/bar/baz"]),
    ("*/bar/**", &["deep/foo/bar/baz/x"]),
    ("a[c-c]st", &["acrt"]),
    ("[!]-]", &["]"]),
    ("\\", &["", "\\"]),
    ("*/\\", &["XXX/\\"]),
    ("@foo", &["foo"]),
    ("[[::]ab]", &["[ab]"]),
    ("", &["foo"]),
    ("[[:digit:][:upper:][:space:]]", &["a", "."]),
    ("[[:digit:][:upper:][:spaci:]]", &["1"]),
    ("[a-c[:digit:]x-z]", &["q"]),
    ("[\\\\-^]", &["["]),
    ("[\\]]", &["\\]", "\\"]),
    ("a[]b", &["ab", "a[]b"]),
    ("ab[", &["ab["]),
    ("[!", &["ab"]),
    ("[-", &["ab"]),
    ("[a-", &["-"]),
    ("[!a-", &["-"]),
    ("[ --]", &["0"]),
    ("[a-e-n]", &["j"]),
    ("[]-a]", &["["]),
    ("[!]-a]", &["^"]),
    ("[\\]", &["\\"]),
    ("[!\\\\]", &["\\"]),
    ("b*a", &["aaabbb"]),
    ("*ba*", &["aabcaa"]),
    ("[,-.]", &["+", "-.]"]),
    ("[\\1-\\3]", &["4"]),
    ("[[-\\]]", &["-"]),
    (
        "-*-*-*-*-*-*-12-*-*-*-m-*-*-*",
        &[
            "-adobe-courier-bold-o-normal--12-120-75-75-X-70-iso8859-1",
            "-adobe-courier-bold-o-normal--12-120-75-75-/-70-iso8859-1",
        ],
    ),
    (
        "XXX/*/*/*/*/*/*/12/*/*/*/m/*/*/*",
        &["XXX/adobe/courier/bold/o/normal//12/120/75/75/X/70/iso8859/1"],
    ),
    (
        "**/*a*b*g*n*t",
        &["abcd/abcdefg/abcdefghijk/abcdefghijklmnop.txtz"],
    ),
    ("*/*/*", &["foo", "foo/bar", "foo/bb/aa/rr"]),
    ("*X*i", &["ab/cXd/efXg/hi"]),
    ("fo", &["foo"]),
    ("foo/*", &["foo/bba/arr"]),
    ("foo*", &["foo/bba/arr"]),
    ("foo**", &["foo/bba/arr"]),
    ("foo/*arr", &["foo/bba/arr"]),
    ("foo/**arr", &["foo/bba/arr"]),
    ("foo/*z", &["foo/bba/arr"]),
    ("foo/**z", &["foo/bba/arr"]),
    ("*Xg*i", &["ab/cXd/efXg/hi"]),
    ("[A-Z]", &["a"]),
    ("[a-z]", &["A"]),
    ("[[:upper:]]", &["a"]),
    ("[[:lower:]]", &["A"]),
    ("[B-Za]", &["A"]),
    ("[B-a]", &["A"]),
    ("[Z-y]", &["z"]),
];

fn matches(pattern: &[u8], text: &[u8]) -> bool {
    Wildcard::compile(pattern).is_some_and(|wildcard| wildcard.matches(text))
}

#[test]
fn the_vectors_of_git_hold() {
    for (table, wanted) in [(MATCHING, true), (OTHER, false)] {
        for (pattern, texts) in table {
            for text in *texts {
                let found = matches(pattern.as_bytes(), text.as_bytes());
                assert_eq!(found, wanted, "{pattern:?} with {text:?}");
            }
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
