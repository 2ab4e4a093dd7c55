//! Plans applied to trees in memory: the trees become the release, and nothing else happens.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::id::Ordinal;
use crate::manifest::node::tests::an_entry;
use crate::manifest::rules::{Exclude, PathFilter, UnknownOwner};
use crate::manifest::{EntryKind, Mode, Mtime, Owner, Rules, TreePath};
use crate::units::Limit;

#[derive(Debug, Clone, Default)]
struct Memory(BTreeMap<TreePath, Entry>);

impl Have for Memory {
    fn entries(&self) -> Box<dyn Iterator<Item = Result<Entry>> + '_> {
        Box::new(self.0.values().cloned().map(Ok))
    }

    fn blocks(&self, content: &Content) -> Result<Vec<BlockRef>> {
        direct(content)
    }
}

struct Release(Memory);

impl Want for Release {
    fn entries(&self) -> Box<dyn Iterator<Item = Result<Located>> + '_> {
        let mut next = 1;
        Box::new(self.0.0.values().cloned().map(move |entry| {
            let located = Located {
                first: Ordinal(next),
                entry,
            };
            if let EntryKind::File(content) = &located.entry.kind {
                next += content.block_count();
            }
            Ok(located)
        }))
    }

    fn blocks(&self, content: &Content) -> Result<Vec<BlockRef>> {
        direct(content)
    }
}

fn direct(content: &Content) -> Result<Vec<BlockRef>> {
    match content {
        Content::Blocks(blocks) => Ok(blocks.clone()),
        Content::Lists(_) => Err(crate::Error::refused("no lists here")),
    }
}

struct NoLists;

impl Lists for NoLists {
    fn list(&self, _: &ListRef) -> Result<Arc<[BlockRef]>> {
        Err(crate::Error::refused("no lists here"))
    }
}

struct Names;

impl OwnerResolver for Names {
    fn uid(&self, name: &str) -> Result<Option<u32>> {
        match name {
            "no-answer" => Err(crate::Error::refused("the name service does not answer")),
            _ => Ok((name != "nobody-here").then_some(name.len() as u32 + 100)),
        }
    }
    fn gid(&self, name: &str) -> Result<Option<u32>> {
        self.uid(name)
    }
}

fn p(text: &str) -> TreePath {
    TreePath::new(text.as_bytes()).expect("legal")
}

fn filter(patterns: &[&str]) -> PathFilter {
    PathFilter::at_top(patterns)
}

fn entry(path: &str, kind: EntryKind) -> Entry {
    let mode = if kind == EntryKind::Directory {
        0o755
    } else {
        0o644
    };

    Entry {
        path: p(path),
        kind,
        mode: Mode::from_bits(mode),
        owner: Arc::new(Owner::nameless(0, 0)),
        mtime: Mtime { secs: 7, nanos: 0 },
        xattrs: Vec::new(),
    }
}

fn file(path: &str, content: &str) -> Entry {
    entry(
        path,
        EntryKind::File(Content::Blocks(vec![BlockRef::of(content.as_bytes())])),
    )
}

fn dir(path: &str) -> Entry {
    entry(path, EntryKind::Directory)
}

fn tree<const N: usize>(entries: [Entry; N]) -> Memory {
    Memory(entries.into_iter().map(|e| (e.path.clone(), e)).collect())
}

fn deleting() -> Rules {
    Rules {
        delete_extras: true,
        delete_max: Limit::NONE,
        allow_empty: true,
        ..Rules::default()
    }
}

fn run(have: &Memory, want: &Memory, rules: &Rules, protect: &PathFilter) -> Result<Plan, Refusal> {
    let host = HostRules {
        protect,
        spared: &[],
        max_delete: Limit::NONE,
        owners: &Names,
    };
    diff(have, &Release(want.clone()), rules, &[], &host)
}

fn shown(plan: &Plan) -> Vec<String> {
    plan.changes
        .iter()
        .map(|c| format!("{} {}", c.itemized(), c.path))
        .collect()
}

fn apply(have: &Memory, plan: &Plan) -> Memory {
    let mut out = have.clone();
    for change in plan.changes.iter().filter(|c| c.is_applied()) {
        match &change.want {
            None => drop(out.0.remove(&change.path)),
            Some(want) => drop(out.0.insert(change.path.clone(), localized(&want.entry))),
        }
    }

    out
}

fn localized(entry: &Entry) -> Entry {
    let uid = entry
        .owner
        .user
        .as_deref()
        .map_or(Some(entry.owner.uid), |n| Names.uid(n).expect("answers"))
        .expect("known");

    let owner = Owner::nameless(uid, entry.owner.gid);

    Entry {
        owner: Arc::new(owner),
        ..entry.clone()
    }
}

/// Generates entries with all their parents; a parent is a directory.
fn a_tree() -> impl Strategy<Value = Memory> {
    prop::collection::vec(an_entry(), 0..25).prop_map(|entries| {
        let mut all = Memory::default();

        for e in entries {
            let mut parent = e.path.parent();
            while let Some(path) = parent {
                parent = path.parent();
                all.0.insert(
                    path.clone(),
                    Entry {
                        kind: EntryKind::Directory,
                        path,
                        ..e.clone()
                    },
                );
            }
            all.0.entry(e.path.clone()).or_insert(e);
        }
        all
    })
}

proptest! {
    #[test]
    fn applied_plans_make_the_release_and_once_is_enough(have in a_tree(), want in a_tree()) {
        let none = filter(&[]);
        let rules = Rules { xattrs: true, ..deleting() };
        let plan = run(&have, &want, &rules, &none).expect("accepted");
        let after = apply(&have, &plan);
        let expected: Vec<TreePath> = want.0.keys().cloned().collect();
        prop_assert_eq!(after.0.keys().cloned().collect::<Vec<_>>(), expected);
        for (path, e) in &want.0 {
            prop_assert_eq!(&after.0[path].kind, &e.kind);
        }

        let again = run(&after, &want, &rules, &none).expect("accepted");
        prop_assert!(again.is_clean() && again.changes.is_empty(), "{:?}", shown(&again));
        prop_assert!(again.wants.is_empty());
    }

    #[test]
    fn what_is_protected_is_never_touched(
        have in a_tree(),
        want in a_tree(),
        exclude in any::<bool>(),
    ) {
        let patterns = ["a*", "/b/c", "*.d", "c/"];
        let (protect, rules) = if exclude {
            let excludes = patterns.iter().map(|t| Exclude::at_top(*t)).collect();
            (filter(&[]), Rules { excludes, ..deleting() })
        } else {
            (filter(&patterns), deleting())
        };

        let guarded = filter(&patterns);
        if let Ok(plan) = run(&have, &want, &rules, &protect) {
            let after = apply(&have, &plan);
            for (path, e) in &have.0 {
                let is_dir = e.kind == EntryKind::Directory;
                if guarded.matches(path, is_dir) {
                    prop_assert_eq!(after.0.get(path), Some(e), "{} was touched", path);
                    let mut parent = path.parent();
                    while let Some(above) = parent {
                        prop_assert_eq!(&after.0[&above].kind, &EntryKind::Directory);
                        parent = above.parent();
                    }
                }
            }
            for path in after.0.keys().filter(|path| !have.0.contains_key(*path)) {
                let is_dir = after.0[path].kind == EntryKind::Directory;
                prop_assert!(!guarded.matches(path, is_dir), "{} was made", path);
            }
        }
    }

    #[test]
    fn without_deletion_every_extra_stays(have in a_tree(), want in a_tree()) {
        let rules = Rules { delete_extras: false, ..deleting() };
        if let Ok(plan) = run(&have, &want, &rules, &filter(&[])) {
            prop_assert_eq!(plan.summary.deleted, 0);
            let after = apply(&have, &plan);
            prop_assert!(have.0.keys().all(|path| after.0.contains_key(path)));
            prop_assert!(want.0.keys().all(|path| after.0.contains_key(path)));
        }
    }

    #[test]
    fn every_block_is_fetched_or_found(have in a_tree(), want in a_tree()) {
        let plan = run(&have, &want, &deleting(), &filter(&[])).expect("accepted");
        let mut fetched = Vec::new();
        plan.each_fetched(&NoLists, |_, block| fetched.push(*block)).expect("no lists");

        for change in &plan.changes {
            let content = plan.content(&change);
            let blocks = content.map_or(Vec::new(), |content| direct(content).expect("blocks"));
            for block in &blocks {
                let fetched = fetched.contains(block);
                prop_assert!(fetched != plan.reuse.contains_key(&block.hash));
            }
        }

        let wanted: u64 = plan.wants.iter().map(|r| r.end - r.start).sum();
        prop_assert_eq!(wanted, fetched.len() as u64);
        prop_assert!(plan.wants.windows(2).all(|w| w[0].end < w[1].start));
    }
}

#[test]
fn changes_read_as_rsync_prints_them() {
    let with = |e: Entry, f: &dyn Fn(&mut Entry)| {
        let mut e = e;
        f(&mut e);
        e
    };

    let have = tree([
        dir("dir"),
        file("grown", "a"),
        file("gone", "x"),
        dir("kind"),
        entry("link", EntryKind::Symlink(b"old".to_vec())),
        file("mode", "m"),
        file("owner", "m"),
        file("silent", "a"),
        file("time", "t"),
        entry("timed-link", EntryKind::Symlink(b"x".to_vec())),
    ]);

    let want = tree([
        with(dir("dir"), &|e| e.mtime.secs = 8),
        with(file("grown", "ab"), &|e| e.mtime.secs = 8),
        file("kind", "now a file"),
        entry("link", EntryKind::Symlink(b"new".to_vec())),
        with(file("mode", "m"), &|e| e.mode = Mode::from_bits(0o600)),
        with(file("owner", "m"), &|e| {
            e.owner = Arc::new(Owner::nameless(5, 6))
        }),
        dir("new"),
        entry("new-dev", EntryKind::CharDevice(1, 3)),
        file("new-file", "n"),
        entry("new-hard", EntryKind::Hardlink(p("new-file"))),
        entry("new-link", EntryKind::Symlink(b"x".to_vec())),
        entry("new-pipe", EntryKind::Fifo),
        file("silent", "b"),
        with(file("time", "t"), &|e| e.mtime.secs = 8),
        with(
            entry("timed-link", EntryKind::Symlink(b"x".to_vec())),
            &|e| e.mtime.secs = 9,
        ),
    ]);

    let plan = run(&have, &want, &deleting(), &filter(&[])).expect("accepted");
    let expected = [
        ".d..t...... dir",
        "*deleting   gone",
        ">f.st...... grown",
        ">f+++++++++ kind",
        "cLc........ link",
        ".f...p..... mode",
        "cd+++++++++ new",
        "cD+++++++++ new-dev",
        ">f+++++++++ new-file",
        "hf+++++++++ new-hard",
        "cL+++++++++ new-link",
        "cS+++++++++ new-pipe",
        ".f....og... owner",
        ">fc........ silent",
        ".f..t...... time",
        ".L..t...... timed-link",
    ];

    assert_eq!(shown(&plan), expected);
}

#[test]
fn deletions_are_limited_by_the_stricter_of_release_and_host() {
    let have = tree([
        dir("d"),
        file("d/1", "1"),
        file("d/2", "2"),
        file("d/3", "3"),
    ]);

    let want = tree([dir("d"), file("d/1", "1")]);
    let try_limits = |release: Limit, host: Limit| {
        let rules = Rules {
            delete_max: release,
            ..deleting()
        };
        let host = HostRules {
            protect: &filter(&[]),
            spared: &[],
            max_delete: host,
            owners: &Names,
        };
        diff(&have, &Release(want.clone()), &rules, &[], &host).map(|plan| plan.summary.deleted)
    };

    assert!(matches!(try_limits(Limit::Share(5000), Limit::NONE), Ok(2)));
    assert!(matches!(
        try_limits(Limit::Count(2), Limit::Count(2)),
        Ok(2)
    ));
    let refused = try_limits(Limit::NONE, Limit::Count(1)).map_err(|e| e.to_string());
    assert_eq!(
        refused,
        Err("2 of 4 paths would be deleted, the host allows 1".to_string())
    );

    let refused = try_limits(Limit::Share(4900), Limit::NONE).map_err(|e| e.to_string());
    assert_eq!(
        refused,
        Err("2 of 4 paths would be deleted, the release allows 49%".to_string())
    );
}

#[test]
fn what_a_replaced_directory_holds_counts_as_deleted_and_may_not_be_protected() {
    let have = tree([dir("d"), file("d/1", "1"), file("d/2", "2")]);
    let want = tree([file("d", "file")]);
    let plan = run(&have, &want, &deleting(), &filter(&[])).expect("accepted");
    assert_eq!(plan.summary.deleted, 2);
    let refused = run(&have, &want, &deleting(), &filter(&["/d/2"]));
    assert!(matches!(
        refused,
        Err(Refusal::ReplacesProtected { at, path }) if at == p("d") && path == p("d/2")
    ));

    let keep = Rules {
        delete_extras: false,
        ..deleting()
    };

    assert!(matches!(
        run(&have, &want, &keep, &filter(&[])),
        Err(Refusal::NotEmpty { .. })
    ));
}

#[test]
fn directories_around_what_is_protected_stay() {
    let have = tree([
        dir("a"),
        dir("a/b"),
        file("a/b/keep", "k"),
        file("a/b/gone", "g"),
        file("a/z", "z"),
        dir("e"),
    ]);

    let plan = run(&have, &tree([]), &deleting(), &filter(&["keep"])).expect("accepted");
    let expected = [
        "*keeping    a",
        "*keeping    a/b",
        "*deleting   a/b/gone",
        "*deleting   a/z",
        "*deleting   e",
    ];

    assert_eq!(shown(&plan), expected);
}

#[test]
fn an_empty_release_is_refused_unless_it_says_so() {
    let have = tree([file("a", "1")]);
    let rules = Rules {
        allow_empty: false,
        ..deleting()
    };

    assert!(matches!(
        run(&have, &tree([]), &rules, &filter(&[])),
        Err(Refusal::Empty)
    ));
    assert!(run(&have, &tree([]), &deleting(), &filter(&[])).is_ok());
}

#[test]
fn the_scope_is_the_limit_of_everything() {
    let have = tree([
        dir("in"),
        file("in/old", "o"),
        dir("out"),
        file("out/x", "x"),
    ]);

    let mut top = dir("in");
    top.mode = Mode::from_bits(0o700);
    let want = tree([top, dir("in/deep"), file("in/deep/new", "n")]);
    let host = HostRules {
        protect: &filter(&[]),
        spared: &[],
        max_delete: Limit::NONE,
        owners: &Names,
    };

    let scoped =
        |scope: &[TreePath]| diff(&have, &Release(want.clone()), &deleting(), scope, &host);
    let plan = scoped(&[p("in/deep")]).expect("accepted");
    assert_eq!(
        shown(&plan),
        ["cd+++++++++ in/deep", ">f+++++++++ in/deep/new"]
    );

    let plan = scoped(&[p("in")]).expect("accepted");
    assert_eq!(plan.summary.deleted, 1);
    assert!(matches!(scoped(&[p("out")]), Err(Refusal::OutOfScope(_))));
}

#[test]
fn what_is_protected_above_the_scope_is_protected_in_it() {
    let have = tree([
        dir("up"),
        dir("up/in"),
        file("up/in/keep", "k"),
        file("up/in/same", "s"),
    ]);

    let protect = filter(&["/up/"]);
    let host = HostRules {
        protect: &protect,
        spared: &[],
        max_delete: Limit::NONE,
        owners: &Names,
    };

    for want in [
        tree([
            dir("up"),
            dir("up/in"),
            file("up/in/new", "n"),
            file("up/in/same", "t"),
        ]),
        tree([]),
    ] {
        let plan =
            diff(&have, &Release(want), &deleting(), &[p("up/in")], &host).expect("accepted");
        assert!(plan.changes.is_empty(), "{:?}", shown(&plan));
    }
}

#[test]
fn owners_are_resolved_or_refused() {
    let mut want = file("a", "1");
    want.owner = Arc::new(Owner {
        uid: 1,
        gid: 1,
        user: Some("nobody-here".into()),
        group: Some("www".into()),
    });

    let want = tree([want]);
    let refused = run(&tree([]), &want, &deleting(), &filter(&[]))
        .map_err(|e| e.to_string())
        .map(drop);
    assert_eq!(
        refused,
        Err("a: this host has no user \"nobody-here\"".to_string())
    );

    let numeric = Rules {
        unknown_owner: UnknownOwner::Numeric,
        ..deleting()
    };

    let plan = run(&tree([]), &want, &numeric, &filter(&[])).expect("accepted");
    assert_eq!(
        plan.changes.get(0).owner,
        LocalOwner {
            uid: Some(1),
            gid: Some(103)
        }
    );

    let ignored = Rules {
        set_user: false,
        set_group: false,
        ..deleting()
    };

    let plan = run(&tree([]), &want, &ignored, &filter(&[])).expect("accepted");
    assert_eq!(plan.changes.get(0).owner, LocalOwner::default());
}

#[test]
fn links_follow_their_file_when_it_is_made_anew() {
    let link = |path: &str, first: &str| entry(path, EntryKind::Hardlink(p(first)));
    let have = tree([file("a", "1"), link("b", "a"), file("c", "1")]);
    let same = tree([file("a", "1"), link("b", "a"), link("c", "a")]);
    let plan = run(&have, &same, &deleting(), &filter(&[])).expect("accepted");
    assert_eq!(shown(&plan), ["hf          c"]);
    let newer = tree([file("a", "22"), link("b", "a"), file("c", "1")]);
    let plan = run(&have, &newer, &deleting(), &filter(&[])).expect("accepted");
    assert_eq!(shown(&plan), [">f.s....... a", "hf          b"]);
    let split = tree([file("a", "1"), file("b", "1"), file("c", "1")]);
    let plan = run(&have, &split, &deleting(), &filter(&[])).expect("accepted");
    assert_eq!(plan.changes.len(), 1);
    assert!(plan.wants.is_empty() && plan.reuse.len() == 1);
    let refused = run(&tree([]), &same, &deleting(), &filter(&["/a"]));

    assert!(matches!(refused, Err(Refusal::LinkOutside { .. })));
}

#[test]
fn a_link_that_leads_to_no_file_of_the_release_is_refused() {
    let link = |path: &str, first: &str| entry(path, EntryKind::Hardlink(p(first)));
    let fifo = entry("p", EntryKind::Fifo);
    let whole = tree([file("a", "1"), link("b", "a"), fifo.clone(), link("q", "p")]);
    run(&tree([]), &whole, &deleting(), &filter(&[])).expect("accepted");
    let broken = [
        tree([link("b", "a")]),
        tree([file("a", "1"), link("b", "a"), link("c", "b")]),
        tree([entry("a", EntryKind::Directory), link("b", "a")]),
        tree([file("a", "1"), link("b", "a"), link("q", "p")]),
    ];

    for want in broken {
        for have in [tree([]), whole.clone()] {
            let refused = run(&have, &want, &deleting(), &filter(&[]))
                .map(drop)
                .expect_err("refused");
            assert!(matches!(refused, Refusal::LinkNowhere { .. }), "{refused}");
        }
    }
}

#[test]
fn an_owner_that_stands_for_none_or_cannot_be_looked_up_is_never_set() {
    let numeric = Rules {
        unknown_owner: UnknownOwner::Numeric,
        ..deleting()
    };

    let mut want = file("a", "x");
    for (user, what) in [
        (None, "4294967295"),
        (Some("nobody-here"), "nobody-here"),
        (Some("no-answer"), "answer"),
    ] {
        want.owner = Arc::new(Owner {
            uid: u32::MAX,
            gid: 1,
            user: user.map(Into::into),
            group: None,
        });
        let refused = run(
            &Memory::default(),
            &tree([want.clone()]),
            &numeric,
            &filter(&[]),
        )
        .map(drop)
        .unwrap_err();
        assert!(refused.to_string().contains(what), "{refused}");
    }
}

#[test]
fn the_time_of_a_directory_counts_where_every_name_in_it_is_governed() {
    let late = |mut entry: Entry| {
        entry.mtime.secs += 5;
        entry
    };

    let paths = |plan: &Plan| {
        plan.changes
            .iter()
            .map(|change| change.path.to_string())
            .collect::<Vec<_>>()
    };

    let have = || {
        tree([
            dir("d"),
            dir("d/logs"),
            file("d/logs/a", "a"),
            dir("e"),
            file("e/b", "b"),
        ])
    };

    let touched = |content: &str| {
        tree([
            late(dir("d")),
            late(dir("d/logs")),
            file("d/logs/a", "a"),
            late(dir("e")),
            file("e/b", content),
        ])
    };

    let excluding = |pattern: &str| Rules {
        excludes: vec![Exclude::at_top(pattern)],
        ..deleting()
    };

    let none = filter(&[]);

    // Without a pattern, or with one for another directory, an mtime is a difference.
    let plan = run(&have(), &touched("b"), &deleting(), &none).expect("accepted");
    assert_eq!(paths(&plan), ["d", "d/logs", "e"]);
    let plan = run(&have(), &touched("b"), &excluding("/d/logs/*.log"), &none).expect("accepted");
    assert_eq!(paths(&plan), ["d", "e"]);

    let plan = run(&have(), &touched("b"), &deleting(), &filter(&["/e/own"])).expect("accepted");
    assert_eq!(paths(&plan), ["d", "d/logs"]);

    // A pattern for any directory leaves all mtimes alone, on either side of the comparison.
    for (have, want) in [(have(), touched("b")), (touched("b"), have())] {
        let plan = run(&have, &want, &excluding("*.log"), &none).expect("accepted");
        assert!(
            plan.is_clean() && plan.changes.is_empty(),
            "{:?}",
            shown(&plan)
        );
    }

    // A commit that writes a name sets the directory's mtime as well; other metadata always counts.
    let plan = run(&have(), &touched("new"), &excluding("*.log"), &none).expect("accepted");

    assert_eq!(paths(&plan), ["e", "e/b"]);
    let plan = run(
        &tree([dir("d"), dir("e"), file("e/b", "b")]),
        &touched("b"),
        &excluding("*.log"),
        &none,
    );

    assert_eq!(paths(&plan.expect("accepted")), ["d", "d/logs", "d/logs/a"]);
    let mut other = have();
    other.0.get_mut(&p("e")).expect("there").mode = Mode::from_bits(0o700);
    let plan = run(&other, &touched("b"), &excluding("*.log"), &none).expect("accepted");
    assert_eq!(paths(&plan), ["e"]);

    // Excluded paths that are deleted all the same are governed.
    let all = Rules {
        delete_excluded: true,
        ..excluding("*.log")
    };

    assert_eq!(
        paths(&run(&have(), &touched("b"), &all, &none).expect("accepted")).len(),
        3
    );
}
