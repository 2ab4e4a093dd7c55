//! Tests of parsing specs and of the errors for wrong ones.

use super::*;

const FULL: &str = r#"
tree   = "www"
source = "../site"
key = "keys/deploy.key"
exclude = ["*.tmp", "/cache/"]
gitignore = true
expires = "30d"
[delete]
extras  = true
max     = "10%"
allow_empty = true
excluded = true
[owner]
user = "www-data"
group = "ignore"
unknown = "numeric"
[mode]
files = "0644"
dirs = "2755"
[meta]
mtime = false
xattrs = true
hardlinks = false
[targets]
hosts  = ["web*", "static?"]
expect = ["web1", "web2"]
[commit]
require    = "80%"
layout     = "in-place"
batches    = [1, "50%"]
pause      = true
on_failure = "revert"
notify = ["tell-the-team", "a b"]
[transfer]
rate = "800Mbit"
floor = "10%"
compress = "off"
"#;

fn parse(text: &str) -> Result<Spec> {
    Spec::parse(text, Path::new("manifests/www.toml"))
}

fn error_of(text: &str) -> String {
    crate::error::tests::usage_text(&parse(text).expect_err(text))
}

#[test]
fn one_line_is_a_spec_and_has_the_documented_defaults() {
    let spec = parse("source = \"site\"").expect("legal");
    assert_eq!(spec.tree.as_str(), "default");
    assert_eq!(spec.source, Path::new("manifests/site"));
    assert_eq!(spec.rules(), Rules::default());
    assert_eq!(
        spec.targets,
        Targets {
            hosts: vec![],
            expect: None
        }
    );
    assert_eq!(spec.commit.require, Quorum::All);
    assert_eq!(
        spec.mode,
        Modes {
            files: ModePolicy::Preserve,
            dirs: ModePolicy::Preserve
        }
    );
    assert_eq!(
        spec.meta,
        Meta {
            mtime: true,
            xattrs: false,
            hardlinks: true
        }
    );
    assert_eq!(
        spec.transfer,
        Transfer {
            rate: None,
            floor: Floor::default(),
            compress: Compress::Auto
        }
    );

    insta::assert_snapshot!(spec.explain(), @r#"
        spec       manifests/www.toml
        tree       default
        source     manifests/site
        excludes   .makuoignore files; matching paths are not sent, and left alone on the hosts
        deletes    nothing: extra paths on a host stay, and `makuo diff` lists them
        owner      user as in the source, group as in the source; a host without the name refuses the release
        mode       files as in the source, directories as in the source
        meta       times of modification, hard links kept; extended attributes and ACLs not
        targets    every member that has the tree default; any number of answers
        commit     once every target has the whole release staged; file by file in place; a failed host is reported
        transfer   as fast as the network allows; compressed where it pays; a host below 25% of the others is served after them
        "#);
}

#[test]
fn every_key_is_read() {
    let spec = parse(FULL).expect("legal");
    assert_eq!(
        spec.key.as_deref(),
        Some(Path::new("manifests/keys/deploy.key"))
    );
    assert_eq!(spec.mode.files, ModePolicy::Fixed(Mode::from_bits(0o644)));
    let rules = spec.rules();
    assert_eq!(
        (rules.set_user, rules.set_group, rules.delete_excluded),
        (true, false, true)
    );
    assert_eq!(rules.excludes.len(), 2);

    insta::assert_snapshot!(spec.explain(), @r#"
        spec       manifests/www.toml
        tree       www
        source     manifests/../site
        excludes   *.tmp, /cache/, .makuoignore files, .gitignore files; matching paths are not sent, and removed on the hosts
        deletes    paths outside the release, at most 10% of its paths on a host, checked before the first change; an empty source empties the tree
        owner      user www-data, group not set; a host without the name uses the number from here
        mode       files 0644, directories 2755
        meta       extended attributes and ACLs kept; times of modification, hard links not
        targets    web*, static?; these must answer: web1, web2
        commit     once 80% of the targets have the whole release staged; file by file in place; in batches of 1, 50%, then the rest; each batch after the first by `makuo promote`; after a failure every host returns to its previous release
        notify     tell-the-team 'a b' reads the result, on this machine
        transfer   at most 800 Mbit/s; not compressed; a host below 10% of the others is served after them
        key        manifests/keys/deploy.key
        expires    hosts refuse the release 30 d after it was made
        "#);
}

#[test]
fn a_level_of_compression_is_told() {
    let how = |value: &str| {
        parse(&format!("source = \"s\"\n[transfer]\ncompress = {value}")).expect("legal")
    };

    assert_eq!(
        how("1").transfer.compress,
        Compress::Level(Level::new(1).expect("legal"))
    );
    assert_eq!(how("\"auto\"").transfer.compress, Compress::Auto);
    let told = how("19").explain();

    assert!(
        told.contains("as fast as the network allows; compressible blocks at level 19"),
        "{told}"
    );
}

/// A key in [`SPEC_KEYS`] that no code takes, or the reverse, would produce wrong errors.
#[test]
fn the_list_of_keys_is_what_is_read() {
    let table: toml::Table = FULL.parse().expect("toml");
    let mut found = Vec::new();
    for (key, value) in &table {
        found.push(key.clone());
        if let Some(inner) = value.as_table() {
            found.extend(inner.keys().map(|k| format!("{key}.{k}")));
        }
    }

    let mut known: Vec<String> = SPEC_KEYS.iter().map(|k| k.to_string()).collect();
    found.sort();
    known.sort();

    assert_eq!(found, known);
}

#[test]
fn numbers_stand_where_texts_may() {
    let spec = parse(
        "source = \"s\"\n[delete]\nmax = 10\n[targets]\nexpect = 3\nhosts = \"web*\"\n\
         [commit]\nrequire = 3\n[owner]\nuser = 33",
    )
    .expect("legal");
    assert_eq!(spec.delete.max, Limit::Count(10));
    assert_eq!(spec.targets.expect, Some(Expect::Count(3)));
    assert_eq!(spec.targets.hosts, ["web*"]);
    assert_eq!(spec.commit.require, Quorum::Count(3));

    assert_eq!(spec.owner.user, OwnerPolicy::Fixed("33".into()));
}

#[test]
fn unknown_keys_are_named_with_line_and_a_guess() {
    let all = [
        error_of("sorce = \"site\""),
        error_of("source = \"s\"\n\n[delte]\nextras = true"),
        error_of("source = \"s\"\n[delete]\nextra = true"),
        error_of("source = \"s\"\nmax = \"10%\""),
        error_of("[delete]\nextras = true\nexpires = \"3d\""),
        error_of("source = \"s\"\n\"col\\u001bour\" = 1"),
    ];

    insta::assert_snapshot!(all.join("\n"), @r#"
        manifests/www.toml:1: unknown key "sorce"
          hint: did you mean "source"?
        manifests/www.toml:3: unknown key "delte"
          hint: did you mean "delete"?
        manifests/www.toml:3: unknown key "delete.extra"
          hint: did you mean "delete.extras"?
        manifests/www.toml:2: unknown key "max"
          hint: did you mean "delete.max"? It stands below [delete]
        manifests/www.toml:3: unknown key "delete.expires"
          hint: did you mean "expires"? It stands at the top of the file, above the first [section]
        manifests/www.toml:2: unknown key "col\u{1b}our"
        "#);
}

#[test]
fn wrong_values_say_what_to_write() {
    let with = |rest: &str| error_of(&format!("source = \"s\"\n{rest}"));
    let all = [
        error_of(""),
        error_of("source = 3"),
        error_of("source = \"s"),
        error_of("source = \"s\"\nsource = \"t\""),
        with("tree = \"../x\""),
        with("exclude = \"*.tmp\""),
        with("exclude = [\n  \"*.tmp\",\n  \" \",\n]"),
        with("delete = true"),
        with("[delete]\nextras = \"yes\""),
        with("[delete]\nmax = -1"),
        with("[delete]\nmax = \"lots\""),
        with("[owner]\nuser = \"a b\""),
        with("[owner]\nunknown = \"root\""),
        with("[mode]\nfiles = 644"),
        with("[mode]\ndirs = \"rwx\""),
        with("[targets]\nhosts = []"),
        with("[targets]\nexpect = 0"),
        with("[targets]\nexpect = [\"web1\", \"web 2\"]"),
        with("[commit]\nrequire = 0"),
        with("[transfer]\nrate = \"fast\""),
        with("[transfer]\ncompress = 0"),
        with("[transfer]\ncompress = 20"),
        with("[transfer]\n\ncompress = \"fast\""),
        with("expires = \"soon\""),
    ];

    insta::assert_snapshot!(all.join("\n"), @r#"
        manifests/www.toml: the key `source` is missing
          hint: name the directory to release: source = "site"
        manifests/www.toml:1: source: 3 is not a text in quotes
        manifests/www.toml:1: invalid basic string, expected `"`
        manifests/www.toml:2: duplicate key source
        manifests/www.toml:2: tree: tree name "../x" is not legal: 1 to 64 characters of A-Z a-z 0-9 . _ -, not starting with . or -
        manifests/www.toml:2: exclude: "*.tmp" is not a list of patterns such as ["*.tmp", "/cache/"]
        manifests/www.toml:4: exclude: a pattern is one line of .gitignore, as in "*.tmp"
        manifests/www.toml:2: delete: true is not a table: write its keys below [delete]
        manifests/www.toml:3: delete.extras: "yes" is not true or false
        manifests/www.toml:3: delete.max: "-1" is not a limit: a number of files, or a percentage such as "10%"
        manifests/www.toml:3: delete.max: "lots" is not a limit: a number of files, or a percentage such as "10%"
        manifests/www.toml:3: owner.user: write "preserve", "ignore", or the name of a user or group
        manifests/www.toml:3: owner.unknown: "root" is not "fail" or "numeric"
        manifests/www.toml:3: mode.files: write "preserve", or the bits in octal and in quotes: "0644"
        manifests/www.toml:3: mode.dirs: write "preserve", or the bits in octal and in quotes: "0755"
        manifests/www.toml:3: targets.hosts: an empty list names no host; leave the key out for every host that has the tree
        manifests/www.toml:3: targets.expect: 0 is not a number of hosts (3), a list of their names (["web1", "web2"]) or "known"
        manifests/www.toml:3: targets.expect: host name "web 2" is not legal: 1 to 64 characters of A-Z a-z 0-9 . _ -, not starting with . or -
        manifests/www.toml:3: commit.require: "0" is not a quorum: "all", a percentage such as "80%", or a number of hosts
        manifests/www.toml:3: transfer.rate: "fast" is not a rate such as 500Mbit, 1Gbit or 60MB
        manifests/www.toml:3: transfer.compress: 0 is not "auto", "off", or a level from 1 to 19
        manifests/www.toml:3: transfer.compress: 20 is not "auto", "off", or a level from 1 to 19
        manifests/www.toml:4: transfer.compress: "fast" is not "auto", "off", or a level from 1 to 19
        manifests/www.toml:2: expires: "soon" is not a duration such as 500ms, 30s, 10m, 2h or 7d
        "#);
}

#[test]
fn a_bare_mode_and_an_expectation_that_nobody_meets_are_explained() {
    let bare = error_of("source = \"s\"\n[mode]\nfiles = 0644 # as ls shows it");
    assert!(bare.contains("a mode stands in quotes: \"0644\""), "{bare}");
    let few = error_of("source = \"s\"\n[targets]\nhosts = [\"web1\"]\nexpect = 3");
    assert!(
        few.contains("3 hosts cannot answer, since hosts names 1"),
        "{few}"
    );
    for hosts in ["[\"web*\"]", "[\"zone=a\"]", "[\"a\", \"b\", \"c\"]"] {
        let text = format!("source = \"s\"\n[targets]\nhosts = {hosts}\nexpect = 3");
        Spec::parse(&text, Path::new("www.toml")).expect("legal");
    }
}

#[test]
fn batches_and_what_follows_a_failure() {
    let read = |text: &str| {
        Spec::parse(text, Path::new("manifests/www.toml"))
            .expect("legal")
            .commit
    };

    let commit = read("source = \"s\"\n[commit]\nbatches = [1, \"50%\"]\non_failure = \"revert\"");
    let sizes = [Quorum::Count(1), Quorum::Share(5_000)];
    assert_eq!(commit.batches, sizes.map(BatchRule::Size));
    let zones = read("source = \"s\"\n[commit]\nbatches = [1, \"zone=a\", \"web[1-3]\"]").batches;
    let shown: Vec<String> = zones.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["1", "zone=a", "web[1-3]"]);
    assert_eq!(commit.on_failure, OnFailure::Revert);
    assert_eq!(commit.paused(), None);
    let paused = read(
        "source = \"s\"\n[commit]\nbatches = [1, \"zone=a\"]\npause = true\nrequire = \"80%\"",
    );
    let signed = paused.paused().expect("pauses");
    assert_eq!(signed.batches, ["1", "zone=a"]);
    assert_eq!((signed.require.as_str(), signed.revert), ("80%", false));
    let none = error_of("source = \"s\"\n[commit]\npause = true");
    assert!(none.contains("no batches to pause between"), "{none}");
    let all = [
        error_of("source = \"s\"\n[commit]\n\nbatches = [1, \"many\"]"),
        error_of("source = \"s\"\n[commit]\nbatches = 3"),
        error_of("source = \"s\"\n[commit]\non_failure = \"pray\""),
    ];

    insta::assert_snapshot!(all.join("\n"), @r#"
        manifests/www.toml:4: commit.batches: "many" is not a quorum: "all", a percentage such as "80%", or a number of hosts
        manifests/www.toml:3: commit.batches: 3 is not a list such as [1, "50%"]
        manifests/www.toml:3: commit.on_failure: "pray" is not "stop" or "revert"
        "#);
}
