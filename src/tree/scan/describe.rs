//! Builds entries from stats.

use std::fmt::Display;
use std::sync::Arc;

use super::context::ScanContext;
use super::errors::unreadable;
use super::options::ScanOptions;
use super::policy::ResolvedPolicy;
use crate::manifest::{Entry, EntryKind, Owner, Top, TreePath, Xattr};
use crate::tree::fs::root::Root;
use crate::tree::fs::stat::FileStat;
use crate::tree::fs::xattrs::XattrReader;
use crate::tree::index::IndexEntry;
use crate::{Error, Kind, Result};

/// Builds the entry of `path` from `stat`.
pub(super) fn entry_of(
    context: &ScanContext<'_>,
    path: TreePath,
    stat: &FileStat,
    kind: EntryKind,
    xattrs: Vec<Xattr>,
) -> Result<IndexEntry> {
    let owner = owner_of(&context.resolved, stat, &path)?;
    let entry = Entry {
        path,
        kind,
        mode: context.resolved.mode(stat),
        owner,
        mtime: context.resolved.mtime(stat),
        xattrs,
    };

    Ok(IndexEntry {
        entry,
        version: stat.version(),
    })
}

/// Looks up the owner of a file; `path` is for errors.
fn owner_of(
    resolved: &ResolvedPolicy<'_>,
    stat: &FileStat,
    path: &dyn Display,
) -> Result<Arc<Owner>> {
    resolved.owner(stat.uid, stat.gid).map_err(|e| {
        let what = format!(
            "cannot look up the owner {}:{} of {path}",
            stat.uid, stat.gid
        );
        Error::new(Kind::Io, what)
            .because(e)
            .hint("is the name service of this host reachable?")
    })
}

pub(super) fn top_of(
    root: &Root,
    options: &ScanOptions,
    resolved: &ResolvedPolicy<'_>,
    stat: &FileStat,
) -> Result<Top> {
    let failed = |e| unreadable(root.path(), e);
    let xattrs = if options.entries.xattrs {
        XattrReader::default().of(root).map_err(failed)?
    } else {
        Vec::new()
    };

    let owner = owner_of(resolved, stat, &root.path().display())?;
    Ok(resolved.top(stat, &owner, xattrs))
}
