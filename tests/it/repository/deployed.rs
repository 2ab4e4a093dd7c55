//! Deploys whose release is published as well: `makuo deploy --to`. Each way to end has its own
//! sentence and its exit code.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::Signal;

use super::run;
use crate::support::{Answer, Lab, Noise, same, serve_by, until, write};

#[test]
fn a_deploy_is_published_with_its_own_order() {
    let Some(lab) = Lab::loopback(2) else { return };
    std::fs::create_dir(lab.path("repo")).expect("new");
    Noise::new(2).tree(&lab.site(), 30, 30_000);
    lab.makuo(&["deploy", "www.toml", "--to", "./repo"])
        .exits(0);
    lab.all_same(&lab.site());

    let pull = ["pull", "./repo", "www", "later/www", "--name", "later"];
    let keys = ["--authorized-keys", "authorized_keys", "--json"];
    let pulled = run(&lab, &[&pull[..], &keys].concat()).exits(0);
    assert_eq!(pulled.result()["serial"], 1);
    same(&lab.site(), &lab.path("later/www"));
}

#[test]
fn a_repository_that_cannot_be_used_is_found_before_anything_is_sent() {
    let Some(lab) = Lab::loopback(1) else { return };
    Noise::new(3).tree(&lab.site(), 3, 3_000);
    let nothing_sent = |to: &str, why: &str| {
        let ran = lab.makuo(&["deploy", "www.toml", "--json", "--to", to]);
        let ran = ran.exits(2).says(&[why]);
        assert!(!ran.out.contains("\"host\""), "{}", ran.out);
        assert!(lab.with_release().is_empty());
    };

    nothing_sent("./nowhere", "nowhere");
    let denied = serve_by(|_| Answer::new(403, &[], b""));
    nothing_sent(&format!("http://{denied}/fleet"), "403");
    let other = serve_by(|_| Answer::new(200, &[], b"<html>a portal</html>"));
    nothing_sent(&format!("http://{other}/fleet"), "trees/www/head");

    // A head by a stranger.
    std::fs::create_dir(lab.path("repo")).expect("new");
    lab.keygen("stranger");
    run(
        &lab,
        &["publish", "www.toml", "--to", "./repo", "-k", "stranger"],
    )
    .exits(0);
    nothing_sent("./repo", "cannot be followed");
}

/// A store without objects: puts are answered by `put`.
fn empty_store(put: impl Fn() -> Answer + Send + Sync + 'static) -> SocketAddr {
    serve_by(move |question| match question.line.starts_with("PUT") {
        true => put(),
        false => Answer::new(404, &[], b""),
    })
}

#[test]
fn a_release_that_every_host_has_and_the_repository_lacks() {
    let Some(lab) = Lab::loopback(2) else { return };
    Noise::new(4).tree(&lab.site(), 3, 3_000);
    let server = empty_store(|| Answer::new(403, &[], b""));
    let url = format!("http://{server}/fleet");
    let deploy = ["deploy", "www.toml", "--expect", "2", "--to", &url];
    let ran = lab.makuo(&deploy).exits(4);
    let ran = ran.says(&["every host has www@1, and it is not published to", "403"]);
    assert!(!ran.err.contains("well"), "{}", ran.err);
    lab.all_same(&lab.site());

    let ran = lab.makuo(&[&deploy[..], &["--json"]].concat()).exits(4);
    let result = ran.result();
    assert_eq!(result["published"], false);
    assert_eq!(result["committed"], 2);
    assert!(result["error"].to_string().contains("not published"));
}

#[test]
fn what_a_deploy_says_of_its_hosts_stays_beside_the_repository() {
    let Some(mut lab) = Lab::loopback_idle() else {
        return;
    };
    Noise::new(5).tree(&lab.site(), 3, 3_000);
    for name in ["web1", "web2"] {
        let host = lab.host(name);
        if name == "web2" {
            host.rule("before = [\"false\"]");
        }
        host.start();
    }

    let server = empty_store(|| Answer::new(403, &[], b""));
    let url = format!("http://{server}/fleet");
    let deploy = ["deploy", "www.toml", "--expect", "2", "--to", &url];
    lab.spec("[commit]\nrequire = 1\n");
    lab.makuo(&deploy).exits(4).says(&[
        "some hosts have www@1, others do not",
        "have it: web1",
        "web2 refused",
        "not published to",
    ]);

    // Nothing is published where nothing is committed.
    lab.spec("");
    write(&lab.site().join("more"), "more");
    let ran = lab.makuo(&deploy).exits(3);
    ran.says(&["no host changed", "not published to", "no host is known"]);
}

#[test]
fn an_interrupt_ends_the_upload_and_keeps_what_hosts_have() {
    let Some(lab) = Lab::loopback(1) else { return };
    Noise::new(6).tree(&lab.site(), 3, 3_000);
    let asked = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&asked);
    let server = empty_store(move || {
        seen.store(true, Ordering::SeqCst);
        loop {
            std::thread::park();
        }
    });

    let url = format!("http://{server}/fleet");
    let running = lab.start(&["deploy", "www.toml", "--to", &url]);
    until("an upload", || asked.load(Ordering::SeqCst));
    running.signal(Signal::SIGINT);
    let ran = running.wait().exits(4);
    ran.says(&[
        "every host has www@1, and it is not published",
        "interrupted",
    ]);
    lab.all_same(&lab.site());
}

#[test]
fn an_upload_shows_its_progress() {
    let Some(lab) = Lab::loopback(1) else { return };
    Noise::new(7).tree(&lab.site(), 3, 3_000);
    std::fs::create_dir(lab.path("repo")).expect("new");
    let ran = lab.makuo(&["deploy", "www.toml", "--json", "--to", "./repo"]);
    let ran = ran.exits(0);
    assert_eq!(ran.result()["published"], true);
    let uploads = ran.events().into_iter().filter(|event| {
        // Those of the hosts name their targets.
        event["event"] == "progress" && event["targets"] == 0
    });
    assert!(uploads.count() > 0, "{}", ran.out);
}

/// A machine that has deployed nothing yet numbers its release after those of the repository.
#[test]
fn a_deploy_follows_what_others_published() {
    let Some(lab) = Lab::loopback(1) else { return };
    Noise::new(8).tree(&lab.site(), 3, 3_000);
    std::fs::create_dir(lab.path("repo")).expect("new");
    for _ in 0..3 {
        run(&lab, &["publish", "www.toml", "--to", "./repo", "--again"]).exits(0);
    }
    std::fs::remove_dir_all(lab.path(".cache")).expect("the serials of this machine");

    let ran = lab.makuo(&["deploy", "www.toml", "--json", "--to", "./repo"]);
    let result = ran.exits(0).result();
    assert_eq!(
        (&result["serial"], &result["published"]),
        (&4.into(), &true.into())
    );
    lab.all_same(&lab.site());
}
