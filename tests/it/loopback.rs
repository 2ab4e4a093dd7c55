//! The commands with hosts on the loopback interface: commits, reports and refusals.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;

use crate::support::{
    self, DELETE, Lab, Noise, Ran, copy, is_root, same, same_within, skipped, write,
};
use serde_json::Value;

/// Fields of a result that scripts may rely on.
const FIELDS: [&str; 13] = [
    "tree",
    "serial",
    "exit",
    "targets",
    "committed",
    "failed",
    "absent",
    "files_written",
    "files_deleted",
    "bytes_release",
    "bytes_sent",
    "seconds",
    "event",
];

/// Makes a lab of hosts with a first release, copied to `old`.
fn released(hosts: usize) -> Option<Lab> {
    let lab = Lab::loopback(hosts)?;
    Noise::new(1).tree(&lab.site(), 20, 2000);
    write(&lab.site().join("page"), "old");
    lab.deploy(&[]).exits(0);
    copy(&lab.site(), &lab.path("old"));
    Some(lab)
}

fn changes(ran: &Ran) -> Vec<(String, String, usize)> {
    let text = |value: &Value| value.as_str().expect("text").to_string();
    let change = |e: &Value| {
        (
            text(&e["path"]),
            text(&e["what"]),
            e["hosts"].as_array().expect("hosts").len(),
        )
    };

    let mut all: Vec<_> = ran
        .events()
        .iter()
        .filter(|e| e["event"] == "change")
        .map(change)
        .collect();

    all.sort();
    all
}

#[test]
fn a_deploy_tells_json_lines_of_which_the_last_is_the_result() {
    let Some(lab) = released(3) else { return };
    lab.all_same(&lab.site());
    write(&lab.site().join("page"), "new");
    std::fs::remove_file(lab.site().join("dir0/sub0/file0")).expect("there");
    let ran = lab.deploy(&[]).exits(0);
    lab.all_same(&lab.site());
    let result = ran.result();

    FIELDS
        .iter()
        .for_each(|field| assert!(result.get(field).is_some(), "{field}: {ran}"));
    assert_eq!(
        ran.events()
            .iter()
            .filter(|e| e["event"] == "result")
            .count(),
        1,
        "{ran}"
    );

    let number = |field: &str| result[field].as_u64();
    assert_eq!(
        (number("exit"), number("targets"), number("committed")),
        (Some(0), Some(3), Some(3)),
        "{ran}"
    );

    assert_eq!(
        (number("failed"), number("absent")),
        (Some(0), Some(0)),
        "{ran}"
    );

    assert_eq!(result["tree"], "www");
    for host in ["web1", "web2", "web3"] {
        assert_eq!(ran.host(host).0, "committed", "{ran}");
    }
}

#[test]
fn a_dry_run_lists_each_change_and_makes_none() {
    let Some(lab) = released(2) else { return };
    write(&lab.site().join("page"), "new");
    write(&lab.site().join("dir1/added"), "new");
    std::fs::remove_file(lab.site().join("dir0/sub0/file0")).expect("there");
    let ran = lab.deploy(&["-n"]).exits(0);
    let found = changes(&ran);

    for (path, what) in [
        ("page", "content"),
        ("dir1/added", "missing"),
        ("dir0/sub0/file0", "extra"),
    ] {
        assert!(
            found.contains(&(path.to_string(), what.to_string(), 2)),
            "{path}: {ran}"
        );
    }

    lab.all_same(&lab.path("old"));
    let human = lab.makuo(&["deploy", "-n", "www.toml"]).exits(0);
    human.says(&[
        "web1, web2: ",
        "page",
        "dir1/added",
        "dir0/sub0/file0",
        "*deleting",
    ]);

    lab.all_same(&lab.path("old"));
}

#[test]
fn fewer_hosts_than_expected_change_nothing() {
    let Some(lab) = released(2) else { return };
    write(&lab.site().join("page"), "new");
    lab.makuo(&["deploy", "www.toml", "--expect", "3", "--timeout", "2s"])
        .exits(3)
        .says(&["3"]);
    lab.all_same(&lab.path("old"));
    lab.spec(&format!(
        "{DELETE}[targets]\nexpect = [\"web1\", \"web2\", \"db7\"]\n"
    ));
    lab.makuo(&["deploy", "www.toml", "--timeout", "2s"])
        .exits(3)
        .says(&["db7"]);

    lab.all_same(&lab.path("old"));
}

#[test]
fn targets_are_globs_of_names() {
    let Some(mut lab) = Lab::loopback(2) else {
        return;
    };

    lab.host("db1").start();
    write(&lab.site().join("page"), "new");
    let ran = lab
        .makuo(&[
            "deploy", "--json", "www.toml", "-t", "web*", "--expect", "2",
        ])
        .exits(0);
    assert_eq!(ran.result()["targets"].as_u64(), Some(2), "{ran}");
    assert_eq!(lab.with_release(), ["web1", "web2"]);
    lab.spec(&format!("{DELETE}[targets]\nhosts = [\"db*\"]\n"));
    lab.makuo(&["deploy", "www.toml", "--expect", "1"]).exits(0);

    lab.all_same(&lab.site());
}

#[test]
fn targets_that_match_nobody_are_told_apart_from_a_missing_tree() {
    let Some(lab) = released(2) else { return };

    for more in [&[][..], &["--expect", "1"]] {
        let args = [&["deploy", "www.toml", "-t", "db*"], more].concat();
        lab.makuo(&args).exits(3).says(&[
            "no host is named db*; these answered: web1, web2",
            "see `makuo members`",
        ]);
    }

    write(
        &lab.path("other.toml"),
        "tree = \"other\"\nsource = \"site\"\n",
    );
    for more in [&[][..], &["-t", "web*"]] {
        let args = [&["deploy", "other.toml"], more].concat();
        lab.makuo(&args).exits(3).says(&[
            "no host has the tree other; these answered: web1, web2",
            "see `makuo members`",
        ]);
    }

    lab.all_same(&lab.path("old"));
}

#[test]
fn a_wrong_spec_is_refused_by_file_and_line() {
    let Some(lab) = Lab::loopback_idle() else {
        return;
    };

    lab.spec("[delete]\nextra = true\n");
    lab.makuo(&["deploy", "www.toml"])
        .exits(2)
        .says(&["www.toml:4", "extra"]);
    let ran = lab.makuo(&["deploy", "--json", "www.toml"]).exits(2);
    assert_eq!(ran.result()["exit"].as_u64(), Some(2), "{ran}");
    lab.spec("[delete\n");

    lab.makuo(&["deploy", "www.toml"])
        .exits(2)
        .says(&["www.toml:3"]);
}

#[test]
fn a_source_that_cannot_be_read_is_refused() {
    let Some(lab) = released(1) else { return };
    lab.spec_of("nowhere", DELETE);
    lab.makuo(&["deploy", "www.toml"])
        .exits(2)
        .says(&["nowhere"]);
    write(&lab.path("file"), "x");
    lab.spec_of("file", DELETE);

    lab.makuo(&["deploy", "www.toml"]).exits(2).says(&["file"]);
    lab.all_same(&lab.path("old"));
    if is_root() {
        return skipped("root reads what nobody may read");
    }

    lab.spec(DELETE);
    let closed = lab.site().join("dir0");
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o000)).expect("mine");
    lab.makuo(&["deploy", "www.toml"]).exits(2).says(&["dir0"]);
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o755)).expect("mine");

    lab.all_same(&lab.path("old"));
}

#[test]
fn more_deletions_than_the_limit_change_nothing() {
    let Some(lab) = released(2) else { return };
    std::fs::remove_dir_all(lab.site().join("dir0")).expect("there");
    write(&lab.site().join("page"), "new");
    lab.spec("[delete]\nextras = true\nmax = 2\n");
    lab.deploy(&[]).exits(3);
    lab.all_same(&lab.path("old"));
    lab.spec("[delete]\nextras = true\nmax = 20\n");
    lab.deploy(&[]).exits(0);

    lab.all_same(&lab.site());
}

#[test]
fn the_stricter_of_two_delete_limits_holds() {
    let Some(mut lab) = Lab::loopback_idle() else {
        return;
    };

    let host = lab.host("web1");
    host.rule("max_delete = 2");
    host.start();
    Noise::new(2).tree(&lab.site(), 20, 2000);
    lab.deploy(&[]).exits(0);
    copy(&lab.site(), &lab.path("old"));
    std::fs::remove_dir_all(lab.site().join("dir0")).expect("there");
    lab.deploy(&[]).exits(3).says(&["web1"]);

    lab.all_same(&lab.path("old"));
}

#[test]
fn an_empty_source_empties_a_tree_only_when_the_spec_says_so() {
    let Some(lab) = released(2) else { return };
    std::fs::remove_dir_all(lab.site()).expect("there");
    std::fs::create_dir(lab.site()).expect("new");
    let ran = lab.deploy(&[]);
    assert!([2, 3].contains(&ran.code), "{ran}");
    ran.says(&["empty"]);
    lab.all_same(&lab.path("old"));
    lab.spec(&format!("{DELETE}allow_empty = true\n"));
    lab.deploy(&[]).exits(0);

    lab.all_same(&lab.site());
}

#[test]
fn what_a_host_protects_stays() {
    let Some(mut lab) = Lab::loopback_idle() else {
        return;
    };

    let host = lab.host("web1");
    host.rule("protect = [\"/uploads/\"]");
    host.start();
    let tree = lab.hosts[0].tree();
    write(&tree.join("uploads/mine"), "a user's");
    write(&tree.join("extra"), "goes");
    write(&lab.site().join("page"), "new");

    lab.deploy(&[]).exits(0);
    assert_eq!(support::read(&tree.join("uploads/mine")), b"a user's");
    assert!(tree.join("page").exists() && !tree.join("extra").exists());
    write(&lab.site().join("uploads/mine"), "overwritten");
    let ran = lab.deploy(&[]);

    assert_eq!(
        support::read(&tree.join("uploads/mine")),
        b"a user's",
        "{ran}"
    );
}

#[test]
fn excluded_paths_are_neither_sent_nor_deleted() {
    let Some(lab) = Lab::loopback(1) else { return };
    let (site, tree) = (lab.site(), lab.hosts[0].tree());
    lab.spec(&format!("exclude = [\"*.tmp\", \"/cache/\"]\n{DELETE}"));
    for name in ["page", "a.tmp", "sub/b.tmp", "cache/x", "sub/cache/kept"] {
        write(&site.join(name), name);
    }

    write(&tree.join("theirs.tmp"), "stays");
    write(&tree.join("cache/theirs"), "stays");
    write(&tree.join("theirs"), "goes");
    lab.deploy(&[]).exits(0);
    let has = |name: &str| tree.join(name).exists();
    assert!(has("page") && has("sub/cache/kept") && has("theirs.tmp") && has("cache/theirs"));

    assert!(!has("a.tmp") && !has("sub/b.tmp") && !has("cache/x") && !has("theirs"));
}

#[test]
fn nothing_is_deleted_unless_it_is_asked_for() {
    let Some(lab) = released(1) else { return };
    let tree = lab.hosts[0].tree();
    lab.spec("");
    write(&tree.join("extra"), "theirs");
    write(&lab.site().join("page"), "new");
    lab.deploy(&[]).exits(0);
    assert!(tree.join("extra").exists());
    lab.deploy(&["--delete"]).exits(0);

    lab.all_same(&lab.site());
}

/// Makes three hosts; web2's filesystem has 2 MB.
fn one_small_host() -> Option<Lab> {
    let lab = one_host_on("size=2m")?;
    write(&lab.site().join("big"), Noise::new(3).bytes(4 << 20));
    Some(lab)
}

/// Makes three hosts with an old release; web2's tree is on a tmpfs with `options`. The source has
/// a new page.
fn one_host_on(options: &str) -> Option<Lab> {
    if !is_root() {
        skipped("only root mounts a small filesystem");
        return None;
    }

    let mut lab = Lab::loopback(1)?;
    let host = lab.host("web2");
    let disk = host.disk();
    let disk = disk.to_str().expect("UTF-8");
    host.wrap(&format!(
        "mount -t tmpfs -o {options} tmpfs '{disk}' && mkdir -p '{disk}/www' && exec \"$@\""
    ));

    host.start();
    lab.host("web3").start();
    write(&lab.site().join("page"), "old");
    lab.deploy(&[]).exits(0);
    copy(&lab.site(), &lab.path("old"));
    write(&lab.site().join("page"), "new");

    Some(lab)
}

/// Checks that the small host has the old release.
#[track_caller]
fn small_is_old(lab: &Lab) {
    same_within(lab.hosts[1].pid(), &lab.path("old"), &lab.hosts[1].tree());
}

#[test]
fn no_space_on_one_host_stops_all() {
    let Some(lab) = one_small_host() else { return };
    all_stay_for(&lab, "space");
}

/// Checks that no host changes, and that web2 reports the reason.
#[track_caller]
fn all_stay_for(lab: &Lab, why: &str) {
    let ran = lab.deploy(&[]).exits(3);
    let (state, error) = ran.host("web2");
    assert!(
        ["failed", "refused"].contains(&state.as_str()) && error.contains(why),
        "{ran}"
    );
    small_is_old(lab);

    for host in [&lab.hosts[0], &lab.hosts[2]] {
        same(&lab.path("old"), &host.tree());
    }
}

#[test]
fn no_inodes_on_one_host_stop_all() {
    let Some(lab) = one_host_on("nr_inodes=60") else {
        return;
    };
    for number in 0..80 {
        write(&lab.site().join(format!("file{number}")), "x");
    }
    all_stay_for(&lab, "inodes");
}

#[test]
fn no_space_on_one_host_is_left_behind_by_a_quorum() {
    let Some(lab) = one_small_host() else { return };
    lab.spec(&format!("{DELETE}[commit]\nrequire = 2\n"));
    let ran = lab.deploy(&[]).exits(4);
    assert!(ran.host("web2").1.contains("space"), "{ran}");
    small_is_old(&lab);

    for host in [&lab.hosts[0], &lab.hosts[2]] {
        same(&lab.site(), &host.tree());
    }
}

#[test]
fn a_whole_tree_takes_the_place_of_the_one_before() {
    let Some(mut lab) = released(2) else { return };
    let swap = format!("{DELETE}[commit]\nlayout = \"swap\"\n");
    lab.spec(&swap);

    for round in 0..3 {
        let before = directories_of(&lab);
        write(&lab.site().join("page"), format!("release {round}"));
        write(&lab.site().join(format!("more{round}/file")), "new");
        std::fs::remove_file(lab.site().join(format!("dir0/sub0/file{}", round * 7 % 21))).ok();
        lab.deploy(&[]).exits(0);
        lab.all_same(&lab.site());
        assert!(
            before
                .iter()
                .zip(directories_of(&lab))
                .all(|(old, new)| *old != new),
            "other directories"
        );
        lab.diff(&[]).exits(0);
    }

    // The host continues in place, and after a restart, with the present directory.
    lab.spec(DELETE);
    write(&lab.site().join("page"), "in place again");
    lab.hosts[0].restart();
    let before = directories_of(&lab);
    lab.deploy(&[]).exits(0);
    lab.all_same(&lab.site());

    assert_eq!(directories_of(&lab), before);
}

fn directories_of(lab: &Lab) -> Vec<u64> {
    use std::os::unix::fs::MetadataExt;
    lab.hosts
        .iter()
        .map(|h| std::fs::metadata(h.tree()).expect("there").ino())
        .collect()
}

#[test]
fn a_release_carries_thousands_of_patterns() {
    let Some(lab) = Lab::loopback(2) else { return };
    for package in 0..260 {
        let dir = lab.site().join(format!(
            "vendor/organisation-{package}/package-{}",
            package * 7919
        ));
        write(
            &dir.join(".gitignore"),
            "/build/\n*.log\nnode_modules\n!keep.log\n",
        );
        for name in ["main.c", "keep.log", "other.log", "build/out"] {
            write(&dir.join(name), name);
        }
    }

    let many: String = (0..5000)
        .map(|n| format!("/data/set-{n}/result-{}.bin\n", n * 7919))
        .collect();
    write(&lab.site().join(".gitignore"), many);
    write(
        &lab.site().join("data/set-4999/result-39587081.bin"),
        "left out",
    );

    write(&lab.site().join("data/set-4999/result-1.bin"), "sent");
    lab.spec(&format!("gitignore = true\n{DELETE}"));

    let own = lab.hosts[1]
        .tree()
        .join("vendor/organisation-7/package-55433/build/own");
    write(&own, "the host's");

    lab.deploy(&[]).exits(0);
    lab.diff(&[]).exits(0);
    let tree = lab.hosts[0].tree();
    let package = tree.join("vendor/organisation-259/package-2051021");

    for (path, is_sent) in [
        (package.join("main.c"), true),
        (package.join("keep.log"), true),
        (package.join("other.log"), false),
        (package.join("build"), false),
        (tree.join("data/set-4999/result-39587081.bin"), false),
        (tree.join("data/set-4999/result-1.bin"), true),
    ] {
        assert_eq!(path.exists(), is_sent, "{}", path.display());
    }

    assert!(own.exists(), "what a pattern excludes is the host's own");
}

#[test]
fn patterns_mean_what_they_mean_to_git() {
    let Some(lab) = Lab::loopback(1) else { return };
    let site = lab.site();
    write(
        &site.join(".gitignore"),
        b"\xef\xbb\xbf*.key\r\n!\r\nIcon\r\r\n[z-a]\nfoo\\\na{b\n\xe4*\nx\t\n",
    );

    for name in [
        "a.key",
        "c/Icon/part",
        "core/main.c",
        "{a,b}.txt",
        "a.txt",
        "x",
        "foo[",
        "build/z0",
    ] {
        write(&site.join(name), name);
    }

    let latin = std::path::PathBuf::from(std::ffi::OsStr::from_bytes(b"\xe4.c"));
    write(&site.join(&latin), "latin 1");
    lab.spec("gitignore = true\nexclude = [\"core[!a-z]*\", \"{a,b}.txt\", \"foo[\", \"build/[[:alpha:]]0\"]");
    write(&lab.hosts[0].tree().join("own.key"), "the host's");
    lab.deploy(&[]).exits(0);
    let tree = lab.hosts[0].tree();

    for (name, is_sent) in [
        ("a.key", false),
        ("c/Icon/part", true),
        ("core/main.c", true),
        ("{a,b}.txt", false),
        ("a.txt", true),
        ("x", true),
        ("foo[", true),
        ("build/z0", false),
    ] {
        assert_eq!(tree.join(name).exists(), is_sent, "{name}");
    }

    assert!(!tree.join(latin).exists());
}

#[test]
fn a_host_s_own_file_is_no_drift_and_one_that_is_not_sent_is_no_change() {
    let Some(mut lab) = Lab::loopback_idle() else {
        return;
    };

    lab.host("web1").rule("protect = [\"/own/\"]");
    lab.hosts[0].start();
    lab.spec(&format!("exclude = [\"*.log\"]\n{DELETE}"));
    for name in ["logs/kept", "page"] {
        write(&lab.site().join(name), name);
    }

    lab.deploy(&[]).exits(0);
    let tree = lab.hosts[0].tree();
    let written = |ran: &Ran| ran.result()["files_written"].as_u64();

    write(&tree.join("logs/app.log"), "the host's");
    write(&tree.join("own/upload"), "the host's");
    lab.diff(&[]).exits(0);

    std::fs::remove_file(tree.join("logs/app.log")).expect("there");
    lab.diff(&[]).exits(0);

    write(&lab.site().join("logs/junk.log"), "not sent");
    lab.diff(&[]).exits(0);
    lab.deploy(&["-n"]).exits(0);
    assert_eq!(written(&lab.deploy(&[]).exits(0)), Some(0));

    std::fs::remove_file(lab.site().join("logs/junk.log")).expect("there");
    assert_eq!(written(&lab.deploy(&[]).exits(0)), Some(0));

    // A later release sets the time again.
    write(&lab.site().join("logs/more"), "sent");
    lab.deploy(&[]).exits(0);
    let time = |dir: &std::path::Path| {
        std::fs::metadata(dir.join("logs"))
            .and_then(|m| m.modified())
            .expect("there")
    };

    assert_eq!(time(&tree), time(&lab.site()));
}

#[test]
fn a_dry_run_and_a_diff_say_what_a_deploy_would_refuse() {
    if !is_root() {
        skipped("only root mounts a filesystem");
        return;
    }

    let Some(mut lab) = Lab::loopback_idle() else {
        return;
    };

    let host = lab.host("web1");
    let up = host.tree().join("up").display().to_string();
    host.wrap(&format!(
        "mkdir -p '{up}' && mount -t tmpfs tmpfs '{up}' && touch '{up}/data' && exec \"$@\""
    ));
    lab.hosts[0].start();
    write(&lab.site().join("page"), "new");

    for ran in [lab.diff(&[]), lab.deploy(&["-n"]), lab.deploy(&[])] {
        let ran = ran.exits(3);
        ran.says(&["up", "a filesystem is mounted here"]);
    }

    assert!(!lab.hosts[0].tree().join("page").exists());
}

#[test]
fn a_verbose_deploy_lists_the_changed_paths() {
    let Some(lab) = released(2) else { return };
    write(&lab.site().join("page"), "new");
    let ran = lab.makuo(&["deploy", "-v", "www.toml"]).exits(0);
    let listed = ran
        .out
        .lines()
        .filter(|line| line.contains("content  page"));
    assert_eq!(listed.count(), 1, "{ran}");
}
