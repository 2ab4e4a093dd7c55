//! A host's scan of its tree before a comparison, on a separate thread, while the manifest is still
//! arriving.

use std::collections::{BTreeSet, HashMap};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;

use super::managed::ManagedTree;
use super::rules::TreeRules;
use super::spared::spared;
use crate::diff::Paged;
use crate::drive::clock;
use crate::error::{Error, Kind, Result};
use crate::manifest::pages::{PageKey, Pages, differing};
use crate::manifest::read::Manifest;
use crate::manifest::{Entry, Header, Release, TreePath};
use crate::proto::receiver::ScanMode;
use crate::tree::index::Index;
use crate::tree::scan::{Hints, ScanOptions, Scanned, scan_with_written};
use crate::tree::{NodeStore, Rights, Tree};

/// A scan in progress. Dropping waits for the end, so the next session finds the tree at rest.
#[derive(Debug)]
pub struct ScanTask {
    thread: Option<JoinHandle<Result<Scanned>>>,
}

impl ScanTask {
    /// Starts to scan the paths that `release` governs, in the mode `how`, until `stop` is set.
    pub fn begin(
        managed: &ManagedTree,
        rules: &TreeRules,
        release: &Release,
        how: ScanMode,
        stop: Option<&Arc<AtomicBool>>,
    ) -> Result<Self> {
        let options = ScanOptions {
            stop: stop.cloned(),
            ..options(managed, rules, release, how.checksum)?
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

    /// Waits for the result.
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

impl Drop for ScanTask {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Scan options for `release`: paths exempt from the comparison are listed but not read, so that
/// the directories around them are known to hold them.
fn options(
    managed: &ManagedTree,
    own: &TreeRules,
    release: &Release,
    checksum: bool,
) -> Result<ScanOptions> {
    let rules = &release.header().rules;
    let mut options = ScanOptions::new(clock::wall());
    options.paths.scope.clone_from(&release.header().scope);
    options.entries.xattrs = rules.xattrs;
    options.entries.hardlinks = rules.hardlinks;
    options.reuse.checksum = checksum;
    options.opens_barred = !Rights::of_process().overrides_modes();

    // The state is no part of the tree, even if it lies below the tree's root.
    options.paths.apart = managed.tree.state().apart();
    options.paths.closed.push(own.protect.clone());
    options
        .paths
        .closed
        .extend(spared(&managed.tree, release.header())?);
    let excluded = rules.excluded().map_err(Error::refused)?;

    // Paths to be deleted have to be listed completely, but by name only.
    if rules.delete_excluded {
        &mut options.paths.unhashed
    } else {
        &mut options.paths.closed
    }
    .push(excluded);

    Ok(options)
}

/// Scans the tree; for the `quick` new release only where the two can differ.
fn take(tree: &Tree, mut options: ScanOptions, quick: Option<&Release>) -> Result<Scanned> {
    let path = tree.index_path();
    let id = tree.root().id();
    let old = Index::open(&path, id).map(Arc::new);
    options.reuse.whole = tree.is_doubted();
    options.reuse.hints = quick
        .filter(|_| !options.reuse.whole)
        .zip(old.as_ref())
        .and_then(|(new, old)| hints(tree, old, new.header()));

    let options = &options;
    let written = Index::open(&tree.written_path(), id);
    if !options.paths.scope.is_empty() {
        // A partial scan must not replace the index of the whole tree.
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
        // A remaining file is overwritten later.
        let _ = std::fs::remove_file(tree.written_path());
    }

    Ok(scanned)
}

/// Paths where index, current release and new release differ; `None` to scan everything.
fn hints(tree: &Tree, index: &Index, new: &Header) -> Option<Hints> {
    let current = tree.current().ok()??.release;
    let found = differences(index, current.header(), new, tree.nodes());
    let paths = found
        .inspect_err(|e| tracing::debug!("tree {}: scanning all of it: {e}", tree.name()))
        .ok()?;
    Some(Hints {
        paths,
        ..Hints::default()
    })
}

/// Paths not equal in index, current release and new release.
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
            // Known pages need not be read.
            pages.learn(known);
            let keys = pages.keys(manifest).map_err(unreadable)?;
            Ok((pages, keys))
        };

    let is = index.keys();
    let was = Manifest::of(present, nodes);
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
