//! Compares scans with ignore files to `git ls-files --others` on the same tree.
//!
//! `MAKUO_PATTERN_CASES` sets the number of random trees, `MAKUO_PATTERN_SEED` repeats one of them.
//!
//! Git before 2.53 strips the literal prefix of a pattern before matching the rest, and so lets
//! `foo**/bar` match `foobar`. Its documentation calls such stars regular ones, and later versions
//! match accordingly, as does makuo. Random patterns have no stars in that position.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};

use super::tests::{Fixture, options};
use super::*;
use crate::manifest::node::to_vec;
use crate::manifest::rules::Exclude;
use crate::manifest::{EntryKind, Rules, TreePath};

/// Directories with the text of their ignore files, and a pattern file for the whole tree.
#[derive(Debug, Default)]
struct Case {
    excludes: Vec<u8>,
    ignore_files: Vec<(Vec<u8>, Vec<u8>)>,
    files: BTreeSet<Vec<u8>>,
}

type Files = BTreeSet<Vec<u8>>;

fn has_git() -> bool {
    let found = Command::new("git")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_ok();
    if !found {
        crate::skip::skipped("no git");
    }

    found
}

fn git(f: &Fixture, args: &[&str]) -> Vec<u8> {
    let output = Command::new("git")
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_DIR", f.dir.path().join("git"))
        .env("GIT_WORK_TREE", f.root.path())
        .current_dir(f.root.path())
        .args(args)
        .output()
        .unwrap();

    assert!(
        output.status.success(),
        "git {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );

    output.stdout
}

impl Case {
    /// Returns the remaining files of the case according to git, to a scan, and to the rules in a
    /// release.
    fn run(&self, f: &Fixture) -> (Option<Files>, Files, Files) {
        let root = f.root.path();
        for entry in std::fs::read_dir(root).unwrap() {
            let entry = entry.unwrap();
            let is_dir = entry.file_type().unwrap().is_dir();
            let path = entry.path();
            if is_dir {
                std::fs::remove_dir_all(path)
            } else {
                std::fs::remove_file(path)
            }
            .unwrap();
        }

        let write = |path: &[u8], text: &[u8]| {
            let at = root.join(OsStr::from_bytes(path));
            std::fs::create_dir_all(at.parent().unwrap()).unwrap();
            std::fs::write(at, text).unwrap();
        };

        self.files.iter().for_each(|path| write(path, b""));
        self.ignore_files
            .iter()
            .for_each(|(dir, text)| write(&file_in(dir), text));
        let from = f.dir.path().join("excludes");
        std::fs::write(&from, &self.excludes).unwrap();

        let by_git = f.dir.path().join("git").exists().then(|| {
            let from = format!("--exclude-from={}", from.display());
            let listed = git(
                f,
                &[
                    "ls-files",
                    "-z",
                    "-o",
                    "--exclude-per-directory=.gitignore",
                    &from,
                ],
            );
            listed
                .split(|byte| *byte == 0)
                .filter(|path| !path.is_empty())
                .map(<[u8]>::to_vec)
                .collect()
        });

        let lines = crate::manifest::rules::lines(&self.excludes);

        let excludes: Vec<Exclude> = lines.map(Exclude::at_top).collect();
        let on = ScanOptions {
            paths: PathSelection {
                excludes: excludes.clone(),
                ignore_files: IgnoreFiles::MakuoAndGit,
                ..PathSelection::default()
            },
            threads: 1,
            ..options()
        };

        let scanned = f.scan(&on);
        let by_scan = files_of(&scanned)
            .into_iter()
            .map(|path| path.as_bytes().to_vec())
            .collect();

        // As on a host: packed, signed and read again.
        let mut rules = Rules {
            excludes: [excludes, scanned.ignore_rules].concat(),
            ..Rules::default()
        };

        rules.pack().unwrap();
        let rules: Rules = minicbor::decode(&to_vec(&rules)).unwrap();
        let filter = rules.excluded().unwrap();
        let all = files_of(&f.scan(&options()));
        let left = all.iter().filter(|path| !filter.matches(path, false));
        let by_rules = left.map(|path| path.as_bytes().to_vec()).collect();

        (by_git, by_scan, by_rules)
    }

    fn shown(&self) -> String {
        let mut text = String::new();
        let lossy = |bytes: &[u8]| crate::units::printable(bytes);
        let _ = writeln!(text, "excludes: {:?}", lossy(&self.excludes));
        for (dir, lines) in &self.ignore_files {
            let _ = writeln!(text, "{:?}: {:?}", lossy(&file_in(dir)), lossy(lines));
        }
        text
    }
}

fn file_in(dir: &[u8]) -> Vec<u8> {
    if dir.is_empty() {
        b".gitignore".to_vec()
    } else {
        [dir, b"/.gitignore"].concat()
    }
}

fn files_of(scanned: &Scanned) -> Vec<TreePath> {
    let entries = scanned.index.entries().map(|entry| entry.unwrap().entry);
    entries
        .filter(|entry| entry.kind != EntryKind::Directory)
        .map(|entry| entry.path)
        .collect()
}

fn fixture() -> Fixture {
    let f = Fixture::new();
    if has_git() {
        git(&f, &["init", "-q"]);
    }
    f
}

fn difference(a: &Files, b: &Files) -> String {
    let shown = |one: &Files, other: &Files| {
        one.difference(other)
            .map(|path| crate::units::printable(path).to_string())
            .collect::<Vec<_>>()
            .join(", ")
    };
    format!("only git: [{}], only here: [{}]", shown(a, b), shown(b, a))
}

#[test]
fn known_ignore_files_match_git() {
    let f = fixture();
    // Ignore files by directory, ignored files, remaining files.
    type Known<'a> = (&'a [(&'a str, &'a [u8])], &'a [&'a str], &'a [&'a str]);
    let known: &[Known<'_>] = &[
        (&[("", b"w/trailing   ")], &["w/trailing"], &["w/untracked"]),
        (
            &[("", b"w/trailing\\ \\ ")],
            &["w/trailing  "],
            &["w/trailing", "w/untracked"],
        ),
        (
            &[(
                "",
                b"w/t 1 \\    \nw/t 2 \\\\\\\\\nw/t 3 \\\\\\\\ \nw/t 4   \\\\\\    \n\
                w/t 5 \\\\ \\\\\\   \nw/t 6 \\\\a\\\\",
            )],
            &[
                "w/t 1  ",
                "w/t 2 \\\\",
                "w/t 3 \\\\",
                "w/t 4   \\ ",
                "w/t 5 \\ \\ ",
                "w/t 6 \\a\\",
            ],
            &["w/untracked"],
        ),
        (&[("", b"*.key\n!\n!\r\n")], &["a.key"], &[]),
        (&[("", b"\xef\xbb\xbf*.key\n")], &["a.key"], &["b"]),
        (
            &[("", b"Icon\r\r\nx\r\n")],
            &["Icon\r", "x"],
            &["Icon", "c/Icon/y", "x\r"],
        ),
        (
            &[("", b"foo[!0-9]old\n[!.][!.]*x\n")],
            &["foo-old", "aax"],
            &["foo/old", "d/x"],
        ),
        (&[("", b"*.[[:digit:]]\n")], &["a.1", "d/a.7"], &["a.a"]),
        (
            &[("", b"a[\\]]b\nc[\\-x]d\n")],
            &["a]b", "c-d", "cxd"],
            &["a\\b", "c\\d"],
        ),
        (&[("", b"*.{o,a}\n")], &["x.{o,a}"], &["x.o", "x.a"]),
        (
            &[("", b"a{b\n[z-a]\nfoo\\\n**//\n[ab\n//\n/\n\\")],
            &["a{b", "z"],
            &["foo", "foo\\", "a", "[ab"],
        ),
        (
            &[("", "build\tx\nbuild\u{a0}\nb\t\n".as_bytes())],
            &["b\t"],
            &["build", "b"],
        ),
        (
            &[("", b"\\#a\n#b\n\\!c\n")],
            &["#a", "!c"],
            &["#b", "b", "c"],
        ),
        (
            &[("", b"/**/x\na/**\n**/q/r\n*/one\n")],
            &["x", "d/x", "a/b/c", "q/r", "d/q/r", "e/one"],
            &["one", "e/f/one"],
        ),
        (
            &[("", b"one**y\n/**z\n")],
            &["onexy", "z"],
            &["one/y", "d/z"],
        ),
        // Stars within a component do not cross it, whatever precedes them.
        (
            &[("", b"foo**/bar\n***/c\n")],
            &["foo/bar", "foox/bar", "c", "d/e/c"],
            &["d/foo/bar", "foo/x/bar"],
        ),
        (
            &[
                ("", b"one\nignored-*\ntop-level-dir/\n"),
                ("a", b"two*\n*three\n"),
                (
                    "a/b",
                    b"four\nfive\n# comment\nsix\nignored-dir/\n\n!on*\n!two\n",
                ),
            ],
            &[
                "one",
                "ignored-x",
                "a/one",
                "a/two",
                "a/b/twooo",
                "a/3-three",
                "a/b/four",
                "a/b/ignored-dir/f",
                "top-level-dir/x",
                "d/ignored-and-untracked",
            ],
            &[
                "not-ignored",
                "a/not-ignored",
                "a/b/one",
                "a/b/on",
                "a/b/two",
                "top/top-level",
            ],
        ),
        (
            &[
                ("", b"*.1\n/*.3\n!*.6\n"),
                ("one", b"*.2\ntwo/*.4\n!*.7\n*.8"),
                ("one/two", b"!*.2\r\n!*.8\r\n"),
            ],
            &["a.1", "one/a.1", "a.3", "one/a.2", "one/a.8", "one/two/a.4"],
            &[
                "a.2",
                "a.6",
                "one/a.3",
                "one/a.7",
                "one/two/a.2",
                "one/two/a.8",
                "one/two/a.3",
            ],
        ),
        (
            &[("", b"one\n!one/a.1\n!d\nd/a.1\n")],
            &["one/a.1", "d/a.1"],
            &["d/a.2"],
        ),
        (
            &[("", b"two/\none/a.1/\na.*\n!a.2\n")],
            &["x/two/f", "a.3", "one/a.1"],
            &["two", "a.2"],
        ),
        (&[("top", b"/.gitignore\nl1\n")], &["top/l1/l2/l1"], &["l1"]),
        (
            &[("", b"/three/a.3[abc]\n")],
            &["three/a.3a"],
            &["three/a.3"],
        ),
        (&[("", b"nul\0x\nb\\\0\n")], &["nul"], &["nulx", "b"]),
    ];
    for (number, (ignore_files, out, stays)) in known.iter().enumerate() {
        let own = |paths: &[&str]| {
            paths
                .iter()
                .map(|path| path.as_bytes().to_vec())
                .collect::<Files>()
        };
        let ignore_files = ignore_files
            .iter()
            .map(|(dir, text)| (dir.as_bytes().to_vec(), text.to_vec()));
        let case = Case {
            ignore_files: ignore_files.collect(),
            files: own(out).union(&own(stays)).cloned().collect(),
            ..Case::default()
        };

        let (by_git, by_scan, by_rules) = case.run(&f);
        let without = |files: &Files| {
            files
                .iter()
                .filter(|path| !path.ends_with(b".gitignore"))
                .cloned()
                .collect::<Files>()
        };

        assert_eq!(without(&by_scan), own(stays), "{number}: {}", case.shown());
        assert_eq!(by_rules, by_scan, "{number}: {}", case.shown());
        let old_stars = |(_, text): &(Vec<u8>, Vec<u8>)| text.starts_with(b"foo**/bar");
        if let Some(by_git) = by_git.filter(|_| !case.ignore_files.iter().any(old_stars)) {
            assert!(
                by_git == by_scan,
                "{number}: {}{}",
                case.shown(),
                difference(&by_git, &by_scan)
            );
        }
    }
}

/// Words for names and patterns.
const WORDS: &[&[u8]] = &[
    b"a",
    b"b",
    b"ab",
    b"c.o",
    b"Icon",
    b"x y",
    b" ",
    b"-",
    b"]",
    b"[",
    b"\\",
    b"!",
    b"#",
    b"{a,b}",
    b"\xe4",
    b"\xc3\xa4",
    b"\xff",
    b"\r",
    b"\t",
    b".",
    b"..x",
    b"1",
    b"Z",
    b"\xc2\xa0",
    b"^",
    b"*",
    b"?",
    b"a\nb",
    b"~",
    b":",
];
/// Words for patterns only.
const WILD: &[&[u8]] = &[
    b"*",
    b"*",
    b"?",
    b"**",
    b"/**",
    b"**/",
    b"/**/",
    b"[ab]",
    b"[!a]",
    b"[^b-z]",
    b"[[:digit:]]",
    b"[[:upper:][:space:]]",
    b"[]]",
    b"[]-a]",
    b"[!]x]",
    b"[\\]]",
    b"[a\\-c]",
    b"[-]",
    b"[z-a]",
    b"[",
    b"[!",
    b"[[:x:]]",
    b"[[:alpha:]",
    b"\\",
    b"\\*",
    b"\\?",
    b"\\ ",
    b"\\[",
    b"\\\\",
    b"\\/",
    b"{",
    b"}",
    b"{a,b}",
    b"[\xe0-\xff]",
    b"***",
    b"*/",
    b"[a-]",
    b"[--0]",
    b"[/]",
    b"[!-~]",
    b"[[:punct:]]",
    b"[[:]",
    b"/",
    b"//",
];
/// Line endings.
const ENDS: &[&[u8]] = &[
    b"\n", b"\n", b"\n", b"\n", b"\r\n", b" \n", b"  \n", b"\\ \n", b"\\  \n", b"\t\n", b"\r\r\n",
    b"\\\n", b"/\n", b"/ \n",
];

fn pick<'a>(rng: &mut fastrand::Rng, from: &[&'a [u8]]) -> &'a [u8] {
    from[rng.usize(..from.len())]
}

fn name(rng: &mut fastrand::Rng) -> Vec<u8> {
    loop {
        let words: Vec<&[u8]> = (0..rng.usize(1..4)).map(|_| pick(rng, WORDS)).collect();
        let name = words.concat();
        if !matches!(&name[..], b"." | b"..") {
            return name;
        }
    }
}

/// Returns a pattern that is often related to one of the files.
fn pattern(rng: &mut fastrand::Rng, files: &Files) -> Vec<u8> {
    let mut line = match rng.u8(..8) {
        0..=3 => {
            let path = files
                .iter()
                .nth(rng.usize(..files.len().max(1)))
                .cloned()
                .unwrap_or_default();
            let path: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
            let from = rng.usize(..path.len());
            let to = rng.usize(from..path.len());
            let mut line = path[from..=to].join(&b'/');
            for _ in 0..rng.usize(..4) {
                let at = rng.usize(..=line.len());
                let end = (at + rng.usize(..3)).min(line.len());
                line.splice(at..end, pick(rng, WILD).iter().copied());
            }
            line
        }
        4 => [b"*", name(rng).as_slice()].concat(),
        _ => {
            let words = (0..rng.usize(1..6)).map(|_| {
                if rng.bool() {
                    pick(rng, WILD)
                } else {
                    pick(rng, WORDS)
                }
            });
            words.collect::<Vec<_>>().concat()
        }
    };

    line.retain(|byte| *byte != b'\n');
    if rng.u8(..4) == 0 {
        line.insert(0, b'/');
    }

    if rng.u8(..4) == 0 {
        line.insert(0, b'!');
    }

    if is_cut_by_old_gits(&line) {
        pattern(rng, files)
    } else {
        line
    }
}

/// Returns whether the first wildcard is a run of stars within a component: see the module comment.
fn is_cut_by_old_gits(line: &[u8]) -> bool {
    let line = line.strip_prefix(b"!").unwrap_or(line);
    let line = line.strip_prefix(b"/").unwrap_or(line);
    let first = line.iter().position(|byte| b"*?[\\".contains(byte));
    first.is_some_and(|at| at > 0 && line[at - 1] != b'/' && line[at..].starts_with(b"**"))
}

fn list(rng: &mut fastrand::Rng, files: &Files) -> Vec<u8> {
    let mut text = Vec::new();
    if rng.u8(..10) == 0 {
        text.extend(b"\xef\xbb\xbf");
    }

    for _ in 0..rng.usize(..7) {
        match rng.u8(..12) {
            0 => text.extend(b"# a comment"),
            1 => text.extend(pick(
                rng,
                &[b"", b"!", b" ", b"\t", b"/", b"*", b"!*", b"\\"],
            )),
            _ => text.extend(pattern(rng, files)),
        }
        text.extend(pick(rng, ENDS));
    }

    if rng.u8(..4) == 0 {
        text.pop();
    }

    text
}

fn random_case(seed: u64) -> Case {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut dirs: Vec<Vec<u8>> = vec![Vec::new()];
    for _ in 0..rng.usize(1..7) {
        let above = dirs[rng.usize(..dirs.len())].clone();
        let name = name(&mut rng);
        dirs.push(if above.is_empty() {
            name
        } else {
            [above, name].join(&b'/')
        });
    }

    let mut case = Case::default();
    for _ in 0..rng.usize(1..20) {
        let dir = &dirs[rng.usize(..dirs.len())];
        let name = name(&mut rng);
        let path = if dir.is_empty() {
            name
        } else {
            [dir.clone(), name].join(&b'/')
        };
        let above = |path: &[u8], below: &[u8]| {
            below.starts_with(path) && below.get(path.len()) == Some(&b'/')
        };
        let clash = dirs.contains(&path)
            || case
                .files
                .iter()
                .any(|other| above(other, &path) || above(&path, other));
        if !clash && path.len() < 4000 {
            case.files.insert(path);
        }
    }

    // No file may stand in place of a directory.
    let used = |dir: &Vec<u8>| {
        !case
            .files
            .iter()
            .any(|file| file == dir || dir.starts_with(&[file, &b"/"[..]].concat()))
    };

    let dirs: Vec<Vec<u8>> = dirs.iter().filter(|dir| used(dir)).cloned().collect();
    for dir in &dirs {
        if dir.is_empty() || rng.u8(..3) == 0 {
            let text = list(&mut rng, &case.files);
            case.ignore_files.push((dir.clone(), text));
        }
    }

    case.ignore_files.dedup_by(|a, b| a.0 == b.0);
    if rng.u8(..3) == 0 {
        case.excludes = list(&mut rng, &case.files);
    }

    case
}

#[test]
fn random_ignore_files_match_git() {
    if !has_git() {
        return;
    }

    let number =
        |name: &str, usual: u64| std::env::var(name).map_or(usual, |text| text.parse().unwrap());
    let cases = number("MAKUO_PATTERN_CASES", 200);
    let seed = number("MAKUO_PATTERN_SEED", fastrand::u64(..1 << 40));
    println!("MAKUO_PATTERN_SEED={seed} MAKUO_PATTERN_CASES={cases}");

    let f = fixture();

    let mut wrong = Vec::new();
    let mut left_out = 0;
    for seed in seed..seed + cases {
        let case = random_case(seed);
        let (by_git, by_scan, by_rules) = case.run(&f);
        let by_git = by_git.unwrap_or_default();
        left_out += case.files.difference(&by_git).count();
        for (whose, found) in [("scan", &by_scan), ("rules", &by_rules)] {
            if *found != by_git {
                wrong.push(format!(
                    "seed {seed}, {whose}: {}\n{}",
                    difference(&by_git, found),
                    case.shown()
                ));
            }
        }
    }

    assert!(
        wrong.is_empty(),
        "{} of {cases} differ:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(10)].join("\n")
    );

    assert!(
        left_out as u64 > cases / 2,
        "hardly anything was left out: {left_out}"
    );
}
