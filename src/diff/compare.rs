//! The first pass: walks the host's entries and the release's side by side in the order of paths.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::permitted::{Guard, Owners, ScopePosition, scope_position};
use super::reuse::Needed;
use super::{
    Action, Change, Changes, Delta, FurtherName, Have, HostRules, LocalOwner, Paged, Plan, Refusal,
    Shape, TopChange, Want, unreadable,
};
use crate::manifest::read::{Located, check_count};
use crate::manifest::rules::{Layout, PathFilter};
use crate::manifest::{Content, Entry, EntryKind, Mode, Mtime, Owner, Rules, Top, TreePath, Xattr};

/// Plans the changes that turn the host's tree into the release `want`, under `rules` and within
/// `scope` (empty: everything).
pub fn diff(
    have: &dyn Have,
    want: &dyn Want,
    rules: &Rules,
    scope: &[TreePath],
    host: &HostRules<'_>,
) -> Result<Plan, Refusal> {
    compare(have, want, rules, scope, host, None).map(|(plan, _)| plan)
}

/// Ranges that can differ under a full scope, and the totals that a walk over everything would
/// count.
pub(super) struct ChangedRanges<'a> {
    pub(super) have: &'a dyn Paged,
    pub(super) want: &'a dyn Fn(&RangeInclusive<TreePath>) -> crate::Result<Vec<Located>>,
    pub(super) ranges: &'a [RangeInclusive<TreePath>],
    /// Number of entries of the release.
    pub(super) wanted: u64,
}

/// Findings of a comparison besides the differences.
#[derive(Debug, Clone, Default)]
pub(super) struct Findings {
    /// Owners in the release, with their numbers on this host.
    pub(super) owners: Vec<(Arc<Owner>, LocalOwner)>,
    /// True if either side has hard links.
    pub(super) links: bool,
    /// Directories with a differing mtime that does not count.
    pub(super) timeless: Vec<TreePath>,
}

/// Compares everything, or parts.
pub(super) fn compare(
    have: &dyn Have,
    want: &dyn Want,
    rules: &Rules,
    scope: &[TreePath],
    host: &HostRules<'_>,
    parts: Option<&ChangedRanges<'_>>,
) -> Result<(Plan, Findings), Refusal> {
    let excluded = match rules.delete_excluded {
        true => Ok(PathFilter::default()),
        false => rules.excluded(),
    };

    let excluded = excluded.map_err(crate::Error::refused)?;
    let mut walk = Walk {
        rules,
        scope,
        want,
        owners: Owners::new(rules, host.owners),
        host_guard: Guard::new(host, &excluded),
        want_guard: Guard::new(host, &excluded),
        links: host.untouched(&excluded),
        plan: Plan::empty(rules),
        needed: Needed::default(),
        leaving: Vec::new(),
        timed: Vec::new(),
        timeless: Vec::new(),
        top_names: false,
        replaced: None,
        wanted: 0,
        met_links: false,
        link_targets: BTreeMap::new(),
    };

    match parts {
        None => walk.join(have.entries(), want.entries())?,
        Some(parts) => {
            for range in parts.ranges {
                walk.enter(range.start());
                let ours = parts.have.within(range)?;
                let theirs = (parts.want)(range)?;
                walk.join(ours.into_iter().map(Ok), theirs.into_iter().map(Ok))?;
            }
            walk.plan.summary.host_entries = parts.have.count();
            walk.wanted = parts.wanted;
        }
    }

    walk.check_link_targets()?;
    walk.top(have.top())?;
    let timeless = walk.drop_times();
    let findings = Findings {
        owners: walk.owners.known(),
        links: walk.met_links,
        timeless,
    };

    let mut plan = walk.plan;
    let needed = walk.needed;
    let wanted = walk.wanted;
    if rules.layout == Layout::Swap {
        plan.alone = vec![host.protect.clone(), excluded.clone()];
    }

    plan.count();
    if wanted == 0 && rules.delete_extras && !rules.allow_empty {
        return Err(Refusal::Empty);
    }

    check_limits(&plan, rules, host)?;
    needed.find_in(have, &mut plan)?;
    Ok((plan, findings))
}

fn check_limits(plan: &Plan, rules: &Rules, host: &HostRules<'_>) -> Result<(), Refusal> {
    let would = plan.summary.deleted;
    let total = plan.summary.host_entries;
    let limits = [("release", rules.delete_max), ("host", host.max_delete)];
    match limits.into_iter().min_by_key(|(_, limit)| limit.of(total)) {
        Some((who, limit)) if would > limit.of(total) => Err(Refusal::TooManyDeletions {
            would,
            limit,
            who,
            total,
        }),
        _ => Ok(()),
    }
}

struct Walk<'a> {
    rules: &'a Rules,
    scope: &'a [TreePath],
    want: &'a dyn Want,
    owners: Owners<'a>,
    host_guard: Guard<'a>,
    want_guard: Guard<'a>,
    /// Filters of paths that a hard link must not lead to.
    links: Vec<&'a PathFilter>,
    plan: Plan,
    needed: Needed,
    /// Extra directories that enclose the present path, with the positions of their changes.
    leaving: Vec<(TreePath, usize)>,
    /// Directories that enclose the present path and differ only in an mtime that may not count,
    /// with the positions of their changes.
    timed: Vec<(TreePath, usize)>,
    /// Positions of changes in an mtime that does not count.
    timeless: Vec<usize>,
    /// True if a name in the root directory changes.
    top_names: bool,
    /// Directory replaced by another kind of entry.
    replaced: Option<TreePath>,
    /// Number of entries of the release within the scope.
    wanted: u64,
    /// True after a hard link on either side.
    met_links: bool,
    /// Targets of the release's hard links, each with one of the links.
    link_targets: BTreeMap<TreePath, TreePath>,
}

impl Walk<'_> {
    /// Starts at a path in the middle; everything above is known to be equal on both sides.
    fn enter(&mut self, path: &TreePath) {
        let mut above: Vec<TreePath> =
            std::iter::successors(path.parent(), TreePath::parent).collect();
        while let Some(dir) = above.pop() {
            self.host_guard.covers(&dir, true);
            self.want_guard.covers(&dir, true);
        }
    }

    fn join(
        &mut self,
        mut ours: impl Iterator<Item = crate::Result<Entry>>,
        mut theirs: impl Iterator<Item = crate::Result<Located>>,
    ) -> Result<(), Refusal> {
        let mut h = ours.next().transpose()?;
        let mut w = theirs.next().transpose()?;
        loop {
            let order = match (&h, &w) {
                (None, None) => return Ok(()),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(h), Some(w)) => h.path.cmp(&w.entry.path),
            };

            let host = if order.is_le() { h.take() } else { None };
            let release = if order.is_ge() { w.take() } else { None };
            let is_link = |kind: &EntryKind| matches!(kind, EntryKind::Hardlink(_));
            self.met_links |= host.as_ref().is_some_and(|h| is_link(&h.kind));
            if let Some(Located {
                entry:
                    Entry {
                        path,
                        kind: EntryKind::Hardlink(first),
                        ..
                    },
                ..
            }) = &release
            {
                self.met_links = true;
                self.link_targets
                    .entry(first.clone())
                    .or_insert_with(|| path.clone());
            }
            match (host, release) {
                (Some(host), Some(release)) => self.both(&host, release)?,
                (Some(host), None) => self.extra(&host)?,
                (None, Some(release)) => self.missing(release)?,
                (None, None) => {}
            }
            if order.is_le() {
                h = ours.next().transpose()?;
            }
            if order.is_ge() {
                w = theirs.next().transpose()?;
            }
        }
    }

    /// Refuses a release with a hard link to no file of the release.
    fn check_link_targets(&self) -> Result<(), Refusal> {
        if self.link_targets.is_empty() {
            return Ok(());
        }

        match self.want.no_link_target(&mut self.link_targets.keys())? {
            None => Ok(()),
            Some(first) => {
                let path = self.link_targets[first].clone();
                let first = first.clone();
                Err(Refusal::LinkNowhere { path, first })
            }
        }
    }

    /// Compares the root directory, which only a release of the whole tree governs.
    fn top(&mut self, have: Option<&Top>) -> Result<(), Refusal> {
        let (Some(have), Some(want), true) = (have, self.want.top(), self.scope.is_empty()) else {
            return Ok(());
        };

        let owner = self
            .owners
            .local_at(&Arc::new(want.owner.clone()), &TopChange::PATH)?;
        let mut delta = self.metadata(have.into(), want.into(), false, owner);
        if is_time_only(delta) && !self.top_names && !self.governs_names_in(None) {
            delta = Delta::default();
        }

        self.plan.top = Some(TopChange {
            want: want.clone(),
            delta,
            owner,
        });

        Ok(())
    }

    /// Handles a path that only the host has.
    fn extra(&mut self, entry: &Entry) -> Result<(), Refusal> {
        let path = &entry.path;
        let is_dir = matches!(entry.kind, EntryKind::Directory);
        match scope_position(self.scope, path) {
            ScopePosition::Inside => {}
            ScopePosition::Outside => return Ok(()),
            ScopePosition::Above => {
                // A protection above the scope also applies inside.
                self.host_guard.covers(path, is_dir);
                return Ok(());
            }
        }

        self.plan.summary.host_entries += 1;
        while self
            .leaving
            .last()
            .is_some_and(|(dir, _)| !path.is_within(dir))
        {
            self.leaving.pop();
        }

        let replaced = self.replaced.as_ref().filter(|dir| path.is_within(dir));
        if self.host_guard.covers(path, is_dir) {
            if let Some(at) = replaced {
                return Err(Refusal::ReplacesProtected {
                    at: at.clone(),
                    path: path.clone(),
                });
            }
            for (_, change) in self.leaving.drain(..) {
                self.plan.changes.set_action(change, Action::Keep);
            }
            return Ok(());
        }

        let action = match (self.rules.delete_extras, replaced) {
            (true, _) => Action::Delete,
            (false, Some(at)) => {
                return Err(Refusal::NotEmpty {
                    at: at.clone(),
                    path: path.clone(),
                });
            }
            (false, None) => Action::Extra,
        };

        if is_dir && action == Action::Delete {
            self.leaving.push((path.clone(), self.plan.changes.len()));
        }

        if action == Action::Delete {
            self.note_name(path);
        }

        self.plan.changes.push(Change {
            path: path.clone(),
            action,
            delta: Delta::default(),
            was: Some(Shape::of(&entry.kind)),
            want: None,
            owner: LocalOwner::default(),
            kept: LocalOwner::default(),
        });

        Ok(())
    }

    /// Handles a path that only the release has.
    fn missing(&mut self, want: Located) -> Result<(), Refusal> {
        self.check_scope(&want.entry)?;
        if self.want_guard.covers(
            &want.entry.path,
            matches!(want.entry.kind, EntryKind::Directory),
        ) {
            return Ok(());
        }

        let delta = Delta {
            content: true,
            ..Delta::default()
        };

        self.change(Action::Create, delta, None, want)
    }

    fn both(&mut self, have: &Entry, want: Located) -> Result<(), Refusal> {
        let above = self.check_scope(&want.entry)? == ScopePosition::Above;
        let ours = Shape::of(&have.kind);
        let theirs = Shape::of(&want.entry.kind);
        let path = &have.path;
        let alone = self.host_guard.covers(path, ours == Shape::Directory);
        let wanted_alone = self.want_guard.covers(path, theirs == Shape::Directory);

        if above {
            return if ours == theirs {
                Ok(())
            } else {
                Err(Refusal::OutOfScope(want.entry.path))
            };
        }

        self.plan.summary.host_entries += 1;
        if alone != wanted_alone {
            return Err(Refusal::ReplacesProtected {
                at: path.clone(),
                path: path.clone(),
            });
        }

        if alone {
            return Ok(());
        }

        let regular = |shape| matches!(shape, Shape::File | Shape::Hardlink);
        let linkable = |shape| shape != Shape::Directory;
        let same = ours == theirs
            && std::mem::discriminant(&have.kind) == std::mem::discriminant(&want.entry.kind)
            || regular(ours) && regular(theirs)
            || theirs == Shape::Hardlink && linkable(ours)
            || ours == Shape::Hardlink && linkable(theirs);

        if !same {
            if ours == Shape::Directory {
                self.replaced = Some(path.clone());
            }
            return self.change(
                Action::Replace,
                Delta {
                    content: true,
                    ..Delta::default()
                },
                Some(have),
                want,
            );
        }

        let owner = self.owners.local(&want.entry)?;
        let anew = match &want.entry.kind {
            EntryKind::Hardlink(first) => have.kind != want.entry.kind || self.is_anew(first),
            EntryKind::Directory => false,
            kind => have.kind != *kind,
        };

        // Hard links share the metadata of their file, which is compared under its first name.
        let linked = !anew && theirs == Shape::Hardlink;
        let mut delta = if linked {
            Delta::default()
        } else {
            let is_link = theirs == Shape::Symlink;
            self.metadata(have.into(), (&want.entry).into(), is_link, owner)
        };

        if anew {
            delta.content = theirs != Shape::Hardlink;
            delta.size = ours == Shape::File
                && theirs == Shape::File
                && have.kind.size() != want.entry.kind.size();
            self.change(Action::Update, delta, Some(have), want)
        } else if delta.any() {
            if ours == Shape::Directory && is_time_only(delta) && !self.governs_names_in(Some(path))
            {
                self.leave_timed(path);
                self.timed.push((path.clone(), self.plan.changes.len()));
            }
            self.change(Action::Meta, delta, Some(have), want)
        } else {
            if let EntryKind::Hardlink(first) = &want.entry.kind {
                self.check_link(&want.entry.path, first)?;
                if let Some(first) = self.plan.changes.find(first) {
                    let further = FurtherName {
                        path: want.entry.path.clone(),
                        first: first as u32,
                    };
                    self.plan.further.push(further);
                }
            }
            Ok(())
        }
    }

    fn change(
        &mut self,
        action: Action,
        delta: Delta,
        have: Option<&Entry>,
        want: Located,
    ) -> Result<(), Refusal> {
        let owner = self.owners.local(&want.entry)?;
        let kept = match (action, have) {
            (Action::Update, Some(have)) => LocalOwner {
                uid: owner.uid.is_none().then_some(have.owner.uid),
                gid: owner.gid.is_none().then_some(have.owner.gid),
            },
            _ => LocalOwner::default(),
        };

        let was = have.map(|have| Shape::of(&have.kind));
        let path = want.entry.path.clone();
        if action != Action::Meta {
            self.note_name(&path);
        }

        match &want.entry.kind {
            EntryKind::Hardlink(first) => self.check_link(&path, first)?,
            EntryKind::File(content) if action != Action::Meta => match content {
                Content::Blocks(blocks) => self.needed.add(want.first, blocks),
                Content::Lists(_) => {
                    check_count(content).map_err(unreadable)?;
                    let mut first = want.first;
                    for piece in content.pieces() {
                        let blocks = self.want.blocks(&piece)?;
                        self.needed.add(first, &blocks);
                        first.0 += blocks.len() as u64;
                    }
                }
            },
            _ => {}
        }

        self.plan.changes.push(Change {
            path,
            action,
            delta,
            was,
            want: Some(want),
            owner,
            kept,
        });

        Ok(())
    }

    /// Returns true if the release governs every possible name in a directory. Otherwise names of
    /// the host and of the source itself come and go without a change of the release, and so does
    /// the mtime of the directory.
    fn governs_names_in(&self, dir: Option<&TreePath>) -> bool {
        !self.links.iter().any(|filter| filter.may_match_in(dir))
    }

    /// Notes that the commit changes the name `path`, so that the mtime of its directory is
    /// restored.
    fn note_name(&mut self, path: &TreePath) {
        self.leave_timed(path);
        let parent = path.parent();
        self.top_names |= parent.is_none();
        self.timed.pop_if(|(dir, _)| parent.as_ref() == Some(dir));
    }

    /// Leaves the directories that do not enclose `path`.
    fn leave_timed(&mut self, path: &TreePath) {
        while let Some((_, change)) = self.timed.pop_if(|(dir, _)| !path.is_within(dir)) {
            self.timeless.push(change);
        }
    }

    /// Removes changes of an mtime that does not count from the plan; returns their paths.
    fn drop_times(&mut self) -> Vec<TreePath> {
        self.timeless
            .extend(self.timed.drain(..).map(|(_, change)| change));
        if self.timeless.is_empty() {
            return Vec::new();
        }

        self.timeless.sort_unstable();
        let mut paths = Vec::with_capacity(self.timeless.len());
        let mut kept = Changes::default();
        for (place, change) in self.plan.changes.into_iter().enumerate() {
            match self.timeless.binary_search(&place) {
                Ok(_) => paths.push(change.path),
                Err(_) => kept.push(change),
            }
        }

        self.plan.changes = kept;
        paths
    }

    /// Returns true if the file at an earlier path gets a new inode, so that its other names have
    /// to be linked again.
    fn is_anew(&self, path: &TreePath) -> bool {
        self.plan
            .changes
            .find(path)
            .is_some_and(|at| self.plan.changes.get(at).makes_anew())
    }

    fn check_scope(&mut self, want: &Entry) -> Result<ScopePosition, Refusal> {
        match scope_position(self.scope, &want.path) {
            ScopePosition::Inside => {
                self.wanted += 1;
                Ok(ScopePosition::Inside)
            }
            ScopePosition::Above if matches!(want.kind, EntryKind::Directory) => {
                Ok(ScopePosition::Above)
            }
            _ => Err(Refusal::OutOfScope(want.path.clone())),
        }
    }

    fn check_link(&self, path: &TreePath, first: &TreePath) -> Result<(), Refusal> {
        let outside = scope_position(self.scope, first) != ScopePosition::Inside
            || self.links.iter().any(|f| f.matches(first, false));
        match outside {
            true => Err(Refusal::LinkOutside {
                path: path.clone(),
                first: first.clone(),
            }),
            false => Ok(()),
        }
    }

    fn metadata(
        &self,
        have: EntryMetadata<'_>,
        want: EntryMetadata<'_>,
        is_link: bool,
        owner: LocalOwner,
    ) -> Delta {
        let compare_xattrs = self.rules.xattrs;
        Delta {
            content: false,
            size: false,
            mtime: self.rules.mtime && have.mtime != want.mtime,
            mode: !is_link && have.mode != want.mode,
            user: owner.uid.is_some_and(|uid| uid != have.owner.uid),
            group: owner.gid.is_some_and(|gid| gid != have.owner.gid),
            acl: compare_xattrs && differ(have.xattrs, want.xattrs, true),
            xattrs: compare_xattrs && differ(have.xattrs, want.xattrs, false),
        }
    }
}

fn is_time_only(delta: Delta) -> bool {
    delta
        == Delta {
            mtime: true,
            ..Delta::default()
        }
}

fn differ(have: &[Xattr], want: &[Xattr], acls: bool) -> bool {
    let of = |all: &'_ [Xattr]| -> Vec<Xattr> {
        all.iter()
            .filter(|x| x.name.starts_with(b"system.posix_acl_") == acls)
            .cloned()
            .collect()
    };
    of(have) != of(want)
}

/// Metadata common to entries and the root directory.
#[derive(Clone, Copy)]
struct EntryMetadata<'a> {
    mode: Mode,
    owner: &'a Owner,
    mtime: Mtime,
    xattrs: &'a [Xattr],
}

impl<'a> From<&'a Entry> for EntryMetadata<'a> {
    fn from(e: &'a Entry) -> Self {
        Self {
            mode: e.mode,
            owner: &e.owner,
            mtime: e.mtime,
            xattrs: &e.xattrs,
        }
    }
}

impl<'a> From<&'a Top> for EntryMetadata<'a> {
    fn from(t: &'a Top) -> Self {
        Self {
            mode: t.mode,
            owner: &t.owner,
            mtime: t.mtime,
            xattrs: &t.xattrs,
        }
    }
}
