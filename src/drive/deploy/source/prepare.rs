//! Scans a source and builds the manifest.

use std::path::Path;
use std::sync::Arc;

use super::index_place::IndexPlace;
use super::prepared::PreparedRelease;
use super::reader::ReleaseSource;
use super::settings::{SourcePart, SourceScan};
use super::unmounted;
use crate::drive::clock;
use crate::manifest::rules::Exclude;
use crate::manifest::{EntryKind, Rules};
use crate::outcome::ScanSummary;
use crate::spec::{ModePolicy, OwnerPolicy, Spec};
use crate::tree::index::Index;
use crate::tree::scan::{
    self, EntryRules, FOREIGN_OWNER, IgnoreFiles, IndexReuse, PathSelection, Policy, ScanOptions,
    Scanned as Scan, scan,
};
use crate::tree::{Root, ScannedSource};
use crate::units::ByteSize;
use crate::{Error, Kind, Result};

/// Scans the source of the spec and builds the manifest. Keeps the index in the directory `cache`.
pub fn prepare(
    spec: &Spec,
    part: &SourcePart,
    how: SourceScan,
    cache: Option<&Path>,
) -> Result<(ReleaseSource, PreparedRelease)> {
    let began = clock::since_epoch();
    let root = open_root(spec, &how)?;
    let started = clock::wall();
    let is_quick = how.is_quick();
    let mut rules = spec.rules();
    rules.excludes.extend(part.excludes.iter().cloned());
    let mut options = ScanOptions {
        paths: paths(spec, part, &rules),
        entries: entries(spec),
        reuse: IndexReuse {
            hints: how.hints,
            checksum: how.checksum,
            ..IndexReuse::default()
        },
        exposures: how.exposures,
        counts: how.counts,
        ..ScanOptions::new(started)
    };

    let place = IndexPlace::of(&root, cache);
    let old = Index::open(&place.path, root.id()).map(Arc::new);

    // A partial scan must not replace the index of the whole source.
    let new = if part.scope.is_empty() {
        place.path.clone()
    } else {
        place.path.with_extension("part")
    };

    let missing = unmounted::check(&mut options, &root, old.as_deref(), how.unmounted)?;
    let scanned = scan(&root, &options, old.as_ref(), &new)?;
    add_found_rules(&mut rules, part, &scanned)?;
    let files = if part.listed {
        files(&scanned)?
    } else {
        Vec::new()
    };

    let mut source = ScannedSource::new(root, &scanned)?;
    // Places without hints may have changed long ago.
    if !is_quick {
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

    let source = ReleaseSource::of(Box::new(source), spec.transfer.compress);
    Ok((source, facts))
}

/// Opens the source, and refuses another directory than the required one.
fn open_root(spec: &Spec, how: &SourceScan) -> Result<Arc<Root>> {
    let shown = spec.source.display();
    let root = match &how.root {
        Some(root) => Arc::clone(root),
        None => Root::open(&spec.source)
            .map(Arc::new)
            .map_err(|e| Error::usage(format!("the source {shown} cannot be read")).because(e))?,
    };

    if how
        .directory
        .is_some_and(|directory| directory != root.id())
    {
        return Err(Error::refused(format!(
            "the source {shown} is another directory now"
        )));
    }

    Ok(root)
}

/// Paths of the source in the release, with the excludes of `rules`.
fn paths(spec: &Spec, part: &SourcePart, rules: &Rules) -> PathSelection {
    PathSelection {
        excludes: rules.excludes.clone(),
        ignore_files: if spec.gitignore {
            IgnoreFiles::MakuoAndGit
        } else {
            IgnoreFiles::Makuo
        },
        scope: part.scope.clone(),
        without_state: true,
        owner: part.owner,
        ..PathSelection::default()
    }
}

/// Facts to record of each entry.
fn entries(spec: &Spec) -> EntryRules {
    EntryRules {
        xattrs: spec.meta.xattrs,
        hardlinks: spec.meta.hardlinks,
        policy: policy(spec),
    }
}

/// Adds the excludes found by the scan; refuses more than a release can carry.
fn add_found_rules(rules: &mut Rules, part: &SourcePart, scanned: &Scan) -> Result<()> {
    rules.excludes.extend(scanned.ignore_rules.iter().cloned());
    if part.owner.is_some() && rules.delete_extras {
        rules.excludes.extend(foreign(scanned));
    }

    rules.pack().map_err(|why| {
        Error::usage(why)
            .hint("a release carries its patterns to every host: use fewer, broader ones")
    })
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
