//! An index must not change a result: random trees under random changes, scanned with and without
//! an index.
//!
//! `MAKUO_INDEX_SEED` sets the seed, `MAKUO_INDEX_ROUNDS` the number of rounds.

#![expect(
    clippy::disallowed_methods,
    reason = "what is scanned is touched by the system's clock"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::world::{self, Thing, World, file, look, scratch};
use crate::diff::{Action, HostRules, Plan, Refusal, diff};
use crate::id::Serial;
use crate::manifest::header::tests::a_header;
use crate::manifest::read::Manifest;
use crate::manifest::rules::{Exclude, PathFilter};
use crate::manifest::{EntryKind, Header, Release};
use crate::tree::fs::owners::HostNames;
use crate::tree::fs::root::Root;
use crate::tree::index::Index;
use crate::tree::scan::{
    EntryRules, IndexReuse, ScanOptions, Scanned, scan, scan_with_written, unread_content,
};
use crate::tree::{Stage, Tree};
use crate::units::Limit;

/// Longer than a tick of the file system's clock and than the scan's margin for recent changes.
const REST: Duration = Duration::from_millis(45);

/// Reads a number from the environment.
pub(super) fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|value| value.parse().ok())
        .unwrap_or(otherwise)
}

/// Changes a directory at random.
pub(super) struct Vandal {
    pub(super) rng: fastrand::Rng,
    pub(super) top: PathBuf,
    /// A directory beside the tree, as source and target of moves.
    pub(super) outside: PathBuf,
}

/// Number of paths at which the vandal creates no more.
const MAX_PATHS: usize = 150;
const NAMES: [&str; 8] = ["a", "b", "c", "d", "k.keep", "t.tmp", "u.tmp", "cache"];

impl Vandal {
    pub(super) fn new(seed: u64, dir: &Path, top: &str) -> Self {
        let outside = dir.join(format!("{top}-outside"));
        let top = dir.join(top);
        std::fs::create_dir_all(&top).expect("makes");
        std::fs::create_dir_all(&outside).expect("makes");
        Self {
            rng: fastrand::Rng::with_seed(seed),
            top,
            outside,
        }
    }

    /// Returns all directories and all other paths.
    fn all(&self) -> (Vec<PathBuf>, Vec<PathBuf>) {
        let mut dirs = vec![self.top.clone(), self.outside.clone()];
        let mut others = Vec::new();
        let mut at = 0;
        while at < dirs.len() {
            let mut names: Vec<PathBuf> = std::fs::read_dir(&dirs[at])
                .expect("lists")
                .map(|e| e.expect("lists").path())
                .collect();
            names.sort();
            for path in names.into_iter().filter(|path| !path.ends_with(".makuo")) {
                if path.symlink_metadata().expect("is there").is_dir() {
                    &mut dirs
                } else {
                    &mut others
                }
                .push(path);
            }
            at += 1;
        }

        (dirs, others)
    }

    /// Performs one random action; impossible actions are skipped.
    pub(super) fn act(&mut self) {
        let (dirs, others) = self.all();
        let count = dirs.len() + others.len();
        let into = self
            .rng
            .choice(&dirs)
            .expect("there are two")
            .join(self.rng.choice(NAMES).expect("some"));

        let dir = self.rng.choice(&dirs[2..]).unwrap_or(&into).clone();
        let other = self.rng.choice(&others).unwrap_or(&into).clone();
        match self.rng.u8(..20) {
            0..=3 if count < MAX_PATHS => self.write(&into),
            4 if count < MAX_PATHS => drop(std::fs::create_dir(&into)),
            5..=8 => drop(std::fs::rename(&dir, &into)),
            9 | 10 => drop(std::fs::rename(&other, &into)),
            11..=13 if count < MAX_PATHS => drop(std::fs::hard_link(&other, &into)),
            14 => drop(std::fs::remove_file(&other)),
            15 if self.rng.bool() => drop(std::fs::remove_dir_all(&dir)),
            15 => drop(std::os::unix::fs::symlink("a", &into)),
            16 => {
                // Replaces a path by one of another kind.
                std::fs::remove_dir_all(&dir)
                    .and_then(|()| std::fs::write(&dir, "was a directory"))
                    .unwrap_or(());
                let _ = std::fs::remove_file(&other).and_then(|()| std::fs::create_dir(&other));
            }
            // Replaces a directory by a new one with the same names.
            17 => {
                let names: Vec<_> = others
                    .iter()
                    .filter(|path| path.parent() == Some(&dir))
                    .collect();
                if std::fs::rename(&dir, &into).is_ok() && std::fs::create_dir(&dir).is_ok() {
                    names.iter().for_each(|path| self.write(path));
                }
            }
            _ => self.edit(&other),
        }
    }

    fn write(&mut self, path: &Path) {
        let size = self.rng.usize(1..40);
        let bytes: Vec<u8> = std::iter::repeat_with(|| self.rng.alphanumeric() as u8)
            .take(size)
            .collect();

        if std::fs::write(path, bytes).is_ok() {
            let file = std::fs::File::options()
                .write(true)
                .open(path)
                .expect("opens");
            let old =
                SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000 + self.rng.u64(..1000));
            file.set_modified(old).expect("sets the time");
        }
    }

    /// Overwrites a file so that only the change time in its stat differs.
    pub(super) fn edit(&mut self, path: &Path) {
        let Ok(meta) = path.symlink_metadata() else {
            return;
        };

        if !meta.is_file() {
            return;
        }

        let bytes: Vec<u8> = std::iter::repeat_with(|| self.rng.alphanumeric() as u8)
            .take(meta.len() as usize)
            .collect();
        let file = std::fs::File::options()
            .write(true)
            .open(path)
            .expect("opens");

        std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0).expect("writes");
        file.set_modified(meta.modified().expect("has a time"))
            .expect("sets the time");
    }
}

/// Describes an index path by path, and lists unread files without details.
fn said(index: &Index) -> BTreeMap<String, String> {
    let entries = index.entries().map(|e| e.expect("whole").entry);
    entries
        .map(|e| {
            let said = if e.kind == EntryKind::File(unread_content()) {
                "unread".into()
            } else {
                format!("{e:?}")
            };
            (e.path.to_string(), said)
        })
        .collect()
}

fn filter(rng: &mut fastrand::Rng) -> PathFilter {
    let patterns: &[&str] = match rng.u8(..4) {
        0 => &["*.keep"],
        1 => &["/a/b/", "*.keep"],
        2 => &["cache"],
        _ => &[],
    };
    PathFilter::at_top(patterns)
}

#[test]
fn a_scan_with_an_index_equals_one_without() {
    let seed = number("MAKUO_INDEX_SEED", 1);
    let rounds = number("MAKUO_INDEX_ROUNDS", 30);
    println!("MAKUO_INDEX_SEED={seed} MAKUO_INDEX_ROUNDS={rounds}");
    let dir = scratch();
    let mut vandal = Vandal::new(seed, dir.path(), "top");
    let root = Root::open(&vandal.top).unwrap();
    (0..100).for_each(|_| vandal.act());

    let mut base = ScanOptions {
        threads: 2,
        ..ScanOptions::new(SystemTime::UNIX_EPOCH)
    };

    let path = dir.path().join("index");
    for round in 0..rounds {
        for _ in 0..vandal.rng.usize(..8) {
            vandal.act();
        }
        if vandal.rng.u8(..8) == 0 {
            let rng = &mut vandal.rng;
            base.paths.closed = vec![filter(rng)];
            base.paths.unhashed = vec![filter(rng)];
            base.paths.excludes.clear();
            if rng.bool() {
                base.paths.excludes.push(Exclude {
                    base: None,
                    pattern: "*.tmp".into(),
                });
            }
        }
        // Some scans follow the changes as closely as possible.
        if vandal.rng.u8(..4) > 0 {
            std::thread::sleep(REST);
        }
        let options = ScanOptions {
            started: SystemTime::now(),
            ..base.clone()
        };
        let old = Index::open(&path, root.id()).map(Arc::new);
        let with = scan(&root, &options, old.as_ref(), &path).unwrap();
        let without = scan(&root, &options, None, &dir.path().join("fresh")).unwrap();
        assert_eq!(
            said(&with.index),
            said(&without.index),
            "seed {seed}, round {round}"
        );
        assert_eq!(with.top, without.top, "seed {seed}, round {round}");
        let totals = |scanned: &crate::tree::Scanned| scanned.index.totals();
        assert_eq!(
            totals(&with),
            totals(&without),
            "seed {seed}, round {round}"
        );
        if with.index.totals().unread == 0 {
            assert_eq!(
                with.index.root(),
                without.index.root(),
                "seed {seed}, round {round}"
            );
        }
    }
}

/// A directory scanned repeatedly with its index.
struct Linked {
    dir: tempfile::TempDir,
    root: Root,
}

impl Linked {
    /// Makes `current/app` and `stable/app` names of one file.
    fn new() -> Self {
        let dir = scratch();
        for made in ["top", "top/current", "top/stable", "outside"] {
            std::fs::create_dir(dir.path().join(made)).unwrap();
        }

        let root = Root::open(dir.path().join("top")).unwrap();
        std::fs::write(dir.path().join("top/current/app"), "version 1").unwrap();
        let new = Self { dir, root };
        new.link("top/current/app", "top/stable/app");

        new
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn link(&self, from: &str, to: &str) {
        std::fs::hard_link(self.at(from), self.at(to)).unwrap();
    }

    fn rename(&self, from: &str, to: &str) {
        std::fs::rename(self.at(from), self.at(to)).unwrap();
    }

    /// Scans and returns the paths, after a check against a scan without an index.
    fn scan(&self) -> Vec<String> {
        std::thread::sleep(REST);
        let options = ScanOptions::new(SystemTime::now());
        let old = Index::open(&self.at("index"), self.root.id()).map(Arc::new);
        let with = scan(&self.root, &options, old.as_ref(), &self.at("index")).unwrap();
        let without = scan(&self.root, &options, None, &self.at("fresh")).unwrap();
        assert_eq!(said(&with.index), said(&without.index));
        let entries = with.index.entries().map(|e| e.unwrap().entry);

        entries
            .map(|e| match &e.kind {
                EntryKind::Hardlink(first) => format!("{} = {first}", e.path),
                kind => format!(
                    "{}{}",
                    e.path,
                    if *kind == EntryKind::Directory {
                        "/"
                    } else {
                        ""
                    }
                ),
            })
            .collect()
    }
}

#[test]
fn a_link_follows_its_first_name_when_a_directory_is_renamed() {
    let f = Linked::new();
    assert_eq!(
        f.scan(),
        [
            "current/",
            "current/app",
            "stable/",
            "stable/app = current/app"
        ]
    );

    f.rename("top/current", "top/previous");
    assert_eq!(
        f.scan(),
        [
            "previous/",
            "previous/app",
            "stable/",
            "stable/app = previous/app"
        ]
    );

    std::fs::create_dir(f.at("top/current")).unwrap();
    std::fs::write(f.at("top/current/app"), "version 2").unwrap();
    assert_eq!(f.scan()[..2], ["current/", "current/app"]);

    // Moves the directory of the second name, then adds a directory with an earlier name.
    f.rename("top/stable", "top/z");
    assert_eq!(
        f.scan()[2..],
        ["previous/", "previous/app", "z/", "z/app = previous/app"]
    );
    f.rename("top/z", "top/a");

    assert_eq!(
        f.scan(),
        [
            "a/",
            "a/app",
            "current/",
            "current/app",
            "previous/",
            "previous/app = a/app"
        ]
    );
}

#[test]
fn a_link_keeps_its_content_when_its_first_name_is_replaced_with_the_directory() {
    let f = Linked::new();
    f.scan();
    f.rename("top/current", "top/previous");
    std::fs::create_dir(f.at("top/current")).unwrap();
    std::fs::write(f.at("top/current/app"), "VERSION 2").unwrap();
    let expected = [
        "current/",
        "current/app",
        "previous/",
        "previous/app",
        "stable/",
        "stable/app = previous/app",
    ];

    assert_eq!(f.scan(), expected);
}

#[test]
fn names_moved_in_with_a_directory_become_links() {
    let f = Linked::new();
    f.link("top/current/app", "outside/app");
    f.scan();
    f.rename("outside", "top/a");
    assert_eq!(
        f.scan()[..4],
        ["a/", "a/app", "current/", "current/app = a/app"]
    );

    f.rename("top/a", "outside");
    assert_eq!(
        f.scan(),
        [
            "current/",
            "current/app",
            "stable/",
            "stable/app = current/app"
        ]
    );
}

#[test]
fn an_index_with_a_dangling_link_is_not_used() {
    let f = Linked::new();
    f.scan();
    let good = Index::open(&f.at("index"), f.root.id()).unwrap();
    let bad = || {
        let mut bad = crate::tree::index::IndexWriter::create(&f.at("index"), f.root.id()).unwrap();
        for found in good.entries() {
            let mut found = found.unwrap();
            if let EntryKind::Hardlink(first) = &mut found.entry.kind {
                *first = crate::manifest::TreePath::new(&b"current/gone"[..]).unwrap();
            }
            bad.push(found).unwrap();
        }
        bad
    };

    // Written without the check of links, as by older versions; no change since.
    bad().unchecked().finish(good.origin().clone()).unwrap();
    assert_eq!(f.scan()[2..], ["stable/", "stable/app = current/app"]);
    bad().unchecked().finish(good.origin().clone()).unwrap();
    std::fs::write(f.at("top/new"), "").unwrap();
    assert_eq!(f.scan()[3..], ["stable/", "stable/app = current/app"]);

    // The writer refuses to finish such an index.
    let before = std::fs::read(f.at("index")).unwrap();

    assert!(bad().finish(good.origin().clone()).is_err());
    assert_eq!(std::fs::read(f.at("index")).unwrap(), before);
}

/// Moment of interference in a deploy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    Compared,
    Staged,
    Committed,
}

/// A host's tree, scanned and switched as in a session.
struct Host {
    world: World,
    tree: Arc<Tree>,
    excludes: Vec<Exclude>,
    serial: u64,
}

impl Host {
    fn new(world: World) -> Self {
        let tree = world.open();
        Self {
            world,
            tree,
            excludes: Vec::new(),
            serial: 0,
        }
    }

    fn restarted(self) -> Self {
        drop(self.tree);
        let tree = self.world.open();
        Self { tree, ..self }
    }

    fn header(&self, root: crate::manifest::NodeRef, top: Option<crate::manifest::Top>) -> Header {
        let rules = crate::manifest::Rules {
            excludes: self.excludes.clone(),
            ..self.world.rules.clone()
        };

        Header {
            serial: Serial(self.serial),
            root,
            rules,
            top,
            ..a_header()
        }
    }

    fn options(&self) -> ScanOptions {
        let mut options = ScanOptions {
            entries: EntryRules {
                xattrs: true,
                ..EntryRules::default()
            },
            threads: 2,
            ..ScanOptions::new(SystemTime::now())
        };

        let excluded = PathFilter::new(&self.excludes);
        let all = !self.world.rules.delete_excluded;
        options.paths.closed.push(self.world.protect.clone());

        if all {
            &mut options.paths.closed
        } else {
            &mut options.paths.unhashed
        }
        .push(excluded);

        options
    }

    fn look(&self) -> Scanned {
        let tree = &self.tree;
        let id = tree.root().id();
        let old = Index::open(&tree.index_path(), id).map(Arc::new);
        let written = Index::open(&tree.written_path(), id);
        let path = tree.index_path();
        let found = scan_with_written(
            &tree.root(),
            &self.options(),
            old.as_ref(),
            written.as_ref(),
            &path,
        )
        .unwrap();
        let _ = std::fs::remove_file(tree.written_path());

        found
    }

    fn look_without_index(&self) -> Scanned {
        scan(
            &self.tree.root(),
            &self.options(),
            None,
            &self.tree.index_path().with_extension("fresh"),
        )
        .unwrap()
    }

    fn plan(&self, scanned: &Scanned, header: &Header) -> Result<Plan, Refusal> {
        let owners = HostNames::default();
        let host = HostRules {
            protect: &self.world.protect,
            max_delete: Limit::NONE,
            owners: &owners,
            spared: &[],
        };

        diff(
            scanned,
            &Manifest::of(header, self.tree.nodes()),
            &header.rules,
            &[],
            &host,
        )
    }

    /// Deploys the source with `meddle` between the steps. Returns true if the release was
    /// committed.
    fn deploy(&mut self, mut meddle: impl FnMut(Moment)) -> bool {
        self.serial += 1;
        let source = world::Scanned::of(&self.world.source());
        let header = self.header(source.manifest(&self.tree), source.top.clone());
        let scanned = self.look();
        let found = self.plan(&scanned, &header);
        let shown = |plan: &Result<Plan, Refusal>| match plan {
            Ok(plan) => plan
                .changes
                .iter()
                .map(|c| format!("{:?} {}", c.action, c.path))
                .collect::<Vec<_>>(),
            Err(e) => vec![e.to_string()],
        };

        assert_eq!(
            shown(&found),
            shown(&self.plan(&self.look_without_index(), &header)),
            "the plan"
        );

        meddle(Moment::Compared);
        let Ok(plan) = found else { return false };
        let Ok(stage) = Stage::begin(&self.tree, plan) else {
            return false;
        };

        for (ordinal, block) in stage.fetched().unwrap() {
            stage.put(ordinal, &source.blocks[&block.hash]).unwrap();
        }

        let Ok(staged) = stage.finish() else {
            return false;
        };

        meddle(Moment::Staged);
        let Ok(committed) = staged.commit(&Release::new(header).unwrap(), b"") else {
            return false;
        };

        meddle(Moment::Committed);
        committed.confirm().unwrap();

        true
    }

    /// Checks the index against the tree.
    fn check(&self, what: &str) {
        std::thread::sleep(REST);
        let with = self.look();
        let without = self.look_without_index();
        assert_eq!(said(&with.index), said(&without.index), "{what}");
        assert_eq!(with.top, without.top, "{what}");
    }
}

fn large() -> Thing {
    Thing::File(
        std::iter::repeat_n(b"0123456789abcde\n", 80 << 10)
            .flatten()
            .copied()
            .collect(),
        0o644,
    )
}

/// Changes `edited` at `moment` of a deploy with new content for `new`.
fn meddled(swap: bool, moment: Moment, edited: &str) {
    let old = [("kept", file("kept one")), ("new", file("old"))];
    let mut host = Host::new(World::new(&old, &old).swapping(swap));
    host.deploy(|_| {});
    host.check("before");
    host.world
        .release(&[("kept", file("kept one")), ("new", large())]);
    let at = host.world.www().join(edited);

    let mut vandal = Vandal {
        rng: fastrand::Rng::with_seed(1),
        top: host.world.www(),
        outside: host.world.www(),
    };

    let committed = host.deploy(|now| {
        if now == moment {
            std::thread::sleep(REST);
            vandal.edit(&at);
        }
    });

    assert!(committed);
    host.check("after");
    let plan = |host: &Host| {
        let source = world::Scanned::of(&host.world.source());
        let header = host.header(source.manifest(&host.tree), source.top.clone());
        let plan = host.plan(&host.look(), &header).unwrap();
        plan.changes
            .iter()
            .filter(|c| c.action != Action::Keep)
            .map(|c| c.path.to_string())
            .collect::<Vec<_>>()
    };

    assert_eq!(plan(&host), [edited], "swap {swap}, {moment:?}");
    host = host.restarted();
    assert_eq!(
        plan(&host),
        [edited],
        "after a restart: swap {swap}, {moment:?}"
    );

    assert!(host.deploy(|_| {}));
    assert_eq!(look(&host.world.www()), look(&host.world.source()));
}

#[test]
fn a_change_during_a_deploy_is_found() {
    for swap in [false, true] {
        meddled(swap, Moment::Compared, "kept");
        meddled(swap, Moment::Staged, "kept");
        meddled(swap, Moment::Committed, "kept");
        meddled(swap, Moment::Committed, "new");
    }
}

#[test]
fn files_of_a_commit_are_not_read_again() {
    for swap in [false, true] {
        let old = [
            ("kept", file("kept")),
            ("second", Thing::Hard("kept")),
            ("new", file("old")),
        ];

        let mut host = Host::new(World::new(&old, &old).swapping(swap));
        std::thread::sleep(REST);
        host.look();
        host.world.release(&[
            ("kept", file("kept")),
            ("second", Thing::Hard("kept")),
            ("new", large()),
        ]);

        assert!(host.deploy(|_| {}));
        std::thread::sleep(REST);
        assert_eq!(host.look().stats.hashed_files, 0, "swap {swap}");
        host.check("after");
    }
}

#[test]
fn a_host_with_an_index_acts_like_one_without() {
    let seed = number("MAKUO_INDEX_SEED", 1);
    let rounds = number("MAKUO_INDEX_ROUNDS", 12);
    println!("MAKUO_INDEX_SEED={seed} MAKUO_INDEX_ROUNDS={rounds}");
    let mut host = Host::new(World::new(&[], &[]));
    let beside = scratch();
    let vandal = |top: PathBuf, seed| {
        let outside = beside.path().join(format!("outside{seed}"));
        std::fs::create_dir_all(&outside).unwrap();
        Vandal {
            rng: fastrand::Rng::with_seed(seed),
            top,
            outside,
        }
    };

    let mut source = vandal(host.world.source(), seed);
    let mut local = vandal(host.world.www(), seed + 1_000_000);
    (0..60).for_each(|_| source.act());

    for round in 0..rounds {
        let what = format!("seed {seed}, round {round}");
        (0..source.rng.usize(..6)).for_each(|_| source.act());
        (0..local.rng.usize(..3)).for_each(|_| local.act());
        if source.rng.u8(..3) == 0 {
            let bytes: Vec<u8> = std::iter::repeat_with(|| source.rng.u8(..))
                .take(1 << 20)
                .collect();
            std::fs::create_dir_all(source.top.join("a")).unwrap_or(());
            let _ = std::fs::write(source.top.join("a/large"), bytes);
        }
        if source.rng.u8(..4) == 0 {
            host.world = host.world.swapping(source.rng.bool());
            host.world.protect = filter(&mut source.rng);
            host.world.rules.delete_excluded = source.rng.bool();
            host.excludes.clear();
            if source.rng.bool() {
                host.excludes.push(Exclude {
                    base: None,
                    pattern: "*.tmp".into(),
                });
            }
        }
        host.deploy(|_| {
            for _ in 0..local.rng.usize(..3) {
                let (_, others) = local.all();
                if let Some(path) = local.rng.choice(&others).cloned() {
                    local.edit(&path);
                }
            }
        });
        host.check(&what);
        if source.rng.u8(..5) == 0 {
            host = host.restarted();
            host.check(&format!("{what}, after a restart"));
        }
        // At rest, without excludes or protected paths.
        if host.deploy(|_| {}) && host.excludes.is_empty() && host.world.protect.is_empty() {
            assert_eq!(
                look(&host.world.www()),
                look(&host.world.source()),
                "{what}"
            );
        }
        host.check(&format!("{what}, at rest"));
    }
}

#[test]
fn a_doubtful_index_contributes_only_contents() {
    let things = [("kept", file("kept")), ("other", file("other"))];
    let mut host = Host::new(World::new(&things, &things));
    assert!(host.deploy(|_| {}));
    std::thread::sleep(REST);
    host.look();

    // An index without one name, as only a bug produces.
    let good = Index::open(&host.tree.index_path(), host.tree.root().id()).unwrap();
    let mut bad =
        crate::tree::index::IndexWriter::create(&host.tree.index_path(), host.tree.root().id())
            .unwrap();

    for found in good
        .entries()
        .map(Result::unwrap)
        .filter(|found| found.entry.path.as_bytes() == b"kept")
    {
        bad.push(found).unwrap();
    }

    bad.finish(good.origin().clone()).unwrap();
    assert_eq!(host.look().index.totals().entries, 1);

    host.tree.doubt_names();
    host = host.restarted();
    assert!(host.tree.is_doubted(), "a restart does not forget it");
    let options = ScanOptions {
        reuse: IndexReuse {
            whole: true,
            ..IndexReuse::default()
        },
        ..host.options()
    };

    let path = host.tree.index_path();
    let old = Index::open(&path, host.tree.root().id()).map(Arc::new);
    let walked = scan(&host.tree.root(), &options, old.as_ref(), &path).unwrap();
    assert_eq!(
        (
            walked.index.totals().entries,
            walked.stats.hashed_files,
            walked.walked
        ),
        (2, 1, true)
    );

    host.tree.trust_index();
    host = host.restarted();
    assert!(!host.tree.is_doubted());
    host.tree
        .drop_index(&crate::Error::refused("another kind of file appeared here"));

    assert!(host.tree.is_doubted() && !path.exists());
}

#[test]
fn an_empty_or_replaced_tree_is_suspicious() {
    let things = [("kept", file("kept"))];
    let mut host = Host::new(World::new(&things, &things));
    assert!(
        !host.tree.is_strange(),
        "without a release nothing is expected"
    );
    assert!(host.deploy(|_| {}));

    host.look();
    assert!(!host.tree.is_strange());
    std::fs::remove_file(host.world.www().join("kept")).unwrap();
    assert!(host.tree.is_strange(), "it is empty");
    std::fs::rename(host.world.www(), host.world.www().with_file_name("moved")).unwrap();
    std::fs::create_dir(host.world.www()).unwrap();
    std::fs::write(host.world.www().join("kept"), "kept").unwrap();

    host = host.restarted();
    assert!(host.tree.is_strange(), "it is another directory");
    host.look();

    assert!(!host.tree.is_strange());
}
