//! The scan: a tree on disk to sorted entries with their content as blocks, in an [`Index`].
//!
//! One thread walks, merges what it finds with the old index and writes the new one; the others list directories and
//! read files ahead of it. What is held in memory is a window of that, never the tree. The content of a file whose stat
//! has not changed since the last scan is not read, unless it changed so close to that scan that its stat could not
//! tell (git's "racily clean" entries).
//!
//! Where the old index was made in the same way, nothing is walked: every path of it is looked at ([`compare`]), only
//! what differs is described anew ([`changes`]), and its pages go over as they are ([`merge`]). Where nothing differs the
//! old index stays.
//!
//! It must not know what the entries are for: a sender's release and a host's own tree are scanned alike.

mod changes;
mod collect;
mod compare;
mod content;
mod exposed;
#[cfg(test)]
mod git_tests;
mod hints;
mod ignore;
mod looks;
mod mapped;
mod merge;
mod names;
mod policy;
mod read;
#[cfg(test)]
mod tests;
mod walk;
mod work;

use std::borrow::Cow;
use std::collections::HashSet;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use self::changes::Changes;
use self::collect::{Collected, Collector};
pub(super) use self::content::holds;
pub use self::exposed::{Exposed, Exposures};
pub use self::hints::Hints;
use self::hints::Spots;
use self::ignore::Filter;
pub use self::ignore::IgnoreFiles;
pub use self::looks::Looks;
pub(super) use self::looks::is_racy;
use self::policy::Released;
pub use self::policy::{OwnerPolicy, Policy};
use self::read::{Batch, BatchDone, Reader};
use self::walk::{ListJob, Lister, Listing};
use self::work::{Next, Queue};
use super::fs::dir_access::OpenedDirs;
use super::fs::root::{FileId, Root};
use super::fs::stat::{FileStat, Version};
use super::fs::xattrs::XattrReader;
pub use super::index::unread;
use super::index::{Index, IndexWriter, Origin, is_linked_nowhere};
use crate::block::BlockHash;
use crate::manifest::node::to_vec;
use crate::manifest::path::is_within;
use crate::manifest::rules::{Exclude, PathFilter, check_excludes};
use crate::manifest::{Mtime, Top, TreePath};
use crate::units::printable;
use crate::{Error, Kind, Result};

/// A batch of entries is handed to a thread when it has this many,
const BATCH_ENTRIES: usize = 256;
/// or this many bytes to be read.
const BATCH_BYTES: u64 = 4 << 20;
/// How often changes are looked for that turn out to be names of further files, before the tree is walked.
const MAX_ROUNDS: usize = 3;
/// Coarse clocks stamp files up to this much too early: a tick of 10 ms, and as much again.
pub(super) const TICK: Duration = Duration::from_millis(20);
/// As [`TICK`] where the file system keeps whole seconds (or FAT's two).
const COARSE_TICK: Duration = Duration::from_secs(2);

/// The version of what patterns mean: an index that was made by other rules is not taken for one of these.
const PATTERN_DIALECT: &str = "git";

/// What is scanned, and how.
#[derive(Debug, Clone)]
pub struct ScanOptions {
    /// Patterns of what is left out; ignore files in the tree decide over them.
    pub excludes: Vec<Exclude>,
    /// Which files in the tree leave out more.
    pub ignore_files: IgnoreFiles,
    /// Only these paths, what is below them and the directories above them; empty is the whole tree.
    pub scope: Vec<TreePath>,
    /// Directories that do not belong to the tree wherever they are met: the state directory.
    pub apart: Vec<FileId>,
    /// Whether directories in which makuo keeps a tree's state are left out: they are nobody's content.
    pub without_state: bool,
    /// What is listed and not looked into: a directory without what is in it, a file without its content ([`unread`]).
    pub closed: Vec<PathFilter>,
    /// What is listed, with all that is below it, and not read: files without their content ([`unread`]).
    pub unhashed: Vec<PathFilter>,
    /// Of what is no directory, only what belongs to the user with this number; the rest is skipped as [`FOREIGN`].
    pub owner: Option<u32>,
    /// Whether extended attributes are read.
    pub xattrs: bool,
    /// Whether names of one inode become hard links (else each is a file of its own).
    pub hardlinks: bool,
    /// Whether directories that bar this user, their owner, are opened for as long as the scan takes.
    pub opens_barred: bool,
    /// What entries say differently from the tree.
    pub policy: Policy,
    /// Where the tree may be otherwise than its index says, when that is known.
    pub hints: Option<Hints>,
    /// Where files are told of that can change unheard, when somebody wants to know.
    pub exposures: Option<Exposures>,
    /// Whether every file is read, whatever its stat says.
    pub checksum: bool,
    /// Paths at which something is mounted, for the index to remember.
    pub mounts: Vec<TreePath>,
    /// Whether the tree is walked, whatever its index says: only contents are taken from that.
    pub whole: bool,
    /// How many threads read; at least one.
    pub threads: usize,
    /// Ends the scan early, with an error, once it is set.
    pub stop: Option<Arc<AtomicBool>>,
    /// The time now, before the scan.
    pub started: SystemTime,
    /// What happens in the gaps of the scan.
    #[cfg(test)]
    pub gap: Gap,
}

impl ScanOptions {
    /// Everything below the root, hard links kept, no ignore files, on all cores; the scan begins at `started`.
    pub fn new(started: SystemTime) -> Self {
        Self {
            excludes: Vec::new(),
            ignore_files: IgnoreFiles::None,
            scope: Vec::new(),
            apart: Vec::new(),
            without_state: false,
            closed: Vec::new(),
            unhashed: Vec::new(),
            owner: None,
            xattrs: false,
            hardlinks: true,
            opens_barred: false,
            policy: Policy::default(),
            hints: None,
            exposures: None,
            checksum: false,
            mounts: Vec::new(),
            whole: false,
            threads: std::thread::available_parallelism().map_or(2, |n| n.get()),
            stop: None,
            started,
            #[cfg(test)]
            gap: Gap::default(),
        }
    }

    /// The name of everything that decides what an index holds.
    fn name(&self) -> BlockHash {
        let ids: Vec<(u64, u64)> = self.apart.iter().map(|id| (id.dev, id.ino)).collect();
        let patterns =
            |filters: &[PathFilter]| filters.iter().map(PathFilter::patterns).collect::<Vec<_>>();
        BlockHash::of(&to_vec(&(
            (PATTERN_DIALECT, self.without_state),
            (&self.excludes, self.ignore_files as u8, &self.scope, ids),
            (
                patterns(&self.closed),
                patterns(&self.unhashed),
                self.xattrs,
                self.hardlinks,
                &self.policy,
                self.owner,
            ),
        )))
    }

    /// Lets a test do something between two steps of the scan.
    fn pass_gap(&self) {
        #[cfg(test)]
        self.gap.pass();
    }

    fn is_stopped(&self) -> bool {
        self.stop
            .as_ref()
            .is_some_and(|stop| stop.load(Ordering::Acquire))
    }

    fn in_scope(&self, path: &TreePath, is_dir: bool) -> bool {
        self.scope.is_empty()
            || self
                .scope
                .iter()
                .any(|s| path.is_within(s) || (is_dir && is_within(s.as_bytes(), path.as_bytes())))
    }
}

/// What a test does in the gaps of a scan, on any of its threads.
#[cfg(test)]
#[derive(Clone, Default)]
pub struct Gap(pub Option<Arc<dyn Fn() + Send + Sync>>);

#[cfg(test)]
impl Gap {
    /// Does it.
    pub fn pass(&self) {
        if let Some(happen) = &self.0 {
            happen();
        }
    }
}

#[cfg(test)]
impl std::fmt::Debug for Gap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gap")
    }
}

/// Why something was skipped that [`ScanOptions::owner`] leaves out.
pub const FOREIGN: &str = "it belongs to another user";

/// A path that was left out because no manifest can hold it, or because it belongs to another user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The path.
    pub path: TreePath,
    /// Why, as a clause.
    pub why: Cow<'static, str>,
}

/// What a scan found and did. How much the tree holds: [`Index::totals`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScanStats {
    /// Bytes that were read and hashed.
    pub hashed_bytes: u64,
    /// Files that were read.
    pub hashed_files: u64,
    /// Files whose content was known from the old index.
    pub reused_files: u64,
}

/// A finished scan.
#[derive(Debug)]
pub struct Scanned {
    /// The entries, as often as wanted.
    pub index: Arc<Index>,
    /// The tree's own directory, as it was when the scan began.
    pub top: Top,
    /// What the scan did.
    pub stats: ScanStats,
    /// The patterns of the ignore files in the tree: they belong after the options' excludes in the signed rules.
    pub ignore_rules: Vec<Exclude>,
    /// Paths that were left out because no manifest can hold them.
    pub skipped: Vec<Skipped>,
    /// Whether every path was looked at; else an older index was believed where nothing seemed to have changed.
    pub walked: bool,
}

/// Scans the tree `root`, reading only what `old` does not know, into a new index at `new_path`.
///
/// # Errors
/// What is wrong with the tree (a path that cannot be read or keeps changing) is of [`Kind::Usage`], as for a sender's
/// source; what is wrong with the index is of [`Kind::Io`].
pub fn scan(
    root: &Root,
    options: &ScanOptions,
    old: Option<&Arc<Index>>,
    new_path: &Path,
) -> Result<Scanned> {
    scan_knowing(root, options, old, None, new_path)
}

/// As [`scan`], with a second index, that of files which were written since.
pub fn scan_knowing(
    root: &Root,
    options: &ScanOptions,
    old: Option<&Arc<Index>>,
    written: Option<&Index>,
    new_path: &Path,
) -> Result<Scanned> {
    let stat = FileStat::of(root).map_err(|e| unreadable(root.path(), e))?;
    let top = top_of(root, options, &Released::new(&options.policy)?, &stat)?;
    let old = old.filter(|_| !options.checksum);
    let written = written.filter(|_| !options.checksum);
    let new = New {
        root,
        top,
        stat,
        written,
        path: new_path,
    };

    let mut linked = HashSet::new();

    for _ in 0..MAX_ROUNDS {
        let Some(old) = old.filter(|_| !options.whole) else {
            break;
        };
        let changes = match differences(root, options, old, stat.version(), &linked)? {
            Found::Unknown => break,
            Found::Nothing => return Ok(Scanned::unchanged(Arc::clone(old), new.top)),
            Found::Changes(changes) => changes,
        };
        match new.merged(options, old, changes)? {
            Merged::Whole(scanned) => return Ok(scanned),
            Merged::Lacks(names) => linked.extend(names),
            Merged::Broken => {
                tracing::warn!(
                    "the index of {} does not fit the tree: it is read anew",
                    root.path().display()
                );
                break;
            }
        }
    }

    new.walked(options, old)
}

/// A scan that is written to a new index.
struct New<'a> {
    root: &'a Root,
    top: Top,
    /// The tree's own directory, before the scan.
    stat: FileStat,
    /// An index of files that were written since the last scan.
    written: Option<&'a Index>,
    path: &'a Path,
}

/// An index and what changed since, as a new index.
enum Merged {
    Whole(Scanned),
    /// New files are further names of these inodes, which the index has under names that were not looked at.
    Lacks(HashSet<FileId>),
    /// A hard link leads nowhere: the old index does not fit the tree.
    Broken,
}

/// What writing a new index came to.
enum Written {
    Whole(Scanned),
    /// Names of files are missing.
    Lacking,
    /// A hard link leads nowhere.
    Broken,
}

impl New<'_> {
    fn merged(&self, options: &ScanOptions, old: &Arc<Index>, changes: Changes) -> Result<Merged> {
        let unreadable = |e| Error::new(Kind::Io, "the index cannot be read").because(e);
        let inodes = changes.inodes.clone();
        let mut lacks = HashSet::new();
        let is_whole = |partial: &HashSet<FileId>| {
            lacks = partial.difference(&inodes).copied().collect();
            Ok(names::names_of(old, &lacks).map_err(unreadable)?.is_empty())
        };

        // What was not looked at is as old as it was.
        let all = options
            .hints
            .as_ref()
            .is_none_or(|hints| hints.everywhere.is_some() && hints.held.is_empty());

        let started = if all {
            wall(options.started)
        } else {
            old.started()
        };

        Ok(
            match self.write(options, started, Some(old), Some(changes), is_whole)? {
                Written::Whole(scanned) => Merged::Whole(scanned),
                Written::Lacking => Merged::Lacks(lacks),
                Written::Broken => Merged::Broken,
            },
        )
    }

    /// Walks the whole tree; only contents are taken from `old`, and nothing is held back.
    fn walked(&self, options: &ScanOptions, old: Option<&Arc<Index>>) -> Result<Scanned> {
        let options = ScanOptions {
            hints: None,
            ..options.clone()
        };

        match self.write(&options, wall(options.started), old, None, |_| Ok(true))? {
            Written::Whole(scanned) => Ok(Scanned {
                walked: true,
                ..scanned
            }),
            Written::Lacking => Err(Error::new(Kind::Io, "the scan was stopped")),
            Written::Broken => {
                let tree = printable(self.root.path().as_os_str().as_encoded_bytes());
                Err(Error::usage(format!(
                    "names of one file in {tree} change while they are read"
                ))
                .hint("try again when it is at rest"))
            }
        }
    }

    /// Describes what changed, or the whole tree, and writes the index, unless `is_whole` says that names of these inodes
    /// are missing.
    fn write(
        &self,
        options: &ScanOptions,
        started: Mtime,
        old: Option<&Arc<Index>>,
        changes: Option<Changes>,
        is_whole: impl FnOnce(&HashSet<FileId>) -> Result<bool>,
    ) -> Result<Written> {
        let failed = |e| Error::io("cannot write the index", self.path, e);
        let writer = IndexWriter::create(self.path, self.root.id()).map_err(failed)?;
        let filter = Arc::new(Filter::new(&options.excludes));
        let shared = Shared::new(
            self.root,
            options,
            Released::new(&options.policy)?,
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
            let _close = CloseAtEnd(&shared.jobs);
            for _ in 0..options.threads.max(1) {
                scope.spawn(|| work(&shared));
            }
            Collector::begin(&shared, old.map(Arc::as_ref), self.written, changes)?.run()
        })?;

        options.pass_gap();
        if !is_whole(&partial)? {
            return Ok(Written::Lacking);
        }

        let mut top = self.stat;
        if top_passed_over {
            top.forget_change();
        }

        let origin = Origin {
            started,
            options: options.name(),
            top: top.version(),
            owners: shared.released.met(),
            patterns: patterns.clone(),
            ignore_files,
            skipped: skipped
                .iter()
                .map(|s| (s.path.clone(), s.why.to_string()))
                .collect(),
            mounts: options.mounts.clone(),
        };

        let writer = shared
            .writer
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let writer = writer.ok_or_else(|| failed(io::Error::other("it was not begun")))?;
        let index = match writer.finish(origin) {
            Err(e) if is_linked_nowhere(&e) => return Ok(Written::Broken),
            index => Arc::new(index.map_err(failed)?),
        };

        let (top, stats) = (self.top.clone(), stats.of(&index));
        Ok(Written::Whole(Scanned {
            index,
            top,
            stats,
            ignore_rules: patterns,
            skipped,
            walked: false,
        }))
    }
}

impl ScanStats {
    /// Counts what was not read for this index.
    fn of(self, index: &Index) -> Self {
        let all = index.totals();
        Self {
            reused_files: all.files.saturating_sub(all.unread + self.hashed_files),
            ..self
        }
    }
}

impl Scanned {
    fn unchanged(index: Arc<Index>, top: Top) -> Self {
        let stats = ScanStats::default().of(&index);
        let origin = index.origin();
        let skip = |(path, why): &(TreePath, String)| Skipped {
            path: path.clone(),
            why: why.clone().into(),
        };

        let (ignore_rules, skipped) = (
            origin.patterns.clone(),
            origin.skipped.iter().map(skip).collect(),
        );

        Self {
            index,
            top,
            stats,
            ignore_rules,
            skipped,
            walked: false,
        }
    }
}

/// What comparing a tree with its index came to.
enum Found {
    /// They cannot be compared, or differ in too much: the tree is walked.
    Unknown,
    Nothing,
    Changes(Changes),
}

/// What `old` does not say of the tree, or says otherwise; all names of the inodes `linked` are looked at. An index that
/// cannot be read is not compared.
fn differences(
    root: &Root,
    options: &ScanOptions,
    old: &Index,
    top: Version,
    linked: &HashSet<FileId>,
) -> Result<Found> {
    let origin = old.origin();
    let looks = options
        .hints
        .as_ref()
        .and_then(|hints| hints.everywhere.as_ref());
    let unsettled = |version: &Version| match looks {
        Some(looks) => looks.is_racy(version),
        None => is_racy(version, origin.started),
    };

    let is_as_it_was = |(path, known): &(TreePath, Version)| {
        !unsettled(known) && stat_of(root, path).is_ok_and(|now| now.version() == *known)
    };

    let released = Released::new(&options.policy)?;
    let made_alike = origin.options == options.name() && released.still_holds(&origin.owners);
    if !made_alike || !origin.ignore_files.iter().all(is_as_it_was) {
        return Ok(Found::Unknown);
    }

    let top_differs = top != origin.top || unsettled(&top);
    let spots = match &options.hints {
        Some(hints) => {
            let filter = Arc::new(Filter::new(&options.excludes)).with(&origin.patterns);
            let found = hints::spots(root, old, hints, &filter, options.threads);
            let add_top = |spots: Spots| Spots {
                top: spots.top || hints.everywhere.is_some() && top_differs,
                ..spots
            };
            found.map(|found| found.map(add_top))
        }
        None => compare::compare(root, old, options.threads, None).map(|found| {
            found.map(|touched| Spots {
                touched,
                top: top_differs,
            })
        }),
    };

    let spots = match spots {
        Ok(Some(spots)) => spots,
        Ok(None) => return Ok(Found::Unknown),
        Err(e) => {
            tracing::warn!("the tree {} is read anew: {e}", root.path().display());
            return Ok(Found::Unknown);
        }
    };

    if spots.touched.is_empty() && !spots.top && linked.is_empty() {
        return Ok(Found::Nothing);
    }

    options.pass_gap();
    let filter = Arc::new(Filter::new(&options.excludes)).with(&origin.patterns);
    let shared = Shared::new(root, options, released, filter, None);

    Ok(changes::find(&shared, old, spots, linked)?.map_or(Found::Unknown, Found::Changes))
}

/// What is at `path` now.
fn stat_of(root: &Root, path: &TreePath) -> io::Result<FileStat> {
    let (parent, name) = root.parent(path)?;
    FileStat::at(parent.as_fd(), &name)
}

fn top_of(
    root: &Root,
    options: &ScanOptions,
    released: &Released<'_>,
    stat: &FileStat,
) -> Result<Top> {
    let failed = |e| unreadable(root.path(), e);
    let xattrs = if options.xattrs {
        XattrReader::default().of(root).map_err(failed)?
    } else {
        Vec::new()
    };

    let owner = read::owner_of(released, stat, &root.path().display())?;
    Ok(released.top(stat, &owner, xattrs))
}

type Jobs = Queue<ListJob, Option<Listing>, Batch, BatchDone>;

/// What the threads of one scan share.
struct Shared<'a> {
    root: &'a Root,
    options: &'a ScanOptions,
    released: Released<'a>,
    filter: Arc<Filter>,
    /// There is none while it is only looked for what changed.
    writer: Mutex<Option<IndexWriter>>,
    jobs: Jobs,
    /// Children in listings that the walk has not opened yet.
    held: AtomicUsize,
    barred: OpenedDirs,
}

impl<'a> Shared<'a> {
    fn new(
        root: &'a Root,
        options: &'a ScanOptions,
        released: Released<'a>,
        filter: Arc<Filter>,
        writer: Option<IndexWriter>,
    ) -> Self {
        let (jobs, held) = (Queue::new(), AtomicUsize::new(0));
        let barred = OpenedDirs::new(options.opens_barred);
        Self {
            root,
            options,
            released,
            filter,
            writer: Mutex::new(writer),
            jobs,
            held,
            barred,
        }
    }

    /// Does something with the index that is being written.
    fn write(&self, put: impl FnOnce(&mut IndexWriter) -> io::Result<()>) -> io::Result<()> {
        match crate::sync::locked(&self.writer).as_mut() {
            Some(writer) => put(writer),
            None => Err(io::Error::other("it was not begun")),
        }
    }
}

/// Ends the threads however the scan ends.
struct CloseAtEnd<'a>(&'a Jobs);

impl Drop for CloseAtEnd<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

fn work(shared: &Shared<'_>) {
    let mut lister = Lister::new(shared.root, shared.options, &shared.held, &shared.barred);
    let mut reader = Reader::new(shared);
    while let Some(next) = shared.jobs.next() {
        match next {
            Next::First(job) => job.run(|dir| lister.list(&dir)),
            Next::Second(job) => job.run(|batch| reader.read(batch)),
        }
    }
}

/// The index cannot be written.
fn unwritable(e: io::Error) -> Error {
    Error::new(Kind::Io, "cannot write the index").because(e)
}

fn check_patterns(excludes: &[Exclude], found: &[Exclude]) -> Result<()> {
    let all = [excludes, found].concat();
    check_excludes(&all).map_err(|why| {
        Error::usage(format!("with those of ignore files, {why}"))
            .hint("a release carries its patterns to every host: use fewer, broader ones")
    })
}

/// A path of the tree that cannot be read.
fn unreadable(path: &Path, e: io::Error) -> Error {
    let denied = e.kind() == io::ErrorKind::PermissionDenied;
    let error = Error::io("cannot read", path, e).with_kind(Kind::Usage);
    if denied {
        error.hint("make it readable for this user, or exclude it")
    } else {
        error
    }
}

/// The system's time as the manifest writes times.
fn wall(time: SystemTime) -> Mtime {
    let (secs, nanos) = match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => (
            i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
            after.subsec_nanos(),
        ),
        Err(before) => (
            -i64::try_from(before.duration().as_secs()).unwrap_or(i64::MAX),
            0,
        ),
    };

    Mtime { secs, nanos }
}
