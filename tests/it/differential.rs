//! Random pairs of trees, released one over the other through the library and compared by rsync.
//!
//! `MAKUO_PAIRS` sets the number of pairs (40), `MAKUO_SEED` replays one: every failure names the
//! seed of its pair.

#![allow(clippy::unwrap_used, reason = "what a test makes has to be made")]

use crate::support;
use std::collections::BTreeMap;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::SystemTime;

use fastrand::Rng;
use makuo::diff::{HostRules, Memory};
use makuo::id::{Ordinal, Serial, TreeName};
use makuo::manifest::read::Manifest;
use makuo::manifest::rules::{Exclude, Layout, PathFilter, UnknownOwner};
use makuo::manifest::{FORMAT, Header, Intent, Release, Rules};
use makuo::tree::index::Index;
use makuo::tree::{
    HostNames, Root, ScanOptions, ScannedSource, Stage, Tree, TreeOptions, scan, scan_with_written,
};
use makuo::units::{Limit, WallTime};
use makuo::{Error, Kind};
use rustix::fs::{CWD, Timespec, Timestamps, XattrFlags};

const EXCLUDES: [&str; 2] = ["*.tmp", "/cache/"];
const PROTECT: &str = "/uploads/";

#[derive(Debug, Clone)]
enum Kinds {
    Dir,
    File { seed: u64, len: usize, hole: usize },
    Link(Vec<u8>),
    Hard(PathBuf),
    Fifo,
    Char,
    Block,
}

#[derive(Debug, Clone)]
struct Node {
    kind: Kinds,
    mode: u32,
    owner: (u32, u32),
    time: (i64, i64),
    note: Option<u8>,
    acl: bool,
}

type Model = BTreeMap<PathBuf, Node>;

/// Capabilities of this machine.
#[derive(Clone, Copy)]
struct Able {
    root: bool,
    devices: bool,
    notes: bool,
    acls: bool,
}

fn acl() -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, rights, id) in [
        (1u16, 6u16, !0u32),
        (2, 4, 12),
        (4, 4, !0),
        (16, 6, !0),
        (32, 0, !0),
    ] {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(rights.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }

    bytes
}

impl Able {
    fn here(dir: &Path) -> Self {
        let file = dir.join("able");
        std::fs::write(&file, "").unwrap();
        let set = |name: &str, value: &[u8]| {
            rustix::fs::setxattr(&file, name, value, XattrFlags::empty()).is_ok()
        };

        let said = Command::new("rsync")
            .arg("--version")
            .output()
            .map(|o| o.stdout)
            .unwrap_or_default();

        let judged = |what: &str| String::from_utf8_lossy(&said).contains(&format!(" {what}"));
        let able = Self {
            root: support::is_root(),
            devices: support::is_root() && device(&dir.join("null"), false).is_ok(),
            notes: set("user.note", b"1") && judged("xattrs"),
            acls: set("system.posix_acl_access", &acl()) && judged("ACLs"),
        };

        for (can, what) in [
            (able.root, "owners"),
            (able.devices, "devices"),
            (able.notes, "xattrs"),
            (able.acls, "ACLs"),
        ] {
            if !can {
                support::skipped(format!("{what} cannot be made or judged here"));
            }
        }

        able
    }
}

fn device(at: &Path, block: bool) -> nix::Result<()> {
    use nix::sys::stat::{Mode, SFlag, mknod};
    let (kind, number) = if block {
        (SFlag::S_IFBLK, (7, 201))
    } else {
        (SFlag::S_IFCHR, (1, 3))
    };

    mknod(
        at,
        kind,
        Mode::S_IRWXU,
        rustix::fs::makedev(number.0, number.1),
    )
}

fn name(rng: &mut Rng) -> Vec<u8> {
    const NAMES: [&[u8]; 16] = [
        b"a",
        b"b",
        b"c",
        b"dir",
        b"x.tmp",
        b"-dash",
        b"new\nline",
        b"not\xffutf8",
        b"sp ace",
        b"cache",
        b"uploads",
        b"lib",
        b".dot",
        b"~",
        b"zz",
        b"*",
    ];

    NAMES[rng.usize(..NAMES.len())].to_vec()
}

fn is_guarded(path: &Path) -> bool {
    let parts: Vec<&[u8]> = path.iter().map(|p| p.as_bytes()).collect();
    parts.iter().any(|p| p.ends_with(b".tmp")) || matches!(parts[0], b"cache" | b"uploads")
}

fn node(rng: &mut Rng, able: Able, files: &[PathBuf], path: &Path) -> Node {
    let guarded = is_guarded(path);
    let kind = match rng.u32(0..100) {
        0..30 => Kinds::Dir,
        30..70 => Kinds::File {
            seed: rng.u64(0..6),
            len: [0, 1, 100, 5000, 300_000][rng.usize(..5)],
            hole: if rng.u32(..8) == 0 { 1 << 20 } else { 0 },
        },
        70..80 => Kinds::Link([&b"a"[..], b"/no/where", b"../x"][rng.usize(..3)].to_vec()),
        80..90 if !guarded && !files.is_empty() => {
            Kinds::Hard(files[rng.usize(..files.len())].clone())
        }
        90..95 if able.devices => {
            if rng.bool() {
                Kinds::Char
            } else {
                Kinds::Block
            }
        }
        _ => Kinds::Fifo,
    };

    // Only paths with rules for their content have to be directories.
    let kind = if guarded && matches!(path.to_str(), Some("cache" | "uploads")) {
        Kinds::Dir
    } else {
        kind
    };

    Node {
        kind,
        mode: [0o644, 0o755, 0o600, 0o4755, 0o2755, 0o1777, 0o444, 0o700][rng.usize(..8)]
            | if able.root { 0 } else { 0o700 },
        owner: [(0, 0), (1000, 1000), (70_000, 4_000_000_000)][rng.usize(..3)],
        time: (rng.i64(0..2_000_000_000), rng.i64(0..1_000_000_000)),
        note: (able.notes && rng.u32(..5) == 0).then(|| rng.u8(..)),
        acl: able.acls && rng.u32(..8) == 0,
    }
}

fn grow(rng: &mut Rng, able: Able, model: &mut Model, below: &Path, depth: u32) {
    for _ in 0..rng.u32(1..6) {
        let path = below.join(std::ffi::OsString::from_vec(name(rng)));
        if model.contains_key(&path) {
            continue;
        }
        let is_file = |(p, n): (&PathBuf, &Node)| {
            (matches!(n.kind, Kinds::File { .. }) && !is_guarded(p)).then(|| p.clone())
        };
        let files: Vec<PathBuf> = model.iter().filter_map(is_file).collect();
        let node = node(rng, able, &files, &path);
        let is_dir = matches!(node.kind, Kinds::Dir);
        model.insert(path.clone(), node);
        if is_dir && depth < 3 {
            grow(rng, able, model, &path, depth + 1);
        }
    }
}

/// Makes a tree with much in common with `old`.
fn mutated(rng: &mut Rng, able: Able, old: &Model) -> Model {
    let mut new = old.clone();
    for path in old.keys() {
        let Some(here) = new.get(path).cloned() else {
            continue;
        };
        match rng.u32(..100) {
            0..8 => new.retain(|p, _| !p.starts_with(path)),
            8..13 => {
                let to = path.with_file_name(std::ffi::OsString::from_vec(name(rng)));
                let moved: Vec<_> = new
                    .iter()
                    .filter(|(p, _)| p.starts_with(path))
                    .map(|(p, n)| (p.clone(), n.clone()))
                    .collect();
                if !new.contains_key(&to) && !is_guarded(&to) {
                    new.retain(|p, _| !p.starts_with(path));
                    new.extend(moved.into_iter().map(|(p, n)| {
                        let rest = p.strip_prefix(path).expect("below");
                        (
                            if rest.as_os_str().is_empty() {
                                to.clone()
                            } else {
                                to.join(rest)
                            },
                            n,
                        )
                    }));
                }
            }
            13..21 => {
                new.retain(|p, _| !p.starts_with(path));
                let other = node(rng, able, &[], path);
                let is_dir = matches!(other.kind, Kinds::Dir);
                new.insert(path.clone(), other);
                if is_dir {
                    grow(rng, able, &mut new, path, 3);
                }
            }
            21..33 => {
                let other = node(rng, able, &[], path);
                new.insert(
                    path.clone(),
                    Node {
                        kind: here.kind,
                        ..other
                    },
                );
            }
            33..45 => {
                if let Kinds::File { seed, len, hole } = here.kind {
                    let kind = Kinds::File {
                        seed: seed + rng.u64(..2),
                        len: len + rng.usize(..3),
                        hole,
                    };
                    new.insert(path.clone(), Node { kind, ..here });
                }
            }
            _ => {}
        }
    }

    if rng.bool() {
        grow(rng, able, &mut new, Path::new(""), 2);
    }

    new
}

fn content(seed: u64, len: usize, hole: usize) -> Vec<u8> {
    let mut rng = Rng::with_seed(seed);
    let mut bytes: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(len).collect();
    bytes.resize(len + hole, 0);
    bytes
}

fn make(top: &Path, model: &Model, able: Able, rng: &mut Rng) {
    std::fs::create_dir(top).unwrap();
    let is_file = |path: &PathBuf| {
        model
            .get(path)
            .is_some_and(|n| matches!(n.kind, Kinds::File { .. }))
    };

    for (path, node) in model {
        let at = top.join(path);
        match &node.kind {
            Kinds::Dir => std::fs::create_dir(&at).unwrap(),
            Kinds::File { seed, len, hole } => {
                std::fs::write(&at, content(*seed, *len, *hole)).unwrap()
            }
            Kinds::Link(target) => {
                std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(target), &at).unwrap()
            }
            Kinds::Hard(first) if is_file(first) && !is_guarded(first) => {}
            Kinds::Hard(_) => std::fs::write(&at, "alone").unwrap(),
            Kinds::Fifo => nix::unistd::mkfifo(&at, nix::sys::stat::Mode::S_IRWXU).unwrap(),
            Kinds::Char => device(&at, false).unwrap(),
            Kinds::Block => device(&at, true).unwrap(),
        }
    }

    for (path, node) in model.iter().rev() {
        let at = top.join(path);
        match &node.kind {
            Kinds::Hard(first) if is_file(first) && !is_guarded(first) => {
                std::fs::hard_link(top.join(first), &at).unwrap()
            }
            _ => dress(&at, node, able),
        }
    }

    // The links above changed the times of directories.
    for (path, node) in model.iter().rev() {
        stamp(&top.join(path), node.time);
    }

    std::fs::set_permissions(
        top,
        PermissionsExt::from_mode([0o755, 0o2750, 0o711][rng.usize(..3)]),
    )
    .unwrap();

    stamp(top, (rng.i64(0..2_000_000_000), 5));
}

fn dress(at: &Path, node: &Node, able: Able) {
    if able.root {
        lchown(at, Some(node.owner.0), Some(node.owner.1)).unwrap();
    }

    let plain = matches!(node.kind, Kinds::File { .. } | Kinds::Dir);
    if let Some(note) = node.note.filter(|_| plain) {
        rustix::fs::setxattr(at, "user.note", &[note], XattrFlags::empty()).unwrap();
    }

    if !matches!(node.kind, Kinds::Link(_)) {
        std::fs::set_permissions(at, PermissionsExt::from_mode(node.mode)).unwrap();
    }

    if node.acl && plain {
        rustix::fs::setxattr(at, "system.posix_acl_access", &acl(), XattrFlags::empty()).unwrap();
        if matches!(node.kind, Kinds::Dir) {
            rustix::fs::setxattr(at, "system.posix_acl_default", &acl(), XattrFlags::empty())
                .unwrap();
        }
    }
}

fn stamp(at: &Path, (secs, nanos): (i64, i64)) {
    let time = Timespec {
        tv_sec: secs,
        tv_nsec: nanos,
    };

    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };

    rustix::fs::utimensat(CWD, at, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Returns the filesystem's own clock, the source of file times.
fn clock(dir: &Path) -> SystemTime {
    let at = dir.join("clock");
    std::fs::write(&at, "").unwrap();
    std::fs::metadata(&at).unwrap().modified().unwrap()
}

/// One host and its source.
struct Pair {
    dir: PathBuf,
    tree: Arc<Tree>,
    protect: PathFilter,
    serial: u64,
    memory: Memory,
}

impl Pair {
    fn www(&self) -> PathBuf {
        self.dir.join("www")
    }

    fn deploy(&mut self, source: &Path, rules: &Rules, checksum: bool) -> Result<(), Error> {
        self.serial += 1;
        let mut options = ScanOptions::new(clock(&self.dir));
        options.threads = 1;
        options.paths.excludes.clone_from(&rules.excludes);
        options.entries.xattrs = rules.xattrs;
        let root = Arc::new(Root::open(source).unwrap());
        let index = self.dir.join("index");

        let old = Index::open(&index, root.id()).map(Arc::new);
        let scanned = scan(&root, &options, old.as_ref(), &index)?;
        let mut source = ScannedSource::new(root, &scanned)?;
        let header = Header {
            format: FORMAT,
            tree: self.tree.name().clone(),
            serial: Serial(self.serial),
            created: WallTime(0),
            expires: None,
            intent: Intent::Deploy,
            scope: Vec::new(),
            targets: Vec::new(),
            root: source.top(),
            rules: rules.clone(),
            top: Some(source.directory().clone()),
            again: None,
            session: None,
            sender: None,
            checksum: None,
            quick: None,
            message: None,
            paused: None,
        };

        let release = Release::new(header).unwrap();

        let mut options = ScanOptions::new(clock(&self.dir));
        (
            options.threads,
            options.entries.xattrs,
            options.reuse.checksum,
        ) = (1, rules.xattrs, checksum);
        options.paths.closed = vec![self.protect.clone(), rules.excluded().unwrap()];
        let (path, top) = (self.tree.index_path(), self.tree.root());
        let old = Index::open(&path, top.id()).map(Arc::new);

        let written = Index::open(&self.tree.written_path(), top.id());
        let have = scan_with_written(&top, &options, old.as_ref(), written.as_ref(), &path)?;
        let _ = std::fs::remove_file(self.tree.written_path());
        let names = HostNames::default();
        let host = HostRules {
            protect: &self.protect,
            spared: &[],
            max_delete: Limit::NONE,
            reports_limits: false,
            owners: &names,
        };

        let mut bytes = Vec::new();
        for node in 0..source.top().nodes {
            bytes.clear();
            let block = source.read(Ordinal(node), &mut bytes).unwrap();
            assert!(self.tree.nodes().put_node(block, &bytes)?);
        }

        let want = Manifest::of(release.header(), self.tree.nodes());
        let plan = self.memory.diff(&have, &want, rules, &[], &host)?;
        let stage = Stage::begin(&self.tree, plan)?;
        for (ordinal, _) in stage.fetched()? {
            bytes.clear();
            source.read(ordinal, &mut bytes).unwrap();
            let hash = makuo::block::BlockHash::of(&bytes);
            assert!(stage.put_hashed(ordinal, &bytes, &hash)?);
        }

        let committed = stage.finish()?.commit(&release, b"")?;
        self.tree.note_written(committed.plan());

        Ok(())
    }
}

fn judge(args: &[&str], here: &Path, there: &Path) -> String {
    let slash = |path: &Path| format!("{}/", path.display());
    let out = Command::new("rsync")
        .args(args)
        .arg(slash(here))
        .arg(slash(there))
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Removes times from rsync's output, and directories kept for their excluded content: a dry run
/// lists such directories as deleted, while a real run finds them not empty.
fn without_kept(said: &str, www: &Path) -> String {
    // With an exclude for names in any directory, a directory's time alone is not released.
    let is_time = |line: &str| line.starts_with(".d..t......");
    let is_kept = |line: &str| match line
        .strip_prefix("*deleting   ")
        .and_then(|p| p.strip_suffix('/'))
    {
        Some(shown) => {
            let dir = PathBuf::from(std::ffi::OsString::from_vec(unescaped(shown.as_bytes())));
            keeps(&www.join(&dir), &dir)
        }
        None => line.starts_with("cannot delete non-empty directory"),
    };

    said.lines()
        .filter(|line| !is_kept(line) && !is_time(line))
        .map(|line| format!("{line}\n"))
        .collect()
}

fn keeps(dir: &Path, path: &Path) -> bool {
    std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .any(|entry| {
            let below = path.join(entry.file_name());
            is_guarded(&below) || keeps(&entry.path(), &below)
        })
}

/// Decodes rsync's escapes: non-text bytes are printed as `\#` and three octal digits.
fn unescaped(mut shown: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    while let Some((&first, rest)) = shown.split_first() {
        let octal = shown
            .strip_prefix(b"\\#")
            .and_then(|s| s.get(..3))
            .and_then(|d| std::str::from_utf8(d).ok());
        match octal.and_then(|d| u8::from_str_radix(d, 8).ok()) {
            Some(byte) => {
                plain.push(byte);
                shown = &shown[5..];
            }
            None => {
                plain.push(first);
                shown = rest;
            }
        }
    }

    plain
}

const COMPARE: [&str; 4] = ["-n", "-i", "-aHc", "--numeric-ids"];

fn compare(able: Able, deletes: bool, guards: bool, here: &Path, there: &Path) -> String {
    let mut args = COMPARE.to_vec();
    let extra = [(able.acls, "-A"), (able.notes, "-X"), (deletes, "--delete")];
    args.extend(extra.into_iter().filter_map(|(on, arg)| on.then_some(arg)));

    if guards {
        args.extend([
            "--exclude=*.tmp",
            "--exclude=/cache/",
            "--exclude=/uploads/",
        ]);
    }

    judge(&args, here, there)
}

fn copy(able: Able, from: &Path, to: &Path) {
    let mut args = vec!["-aH", "--numeric-ids"];
    args.extend(
        [(able.acls, "-A"), (able.notes, "-X")]
            .into_iter()
            .filter_map(|(on, arg)| on.then_some(arg)),
    );
    judge(&args, from, to);
}

/// Lists excluded and protected paths with their details.
fn guarded(top: &Path) -> Vec<String> {
    let (mut all, mut open) = (Vec::new(), vec![top.to_path_buf()]);
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let at = entry.unwrap().path();
            let meta = std::fs::symlink_metadata(&at).unwrap();
            let path = at.strip_prefix(top).unwrap();
            if is_guarded(path) {
                let ino = if meta.is_dir() { 0 } else { meta.ino() };
                let time = (meta.mtime(), meta.mtime_nsec());
                all.push(format!(
                    "{path:?} {:o} {} {} {time:?} {ino}",
                    meta.mode(),
                    meta.uid(),
                    meta.len()
                ));
            }
            if meta.is_dir() {
                open.push(at);
            }
        }
    }

    all.sort();
    all
}

fn rules(rng: &mut Rng, able: Able) -> Rules {
    Rules {
        delete_extras: rng.u32(..4) > 0,
        delete_max: Limit::NONE,
        allow_empty: true,
        excludes: EXCLUDES
            .map(|p| Exclude {
                base: None,
                pattern: p.into(),
            })
            .to_vec(),
        unknown_owner: UnknownOwner::Numeric,
        set_user: able.root,
        set_group: able.root,
        xattrs: able.notes || able.acls,
        layout: if rng.bool() {
            Layout::Swap
        } else {
            Layout::InPlace
        },
        ..Rules::default()
    }
}

/// Returns true if the release was committed. A refused release must leave the tree unchanged.
fn release(pair: &mut Pair, rng: &mut Rng, able: Able, source: &Path) -> bool {
    let www = pair.www();
    let rules = rules(rng, able);
    let before = pair.dir.join(format!("before{}", pair.serial));
    copy(able, &www, &before);
    let left_alone = guarded(&www);
    let deployed = pair.deploy(source, &rules, rng.u32(..4) == 0);
    assert_eq!(guarded(&www), left_alone, "{deployed:?} {:?}", rules.layout);

    if let Err(refused) = deployed {
        assert_eq!(refused.kind(), Kind::Refused, "{refused}");
        let changed = compare(able, true, false, &before, &www);
        assert!(
            changed.is_empty(),
            "refused ({refused}), and yet:\n{changed}"
        );
        return false;
    }

    let differ = |what: &str| {
        let found = without_kept(
            &compare(able, rules.delete_extras, true, source, &www),
            &www,
        );
        assert!(
            found.is_empty(),
            "{what}, {:?}, deletes {}:\n{found}",
            rules.layout,
            rules.delete_extras
        );
    };

    differ("deployed");
    if rng.u32(..3) == 0 {
        pair.tree.revert().unwrap();
        let changed = compare(able, true, false, &before, &www);
        assert!(
            changed.is_empty(),
            "taken back, {:?}, and yet:\n{changed}",
            rules.layout
        );
        pair.deploy(source, &rules, false).unwrap();
        differ("deployed again");
    }

    if rng.bool() {
        pair.tree.forget_undo().unwrap();
    }

    true
}

fn one(seed: u64, able: Able, dir: &Path) -> (u32, u32) {
    let mut rng = Rng::with_seed(seed);
    let mut model = Model::new();
    grow(&mut rng, able, &mut model, Path::new(""), 0);
    make(&dir.join("www"), &model, able, &mut rng);
    let tree = Tree::open(
        TreeName::new("www").unwrap(),
        &dir.join("www"),
        None,
        TreeOptions::default(),
    )
    .unwrap();

    let protect = PathFilter::at_top(&[PROTECT]);
    let mut pair = Pair {
        dir: dir.to_path_buf(),
        tree,
        protect,
        serial: 0,
        memory: Memory::default(),
    };

    let (mut put, mut refused) = (0, 0);
    for round in 0..2 {
        model = mutated(&mut rng, able, &model);
        let source = dir.join(format!("source{round}"));
        make(&source, &model, able, &mut rng);
        match release(&mut pair, &mut rng, able, &source) {
            true => put += 1,
            false => refused += 1,
        }
    }

    (put, refused)
}

#[test]
fn random_trees_become_what_rsync_would_make_them() {
    if Command::new("rsync").arg("--version").output().is_err() {
        support::skipped("there is no rsync to judge");
        return;
    }

    let number = |name: &str| std::env::var(name).ok().and_then(|s| s.parse::<u64>().ok());
    let pairs = number("MAKUO_PAIRS").unwrap_or(40);
    let first = number("MAKUO_SEED").unwrap_or_else(|| fastrand::u64(..1 << 32));

    // In memory by default: no check here depends on a disk.
    let memory = Path::new("/dev/shm");
    let dir = match std::env::var_os("TMPDIR").is_none() && memory.is_dir() {
        true => tempfile::tempdir_in(memory),
        false => tempfile::tempdir(),
    };

    let dir = dir.unwrap();
    let able = Able::here(dir.path());
    let (mut put, mut refused) = (0, 0);
    for seed in first..first + pairs {
        let at = dir.path().join(seed.to_string());
        std::fs::create_dir(&at).unwrap();
        let done = std::panic::catch_unwind(|| one(seed, able, &at));
        let Ok((more, not)) = done else {
            let kept = dir.keep();
            panic!(
                "MAKUO_SEED={seed} MAKUO_PAIRS=1 replays this pair; its trees are in {}",
                kept.join(seed.to_string()).display()
            );
        };
        (put, refused) = (put + more, refused + not);
        std::fs::remove_dir_all(&at).unwrap();
    }

    println!("{put} releases put, {refused} refused, from MAKUO_SEED={first}");
    assert!(
        put > refused,
        "{put} put, {refused} refused: the test tests refusals"
    );
}
