//! Random parts of a model tree, merged, against the same parts taken one by one.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::block::BlockRef;
use crate::id::Serial;
use crate::manifest::header::tests::a_header;
use crate::manifest::{Content, Mode, Mtime, Owner, Release, Top};

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
        owner: Arc::new(Owner { uid: 0, gid: 0, user: None, group: None }),
        mtime: Mtime::default(),
        xattrs: Vec::new(),
    }
}

fn node(entry: &Entry) -> (Node, u32) {
    let content = |block: &BlockRef| (0..=u8::MAX).find(|&byte| BlockRef::of(&[byte]) == *block);
    let node = match &entry.kind {
        EntryKind::File(Content::Blocks(blocks)) => Node::File(content(&blocks[0]).expect("one of them")),
        _ => Node::Dir,
    };
    (node, entry.mode.bits())
}

/// Changes the model somewhere.
fn edit(rng: &mut fastrand::Rng, tree: &mut Model) {
    let at = place(rng);
    let above: Vec<TreePath> = std::iter::successors(at.parent(), TreePath::parent).collect();
    if rng.u8(..4) == 0 || above.iter().any(|dir| matches!(tree.get(dir), Some((Node::File(_), _)))) {
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
    let node = if is_dir { Node::Dir } else { Node::File(rng.u8(..)) };
    if !(is_dir && matches!(tree.get(&at), Some((Node::File(_), _)))) {
        tree.insert(at, (node, mode));
    }
}

fn place(rng: &mut fastrand::Rng) -> TreePath {
    let names = ["a", "b", "c", "d.log"];
    let depth = rng.usize(1..4);
    let parts: Vec<&str> = (0..depth).map(|_| names[rng.usize(..names.len())]).collect();
    path(&parts.join("/"))
}

/// What a release says of the model.
fn release(nodes: &Nodes, serial: u64, tree: &Model, scope: &[TreePath], rules: Rules) -> Release {
    let excluded = PathFilter::new(&rules.excludes);
    let within = |path: &TreePath| scope.is_empty() || scope.iter().any(|s| path.is_within(s));
    let has = |path: &TreePath, node: &Node| within(path) && !excluded.matches(path, *node == Node::Dir);
    let leads = |path: &TreePath| tree.iter().any(|(other, (node, _))| other.is_within(path) && has(other, node));
    let (mut builder, mut sink) = (Builder::default(), nodes);
    for (path, item) in tree {
        if has(path, &item.0) || (item.0 == Node::Dir && !within(path) && leads(path)) {
            builder.push(entry(path, item), &mut sink).expect("writable");
        }
    }
    let root = builder.finish(&mut sink).expect("writable");
    let top = scope.is_empty().then(|| Top {
        mode: Mode::from_bits(0o755),
        owner: Owner { uid: 0, gid: 0, user: None, group: None },
        mtime: Mtime::default(),
        xattrs: Vec::new(),
    });
    let (targets, scope) = (Vec::new(), scope.to_vec());
    Release::new(Header { serial: Serial(serial), scope, targets, root, rules, top, ..a_header() }).expect("legal")
}

/// Makes the model what the release says, or says that a host would refuse.
fn apply(nodes: &Nodes, release: &Release, tree: &mut Model) -> bool {
    let header = release.header();
    let excluded = header.rules.excluded().expect("legal");
    let within = |path: &TreePath| header.scope.is_empty() || header.scope.iter().any(|s| path.is_within(s));
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
                let mut below = next.keys().filter(|other| other.is_within(path) && *other != path);
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
                None => drop(next.insert(dir.clone(), tree.get(&dir).expect("it was there").clone())),
            }
        }
    }
    *tree = next;
    true
}

fn history<'a>(nodes: &'a Nodes, releases: &[Release]) -> History<'a> {
    let current = releases.last().map(|r| r.header().serial);
    History {
        nodes,
        current,
        known: releases.iter().cloned().map(Known::new).collect(),
        damaged: Vec::new(),
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
        excludes.extend(scope.iter().map(|path| Exclude { base: Some(path.clone()), pattern: "/*/".into() }));
    }
    let delete_max = if rng.bool() { Limit::NONE } else { Limit::Count(100) };
    Rules { delete_extras, delete_max, allow_empty: true, excludes, ..Rules::default() }
}

fn round(seed: u64) -> (usize, usize) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let dir = tempfile::tempdir().expect("a directory");
    let nodes = Nodes::open(dir.path().join("nodes")).expect("new");
    let mut source = Model::new();
    (0..40).for_each(|_| edit(&mut rng, &mut source));
    let whole = Rules { delete_extras: true, ..Rules::default() };
    let mut releases = vec![release(&nodes, 1, &source, &[], whole)];
    let mut host = Model::new();
    assert!(apply(&nodes, &releases[0], &mut host));
    let base = host.clone();

    for serial in 2..2 + rng.u64(2..14) {
        (0..rng.usize(1..6)).for_each(|_| edit(&mut rng, &mut source));
        let scope = Scope::of((0..rng.usize(1..3)).map(|_| place(&mut rng)).collect()).0;
        let rules = rules(&mut rng, &scope);
        let part = release(&nodes, serial, &source, &scope, rules);
        if apply(&nodes, &part, &mut host) {
            releases.push(part);
        }
    }

    let found = history(&nodes, &releases).merged(1).expect("readable");
    let (mut all, mut replaced) = (releases.clone(), 0);
    for merged in &found {
        let serial = all.last().expect("the whole").header().serial.next();
        let Merged { scope, rules, root, .. } = merged.clone();
        all.push(
            Release::new(Header { serial, scope, rules, root, targets: Vec::new(), ..a_header() }).expect("legal"),
        );
        let before = host.clone();
        assert!(apply(&nodes, &all[all.len() - 1], &mut host), "seed {seed}: {merged:?} is refused");
        assert_eq!(host, before, "seed {seed}: {merged:?} changes something");
    }
    let after = history(&nodes, &all);
    let mut new = base;
    for (at, part) in all.iter().enumerate().skip(1) {
        if after.is_replaced(at) {
            replaced += 1;
        } else {
            assert!(apply(&nodes, part, &mut new), "seed {seed}: a new host refuses {:?}", part.header());
        }
    }
    assert_eq!(new, host, "seed {seed}: a new host is not what the others are");
    let promised = found.iter().map(|merged| merged.parts).sum::<usize>();
    assert!(replaced >= promised, "seed {seed}: {replaced} of {promised}");
    (all.len() - 1 - found.len(), replaced)
}

/// `MAKUO_MERGES=20000` runs so many, from `MAKUO_MERGE_SEED` on.
#[test]
fn merged_parts_do_what_all_of_them_did() {
    let number = |name: &str, default| std::env::var(name).map_or(default, |text| text.parse().expect("a number"));
    let first = number("MAKUO_MERGE_SEED", fastrand::u64(..1 << 32));
    println!("MAKUO_MERGE_SEED={first}");
    let (mut parts, mut replaced) = (0, 0);
    for seed in first..first + number("MAKUO_MERGES", 100) {
        let (of, gone) = round(seed);
        (parts, replaced) = (parts + of, replaced + gone);
    }
    println!("{replaced} of {parts} parts were replaced");
    assert!(replaced * 3 > parts, "{replaced} of {parts}");
}

/// A history of a whole and these parts: what each has, whether it is for some hosts only.
fn parts(nodes: &Nodes, parts: &[(&[(&str, EntryKind)], bool)]) -> Vec<Release> {
    let mut releases = vec![release(nodes, 1, &Model::new(), &[], Rules::default())];
    for (nth, (entries, some)) in (2..).zip(parts) {
        let (mut builder, mut sink) = (Builder::default(), nodes);
        for (at, kind) in *entries {
            let entry = Entry { kind: kind.clone(), ..entry(&path(at), &(Node::Dir, 0o755)) };
            builder.push(entry, &mut sink).expect("writable");
        }
        let root = builder.finish(&mut sink).expect("writable");
        let targets = if *some { vec!["web*".to_string()] } else { Vec::new() };
        let scope = vec![path(entries.last().expect("there").0)];
        let scope = if entries.len() > 2 { vec![path("d")] } else { scope };
        let rules = Rules { allow_empty: true, ..Rules::default() };
        let header = Header { serial: Serial(nth), scope, targets, root, rules, ..a_header() };
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
    let nodes = Nodes::open(dir.path().join("nodes")).expect("new");
    let linked = [("d", EntryKind::Directory), ("d/a", content(1)), ("d/b", EntryKind::Hardlink(path("d/a")))];
    let other = [("d", EntryKind::Directory), ("d/c", content(2))];
    let apart = [("d", EntryKind::Directory), ("d/a", content(3))];
    let found = history(&nodes, &parts(&nodes, &[(&linked, false), (&other, false)])).merged(2).expect("readable");
    let kinds: Vec<EntryKind> =
        Manifest::new(found[0].root, &nodes).entries().map(|l| l.expect("legal").entry.kind).collect();
    assert_eq!(kinds[1..], [content(1), EntryKind::Hardlink(path("d/a")), content(2)]);
    // The second name has the content of before, and no entry says so.
    assert_eq!(history(&nodes, &parts(&nodes, &[(&linked, false), (&apart, false)])).merged(2).expect("readable"), []);
}

#[test]
fn a_part_for_some_hosts_replaces_none_that_was_for_all() {
    let dir = tempfile::tempdir().expect("a directory");
    let nodes = Nodes::open(dir.path().join("nodes")).expect("new");
    let (older, newer) = ([("a", content(1))], [("a", content(2))]);
    for (first, second, replaced) in
        [(false, true, false), (true, false, true), (true, true, true), (false, false, true)]
    {
        let releases = parts(&nodes, &[(&older, first), (&newer, second)]);
        assert_eq!(history(&nodes, &releases).is_replaced(1), replaced, "{first} {second}");
    }
}
