//! Plans applied to trees in memory: the trees become the release, and nothing else happens.

mod any_trees;
mod dir_times;
mod itemized;
mod limits;
mod links;
mod owners;

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::id::Ordinal;
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

impl BlockLists for NoLists {
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

fn host(protect: &PathFilter) -> HostRules<'_> {
    protecting(protect, &Names)
}

/// Rules of a host that protects paths and sets no limit.
pub(super) fn protecting<'a>(
    protect: &'a PathFilter,
    owners: &'a dyn OwnerResolver,
) -> HostRules<'a> {
    HostRules {
        protect,
        spared: &[],
        max_delete: Limit::NONE,
        reports_limits: false,
        owners,
    }
}

fn run(have: &Memory, want: &Memory, rules: &Rules, protect: &PathFilter) -> Result<Plan, Refusal> {
    let release = Release(want.clone());
    diff(have, &release, rules, &[], &host(protect))
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
