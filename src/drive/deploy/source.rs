//! A sender's source: scanned, made into a manifest, read generation by generation.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::block::BlockHash;
use crate::block::frame::Compressor;
use crate::drive::clock::{self, Clock};
use crate::id::Ordinal;
use crate::manifest::node::to_vec;
use crate::manifest::rules::{Exclude, PathFilter};
use crate::manifest::{EntryKind, Header, NodeRef, Rules, Top, TreePath};
use crate::outcome::ScanSummary;
use crate::proto::RangeSet;
use crate::proto::compression::{Demand, LevelSelector};
use crate::proto::generation::{Buffers, KEPT_GENERATIONS, pack};
use crate::spec::{Compress, ModePolicy, OwnerPolicy, Spec};
use crate::tree::index::Index;
use crate::tree::scan::{
    self, Exposures, FOREIGN_OWNER, Hints, IgnoreFiles, Policy, ScanOptions, Scanned as Scan, scan,
};
use crate::tree::{self, Blocks, FileId, Root, SourceError, mounts};
use crate::units::{ByteSize, printable};
use crate::{Error, Kind, Result};

/// Largest number of payloads whose memory is reused: those kept for repair, and some in flight.
const MAX_PAYLOADS: usize = KEPT_GENERATIONS as usize + 8;

/// A prepared release: the result of a scan of the source.
#[derive(Debug, Clone)]
pub struct PreparedRelease {
    /// Root of the manifest.
    pub root: NodeRef,
    /// The tree's own directory, if part of the release.
    pub top: Option<Top>,
    /// Governed path prefixes; empty for the whole tree.
    pub scope: Vec<TreePath>,
    /// The spec's rules with the patterns of ignore files.
    pub rules: Rules,
    /// Totals for people, if anything was scanned.
    pub scanned: Option<ScanSummary>,
    /// Notes on omitted paths.
    pub notes: Vec<String>,
    /// Paths of all entries except directories, if requested.
    pub files: Vec<Vec<u8>>,
}

/// Part of a source to release.
#[derive(Debug, Clone, Default)]
pub struct SourcePart {
    /// Path prefixes; empty for everything.
    pub scope: Vec<TreePath>,
    /// Excludes besides the spec's.
    pub excludes: Vec<Exclude>,
    /// Leave out the source's own directory even if the scope is everything.
    pub without_top: bool,
    /// Numeric user; entries of other users, except directories, are left out.
    pub owner: Option<u32>,
    /// Report the paths.
    pub listed: bool,
}

/// Mode of a scan.
#[derive(Debug, Clone, Default)]
pub struct SourceScan {
    /// Read every file.
    pub checksum: bool,
    /// Places where the source may have changed since its last release, if known; nothing else is
    /// scanned. Needs the kept index.
    pub hints: Option<Hints>,
    /// Receiver for files of the source that can change without an event.
    pub exposures: Option<Exposures>,
    /// Required directory of the source; `None` for any.
    pub directory: Option<FileId>,
    /// The source, if open already; the path is not resolved then.
    pub root: Option<Arc<Root>>,
    /// Policy for a filesystem of the source no longer mounted.
    pub unmounted: Unmounted,
}

impl SourceScan {
    /// Returns whether only hinted places are scanned.
    pub fn is_quick(&self) -> bool {
        self.hints.is_some()
    }
}

/// Policy for a path that was a mount point in the last scan and not now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Unmounted {
    /// Warn, and remember the path for the next scan.
    #[default]
    Tell,
    /// Refuse: the missing paths would be deleted on every host.
    Refuse,
    /// Accept the source as it is now.
    Accept,
}

impl PreparedRelease {
    /// The facts of an existing release, by its header; `notes` are for people.
    pub fn of(header: &Header, notes: Vec<String>) -> Self {
        Self {
            root: header.root,
            top: header.top.clone(),
            scope: header.scope.clone(),
            rules: header.rules.clone(),
            scanned: None,
            notes,
            files: Vec::new(),
        }
    }

    /// Hash of the release's effect on a tree: two with the same hash have the same effect on every
    /// host.
    pub fn name(&self) -> BlockHash {
        BlockHash::of(&to_vec(&(&self.root, &self.top, &self.scope, &self.rules)))
    }
}

/// Records the mount points of the source in the index and returns notes on the missing ones.
fn unmounted(
    options: &mut ScanOptions,
    root: &Root,
    old: Option<&Index>,
    what: Unmounted,
) -> Result<Vec<String>> {
    match mounts::below(root.path()) {
        Ok(mounts) => options.mounts = mounts,
        Err(e) => {
            tracing::debug!(
                "it is not known what is mounted in {}: {e}",
                root.path().display()
            );
            options.mounts = old
                .map(|old| old.origin().mounts.clone())
                .unwrap_or_default();
            return Ok(Vec::new());
        }
    }

    let Some(old) = old.filter(|_| what != Unmounted::Accept) else {
        return Ok(Vec::new());
    };

    // Paths excluded then or now are no part of the release.
    let patterns = [&options.paths.excludes[..], &old.origin().patterns[..]].concat();
    let left_out = PathFilter::new(&patterns);
    let is_missing = |path: &&TreePath| {
        !options.mounts.contains(path) && !left_out.matches(path, true) && in_scope(options, path)
    };

    let missing: Vec<TreePath> = old
        .origin()
        .mounts
        .iter()
        .filter(is_missing)
        .cloned()
        .collect();

    let told: Vec<String> = missing
        .iter()
        .map(|path| unmounted_text(root, path))
        .collect();

    if let Some(first) = told.first().filter(|_| what == Unmounted::Refuse) {
        return Err(Error::usage(first.clone()).hint(
            "mount it again; if the release is to be without it, deploy once with --yes-unmounted",
        ));
    }

    options.mounts.extend(missing);
    Ok(told)
}

fn in_scope(options: &ScanOptions, path: &TreePath) -> bool {
    let within = |scope: &TreePath| path.is_within(scope) || scope.is_within(path);
    options.paths.scope.is_empty() || options.paths.scope.iter().any(within)
}

fn unmounted_text(root: &Root, path: &TreePath) -> String {
    let shown = printable(root.shown(path).as_os_str().as_encoded_bytes());
    format!(
        "{shown} was a mount point when the source was read last, and nothing is mounted there now"
    )
}

/// A source ready to be read.
pub struct ReleaseSource {
    source: Box<dyn Blocks>,
    effort: LevelSelector,
    compressor: Compressor,
    buffers: Buffers,
    /// Unreadable ordinal of the last pack.
    failed: Option<Ordinal>,
    /// Payloads handed out, kept to reuse their memory.
    payloads: Vec<Arc<Vec<u8>>>,
}

impl ReleaseSource {
    /// Scans the source of the spec and builds the manifest. Keeps the index in the directory
    /// `cache`.
    pub fn prepare(
        spec: &Spec,
        part: &SourcePart,
        how: SourceScan,
        cache: Option<&Path>,
    ) -> Result<(Self, PreparedRelease)> {
        let began = clock::since_epoch();
        let unreadable = |e| {
            Error::usage(format!(
                "the source {} cannot be read",
                spec.source.display()
            ))
            .because(e)
        };

        let quick = how.is_quick();
        let root = how
            .root
            .map_or_else(|| Root::open(&spec.source).map(Arc::new), Ok)
            .map_err(unreadable)?;

        if how
            .directory
            .is_some_and(|directory| directory != root.id())
        {
            return Err(Error::refused(format!(
                "the source {} is another directory now",
                spec.source.display()
            )));
        }

        let mut rules = spec.rules();
        rules.excludes.extend(part.excludes.iter().cloned());
        let started = clock::wall();
        let mut options = ScanOptions::new(started);
        options.paths.excludes.clone_from(&rules.excludes);
        options.paths.ignore_files = if spec.gitignore {
            IgnoreFiles::MakuoAndGit
        } else {
            IgnoreFiles::Makuo
        };

        options.paths.without_state = true;
        options.entries.xattrs = spec.meta.xattrs;
        options.entries.hardlinks = spec.meta.hardlinks;
        (options.reuse.checksum, options.reuse.hints) = (how.checksum, how.hints);
        options.exposures = how.exposures;
        options.entries.policy = policy(spec);

        options.paths.scope.clone_from(&part.scope);
        options.paths.owner = part.owner;
        let place = IndexPlace::of(&root, cache);
        let old = Index::open(&place.path, root.id()).map(Arc::new);

        // A partial scan must not replace the index of the whole source.
        let new = if part.scope.is_empty() {
            place.path.clone()
        } else {
            place.path.with_extension("part")
        };

        let missing = unmounted(&mut options, &root, old.as_deref(), how.unmounted)?;
        let scanned = scan(&root, &options, old.as_ref(), &new)?;
        rules.excludes.extend(scanned.ignore_rules.iter().cloned());
        if part.owner.is_some() && rules.delete_extras {
            rules.excludes.extend(foreign(&scanned));
        }

        rules.pack().map_err(|why| {
            Error::usage(why)
                .hint("a release carries its patterns to every host: use fewer, broader ones")
        })?;
        let files = if part.listed {
            files(&scanned)?
        } else {
            Vec::new()
        };

        let mut source = tree::ScannedSource::new(root, &scanned)?;
        // Places without hints may have changed long ago.
        if !quick {
            source.trust_unchanged(started);
        }

        let totals = scanned.index.totals();
        let left_out = scanned
            .skipped
            .iter()
            .map(|s| format!("left out {}: {}", s.path, s.why));
        let facts = PreparedRelease {
            root: source.top(),
            top: Some(source.directory().clone())
                .filter(|_| !part.without_top && part.scope.is_empty()),
            scope: part.scope.clone(),
            rules,
            scanned: Some(ScanSummary {
                entries: totals.entries,
                bytes: ByteSize(totals.bytes),
                hashed: ByteSize(scanned.stats.hashed_bytes),
                took: clock::since_epoch().saturating_sub(began),
            }),
            notes: missing.into_iter().chain(left_out).collect(),
            files,
        };

        Ok((Self::of(Box::new(source), spec.transfer.compress), facts))
    }

    /// A source of the data in `source`, sent with the compression `compress`.
    pub fn of(source: Box<dyn Blocks>, compress: Compress) -> Self {
        Self {
            source,
            effort: LevelSelector::new(compress),
            compressor: Compressor::new(),
            buffers: Buffers::default(),
            failed: None,
            payloads: Vec::new(),
        }
    }

    /// Packs the first of `ordinals` into a generation's payload, compressed unless the link would
    /// have to wait.
    pub fn pack(
        &mut self,
        ordinals: &RangeSet,
        demand: Demand,
    ) -> Result<(RangeSet, Arc<Vec<u8>>), SourceError> {
        let place = self.free_payload();
        let Self {
            source,
            effort,
            compressor,
            buffers,
            failed,
            ..
        } = self;

        *failed = None;
        let level = effort.level(demand);
        let clock = Clock::start();
        let began = clock.now();
        let mut reading = Duration::ZERO;
        let packed = pack(
            ordinals,
            level.map(|level| (&mut *compressor, level)),
            buffers,
            |ordinal, out| {
                let before = level.map(|_| clock.now());
                source
                    .read(ordinal, out)
                    .inspect_err(|_| *failed = Some(ordinal))?;
                reading += before.map_or(Duration::ZERO, |before| clock.now().since(before));
                Ok::<(), SourceError>(())
            },
        )?;

        if let (Some(level), Some((plain, frame))) = (level, packed.frame) {
            effort.record(
                level,
                plain,
                frame,
                clock.now().since(began).saturating_sub(reading),
            );
        }

        if packed.frame.is_none() {
            compressor.free_memory();
        }

        let payload = Arc::new(std::mem::take(&mut self.buffers.payload));
        match place {
            Some(place) => self.payloads[place] = Arc::clone(&payload),
            None if self.payloads.len() < MAX_PAYLOADS => self.payloads.push(Arc::clone(&payload)),
            None => {}
        }

        Ok((packed.taken, payload))
    }

    /// Appends the bytes of one block to `out`.
    pub fn read(&mut self, ordinal: Ordinal, out: &mut Vec<u8>) -> Result<(), SourceError> {
        self.source.read(ordinal, out).map(drop)
    }

    /// Unreadable ordinal of the last pack.
    pub fn failed_at(&self) -> Option<Ordinal> {
        self.failed
    }

    /// Finds a payload no longer kept for repair, to reuse the memory.
    fn free_payload(&mut self) -> Option<usize> {
        let place = self
            .payloads
            .iter()
            .position(|p| Arc::strong_count(p) == 1)?;
        self.buffers.payload = Arc::get_mut(&mut self.payloads[place])
            .map(std::mem::take)
            .unwrap_or_default();
        Some(place)
    }
}

/// Excludes for paths of other owners, which are neither sent nor deleted.
fn foreign(scanned: &Scan) -> impl Iterator<Item = Exclude> {
    scanned
        .skipped
        .iter()
        .filter(|s| s.why == FOREIGN_OWNER)
        .map(|skipped| Exclude::literal(&skipped.path))
}

fn files(scanned: &Scan) -> Result<Vec<Vec<u8>>> {
    let mut files = Vec::new();
    for indexed in scanned.index.entries() {
        let entry = indexed
            .map_err(|e| Error::new(Kind::Io, "cannot read the index of the source").because(e))?
            .entry;
        if !matches!(entry.kind, EntryKind::Directory) {
            files.push(entry.path.as_bytes().to_vec());
        }
    }

    Ok(files)
}

fn policy(spec: &Spec) -> Policy {
    let owner = |policy: &OwnerPolicy| match policy {
        OwnerPolicy::Preserve => scan::OwnerMapping::Preserve,
        OwnerPolicy::Ignore => scan::OwnerMapping::Ignore,
        OwnerPolicy::Fixed(name) => scan::OwnerMapping::Fixed(name.as_str().into()),
    };

    let mode = |policy: ModePolicy| match policy {
        ModePolicy::Preserve => None,
        ModePolicy::Fixed(mode) => Some(mode),
    };

    Policy {
        user: owner(&spec.owner.user),
        group: owner(&spec.owner.group),
        file_mode: mode(spec.mode.files),
        dir_mode: mode(spec.mode.dirs),
        without_mtime: !spec.meta.mtime,
    }
}

/// Place of a source's index: in the cache, named by the source's path, or a temporary file.
struct IndexPlace {
    path: PathBuf,
    _temporary: Option<tempfile::TempDir>,
}

impl IndexPlace {
    fn of(root: &Root, cache: Option<&Path>) -> Self {
        let path = std::fs::canonicalize(root.path()).unwrap_or_else(|_| root.path().to_path_buf());
        let name =
            BlockHash::of(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str())).to_string();
        let kept = cache.filter(|dir| std::fs::create_dir_all(dir).is_ok());

        if let Some(dir) = kept.filter(|dir| is_writable(dir)) {
            return Self {
                path: dir.join(&name[..32]),
                _temporary: None,
            };
        }

        match tempfile::tempdir() {
            Ok(dir) => Self {
                path: dir.path().join("index"),
                _temporary: Some(dir),
            },
            // The scan will report the problem.
            Err(_) => Self {
                path: std::env::temp_dir().join("makuo-index"),
                _temporary: None,
            },
        }
    }
}

fn is_writable(dir: &Path) -> bool {
    rustix::fs::access(dir, rustix::fs::Access::WRITE_OK).is_ok()
}
