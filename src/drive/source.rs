//! A sender's source: scanned, made a manifest, read generation by generation.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::clock::{self, Clock};
use super::outcome::Scanned;
use crate::block::BlockHash;
use crate::block::frame::Compressor;
use crate::id::Ordinal;
use crate::manifest::node::to_vec;
use crate::manifest::rules::{Exclude, PathFilter};
use crate::manifest::{EntryKind, Header, NodeRef, Rules, Top, TreePath};
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

/// Payloads whose memory is used again: those that are kept for repair, and some on their way.
const MAX_PAYLOADS: usize = KEPT_GENERATIONS as usize + 8;

/// What a scan of the source came to.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The root of the manifest.
    pub root: NodeRef,
    /// The tree's own directory, when the release governs it.
    pub top: Option<Top>,
    /// The path prefixes that the release governs; empty is the whole tree.
    pub scope: Vec<TreePath>,
    /// The spec's rules with the patterns of the ignore files.
    pub rules: Rules,
    /// Numbers for people, when anything was scanned.
    pub scanned: Option<Scanned>,
    /// What was left out and why.
    pub notes: Vec<String>,
    /// The paths of everything but directories, when they were asked for.
    pub files: Vec<Vec<u8>>,
}

/// Which part of a source is released.
#[derive(Debug, Clone, Default)]
pub struct Part {
    /// These paths and what is below them; empty is everything.
    pub scope: Vec<TreePath>,
    /// What is left out beside what the spec excludes.
    pub excludes: Vec<Exclude>,
    /// Whether the source's own directory has no part in it, although the scope is everything.
    pub without_top: bool,
    /// Of what is no directory, only what this user owns; the number of the user.
    pub owner: Option<u32>,
    /// Whether the paths are told.
    pub listed: bool,
}

/// How a source is looked at.
#[derive(Debug, Clone, Default)]
pub struct How {
    /// Every file is read.
    pub checksum: bool,
    /// Where it may have changed since it was looked at last; `None`: anywhere.
    pub hints: Option<Hints>,
    /// Where files are told of that can change unheard, when somebody wants to know.
    pub exposures: Option<Exposures>,
    /// The directory that it has to be; `None`: whichever its path leads to.
    pub directory: Option<FileId>,
    /// The source where it is open already.
    pub root: Option<Arc<Root>>,
    /// What to do about a filesystem in it that is not mounted any more.
    pub unmounted: Unmounted,
}

/// What to do about a path at which something was mounted when the source was looked at last, and now nothing is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Unmounted {
    /// Say so, and remember it for the next look.
    #[default]
    Tell,
    /// Refuse: what is missing there would be deleted everywhere.
    Refuse,
    /// Take it as it is now.
    Accept,
}

impl Facts {
    /// What the header of a release says that is there already; `notes` are for people.
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

    /// The name of all that a release of this would say of the tree: two with the same name do the same to every host.
    pub fn name(&self) -> BlockHash {
        BlockHash::of(&to_vec(&(&self.root, &self.top, &self.scope, &self.rules)))
    }
}

/// Notes for the index what is mounted in the source, and finds what is not mounted any more; what to tell of it.
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

    // What was left out then, or is now, is no part of the release.
    let patterns = [&options.excludes[..], &old.origin().patterns[..]].concat();
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
    options.scope.is_empty() || options.scope.iter().any(within)
}

fn unmounted_text(root: &Root, path: &TreePath) -> String {
    let shown = printable(root.shown(path).as_os_str().as_encoded_bytes());
    format!(
        "{shown} was a mount point when the source was read last, and nothing is mounted there now"
    )
}

/// A source that is ready to be read.
pub struct Source {
    source: Box<dyn Blocks>,
    effort: LevelSelector,
    compressor: Compressor,
    buffers: Buffers,
    /// What could not be read when something was packed last.
    failed: Option<Ordinal>,
    /// Payloads that were handed out, for their memory.
    payloads: Vec<Arc<Vec<u8>>>,
}

impl Source {
    /// Scans what the spec names and builds its manifest. What was read is remembered in the directory `cache`.
    pub fn prepare(
        spec: &Spec,
        part: &Part,
        how: How,
        cache: Option<&Path>,
    ) -> Result<(Self, Facts)> {
        let began = clock::since_epoch();
        let unreadable = |e| {
            Error::usage(format!(
                "the source {} cannot be read",
                spec.source.display()
            ))
            .because(e)
        };

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
        options.excludes.clone_from(&rules.excludes);
        options.ignore_files = if spec.gitignore {
            IgnoreFiles::MakuoAndGit
        } else {
            IgnoreFiles::Makuo
        };

        options.without_state = true;
        options.xattrs = spec.meta.xattrs;
        options.hardlinks = spec.meta.hardlinks;
        let quick = how.hints.is_some();
        (options.checksum, options.hints) = (how.checksum, how.hints);
        options.exposures = how.exposures;
        options.policy = policy(spec);

        options.scope.clone_from(&part.scope);
        options.owner = part.owner;
        let place = IndexPlace::of(&root, cache);
        let old = Index::open(&place.path, root.id()).map(Arc::new);

        // What is known of the whole source stays known when a part of it is looked at.
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
        // What nobody named may have changed long ago all the same.
        if !quick {
            source.trust_unchanged(started);
        }

        let totals = scanned.index.totals();
        let left_out = scanned
            .skipped
            .iter()
            .map(|s| format!("left out {}: {}", s.path, s.why));
        let facts = Facts {
            root: source.top(),
            top: Some(source.directory().clone())
                .filter(|_| !part.without_top && part.scope.is_empty()),
            scope: part.scope.clone(),
            rules,
            scanned: Some(Scanned {
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

    /// What `source` has, to be sent with this compression.
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

    /// Packs the first of `ordinals` into a generation's payload, compressed where that does not keep the link waiting.
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
        let (began, mut reading) = (clock.now(), Duration::ZERO);
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

    /// What could not be read when something was packed last.
    pub fn failed_at(&self) -> Option<Ordinal> {
        self.failed
    }

    /// Takes the memory of a payload that is no longer kept for repair, if there is one; says whose.
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

/// What belongs to others is not sent, so it is not deleted either: patterns that leave it alone.
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

/// Where a source's index is kept: in the cache, by the source's path; a temporary file where there is none.
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
            // The scan will say what is wrong with it.
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
