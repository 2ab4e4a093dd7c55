//! Permission to touch paths on this host: scope, excludes, the host's own protection, owners.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::Arc;

use super::{LocalOwner, Refusal};
use crate::Result;
use crate::manifest::entry::NO_ID;
use crate::manifest::path::is_within;
use crate::manifest::rules::{Exclude, PathFilter, UnknownOwner};
use crate::manifest::{Entry, Owner, Rules, TreePath};
use crate::units::Limit;

/// Turns owners' names into this host's numbers. An error does not mean "no such name": it ends the
/// comparison.
pub trait OwnerResolver {
    /// Returns the number of the user `name`.
    fn uid(&self, name: &str) -> Result<Option<u32>>;
    /// Returns the number of the group `name`.
    fn gid(&self, name: &str) -> Result<Option<u32>>;
}

/// Rules that the host sets for its own tree.
#[derive(Clone, Copy)]
pub struct HostRules<'a> {
    /// Paths never created, changed or deleted by any release.
    pub protect: &'a PathFilter,
    /// Paths left alone in the same way, for this release.
    pub spared: &'a [PathFilter],
    /// Largest number of deletions.
    pub max_delete: Limit,
    /// Reports an exceeded limit in the plan, for a comparison that changes nothing.
    pub reports_limits: bool,
    /// Users and groups of the host.
    pub owners: &'a dyn OwnerResolver,
}

impl<'a> HostRules<'a> {
    /// Returns the filters of paths that a release with these excludes leaves alone.
    pub(super) fn untouched(&self, excluded: &'a PathFilter) -> Vec<&'a PathFilter> {
        let filters = [self.protect, excluded].into_iter().chain(self.spared);
        filters.filter(|filter| !filter.is_empty()).collect()
    }

    /// Returns the patterns of paths left alone under any release.
    pub(super) fn patterns(&self) -> Vec<Vec<Exclude>> {
        std::iter::once(self.protect)
            .chain(self.spared)
            .map(|filter| filter.patterns().to_vec())
            .collect()
    }
}

/// Position of a path relative to the scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ScopePosition {
    Inside,
    /// A directory that leads to the scope.
    Above,
    Outside,
}

/// Paths that a release governs on this host: its scope, without paths left alone.
pub(super) struct Governed<'a> {
    scope: &'a [TreePath],
    /// Filters of paths left alone.
    untouched: Vec<&'a PathFilter>,
}

impl<'a> Governed<'a> {
    pub(super) fn new(
        scope: &'a [TreePath],
        host: &HostRules<'a>,
        excluded: &'a PathFilter,
    ) -> Self {
        Self {
            scope,
            untouched: host.untouched(excluded),
        }
    }

    /// Returns true if the scope is the whole tree.
    pub(super) fn is_whole(&self) -> bool {
        self.scope.is_empty()
    }

    /// Returns the position of `path` relative to the scope.
    pub(super) fn position(&self, path: &TreePath) -> ScopePosition {
        let leads_to = |prefix: &TreePath| is_within(prefix.as_bytes(), path.as_bytes());
        if self.is_whole() || self.scope.iter().any(|s| path.is_within(s)) {
            ScopePosition::Inside
        } else if self.scope.iter().any(leads_to) {
            ScopePosition::Above
        } else {
            ScopePosition::Outside
        }
    }

    /// Returns true if the release governs every possible name in a directory. Otherwise names of
    /// the host and of the source itself come and go without a change of the release, and so does
    /// the mtime of the directory.
    pub(super) fn has_all_names_in(&self, dir: Option<&TreePath>) -> bool {
        !self.untouched.iter().any(|filter| filter.may_match_in(dir))
    }

    /// Refuses the hard link `path` if its file, `first`, is not governed.
    pub(super) fn check_link(
        &self,
        path: &TreePath,
        first: &TreePath,
    ) -> std::result::Result<(), Refusal> {
        let is_outside = self.position(first) != ScopePosition::Inside
            || self.untouched.iter().any(|f| f.matches(first, false));
        match is_outside {
            true => Err(Refusal::LinkOutside {
                path: path.clone(),
                first: first.clone(),
            }),
            false => Ok(()),
        }
    }
}

/// Matches a sorted stream of paths against the filters. Everything below a matched directory is
/// matched.
pub(super) struct Guard<'a> {
    filters: Vec<&'a PathFilter>,
    covered: Option<TreePath>,
}

impl<'a> Guard<'a> {
    pub(super) fn new(host: &HostRules<'a>, excluded: &'a PathFilter) -> Self {
        Self {
            filters: host.untouched(excluded),
            covered: None,
        }
    }

    pub(super) fn covers(&mut self, path: &TreePath, is_dir: bool) -> bool {
        if self.covered.as_ref().is_some_and(|top| path.is_within(top)) {
            return true;
        }

        let here = self.filters.iter().any(|f| f.matches_here(path, is_dir));
        if here && is_dir {
            self.covered = Some(path.clone());
        }

        here
    }
}

/// Owners of a release in this host's numbers, looked up once each.
pub(super) struct Owners<'a> {
    rules: &'a Rules,
    resolver: &'a dyn OwnerResolver,
    known: HashMap<Arc<Owner>, LocalOwner>,
}

impl<'a> Owners<'a> {
    pub(super) fn new(rules: &'a Rules, resolver: &'a dyn OwnerResolver) -> Self {
        Self {
            rules,
            resolver,
            known: HashMap::new(),
        }
    }

    /// Returns all owners looked up so far.
    pub(super) fn known(&self) -> Vec<(Arc<Owner>, LocalOwner)> {
        self.known
            .iter()
            .map(|(owner, local)| (Arc::clone(owner), *local))
            .collect()
    }

    pub(super) fn local(&mut self, entry: &Entry) -> std::result::Result<LocalOwner, Refusal> {
        self.local_at(&entry.owner, &entry.path)
    }

    /// Returns the local owner; errors name `path`.
    pub(super) fn local_at(
        &mut self,
        owner: &Arc<Owner>,
        path: &dyn Display,
    ) -> std::result::Result<LocalOwner, Refusal> {
        if let Some(&known) = self.known.get(owner) {
            return Ok(known);
        }

        let numeric = self.rules.unknown_owner == UnknownOwner::Numeric;
        let resolve = |what, name: Option<&str>, number: u32, found: Option<u32>| {
            let id = match (name, found) {
                (Some(_), None) if !numeric => None,
                (_, found) => Some(found.unwrap_or(number)),
            };
            // The kernel takes this number as "leave the owner unchanged".
            id.filter(|&id| id != NO_ID)
                .ok_or_else(|| Refusal::UnknownOwner {
                    path: path.to_string(),
                    what,
                    name: name.map_or_else(
                        || number.to_string(),
                        |n| crate::units::printable(n.as_bytes()),
                    ),
                })
        };

        let found = |name: Option<&str>, look_up: &dyn Fn(&str) -> Result<Option<u32>>| match name {
            Some(name) => look_up(name),
            None => Ok(None),
        };

        let user = owner.user.as_deref();
        let group = owner.group.as_deref();
        let uid = match self.rules.set_user {
            true => Some(resolve(
                "user",
                user,
                owner.uid,
                found(user, &|n| self.resolver.uid(n))?,
            )?),
            false => None,
        };

        let gid = match self.rules.set_group {
            true => Some(resolve(
                "group",
                group,
                owner.gid,
                found(group, &|n| self.resolver.gid(n))?,
            )?),
            false => None,
        };

        let local = LocalOwner { uid, gid };
        self.known.insert(Arc::clone(owner), local);
        Ok(local)
    }
}
