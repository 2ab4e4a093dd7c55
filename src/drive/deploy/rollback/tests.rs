//! Tests of the choice of a release, its targets and its key.

use std::path::Path;

use super::{RollbackPath, check_key, choose, targets};
use crate::Result;
use crate::block::BlockHash;
use crate::id::HostName;
use crate::id::{Serial, TreeName};
use crate::keys::{AuthorizedKeys, Namespace};
use crate::keys::{FileSigner, Signer};
use crate::manifest::Release;
use crate::manifest::header::tests::a_header;
use crate::manifest::{Header, Intent, ReleaseId};
use crate::outcome::LogRelease;
use crate::outcome::ReleaseLog;
use crate::tree::StoredRelease;
use crate::units::ByteSize;
use crate::units::WallTime;

/// A fleet's log: serial, content, hosts that run the release, hosts that keep one.
fn log(releases: &[(u64, &str, &str, &str)]) -> ReleaseLog {
    let hosts = |text: &str| {
        text.split_whitespace()
            .map(|n| HostName::new(n).unwrap().into())
            .collect()
    };

    let one = |&(serial, content, running, kept): &(u64, &str, &str, &str)| LogRelease {
        serial: Serial(serial),
        id: ReleaseId(BlockHash::of(&serial.to_be_bytes())),
        tombstone: None,
        created: WallTime(0),
        key: None,
        entries: 0,
        bytes: ByteSize(0),
        content: BlockHash::of(content.as_bytes()),
        part: content.starts_with("part"),
        targets: None,
        message: None,
        running: hosts(running),
        shown: hosts(running),
        buried: Vec::new(),
        kept: hosts(kept),
        pinned: Vec::new(),
    };

    let releases = releases.iter().map(one).collect();
    ReleaseLog {
        tree: TreeName::new("www").unwrap(),
        hosts: Vec::new(),
        labels: Default::default(),
        silent: Vec::new(),
        unshown: Vec::new(),
        releases,
    }
}

/// Signs the releases of the given serials for the host `a` only, all others for all hosts.
fn signed(narrow: &'static [u64]) -> impl Fn(Serial) -> Result<Vec<Release>> {
    |serial| {
        let targets = if narrow.contains(&serial.0) {
            vec!["a".to_string()]
        } else {
            Vec::new()
        };
        Ok(vec![
            Release::new(Header {
                targets,
                serial,
                ..a_header()
            })
            .unwrap(),
        ])
    }
}

fn previous(releases: &[(u64, &str, &str, &str)]) -> std::result::Result<u64, String> {
    previous_of(&log(releases), &[])
}

fn previous_of(log: &ReleaseLog, narrow: &'static [u64]) -> std::result::Result<u64, String> {
    choose(log, &[], None, signed(narrow))
        .map(|way| way.to.0)
        .map_err(|e| format!("{e}; {}", e.hint_text().unwrap_or_default()))
}

#[test]
fn the_previous_release_is_the_newest_that_all_who_run_the_present_one_had() {
    let good = (1, "good", "", "a b c");
    assert_eq!(
        previous(&[(3, "new", "a b c", "a b c"), (2, "mid", "", "a b c"), good]),
        Ok(2)
    );

    // The canary was for one host only.
    let canary = log(&[(3, "new", "a b c", "a b c"), (2, "mid", "", "a"), good]);
    assert_eq!(previous_of(&canary, &[2]), Ok(1));

    // The same content under other serials is no earlier release.
    assert_eq!(
        previous(&[
            (4, "new", "a b c", "a b c"),
            (3, "new", "", "a b"),
            (2, "new", "", "c"),
            good
        ]),
        Ok(1)
    );

    // A serial without a signed release does not exist.
    let claimed = log(&[(3, "new", "a b c", "a b c"), (2, "mid", "", "b"), good]);
    assert_eq!(
        choose(&claimed, &[], None, |_| Ok(Vec::new())).unwrap().to,
        Serial(1)
    );
    assert_eq!(
        previous(&[(4, "new", "a", "a"), (3, "new", "b c", "b c"), good]),
        Ok(1)
    );

    // An empty host gets the release that the others go back to.
    assert_eq!(
        previous(&[(3, "new", "b c", "b c"), (2, "mid", "", "b c")]),
        Ok(2)
    );

    let to = |to: u64| {
        choose(
            &log(&[(9, "new", "a", "a"), (7, "old", "", "a")]),
            &[],
            Some(Serial(to)),
            signed(&[]),
        )
    };

    assert_eq!(
        to(9).unwrap(),
        RollbackPath {
            to: Serial(9),
            from: vec![Serial(9)]
        }
    );

    let refused = to(8).unwrap_err();
    assert!(
        refused
            .hint_text()
            .is_some_and(|hint| hint.contains("7, 9")),
        "{refused}"
    );
}

#[test]
fn a_rollback_without_a_clear_goal_is_refused_by_name() {
    let says = |releases: &[(u64, &str, &str, &str)], words: &[&str]| {
        let why = previous(releases).expect_err("refused");
        words
            .iter()
            .for_each(|word| assert!(why.contains(word), "{word:?} is missing in {why:?}"));
    };

    says(
        &[(3, "new", "a", "a"), (2, "mid", "b c", "a b c")],
        &["www@3 on a; www@2 on b, c", "--to"],
    );
    says(
        &[
            (3, "new", "a b", "a b"),
            (2, "mid", "", "a"),
            (1, "old", "", "b"),
        ],
        &["disagree", "www@2 is not kept by b", "--to"],
    );

    // One host alone cannot push the others further back, by claims of kept releases or of
    // tombstones.
    let good = (1, "good", "", "a b c");
    says(
        &[(3, "new", "a b c", "a b c"), (2, "mid", "", "a b"), good],
        &["www@2 is not kept by c", "--to"],
    );
    let mut lie = log(&[(3, "new", "a b c", "a b c"), (2, "mid", "", "a b c"), good]);

    lie.releases[1].buried = vec![HostName::new("c").unwrap().into()];
    let why = previous_of(&lie, &[]).expect_err("refused");
    assert!(
        why.contains("www@2 was taken back, by the word of some hosts only"),
        "{why}"
    );
    lie.releases[1].buried = ["a", "b", "c"]
        .map(|name| HostName::new(name).unwrap().into())
        .to_vec();

    assert_eq!(previous_of(&lie, &[]), Ok(1), "all of them know it");
    // A running release without a shown header is not believed.
    lie.releases[0].shown.clear();
    lie.unshown = lie.releases[0].running.clone();
    let why = previous_of(&lie, &[]).expect_err("refused");
    assert!(why.contains("no host shows the release"), "{why}");
    says(
        &[
            (3, "new", "a b", "a b"),
            (2, "part", "", "a b"),
            (1, "old", "", "a b"),
        ],
        &["www@2", "of a part", "--to"],
    );

    says(
        &[(3, "new", "a b", "a b")],
        &["no release of www to go back to", "www@3"],
    );
    says(&[], &["no host runs"]);

    // A later release is no earlier one.
    says(
        &[(5, "later", "", "a b"), (3, "new", "a b", "a b")],
        &["no release of www to go back to"],
    );
}

#[test]
fn a_rollback_is_for_all_that_the_present_releases_are_for() {
    let release = |targets: &[&str]| {
        let targets = targets.iter().map(ToString::to_string).collect();
        Release::new(Header {
            targets,
            ..a_header()
        })
        .unwrap()
    };

    assert_eq!(targets(&[release(&["web*"])]), ["web*"]);
    assert_eq!(
        targets(&[release(&["web1"]), release(&["db*", "web1"])]),
        ["db*", "web1"]
    );
    assert_eq!(
        targets(&[release(&["web1"]), release(&[])]),
        Vec::<String>::new()
    );

    assert_eq!(targets(&[]), Vec::<String>::new());
}

#[test]
fn what_an_unknown_key_made_is_not_signed_again() {
    let signer = |n: u8| FileSigner::from_seed([n; 32]);
    let release = Release::new(Header {
        intent: Intent::Deploy,
        ..a_header()
    })
    .unwrap();

    let signature = signer(1)
        .sign(Namespace::RELEASE, release.bytes())
        .unwrap()
        .as_bytes()
        .to_vec();

    let tree = &release.header().tree;
    let line = |role: &str, key: &FileSigner| {
        let text = format!("tree=\"{tree}\",{role} {}\n", key.public());
        AuthorizedKeys::parse(text.as_bytes(), Path::new("keys")).unwrap()
    };

    let none = || AuthorizedKeys::none(Path::new("keys"));
    let mut earlier = StoredRelease {
        release: release.clone(),
        signature,
    };

    let check = |earlier: &StoredRelease, by: u8, keys: AuthorizedKeys| {
        check_key(earlier, signer(by).public(), &keys, WallTime(5))
    };

    assert!(check(&earlier, 1, none()).is_ok());
    assert!(check(&earlier, 2, line("deploy", &signer(1))).is_ok());
    let refused = check(&earlier, 2, none()).unwrap_err();
    assert!(
        refused
            .to_string()
            .contains(&signer(1).public().fingerprint().to_string()),
        "{refused}"
    );

    // A key with only the role audit or rollback could not have deployed the release.
    for role in ["audit", "rollback"] {
        assert!(
            check(&earlier, 2, line(role, &signer(1))).is_err(),
            "{role}"
        );
    }

    earlier.signature[60] ^= 1;
    assert!(check(&earlier, 1, none()).is_err());
}
