//! Parts that a later part replaces completely.

use std::collections::HashSet;

use super::known::{KnownRelease, Paths};
use super::{ReleaseHistory, alike};
use crate::error::Result;
use crate::manifest::pages::Pages;
use crate::manifest::read::{Manifest, ReadError};
use crate::manifest::rules::Exclude;
use crate::manifest::{EntryKind, Header, Rules, TreePath};

impl ReleaseHistory<'_> {
    /// Returns whether the tree still has anything of the part `at`: no whole release followed, or
    /// only one that excludes its paths.
    pub(super) fn is_left(&self, at: usize) -> bool {
        let mut wholes = self.known[at + 1..]
            .iter()
            .filter(|k| k.is_whole())
            .peekable();
        if wholes.peek().is_none() {
            return true;
        }

        let Some(paths) = self.paths(&self.known[at]) else {
            return false;
        };

        wholes.all(|whole| {
            let rules = &whole.header().rules;
            let excluded = rules.excluded().ok().filter(|_| !rules.delete_excluded);
            excluded
                .is_some_and(|filter| paths.files.iter().any(|path| filter.matches(path, false)))
        })
    }

    /// Returns whether a later part replaces the part `at`.
    pub(super) fn is_replaced(&self, at: usize) -> bool {
        self.replaced
            .get_or_init(|| self.replaced_of(&self.known.iter().collect::<Vec<_>>()))[at]
    }

    /// Finds the releases that a later part replaces. Parts in between that stay must not lose its
    /// effect.
    pub(super) fn replaced_of(&self, known: &[&KnownRelease]) -> Vec<bool> {
        let mut replaced = vec![false; known.len()];
        for at in (0..known.len()).rev().filter(|&at| !known[at].is_whole()) {
            let part = known[at];
            for later in at + 1..known.len() {
                if !known[later].is_whole() && self.replaces(known[later], part) {
                    replaced[at] = true;
                    break;
                }
                if !replaced[later] && meet(known[later].header(), part.header()) {
                    break;
                }
            }
        }

        replaced
    }

    fn replaces(&self, later: &KnownRelease, part: &KnownRelease) -> bool {
        let new = later.header();
        let old = part.header();
        let within = |path: &TreePath| {
            new.scope.is_empty() || new.scope.iter().any(|scope| path.is_within(scope))
        };

        let covers =
            new.scope.is_empty() || (!old.scope.is_empty() && old.scope.iter().all(within));
        let reaches = new.targets.is_empty() || new.targets == old.targets;
        if !covers || !reaches || !alike(&in_scope(new, &old.scope), &in_scope(old, &old.scope)) {
            return false;
        }

        if old.rules.delete_extras && !new.rules.delete_extras {
            return false;
        }

        if new.rules.delete_extras {
            // All that remains of the part are directories above its scope.
            let above = old
                .scope
                .iter()
                .flat_map(|path| std::iter::successors(path.parent(), TreePath::parent));
            return above.filter(|dir| !within(dir)).all(|dir| {
                self.has(part, &dir) == Some(false) || self.has(later, &dir) == Some(true)
            });
        }

        match (self.paths(later), self.paths(part)) {
            (Some(new), Some(old)) => old.all.is_subset(&new.all),
            _ => false,
        }
    }

    /// Returns whether a release has the path; `None` if its manifest is unreadable.
    fn has(&self, known: &KnownRelease, path: &TreePath) -> Option<bool> {
        let manifest = Manifest::of(known.header(), self.nodes);
        let pages = known
            .pages
            .get_or_init(|| Pages::of(&manifest).ok())
            .as_ref()?;
        Some(pages.find(&manifest, path).ok()?.is_some())
    }

    /// Paths of a release; `None` if its manifest is unreadable.
    fn paths<'k>(&self, known: &'k KnownRelease) -> Option<&'k Paths> {
        let read = || -> Result<Paths, ReadError> {
            let manifest = Manifest::of(known.header(), self.nodes);
            let mut paths = Paths {
                all: HashSet::new(),
                files: Vec::new(),
            };
            for located in manifest.entries() {
                let entry = located?.entry;
                if !matches!(entry.kind, EntryKind::Directory) {
                    paths.files.push(entry.path.clone());
                }
                paths.all.insert(entry.path);
            }
            Ok(paths)
        };

        known.paths.get_or_init(|| read().ok()).as_ref()
    }
}

/// Returns whether the scopes of both releases overlap.
fn meet(one: &Header, other: &Header) -> bool {
    let meets = |a: &TreePath| other.scope.iter().any(|b| a.is_within(b) || b.is_within(a));
    one.scope.is_empty() || other.scope.is_empty() || one.scope.iter().any(meets)
}

/// Rules of a release that concern paths in `scope`; patterns of its directories come last.
fn in_scope(header: &Header, scope: &[TreePath]) -> Rules {
    let is_own = |base: &TreePath| scope.iter().any(|path| base.is_within(path));
    let leads = |base: &TreePath| scope.is_empty() || scope.iter().any(|path| path.is_within(base));
    let of = |own: bool| {
        let speaks = move |exclude: &&Exclude| match &exclude.base {
            Some(base) if is_own(base) => own,
            Some(base) => !own && leads(base),
            None => !own,
        };
        header.rules.excludes.iter().filter(speaks)
    };

    Rules {
        excludes: of(false).chain(of(true)).cloned().collect(),
        ..header.rules.clone()
    }
}
