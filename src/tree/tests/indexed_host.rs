//! A host with an index acts like one without: deploys of random trees, with changes at every moment.
//!
//! `MAKUO_INDEX_SEED` sets the seed, `MAKUO_INDEX_ROUNDS` the number of rounds.

#![expect(
    clippy::disallowed_methods,
    reason = "what is scanned is touched by the system's clock"
)]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use super::vandal::{REST, Vandal, filter, number, said};
use super::world::{self, Thing, World, file, look, scratch};
use crate::diff::{Action, HostRules, Plan, Refusal, diff};
use crate::id::Serial;
use crate::manifest::header::tests::a_header;
use crate::manifest::read::Manifest;
use crate::manifest::rules::{Exclude, PathFilter};
use crate::manifest::{Header, Release};
use crate::tree::fs::owners::HostNames;
use crate::tree::index::Index;
use crate::tree::scan::{EntryRules, IndexReuse, ScanOptions, Scanned, scan, scan_with_written};
use crate::tree::{Stage, Tree};
use crate::units::Limit;

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
            reports_limits: false,
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
