//! Plans one path: one that only the host has, only the release has, or both have.

use super::Walk;
use crate::diff::metadata::EntryMetadata;
use crate::diff::permitted::ScopePosition;
use crate::diff::{Action, Change, Delta, FurtherName, LocalOwner, Refusal, Shape};
use crate::manifest::read::Located;
use crate::manifest::{Entry, EntryKind, TreePath};

impl Walk<'_> {
    /// Handles a path that only the host has.
    pub(super) fn extra(&mut self, entry: &Entry) -> Result<(), Refusal> {
        let path = &entry.path;
        let is_dir = matches!(entry.kind, EntryKind::Directory);
        match self.governed.position(path) {
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
            .pop_if(|(dir, _)| !path.is_within(dir))
            .is_some()
        {}

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

        if action == Action::Delete {
            if is_dir {
                self.leaving.push((path.clone(), self.plan.changes.len()));
            }
            self.times.note_name(path);
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
    pub(super) fn missing(&mut self, want: Located) -> Result<(), Refusal> {
        self.enter_scope(&want.entry)?;
        if self.want_guard.covers(
            &want.entry.path,
            matches!(want.entry.kind, EntryKind::Directory),
        ) {
            return Ok(());
        }

        self.change(Action::Create, Delta::CONTENT, None, want)
    }

    /// Handles a path that both sides have.
    pub(super) fn both(&mut self, have: &Entry, want: Located) -> Result<(), Refusal> {
        let above = self.enter_scope(&want.entry)? == ScopePosition::Above;
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

        if is_same_kind(&have.kind, &want.entry.kind) {
            return self.update(have, want);
        }

        if ours == Shape::Directory {
            self.replaced = Some(path.clone());
        }
        self.change(Action::Replace, Delta::CONTENT, Some(have), want)
    }

    /// Handles a path that has one kind of entry on both sides.
    fn update(&mut self, have: &Entry, want: Located) -> Result<(), Refusal> {
        let ours = Shape::of(&have.kind);
        let theirs = Shape::of(&want.entry.kind);
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
            let wanted = (&want.entry).into();
            EntryMetadata::from(have).differences(wanted, is_link, owner, self.rules)
        };

        if anew {
            delta.content = theirs != Shape::Hardlink;
            delta.size = ours == Shape::File
                && theirs == Shape::File
                && have.kind.size() != want.entry.kind.size();
            return self.change(Action::Update, delta, Some(have), want);
        }

        if !delta.any() {
            return self.note_further_name(&want.entry);
        }

        let path = &have.path;
        if ours == Shape::Directory
            && delta.is_mtime_only()
            && !self.governed.has_all_names_in(Some(path))
        {
            self.times.enter(path, self.plan.changes.len());
        }
        self.change(Action::Meta, delta, Some(have), want)
    }

    /// Notes an unchanged hard link, whose file may have changed metadata.
    fn note_further_name(&mut self, want: &Entry) -> Result<(), Refusal> {
        let EntryKind::Hardlink(first) = &want.kind else {
            return Ok(());
        };

        self.governed.check_link(&want.path, first)?;
        if let Some(first) = self.plan.changes.find(first) {
            self.plan.further.push(FurtherName {
                path: want.path.clone(),
                first: first as u32,
            });
        }

        Ok(())
    }

    /// Plans the change from `have` to `want`.
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
            self.times.note_name(&path);
        }

        match &want.entry.kind {
            EntryKind::Hardlink(first) => self.governed.check_link(&path, first)?,
            EntryKind::File(content) if action != Action::Meta => {
                self.needed.add_file(want.first, content, self.want)?;
            }
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

    /// Returns true if the file at an earlier path gets a new inode, so that its other names have
    /// to be linked again.
    fn is_anew(&self, path: &TreePath) -> bool {
        self.plan
            .changes
            .find(path)
            .is_some_and(|at| self.plan.changes.get(at).makes_anew())
    }

    /// Counts an entry of the release; refuses one outside the scope.
    fn enter_scope(&mut self, want: &Entry) -> Result<ScopePosition, Refusal> {
        let position = self.governed.position(&want.path);
        match position {
            ScopePosition::Inside => self.wanted += 1,
            ScopePosition::Above if matches!(want.kind, EntryKind::Directory) => {}
            _ => return Err(Refusal::OutOfScope(want.path.clone())),
        }

        Ok(position)
    }
}

/// Returns true if an entry can become the other without a removal: a hard link is a file of any
/// kind.
fn is_same_kind(ours: &EntryKind, theirs: &EntryKind) -> bool {
    let same = std::mem::discriminant(ours) == std::mem::discriminant(theirs);
    let (ours, theirs) = (Shape::of(ours), Shape::of(theirs));
    let is_regular = |shape| matches!(shape, Shape::File | Shape::Hardlink);
    let is_linkable = |shape| shape != Shape::Directory;

    ours == theirs && same
        || is_regular(ours) && is_regular(theirs)
        || theirs == Shape::Hardlink && is_linkable(ours)
        || ours == Shape::Hardlink && is_linkable(theirs)
}
