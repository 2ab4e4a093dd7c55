//! SIGKILL at any moment: every file under a final name is complete, and a restarted host is at a
//! single release.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::{self, DELETE, Lab, Noise, copy, differences, pause, write};

const ROUNDS: usize = 30;
const FILES: usize = 300;

type Contents = BTreeMap<PathBuf, Vec<u8>>;

/// Reads every regular file below `root`.
fn contents(root: &Path) -> Contents {
    let mut all = Contents::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).expect("readable") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(root).expect("below").to_path_buf();
                all.insert(name, support::read(&path));
            }
        }
    }

    all
}

/// Makes two releases that differ in most of their files.
fn releases(lab: &Lab) -> [PathBuf; 2] {
    let (a, b) = (lab.path("a"), lab.path("b"));
    Noise::new(7).tree(&a, FILES, 6000);
    copy(&a, &b);
    let mut noise = Noise::new(8);

    for i in 0..FILES {
        let name = format!("dir{}/sub{}/file{i}", i % 7, i % 3);
        match i % 4 {
            0 => write(&b.join(&name), noise.bytes(3000)),
            1 => write(
                &b.join(&name),
                [support::read(&a.join(&name)), b"more".to_vec()].concat(),
            ),
            2 => std::fs::remove_file(b.join(&name)).expect("there"),
            _ => {}
        }
        write(&b.join(format!("only in b/{i}")), noise.bytes(500));
    }

    write(&a.join("big"), noise.bytes(400_000));
    write(&b.join("big"), noise.bytes(400_000));
    [a, b]
}

#[test]
fn a_daemon_killed_at_random_moments_leaves_whole_files_and_one_release() {
    let seed = std::env::var("MAKUO_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or_else(|| fastrand::u64(..));
    println!("MAKUO_SEED={seed} replays the moments");
    let mut random = fastrand::Rng::with_seed(seed);
    let Some(mut lab) = Lab::loopback(1) else {
        return;
    };

    let releases = releases(&lab);
    let known = releases.each_ref().map(|release| contents(release));
    lab.spec_of("a", DELETE);
    lab.deploy(&[]).exits(0);
    let tree = lab.hosts[0].tree();
    let mut ends = [0usize; 2];
    let mut torn = 0;

    let mut now = 0;
    for round in 0..ROUNDS {
        lab.spec_of(["b", "a"][now], DELETE);
        let mut deploy = lab.start(&["deploy", "--json", "www.toml"]);
        let mut until_state = |state: &str| {
            deploy.until_event(state, |e| e["event"] == "host" && e["state"] == state);
        };
        // Kills come at any moment, around the commit, or after it, however slow the machine is.
        match random.u8(0..5) {
            0 | 1 => pause(Duration::from_millis(random.u64(0..500))),
            2 | 3 => {
                until_state("ready");
                pause(Duration::from_micros(random.u64(0..40_000)));
            }
            _ => until_state("committed"),
        }
        lab.hosts[0].kill();
        deploy.kill();
        let found = contents(&tree);
        for (path, bytes) in &found {
            let whole = known.iter().any(|release| release.get(path) == Some(bytes));
            assert!(
                whole,
                "seed {seed}, round {round}: {} is neither old nor new",
                path.display()
            );
        }
        torn += usize::from(!known.contains(&found));
        lab.hosts[0].start();
        let at = releases
            .iter()
            .position(|release| differences(release, &tree).is_empty());
        let shown = || {
            format!(
                "seed {seed}, round {round}: {}",
                differences(&releases[now], &tree)
            )
        };
        let at = at.unwrap_or_else(|| panic!("neither release: {}", shown()));
        ends[usize::from(at != now)] += 1;
        now = at;
    }

    println!(
        "{} rounds stayed, {} got the new release, {torn} died in the middle of the commit",
        ends[0], ends[1]
    );
    assert!(
        ends.iter().all(|&count| count > 0),
        "seed {seed}: the kills came all at the same stage: {ends:?}"
    );

    lab.spec_of(["b", "a"][now], DELETE);
    lab.deploy(&[]).exits(0);
    lab.all_same(&releases[1 - now]);
}

#[test]
fn a_sender_killed_in_the_middle_leaves_the_old_release() {
    let Some(lab) = Lab::loopback(3) else { return };
    let site = lab.site();
    write(&site.join("page"), "old");
    lab.deploy(&[]).exits(0);
    copy(&site, &lab.path("old"));
    write(&site.join("page"), "new");
    let len = 12 << 20;

    write(&site.join("big"), Noise::new(9).bytes(len));
    let mut deploy = lab.start(&["deploy", "--json", "www.toml", "--rate", "4MB"]);
    deploy.until_event("the middle of the transfer", |e| {
        e["event"] == "progress" && e["sent"].as_u64().is_some_and(|sent| sent > len as u64 / 4)
    });
    deploy.kill();
    lab.all_same(&lab.path("old"));

    pause(Duration::from_secs(1));
    lab.all_same(&lab.path("old"));

    // Hosts wait for the lost sender for a while, and report busy to the next one.
    let last = loop {
        let ran = lab.deploy(&[]);
        if ran.code != 3 || !ran.host("web1").1.contains("busy") {
            break ran;
        }
        lab.all_same(&lab.path("old"));
        pause(Duration::from_secs(1));
    };

    last.exits(0);
    lab.all_same(&site);
}
