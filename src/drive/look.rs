//! A host's look at its own tree before it is compared with a release: on a thread of its own, since the manifest is
//! still on its way.

use std::collections::{BTreeSet, HashMap};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;

use super::clock;
use super::disk::ManagedTree;
use super::spared::spared;
use crate::diff::Paged;
use crate::error::{Error, Kind, Result};
use crate::manifest::pages::{PageKey, Pages, differing};
use crate::manifest::read::Manifest;
use crate::manifest::{Entry, Header, Release, TreePath};
use crate::proto::receiver::ScanMode;
use crate::tree::index::Index;
use crate::tree::scan::{Hints, ScanOptions, Scanned, scan_with_written};
use crate::tree::{NodeStore, Rights, Tree};

/// A look that is being taken. Dropping it waits for its end: nothing looks at a tree that another session changes.
#[derive(Debug)]
pub struct Look {
    thread: Option<JoinHandle<Result<Scanned>>>,
}

impl Look {
    /// Begins to look at what `release` governs; as closely as `how` says, and until `stop` is set.
    pub fn begin(
        managed: &ManagedTree,
        release: &Release,
        how: ScanMode,
        stop: Option<&Arc<AtomicBool>>,
    ) -> Result<Self> {
        let options = ScanOptions {
            stop: stop.cloned(),
            ..options(managed, release, how.checksum)?
        };

        let release = how.quick.then(|| release.clone());
        let tree = Arc::clone(&managed.tree);
        let thread = std::thread::Builder::new()
            .name("look".into())
            .spawn(move || take(&tree, options, release.as_ref()))
            .map_err(|e| Error::new(Kind::Io, "this host cannot start a thread").because(e))?;

        Ok(Self {
            thread: Some(thread),
        })
    }

    /// What is there, when the look is over.
    pub fn end(mut self) -> Result<Scanned> {
        let thread = self.thread.take().map(JoinHandle::join);
        thread.and_then(std::result::Result::ok).unwrap_or_else(|| {
            Err(Error::new(
                Kind::Io,
                "a defect in makuo on this host: the thread that looks at the tree failed",
            ))
        })
    }
}

impl Drop for Look {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What the comparison leaves alone is listed, so that the directories around it are known to hold it, and not read.
fn options(managed: &ManagedTree, release: &Release, checksum: bool) -> Result<ScanOptions> {
    let rules = &release.header().rules;
    let mut options = ScanOptions::new(clock::wall());
    options.scope.clone_from(&release.header().scope);
    options.xattrs = rules.xattrs;
    options.hardlinks = rules.hardlinks;
    options.checksum = checksum;
    options.opens_barred = !Rights::of_process().overrides_modes();

    // No part of the tree, even if someone put the tree's root above it.
    options.apart = managed.tree.state().apart();
    options.closed.push(managed.protect.clone());
    options
        .closed
        .extend(spared(&managed.tree, release.header())?);
    let excluded = rules.excluded().map_err(Error::refused)?;

    // What is to be deleted has to be known to the last path, but by its name only.
    if rules.delete_excluded {
        &mut options.unhashed
    } else {
        &mut options.closed
    }
    .push(excluded);

    Ok(options)
}

/// With `quick`, the new release, only where that can differ from the tree.
fn take(tree: &Tree, mut options: ScanOptions, quick: Option<&Release>) -> Result<Scanned> {
    let (path, id) = (tree.index_path(), tree.root().id());
    let old = Index::open(&path, id).map(Arc::new);
    options.whole = tree.is_doubted();
    options.hints = quick
        .filter(|_| !options.whole)
        .zip(old.as_ref())
        .and_then(|(new, old)| hints(tree, old, new.header()));

    let options = &options;
    let written = Index::open(&tree.written_path(), id);
    if !options.scope.is_empty() {
        // A look at a part of the tree does not take the place of what is known of all of it.
        return scan_with_written(
            &tree.root(),
            options,
            old.as_ref(),
            written.as_ref(),
            &path.with_extension("scope"),
        );
    }

    let scanned = scan_with_written(&tree.root(), options, old.as_ref(), written.as_ref(), &path)?;
    tree.trust_index();
    if written.is_some() {
        // Another one is written over one that stays.
        let _ = std::fs::remove_file(tree.written_path());
    }

    Ok(scanned)
}

/// Where the tree may be otherwise than its index says, as far as releases tell: where index, present release and the
/// new one differ. `None`: that cannot be told, and everything is looked at.
fn hints(tree: &Tree, index: &Index, new: &Header) -> Option<Hints> {
    let current = tree.current().ok()??.release;
    let found = differences(index, current.header(), new, tree.nodes());
    let paths = found
        .inspect_err(|e| tracing::debug!("tree {}: all of it is looked at: {e}", tree.name()))
        .ok()?;
    Some(Hints {
        paths,
        ..Hints::default()
    })
}

/// The paths that are not the same in the index, in the present release and in the new one.
fn differences(
    index: &Index,
    present: &Header,
    new: &Header,
    nodes: &NodeStore,
) -> Result<BTreeSet<TreePath>> {
    let unreadable = |e| Error::new(Kind::Io, "a manifest cannot be read").because(e);
    let table =
        |manifest: &Manifest<&NodeStore>, known: &[PageKey]| -> Result<(Pages, Vec<PageKey>)> {
            let pages = Pages::of(manifest).map_err(unreadable)?;
            // Of pages that were seen already nothing is read.
            pages.learn(known);
            let keys = pages.keys(manifest).map_err(unreadable)?;
            Ok((pages, keys))
        };

    let (is, was) = (index.keys(), Manifest::of(present, nodes));
    let (was_pages, was_keys) = table(&was, &is)?;
    let wanted = Manifest::of(new, nodes);
    let (wanted_pages, wanted_keys) = table(&wanted, &was_keys)?;
    let mut paths = BTreeSet::new();
    let mut unlike = |one: Vec<Entry>, other: Vec<Entry>| {
        let mut other: HashMap<TreePath, Entry> =
            other.into_iter().map(|e| (e.path.clone(), e)).collect();
        paths.extend(
            one.into_iter()
                .filter(|e| other.remove(&e.path).as_ref() != Some(e))
                .map(|e| e.path),
        );
        paths.extend(other.into_keys());
    };

    let some = |manifest: &Manifest<&NodeStore>,
                pages: &Pages,
                range: &RangeInclusive<TreePath>|
     -> Result<Vec<Entry>> {
        let found = pages.some(manifest, range).map_err(unreadable)?;
        Ok(found.into_iter().map(|located| located.entry).collect())
    };

    for range in differing(&is, &was_keys) {
        unlike(index.within(&range)?, some(&was, &was_pages, &range)?);
    }

    for range in differing(&was_keys, &wanted_keys) {
        unlike(
            some(&was, &was_pages, &range)?,
            some(&wanted, &wanted_pages, &range)?,
        );
    }

    Ok(paths)
}
