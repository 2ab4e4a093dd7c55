//! What `makuo repo gc` and `makuo repo copy` do on real stores while others publish and pull.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::repository::{Depot, packs};
use crate::support::run::Ran;
use crate::support::{
    Middleman, Mishap, Noise, Running, differences, moto, nginx, pause, read, write,
};

/// Hosts that pull at the same time.
const PULLS: usize = 20;

fn repo(depot: &Depot, args: &[&str]) -> Ran {
    Running::start(depot.makuo(&["repo"]).args(args)).wait()
}

/// Collects the repository at `url`, which keeps `keep` releases afterwards, without a grace time.
#[track_caller]
fn gc(depot: &Depot, url: &str, keep: &str) -> serde_json::Value {
    let args = ["gc", url, "--key", "deploy.key", "--keep", keep];
    let more = ["--grace", "1ms", "--authorized-keys", "keys", "--json"];
    repo(depot, &[&args[..], &more].concat()).exits(0).result()
}

fn start_pull(depot: &Depot, host: &str, url: &str) -> Running {
    let tree = format!("{host}/www");
    let args = ["pull", url, "www", &tree, "--name", host];
    let more = ["--authorized-keys", "keys", "--json"];
    Running::start(depot.makuo(&args).args(more))
}

/// Publishes and collects while hosts pull from `far`; `near` is the same repository for the
/// publisher. No pull fails, and every host has a release.
fn pulls_go_on(mut depot: Depot, near: &str, far: &str) {
    depot.url = near.to_string();
    depot.fill(5);
    let mut noise = Noise::new(5);
    let mut sites: Vec<PathBuf> = Vec::new();
    let mut release = |depot: &Depot, sites: &mut Vec<PathBuf>| {
        // Some of each pack is dead with the next release.
        for n in 0..6 {
            write(&depot.site(&format!("part{n}")), noise.bytes(150_000));
        }
        write(
            &depot.site(&format!("new{}", sites.len())),
            noise.bytes(90_000),
        );
        depot.publish();
        let site = depot.path(&format!("site{}", sites.len()));
        crate::support::copy(&depot.path("site"), &site);
        sites.push(site);
    };

    for _ in 0..4 {
        release(&depot, &mut sites);
    }
    let names: Vec<String> = (0..PULLS).map(|n| format!("web{n}")).collect();
    let mut pulls: Vec<Running> = Vec::new();
    let (mut moved, mut during) = (0, 0);
    for batch in names.chunks(5) {
        pulls.extend(batch.iter().map(|name| start_pull(&depot, name, far)));
        let is_under_way = |pull: &mut Running| usize::from(!pull.is_over());
        during += pulls.iter_mut().map(is_under_way).sum::<usize>();
        let done = gc(&depot, near, "1");
        moved += done["rewritten"].as_u64().expect("a count");
        release(&depot, &mut sites);
    }

    for (pull, name) in pulls.into_iter().zip(&names) {
        pull.wait().exits(0);
        let tree = depot.tree(name);
        let is_site = |site: &&PathBuf| differences(site, &tree).is_empty();
        assert!(sites.iter().any(|site| is_site(&site)), "{name}");
    }
    assert!(moved > 0 && during > 0, "{moved} packs, {during} pulls");

    release(&depot, &mut sites);
    let done = gc(&depot, near, "1");
    let live = done["live"].as_u64().expect("bytes");
    let checked = repo(
        &depot,
        &["check", near, "--authorized-keys", "keys", "--json"],
    );
    let checked = checked.exits(0).result();
    let stored = checked["bytes"].as_u64().expect("bytes");
    println!("{moved} packs moved beside {during} pulls; {stored} bytes stored, {live} live");
    let live = checked["live"].as_u64().expect("bytes");
    assert!(stored * 100 < live * 125, "{stored} of {live}");
    depot.url = far.to_string();
    depot.pull("later");
}

#[test]
fn pulls_from_a_directory_go_on_during_a_gc() {
    let depot = Depot::new(None);
    let url = depot.url.clone();
    pulls_go_on(depot, &url, &url);
}

#[test]
fn pulls_from_a_web_server_go_on_during_a_gc() {
    let Some(nginx) = nginx() else { return };
    // A line on which a pull takes long enough.
    let between = Middleman::start(nginx.http());
    between.throw(1, 100, vec![Mishap::Late(Duration::from_millis(40))]);
    let near = format!("file://{}", nginx.files().display());
    let far = format!("http://{}", between.address());
    pulls_go_on(Depot::new(None), &near, &far);
}

#[test]
fn pulls_from_a_bucket_go_on_during_a_gc() {
    let Some(moto) = moto() else { return };
    let depot = crate::repository::bucket(moto.address());
    let url = depot.url.clone();
    pulls_go_on(depot, &url, &url);
}

fn names(dir: &Path) -> Vec<PathBuf> {
    let mut names = packs(dir);
    names.sort();
    names
}

#[test]
fn a_gc_that_sees_no_head_deletes_nothing() {
    let depot = Depot::new(None);
    depot.fill(1);
    depot.publish();
    let (head, packs) = (depot.path("repo/trees/www/head"), depot.path("repo/packs"));
    let (bytes, before) = (read(&head), names(&packs));
    std::fs::remove_file(&head).expect("there");
    for more in [&[][..], &["--key", "deploy.key"]] {
        let args = [
            "gc",
            &depot.url,
            "--grace",
            "1ms",
            "--authorized-keys",
            "keys",
        ];
        let refused = repo(&depot, &[&args[..], more].concat()).exits(3);
        refused.says(&["no tree", "URL"]);
    }

    assert_eq!(names(&packs), before);
    write(&head, bytes);
    depot.pull("web1");
}

#[test]
fn a_gc_names_the_tree_whose_head_is_damaged_and_deletes_nothing() {
    let depot = Depot::new(None);
    write(&depot.site("page"), "first");
    depot.publish();
    let spec = "tree = \"db\"\nsource = \"site\"\n";
    write(&depot.path("db.toml"), spec);
    let publish = ["publish", "db.toml", "--to", &depot.url, "-k", "deploy.key"];
    Running::start(&mut depot.makuo(&publish)).wait().exits(0);

    let head = depot.path("repo/trees/db/head");
    let mut bytes = read(&head);
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    write(&head, bytes);
    let before = names(&depot.path("repo/packs"));
    let gc = [
        "gc",
        &depot.url,
        "--grace",
        "1ms",
        "--authorized-keys",
        "keys",
    ];
    for more in [&[][..], &["--key", "deploy.key", "--keep", "1"]] {
        let ran = repo(&depot, &[&gc[..], more].concat()).exits(3);
        ran.says(&["tree db: ", "nothing is deleted"]);
        assert_eq!(names(&depot.path("repo/packs")), before);
    }

    // The hint helps.
    std::fs::remove_file(&head).expect("there");
    Running::start(&mut depot.makuo(&publish)).wait().exits(0);
    repo(&depot, &gc).exits(0);
    depot.pull("web1");
}

#[test]
fn gc_keeps_what_publishers_keep_and_signs_no_older_head() {
    let depot = Depot::new(None);
    depot.fill(1);
    let head = depot.path("repo/trees/www/head");
    let mut second = Vec::new();
    for n in 0..6 {
        write(&depot.site("large"), Noise::new(n).bytes(300_000));
        depot
            .publish_with(&["--keep", "9", "--valid-for", "1h"])
            .exits(0);
        if n == 1 {
            second = read(&head);
        }
    }

    let releases = |keys: &str| {
        let args = ["list", &depot.url, "--authorized-keys", keys, "--json"];
        let listed = repo(&depot, &args).exits(0).result();
        listed["releases"].as_array().expect("a list").len()
    };
    let args = ["gc", &depot.url, "--key", "deploy.key", "--grace", "1ms"];
    let keys = ["--authorized-keys", "keys"];
    repo(&depot, &[&args[..], &keys].concat()).exits(0);
    assert_eq!(releases("keys"), 6);
    gc(&depot, &depot.url, "4");
    assert_eq!(releases("keys"), 4);

    // An older head does not become the newest one, and nothing is deleted by its word.
    let present = read(&head);
    let before = names(&depot.path("repo/packs"));
    write(&head, &second);
    let refused = repo(&depot, &[&args[..], &keys].concat()).exits(3);
    refused.says(&["www@2", "www@6"]);
    assert_eq!(names(&depot.path("repo/packs")), before);
    write(&head, present);
    depot.pull("web1");
}

#[test]
fn what_a_killed_publisher_leaves_in_a_directory_is_deleted_and_not_copied() {
    let depot = Depot::new(None);
    depot.fill(1);
    depot.publish();
    let pack = packs(&depot.path("repo/packs")).pop().expect("a pack");
    let left = format!("{}.tmp-00112233aabbccdd", pack.display());
    let left = [
        PathBuf::from(left),
        depot.path("repo/trees/www/head.tmp-00112233aabbccdd"),
    ];
    left.iter().for_each(|path| write(path, "half"));

    std::fs::create_dir(depot.path("usb")).expect("new");
    repo(&depot, &["copy", &depot.url, "./usb"]).exits(0);
    let names = |dir: &str| names(&depot.path(dir)).len();
    assert_eq!(names("usb/packs") + 1, names("repo/packs"));
    let young = ["gc", &depot.url, "--authorized-keys", "keys"];
    repo(&depot, &young).exits(0);
    assert!(left.iter().all(|path| path.exists()), "it may be under way");
    pause(Duration::from_millis(1100));
    repo(&depot, &[&young[..], &["--grace", "1s"]].concat()).exits(0);
    assert!(!left.iter().any(|path| path.exists()));
    depot.pull("web1");
}

#[test]
fn a_copy_replaces_no_newer_head_and_takes_none_of_other_keys() {
    let depot = Depot::new(None);
    depot.fill(1);
    depot.publish();
    for dir in ["usb", "other"] {
        std::fs::create_dir(depot.path(dir)).expect("new");
    }
    let copy =
        |to: &str, more: &[&str]| repo(&depot, &[&["copy", &depot.url, to][..], more].concat());
    copy("./usb", &[]).exits(0);

    // A later release at the destination, by the same key.
    write(&depot.site("later"), "later");
    let publish = ["publish", "www.toml", "--to", "./usb", "-k", "deploy.key"];
    Running::start(&mut depot.makuo(&publish)).wait().exits(0);
    let newer = read(&depot.path("usb/trees/www/head"));
    copy("./usb", &["--json"]).exits(0);
    assert_eq!(read(&depot.path("usb/trees/www/head")), newer);

    // A head of a stranger with a high serial.
    depot.keygen("stranger.key", "strangers");
    for n in 0..3 {
        write(&depot.site("more"), Noise::new(n).bytes(100));
        let publish = [
            "publish",
            "www.toml",
            "--to",
            "./other",
            "-k",
            "stranger.key",
        ];
        Running::start(&mut depot.makuo(&publish)).wait().exits(0);
    }
    let forged = ["copy", "./other", "./usb", "--authorized-keys", "keys"];
    repo(&depot, &forged).exits(3).says(&["authorized"]);
    assert_eq!(read(&depot.path("usb/trees/www/head")), newer);

    // A source that lacks a pack is no copy.
    let pack = packs(&depot.path("repo/packs")).pop().expect("a pack");
    std::fs::remove_file(pack).expect("there");
    std::fs::create_dir(depot.path("third")).expect("new");
    copy("./third", &[])
        .exits(3)
        .says(&["lacks packs", "repo check"]);
    std::fs::create_dir(depot.path("nothing")).expect("new");
    repo(&depot, &["copy", "./nothing", "./third"])
        .exits(3)
        .says(&["no tree"]);
}

#[test]
fn a_tree_that_cannot_be_read_is_listed_with_the_reason() {
    let depot = Depot::new(None);
    depot.fill(1);
    depot.publish();
    std::fs::create_dir_all(depot.path("repo/trees/broken")).expect("new");
    write(&depot.path("repo/trees/broken/head"), "no head");
    let args = ["list", &depot.url, "--authorized-keys", "keys", "--json"];
    let listed = repo(&depot, &args).exits(0).result();
    assert_eq!(listed["releases"].as_array().map(Vec::len), Some(1));
    assert_eq!(listed["faults"][0]["tree"], "broken");
    let one = [&args[..], &["--tree", "broken"]].concat();
    repo(&depot, &one).exits(3).says(&["broken"]);
}
