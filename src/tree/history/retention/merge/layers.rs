//! Parts of a tree as layers: the newest one with a path decides.

use std::iter::Peekable;

use super::scope::Scope;
use crate::error::Result;
use crate::manifest::read::{Entries, ReadError};
use crate::manifest::rules::PathFilter;
use crate::manifest::{Entry, EntryKind, TreePath};
use crate::tree::state::node_store::NodeStore;

/// One part as a layer.
pub(super) struct Layer<'a> {
    pub(super) entries: Peekable<Entries<'a, &'a NodeStore>>,
    /// `None` is everything.
    pub(super) scope: Option<Scope>,
    /// For a part that deletes extras, the paths that it leaves alone.
    pub(super) deletes: Option<PathFilter>,
}

/// Result of all layers for one path.
pub(super) struct LastWord {
    pub(super) entry: Entry,
    /// Layer that decides.
    pub(super) layer: usize,
    /// Whether hosts certainly have this entry, and not the one from before all layers.
    pub(super) sure: bool,
}

/// Smallest next path of all layers.
pub(super) fn next_path(layers: &mut [Layer<'_>]) -> Result<Option<TreePath>, ReadError> {
    let mut first: Option<TreePath> = None;
    for layer in layers {
        match layer.entries.peek() {
            Some(Ok(located)) => {
                let path = &located.entry.path;
                if first.as_ref().is_none_or(|first| path < first) {
                    first = Some(path.clone());
                }
            }
            Some(Err(_)) => return Err(failed(layer)),
            None => {}
        }
    }

    Ok(first)
}

fn failed(layer: &mut Layer<'_>) -> ReadError {
    match layer.entries.next() {
        Some(Err(e)) => e,
        _ => ReadError::Illegal("it ended".into()),
    }
}

/// Result of all layers for `path`, `None` if absent. Consumes the entries.
pub(super) fn said(
    layers: &mut [Layer<'_>],
    path: &TreePath,
) -> Result<Option<LastWord>, ReadError> {
    let mut here = Vec::new();
    for layer in layers.iter_mut() {
        let is_here =
            matches!(layer.entries.peek(), Some(Ok(located)) if located.entry.path == *path);
        here.push(if is_here {
            layer
                .entries
                .next()
                .transpose()?
                .map(|located| located.entry)
        } else {
            None
        });
    }

    let (mut found, mut deleting): (Option<LastWord>, Vec<&PathFilter>) = (None, Vec::new());

    for (at, (entry, layer)) in here.into_iter().zip(layers.iter()).enumerate().rev() {
        let inside = layer.scope.as_ref().is_none_or(|scope| scope.has(path));
        let Some(entry) = entry else {
            deleting.extend(layer.deletes.as_ref().filter(|_| inside));
            continue;
        };
        let is_dir = matches!(entry.kind, EntryKind::Directory);
        if deleting.iter().any(|spared| !spared.matches(path, is_dir)) {
            found.iter_mut().for_each(|word| word.sure = true);
            return Ok(found);
        }
        // A directory that newer parts only pass through is as in an older part.
        if found.is_none() || is_dir {
            found = Some(LastWord {
                entry,
                layer: at,
                sure: inside,
            });
        }
        if inside || !is_dir {
            found.iter_mut().for_each(|word| word.sure = true);
            return Ok(found);
        }
    }

    Ok(found)
}
