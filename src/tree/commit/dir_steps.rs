//! Directories of a plan as steps of the journal, with the metadata before and after.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::AsFd;

use super::journal::DirStep;
use crate::diff::{Action, Change, Plan, Shape};
use crate::error::{Error, Result};
use crate::manifest::rules::Layout;
use crate::manifest::{Mode, TreePath};
use crate::tree::fs::metadata::{Metadata, handle_of};
use crate::tree::fs::root::Root;
use crate::tree::fs::xattrs::LABEL;
use crate::tree::prepare::inheritance::Inheritance;
use crate::tree::state::worktree::Worktree;

/// Collects the directories that a commit touches.
pub(super) struct DirSteps<'a> {
    tree: &'a Worktree,
    plan: &'a Plan,
    own: Vec<DirStep>,
    /// Directories with changed names.
    parents: BTreeSet<Option<TreePath>>,
    inheritance: Inheritance<'a>,
    /// Directories that are open at present, with their own modes.
    opened: BTreeMap<TreePath, Mode>,
}

impl<'a> DirSteps<'a> {
    pub(super) fn new(
        tree: &'a Worktree,
        root: &'a Root,
        plan: &'a Plan,
        opened: BTreeMap<TreePath, Mode>,
    ) -> Self {
        let inheritance = Inheritance::new(root, plan);
        Self {
            tree,
            plan,
            own: Vec::new(),
            parents: BTreeSet::new(),
            inheritance,
            opened,
        }
    }

    /// Metadata of a directory that the plan creates. In place, the kernel adds what the parent
    /// gives.
    pub(super) fn made(&mut self, change: &Change) -> Result<Metadata> {
        let mut new = Metadata::wanted(change, self.plan);
        if self.plan.layout == Layout::Swap && change.makes_anew() {
            let failed =
                |e: io::Error| Error::io("cannot look at", self.tree.root().shown(&change.path), e);
            let given = self
                .inheritance
                .of(change.path.parent().as_ref())
                .map_err(failed)?;
            let mut xattrs = given.xattrs(change);
            new.label = xattrs.pop_if(|x| x.name == LABEL).map(|x| x.value);
            new.xattrs = new
                .xattrs
                .or_else(|| (!xattrs.is_empty()).then_some(xattrs));
        }

        Ok(new)
    }

    /// Records that names change in the directory.
    pub(super) fn touch(&mut self, dir: Option<TreePath>) {
        if !self.parents.contains(&dir) {
            self.parents.insert(dir);
        }
    }

    pub(super) fn add(&mut self, change: &Change) -> Result<()> {
        if change.action != Action::Meta {
            self.touch(change.path.parent());
        }

        let is_dir = change.want.is_some() && change.shape() == Shape::Directory;
        let was_dir = change.was == Some(Shape::Directory);
        if is_dir || was_dir {
            let path = Some(change.path.clone());
            let new = if is_dir {
                Some(self.made(change)?)
            } else {
                None
            };
            let to = new.as_ref().and_then(|new| new.uid);
            let old = if was_dir {
                Some(self.present(path.as_ref(), to)?)
            } else {
                None
            };
            self.own.push(DirStep { path, old, new });
        }

        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<Vec<DirStep>> {
        // Changed names change its mtime, so all its metadata is set again.
        if let Some(top) = self
            .plan
            .top
            .as_ref()
            .filter(|t| t.differs() || self.parents.contains(&None))
        {
            let new = Metadata::of_top(top, self.plan);
            let old = self.present(None, new.uid)?;
            self.own.push(DirStep {
                path: None,
                old: Some(old),
                new: Some(new),
            });
        }

        // The path to a change leads through these directories.
        self.parents.extend(self.opened.keys().cloned().map(Some));
        for dir in &self.own {
            self.parents.remove(&dir.path);
        }

        for path in std::mem::take(&mut self.parents) {
            let old = self.present(path.as_ref(), None)?;
            // An unchanged directory keeps its mode, and its mtime if the release sets mtimes. An
            // ungoverned root keeps the new mtime.
            let mtime = if path.is_some() && self.plan.sets_mtime {
                old.mtime
            } else {
                None
            };
            let new = Metadata {
                mode: old.mode,
                mtime,
                ..Metadata::default()
            };
            self.own.push(DirStep {
                path,
                old: Some(old),
                new: Some(new),
            });
        }

        self.own.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(self.own)
    }

    /// Present metadata of the directory, which passes to the user `to`; with attributes if they
    /// change.
    fn present(&self, path: Option<&TreePath>, to: Option<u32>) -> Result<Metadata> {
        let governs = self.plan.sets_xattrs && (path.is_some() || self.plan.top.is_some());
        let look = || {
            let handle = match path {
                Some(path) => {
                    let (parent, name) = self.tree.root().parent(path)?;
                    handle_of(parent.as_fd(), &name)?
                }
                None => rustix::io::dup(self.tree.root())?,
            };
            let own = path.and_then(|path| self.opened.get(path));
            let of = |with_xattrs| {
                let now = Metadata::of(&handle, with_xattrs)?;
                Ok::<_, io::Error>(Metadata {
                    mode: own.copied().or(now.mode),
                    ..now
                })
            };
            let now = of(governs)?;
            // Rights granted by the owner end with his ownership; a revert restores the present
            // ones.
            let changes = to.is_some() && now.uid != to;
            if governs || !changes {
                Ok(now)
            } else {
                of(true)
            }
        };

        look().map_err(|e: io::Error| {
            Error::io("cannot look at", self.tree.root().shown_dir(path), e)
        })
    }
}
