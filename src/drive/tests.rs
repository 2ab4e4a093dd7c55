//! Real machines, trees and sockets of several hosts in one process, on the loopback interface.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::deploy::{
    self, DeployOptions, Interrupt, ReleaseConditions, ReleaseKeys, ReleaseOrigin,
};
use crate::config::TreeConfig;
use crate::drive::deploy::rollback::EarlierRelease;
use crate::drive::host::{HostHandle, HostLoop};
use crate::drive::host::{LocalHost, open_tree};
use crate::id::{HostName, Serial, TreeName};
use crate::keys::{AuthorizedKeys, FileSigner, Signer};
use crate::manifest::{Header, Release};
use crate::net::{Link, LinkConfig, choose};
use crate::outcome::{Event, ExitStatus, HostState, Observer, Outcome, Purpose};
use crate::spec::Spec;
use crate::tree::StateReader;

struct Silent;

impl Observer for Silent {
    fn event(&mut self, _: &Event) {}
}

struct Fleet {
    dir: tempfile::TempDir,
    port: u16,
    hosts: Vec<(HostHandle, std::thread::JoinHandle<()>)>,
}

fn link(port: u16) -> Link {
    let interface = choose(Some("lo"), crate::net::Family::V4).expect("lo");
    let mut config = LinkConfig::new(interface, "224.0.0.108".parse().expect("legal"));
    config.port = port;
    Link::open(&config).expect("multicast on lo")
}

fn key(seed: u8) -> FileSigner {
    FileSigner::from_seed([seed; 32])
}

impl Fleet {
    fn new(count: usize) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let port = fastrand::u16(20_000..60_000);
        let mut fleet = Self {
            dir,
            port,
            hosts: Vec::new(),
        };

        (1..=count).for_each(|i| fleet.start(i));
        std::fs::create_dir(fleet.path("site")).expect("new");
        fleet
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn start(&mut self, number: usize) {
        let tree = TreeName::new("www").expect("legal");
        let path = self.path(&format!("host{number}/www"));
        std::fs::create_dir_all(&path).expect("new");
        let managed = open_tree(&TreeConfig::new(tree.clone(), path), None).expect("opens");
        let line = |roles: &str, n| {
            format!(
                "tree=\"www\",{roles} ssh-ed25519 {}\n",
                base64(&key(n).public().blob())
            )
        };

        let lines = line("deploy,audit", 1) + &line("rollback", 3);
        let keys =
            AuthorizedKeys::parse(lines.as_bytes(), Path::new("authorized_keys")).expect("legal");
        let name = HostName::new(&format!("web{number}")).expect("legal");
        let trees = [(tree, managed)].into_iter().collect();
        let host = LocalHost {
            name,
            trees,
            keys: Mutex::new(Arc::new(keys)),
            labels: Mutex::default(),
            own_key: Default::default(),
            figures: Default::default(),
        };

        let (running, handle) = HostLoop::start(link(self.port), Arc::new(host)).expect("starts");
        let thread = std::thread::spawn(move || running.run().expect("runs"));
        self.hosts.push((handle, thread));
    }

    fn deploy(&self, purpose: Purpose, signer: FileSigner, more: &str) -> Outcome {
        deploy::run(
            link(self.port),
            self.options(purpose, signer, more),
            ReleaseOrigin::Scan,
            &Interrupt::default(),
            &mut Silent,
        )
        .expect("runs")
    }

    fn options(&self, purpose: Purpose, signer: FileSigner, more: &str) -> DeployOptions {
        let text = format!("tree = \"www\"\nsource = \"site\"\n{more}");
        let spec = Spec::parse(&text, &self.path("www.toml")).expect("legal");
        let name = HostName::new("admin").expect("legal");
        DeployOptions::new(
            spec,
            purpose,
            ReleaseKeys::of(Arc::new(signer)),
            name,
            Duration::from_secs(10),
        )
    }

    /// Rolls back to the first release of the first host, with its header changed by `change`.
    fn rollback(&self, signer: FileSigner, change: impl FnOnce(&mut Header)) -> Outcome {
        let tree = TreeName::new("www").expect("legal");
        let path = self.path("host1/www");
        let records = StateReader::find(&tree, &path, None)
            .expect("readable")
            .expect("a state");
        let mut header = records
            .stored(Serial(1))
            .expect("readable")
            .expect("kept")
            .release
            .header()
            .clone();

        change(&mut header);
        let earlier = EarlierRelease {
            release: Release::new(header).expect("legal"),
            from: Some((path, records)),
        };

        let options = self.options(Purpose::Deploy, signer, "");
        deploy::run(
            link(self.port),
            options,
            ReleaseOrigin::Earlier(earlier),
            &Interrupt::default(),
            &mut Silent,
        )
        .expect("runs")
    }

    fn same(&self, number: usize) -> bool {
        let shown = |root: &Path| {
            let mut all = Vec::new();
            let mut open = vec![root.to_path_buf()];
            while let Some(dir) = open.pop() {
                for entry in std::fs::read_dir(&dir).expect("readable") {
                    let path = entry.expect("readable").path();
                    let name = path.strip_prefix(root).expect("below").to_path_buf();
                    if path.is_dir() {
                        open.push(path.clone());
                    }
                    all.push((name, std::fs::read(&path).ok()));
                }
            }
            all.sort();
            all
        };

        shown(&self.path("site")) == shown(&self.path(&format!("host{number}/www")))
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for (handle, thread) in self.hosts.drain(..) {
            handle.stop();
            let _ = thread.join();
        }
    }
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let n = chunk.iter().fold(0u32, |n, &b| n << 8 | u32::from(b)) << (8 * (3 - chunk.len()));
        (0..4).for_each(|i| {
            let digit = char::from(ALPHABET[(n >> (18 - 6 * i)) as usize & 63]);
            out.push(if i <= chunk.len() { digit } else { '=' });
        });
    }

    out
}

#[test]
fn three_hosts_get_a_release_then_a_change_then_nothing() {
    let fleet = Fleet::new(3);
    let site = fleet.path("site");
    std::fs::create_dir(site.join("sub")).expect("new");

    for i in 0..50 {
        std::fs::write(
            site.join(format!("sub/{i}")),
            format!("file {i}\n").repeat(i * 50),
        )
        .expect("new");
    }

    let noise: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..))
        .take(3_000_000)
        .collect();
    std::fs::write(site.join("big"), &noise).expect("new");
    let first = fleet.deploy(Purpose::Deploy, key(1), "");
    assert_eq!(first.exit, ExitStatus::Success, "{first:#?}");
    assert!((1..=3).all(|i| fleet.same(i)));

    std::fs::write(site.join("sub/7"), "changed").expect("there");

    std::fs::remove_file(site.join("sub/8")).expect("there");
    let drift = fleet.deploy(Purpose::Diff, key(1), "[delete]\nextras = true\n");
    assert_eq!(drift.exit, ExitStatus::Drift, "{drift:#?}");
    assert_eq!(drift.drift.len(), 1);
    assert_eq!(drift.drift[0].hosts.len(), 3);

    let second = fleet.deploy(Purpose::Deploy, key(1), "[delete]\nextras = true\n");

    assert_eq!(second.exit, ExitStatus::Success, "{second:#?}");
    assert!((1..=3).all(|i| fleet.same(i)));

    // Mostly probes: datagrams are large on the loopback interface.
    assert!(second.bytes_sent.0 < 60_000, "{}", second.bytes_sent);

    let third = fleet.deploy(Purpose::Deploy, key(1), "[delete]\nextras = true\n");
    assert!(
        third.hosts.iter().all(|h| h.state == HostState::Unchanged),
        "{third:#?}"
    );

    assert_eq!(
        fleet.deploy(Purpose::Diff, key(1), "").exit,
        ExitStatus::Success
    );
}

#[test]
fn nothing_is_released_after_a_release_that_it_was_made_without() {
    let fleet = Fleet::new(2);
    std::fs::write(fleet.path("site/x"), "x").expect("new");
    assert_eq!(
        fleet.deploy(Purpose::Deploy, key(1), "").serial,
        Some(Serial(1))
    );
    let after_first = || {
        let options = DeployOptions {
            conditions: ReleaseConditions {
                only_after: Some(Serial(1)),
                ..ReleaseConditions::default()
            },
            ..fleet.options(Purpose::Deploy, key(1), "")
        };
        deploy::run(
            link(fleet.port),
            options,
            ReleaseOrigin::Scan,
            &Interrupt::default(),
            &mut Silent,
        )
    };

    std::fs::write(fleet.path("site/x"), "xx").expect("there");
    let second = after_first().expect("runs");
    assert_eq!(
        (second.exit, second.serial),
        (ExitStatus::Success, Some(Serial(2))),
        "{second:#?}"
    );

    std::fs::write(fleet.path("site/x"), "xxx").expect("there");
    assert_eq!(
        after_first().expect_err("another one came").to_string(),
        "www@2 came after www@1"
    );

    assert!(!fleet.same(1));
}

#[test]
fn the_tops_own_metadata_is_drift_and_is_put_right() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    let fleet = Fleet::new(2);
    std::fs::write(fleet.path("site/x"), "x").expect("new");
    std::fs::set_permissions(fleet.path("site"), PermissionsExt::from_mode(0o2750)).expect("ours");
    let top = |path: &str| {
        let meta = std::fs::metadata(fleet.path(path)).expect("there");
        (meta.mode(), meta.mtime(), meta.mtime_nsec())
    };

    assert_eq!(
        fleet.deploy(Purpose::Deploy, key(1), "").exit,
        ExitStatus::Success
    );
    assert!((1..=2).all(|i| top(&format!("host{i}/www")) == top("site")));

    let file = std::fs::File::open(fleet.path("host2/www")).expect("there");

    file.set_modified(std::time::UNIX_EPOCH).expect("ours");
    let drift = fleet.deploy(Purpose::Diff, key(1), "");
    assert_eq!(
        (drift.exit, drift.drift.len()),
        (ExitStatus::Drift, 1),
        "{drift:#?}"
    );

    assert_eq!(drift.drift[0].hosts.len(), 1);
    let line = &drift.drift[0].lines[0];
    assert_eq!(
        (line.path.as_slice(), line.itemized.as_str()),
        (&b"."[..], ".d..t......")
    );
    assert_eq!(
        fleet.deploy(Purpose::Deploy, key(1), "").exit,
        ExitStatus::Success
    );

    assert!((1..=2).all(|i| top(&format!("host{i}/www")) == top("site")));
    let from = fleet.path("site/");
    let to = fleet.path("host2/www/");
    match std::process::Command::new("rsync")
        .args(["-nirlptgoDHc", "--delete"])
        .args([from, to])
        .output()
    {
        Ok(judged) => assert_eq!((judged.status.success(), judged.stdout), (true, Vec::new())),
        Err(e) => println!("without the word of rsync: {e}"),
    }
}

#[test]
fn what_is_excluded_stays_until_it_is_to_be_deleted() {
    let fleet = Fleet::new(1);
    std::fs::write(fleet.path("site/x"), "x").expect("new");
    std::fs::create_dir_all(fleet.path("host1/www/cache/deep")).expect("new");
    std::fs::write(fleet.path("host1/www/cache/deep/file"), "kept").expect("new");
    let keep = "exclude = [\"/cache/\"]\n[delete]\nextras = true\nmax = \"100%\"\n";
    let outcome = fleet.deploy(Purpose::Deploy, key(1), keep);
    assert_eq!(outcome.exit, ExitStatus::Success, "{outcome:#?}");
    assert!(fleet.path("host1/www/cache/deep/file").exists() && fleet.path("host1/www/x").exists());
    let outcome = fleet.deploy(Purpose::Deploy, key(1), &format!("{keep}excluded = true\n"));
    assert_eq!(outcome.exit, ExitStatus::Success, "{outcome:#?}");

    assert!(!fleet.path("host1/www/cache").exists() && fleet.same(1));
}

/// Deploys `files` to two hosts under `transfer`; returns the bytes sent as a share of their size.
fn sent_share(files: &[Vec<u8>], transfer: &str) -> f64 {
    let fleet = Fleet::new(2);
    files.iter().enumerate().for_each(|(i, bytes)| {
        std::fs::write(fleet.path(&format!("site/{i}")), bytes).expect("new")
    });
    let outcome = fleet.deploy(
        Purpose::Deploy,
        key(1),
        &format!("[transfer]\n{transfer}\n"),
    );

    assert_eq!(outcome.exit, ExitStatus::Success, "{outcome:#?}");
    assert!((1..=2).all(|i| fleet.same(i)));
    assert!(
        outcome
            .hosts
            .iter()
            .all(|h| h.bytes_received.0 as usize >= files.iter().map(Vec::len).sum())
    );

    outcome.bytes_sent.0 as f64 / files.iter().map(Vec::len).sum::<usize>() as f64
}

#[test]
fn text_travels_compressed_unless_that_is_switched_off() {
    let mut rng = fastrand::Rng::with_seed(7);
    let mut line = |i: u32| {
        format!(
            "{i} GET /page/{}.html 200 {}\n",
            rng.u32(..500),
            rng.u32(..)
        )
    };

    let files: Vec<Vec<u8>> = (0..300)
        .map(|n| (0..n * 3).flat_map(|i| line(i).into_bytes()).collect())
        .collect();

    for how in [
        "compress = 9",
        "rate = \"50Mbit\"",
        "rate = \"50Mbit\"\ncompress = \"auto\"",
    ] {
        let share = sent_share(&files, how);
        assert!(share < 0.5, "{how}: {share}");
    }

    let share = sent_share(&files, "compress = \"off\"");
    assert!(share > 1.0, "{share}");
}

#[test]
fn noise_travels_as_it_is() {
    let mut rng = fastrand::Rng::with_seed(8);
    let mut noise = |len| {
        std::iter::repeat_with(|| rng.u8(..))
            .take(len)
            .collect::<Vec<u8>>()
    };

    let files: Vec<Vec<u8>> = [1_500_000, 20_000, 700_000].map(&mut noise).into();
    let plain = sent_share(&files, "compress = \"off\"");
    for how in ["compress = 9", "rate = \"50Mbit\""] {
        let share = sent_share(&files, how);
        assert!(share < plain * 1.02, "{how}: {share} against {plain}");
    }
}

#[test]
fn a_key_that_is_not_listed_changes_nothing() {
    let fleet = Fleet::new(2);
    std::fs::write(fleet.path("site/x"), "x").expect("new");
    let outcome = fleet.deploy(Purpose::Deploy, key(2), "");
    assert_eq!(outcome.exit, ExitStatus::Refused);
    let fingerprint = key(2).public().fingerprint().to_string();
    assert!(
        outcome.hosts.iter().all(|h| h.state == HostState::Refused
            && h.error.as_ref().is_some_and(|e| e.contains(&fingerprint))),
        "{outcome:#?}"
    );

    assert!(!fleet.path("host1/www/x").exists());
}

#[test]
fn a_key_that_may_only_go_back_cannot_change_what_it_goes_back_to() {
    let fleet = Fleet::new(2);
    let page = fleet.path("site/page");
    let read = |host: usize| {
        std::fs::read_to_string(fleet.path(&format!("host{host}/www/page"))).expect("there")
    };

    for text in ["first", "second"] {
        std::fs::write(&page, text).expect("new");
        assert_eq!(
            fleet.deploy(Purpose::Deploy, key(1), "").exit,
            ExitStatus::Success
        );
    }

    let second = StateReader::find(
        &TreeName::new("www").expect("legal"),
        &fleet.path("host1/www"),
        None,
    );

    let second = second
        .expect("readable")
        .expect("a state")
        .stored(Serial(2))
        .expect("readable")
        .expect("kept");

    let forged: [&dyn Fn(&mut Header); 3] = [
        &|header| header.root.block.hash = crate::block::BlockHash::of(b"another tree"),
        &|header| header.rules.delete_extras = true,
        // Both halves are kept, but a mixed release is not.
        &|header| {
            header.top = second
                .release
                .header()
                .top
                .clone()
                .map(|top| crate::manifest::Top {
                    mode: crate::manifest::Mode::from_bits(0o777),
                    ..top
                })
        },
    ];

    for change in forged {
        let outcome = fleet.rollback(key(3), change);
        assert_eq!(outcome.exit, ExitStatus::Refused, "{outcome:#?}");
        let told = |h: &crate::outcome::HostResult| {
            h.error
                .as_ref()
                .is_some_and(|e| e.contains("more than a rollback"))
        };
        assert!(outcome.hosts.iter().all(told), "{outcome:#?}");
        assert_eq!((read(1), read(2)), ("second".into(), "second".into()));
    }

    let outcome = fleet.rollback(key(3), |_| {});
    assert_eq!(
        (outcome.exit, outcome.rollback_to),
        (ExitStatus::Success, Some(Serial(1))),
        "{outcome:#?}"
    );

    assert_eq!((read(1), read(2)), ("first".into(), "first".into()));
    // A key with the role deploy may also release new content, under other rules.
    let outcome = fleet.rollback(key(1), |header| header.rules.delete_extras = true);

    assert_eq!(outcome.exit, ExitStatus::Success, "{outcome:#?}");
}

#[test]
fn a_release_is_given_with_a_signature_that_holds_by_all_that_keep_it() {
    let mut fleet = Fleet::new(2);
    std::fs::write(fleet.path("site/page"), "one").expect("written");
    assert_eq!(
        fleet.deploy(Purpose::Deploy, key(1), "").exit,
        ExitStatus::Success
    );
    let tree = TreeName::new("www").expect("legal");
    let wait = Duration::from_secs(20);

    fleet.start(3);
    let log = crate::drive::survey::log(link(fleet.port), &tree, wait)
        .expect("asks")
        .found;
    let serial = log.newest().expect("a release");
    assert_eq!((log.hosts.len(), log.releases.len()), (3, 1));
    let given = crate::drive::survey::release(link(fleet.port), &tree, serial, wait).expect("asks");
    let names: Vec<&str> = given.iter().map(|(host, ..)| host.as_str()).collect();
    assert_eq!(names, ["web1", "web2"]);

    for (_, header, signature) in given {
        let signer = crate::keys::verify(crate::keys::Namespace::RELEASE, &header, &signature)
            .expect("holds");
        assert_eq!(&signer, key(1).public());
        let release = crate::manifest::Release::from_bytes(&header).expect("a release");
        assert_eq!(
            (release.header().serial, release.id()),
            (serial, log.releases[0].id)
        );
    }

    assert!(
        crate::drive::survey::release(link(fleet.port), &tree, serial.next(), wait)
            .expect("asks")
            .is_empty()
    );

    let standings = crate::drive::survey::status(link(fleet.port), None, wait)
        .expect("asks")
        .found;
    let behind: Vec<bool> = standings.iter().map(|s| s.behind.is_some()).collect();
    assert_eq!(behind, [false, false, true]);
}
