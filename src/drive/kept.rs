//! A kept release that can be read here: its entries, and the content of its files.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use crate::diff::{Have, HostRules, OwnerResolver, diff};
use crate::drive::drift::differences;
use crate::error::IoResultExt;
use crate::id::Ordinal;
use crate::manifest::pages::Pages;
use crate::manifest::read::{Located, Manifest, NodeSource, ReadError};
use crate::manifest::rules::{Layout, PathFilter, UnknownOwner};
use crate::manifest::{Content, Entry, EntryKind, Release, Rules, Top, TreePath};
use crate::outcome::DriftLine;
use crate::proto::RangeSet;
use crate::tree::{Blocks, LiveTree, StateReader, StoredRelease, StoredSource};
use crate::units::Limit;
use crate::{Error, Result};

/// Blocks read ahead from a distant source.
const READ_AHEAD: u64 = 256;

/// A kept release with its manifest and blocks.
pub struct KeptContent {
    /// The release, whose signature is not verified here.
    pub stored: StoredRelease,
    manifest: Manifest<Arc<dyn NodeSource>>,
    blocks: Box<dyn Blocks>,
}

impl KeptContent {
    /// The release `stored` of the tree at `path`, whose state is `records`.
    pub fn local(path: &Path, records: &StateReader, stored: StoredRelease) -> Result<Self> {
        let root = stored.release.header().root;
        let source = StoredSource::open(LiveTree::At(path.into()), records.clone(), root)?;
        let nodes = source.nodes();
        Ok(Self::new(stored, nodes, Box::new(source)))
    }

    /// A release with its `nodes`, and the `blocks` of its files.
    pub(super) fn new(
        stored: StoredRelease,
        nodes: Arc<dyn NodeSource>,
        blocks: Box<dyn Blocks>,
    ) -> Self {
        let manifest = Manifest::of(stored.release.header(), nodes);
        Self {
            stored,
            manifest,
            blocks,
        }
    }

    /// The release.
    pub fn release(&self) -> &Release {
        &self.stored.release
    }

    /// All entries in the order of their paths.
    pub fn entries(&self) -> impl Iterator<Item = Result<Entry>> {
        let entry = |located: Located| located.entry;
        self.manifest
            .entries()
            .map(move |found| found.map(entry).map_err(unreadable))
    }

    /// Writes the content of the file at `path`, as soon as each block is read and verified.
    pub fn write_file(&mut self, path: &TreePath, out: &mut dyn Write) -> Result<()> {
        let located = self.file(path)?;
        let EntryKind::File(content) = &located.entry.kind else {
            return Err(self.no_file(path, &located.entry));
        };

        let first = located.first.0;
        let end = first + content.block_count();
        let mut bytes = Vec::new();
        for ordinal in first..end {
            if (ordinal - first).is_multiple_of(READ_AHEAD) {
                let mut ahead = RangeSet::default();
                ahead.insert(ordinal..end.min(ordinal + READ_AHEAD));
                self.blocks.expect(&ahead);
            }
            bytes.clear();
            let read = self.blocks.read(Ordinal(ordinal), &mut bytes);
            let what = || format!("cannot read {path} of {}", self.stored.release);
            read.map_err(|e| Error::refused(what()).because(e))?;
            out.write_all(&bytes).io_context("cannot write")?;
        }

        out.flush().io_context("cannot write")
    }

    /// The file at `path`, by its first name if it is a hard link.
    fn file(&self, path: &TreePath) -> Result<Located> {
        let pages = Pages::of(&self.manifest).map_err(unreadable)?;
        let find = |path: &TreePath| pages.find(&self.manifest, path).map_err(unreadable);
        let release = &self.stored.release;
        let none = || Error::refused(format!("{release} has no {path}"));
        let located = find(path)?.ok_or_else(none)?;
        match &located.entry.kind {
            EntryKind::Hardlink(first) => find(first)?.ok_or_else(none),
            _ => Ok(located),
        }
    }

    fn no_file(&self, path: &TreePath, entry: &Entry) -> Error {
        let release = &self.stored.release;
        let what = match &entry.kind {
            EntryKind::Directory => "a directory".to_string(),
            EntryKind::Symlink(target) => {
                let target = crate::units::printable(target);
                format!("a symbolic link to {target}")
            }
            _ => "no regular file".to_string(),
        };
        Error::refused(format!("{path} of {release} is {what}"))
            .hint(format!("`makuo show -v {release}` lists its entries"))
    }
}

/// The differences of `new` from `old`, in the order of paths.
pub fn changes(old: &KeptContent, new: &KeptContent) -> Result<Vec<DriftLine>> {
    let rules = Rules {
        delete_extras: true,
        delete_max: Limit::NONE,
        allow_empty: true,
        delete_excluded: true,
        unknown_owner: UnknownOwner::Numeric,
        layout: Layout::InPlace,
        excludes: Vec::new(),
        packed: None,
        ..new.release().header().rules.clone()
    };
    let host = HostRules {
        protect: &PathFilter::default(),
        spared: &[],
        max_delete: Limit::NONE,
        reports_limits: false,
        owners: &ByNumber,
    };

    let scope = &new.release().header().scope;
    let plan = diff(&Earlier(&old.manifest), &new.manifest, &rules, scope, &host);
    let plan = plan.map_err(|refusal| Error::refused(refusal.to_string()))?;
    Ok(differences(&plan).collect())
}

/// The earlier release in the place of a host's tree.
struct Earlier<'a>(&'a Manifest<Arc<dyn NodeSource>>);

impl Have for Earlier<'_> {
    fn entries(&self) -> Box<dyn Iterator<Item = Result<Entry>> + '_> {
        let entry = |located: Located| located.entry;
        let found = self.0.entries();
        Box::new(found.map(move |found| found.map(entry).map_err(unreadable)))
    }

    fn blocks(&self, content: &Content) -> Result<Vec<crate::block::BlockRef>> {
        self.0.blocks(content).map_err(unreadable)
    }

    fn top(&self) -> Option<&Top> {
        self.0.top()
    }
}

/// Compares owners by their numbers in both releases.
struct ByNumber;

impl OwnerResolver for ByNumber {
    fn uid(&self, _: &str) -> Result<Option<u32>> {
        Ok(None)
    }

    fn gid(&self, _: &str) -> Result<Option<u32>> {
        Ok(None)
    }
}

fn unreadable(e: ReadError) -> Error {
    Error::refused("the manifest of the release cannot be read").because(e)
}
