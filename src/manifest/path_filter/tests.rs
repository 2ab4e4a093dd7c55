//! Patterns match as git's do, and keep their encoding.

use super::*;
use crate::manifest::exclude::lines;
use crate::manifest::node::to_vec;

fn path(text: &str) -> TreePath {
    TreePath::new(text.as_bytes()).expect("legal")
}

fn below(base: &str, pattern: &str) -> Exclude {
    Exclude {
        base: Some(path(base)),
        pattern: pattern.into(),
    }
}

#[test]
fn patterns_match_as_in_gitignore() {
    let filter = PathFilter::at_top(&["*.tmp", "/cache/", "!keep.tmp"]);
    assert!(filter.matches(&path("a/b.tmp"), false));
    assert!(!filter.matches(&path("a/keep.tmp"), false));
    assert!(filter.matches(&path("cache"), true));
    assert!(filter.matches(&path("cache/deep/x"), false));
    assert!(!filter.matches(&path("cache"), false));
    assert!(!filter.matches(&path("a/cache/x"), false));
}

#[test]
fn a_deeper_file_decides_over_one_above() {
    let excludes = [
        Exclude::at_top("*.log"),
        below("keep", "!*.log"),
        below("keep", "/x"),
    ];
    let filter = PathFilter::new(&excludes);
    assert!(filter.matches(&path("a.log"), false));
    assert!(!filter.matches(&path("keep/a.log"), false));
    assert!(filter.matches(&path("keep/x"), false));
    assert!(!filter.matches(&path("x"), false));
    assert_eq!(filter.patterns(), excludes);
    let more = filter.with(&[below("keep", "*.log"), below("keep/deep", "!x.log")]);
    assert!(more.matches(&path("keep/a.log"), false));
    assert!(!more.matches(&path("keep/deep/x.log"), false));

    assert!(!filter.matches(&path("keep/a.log"), false));
}

#[test]
fn the_last_of_many_patterns_decides_whatever_their_kind() {
    let lines = [
        "a.o", "!*.o", "*.o/", "/d/a.o", "!d/?.o", "x*", "!x1/", "x1",
    ];
    let filter = PathFilter::at_top(&lines);

    for (text, is_dir, left_out) in [
        ("a.o", false, false),
        ("a.o", true, true),
        ("d/a.o", false, false),
        ("d/ab.o", false, false),
        ("d/a.o", true, false),
        ("e/a.o/b", false, true),
        ("x2", true, true),
        ("x1", true, true),
    ] {
        assert_eq!(
            filter.matches(&path(text), is_dir),
            left_out,
            "{text} {is_dir}"
        );
    }
}

#[test]
fn directories_in_which_a_pattern_can_match_are_known() {
    let filter = PathFilter::new(&[
        Exclude::at_top("/cache/"),
        Exclude::at_top("a/*/x"),
        Exclude::at_top("!b/x"),
        below("d", "*.log"),
        below("e", "f/**/g"),
    ]);

    let within = |dir: &str| filter.may_match_in(Some(&path(dir)));
    assert!(filter.may_match_in(None));
    for dir in ["a/z", "d", "d/e/f", "e", "e/f/x"] {
        assert!(within(dir), "{dir}");
    }

    for dir in ["a", "a/z/y", "b", "cache", "da"] {
        assert!(!within(dir), "{dir}");
    }

    assert!(PathFilter::at_top(&["*.tmp"]).may_match_in(Some(&path("x/y"))));
    assert!(!PathFilter::at_top(&["a/b"]).may_match_in(None));
}

#[test]
fn lines_are_cut_as_git_cuts_them() {
    let text =
        b"\xef\xbb\xbf*.key\r\nIcon\r\r\n#c\n!\n\n \n\r\na \\ \t \nb\\ \x20\nc\0d\ne \\\n\xe4";
    let found: Vec<&[u8]> = lines(text).collect();
    let wanted: [&[u8]; 8] = [
        b"*.key", b"Icon\r", b"!", b"a \\ \t", b"b\\ ", b"c", b"e \\", b"\xe4",
    ];
    assert_eq!(found, wanted);
}

#[test]
fn a_literal_pattern_names_its_path_only() {
    for name in [
        &b"a b "[..],
        b"x\ny",
        b"[!a]*",
        b"\\",
        b"{a,b}",
        b"!x",
        b"\xe4\xff",
        b"#",
        b"t\t",
    ] {
        let exact = TreePath::new(name).expect("legal");
        let filter = PathFilter::new(&[Exclude::literal(&exact)]);

        assert!(filter.matches(&exact, false), "{exact}");
        assert!(!filter.matches(
            &TreePath::new([b"d/", name].concat()).expect("legal"),
            false
        ));
        assert!(!filter.matches(&TreePath::new([name, b"a"].concat()).expect("legal"), false));
    }
}

#[test]
fn a_line_of_text_is_encoded_as_before_and_others_beside_a_text() {
    // Two fields, as in versions where a pattern was text.
    assert_eq!(
        to_vec(&below("d", "ä")),
        [0x82, 0x41, b'd', 0x62, 0xc3, 0xa4]
    );
    assert_eq!(to_vec(&Exclude::at_top("a")), [0x82, 0xf6, 0x61, b'a']);
    let latin: &[u8] = b"\xe4*";
    let encoded = to_vec(&Exclude::at_top(latin));
    assert_eq!(encoded, [0x83, 0xf6, 0x62, b'?', b'*', 0x42, 0xe4, b'*']);
    assert_eq!(
        minicbor::decode::<Exclude>(&encoded).expect("legal"),
        Exclude::at_top(latin)
    );
    let negation = to_vec(&Exclude::at_top(&b"!\xe4"[..]));

    assert_eq!(negation, [0x83, 0xf6, 0x61, b'#', 0x42, b'!', 0xe4]);
}

#[test]
fn a_hostile_pattern_takes_no_time() {
    let line = format!("/**/{}b", "*a/**/*a*a*a*a*a*a*".repeat(100));
    let deep = path(&format!("{}c", "aaaaaaaaaaaaaaa/".repeat(200)));
    assert!(!PathFilter::at_top(&[line]).matches(&deep, false));
}
