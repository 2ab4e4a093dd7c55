//! Heads of repositories: signed again, stale, older than before, with an earlier release on top;
//! and what hosts say of all that.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;

use crate::repository::{Depot, packs, run};
use crate::support::run::Ran;
use crate::support::{
    Host, Lab, Middleman, Mishap, Nginx, Noise, Running, differences, is_root, nginx, read, same,
    skipped, until, write,
};

const DAY: i64 = 86_400;

/// Runs `makuo repo ACTION URL` with the depot's key.
fn repo(depot: &Depot, action: &str, more: &[&str]) -> Ran {
    let args = ["repo", action, &depot.url, "--json", "-k", "deploy.key"];
    Running::start(depot.makuo(&args).args(more)).wait()
}

fn serial(result: &Value) -> u64 {
    result["serial"].as_u64().expect("a serial")
}

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).map_or(true, |mut all| all.next().is_none())
}

#[test]
fn unchanged_content_keeps_its_serial_and_renews_the_head() {
    let depot = Depot::new(None);
    depot.fill(1);
    let publish = |more: &[&str]| depot.publish_with(more).exits(0).result();
    let ran = depot.publish_with(&["--valid-for", "7d"]).exits(0);
    let told: Vec<Value> = ran.events();
    let last = told.iter().rfind(|event| event["event"] == "progress");
    let last = last.expect("progress").clone();
    assert!(last["sent"] == last["total"] && last["total"].as_u64() > Some(5_000_000));
    let first = ran.result();
    assert_eq!((serial(&first), &first["unchanged"]), (1, &false.into()));
    let stored = packs(&depot.path("repo/packs")).len();

    let again = publish(&[]);
    assert_eq!((serial(&again), &again["unchanged"]), (1, &true.into()));
    assert_eq!(
        (&again["packs"], packs(&depot.path("repo/packs")).len()),
        (&0.into(), stored)
    );
    let until = |result: &Value| result["valid_until"].as_i64().expect("an end");
    let longer = publish(&["--valid-for", "30d"]);
    assert!(until(&longer) - until(&again) > 22 * DAY, "{longer}");
    let ran = Running::start(
        depot
            .makuo(&["publish", "www.toml", "-k", "deploy.key"])
            .args(["--to", &depot.url, "--valid-for", "off"]),
    );
    ran.wait().exits(0).says(&["www@1 unchanged", "no end"]);
    assert_eq!(publish(&[])["valid_until"], Value::Null);
    depot.pull("web1");

    // What hosts would do differently is a new release.
    assert_eq!(serial(&publish(&["--again"])), 2);
    assert_eq!(serial(&publish(&["--checksum"])), 3);
    assert_eq!(serial(&publish(&["--checksum"])), 3);
    write(&depot.site("page"), "new");
    assert_eq!(serial(&publish(&[])), 4);
    std::fs::remove_file(depot.site("page")).expect("there");
    assert_eq!(serial(&publish(&[])), 5);
    let spec = String::from_utf8(read(&depot.path("www.toml"))).expect("text");
    write(
        &depot.path("www.toml"),
        spec + "[targets]\nhosts = [\"web*\"]\n",
    );
    assert_eq!((serial(&publish(&[])), serial(&publish(&[]))), (6, 6));

    // A key may leave the hosts' lists, and its releases with it.
    depot.keygen("other.key", "other");
    let both = [read(&depot.path("keys")), read(&depot.path("other"))].concat();
    write(&depot.path("both"), both);
    let other = ["-k", "other.key", "--authorized-keys", "both"];
    assert_eq!((serial(&publish(&other)), serial(&publish(&other))), (7, 7));
    depot
        .pull_with("web1", &["--authorized-keys", "both"])
        .exits(0);
    same(&depot.path("site"), &depot.tree("web1"));
}

#[test]
fn nothing_is_taken_from_a_stale_repository_until_its_head_is_signed_again() {
    let depot = Depot::new(None);
    depot.fill(1);
    depot.publish_with(&["--valid-for", "1s"]).exits(0);
    let mut early = 0;
    until("the head to be stale", || {
        early += 1;
        depot.pull_with(&format!("early{early}"), &[]).code == 3
    });

    let stale = depot.pull_with("web1", &[]).exits(3);
    stale.says(&["www@1", "stale since", "makuo repo renew", "--allow-stale"]);
    assert!(is_empty(&depot.tree("web1")));
    depot.pull_with("brave", &["--allow-stale"]).exits(0);
    same(&depot.path("site"), &depot.tree("brave"));

    // Neither the source nor the spec is needed.
    std::fs::rename(depot.path("site"), depot.path("away")).expect("there");
    std::fs::remove_file(depot.path("www.toml")).expect("there");
    let renewed = repo(&depot, "renew", &["www", "--valid-for", "2d"]).exits(0);
    let head = renewed.result()["heads"][0].clone();
    assert_eq!((&head["tree"], serial(&head)), (&"www".into(), 1));
    let again = repo(&depot, "renew", &[]).exits(0).result()["heads"][0].clone();
    let gained = again["valid_until"]
        .as_i64()
        .zip(head["valid_until"].as_i64());
    assert!(gained.is_some_and(|(now, before)| now >= before && now < before + DAY));
    depot.pull_with("web1", &[]).exits(0);
    same(&depot.path("away"), &depot.tree("web1"));

    repo(&depot, "renew", &["other"])
        .exits(3)
        .says(&["no tree other"]);
    depot.keygen("other.key", "other");
    let args = ["repo", "renew", &depot.url, "www", "-k", "other.key"];
    let stranger = Running::start(&mut depot.makuo(&args)).wait();
    stranger.exits(3).says(&["authorized"]);
}

#[test]
fn an_older_head_is_not_signed_again() {
    let depot = Depot::new(None);
    depot.fill(1);
    depot.publish();
    let head = depot.path("repo/trees/www/head");
    let old = read(&head);
    let first = read(&depot.site("large"));
    write(&depot.site("large"), "smaller");
    depot.publish();

    write(&head, &old);
    let refused = repo(&depot, "renew", &["www"]).exits(3);
    refused.says(&["shows www@1 and has had www@2"]);
    repo(&depot, "rollback", &["www"]).exits(3).says(&["www@2"]);
    assert_eq!(read(&head), old);

    // The content of the older head would be signed under its serial, which hosts refuse.
    write(&depot.site("large"), first);
    assert_eq!(depot.publish(), 3);
    repo(&depot, "renew", &["www"]).exits(0);
    depot.pull("web1");
}

#[test]
fn a_repository_goes_back_to_an_earlier_release() {
    let depot = Depot::new(None);
    depot.fill(1);
    depot.publish();
    crate::support::copy(&depot.path("site"), &depot.path("good"));
    depot.pull("web1");
    write(&depot.site("large"), Noise::new(5).bytes(3_000_000));
    std::fs::remove_file(depot.site("bin/run")).expect("there");
    depot.publish();
    depot.pull("web1");

    let back = repo(&depot, "rollback", &["www"]).exits(0).result();
    assert_eq!(
        (serial(&back), &back["rollback_to"]),
        (3, &1.into()),
        "{back}"
    );
    assert!(back["bytes_sent"].as_u64() < Some(10_000), "{back}");
    for host in ["web1", "web2"] {
        let pulled = depot.pull_with(host, &[]).exits(0);
        assert_eq!(serial(&pulled.result()), 3);
        same(&depot.path("good"), &depot.tree(host));
    }

    let none = repo(&depot, "rollback", &["www"]).exits(3);
    none.says(&["no release before www@3", "www@3, www@2, www@1"]);
    let same_content = repo(&depot, "rollback", &["www", "--to", "1"]).exits(3);
    same_content.says(&["nothing to change"]);
    repo(&depot, "rollback", &["www", "--to", "9"])
        .exits(3)
        .says(&["does not keep www@9"]);
    let forth = repo(&depot, "rollback", &["www", "--to", "2"]).exits(0);
    assert_eq!(serial(&forth.result()), 4);
    depot.pull("web1");
    repo(&depot, "gc", &["--keep", "1", "--grace", "1ms"]).exits(0);
    depot.pull("web3");
}

/// A lab with one host that looks into a repository behind a proxy every second.
struct Watched {
    lab: Lab,
    nginx: Nginx,
    between: Middleman,
}

impl Watched {
    fn start(network: &str) -> Option<Self> {
        let nginx = match Nginx::start() {
            Ok(nginx) => nginx,
            Err(why) => {
                skipped(&why);
                return None;
            }
        };
        let mut lab = Lab::loopback_idle()?;
        let between = Middleman::start(nginx.http());
        Noise::new(2).tree(&lab.site(), 20, 20_000);
        let host = lab.host("web1");
        host.catch_up = true;
        host.setting(network);
        host.rule(&format!(
            "repository = \"http://{}\"\npoll = \"1s\"",
            between.address()
        ));
        Some(Self {
            lab,
            nginx,
            between,
        })
    }

    fn host(&self) -> &Host {
        &self.lab.hosts[0]
    }

    fn publish(&self, more: &[&str]) {
        let to = format!("file://{}", self.nginx.files().display());
        let publish = ["publish", "www.toml", "--to", &to];
        run(&self.lab, &[&publish[..], more].concat()).exits(0);
    }

    /// What the host's status says of its repository.
    fn trouble(&self) -> String {
        let status = self.lab.makuo(&["status", "www", "--json"]);
        let told = status.events().into_iter().find(|e| e["host"] == "web1");
        let told = told.and_then(|host| host["repository_error"].as_str().map(str::to_string));
        told.unwrap_or_default()
    }

    /// Waits until the status says so, and the host has looked again several times.
    fn says(&self, what: &str) {
        until(&format!("a status with {what:?}"), || {
            self.trouble().contains(what)
        });
        self.between.passed();
        let mut looks = 0;
        until("further looks", || {
            looks += self.between.passed().len();
            looks >= 4
        });
    }

    #[track_caller]
    fn logged_once(&self, what: &str) {
        let log = self.host().log();
        assert_eq!(log.matches(what).count(), 1, "{what:?} in {log}");
    }

    fn is_in_order(&self) {
        until("a repository in order", || self.trouble().is_empty());
    }
}

#[test]
fn trouble_with_a_repository_is_logged_once_and_shown_until_it_ends() {
    let Some(mut watched) = Watched::start("") else {
        return;
    };
    watched.publish(&["--valid-for", "3s"]);
    watched.lab.hosts[0].start();
    until("the release", || {
        differences(&watched.lab.site(), &watched.host().tree()).is_empty()
    });

    // The head does not change: it gets too old.
    watched.says("stale since");
    watched.logged_once("stale since");
    watched.publish(&["--valid-for", "1h"]);
    watched.is_in_order();

    // A head by a stranger, then a server that does not answer.
    let head = watched.nginx.files().join("trees/www/head");
    let good = read(&head);
    let other = Depot::new(None);
    other.fill(1);
    other.publish();
    write(&head, read(&other.path("repo/trees/www/head")));
    watched.says("authorized");
    watched.logged_once("cannot be followed");
    write(&head, &good);
    watched.is_in_order();
    watched
        .between
        .throw(1, 100, vec![Mishap::Status(403, None, "Forbidden")]);
    watched.says("403");
    watched.between.throw(1, 0, vec![Mishap::None]);
    watched.is_in_order();
    assert_eq!(watched.host().log().matches("in order again").count(), 3);

    // A deploy that was not published.
    write(&watched.lab.site().join("page"), "deployed");
    watched.lab.deploy(&[]).exits(0);
    watched.says("older than www@2");
    watched.logged_once("older than www@2");
    watched.lab.all_same(&watched.lab.site());
}

#[test]
fn a_refused_release_is_taken_once_the_host_allows_it() {
    let Some(mut watched) = Watched::start("") else {
        return;
    };
    watched.publish(&[]);
    let keys = watched.lab.path("authorized_keys");
    let all = String::from_utf8(read(&keys)).expect("text");
    write(&keys, all.replace(",deploy,audit ", ",rollback "));
    watched.lab.hosts[0].start();
    watched.says("www@1 cannot be taken");
    watched.logged_once("www@1 cannot be taken");
    assert!(is_empty(&watched.host().tree()));

    // The head is as it was.
    write(&keys, all);
    watched.host().reload();
    until("the release", || {
        differences(&watched.lab.site(), &watched.host().tree()).is_empty()
    });
    watched.is_in_order();
}

#[test]
fn a_deploy_goes_before_a_release_that_is_being_taken() {
    let Some(mut watched) = Watched::start("[network]\ncatch_up_rate = \"2Mbit\"") else {
        return;
    };
    // Two seconds of the rate, at least.
    write(
        &watched.lab.site().join("large"),
        Noise::new(3).bytes(2_000_000),
    );
    watched.publish(&[]);
    watched.lab.hosts[0].start();
    let at_work = || {
        let status = watched.lab.makuo(&["status", "www", "--json"]);
        let mut events = status.events().into_iter();
        events.any(|e| e["host"] == "web1" && e["at_work"]["serial"] == 1)
    };
    until("a session of the host's own", at_work);

    write(&watched.lab.site().join("page"), "deployed");
    watched.lab.deploy(&[]).exits(0);
    watched.lab.all_same(&watched.lab.site());
    watched.says("older than www@2");
    watched.lab.all_same(&watched.lab.site());
    let warnings = watched.host().log().matches("WARN").count();
    assert!(warnings < 6, "{}", watched.host().log());
}

/// A server that answers every request with bytes without end; returns its address, and the largest
/// number of bytes that one connection took.
fn endless() -> (std::net::SocketAddr, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let most = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&most);
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.expect("a connection");
            let mut request = [0; 4096];
            let _ = client.read(&mut request);
            let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
            let chunk = [&b"10000\r\n"[..], &[0; 0x10000], b"\r\n"].concat();
            let mut sent = 0;
            let mut result = client.write_all(head.as_bytes());
            while result.is_ok() && sent < 1 << 30 {
                sent += chunk.len() as u64;
                result = client.write_all(&chunk);
            }
            counted.fetch_max(sent, Ordering::Relaxed);
        }
    });
    (address, most)
}

#[test]
fn a_server_without_end_is_left() {
    let (address, most) = endless();
    let depot = Depot::new(Some(format!("http://{address}")));
    depot.fill(1);
    depot.pull_with("web1", &[]).exits(3);
    depot.publish_with(&[]).exits(3);
    repo(&depot, "renew", &["www"]).exits(3);
    until("a connection that is closed", || {
        most.load(Ordering::Relaxed) > 0
    });
    // What the kernel holds for a connection counts as taken.
    assert!(most.load(Ordering::Relaxed) < 32 << 20, "{most:?}");
    assert!(is_empty(&depot.tree("web1")));
}

/// A confined daemon reads neither /etc nor certificates later.
#[test]
fn a_confined_daemon_finds_its_repository_by_name_and_by_https() {
    let Some(nginx) = nginx() else { return };
    let Some(tls) = nginx.tls() else {
        return skipped("no openssl for certificates");
    };
    let Some(mut lab) = Lab::loopback_idle() else {
        return;
    };
    if !is_root() {
        return skipped("only root mounts another /etc");
    }

    let etc = lab.path("etc");
    let urls = [
        format!("http://store.makuo.test:{}", nginx.http().port()),
        format!("https://localhost:{}", tls.port()),
    ];
    for (n, url) in urls.iter().enumerate() {
        let host = lab.host(&format!("web{n}"));
        host.catch_up = true;
        host.rule(&format!("repository = \"{url}\"\npoll = \"1s\""));
        host.rule(&format!("repository_ca = {:?}", nginx.authority()));
    }
    lab.hosts[0].wrap(&format!(
        "cp -a /etc {0} && printf '%s: files\\n' hosts passwd group > {0}/nsswitch.conf && \
         mount --bind {0} /etc && exec \"$@\"",
        etc.display()
    ));
    lab.hosts[0].start();
    if lab.hosts[0].log().contains("not confined") {
        return skipped("this kernel has no Landlock");
    }

    write(&lab.site().join("page"), "page");
    let to = format!("file://{}", nginx.files().display());
    run(&lab, &["publish", "www.toml", "--to", &to]).exits(0);
    until("an unknown name", || {
        lab.hosts[0].log().contains("WARN tree www: repository")
    });

    // Another file under the name of the old one, as programs for networks write it.
    let hosts = String::from_utf8(read(&etc.join("hosts"))).expect("text");
    let named = format!("{hosts}\n127.0.0.1 store.makuo.test\n");
    write(&etc.join("hosts+"), named);
    std::fs::rename(etc.join("hosts+"), etc.join("hosts")).expect("mine");
    until("a known name", || {
        lab.hosts[0].log().contains("in order again")
    });
    let site = lab.site();
    let has = |host: &Host| differences(&site, &host.tree()).is_empty();
    assert!(has(&lab.hosts[0]), "{}", lab.hosts[0].log());

    lab.hosts[0].kill();
    lab.hosts[1].start();
    until("a release by https", || has(&lab.hosts[1]));
}
