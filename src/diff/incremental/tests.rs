//! Under any changes of tree and release, a comparison with a memory equals one without.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::diff::OwnerResolver;
use crate::diff::tests::protecting;
use crate::manifest::fixtures::{MemoryNodes, manifest_of};
use crate::manifest::rules::PathFilter;
use crate::manifest::{Entry, EntryKind, Mode, Mtime};
use crate::units::Limit;

type Files = BTreeMap<TreePath, Entry>;

struct Tree {
    files: Files,
    manifest: Manifest<MemoryNodes>,
    /// Number of entries read by parts.
    read: std::cell::Cell<usize>,
}

impl Tree {
    fn of(files: &Files) -> Self {
        Self {
            files: files.clone(),
            manifest: manifest_of(files.values().cloned()),
            read: Default::default(),
        }
    }
}

impl Have for Tree {
    fn entries(&self) -> Box<dyn Iterator<Item = crate::Result<Entry>> + '_> {
        Box::new(self.files.values().cloned().map(Ok))
    }

    fn blocks(&self, content: &Content) -> crate::Result<Vec<BlockRef>> {
        Want::blocks(&self.manifest, content)
    }

    fn paged(&self) -> Option<&dyn Paged> {
        Some(self)
    }
}

impl Paged for Tree {
    fn keys(&self) -> Vec<PageKey> {
        Pages::of(&self.manifest)
            .unwrap()
            .keys(&self.manifest)
            .unwrap()
    }

    fn count(&self) -> u64 {
        self.files.len() as u64
    }

    fn within(&self, bounds: &RangeInclusive<TreePath>) -> crate::Result<Vec<Entry>> {
        let found: Vec<Entry> = self
            .files
            .range(bounds.clone())
            .map(|(_, e)| e.clone())
            .collect();
        self.read.set(self.read.get() + found.len());
        Ok(found)
    }
}

struct Names;

impl OwnerResolver for Names {
    fn uid(&self, _: &str) -> crate::Result<Option<u32>> {
        Ok(Some(5))
    }
    fn gid(&self, _: &str) -> crate::Result<Option<u32>> {
        Ok(Some(5))
    }
}

fn host(protect: &PathFilter) -> HostRules<'_> {
    protecting(protect, &Names)
}

fn path(text: &str) -> TreePath {
    TreePath::new(text.as_bytes()).unwrap()
}

fn put(files: &mut Files, at: &str, kind: EntryKind, uid: u32) {
    let entry = Entry {
        path: path(at),
        kind,
        mode: Mode::from_bits(0o755),
        owner: Arc::new(Owner::nameless(uid, 0)),
        mtime: Mtime::default(),
        xattrs: Vec::new(),
    };

    files.insert(path(at), entry);
}

fn text(text: u8) -> EntryKind {
    EntryKind::File(Content::Blocks(vec![BlockRef::of(&[text])]))
}

/// Creates about ten directories, some of them nested, and thousands of files: about five pages.
fn base() -> Files {
    let mut files = Files::new();
    for dir in 0..8u32 {
        let name = if dir % 3 == 2 {
            format!("d{}/sub", dir - 1)
        } else {
            format!("d{dir}")
        };
        put(&mut files, &name, EntryKind::Directory, 0);
        for file in 0..700u32 {
            put(
                &mut files,
                &format!("{name}/{file:03}"),
                text((file % 251) as u8),
                0,
            );
        }
    }

    files
}

/// A change of one of the trees.
#[derive(Debug, Clone)]
enum Op {
    File(u8, u16, u8),
    Owner(u8, u16),
    Remove(u8, u16),
    Link(u8, u16, u16),
    RemoveDir(u8),
    NewDir(u8, u16),
    FileForDir(u8),
}

fn an_op() -> impl Strategy<Value = Op> {
    let file = || (0..8u8, 0..800u16);
    prop_oneof![
        6 => (0..8u8, 0..800u16, any::<u8>()).prop_map(|(d, f, t)| Op::File(d, f, t)),
        2 => file().prop_map(|(d, f)| Op::Owner(d, f)),
        3 => file().prop_map(|(d, f)| Op::Remove(d, f)),
        1 => (0..8u8, 0..400u16, 400..800u16).prop_map(|(d, f, t)| Op::Link(d, f, t)),
        1 => (0..8u8).prop_map(Op::RemoveDir),
        1 => file().prop_map(|(d, f)| Op::NewDir(d, f)),
        1 => (0..8u8).prop_map(Op::FileForDir),
    ]
}

fn remove_below(files: &mut Files, dir: &TreePath) {
    files.retain(|path, _| !path.is_within(dir));
}

fn apply(files: &mut Files, op: &Op) {
    let dir = |d: u8| {
        if d % 3 == 2 {
            format!("d{}/sub", d - 1)
        } else {
            format!("d{d}")
        }
    };

    let is_dir = |files: &Files, at: &str| {
        files
            .get(&path(at))
            .is_some_and(|e| e.kind == EntryKind::Directory)
    };

    match *op {
        Op::File(d, f, t) if is_dir(files, &dir(d)) => {
            let at = format!("{}/{f:03}", dir(d));
            remove_below(files, &path(&at));
            put(files, &at, text(t), 0);
        }
        Op::Owner(d, f) => {
            if let Some(entry) = files.get_mut(&path(&format!("{}/{f:03}", dir(d)))) {
                entry.owner = Arc::new(Owner::nameless(9, 0));
            }
        }
        Op::Remove(d, f) => remove_below(files, &path(&format!("{}/{f:03}", dir(d)))),
        Op::Link(d, f, t) if is_dir(files, &dir(d)) => {
            let first = path(&format!("{}/{f:03}", dir(d)));
            let at = format!("{}/{t:03}", dir(d));
            if files
                .get(&first)
                .is_some_and(|e| matches!(e.kind, EntryKind::File(_)))
            {
                remove_below(files, &path(&at));
                put(files, &at, EntryKind::Hardlink(first), 0);
            }
        }
        Op::RemoveDir(d) => remove_below(files, &path(&dir(d))),
        Op::NewDir(d, f) if is_dir(files, &dir(d)) => {
            let at = format!("{}/{f:03}", dir(d));
            remove_below(files, &path(&at));
            put(files, &at, EntryKind::Directory, 0);
            put(files, &format!("{at}/within"), text(1), 0);
        }
        Op::FileForDir(d)
            if dir(d)
                .split_once('/')
                .is_none_or(|(above, _)| is_dir(files, above)) =>
        {
            remove_below(files, &path(&dir(d)));
            put(files, &dir(d), text(2), 0);
        }
        _ => {}
    }

    // A hard link is dropped if its file is gone or became a hard link itself.
    let firsts: Files = files.clone();
    files.retain(|_, e| match &e.kind {
        EntryKind::Hardlink(first) => firsts
            .get(first)
            .is_some_and(|e| matches!(e.kind, EntryKind::File(_))),
        _ => true,
    });
}

fn rules() -> Rules {
    Rules {
        delete_extras: true,
        delete_max: Limit::NONE,
        allow_empty: true,
        ..Rules::default()
    }
}

/// Formats the result of a comparison, either way.
fn said(found: Result<Plan, Refusal>) -> String {
    match found {
        Ok(plan) => {
            let changes: Vec<_> = plan
                .changes
                .iter()
                .map(|c| (c.itemized(), c.path.clone(), c.want.clone()))
                .collect();
            let mut reuse: Vec<_> = plan.reuse.iter().map(|(h, l)| (*h, l.clone())).collect();
            reuse.sort_by_key(|(h, _)| *h);
            format!("{changes:?} {:?} {:?} {reuse:?}", plan.summary, plan.wants)
        }
        Err(refusal) => crate::Error::from(refusal).to_string(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 40,
        max_shrink_iters: 300,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_memory_changes_no_result(
        rounds in prop::collection::vec(
            (
                prop::collection::vec(an_op(), 0..3),
                prop::collection::vec(an_op(), 0..3),
                any::<bool>(),
            ),
            1..6,
        ),
        protected in prop::option::of(0..8u8),
    ) {
        let patterns: Vec<String> = protected.iter().map(|d| format!("/d{d}/")).collect();
        let protect = PathFilter::at_top(&patterns);
        let host = host(&protect);
        let mut have = base();
        let mut want = base();
        let mut memory = Memory::default();

        for (ours, theirs, deployed) in rounds {
            ours.iter().for_each(|op| apply(&mut have, op));
            theirs.iter().for_each(|op| apply(&mut want, op));
            let tree = Tree::of(&have);
            let release = manifest_of(want.values().cloned());
            let plain = crate::diff::diff(&tree, &release, &rules(), &[], &host);
            let again = memory.diff(&tree, &release, &rules(), &[], &host);
            prop_assert_eq!(said(again), said(plain));
            if deployed {
                have = want.clone();
            }
        }
    }
}

#[test]
fn only_the_pages_that_changed_are_read() {
    let none = PathFilter::default();
    let host = host(&none);

    let mut have = base();
    let mut want = base();
    let mut memory = Memory::default();
    let mut compare = |have: &Files, want: &Files| {
        let tree = Tree::of(have);
        let release = manifest_of(want.values().cloned());
        let plan = memory.diff(&tree, &release, &rules(), &[], &host).unwrap();
        (plan.changes.len(), tree.read.get())
    };

    assert_eq!(
        compare(&have, &want),
        (0, 0),
        "everything was read once, and not by parts"
    );

    assert_eq!(
        compare(&have, &want),
        (0, 0),
        "nothing changed, nothing is read"
    );

    put(&mut want, "d4/100", text(255), 0);
    let (changes, read) = compare(&have, &want);
    assert!(changes == 1 && read > 0 && read < 4000, "{read}");

    // A path that differed is compared again, applied or not.
    assert_eq!(compare(&have, &want), (1, 1));
    have = want.clone();
    let (changes, read) = compare(&have, &want);
    assert!(changes == 0 && read < 4000, "{read}");

    assert_eq!(compare(&have, &want), (0, 0));
}
