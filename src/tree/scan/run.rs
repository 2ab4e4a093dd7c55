//! Runs a scan: merges changes into the old index, or walks the whole tree.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::changes::TreeChanges;
use super::clock::to_mtime;
use super::collect::{Collected, Collector};
use super::context::{CloseAtEnd, ScanContext};
use super::describe::top_of;
use super::differences::{Difference, differences};
use super::errors::{stopped, unreadable, unreadable_index};
use super::ignore::IgnoreFilter;
use super::inode_names::paths_of_inodes;
use super::lister::Lister;
use super::options::ScanOptions;
use super::policy::ResolvedPolicy;
use super::read::FileReader;
use super::scanned::Scanned;
use super::work::NextJob;
use crate::manifest::{Mtime, Top};
use crate::tree::fs::root::{FileId, Root};
use crate::tree::fs::stat::FileStat;
use crate::tree::index::{Index, IndexWriter, Origin, is_dangling_link};
use crate::units::printable;
use crate::{Error, Result};

/// Number of rounds of completing the names of changed inodes before the tree is walked.
const MAX_ROUNDS: usize = 3;

/// Scans the tree `root` into a new index at `new_path`. Files known from `old` are not read.
///
/// # Errors
///
/// Problems of the tree (an unreadable or changing path) have [`Kind::Usage`](crate::Kind::Usage),
/// as for a sender's source; problems of the index have [`Kind::Io`](crate::Kind::Io).
pub fn scan(
    root: &Root,
    options: &ScanOptions,
    old: Option<&Arc<Index>>,
    new_path: &Path,
) -> Result<Scanned> {
    scan_with_written(root, options, old, None, new_path)
}

/// Like [`scan`], with a second index of files written since the last scan.
pub fn scan_with_written(
    root: &Root,
    options: &ScanOptions,
    old: Option<&Arc<Index>>,
    written: Option<&Index>,
    new_path: &Path,
) -> Result<Scanned> {
    let stat = FileStat::of(root).map_err(|e| unreadable(root.path(), e))?;
    let top = top_of(
        root,
        options,
        &ResolvedPolicy::new(&options.entries.policy)?,
        &stat,
    )?;
    let old = options.reuse.contents(old);
    let written = options.reuse.contents(written);
    let new = NewIndex {
        root,
        top,
        stat,
        written,
        path: new_path,
    };

    let mut linked = HashSet::new();

    for _ in 0..MAX_ROUNDS {
        let Some(old) = options.reuse.pages(old) else {
            break;
        };

        let changes = match differences(root, options, old, stat.version(), &linked)? {
            Difference::Unknown => break,
            Difference::Nothing => return Ok(Scanned::unchanged(Arc::clone(old), new.top)),
            Difference::Changes(changes) => changes,
        };

        match new.merged(options, old, changes)? {
            MergeResult::Whole(scanned) => return Ok(scanned),
            MergeResult::Lacks(names) => linked.extend(names),
            MergeResult::Broken => {
                tracing::warn!(
                    "the index of {} does not fit the tree: reading the whole tree",
                    root.path().display()
                );
                break;
            }
        }
    }

    new.walked(options, old)
}

/// A scan with a new index as its result.
struct NewIndex<'a> {
    root: &'a Root,
    top: Top,
    /// Stat of the root directory before the scan.
    stat: FileStat,
    /// Index of files written since the last scan.
    written: Option<&'a Index>,
    path: &'a Path,
}

/// Result of merging changes into an old index.
enum MergeResult {
    Whole(Scanned),
    /// New files are further names of these inodes, and the old index has names outside of the
    /// changes.
    Lacks(HashSet<FileId>),
    /// Dangling hard link: the old index does not fit the tree.
    Broken,
}

/// Result of writing a new index.
enum WriteResult {
    Whole(Scanned),
    /// Names of files are missing.
    Lacking,
    /// Dangling hard link.
    Broken,
}

impl NewIndex<'_> {
    fn merged(
        &self,
        options: &ScanOptions,
        old: &Arc<Index>,
        changes: TreeChanges,
    ) -> Result<MergeResult> {
        let inodes = changes.inodes.clone();
        let mut lacks = HashSet::new();
        let is_whole = |partial: &HashSet<FileId>| {
            lacks = partial.difference(&inodes).copied().collect();
            Ok(paths_of_inodes(old, &lacks)
                .map_err(unreadable_index)?
                .is_empty())
        };

        // A partial scan leaves unchecked paths as old as before.
        let started = if options.reuse.checks_all() {
            to_mtime(options.started)
        } else {
            old.started()
        };

        Ok(
            match self.write(options, started, Some(old), Some(changes), is_whole)? {
                WriteResult::Whole(scanned) => MergeResult::Whole(scanned),
                WriteResult::Lacking => MergeResult::Lacks(lacks),
                WriteResult::Broken => MergeResult::Broken,
            },
        )
    }

    /// Walks the whole tree without holding files back; `old` contributes only contents.
    fn walked(&self, options: &ScanOptions, old: Option<&Arc<Index>>) -> Result<Scanned> {
        let mut options = options.clone();
        options.reuse.hints = None;

        match self.write(&options, to_mtime(options.started), old, None, |_| Ok(true))? {
            WriteResult::Whole(scanned) => Ok(Scanned {
                walked: true,
                ..scanned
            }),
            WriteResult::Lacking => Err(stopped()),
            WriteResult::Broken => {
                let tree = printable(self.root.path().as_os_str().as_encoded_bytes());
                Err(Error::usage(format!(
                    "the hard links of a file in {tree} changed during the scan"
                ))
                .hint("try again when the tree no longer changes"))
            }
        }
    }

    /// Describes the changes or the whole tree and writes the index, unless `is_whole` rejects the
    /// incomplete inodes.
    fn write(
        &self,
        options: &ScanOptions,
        started: Mtime,
        old: Option<&Arc<Index>>,
        changes: Option<TreeChanges>,
        is_whole: impl FnOnce(&HashSet<FileId>) -> Result<bool>,
    ) -> Result<WriteResult> {
        let failed = |e| Error::io("cannot write the index", self.path, e);
        let writer = IndexWriter::create(self.path, self.root.id()).map_err(failed)?;
        let filter = Arc::new(IgnoreFilter::new(&options.paths.excludes));
        let context = ScanContext::new(
            self.root,
            options,
            ResolvedPolicy::new(&options.entries.policy)?,
            filter,
            Some(writer),
        );

        let Collected {
            stats,
            patterns,
            ignore_files,
            skipped,
            partial,
            top_passed_over,
        } = std::thread::scope(|scope| {
            let _close = CloseAtEnd(&context.jobs);
            for _ in 0..options.threads.max(1) {
                scope.spawn(|| run_worker(&context));
            }
            Collector::begin(&context, old.map(Arc::as_ref), self.written, changes)?.run()
        })?;

        options.pass_gap();
        if !is_whole(&partial)? {
            return Ok(WriteResult::Lacking);
        }

        let mut top = self.stat;
        if top_passed_over {
            top.forget_change();
        }

        let origin = Origin {
            started,
            options: options.fingerprint(),
            top: top.version(),
            owners: context.resolved.owners_met(),
            patterns: patterns.clone(),
            ignore_files,
            skipped: skipped
                .iter()
                .map(|s| (s.path.clone(), s.why.to_string()))
                .collect(),
            mounts: options.mounts.clone(),
        };

        let writer = context
            .writer
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let writer = writer.ok_or_else(|| failed(io::Error::other("no index is being written")))?;
        let index = match writer.finish(origin) {
            Err(e) if is_dangling_link(&e) => return Ok(WriteResult::Broken),
            index => Arc::new(index.map_err(failed)?),
        };

        let stats = stats.of(&index);

        Ok(WriteResult::Whole(Scanned {
            index,
            top: self.top.clone(),
            stats,
            ignore_rules: patterns,
            skipped,
            walked: false,
        }))
    }
}

fn run_worker(context: &ScanContext<'_>) {
    let mut lister = Lister::new(
        context.root,
        context.options,
        &context.children_ahead,
        &context.barred,
    );
    let mut reader = FileReader::new(context);
    while let Some(next) = context.jobs.next() {
        match next {
            NextJob::First(job) => job.run(|dir| lister.list(&dir)),
            NextJob::Second(job) => job.run(|batch| reader.read(batch)),
        }
    }
}
