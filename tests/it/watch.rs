//! `makuo watch` with hosts on the loopback interface: after any change of the source, hosts become
//! equal to the source, and never to a state that the source has left.

use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::{
    self, DELETE, Host, Lab, Noise, Running, copy, differences, differences_without, pause, read,
    skipped, until, write,
};
use nix::sys::signal::Signal;
use serde_json::Value;

/// Makes a lab with a source, and a watch that has made its first release.
fn watched(hosts: usize, flags: &[&str]) -> Option<(Lab, Running)> {
    let lab = Lab::loopback(hosts)?;
    Noise::new(1).tree(&lab.site(), 20, 2000);
    write(&lab.site().join("page"), "old");
    let watch = watch(&lab, flags);
    same(&lab, &watch, "the first release");
    until("its result", || !results(&watch).is_empty());
    Some((lab, watch))
}

fn watch(lab: &Lab, flags: &[&str]) -> Running {
    let expect = lab.hosts.len().to_string();
    lab.start(
        &[
            &[
                "watch", "--json", "-v", "www.toml", "--settle", "100ms", "--expect", &expect,
            ],
            flags,
        ]
        .concat(),
    )
}

fn results(watch: &Running) -> Vec<Value> {
    watch
        .events()
        .into_iter()
        .filter(|e| e["event"] == "result")
        .collect()
}

/// Returns the results that are releases.
fn releases(watch: &Running) -> Vec<Value> {
    results(watch)
        .into_iter()
        .filter(|e| e["exit"] == 0 && !e["serial"].is_null())
        .collect()
}

/// Waits until every host equals the source.
fn same(lab: &Lab, watch: &Running, what: &str) {
    let excludes = String::from_utf8_lossy(&read(&lab.path("www.toml"))).contains("exclude");
    let differs = || {
        let of = |host: &Host| match excludes {
            true => differences_without(&EXCLUDED, &lab.site(), &host.tree()),
            false => differences(&lab.site(), &host.tree()),
        };
        let named = |host: &Host| {
            Some(of(host))
                .filter(|text| !text.is_empty())
                .map(|text| format!("{}:\n{text}", host.name))
        };
        let all: Vec<String> = lab.hosts.iter().filter_map(named).collect();
        (!all.is_empty()).then(|| all.concat())
    };

    let mut patience = 600;
    while let Some(text) = differs() {
        patience -= 1;
        if patience == 0 {
            let paths = text
                .lines()
                .filter_map(|line| Some(lab.site().join(line.split_once(' ')?.1)));
            let stats: Vec<String> = paths
                .map(|path| format!("{:?}", std::fs::symlink_metadata(path)))
                .collect();
            let results = results(watch);
            let last = &results[results.len().saturating_sub(3)..];
            panic!(
                "{what}: not the same:\n{text}\n{}\n{}\n{last:?}",
                stats.join("\n"),
                watch.talk()
            );
        }
        pause(Duration::from_millis(100));
    }
}

fn ends(mut watch: Running, signal: Signal) {
    assert!(!watch.is_over(), "{}", watch.talk());
    watch.signal(signal);
    watch.wait().exits(0);
}

#[test]
fn every_batch_is_a_release_and_sigterm_ends_with_success() {
    let Some((lab, watch)) = watched(3, &[]) else {
        return;
    };

    let before = releases(&watch).len();
    write(&lab.site().join("page"), "new");
    write(&lab.site().join("fresh/sub/deep"), "x");
    std::fs::remove_dir_all(lab.site().join("dir0")).expect("there");
    same(&lab, &watch, "a batch");
    let after = releases(&watch);
    assert!(
        after.len() > before && after.len() <= before + 3,
        "{after:?}"
    );

    let last = after.last().expect("some");
    assert_eq!(
        (last["committed"].as_u64(), last["targets"].as_u64()),
        (Some(3), Some(3)),
        "{last}"
    );

    ends(watch, Signal::SIGTERM);
}

#[test]
fn what_changes_nothing_sends_nothing() {
    let Some((lab, watch)) = watched(2, &[]) else {
        return;
    };

    let (before, released) = (results(&watch).len(), releases(&watch).len());
    let page = lab.site().join("page");
    let mode = std::fs::metadata(&page).expect("there").permissions();
    std::fs::set_permissions(&page, mode).expect("mine");
    drop(
        std::fs::File::options()
            .append(true)
            .open(&page)
            .expect("mine"),
    );

    until("a look", || results(&watch).len() > before);
    let result = &results(&watch)[before];
    assert_eq!(
        (&result["exit"], &result["serial"], &result["bytes_sent"]),
        (&0.into(), &Value::Null, &0.into())
    );
    assert_eq!(releases(&watch).len(), released);

    ends(watch, Signal::SIGINT);
}

#[test]
fn a_moved_directory_moves_no_data() {
    let Some((lab, watch)) = watched(2, &[]) else {
        return;
    };

    write(
        &lab.site().join("big/sub/one"),
        Noise::new(2).bytes(3_000_000),
    );
    same(&lab, &watch, "a file");
    let before = releases(&watch).len();
    std::fs::rename(lab.site().join("big"), lab.site().join("dir1/moved")).expect("mine");

    same(&lab, &watch, "a move");
    let sent: u64 = releases(&watch)[before..]
        .iter()
        .map(|r| r["bytes_sent"].as_u64().expect("a number"))
        .sum();
    assert!(sent < 300_000, "{sent}");

    // Events in the moved directory still arrive.
    write(&lab.site().join("dir1/moved/sub/two"), "x");
    same(&lab, &watch, "a file in it");

    // No events arrive from a directory moved out; a new one of the same name is separate.
    std::fs::rename(lab.site().join("dir1/moved"), lab.path("out")).expect("mine");
    write(&lab.site().join("dir1/moved/sub/three"), "x");
    same(&lab, &watch, "a move out");
    write(&lab.site().join("dir1/moved/sub/three"), "yy");
    same(&lab, &watch, "a file in the new one");

    ends(watch, Signal::SIGTERM);
}

#[test]
fn directories_that_change_places_are_heard_in_both() {
    let Some((lab, watch)) = watched(1, &[]) else {
        return;
    };

    let (one, two) = (lab.site().join("one"), lab.site().join("two"));
    write(&one.join("sub/file"), "1");
    write(&two.join("sub/file"), "2");
    same(&lab, &watch, "two directories");
    use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
    if let Err(e) = renameat2(AT_FDCWD, &one, AT_FDCWD, &two, RenameFlags::RENAME_EXCHANGE) {
        return skipped(format!("no exchange here: {e}"));
    }

    same(&lab, &watch, "an exchange");
    pause(Duration::from_millis(1500));
    for (at, dir) in [&one, &two].into_iter().enumerate() {
        write(&dir.join("sub/file"), format!("new {at}"));
        same(&lab, &watch, "a file in one of them");
    }

    ends(watch, Signal::SIGTERM);
}

#[test]
fn a_file_that_is_written_waits_and_others_do_not() {
    let Some((lab, watch)) = watched(1, &["--max-delay", "1s"]) else {
        return;
    };

    let mut open = std::fs::File::create(lab.site().join("large")).expect("mine");
    open.write_all(b"begun").expect("written");
    write(&lab.site().join("page"), "new");
    let host = lab.hosts[0].tree();
    until("the other file", || {
        std::fs::read(host.join("page")).is_ok_and(|text| text == b"new")
    });
    assert!(!host.join("large").exists(), "{}", watch.talk());
    open.write_all(b" and ended").expect("written");
    drop(open);
    same(&lab, &watch, "the file");

    ends(watch, Signal::SIGTERM);
}

#[test]
fn a_new_file_that_was_open_while_its_neighbour_went_out_is_sent_when_it_is_closed() {
    let Some((lab, watch)) = watched(1, &["--max-delay", "1s"]) else {
        return;
    };

    let (site, host) = (lab.site(), lab.hosts[0].tree());
    write(&site.join("d/known"), "x");
    same(&lab, &watch, "a directory");
    let mut open: Vec<_> = ["d/large", "top-large"]
        .map(|name| std::fs::File::create(site.join(name)).expect("mine"))
        .into();
    open.iter_mut()
        .for_each(|file| file.write_all(b"begun").expect("written"));

    write(&site.join("d/small"), "x");
    write(&site.join("top-small"), "x");
    until("the neighbours", || {
        host.join("d/small").exists() && host.join("top-small").exists()
    });
    until("their result", || {
        watch
            .events()
            .last()
            .is_some_and(|e| e["event"] == "result")
    });

    assert!(
        !host.join("d/large").exists() && !host.join("top-large").exists(),
        "{}",
        watch.talk()
    );

    open.iter_mut()
        .for_each(|file| file.write_all(b" and ended").expect("written"));
    drop(open);
    same(&lab, &watch, "the files that were open");

    ends(watch, Signal::SIGTERM);
}

#[test]
fn a_truncated_file_does_not_wait_for_one_that_is_open() {
    let Some((lab, watch)) = watched(1, &["--max-delay", "1s"]) else {
        return;
    };

    let host = lab.hosts[0].tree();
    let mut open = std::fs::File::create(lab.site().join("large")).expect("mine");
    open.write_all(b"begun").expect("written");
    let page = lab.site().join("page");
    nix::unistd::truncate(&page, 1).expect("mine");
    until("the file that was cut", || {
        std::fs::read(host.join("page")).is_ok_and(|text| text == b"o")
    });
    assert!(!host.join("large").exists(), "{}", watch.talk());
    drop(open);
    same(&lab, &watch, "both");

    ends(watch, Signal::SIGTERM);
}

#[test]
fn what_is_written_through_a_name_that_is_not_watched_is_sent() {
    let Some(lab) = Lab::loopback(1) else { return };
    lab.spec(&format!("exclude = [\"*.x\", \"/hidden/\"]\n{DELETE}"));
    let (site, host) = (lab.site(), lab.hosts[0].tree());
    let names = [
        ("a", site.join("a.x")),
        ("d/b", site.join("hidden/b")),
        ("d/c", lab.path("outside/c")),
    ];

    std::fs::create_dir(lab.path("outside")).expect("new");
    write(&site.join("hidden/keep"), "x");
    for (name, other) in &names {
        write(&site.join(name), "old");
        std::fs::hard_link(site.join(name), other).expect("mine");
    }

    let watch = watch(&lab, &[]);
    let is = |name: &str, text: &str| {
        std::fs::read_to_string(host.join(name)).is_ok_and(|found| found == text)
    };

    until("the first release", || {
        names.iter().all(|(name, _)| is(name, "old"))
    });
    assert!(watch.talk().contains("3 files, "), "{}", watch.talk());
    for (name, other) in &names {
        std::fs::write(other, format!("new {name}")).expect("mine");
    }

    until("what was written", || {
        names
            .iter()
            .all(|(name, _)| is(name, &format!("new {name}")))
    });

    // A file that came by a hard link from outside.
    write(&lab.path("outside/late"), "old");
    std::fs::hard_link(lab.path("outside/late"), site.join("d/late")).expect("mine");
    until("the link", || is("d/late", "old"));
    std::fs::write(lab.path("outside/late"), "new").expect("mine");
    until("what was written to it", || is("d/late", "new"));

    ends(watch, Signal::SIGTERM);
}

#[test]
fn what_is_written_through_a_name_that_is_gone_at_once_is_sent() {
    let Some((lab, watch)) = watched(1, &[]) else {
        return;
    };

    let (site, host) = (lab.site(), lab.hosts[0].tree());
    let append = |path: &Path| {
        std::fs::File::options()
            .append(true)
            .open(path)
            .expect("mine")
    };

    let sent = |what: &str, name: &str, text: &str| {
        until(what, || {
            std::fs::read_to_string(host.join(name)).is_ok_and(|found| found == text)
        });
    };

    for name in ["outside", "link", "held"] {
        write(&site.join("d").join(name), name);
    }

    // Known to the watch: each change is found.
    write(&lab.path("known"), "known");
    std::fs::hard_link(lab.path("known"), site.join("d/known")).expect("mine");
    same(&lab, &watch, "four files");

    for round in 0..3 {
        // Through an unwatched name, removed before the scan.
        let text = format!("known, round {round}");
        std::fs::write(lab.path("known"), &text).expect("mine");
        std::fs::remove_file(lab.path("known")).expect("mine");
        sent("what was written outside", "d/known", &text);
        std::fs::hard_link(site.join("d/known"), lab.path("known")).expect("mine");
        write(&site.join("e/known"), &text);
        std::fs::remove_file(site.join("d/known")).expect("mine");
        std::fs::hard_link(lab.path("known"), site.join("d/known")).expect("mine");
        same(&lab, &watch, "the name that came again");
    }

    // Through a short-lived name in another directory.
    std::fs::hard_link(site.join("d/link"), site.join("passing")).expect("mine");

    append(&site.join("passing"))
        .write_all(b" and more")
        .expect("written");
    std::fs::remove_file(site.join("passing")).expect("mine");
    sent("what was written through a link", "d/link", "link and more");

    // Through a handle without a name: long after the last event, and before the handle is closed.
    std::fs::hard_link(site.join("d/held"), site.join("passing")).expect("mine");

    let mut open = append(&site.join("passing"));
    std::fs::remove_file(site.join("passing")).expect("mine");
    write(&site.join("page"), "newer");
    sent("a page", "page", "newer");
    pause(Duration::from_secs(3));
    open.write_all(b" and more").expect("written");
    drop(open);

    sent(
        "what was written through a handle",
        "d/held",
        "held and more",
    );

    ends(watch, Signal::SIGTERM);
}

#[test]
fn once_ends_when_it_is_quiet() {
    let Some(lab) = Lab::loopback(2) else { return };
    write(&lab.site().join("page"), "x");
    watch(&lab, &["--once"]).wait().exits(0);
    lab.all_same(&lab.site());
    write(&lab.site().join("page"), "y");
    let started = watch(&lab, &["--once", "--no-initial"]);
    until("a watch", || {
        started.talk().contains("directories are watched")
    });

    pause(Duration::from_millis(300));
    assert!(results(&started).is_empty());
    write(&lab.site().join("other"), "z");
    started.wait().exits(0);
    lab.all_same(&lab.site());

    // And reports the outcome.
    let nobody = lab.start(&[
        "watch",
        "--once",
        "--expect",
        "7",
        "--timeout",
        "1s",
        "www.toml",
    ]);

    nobody
        .wait()
        .exits(3)
        .says(&["of 7 expected hosts answered"]);
}

#[test]
fn a_pause_gathers() {
    let Some(lab) = Lab::loopback(1) else { return };
    let hold = lab.path("hold");
    write(&lab.site().join("page"), "x");
    write(&hold, "");
    let watch = watch(&lab, &["--pause-file", "hold"]);
    until("a watch", || {
        watch.talk().contains("directories are watched")
    });

    for i in 0..5 {
        write(&lab.site().join(format!("page{i}")), "x");
        pause(Duration::from_millis(150));
    }

    until("word of the pause", || !watch.events().is_empty());
    let told = watch.events();
    assert!(
        told.len() == 1 && told[0]["text"].to_string().contains("held by hold"),
        "{told:?}"
    );
    std::fs::remove_file(&hold).expect("mine");
    same(&lab, &watch, "all of it");
    // The hosts have it a moment before the result is told.
    until("its result", || !releases(&watch).is_empty());
    assert_eq!(releases(&watch).len(), 1, "{:?}", results(&watch));

    ends(watch, Signal::SIGTERM);
}

#[test]
fn sighup_takes_new_excludes_and_a_broken_spec_changes_nothing() {
    let Some((lab, watch)) = watched(1, &[]) else {
        return;
    };

    lab.spec("exclude = [\n");
    watch.signal(Signal::SIGHUP);
    until("a word", || {
        watch
            .events()
            .iter()
            .any(|e| e["event"] == "note" && e["text"].to_string().contains("keeping"))
    });

    write(&lab.site().join("page"), "new");
    same(&lab, &watch, "the old spec");
    lab.spec(&format!("exclude = [\"/cache/\"]\n{DELETE}"));
    let before = releases(&watch).len();
    watch.signal(Signal::SIGHUP);
    until("a release", || releases(&watch).len() > before);
    write(&lab.site().join("cache/x"), "x");

    write(&lab.site().join("page"), "newer");
    let host = lab.hosts[0].tree();
    until("the page", || {
        std::fs::read(host.join("page")).is_ok_and(|text| text == b"newer")
    });
    assert!(!host.join("cache").exists());

    ends(watch, Signal::SIGTERM);
}

#[test]
fn sigusr1_looks_at_everything_here_and_on_the_hosts() {
    let Some((lab, watch)) = watched(1, &[]) else {
        return;
    };

    // Drift on a host.
    write(&lab.hosts[0].tree().join("page"), "drifted");
    watch.signal(Signal::SIGUSR1);
    same(&lab, &watch, "what drifted");

    ends(watch, Signal::SIGTERM);
}

#[test]
fn a_source_that_is_gone_ends_it_and_hosts_keep_everything() {
    for how in ["removed", "moved", "replaced"] {
        let Some((lab, watch)) = watched(2, &[]) else {
            return;
        };
        copy(&lab.site(), &lab.path("old"));
        match how {
            "removed" => {
                // Not one by one, but all at once, as if put aside.
                std::fs::rename(lab.site(), lab.path("aside")).expect("mine");
                std::fs::remove_dir_all(lab.path("aside")).expect("mine");
            }
            "moved" => std::fs::rename(lab.site(), lab.path("aside")).expect("mine"),
            _ => {
                std::fs::rename(lab.site(), lab.path("aside")).expect("mine");
                write(&lab.site().join("page"), "of another one");
            }
        }
        watch
            .wait()
            .exits(3)
            .says(&["the source", "site", "nothing is deployed any more"]);
        lab.all_same(&lab.path("old"));
    }
}

#[test]
fn a_link_that_is_turned_ends_it() {
    let Some(lab) = Lab::loopback(1) else { return };
    write(&lab.path("v1/page"), "one");
    write(&lab.path("v2/page"), "two");
    symlink("v1", lab.path("current")).expect("new");
    lab.spec_of("current", DELETE);
    let watch = watch(&lab, &[]);
    let host = lab.hosts[0].tree();

    until("the first release", || {
        support::differences(&lab.path("v1"), &host).is_empty()
    });
    symlink("v2", lab.path("next")).expect("new");
    std::fs::rename(lab.path("next"), lab.path("current")).expect("mine");
    watch
        .wait()
        .exits(3)
        .says(&["current", "is another directory now"]);

    support::same(&lab.path("v1"), &host);
}

/// Starts a watch in its own namespace, prepared by `script`.
fn within(lab: &Lab, how: &[&str], script: &str) -> Running {
    let mut command = lab.admin.command("unshare");
    let script = format!("{script} && exec \"$@\"");
    command.args(how).args([
        "sh",
        "-c",
        &script,
        "sh",
        env!("CARGO_BIN_EXE_makuo"),
        "watch",
        "--json",
        "-v",
        "www.toml",
    ]);

    command
        .args(lab.admin.flags())
        .current_dir(lab.path(""))
        .env("HOME", lab.path(""))
        .env("MAKUO_KEY", lab.path("key"));

    Running::start(&mut command)
}

#[test]
fn a_mount_in_the_source_that_went_away_is_refused_until_somebody_says_yes() {
    let Some(lab) = Lab::loopback(1) else { return };
    lab.spec(&format!("exclude = [\"/cache/\"]\n{DELETE}"));
    for dir in ["vol", "cache"] {
        std::fs::create_dir_all(lab.site().join(dir)).expect("mine");
    }
    write(&lab.site().join("page"), "x");
    // All in one namespace; its mounts end with the namespace.
    let script = r#"
        mount -t tmpfs none site/vol && mount -t tmpfs none site/cache || exit 77
        echo x >site/vol/file && echo x >site/cache/file
        "$0" deploy "$@" && echo "deployed" && umount site/cache || exit 1
        "$0" deploy "$@" && echo "excluded" && umount site/vol || exit 1
        "$0" deploy "$@"; echo "refused with $?"
        "$0" deploy -n "$@"; echo "shown with $?"
        "$0" diff "$@"; echo "differs with $?"
        "$0" deploy "$@"; echo "refused again with $?"
        "$0" watch --once "$@"; echo "watched with $?"
        ls HOST
        mount -t tmpfs none site/vol && echo x >site/vol/file
        "$0" deploy "$@" && echo "mounted again" && umount site/vol
        "$0" deploy --yes-unmounted "$@" && echo "accepted"
        "$0" deploy "$@" && echo "forgotten"
    "#;
    let host = lab.hosts[0].tree();
    let script = script.replace("HOST", &format!("{}/vol", host.display()));
    let mut command = lab.admin.command("unshare");
    command.args([
        "-m",
        "sh",
        "-c",
        &script,
        env!("CARGO_BIN_EXE_makuo"),
        "www.toml",
        "--expect",
        "1",
    ]);
    command
        .args(lab.admin.flags())
        .current_dir(lab.path(""))
        .env("HOME", lab.path(""))
        .env("MAKUO_KEY", lab.path("key"));
    command
        .env_remove("MAKUO_CONFIG")
        .env_remove("XDG_CACHE_HOME");
    let ran = Running::start(&mut command).wait();
    if ran.code == 77 || ran.err.contains("unshare") {
        return skipped(format!("no mounts here: {ran}"));
    }
    let ran = ran.says(&["site/vol was a mount point", "--yes-unmounted"]);
    let words = [
        "deployed",
        "excluded",
        "refused with 2",
        "shown with 2",
        "differs with 1",
        "refused again with 2",
    ];
    let more = [
        "watched with 2",
        "file",
        "mounted again",
        "accepted",
        "forgotten",
    ];
    let mut rest = ran.out.as_str();
    for word in words.iter().chain(&more) {
        let at = rest
            .find(&format!("{word}\n"))
            .unwrap_or_else(|| panic!("{word}: {ran}"));
        rest = &rest[at..];
    }
    assert!(!host.join("vol/file").exists());
}

#[test]
fn a_source_that_is_unmounted_ends_it_and_hosts_keep_everything() {
    for lazy in [false, true] {
        let Some(lab) = Lab::loopback(1) else { return };
        let script = "mount -t tmpfs none site && mkdir site/sub && echo x >site/page && echo y >site/sub/file";
        let mut watch = within(&lab, &["-m"], script);
        let host = lab.hosts[0].tree();
        until("the first release", || {
            watch.is_over() || !releases(&watch).is_empty()
        });
        if watch.is_over() {
            return skipped(format!("no tmpfs in a namespace: {}", watch.talk()));
        }
        copy(&host, &lab.path("old"));
        let mut umount = Command::new("nsenter");
        umount
            .args(["-t", &watch.pid().to_string(), "-m", "umount"])
            .args(lazy.then_some("-l"))
            .arg(lab.site());
        support::run::tool(&mut umount);
        watch
            .wait()
            .exits(3)
            .says(&["nothing is deployed any more"]);
        support::same(&lab.path("old"), &host);
    }
}

#[test]
fn too_few_watches_say_so() {
    let Some(lab) = Lab::loopback(1) else { return };
    (0..40).for_each(|i| write(&lab.site().join(format!("dir{i}/file")), "x"));
    let watch = within(
        &lab,
        &["-U", "-r"],
        "echo 20 >/proc/sys/user/max_inotify_watches",
    );
    let ran = watch.wait();
    if ran.code != 2 {
        return skipped(format!("no lower limit in a namespace: {ran}"));
    }
    ran.says(&[
        "41 directories",
        "user.max_inotify_watches is 20",
        "sysctl user.max_inotify_watches=64",
    ]);
}

#[test]
fn a_queue_that_overflows_is_told_and_nothing_is_lost() {
    let Some((lab, watch)) = watched(1, &[]) else {
        return;
    };

    let dir = |i: usize| lab.site().join(format!("many/d{}", i % 100));
    (0..100).for_each(|i| std::fs::create_dir_all(dir(i)).expect("mine"));
    same(&lab, &watch, "the directories");
    watch.signal(Signal::SIGSTOP);
    // At least two events each.
    (0..10_000).for_each(|i| std::fs::write(dir(i).join(format!("f{i}")), [0u8; 3]).expect("mine"));

    // Later changes cause no events at all.
    write(&lab.site().join("unheard/of/file"), "x");
    watch.signal(Signal::SIGCONT);
    same(&lab, &watch, "all of them");
    let queued =
        std::fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").expect("readable");

    if queued
        .trim()
        .parse::<u32>()
        .is_ok_and(|queued| queued <= 16_384)
    {
        assert!(watch.talk().contains("overflowed"), "{}", watch.talk());
    }

    write(&lab.site().join("many/d7/new/one"), "x");
    same(&lab, &watch, "one more");
    ends(watch, Signal::SIGTERM);
}

#[test]
fn a_host_that_is_away_holds_up_nobody_and_gets_it_when_it_is_back() {
    let Some(mut lab) = Lab::loopback(3) else {
        return;
    };

    write(&lab.site().join("page"), "x");
    let watch = lab.start(&[
        "watch",
        "--json",
        "-v",
        "www.toml",
        "--settle",
        "100ms",
        "--timeout",
        "2s",
    ]);

    same(&lab, &watch, "the first release");
    until("its result", || !releases(&watch).is_empty());
    lab.hosts[2].kill();
    write(&lab.site().join("page"), "y");
    until("the others", || lab.with_release() == ["web1", "web2"]);
    until("its name", || {
        watch
            .events()
            .iter()
            .any(|e| e["event"] == "note" && e["text"].to_string().contains("web3"))
    });

    lab.hosts[2].start();
    same(&lab, &watch, "the host that was away");
    ends(watch, Signal::SIGTERM);
}

/// Excluded patterns of [`whatever_happens_hosts_become_the_same`].
const EXCLUDED: [&str; 2] = ["*.x", "/hidden/"];

/// Files held open for a while, and unwatched names.
#[derive(Default)]
struct Held {
    open: Vec<std::fs::File>,
    outside: PathBuf,
}

impl Held {
    /// Makes one random change of the files, like [`happen`].
    fn happen(&mut self, rng: &mut fastrand::Rng, site: &Path, noise: &mut Noise) {
        let file = |rng: &mut fastrand::Rng| -> PathBuf {
            let depth = rng.usize(0..4);
            let dir = (0..depth).map(|_| format!("d{}", rng.u8(0..4)));
            dir.fold(site.to_path_buf(), |path, name| path.join(name))
                .join(format!("f{}", rng.u8(0..6)))
        };

        let other = |rng: &mut fastrand::Rng, file: &Path| match rng.u8(0..3) {
            0 => file.with_extension("x"),
            1 => site.join(format!("hidden/f{}", rng.u8(0..6))),
            _ => self.outside.join(format!("f{}", rng.u8(0..6))),
        };

        let _ = match rng.u8(0..12) {
            0..=2 if self.open.len() < 8 => {
                let open = std::fs::File::options()
                    .append(true)
                    .create(rng.bool())
                    .open(file(rng));
                open.and_then(|mut open| open.write_all(b"begun").map(|()| self.open.push(open)))
            }
            0..=4 if !self.open.is_empty() => {
                let at = rng.usize(0..self.open.len());
                self.open[at].write_all(&noise.bytes(rng.usize(0..3000)))
            }
            5 | 6 if !self.open.is_empty() => {
                self.open.swap_remove(rng.usize(0..self.open.len()));
                Ok(())
            }
            7 => nix::unistd::truncate(&file(rng), rng.i64(0..3000)).map_err(Into::into),
            // The unwatched name comes before the watched one: the other order causes no event.
            8 | 9 => {
                let (file, len) = (file(rng), rng.usize(0..3000));
                let other = other(rng, &file);
                let _ = std::fs::remove_file(&other);
                std::fs::write(&other, noise.bytes(len))
                    .and_then(|()| std::fs::hard_link(&other, &file))
            }
            10 => {
                let (from, other) = (file(rng), file(rng).with_extension("x"));
                std::fs::hard_link(from, other)
            }
            _ => {
                let file = file(rng);
                let open = std::fs::File::options()
                    .append(true)
                    .open(other(rng, &file));
                open.and_then(|mut open| open.write_all(b"more through another name"))
            }
        };
    }
}

/// Makes one random change of a tree; many attempts fail, which is fine.
fn happen(rng: &mut fastrand::Rng, site: &Path, noise: &mut Noise) {
    let dir = |rng: &mut fastrand::Rng| -> PathBuf {
        let depth = rng.usize(0..4);
        (0..depth)
            .map(|_| format!("d{}", rng.u8(0..4)))
            .fold(site.to_path_buf(), |path, name| path.join(name))
    };

    let file = |rng: &mut fastrand::Rng| dir(rng).join(format!("f{}", rng.u8(0..6)));
    let is_dir = |path: &Path| path.symlink_metadata().is_ok_and(|meta| meta.is_dir());
    let _ = match rng.u8(0..24) {
        0..=5 => {
            let (path, len) = (
                file(rng),
                if rng.u8(0..10) == 0 {
                    300_000
                } else {
                    rng.usize(0..5000)
                },
            );
            path.parent()
                .map(std::fs::create_dir_all)
                .transpose()
                .and_then(|_| std::fs::write(path, noise.bytes(len)))
        }
        6..=8 => std::fs::File::options()
            .append(true)
            .open(file(rng))
            .and_then(|mut f| f.write_all(b"more")),
        9 => std::fs::File::options()
            .write(true)
            .open(file(rng))
            .and_then(|f| f.set_len(rng.u64(0..3000))),
        10..=12 => std::fs::rename(file(rng), file(rng)),
        13..=15 => {
            let (from, to) = (dir(rng), dir(rng));
            if from == site || to == site {
                Ok(())
            } else {
                std::fs::rename(from, to)
            }
        }
        16 => {
            let path = dir(rng);
            if path == site || !is_dir(&path) {
                return;
            }
            std::fs::remove_dir_all(&path).and_then(|()| symlink("keep", &path))
        }
        17 => {
            let path = dir(rng);
            if path.is_symlink() {
                std::fs::remove_file(path)
            } else {
                Ok(())
            }
        }
        18 => std::fs::remove_file(file(rng)),
        19 => {
            let path = dir(rng);
            if path == site || !is_dir(&path) {
                Ok(())
            } else {
                std::fs::remove_dir_all(path)
            }
        }
        20 | 21 => std::fs::hard_link(file(rng), file(rng)),
        22 => {
            let path = if rng.bool() { file(rng) } else { dir(rng) };
            let mode = if is_dir(&path) {
                0o755 - u32::from(rng.u8(0..2))
            } else {
                0o600 + u32::from(rng.u8(0..64))
            };
            // Symbolic links are not followed.
            if path.is_symlink() {
                Ok(())
            } else {
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
            }
        }
        _ => std::fs::create_dir_all(dir(rng).join("empty/within")),
    };
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

#[test]
fn whatever_happens_hosts_become_the_same() {
    let (seeds, ops) = (
        number("MAKUO_WATCH_SEEDS", 2),
        number("MAKUO_WATCH_OPS", 300),
    );
    let first = number("MAKUO_WATCH_SEED", fastrand::u64(0..1 << 32));

    for seed in first..first + seeds {
        println!("MAKUO_WATCH_SEED={seed}");
        let Some(lab) = Lab::loopback(3) else { return };
        let (mut rng, mut noise) = (fastrand::Rng::with_seed(seed), Noise::new(seed));
        write(&lab.site().join("keep"), "always");
        write(&lab.site().join("hidden/keep"), "never");
        lab.spec(&format!("exclude = {EXCLUDED:?}\n{DELETE}"));
        let mut held = Held {
            open: Vec::new(),
            outside: lab.path("outside"),
        };
        std::fs::create_dir(&held.outside).expect("new");
        for nth in 0..number("MAKUO_WATCH_FILES", 0) {
            write(
                &lab.site()
                    .join(format!("base/a{}/b{}/f{nth}", nth % 50, nth / 50 % 100)),
                nth.to_string(),
            );
        }
        let mut happen = |rng: &mut fastrand::Rng, held: &mut Held| match rng.u8(0..3) {
            0 => held.happen(rng, &lab.site(), &mut noise),
            _ => happen(rng, &lab.site(), &mut noise),
        };
        (0..50).for_each(|_| happen(&mut rng, &mut held));
        // The first scan and the first release happen during the changes.
        let mut watch = watch(&lab, &["--max-delay", "1s"]);
        for round in 0..4 {
            for _ in 0..ops / 4 {
                happen(&mut rng, &mut held);
                if round % 2 == 1 && rng.u8(0..4) == 0 {
                    pause(Duration::from_millis(rng.u64(0..150)));
                }
            }
            held.open.clear();
            if round > 0 {
                same(
                    &lab,
                    &watch,
                    &format!("MAKUO_WATCH_SEED={seed}, round {round}"),
                );
            }
            assert!(
                !watch.is_over(),
                "MAKUO_WATCH_SEED={seed}: {}",
                watch.talk()
            );
        }
        let (all, well) = (results(&watch), releases(&watch).len());
        let errors: Vec<&str> = all
            .iter()
            .filter_map(|result| result["error"].as_str())
            .collect();
        println!(
            "{well} releases, {} looks in vain, {errors:?}",
            all.len() - well - errors.len()
        );
        ends(watch, Signal::SIGTERM);
    }
}
