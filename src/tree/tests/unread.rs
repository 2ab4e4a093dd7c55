//! Protected and excluded paths: listed without reading, kept, and compared again once the rule is
//! removed.

use std::time::{Duration, SystemTime};

use super::world::{Thing, World, file, look};
use crate::diff::{Action, HostRules, Plan, Refusal, diff};
use crate::manifest::read::Manifest;
use crate::manifest::rules::{Exclude, PathFilter};
use crate::manifest::{Entry, EntryKind, Rules};
use crate::tree::fs::owners::HostNames;
use crate::tree::index::Index;
use crate::tree::scan::{ScanOptions, Scanned, scan, unread_content};
use crate::units::Limit;

fn filter(patterns: &[&str]) -> PathFilter {
    PathFilter::at_top(patterns)
}

fn things() -> Vec<(&'static str, Thing)> {
    vec![
        ("cache", Thing::Dir(0o755)),
        ("cache/deep", Thing::Dir(0o755)),
        ("cache/deep/x", file("12345")),
        ("d", Thing::Dir(0o755)),
        ("d/big.keep", file("protected, 1")),
        ("d/more", file("123")),
        ("up", Thing::Dir(0o755)),
        ("up/y", file("1234567")),
    ]
}

fn shown(scanned: &Scanned) -> Vec<String> {
    let entries = scanned.index.entries().map(|e| e.unwrap().entry);
    entries
        .map(|e: Entry| {
            let known = e.kind != EntryKind::File(unread_content());
            format!(
                "{}{} {}",
                e.kind.letter(),
                if known { "" } else { "?" },
                e.path
            )
        })
        .collect()
}

/// A world with its tree scanned as on a host, repeatedly with the same index.
struct Host {
    world: World,
    closed: Vec<PathFilter>,
    unhashed: Vec<PathFilter>,
}

impl Host {
    fn new(new: &[(&str, Thing)]) -> Self {
        Self {
            world: World::new(&things(), new),
            closed: Vec::new(),
            unhashed: Vec::new(),
        }
    }

    fn scan(&self) -> Scanned {
        let tree = self.world.open();
        let mut options = ScanOptions::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 33));
        (options.paths.closed, options.paths.unhashed) =
            (self.closed.clone(), self.unhashed.clone());
        let old = Index::open(&tree.index_path(), tree.root().id()).map(std::sync::Arc::new);
        scan(&tree.root(), &options, old.as_ref(), &tree.index_path()).unwrap()
    }

    fn diff(&self, rules: &Rules, protect: &PathFilter) -> Result<Plan, Refusal> {
        let tree = self.world.open();
        let source = super::world::Scanned::of(&self.world.source());
        let names = HostNames::default();
        let host = HostRules {
            protect,
            spared: &[],
            max_delete: Limit::NONE,
            reports_limits: false,
            owners: &names,
        };

        let scanned = {
            let root = source.manifest(&tree);
            drop(tree);
            (self.scan(), root)
        };

        let tree = self.world.open();
        diff(
            &scanned.0,
            &Manifest::new(scanned.1, tree.nodes()),
            rules,
            &[],
            &host,
        )
    }
}

fn deleted(plan: &Plan) -> Vec<String> {
    plan.changes
        .iter()
        .filter(|c| c.action == Action::Delete)
        .map(|c| c.path.to_string())
        .collect()
}

#[test]
fn closed_paths_are_listed_without_contents_or_children() {
    let mut host = Host::new(&[]);
    host.closed = vec![filter(&["*.keep", "/up/"]), filter(&["/cache/"])];
    let scanned = host.scan();
    assert_eq!(
        shown(&scanned),
        ["d cache", "d d", "f? d/big.keep", "f d/more", "d up"]
    );

    assert_eq!(
        (scanned.stats.hashed_bytes, scanned.stats.hashed_files),
        (3, 1)
    );

    // The filter of an older index does not affect the result.
    host.closed.clear();
    let all = host.scan();
    assert_eq!((all.stats.hashed_files, all.stats.reused_files), (3, 1));
    assert!(shown(&all).iter().all(|line| !line.contains('?')));
    host.closed = vec![filter(&["*.keep"])];
    assert_eq!(
        (
            host.scan().stats.hashed_files,
            host.scan().stats.reused_files
        ),
        (0, 3)
    );

    assert!(shown(&host.scan()).contains(&"f? d/big.keep".to_string()));
}

#[test]
fn unhashed_paths_are_listed_completely() {
    let mut host = Host::new(&[]);
    host.unhashed = vec![filter(&["/cache/", "more"])];
    host.closed = vec![filter(&["/up/"])];
    let scanned = host.scan();
    let expected = [
        "d cache",
        "d cache/deep",
        "f? cache/deep/x",
        "d d",
        "f d/big.keep",
        "f? d/more",
        "d up",
    ];
    assert_eq!(shown(&scanned), expected);

    assert_eq!(scanned.stats.hashed_bytes, 12);
}

#[test]
fn a_comparison_keeps_closed_paths_and_deletes_unhashed_ones() {
    let mut host = Host::new(&[]);
    let protect = filter(&["*.keep", "/up/"]);
    let exclude = Exclude {
        base: None,
        pattern: "/cache/".into(),
    };

    let mut rules = Rules {
        excludes: vec![exclude],
        ..host.world.rules.clone()
    };

    host.closed = vec![protect.clone(), rules.excluded().unwrap()];
    let plan = host.diff(&rules, &protect).unwrap();
    assert_eq!(deleted(&plan), ["d/more"]);
    assert!(
        plan.changes
            .iter()
            .any(|c| c.action == Action::Keep && c.path.as_bytes() == b"d")
    );

    rules.delete_excluded = true;

    host.unhashed = vec![host.closed.pop().unwrap()];
    let plan = host.diff(&rules, &protect).unwrap();
    assert_eq!(
        deleted(&plan),
        ["cache", "cache/deep", "cache/deep/x", "d/more"]
    );
}

#[test]
fn formerly_protected_paths_are_compared_by_content() {
    let mut new = things();
    new[4].1 = file("protected, 2");
    let mut host = Host::new(&new);
    let protect = filter(&["*.keep", "/up/"]);
    let none = filter(&[]);
    host.closed = vec![protect.clone()];
    let rules = host.world.rules.clone();
    assert!(host.diff(&rules, &protect).unwrap().is_clean());
    host.closed.clear();
    let plan = host.diff(&rules, &none).unwrap();
    let changed: Vec<_> = plan.changes.iter().map(|c| c.path.to_string()).collect();
    assert_eq!(changed, ["d/big.keep"]);
    host.world.deploy(&host.world.open(), 1).unwrap();
    assert_eq!(look(&host.world.www()), look(&host.world.source()));

    assert!(host.diff(&rules, &none).unwrap().is_clean());
}

#[test]
fn hard_links_to_an_unread_file_are_recorded() {
    let mut old = things();
    old.push(("z", Thing::Hard("d/big.keep")));
    let mut host = Host::new(&[]);
    host.world = World::new(&old, &[]);
    host.closed = vec![filter(&["*.keep"])];
    let scanned = host.scan();
    assert_eq!(shown(&scanned).last().unwrap(), "h z");

    assert_eq!(scanned.stats.hashed_bytes, 15);
}

#[test]
fn a_vanished_unread_file_keeps_no_directory() {
    let mut host = Host::new(&[]);
    host.closed = vec![filter(&["*.keep"]), filter(&["y"])];
    host.scan();
    std::fs::remove_file(host.world.www().join("d/big.keep")).unwrap();
    std::fs::remove_file(host.world.www().join("up/y")).unwrap();
    let exclude = Exclude {
        base: None,
        pattern: "y".into(),
    };

    let rules = Rules {
        excludes: vec![exclude],
        ..host.world.rules.clone()
    };

    let plan = host.diff(&rules, &filter(&["*.keep"])).unwrap();
    assert_eq!(
        deleted(&plan),
        ["cache", "cache/deep", "cache/deep/x", "d", "d/more", "up"]
    );

    assert_eq!(plan.summary.deleted, 6);
}

#[test]
fn a_vanished_unread_file_blocks_no_new_entry() {
    let host = Host {
        closed: vec![filter(&["*.keep", "more"])],
        ..Host::new(&[("d", file("no directory"))])
    };

    let rules = host.world.rules.clone();
    let protect = filter(&["*.keep", "more"]);
    let refused = host.diff(&rules, &protect).unwrap_err().to_string();
    assert!(refused.contains("d/big.keep"), "{refused}");
    std::fs::remove_file(host.world.www().join("d/big.keep")).unwrap();
    std::fs::remove_file(host.world.www().join("d/more")).unwrap();

    assert!(host.diff(&rules, &protect).is_ok());
}

#[test]
fn a_replaced_unread_file_is_recorded_as_the_new_kind() {
    let host = Host {
        unhashed: vec![filter(&["y"])],
        ..Host::new(&[])
    };

    host.scan();
    let y = host.world.www().join("up/y");
    std::fs::remove_file(&y).unwrap();
    std::fs::create_dir(&y).unwrap();
    std::fs::write(y.join("z"), "").unwrap();
    assert!(shown(&host.scan()).ends_with(&["d up".into(), "d up/y".into(), "f? up/y/z".into()]));

    // And back, with a reused inode number.
    std::fs::remove_dir_all(&y).unwrap();
    std::os::unix::fs::symlink("x", &y).unwrap();

    assert_eq!(shown(&host.scan()).last().unwrap(), "L up/y");
}

#[test]
fn a_vanished_unread_file_is_no_deletion() {
    let mut host = Host::new(&things());
    for nth in 0..20 {
        std::fs::write(host.world.www().join(format!("up/{nth}.tmp")), "").unwrap();
    }

    host.unhashed = vec![filter(&["*.tmp"])];
    host.scan();
    for nth in 0..20 {
        std::fs::remove_file(host.world.www().join(format!("up/{nth}.tmp"))).unwrap();
    }

    let rules = Rules {
        delete_excluded: true,
        ..host.world.rules.clone()
    };

    assert_eq!(host.diff(&rules, &filter(&[])).unwrap().summary.deleted, 0);
}

#[test]
fn a_directory_barred_to_its_owner_is_scanned_and_barred_again() {
    use std::os::unix::fs::PermissionsExt;
    super::world::as_nobody(|| {
        let dir = super::world::scratch();
        let at = |path: &str| dir.path().join(path);
        let chmod = |path: &str, mode| {
            std::fs::set_permissions(at(path), PermissionsExt::from_mode(mode)).unwrap()
        };
        let mode = |path: &str| std::fs::metadata(at(path)).unwrap().permissions().mode() & 0o7777;
        std::fs::create_dir_all(at("top/z/deep")).unwrap();
        std::fs::create_dir(at("top/list")).unwrap();
        for path in ["top/z/f", "top/z/deep/g", "top/list/h"] {
            std::fs::write(at(path), path).unwrap();
        }
        let root = crate::tree::Root::open(at("top")).unwrap();
        let mut options = ScanOptions::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 33));
        let mut old = None;
        for nth in 0..3 {
            chmod("top/list", 0o400);
            chmod("top/z", 0);
            options.opens_barred = false;
            let refused = scan(&root, &options, old.as_ref(), &at("refused"))
                .map(drop)
                .unwrap_err();
            assert!(refused.hint_text().is_some(), "{refused}");

            options.opens_barred = true;
            let scanned = scan(&root, &options, old.as_ref(), &at("index")).unwrap();
            assert_eq!(
                (mode("top/z"), mode("top/list")),
                (0, 0o400),
                "barred again"
            );
            let entries: Vec<Entry> = scanned.index.entries().map(|e| e.unwrap().entry).collect();
            let found: Vec<_> = entries
                .iter()
                .map(|e| (e.path.to_string(), e.mode.bits()))
                .collect();
            assert!(
                found.contains(&("z".to_string(), 0))
                    && found.contains(&("list".to_string(), 0o400))
            );
            assert!(
                found.iter().any(|(path, _)| path == "z/deep/g")
                    && found.iter().any(|(path, _)| path == "list/h")
            );
            assert_eq!(
                found
                    .iter()
                    .filter(|(path, _)| path.starts_with("z/new"))
                    .count(),
                nth
            );

            old = Some(scanned.index);
            chmod("top/z", 0o700);
            std::fs::write(at(&format!("top/z/new{nth}")), "more").unwrap();
        }
        chmod("top/list", 0o700);
    });
}
