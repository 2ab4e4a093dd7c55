//! Random parts of a model tree, merged, against the same parts taken one by one.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::*;
use crate::block::BlockRef;
use crate::id::Serial;
use crate::manifest::build::Builder;
use crate::manifest::header::tests::a_header;
use crate::manifest::{Content, Entry, Mode, Mtime, Owner, Release, Top};
use crate::tree::state::node_store::NodeStore;

/// A tree: what is at each path, with a mode.
type Model = BTreeMap<TreePath, (Node, u32)>;

#[derive(Debug, Clone, PartialEq)]
enum Node {
    Dir,
    File(u8),
}

fn path(text: &str) -> TreePath {
    TreePath::new(text.as_bytes()).expect("legal")
}

fn entry(path: &TreePath, (node, mode): &(Node, u32)) -> Entry {
    let kind = match node {
        Node::Dir => EntryKind::Directory,
        Node::File(content) => EntryKind::File(Content::Blocks(vec![BlockRef::of(&[*content])])),
    };

    Entry {
        path: path.clone(),
        kind,
        mode: Mode::from_bits(*mode),
        owner: Arc::new(Owner {
            uid: 0,
            gid: 0,
            user: None,
            group: None,
        }),
        mtime: Mtime::default(),
        xattrs: Vec::new(),
    }
}

fn node(entry: &Entry) -> (Node, u32) {
    let content = |block: &BlockRef| (0..=u8::MAX).find(|&byte| BlockRef::of(&[byte]) == *block);
    let node = match &entry.kind {
        EntryKind::File(Content::Blocks(blocks)) => {
            Node::File(content(&blocks[0]).expect("one of them"))
        }
        _ => Node::Dir,
    };

    (node, entry.mode.bits())
}

/// Changes the model somewhere.
fn edit(rng: &mut fastrand::Rng, tree: &mut Model) {
    let at = place(rng);
    let above: Vec<TreePath> = std::iter::successors(at.parent(), TreePath::parent).collect();
    if rng.u8(..4) == 0
        || above
            .iter()
            .any(|dir| matches!(tree.get(dir), Some((Node::File(_), _))))
    {
        tree.retain(|path, _| !path.is_within(&at));
        return;
    }

    let mode = rng.u32(0o700..0o710);
    for dir in above {
        tree.entry(dir).or_insert((Node::Dir, mode));
    }

    let is_dir = rng.u8(..4) == 0;
    if !is_dir {
        tree.retain(|path, _| !path.is_within(&at));
    }

    let node = if is_dir {
        Node::Dir
    } else {
        Node::File(rng.u8(..))
    };

    if !(is_dir && matches!(tree.get(&at), Some((Node::File(_), _)))) {
        tree.insert(at, (node, mode));
    }
}

fn place(rng: &mut fastrand::Rng) -> TreePath {
    let names = ["a", "b", "c", "d.log"];
    let depth = rng.usize(1..4);
    let parts: Vec<&str> = (0..depth)
        .map(|_| names[rng.usize(..names.len())])
        .collect();
    path(&parts.join("/"))
}

/// What a release says of the model.
fn release(
    nodes: &NodeStore,
    serial: u64,
    tree: &Model,
    scope: &[TreePath],
    rules: Rules,
    some: bool,
) -> Release {
    let excluded = PathFilter::new(&rules.excludes);
    let within = |path: &TreePath| scope.is_empty() || scope.iter().any(|s| path.is_within(s));
    let has =
        |path: &TreePath, node: &Node| within(path) && !excluded.matches(path, *node == Node::Dir);
    let leads = |path: &TreePath| {
        tree.iter()
            .any(|(other, (node, _))| other.is_within(path) && has(other, node))
    };

    let mut builder = Builder::default();
    let mut sink = nodes;
    for (path, item) in tree {
        if has(path, &item.0) || (item.0 == Node::Dir && !within(path) && leads(path)) {
            builder
                .push(entry(path, item), &mut sink)
                .expect("writable");
        }
    }

    let root = builder.finish(&mut sink).expect("writable");
    let top = scope.is_empty().then(|| Top {
        mode: Mode::from_bits(0o755),
        owner: Owner {
            uid: 0,
            gid: 0,
            user: None,
            group: None,
        },
        mtime: Mtime::default(),
        xattrs: Vec::new(),
    });

    let targets = if some {
        vec!["web1".to_string()]
    } else {
        Vec::new()
    };

    let scope = scope.to_vec();
    Release::new(Header {
        serial: Serial(serial),
        scope,
        targets,
        root,
        rules,
        top,
        ..a_header()
    })
    .expect("legal")
}

/// Makes the model what the release says, or says that a host would refuse.
fn apply(nodes: &NodeStore, release: &Release, tree: &mut Model) -> bool {
    let header = release.header();
    let excluded = header.rules.excluded().expect("legal");
    let within =
        |path: &TreePath| header.scope.is_empty() || header.scope.iter().any(|s| path.is_within(s));
    let wanted: Model = Manifest::of(header, nodes)
        .entries()
        .map(|located| located.expect("readable").entry)
        .map(|entry| (entry.path.clone(), node(&entry)))
        .collect();

    let mut next = tree.clone();
    if header.rules.delete_extras {
        next.retain(|path, (node, _)| {
            !within(path) || wanted.contains_key(path) || excluded.matches(path, *node == Node::Dir)
        });
    }

    for (path, (node, mode)) in &wanted {
        match next.get(path) {
            Some((Node::Dir, _)) if *node != Node::Dir => {
                let mut below = next
                    .keys()
                    .filter(|other| other.is_within(path) && *other != path);
                if below.next().is_some() {
                    return false;
                }
            }
            Some((Node::File(_), _)) if *node == Node::Dir && !within(path) => return false,
            Some(_) if !within(path) => continue,
            _ => {}
        }
        next.insert(path.clone(), (node.clone(), *mode));
    }

    // What is excluded stays, and with it the directories that it is in.
    for (path, _) in next.clone() {
        for dir in std::iter::successors(path.parent(), TreePath::parent) {
            match next.get(&dir) {
                Some((Node::Dir, _)) => {}
                Some(_) => return false,
                None => {
                    let kept = tree.get(&dir).expect("it was there").clone();
                    next.insert(dir.clone(), kept);
                }
            }
        }
    }

    *tree = next;
    true
}

fn history<'a>(nodes: &'a NodeStore, releases: &[Release]) -> ReleaseHistory<'a> {
    let current = releases.last().map(|r| r.header().serial);
    ReleaseHistory {
        nodes,
        current,
        known: releases.iter().cloned().map(KnownRelease::new).collect(),
        damaged: Vec::new(),
        pins: BTreeSet::new(),
        replaced: OnceCell::new(),
    }
}

/// The rules of a part like those that are sent by hand.
fn rules(rng: &mut fastrand::Rng, scope: &[TreePath]) -> Rules {
    let delete_extras = rng.bool();
    let mut excludes = Vec::new();
    if rng.u8(..8) == 0 {
        excludes.push(Exclude::at_top("*.log"));
    }

    if delete_extras && rng.u8(..3) == 0 {
        excludes.extend(scope.iter().map(|path| Exclude {
            base: Some(path.clone()),
            pattern: "/*/".into(),
        }));
    }

    let delete_max = if rng.u8(..8) > 0 {
        Limit::NONE
    } else {
        Limit::Count(100)
    };

    Rules {
        delete_extras,
        delete_max,
        allow_empty: true,
        excludes,
        ..Rules::default()
    }
}

fn round(seed: u64) -> (usize, usize) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let dir = tempfile::tempdir().expect("a directory");
    let nodes = NodeStore::open(dir.path().join("nodes")).expect("new");
    let mut source = Model::new();
    (0..40).for_each(|_| edit(&mut rng, &mut source));
    let whole = Rules {
        delete_extras: true,
        ..Rules::default()
    };

    let mut releases = vec![release(&nodes, 1, &source, &[], whole, false)];
    let mut base = Model::new();
    assert!(apply(&nodes, &releases[0], &mut base));

    // Two hosts: the second one gets what is for some, too.
    let mut hosts = [base.clone(), base.clone()];

    let are_some = rng.bool();

    for serial in 2..2 + rng.u64(2..14) {
        (0..rng.usize(1..6)).for_each(|_| edit(&mut rng, &mut source));
        let scope = Scope::of((0..rng.usize(1..3)).map(|_| place(&mut rng)).collect()).0;
        let rules = rules(&mut rng, &scope);
        let part = release(
            &nodes,
            serial,
            &source,
            &scope,
            rules,
            are_some && rng.u8(..5) == 0,
        );
        let mut next = hosts.clone();
        if next
            .iter_mut()
            .enumerate()
            .all(|(at, host)| !takes(&part, at) || apply(&nodes, &part, host))
        {
            releases.push(part);
            hosts = next;
        }
    }

    let mut all = releases;
    let mut promised = 0;
    let mut merges = 0;

    for deletes in [true, false] {
        let Ok(merged) = history(&nodes, &all).merged(deletes, 1).expect("readable") else {
            continue;
        };
        let newest = all.last().expect("the whole").header().serial;
        assert_eq!(merged.after, newest, "seed {seed}");
        let Merged {
            scope, rules, root, ..
        } = merged.clone();
        let header = Header {
            serial: newest.next(),
            scope,
            rules,
            root,
            targets: Vec::new(),
            ..a_header()
        };
        all.push(Release::new(header).expect("legal"));
        let before = hosts.clone();
        for host in &mut hosts {
            assert!(
                apply(&nodes, &all[all.len() - 1], host),
                "seed {seed}: {merged:?} is refused"
            );
        }
        assert_eq!(hosts, before, "seed {seed}: {merged:?} changes something");
        (promised, merges) = (promised + merged.parts, merges + 1);
    }

    let after = history(&nodes, &all);
    let gone: Vec<usize> = (1..all.len()).filter(|&at| after.is_replaced(at)).collect();
    for (nth, host) in hosts.iter().enumerate() {
        let mut new = base.clone();
        for (at, part) in all
            .iter()
            .enumerate()
            .skip(1)
            .filter(|(at, part)| takes(part, nth) && !gone.contains(at))
        {
            assert!(
                apply(&nodes, part, &mut new),
                "seed {seed}: a new host refuses {at}: {:?}",
                part.header()
            );
        }
        assert_eq!(
            new, *host,
            "seed {seed}: new host {nth} is not what the others are"
        );
    }

    // What is merged may be so again.
    assert!(
        gone.len() >= promised,
        "seed {seed}: {gone:?} of {promised}"
    );

    (all.len() - 1 - merges, gone.len())
}

/// Whether the release is for the first host, or the second.
fn takes(release: &Release, host: usize) -> bool {
    host == 1 || release.header().targets.is_empty()
}

/// `MAKUO_MERGES=20000` runs so many, from `MAKUO_MERGE_SEED` on.
#[test]
fn merged_parts_do_what_all_of_them_did() {
    let number = |name: &str, default| {
        std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
    };

    let first = number("MAKUO_MERGE_SEED", fastrand::u64(..1 << 32));
    println!("MAKUO_MERGE_SEED={first}");
    let mut parts = 0;
    let mut replaced = 0;
    for seed in first..first + number("MAKUO_MERGES", 100) {
        let (of, gone) = round(seed);
        (parts, replaced) = (parts + of, replaced + gone);
    }

    println!("{replaced} of {parts} parts were replaced");
    assert!(replaced * 4 > parts, "{replaced} of {parts}");
}

/// A history of a whole and these parts: what each has, whether it is for some hosts only.
fn parts(nodes: &NodeStore, parts: &[(&[(&str, EntryKind)], bool)]) -> Vec<Release> {
    let mut releases = vec![release(
        nodes,
        1,
        &Model::new(),
        &[],
        Rules::default(),
        false,
    )];

    for (nth, (entries, some)) in (2..).zip(parts) {
        let mut builder = Builder::default();
        let mut sink = nodes;
        for (at, kind) in *entries {
            let entry = Entry {
                kind: kind.clone(),
                ..entry(&path(at), &(Node::Dir, 0o755))
            };
            builder.push(entry, &mut sink).expect("writable");
        }
        let root = builder.finish(&mut sink).expect("writable");
        let targets = if *some {
            vec!["web*".to_string()]
        } else {
            Vec::new()
        };
        let scope = vec![path(entries.last().expect("there").0)];
        let scope = if entries.len() > 2 {
            vec![path("d")]
        } else {
            scope
        };
        let rules = Rules {
            allow_empty: true,
            ..Rules::default()
        };
        let header = Header {
            serial: Serial(nth),
            scope,
            targets,
            root,
            rules,
            ..a_header()
        };
        releases.push(Release::new(header).expect("legal"));
    }

    releases
}

fn content(byte: u8) -> EntryKind {
    EntryKind::File(Content::Blocks(vec![BlockRef::of(&[byte])]))
}

#[test]
fn names_of_one_file_are_merged_only_while_they_are() {
    let dir = tempfile::tempdir().expect("a directory");
    let nodes = NodeStore::open(dir.path().join("nodes")).expect("new");
    let linked = [
        ("d", EntryKind::Directory),
        ("d/a", content(1)),
        ("d/b", EntryKind::Hardlink(path("d/a"))),
    ];

    let other = [("d", EntryKind::Directory), ("d/c", content(2))];
    let apart = [("d", EntryKind::Directory), ("d/a", content(3))];
    let found =
        history(&nodes, &parts(&nodes, &[(&linked, false), (&other, false)])).merged(false, 2);
    let found = found.expect("readable").expect("can be");
    let kinds: Vec<EntryKind> = Manifest::new(found.root, &nodes)
        .entries()
        .map(|l| l.expect("legal").entry.kind)
        .collect();

    assert_eq!(
        kinds[1..],
        [content(1), EntryKind::Hardlink(path("d/a")), content(2)]
    );

    // The second name has the content of before, and no entry says so.
    let found =
        history(&nodes, &parts(&nodes, &[(&linked, false), (&apart, false)])).merged(false, 1);

    assert!(found.expect("readable").is_err());
}

#[test]
fn a_part_for_some_hosts_replaces_none_that_was_for_all() {
    let dir = tempfile::tempdir().expect("a directory");
    let nodes = NodeStore::open(dir.path().join("nodes")).expect("new");
    let older = [("a", content(1))];
    let newer = [("a", content(2))];
    for (first, second, replaced) in [
        (false, true, false),
        (true, false, true),
        (true, true, true),
        (false, false, true),
    ] {
        let releases = parts(&nodes, &[(&older, first), (&newer, second)]);
        assert_eq!(
            history(&nodes, &releases).is_replaced(1),
            replaced,
            "{first} {second}"
        );
    }
}

#[test]
fn nothing_is_merged_over_what_some_hosts_have_of_their_own_or_without_the_limit_that_it_had() {
    let dir = tempfile::tempdir().expect("a directory");
    let nodes = NodeStore::open(dir.path().join("nodes")).expect("new");
    let file = |name| [(name, content(1))];
    let a = file("a");
    let b = file("b");
    let c = file("c");
    let mut releases = parts(&nodes, &[(&a, false), (&a, true), (&b, false), (&c, false)]);
    let merged = |releases: &[Release], deletes| {
        history(&nodes, releases)
            .merged(deletes, 2)
            .expect("readable")
    };

    assert_eq!(
        merged(&releases, false).expect("can be").scope,
        [path("b"), path("c")]
    );

    // What is sent to all again replaces what was for some.
    let again = Header {
        serial: Serial(6),
        targets: Vec::new(),
        ..releases[2].header().clone()
    };

    releases.push(Release::new(again).expect("legal"));
    assert_eq!(
        merged(&releases, false).expect("can be").scope,
        [path("a"), path("b"), path("c")]
    );

    for release in &mut releases {
        let mut header = release.header().clone();
        header.rules.delete_extras = true;
        header.rules.delete_max = if header.scope == [path("c")] {
            Limit::Count(3)
        } else {
            Limit::NONE
        };
        *release = Release::new(header).expect("legal");
    }

    assert_eq!(
        merged(&releases, true).expect("can be").scope,
        [path("a"), path("b")]
    );
}
