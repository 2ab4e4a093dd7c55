//! Builds the journal's steps from a plan and its staged items, and records the state of each path
//! before.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::AsFd;

use super::journal::{DirStep, Inode, Step};
use crate::diff::{Action, Change, Plan, Shape};
use crate::error::{Error, Result};
use crate::manifest::rules::Layout;
use crate::manifest::{Mode, TreePath};
use crate::packed::Packed;
use crate::tree::fs::dir::slot_name;
use crate::tree::fs::dir_access::OpenedDirs;
use crate::tree::fs::metadata::{Metadata, handle_of};
use crate::tree::fs::root::Root;
use crate::tree::fs::stat::FileStat;
use crate::tree::fs::xattrs::LABEL;
use crate::tree::prepare::copies;
use crate::tree::prepare::inheritance::Inheritance;
use crate::tree::prepare::items::StagedItem;
use crate::tree::state::worktree::Worktree;

/// Directories that a commit of `plan` touches, sorted.
pub(crate) fn dirs(tree: &Worktree, plan: &Plan) -> Result<Vec<DirStep>> {
    let root = tree.root();
    let mut dirs = Dirs::new(tree, &root, plan, BTreeMap::new());
    plan.changes
        .iter()
        .filter(|c| c.is_applied())
        .try_for_each(|c| dirs.add(&c))?;
    dirs.finish()
}

/// Builds the steps for `items` under `plan`.
pub(crate) fn build(
    tree: &Worktree,
    plan: &Plan,
    items: &[StagedItem],
    mut slot: u64,
) -> Result<(Packed<Step>, Vec<DirStep>)> {
    let mut steps = Packed::default();
    let (mut removals, mut late, mut sets) =
        (Packed::default(), Packed::default(), Packed::default());
    let mut copies: Packed<Step> = Packed::default();
    let mut remove = |change: &Change| {
        slot += 1;
        let is_dir = change.was == Some(Shape::Directory);
        Step::Remove {
            path: change.path.clone(),
            slot,
            is_dir,
        }
    };

    let mut items = items.iter().peekable();
    let root = tree.root();

    // Closed again once everything is known: the steps open directories themselves.
    let opened = OpenedDirs::of_plan(&root, plan)?;
    let mut dirs = Dirs::new(tree, &root, plan, opened.modes());
    for (at, change) in plan
        .changes
        .iter()
        .enumerate()
        .filter(|(_, c)| c.is_applied())
    {
        let becomes_dir = change.want.is_some() && change.shape() == Shape::Directory;
        let was_dir = change.was == Some(Shape::Directory);
        match change.action {
            Action::Delete => removals.push(remove(&change)),
            Action::Meta if becomes_dir => {}
            Action::Meta => match items.next_if(|i| i.change() == at) {
                None => sets.push(set_step(tree, plan, &change)?),
                Some(item) => {
                    check_unchanged(tree, &change, item)?;
                    copies.push(place(tree, &change.path, item)?);
                    while let Some(further) = items.next_if(|i| i.change() == at) {
                        let path = further.further().unwrap_or(&change.path);
                        copies.push(place(tree, path, further)?);
                        dirs.touch(path.parent());
                    }
                    dirs.touch(change.path.parent());
                }
            },
            _ if becomes_dir => {
                if change.action == Action::Replace {
                    steps.push(remove(&change));
                }
                steps.push(Step::Mkdir(change.path.clone()));
            }
            _ => {
                let item = items.next_if(|i| i.change() == at);
                let item =
                    item.ok_or_else(|| Error::refused(format!("{} is not staged", change.path)))?;
                let replaces = !was_dir && change.was.is_some();
                let Inode { ino, born } = inode(tree, item)?;
                let path = change.path.clone();
                let slot = item.slot;
                let place = Step::Place {
                    path,
                    slot,
                    ino,
                    replaces,
                    copy: None,
                    born,
                };
                if was_dir {
                    removals.push(remove(&change));
                    late.push(place);
                } else {
                    steps.push(place);
                }
            }
        }
        dirs.add(&change)?;
    }

    steps.extend(removals.iter().rev());
    steps.extend(late.iter());
    steps.extend(copies.iter());
    steps.extend(sets.iter());

    Ok((steps, dirs.finish()?))
}

/// Step that replaces an original with its copy.
fn place(tree: &Worktree, path: &TreePath, item: &StagedItem) -> Result<Step> {
    let Inode { ino, born } = inode(tree, item)?;
    Ok(Step::Place {
        path: path.clone(),
        slot: item.slot,
        ino,
        replaces: true,
        copy: Some(true),
        born,
    })
}

/// Identity of a staged item. An overlay has files of several filesystems, which may share inode
/// numbers.
fn inode(tree: &Worktree, item: &StagedItem) -> Result<Inode> {
    match item.ino().filter(|_| !tree.state.is_overlay()) {
        Some(ino) => Ok(Inode { ino, born: None }),
        None => {
            let staged = stage_stat(tree, item.slot)?;
            Ok(Inode {
                ino: staged.id.ino,
                born: staged.born.filter(|_| tree.state.is_overlay()),
            })
        }
    }
}

/// Refuses if the original changed since the copy: the change would be lost.
fn check_unchanged(tree: &Worktree, change: &Change, item: &StagedItem) -> Result<()> {
    let Some(copied) = item.copied() else {
        return Ok(());
    };

    let failed = |e: io::Error| Error::io("cannot look at", tree.root().shown(&change.path), e);
    let (parent, name) = tree.root().parent(&change.path).map_err(failed)?;
    if FileStat::at(parent.as_fd(), &name)
        .map_err(failed)?
        .version()
        != copied
    {
        return Err(changed_since(tree, &change.path));
    }

    Ok(())
}

fn changed_since(tree: &Worktree, path: &TreePath) -> Error {
    Error::refused(format!(
        "{} changed since the tree was compared",
        tree.root().printed(path)
    ))
    .hint("deploy again")
}

fn set_step(tree: &Worktree, plan: &Plan, change: &Change) -> Result<Step> {
    let failed = |e: io::Error| Error::io("cannot look at", tree.root().shown(&change.path), e);
    let (parent, name) = tree.root().parent(&change.path).map_err(failed)?;
    let handle = handle_of(parent.as_fd(), &name).map_err(failed)?;
    let now = FileStat::of(&handle).map_err(failed)?;
    if copies::is_taken_from_others(&now, change) {
        return Err(changed_since(tree, &change.path));
    }

    let old = Metadata::of(&handle, plan.sets_xattrs).map_err(failed)?;
    let old = Box::new(old);
    let new = Box::new(Metadata::wanted(change, plan));
    Ok(Step::Set {
        path: change.path.clone(),
        old,
        new,
        ino: now.id.ino,
    })
}

fn stage_stat(tree: &Worktree, slot: u64) -> Result<FileStat> {
    let name = slot_name(slot);
    FileStat::at(tree.state.stage(), &name).map_err(|e| {
        Error::io(
            "cannot look at staged item",
            name.to_string_lossy().as_ref(),
            e,
        )
    })
}

/// Collects the directories that a commit touches.
struct Dirs<'a> {
    tree: &'a Worktree,
    plan: &'a Plan,
    own: Vec<DirStep>,
    /// Directories with changed names.
    parents: BTreeSet<Option<TreePath>>,
    inheritance: Inheritance<'a>,
    /// Directories that are open at present, with their own modes.
    opened: BTreeMap<TreePath, Mode>,
}

impl<'a> Dirs<'a> {
    fn new(
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
    fn made(&mut self, change: &Change) -> Result<Metadata> {
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
    fn touch(&mut self, dir: Option<TreePath>) {
        if !self.parents.contains(&dir) {
            self.parents.insert(dir);
        }
    }

    fn add(&mut self, change: &Change) -> Result<()> {
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

    fn finish(mut self) -> Result<Vec<DirStep>> {
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
