//! Releases published to a store and taken from it, by command and by daemons: into a directory,
//! through nginx and to an S3 server. rsync judges the trees.

mod collected;
mod deployed;
mod faults;
mod follow;
mod lists;
mod pins;
mod secrets;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::run::Ran;
use crate::support::{
    BUCKET, Host, Lab, Middleman, Mishap, Noise, Running, differences, moto, nginx, read, same,
    until, write,
};

/// A publisher with its source, and hosts that pull.
pub(crate) struct Depot {
    dir: tempfile::TempDir,
    pub(crate) url: String,
    /// Environment for the store's credentials.
    env: Vec<(&'static str, &'static str)>,
}

impl Depot {
    /// A depot at the URL `url`, or in a directory of its own.
    pub(crate) fn new(url: Option<String>) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(dir.path().join("repo")).expect("new");
        let url = url.unwrap_or_else(|| format!("file://{}/repo", dir.path().display()));
        let depot = Self {
            dir,
            url,
            env: Vec::new(),
        };

        let spec = "tree = \"www\"\nsource = \"site\"\n[delete]\nextras = true\nmax = \"100%\"\n";
        write(&depot.path("www.toml"), spec);
        std::fs::create_dir(depot.path("site")).expect("new");
        depot.keygen("deploy.key", "keys");
        depot
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Makes a deploy key, and a list with it alone.
    pub(crate) fn keygen(&self, key: &str, list: &str) {
        let mut command = self.makuo(&["keygen", "--deploy", "--comment", key, "-o", key]);
        let made = Running::start(&mut command).wait().exits(0);
        write(&self.path(list), made.out);
    }

    pub(crate) fn makuo(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_makuo"));
        command
            .args(args)
            .current_dir(self.dir.path())
            .env("HOME", self.dir.path())
            .envs(self.env.iter().copied());
        for name in ["MAKUO_KEY", "MAKUO_CONFIG", "XDG_CACHE_HOME"] {
            command.env_remove(name);
        }
        command
    }

    pub(crate) fn publish_with(&self, more: &[&str]) -> Ran {
        let args = ["publish", "www.toml", "--to", &self.url, "--json"];
        let key = if more.contains(&"-k") {
            &[][..]
        } else {
            &["-k", "deploy.key"]
        };
        Running::start(self.makuo(&args).args(key).args(more)).wait()
    }

    /// Publishes and returns the serial.
    #[track_caller]
    pub(crate) fn publish(&self) -> u64 {
        let published = self.publish_with(&[]).exits(0);
        published.result()["serial"].as_u64().expect("a serial")
    }

    pub(crate) fn pull_with(&self, host: &str, more: &[&str]) -> Ran {
        Running::start(&mut self.pull_command(host, more)).wait()
    }

    fn pull_command(&self, host: &str, more: &[&str]) -> Command {
        let tree = format!("{host}/www");
        let args = ["pull", &self.url, "www", &tree, "--json", "--name", host];
        let keys = if more.contains(&"--authorized-keys") {
            &[][..]
        } else {
            &["--authorized-keys", "keys"]
        };
        let mut command = self.makuo(&args);
        command.args(keys).args(more);
        command
    }

    /// Pulls to `host`, and compares its tree with the source.
    #[track_caller]
    pub(crate) fn pull(&self, host: &str) -> Ran {
        let pulled = self.pull_with(host, &[]).exits(0);
        same(&self.path("site"), &self.tree(host));
        pulled
    }

    pub(crate) fn tree(&self, host: &str) -> PathBuf {
        self.path(host).join("www")
    }

    pub(crate) fn site(&self, name: &str) -> PathBuf {
        self.path("site").join(name)
    }

    /// A site with files of all sizes, modes, a link and an empty directory.
    pub(crate) fn fill(&self, seed: u64) {
        let mut noise = Noise::new(seed);
        noise.tree(&self.path("site"), 60, 20_000);
        write(&self.site("large"), noise.bytes(5_000_000));
        write(&self.site("sub/text"), "some words\n".repeat(20_000));
        write(&self.site("bin/run"), "#!/bin/sh\n");
        let mode = |path: &Path, mode| {
            std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("ours");
        };
        mode(&self.site("bin/run"), 0o750);
        std::fs::create_dir(self.site("empty")).expect("new");
        mode(&self.site("empty"), 0o2711);
        std::os::unix::fs::symlink("sub/text", self.site("link")).expect("new");
    }
}

/// What holds with every store: a first release, a change, a release with fewer files.
fn goes_round(depot: &Depot) {
    depot.fill(7);
    assert_eq!(depot.publish(), 1);
    let first = depot.pull("web1");
    assert_eq!(first.result()["serial"], 1);
    assert_eq!(first.host("web1").0, "committed");

    write(&depot.site("sub/text"), "other words\n".repeat(30_000));
    std::fs::remove_file(depot.site("bin/run")).expect("there");
    assert_eq!(depot.publish(), 2);
    depot.pull("web1");
    depot.pull("web2");

    let again = depot.pull("web1");
    let result = again.result();
    assert_eq!((&result["exit"], &result["serial"]), (&0.into(), &2.into()));
    assert_eq!(result["files_written"], 0);
}

#[test]
fn a_release_goes_through_a_directory() {
    goes_round(&Depot::new(None));
}

#[test]
fn a_release_goes_through_a_web_server() {
    let Some(nginx) = nginx() else { return };
    std::fs::create_dir(nginx.files().join("fleet")).expect("writable");
    goes_round(&Depot::new(Some(format!("http://{}/fleet", nginx.http()))));
}

#[test]
fn a_release_goes_through_a_bucket() {
    let Some(moto) = moto() else { return };
    goes_round(&bucket(moto.address()));
}

/// A depot in a bucket of the S3 server at `address`.
pub(crate) fn bucket(address: std::net::SocketAddr) -> Depot {
    let url = format!("s3://{BUCKET}/site?endpoint=http://{address}");
    let mut depot = Depot::new(Some(url));
    depot.env = vec![
        ("AWS_ACCESS_KEY_ID", "AK"),
        ("AWS_SECRET_ACCESS_KEY", "s3cr3t"),
    ];
    depot
}

#[test]
fn a_small_change_costs_few_requests_to_a_bucket() {
    let Some(moto) = moto() else { return };
    let between = Middleman::start(moto.address());
    a_small_change_costs(&bucket(between.address()), &between, 5);
}

#[test]
fn a_small_change_costs_few_requests_to_a_web_server() {
    let Some(nginx) = nginx() else { return };
    // Directories that are there already.
    for n in 0..256 {
        let directory = nginx.files().join(format!("packs/{n:02x}"));
        std::fs::create_dir_all(directory).expect("writable");
    }
    let between = Middleman::start(nginx.http());
    let depot = Depot::new(Some(format!("http://{}", between.address())));
    // It has no conditions, so the head is read once more before it is stored, and after that.
    a_small_change_costs(&depot, &between, 7);
}

fn a_small_change_costs(depot: &Depot, between: &Middleman, publish: usize) {
    let mut noise = Noise::new(3);
    for n in 0..400 {
        write(&depot.site(&format!("d{}/f{n}", n % 9)), noise.bytes(2000));
    }

    depot.publish();
    depot.pull("web1");
    between.passed();
    write(&depot.site("d3/f12"), noise.bytes(2000));
    let result = depot.publish_with(&[]).exits(0).result();
    assert!(result["bytes_sent"].as_u64() < Some(50_000), "{result}");
    let published = between.passed();
    assert!(published.len() <= publish, "{published:?}");
    depot.pull("web1");
    let pulled = between.passed();
    assert!(pulled.len() <= 6, "{pulled:?}");
    let sent: usize = pulled.iter().map(|one| one.sent).sum();
    assert!(sent < 300_000, "{sent} bytes");

    depot.pull("web1");
    assert_eq!(between.passed().len(), 1, "nothing new");
}

#[test]
fn a_key_that_is_not_authorized_is_refused_at_both_ends() {
    let depot = Depot::new(None);
    depot.fill(1);
    depot.keygen("other.key", "other");
    depot.publish();
    let refused = depot.pull_with("web1", &["--authorized-keys", "other"]);
    refused.exits(3).says(&["authorized"]);
    assert_eq!(
        std::fs::read_dir(depot.tree("web1")).expect("made").count(),
        0
    );

    let stranger = depot.publish_with(&["-k", "other.key"]);
    stranger
        .exits(3)
        .says(&["is not listed in", "--authorized-keys"]);
    depot.pull("web1");
}

#[test]
fn an_older_head_changes_nothing() {
    let depot = Depot::new(None);
    depot.fill(1);
    depot.publish();
    let head = depot.path("repo/trees/www/head");
    let first = read(&head);
    write(&depot.site("later"), "later");
    depot.publish();
    depot.pull("web1");

    write(&head, &first);
    let older = depot.pull_with("web1", &[]).exits(0);
    older.says(&["www@2 here is newer than www@1"]);
    same(&depot.path("site"), &depot.tree("web1"));
}

#[test]
fn a_pull_keeps_the_hosts_rules_by_whatever_path_it_comes() {
    let depot = Depot::new(None);
    depot.fill(1);
    write(
        &depot.path("www.toml"),
        "tree = \"www\"\nsource = \"site\"\n[delete]\nextras = true\nmax = \"100%\"\n",
    );
    depot.publish();
    std::fs::create_dir_all(depot.path("real/www/uploads")).expect("new");
    write(&depot.path("real/www/uploads/photo"), "a photo");
    std::os::unix::fs::symlink("real", depot.path("link")).expect("new");

    for (configured, pulled) in [("link", "link"), ("link", "real"), ("real", "link")] {
        let config = format!(
            "[[tree]]\nname = \"www\"\npath = \"{}\"\nprotect = [\"/uploads/\"]\n",
            depot.path(configured).join("www").display()
        );
        write(&depot.path("makuo.toml"), config);
        write(&depot.site("changed"), format!("{configured} {pulled}"));
        depot.publish();
        depot
            .pull_with(pulled, &["--config", "makuo.toml"])
            .exits(0);
        let photo = depot.path("real/www/uploads/photo");
        assert_eq!(read(&photo), b"a photo", "{configured}, {pulled}");
        let changed = read(&depot.path("real/www/changed"));
        assert_eq!(changed, format!("{configured} {pulled}").as_bytes());
    }

    // Another directory has no rules, and is told so.
    let elsewhere = depot
        .pull_with("web1", &["--config", "makuo.toml"])
        .exits(0);
    elsewhere.says(&["tree www is configured in", "do not hold in"]);
}

#[test]
fn a_forged_or_damaged_repository_puts_nothing_in_place() {
    let depot = Depot::new(None);
    depot.fill(1);
    depot.publish();
    depot.pull("web1");
    write(&depot.site("large"), Noise::new(99).bytes(5_000_000));
    depot.publish();

    for pack in packs(&depot.path("repo/packs")) {
        let mut bytes = read(&pack);
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        write(&pack, bytes);
    }
    let refused = depot.pull_with("web2", &[]).exits(3);
    refused.says(&["damaged"]);
    assert_eq!(
        std::fs::read_dir(depot.tree("web2")).expect("made").count(),
        0
    );
    depot.pull_with("web1", &[]).exits(3);
    let changed = differences(&depot.path("site"), &depot.tree("web1"));
    assert!(changed.contains("large"), "{changed}");

    // What is damaged is stored again.
    depot.publish_with(&["--repair"]).exits(0);
    depot.pull("web1");
    depot.pull("web2");
}

/// What can happen to a pack.
const HARMS: [&str; 3] = ["deleted", "changed", "cut"];

/// Harm to one pack of blocks, mended as the messages about it say. The files of the repository are
/// in `dir`.
fn is_mended_as_the_messages_say(depot: &Depot, dir: &Path, harm: &str) {
    let near = format!("file://{}", dir.display());
    let repo = |what: &str| {
        let args = ["repo", what, &near, "--authorized-keys", "keys"];
        Running::start(&mut depot.makuo(&args)).wait()
    };
    let publish = |more: &[&str]| {
        let published = depot.publish_with(more).exits(0);
        published.result()["packs"].as_u64().expect("a number")
    };

    write(&depot.site("large"), Noise::new(8).bytes(20_000_000));
    write(&depot.site("small"), "small");
    publish(&[]);
    write(&depot.site("small"), "other");
    publish(&[]);
    // The first of two packs: there is nothing but blocks in it.
    let is_large = |pack: &PathBuf| read(pack).len() > 15_000_000;
    let large = packs(&dir.join("packs")).into_iter().find(is_large);
    let pack = large.expect("a pack of blocks");
    let mut bytes = read(&pack);
    match harm {
        "changed" => bytes[1_000_000] ^= 1,
        _ => bytes.truncate(9_000_000),
    }
    match harm {
        "deleted" => std::fs::remove_file(&pack).expect("there"),
        _ => write(&pack, bytes),
    }

    // Hosts and people that look are told the same.
    for found in [depot.pull_with("web1", &[]), repo("check")] {
        found.exits(3).says(&["damaged", "--repair"]);
    }
    assert_eq!(publish(&[]), 0, "{harm}: nothing changed");
    depot.pull_with("web1", &[]).exits(3);
    assert!(
        publish(&["--repair"]) > 0,
        "{harm}: nothing is stored again"
    );
    depot.pull("web1");
    repo("check").exits(0);
    repo("gc").exits(0);
    assert_eq!(publish(&["--repair"]), 0, "{harm}: it is whole");
}

#[test]
fn a_damaged_directory_is_mended_as_the_messages_say() {
    for harm in HARMS {
        let depot = Depot::new(None);
        is_mended_as_the_messages_say(&depot, &depot.path("repo"), harm);
    }
}

#[test]
fn a_damaged_web_server_is_mended_as_the_messages_say() {
    let Some(nginx) = nginx() else { return };
    for harm in HARMS {
        let dir = nginx.files().join(harm);
        std::fs::create_dir(&dir).expect("writable");
        let depot = Depot::new(Some(format!("http://{}/{harm}", nginx.http())));
        is_mended_as_the_messages_say(&depot, &dir, harm);
    }
}

pub(crate) fn packs(dir: &Path) -> Vec<PathBuf> {
    let list = |dir: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(dir).expect("readable");
        entries.map(|e| e.expect("readable").path()).collect()
    };
    list(dir).iter().flat_map(|folder| list(folder)).collect()
}

#[test]
fn a_machine_that_never_released_the_tree_is_told_what_hosts_may_have() {
    let depot = Depot::new(None);
    depot.fill(1);
    let words = "this machine has not released www before";
    let first = depot.publish_with(&[]).exits(0);
    assert!(!first.err.contains(words), "{first}");
    write(&depot.site("later"), "later");
    let second = depot.publish_with(&[]).exits(0);
    assert!(!second.err.contains(words), "{second}");

    write(&depot.site("later"), "from elsewhere");
    let args = [
        "publish",
        "www.toml",
        "--to",
        &depot.url,
        "-k",
        "deploy.key",
    ];
    let mut elsewhere = depot.makuo(&args);
    std::fs::create_dir(depot.path("home")).expect("new");
    elsewhere.env("HOME", depot.path("home"));
    let third = Running::start(&mut elsewhere).wait().exits(0);
    third.says(&[words, "a later release than www@2"]);
    depot.pull("web1");
}

#[test]
fn what_a_first_publication_left_is_deleted_on_request() {
    let depot = Depot::new(None);
    depot.fill(1);
    depot.publish();
    // As if it had been killed before its head.
    std::fs::remove_dir_all(depot.path("repo/trees")).expect("there");
    let gc = |more: &[&str]| {
        let args = [
            "repo",
            "gc",
            &depot.url,
            "--authorized-keys",
            "keys",
            "--json",
        ];
        Running::start(depot.makuo(&args).args(more)).wait()
    };
    let refused = gc(&["--grace", "1ms"]).exits(3);
    refused.says(&["no tree", "--no-trees"]);
    let young = gc(&["--no-trees"]).exits(0).result();
    assert_eq!(young["deleted"], 0);
    assert!(!packs(&depot.path("repo/packs")).is_empty());

    let deleted = gc(&["--no-trees", "--grace", "1ms"]).exits(0).result();
    assert!(deleted["deleted"].as_u64() > Some(1_000_000), "{deleted}");
    assert!(packs(&depot.path("repo/packs")).is_empty());
    let left = std::fs::read_dir(depot.path("repo/trees/gc")).expect("made");
    assert_eq!(left.count(), 0, "nothing of gc itself");
    depot.publish();
    depot.pull("web1");
}

#[test]
fn what_is_wrong_is_said() {
    let depot = Depot::new(None);
    depot.fill(1);
    depot
        .pull_with("web1", &[])
        .exits(3)
        .says(&["no repository", "makuo publish"]);
    depot.publish();
    let other = ["pull", &depot.url, "other", "web1/other"];
    let mut command = depot.makuo(&other);
    command.args(["--authorized-keys", "keys"]);
    Running::start(&mut command)
        .wait()
        .exits(3)
        .says(&["no tree other"]);

    let nowhere = ["pull", "ftp://x/y", "www", "web1/www"];
    Running::start(&mut depot.makuo(&nowhere))
        .wait()
        .exits(2)
        .says(&["ftp", "s3://"]);
}

#[test]
fn a_repository_is_listed_checked_collected_and_copied() {
    let depot = Depot::new(None);
    depot.fill(1);
    for n in 0..4 {
        write(&depot.site("large"), Noise::new(n).bytes(3_000_000));
        depot.publish();
    }

    let repo = |args: &[&str]| {
        let keys = ["--authorized-keys", "keys", "--json"];
        let mut command = depot.makuo(&["repo"]);
        Running::start(command.args(args).args(keys)).wait()
    };
    let listed = repo(&["list", &depot.url]).exits(0).result();
    let serials: Vec<u64> = listed["releases"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|release| release["serial"].as_u64())
        .collect();
    assert_eq!(serials, [4, 3, 2]);

    let checked = repo(&["check", &depot.url]).exits(0).result();
    assert!(
        checked["live"].as_u64() < checked["bytes"].as_u64(),
        "{checked}"
    );
    let gc = ["gc", &depot.url, "--key", "deploy.key", "--keep", "1"];
    let collected = repo(&[&gc[..], &["--grace", "1ms"]].concat())
        .exits(0)
        .result();
    assert!(
        collected["deleted"].as_u64() > Some(6_000_000),
        "{collected}"
    );
    let checked = repo(&["check", &depot.url]).exits(0).result();
    let (live, bytes) = (checked["live"].as_u64(), checked["bytes"].as_u64());
    assert!(
        bytes.zip(live).is_some_and(|(b, l)| b * 4 < l * 5),
        "{checked}"
    );
    depot.pull("web1");

    std::fs::create_dir(depot.path("usb")).expect("new");
    let mut command = depot.makuo(&["repo", "copy", &depot.url, "./usb", "--json"]);
    Running::start(&mut command).wait().exits(0);
    let copy = Depot {
        url: "./usb".into(),
        ..depot
    };
    copy.pull("web2");
    let pack = packs(&copy.path("usb/packs")).pop().expect("a pack");
    let mut bytes = read(&pack);
    bytes[0] ^= 1;
    write(&pack, bytes);
    let mut command = copy.makuo(&["repo", "check", "./usb", "--authorized-keys", "keys"]);
    Running::start(&mut command).wait().exits(3).says(&[
        "1 of 2 packs: packs/",
        "has other bytes",
        "--repair",
    ]);
}

/// Runs a command of the lab that has nothing to do with its network.
pub(crate) fn run(lab: &Lab, args: &[&str]) -> Ran {
    begin(lab, args).wait()
}

/// Starts such a command.
fn begin(lab: &Lab, args: &[&str]) -> Running {
    let mut command = Command::new(env!("CARGO_BIN_EXE_makuo"));
    command
        .args(args)
        .current_dir(lab.path(""))
        .env("HOME", lab.path(""))
        .env("MAKUO_KEY", lab.path("key"));
    for name in ["MAKUO_CONFIG", "XDG_CACHE_HOME"] {
        command.env_remove(name);
    }
    Running::start(&mut command)
}

#[test]
fn hosts_of_a_network_take_what_one_of_them_finds() {
    let Some(mut lab) = Lab::loopback_idle() else {
        return;
    };
    let repo = lab.path("repo");
    std::fs::create_dir(&repo).expect("new");
    let rule = format!("repository = \"file://{}\"\npoll = \"1s\"", repo.display());
    for n in 1..=3 {
        let host = lab.host(&format!("web{n}"));
        host.catch_up = true;
        host.rule(&rule);
        host.start();
    }

    Noise::new(4).tree(&lab.site(), 40, 30_000);
    let publish = ["publish", "www.toml", "--to", "./repo"];
    let everywhere = |lab: &Lab| {
        let has = |host: &Host| differences(&lab.site(), &host.tree()).is_empty();
        lab.hosts.iter().all(has)
    };
    for content in ["first", "second"] {
        write(&lab.site().join("page"), content);
        run(&lab, &publish).exits(0);
        until("all hosts to have it", || everywhere(&lab));
    }

    let taken = |host: &Host| host.log().matches("taken from the repository").count();
    until("the hosts to say so", || {
        lab.hosts.iter().map(taken).sum::<usize>() >= 2
    });
    write(&lab.site().join("page"), "deployed");
    lab.deploy(&[]).exits(0);
    lab.all_same(&lab.site());
}

/// Mishaps of a bad network and of caches. A stall takes the time of the client's patience.
fn mishaps() -> Vec<Mishap> {
    let mut mishaps = Mishap::all_sudden();
    mishaps.extend([0, 700, 40_000].map(Mishap::Cut));
    mishaps.push(Mishap::Late(Duration::from_millis(20)));
    mishaps
}

/// The number of rounds can be raised with `MAKUO_REPOSITORY_ROUNDS`.
#[test]
fn under_mishaps_of_the_network_a_tree_is_always_a_release() {
    let Some(nginx) = nginx() else { return };
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse().ok());
    let seed = number("MAKUO_REPOSITORY_SEED").unwrap_or_else(|| fastrand::u64(..));
    let rounds = number("MAKUO_REPOSITORY_ROUNDS").unwrap_or(6);
    println!("MAKUO_REPOSITORY_SEED={seed}");

    let between = Middleman::start(nginx.http());
    let mut depot = Depot::new(None);
    let near = format!("file://{}", nginx.files().display());
    let far = format!("http://{}", between.address());
    depot.fill(seed);
    let mut noise = Noise::new(seed);
    let (mut sites, mut taken) = (Vec::new(), 0);
    for round in 0..rounds {
        write(&depot.site("large"), noise.bytes(200_000));
        write(&depot.site(&format!("new{round}")), noise.bytes(3000));
        depot.url.clone_from(&near);
        depot.publish();
        let site = depot.path(&format!("site{round}"));
        crate::support::copy(&depot.path("site"), &site);
        sites.push(site);

        depot.url.clone_from(&far);
        between.throw(seed.wrapping_add(round), 30, mishaps());
        let pulled = depot.pull_with("web1", &[]);
        let tree = depot.tree("web1");
        let is_site = |site: &PathBuf| differences(site, &tree).is_empty();
        let is_empty = std::fs::read_dir(&tree).map_or(true, |mut all| all.next().is_none());
        assert!(
            sites.iter().any(is_site) || (is_empty && pulled.code != 0),
            "MAKUO_REPOSITORY_SEED={seed}, round {round}: {pulled}"
        );
        taken += u64::from(sites.last().is_some_and(is_site));
    }

    assert!(taken > 0, "MAKUO_REPOSITORY_SEED={seed}: no pull succeeded");
    between.throw(0, 0, vec![Mishap::None]);
    depot.pull("web1");
}

#[test]
fn a_publisher_that_is_killed_leaves_the_old_release_or_the_new_one() {
    let Some(nginx) = nginx() else { return };
    let between = Middleman::start(nginx.http());
    let depot = Depot::new(Some(format!("http://{}", between.address())));
    depot.fill(1);
    depot.publish();
    let old = depot.path("old");
    crate::support::copy(&depot.path("site"), &old);
    write(&depot.site("large"), Noise::new(2).bytes(3_000_000));
    between.throw(1, 100, vec![Mishap::Late(Duration::from_millis(40))]);

    for killed_after in 1..20 {
        between.passed();
        let args = [
            "publish",
            "www.toml",
            "--to",
            &depot.url,
            "-k",
            "deploy.key",
        ];
        let mut publisher = Running::start(&mut depot.makuo(&args));
        let mut requests = 0;
        until("requests of the publisher", || {
            requests += between.passed().len();
            requests >= killed_after || publisher.is_over()
        });
        let is_over = publisher.is_over();
        publisher.kill();

        let host = format!("host{killed_after}");
        depot.pull_with(&host, &[]).exits(0);
        let tree = depot.tree(&host);
        let is = |site: &Path| differences(site, &tree).is_empty();
        assert!(
            is(&old) || is(&depot.path("site")),
            "{killed_after} requests"
        );
        if is_over {
            break;
        }
    }

    depot.publish();
    depot.pull("last");
}
