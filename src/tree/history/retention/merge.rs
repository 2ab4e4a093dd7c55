//! Merges many parts of a tree into one part that replaces them: new hosts take one release, and no
//! host keeps the others.
//!
//! Only manifests are read. The parts since the whole release are layers; for each path the newest
//! layer with the path decides. The merged part has the result of all layers within the scope of
//! the parts that it replaces, so it may follow parts that it does not replace.

mod layers;
mod output;
mod scope;
#[cfg(test)]
mod tests;

use self::layers::{Layer, next_path, said};
use self::output::MergeOutput;
use self::scope::Scope;
use super::{KnownRelease, ReleaseHistory, alike};
use crate::error::{Error, Result};
use crate::id::Serial;
use crate::manifest::header::{Header, MAX_PATTERNS};
use crate::manifest::read::{Manifest, ReadError};
use crate::manifest::rules::{Exclude, PathFilter};
use crate::manifest::{EntryKind, Intent, NodeRef, Release, Rules, TreePath};
use crate::units::Limit;

/// Most bytes of a merged scope.
const MAX_SCOPE_BYTES: usize = 32 << 10;

/// Most excludes of a merged part.
const MAX_EXCLUDES: usize = 200;

/// Most entries of all parts together.
const MAX_MERGED_ENTRIES: u64 = 1 << 18;

/// A part with the effect of several parts.
#[derive(Debug, Clone, PartialEq)]
pub struct Merged {
    /// Paths that it governs.
    pub scope: Vec<TreePath>,
    /// Rules.
    pub rules: Rules,
    /// Root of its manifest; the nodes are in the tree's store.
    pub root: NodeRef,
    /// Number of parts that it replaces.
    pub parts: usize,
    /// Present release at the time of the merge; later ones are not included.
    pub after: Serial,
}

/// Reason why parts cannot be merged.
pub type Unmerged = &'static str;

/// Parts with the same rules, and the scope of a part for all of them.
#[derive(Default)]
struct PartGroup {
    /// Indexes in the history.
    members: Vec<usize>,
    scope: Scope,
    excludes: Vec<Exclude>,
}

impl ReleaseHistory<'_> {
    /// Merges parts for all hosts since the whole release that no later part replaced, either those
    /// that delete extras or the others, if the result replaces `least` or more. Stores its
    /// manifest.
    pub(crate) fn merged(&self, deletes: bool, least: usize) -> Result<Result<Merged, Unmerged>> {
        let upto = self.upto_present();
        let for_all = |at: &usize| self.known[*at].header().targets.is_empty();
        let base = self.known[..upto].iter().rposition(KnownRelease::is_whole);
        let Some(base) = base.filter(for_all) else {
            return Ok(Err("no release of the whole tree for all hosts is kept"));
        };

        let parts: Vec<usize> = (base + 1..upto)
            .filter(for_all)
            .filter(|&at| !self.is_replaced(at))
            .collect();
        let entries = parts.iter().map(|&at| self.known[at].header().root.entries);

        if entries.fold(0, u64::saturating_add) > MAX_MERGED_ENTRIES {
            return Ok(Err("the parts have too many entries"));
        }

        let group = self
            .out_of_reach(base, deletes)
            .and_then(|others| self.group(&parts, deletes, &others));

        let Some(group) = group else {
            return Ok(Err("no parts can be merged"));
        };

        let merged = self.compose(&parts, &group);
        let merged =
            merged.map_err(|e| Error::refused("cannot read a manifest that is kept").because(e))?;
        let mut merged = match merged {
            Ok(merged) => merged,
            Err(why) => return Ok(Err(why)),
        };

        let last = self.as_last(&merged)?;
        let replaced = self.replaced_of(&self.known.iter().chain([&last]).collect::<Vec<_>>());
        merged.parts = parts.iter().filter(|&&at| replaced[at]).count();

        Ok(if merged.parts >= least {
            Ok(merged)
        } else {
            Err("too few parts can be merged")
        })
    }

    /// Paths that a merged part must not touch; `None` is everything. Some hosts have other content
    /// there than the rest, and a host that was away would lose it. A part that deletes within a
    /// limit is not replaced, since the deletion would lose its limit; a part without a scope never
    /// is.
    fn out_of_reach(&self, base: usize, deletes: bool) -> Option<Scope> {
        let mut paths = Vec::new();
        for at in (base + 1..self.known.len()).filter(|&at| !self.is_replaced(at)) {
            let header = self.known[at].header();
            if !header.targets.is_empty() && header.scope.is_empty() {
                return None;
            }
            if !header.targets.is_empty() || (deletes && is_limited(&header.rules)) {
                paths.extend(header.scope.iter().cloned());
            }
        }

        Some(Scope::of(paths))
    }

    /// The release of a merged part, after all others.
    fn as_last(&self, merged: &Merged) -> Result<KnownRelease> {
        let Some(last) = self.known.last() else {
            return Err(Error::refused("there is no release"));
        };

        let Merged {
            scope, rules, root, ..
        } = merged.clone();
        let header = Header {
            serial: last.serial().next(),
            targets: Vec::new(),
            scope,
            rules,
            root,
            top: None,
            ..last.header().clone()
        };

        Release::new(header)
            .map(KnownRelease::new)
            .map_err(|e| Error::refused(e.to_string()))
    }

    /// Parts that one part can replace, newest first, as far as a header has room; none that
    /// overlaps `others`.
    fn group(&self, parts: &[usize], deletes: bool, others: &Scope) -> Option<PartGroup> {
        let is_kind = |header: &Header| {
            header.rules.delete_extras == deletes
                && header.rules.packed.is_none()
                && !header.scope.is_empty()
        };

        let mut like: Option<Rules> = None;
        let mut group = PartGroup::default();
        let mut own: Vec<(Scope, Vec<Exclude>)> = Vec::new();
        for &at in parts.iter().rev() {
            let header = self.known[at].header();
            if header.intent != Intent::Deploy
                || !is_kind(header)
                || others.meets_any(&header.scope)
            {
                continue;
            }
            let scope = Scope::of(header.scope.clone());
            let is_own =
                |exclude: &Exclude| exclude.base.as_ref().is_some_and(|base| scope.has(base));
            let (excludes, shared): (Vec<_>, Vec<_>) =
                header.rules.excludes.iter().cloned().partition(is_own);
            let in_order = shared.iter().chain(&excludes).eq(&header.rules.excludes);
            let rules = Rules {
                excludes: shared,
                ..header.rules.clone()
            };
            if like.as_ref().is_some_and(|like| !alike(like, &rules))
                || !(in_order || no_negation(&header.rules))
            {
                continue;
            }
            // A pattern of one part must not apply to another one.
            let apart = |excludes: &[Exclude], scope: &Scope| {
                excludes
                    .iter()
                    .flat_map(|exclude| &exclude.base)
                    .all(|base| !scope.meets(base))
            };
            let agrees = own.iter().all(|(other, theirs)| {
                *theirs == excludes || (apart(&excludes, other) && apart(theirs, &scope))
            });
            let wider = Scope::of([&group.scope.0[..], &scope.0[..]].concat());
            let room = wider.0.len() <= MAX_PATTERNS
                && wider.bytes() <= MAX_SCOPE_BYTES
                && rules.excludes.len() + group.excludes.len() + excludes.len() <= MAX_EXCLUDES;
            if !agrees || !room {
                continue;
            }

            like.get_or_insert(rules);
            group.members.push(at);
            group.scope = wider;
            group.excludes.extend(
                excludes
                    .iter()
                    .filter(|e| !own.iter().any(|(_, o)| o.contains(e)))
                    .cloned(),
            );
            own.push((scope, excludes));
        }

        let like = like?;
        group.excludes = [like.excludes, group.excludes].concat();
        Some(group)
    }

    /// Merges `group` out of all `parts`.
    fn compose(
        &self,
        parts: &[usize],
        group: &PartGroup,
    ) -> Result<Result<Merged, Unmerged>, ReadError> {
        let Some(&newest) = group.members.first() else {
            return Ok(Err("no parts can be merged"));
        };

        let manifests: Vec<_> = parts
            .iter()
            .map(|&at| Manifest::of(self.known[at].header(), self.nodes))
            .collect();
        let mut layers = Vec::new();

        for (manifest, &at) in manifests.iter().zip(parts) {
            let header = self.known[at].header();
            let spared = match header.rules.delete_excluded {
                true => PathFilter::new(&[]),
                false => header.rules.excluded().map_err(ReadError::Illegal)?,
            };
            layers.push(Layer {
                entries: manifest.entries().peekable(),
                scope: (!header.scope.is_empty()).then(|| Scope::of(header.scope.clone())),
                deletes: header.rules.delete_extras.then_some(spared),
            });
        }

        let excluded = PathFilter::new(&group.excludes);

        let mut out = MergeOutput::new(self.nodes);
        while let Some(path) = next_path(&mut layers)? {
            let Some(word) = said(&mut layers, &path)? else {
                continue;
            };
            if out.file.as_ref().is_some_and(|file| path.is_within(file)) {
                continue;
            }
            let is_dir = matches!(word.entry.kind, EntryKind::Directory);
            if !is_dir {
                out.file = Some(path.clone());
            }
            if group.scope.has(&path) && !excluded.matches(&path, is_dir) {
                if !word.sure {
                    return Ok(Err("the parts do not say what a directory is"));
                }
                if !out.put(word)? {
                    return Ok(Err(
                        "names of one file, or a directory and what is in it, are in parts that \
                         do not go together",
                    ));
                }
            } else if is_dir && group.scope.is_below(&path) {
                out.above(word);
            }
        }

        let rules = Rules {
            excludes: group.excludes.clone(),
            // No part with deletions had a limit.
            delete_max: Limit::NONE,
            allow_empty: true,
            ..self.known[newest].header().rules.clone()
        };

        let root = out.finish()?;
        let after = self.current.unwrap_or_default();
        Ok(Ok(Merged {
            scope: group.scope.0.clone(),
            rules,
            root,
            parts: 0,
            after,
        }))
    }
}

/// Returns whether the part deletes within a limit.
fn is_limited(rules: &Rules) -> bool {
    rules.delete_extras && rules.delete_max != Limit::NONE
}

fn no_negation(rules: &Rules) -> bool {
    !rules
        .excludes
        .iter()
        .any(|exclude| exclude.pattern.as_bytes().starts_with(b"!"))
}
