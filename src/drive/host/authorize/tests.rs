//! Tests of the rules of keys, expiry and serials.

use std::path::Path;
use std::sync::{Arc, Mutex};

use super::*;
use crate::config::TreeConfig;
use crate::drive::host::open_tree;
use crate::id::{HostName, SessionId};
use crate::keys::{AuthorizedKeys, CosignedSigner, FileSigner, Signer};
use crate::manifest::header::tests::a_header;

const NOW: WallTime = WallTime(1_763_700_000);

/// A host that lists key 1 with `options`.
fn host(options: &str) -> LocalHost {
    let text = format!("{options} {}\n", FileSigner::from_seed([1; 32]).public());
    let keys = AuthorizedKeys::parse(text.as_bytes(), Path::new("authorized_keys")).expect("legal");
    let name = HostName::new("web1").expect("legal");
    LocalHost {
        name,
        trees: Default::default(),
        keys: Mutex::new(Arc::new(keys)),
        labels: Mutex::default(),
        own_key: Default::default(),
        figures: Default::default(),
    }
}

fn said(host: &LocalHost, key: u8, change: impl FnOnce(&mut Header)) -> Option<String> {
    let mut header = Header {
        created: NOW,
        ..a_header()
    };

    change(&mut header);
    let release = Release::new(header).expect("legal");
    check_allowed(
        host,
        FileSigner::from_seed([key; 32]).public(),
        &release,
        NOW,
    )
    .err()
}

#[test]
fn a_key_does_what_its_line_says_and_no_more() {
    let audit = |h: &mut Header| h.intent = Intent::Audit;
    let auditor = host("tree=\"w*\",audit");
    assert_eq!(said(&auditor, 1, audit), None);
    assert!(
        said(&auditor, 1, |_| {}).is_some_and(|why| why.contains("does not have the role deploy"))
    );
    assert!(said(&auditor, 2, audit).is_some_and(|why| why.contains("not listed")));
    let elsewhere = host("tree=\"docs\"");
    assert!(said(&elsewhere, 1, |_| {}).is_some_and(|why| why.contains("other trees")));
    let rollback = said(&host("rollback"), 1, |h| h.intent = Intent::Rollback);

    assert!(rollback.is_some_and(|why| why.contains("keeps no release like this one")));
}

#[test]
fn a_tree_takes_releases_that_enough_authorized_keys_have_signed() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("www");
    std::fs::create_dir(&path).expect("made");
    let mut config = TreeConfig::new(a_header().tree, path);
    config.require_signatures = 2;
    let managed = open_tree(&config, None).expect("opens");

    let line = |seed: u8, options: &str| {
        format!("{options} {}\n", FileSigner::from_seed([seed; 32]).public())
    };
    let text = line(1, "deploy") + &line(2, "deploy") + &line(3, "audit");
    let text = text + &line(5, "rollback");
    let keys = AuthorizedKeys::parse(text.as_bytes(), Path::new("authorized_keys"));
    let host = LocalHost {
        trees: [(config.name.clone(), managed)].into_iter().collect(),
        keys: Mutex::new(Arc::new(keys.expect("legal"))),
        ..host("")
    };

    let signer = |seed: u8| Arc::new(FileSigner::from_seed([seed; 32])) as Arc<dyn Signer>;
    let objection = |seeds: &[u8], intent: Intent| {
        let release = Release::new(Header {
            intent,
            ..a_header()
        })
        .expect("legal");
        let others = seeds[1..].iter().map(|seed| signer(*seed)).collect();
        let all = CosignedSigner::new(signer(seeds[0]), others).expect("different");
        let signature = all
            .sign(Namespace::RELEASE, release.bytes())
            .expect("signs");
        check_signatures(&host, &release, signature.as_bytes(), NOW).err()
    };

    assert_eq!(objection(&[1, 2], Intent::Deploy), None);
    assert_eq!(objection(&[2, 4, 1], Intent::Deploy), None);
    assert_eq!(objection(&[1], Intent::Audit), None);
    for few in [&[1][..], &[1, 3], &[1, 4]] {
        let why = objection(few, Intent::Deploy).expect("refused");
        assert!(
            why.starts_with("it has 1 of the 2 signatures"),
            "{few:?}: {why}"
        );
    }

    // The tree never had this content.
    assert_eq!(objection(&[1, 2], Intent::Rollback), None);
    for few in [&[1, 5], &[5, 1]] {
        let why = objection(few, Intent::Rollback).expect("refused");
        assert!(
            why.starts_with("it has 1 of the 2 signatures"),
            "{few:?}: {why}"
        );
    }
}

#[test]
fn a_key_whose_line_has_expired_does_nothing_any_more() {
    // The moment of expiry itself is too late.
    assert_eq!(
        said(&host("expires=\"2025-11-21T04:40:01Z\""), 1, |_| {}),
        None
    );
    let expired = said(&host("expires=\"2025-11-21T04:40:00Z\""), 1, |_| {});
    assert!(expired.is_some_and(|why| why.contains("expired at 2025-11-21")));
}

#[test]
fn a_release_that_has_expired_is_refused() {
    let host = host("deploy");
    let at = |seconds: i64| said(&host, 1, |h| h.expires = Some(WallTime(NOW.0 + seconds)));
    assert_eq!(at(1), None);
    assert!(at(0).is_some_and(|why| why.contains("release expired 0 s ago")));
    assert!(at(-7200).is_some_and(|why| why.contains("release expired 2 h ago")));
}

#[test]
fn serials_rise_and_are_never_used_up() {
    let said = |intent, serial: u64, highest: u64| {
        let header = Header {
            intent,
            serial: Serial(serial),
            ..a_header()
        };
        follows(&header, Serial(highest)).err().unwrap_or_default()
    };

    for (serial, highest, word) in [
        (1, 0, ""),
        (8, 7, ""),
        (7, 7, "not newer than 7"),
        (6, 7, "not newer than 7"),
        (7 + Serial::MAX_STEP, 7, ""),
        (8 + Serial::MAX_STEP, 7, ""),
        (Serial::MAX_ACCEPTED, 0, ""),
        (Serial::MAX_ACCEPTED + 1, 7, "use up"),
        (u64::MAX, u64::MAX - 1, "use up"),
    ] {
        let why = said(Intent::Deploy, serial, highest);
        assert!(
            why.contains(word) && why.is_empty() == word.is_empty(),
            "{serial} after {highest}: {why}"
        );
        assert_eq!(
            said(Intent::Audit, serial, highest),
            "",
            "it changes nothing"
        );
    }
}

#[test]
fn only_the_order_that_committed_a_release_lets_it_be_made_up() {
    let host = host("deploy");
    let signer = |n: u8| FileSigner::from_seed([n; 32]);
    let release = Release::new(Header {
        created: NOW,
        ..a_header()
    })
    .expect("legal");

    let other = Release::new(Header {
        serial: Serial(99),
        ..release.header().clone()
    })
    .expect("legal");

    let order = |release: &Release, kind, up_to: Option<&str>| {
        let up_to = up_to.map(|name| HostName::new(name).expect("legal"));
        Order {
            up_to,
            ..Order::new(SessionId(1), release, kind)
        }
        .encode()
    };

    let said = |by: u8, namespace, order: Vec<u8>| {
        let signature = signer(by)
            .sign(namespace, &order)
            .expect("signs")
            .as_bytes()
            .to_vec();
        check_grant(
            &host,
            signer(1).public(),
            &release,
            &SignedOrder {
                order,
                signature,
                hosts: None,
            },
        )
        .err()
        .map(|refusal| {
            let is_other = refusal.why.contains("ordered other hosts");
            assert_eq!(refusal.for_others, is_other, "{}", refusal.why);
            refusal.why
        })
        .unwrap_or_default()
    };

    let commit = || order(&release, OrderKind::Commit, None);
    assert_eq!(said(1, Namespace::ORDER, commit()), "");
    assert_eq!(
        said(
            1,
            Namespace::ORDER,
            order(&release, OrderKind::Commit, Some("web1"))
        ),
        ""
    );

    for (by, namespace, order, word) in [
        (2, Namespace::ORDER, commit(), "no order of its key"),
        (1, Namespace::RELEASE, commit(), "not signed"),
        (
            1,
            Namespace::ORDER,
            order(&other, OrderKind::Commit, None),
            "no order of its key",
        ),
        (
            1,
            Namespace::ORDER,
            order(&release, OrderKind::Prepare, None),
            "no order of its key",
        ),
        (
            1,
            Namespace::ORDER,
            order(&release, OrderKind::Abort, None),
            "no order of its key",
        ),
        // This order was for earlier hosts only.
        (
            1,
            Namespace::ORDER,
            order(&release, OrderKind::Commit, Some("web0")),
            "ordered other hosts",
        ),
        (1, Namespace::ORDER, vec![0xff; 9], "no order"),
    ] {
        let why = said(by, namespace, order);
        assert!(why.contains(word), "{why}");
    }
}

#[test]
fn an_audit_is_answered_for_an_hour_and_a_release_at_any_time() {
    let host = host("deploy");
    let made = |intent, seconds: i64| {
        said(&host, 1, |h| {
            (h.intent, h.created) = (intent, WallTime(NOW.0.saturating_add(seconds)))
        })
    };

    for near in [-3600, 0, 3600] {
        assert_eq!(made(Intent::Audit, near), None, "{near}");
    }

    assert!(made(Intent::Audit, -3601).is_some_and(|why| why.contains("signed 1 h ago")));
    assert!(made(Intent::Audit, 3601).is_some_and(|why| why.contains("1 h in the future")));
    assert!(made(Intent::Audit, i64::MIN).is_some());

    for far in [-1_000_000_000, 1_000_000_000] {
        assert_eq!(made(Intent::Deploy, far), None, "{far}");
    }
}
