//! The next tree of a commit in the layout `swap`: built whole in the tree's state directory before
//! the commit.
//!
//! Entries outside of the release are hard links, the release's own come from the stage, and
//! directories are created again with their metadata. Directories outside of the release are left
//! out: they move when the trees exchange places. Files with new metadata only are staged as
//! copies: the live files are never touched. Right before the commit, all changes of the live tree
//! since then are copied over.

use std::collections::{BTreeMap, HashSet};
use std::os::fd::AsFd;

use super::dir_metadata::{present, set_dirs};
use super::journal::{DirStep, Move, Side, Swap};
use super::link_copy::{LinkCopy, has_within};
use super::next_files::{changed_since, copied, linked, overlay, stat};
use super::seen_names::SeenNames;
use super::{moves, steps};
use crate::diff::{Action, Change, Plan, Shape};
use crate::error::{Error, IoResultExt as _, Result};
use crate::manifest::TreePath;
use crate::sync::locked;
use crate::tree::fs::errors::{is_absent, is_gone};
use crate::tree::fs::metadata::Metadata;
use crate::tree::fs::owners::Rights;
use crate::tree::fs::project_flags::ProjectFlags;
use crate::tree::fs::root::Root;
use crate::tree::fs::stat::{FileStat, Version};
use crate::tree::prepare::items::StagedItem;
use crate::tree::prepare::obstructions;
use crate::tree::state::worktree::Worktree;

/// A tree ready to replace the live one.
#[derive(Debug)]
pub(crate) struct NextTree {
    /// Entries that differ from the live tree, sorted.
    pub(crate) changed: Vec<TreePath>,
    /// Directories that the release touches.
    pub(crate) dirs: Vec<DirStep>,
    /// Names in the live tree's directories at the last look.
    pub(crate) names: SeenNames,
    /// Directories that move, with their inodes.
    moves: BTreeMap<TreePath, u64>,
    /// Copied files, with their version at the time.
    copied: Vec<(TreePath, Version)>,
    /// Directories in which the release changes names.
    renamed: HashSet<Option<TreePath>>,
}

impl NextTree {
    /// Builds the tree after `plan` from the live one and the staged `items`.
    pub(crate) fn build(tree: &Worktree, plan: &Plan, items: &[StagedItem]) -> Result<Self> {
        tree.state.fresh_next()?;
        locked(&tree.chains).begin(true);
        let from = tree.root();
        let to = open(tree)?;
        let copied = copied(&from, plan, items)?;
        let mut changed: Vec<TreePath> = plan
            .changes
            .iter()
            .filter(is_own)
            .map(|c| c.path.clone())
            .collect();

        changed.extend(items.iter().filter_map(|item| item.further().cloned()));
        changed.sort();
        let alone = |path: &TreePath| is_alone(plan, path) && !has_within(&changed, path);
        let mut copy = LinkCopy::new(&from, &to, &changed, &alone);
        copy.chains = Some(&tree.chains);
        copy.run(None)?;
        moves::check(&from, copy.moves.iter())?;

        let visited = copy.visited;
        let names = copy.names;
        let moves = copy.moves;
        let moves = moves.into_iter().map(|m| (m.path, m.ino)).collect();
        let copied = linked(&from, copied)?;
        let made = overlay(tree, plan, items, &to)?;
        let renames = plan
            .changes
            .iter()
            .filter(|c| c.is_applied() && c.action != Action::Meta);

        let renamed = renames.map(|c| c.path.parent()).collect();
        let dirs = steps::dirs(tree, plan)?;
        let next = Self {
            changed,
            dirs,
            names,
            moves,
            copied,
            renamed,
        };

        let all = visited
            .into_iter()
            .map(|(path, _)| path)
            .chain(made.into_iter().map(Some));
        next.set(&from, &to, all, true)?;

        Ok(next)
    }

    /// Copies over changes of the live tree since the build; returns whether there were any.
    pub(crate) fn refresh(&mut self, tree: &Worktree, plan: &Plan) -> Result<bool> {
        obstructions::check(tree, plan)?;
        let from = tree.root();
        let to = open(tree)?;
        for (path, version) in &self.copied {
            let now =
                stat(&from, path).map_err(|e| Error::io("cannot look at", from.shown(path), e))?;
            if now.version() != *version {
                return Err(changed_since(&from, path));
            }
        }

        let changed = self.changed_dirs(&from)?;
        let nothing = |_: &TreePath| false;
        let mut copy = LinkCopy::new(&from, &to, &self.changed, &nothing);
        copy.mirror = true;
        copy.chains = Some(&tree.chains);
        for path in &changed {
            copy.run(path.as_ref())?;
        }

        moves::check(&from, copy.moves.iter())?;
        let visited = copy.visited;
        let names = copy.names;
        let moves = copy.moves;
        self.names.0.extend(names.0);
        self.moves
            .extend(moves.into_iter().map(|m| (m.path, m.ino)));
        let any = !changed.is_empty() || visited.iter().any(|(_, touched)| *touched);
        self.set(&from, &to, visited.into_iter().map(|(path, _)| path), true)?;

        Ok(any)
    }

    /// Part of the journal that describes the exchange.
    pub(crate) fn journaled(&self, tree: &Worktree) -> Result<Swap> {
        let from = tree.root();
        let to = open(tree)?;
        let side = |root: &Root| FileStat::of(root).context("cannot look at", root.path());

        let old = side(&from)?;
        let new = side(&to)?;
        let mode = self.metadata(&from, None)?.mode.unwrap_or(new.mode);
        let moves: Vec<_> = self
            .moves
            .iter()
            .map(|(path, &ino)| Move {
                path: path.clone(),
                ino,
            })
            .collect();

        let above = moves::above(&from, &to, &moves)?;
        Ok(Swap {
            old: Side {
                ino: old.id.ino,
                mode: old.mode,
                mtime: Some(old.mtime),
            },
            new: Side {
                ino: new.id.ino,
                mode,
                mtime: Some(new.mtime),
            },
            changed: self.changed.clone(),
            moves: Some(moves),
            above: Some(above),
        })
    }

    /// Directories of `from` that changed since the last look.
    fn changed_dirs(&self, from: &Root) -> Result<Vec<Option<TreePath>>> {
        let mut changed = Vec::new();
        for (path, known) in &self.names.0 {
            let now = match path {
                Some(path) => stat(from, path),
                None => FileStat::of(from),
            };
            match now {
                Ok(now) if Some(now.ctime) == known.ctime => {}
                Ok(now) if now.file_type == rustix::fs::FileType::Directory => {
                    changed.push(path.clone())
                }
                Ok(_) => {}
                Err(e) if is_absent(&e) => {}
                Err(e) => return Err(Error::io("cannot look at", from.path(), e)),
            }
        }

        Ok(changed)
    }

    fn set(
        &self,
        from: &Root,
        to: &Root,
        dirs: impl IntoIterator<Item = Option<TreePath>>,
        movable: bool,
    ) -> Result<()> {
        let loosened = movable && !Rights::of_process().overrides_modes();
        let dirs: Vec<_> = dirs.into_iter().collect();
        mark(from, to, &dirs)?;
        set_dirs(to, dirs, |path| {
            let mut metadata = self.metadata(from, path)?;
            // A move needs write permission on the directory for an ordinary user; the exchange
            // does as well.
            if path.is_none() && loosened {
                metadata.mode = metadata
                    .mode
                    .map(|m| crate::manifest::Mode::from_bits(m.bits() | 0o700));
            }
            Ok(metadata)
        })
    }

    /// Metadata of the directory `path`: from the release, else from the live tree.
    fn metadata(&self, from: &Root, path: Option<&TreePath>) -> Result<Metadata> {
        let step = self
            .dirs
            .binary_search_by(|d| d.path.as_ref().cmp(&path))
            .ok()
            .map(|at| &self.dirs[at]);

        let Some(DirStep {
            old,
            new: Some(new),
            ..
        }) = step
        else {
            return present(from, path);
        };

        let base = if old.is_some() {
            present(from, path)?.handed_to(new.uid)
        } else {
            Metadata::default()
        };

        let kept = base
            .mtime
            .filter(|_| !self.renamed.contains(&path.cloned()));

        Ok(Metadata {
            mode: new.mode.or(base.mode),
            uid: new.uid.or(base.uid),
            gid: new.gid.or(base.gid),
            mtime: new.mtime.or(kept),
            xattrs: new.xattrs.clone().or(base.xattrs),
            label: new.label.clone().or(base.label),
        })
    }
}

/// Copies projects and flags to directories of the next tree; new ones inherit from their parents.
fn mark(from: &Root, to: &Root, dirs: &[Option<TreePath>]) -> Result<()> {
    let mut dirs: Vec<_> = dirs.iter().collect();
    dirs.sort();
    for path in dirs {
        let Ok(made) = to.dir(path.as_ref()) else {
            continue;
        };
        let marks = match from.dir(path.as_ref()) {
            Ok(live) => ProjectFlags::of(live.as_fd()),
            Err(e) if is_gone(&e) => {
                let above = path.as_ref().and_then(TreePath::parent);
                to.dir(above.as_ref())
                    .ok()
                    .and_then(|above| ProjectFlags::of(above.as_fd()))
                    .map(ProjectFlags::given)
            }
            // Only the owner can open it.
            Err(_) => None,
        };
        let Some(marks) =
            marks.filter(|marks| ProjectFlags::of(made.as_fd()).is_some_and(|now| now != *marks))
        else {
            continue;
        };
        marks
            .set(made.as_fd())
            .map_err(|e| Error::io("cannot set the project of", to.shown_dir(path.as_ref()), e))?;
    }

    Ok(())
}

/// Returns whether the entry at the path in the next tree comes from the release and not from the
/// live tree.
fn is_own(change: &Change) -> bool {
    change.is_applied() && !(change.action == Action::Meta && change.shape() == Shape::Directory)
}

/// Returns whether the directory is outside of the release: protected, excluded or unknown to it.
fn is_alone(plan: &Plan, path: &TreePath) -> bool {
    let is_extra =
        |change: &Change| change.action == Action::Extra && change.was == Some(Shape::Directory);
    plan.alone
        .iter()
        .any(|filter| !filter.is_empty() && filter.matches_here(path, true))
        || plan.summary.extra > 0
            && plan
                .changes
                .find(path)
                .is_some_and(|at| is_extra(&plan.changes.get(at)))
}

fn open(tree: &Worktree) -> Result<Root> {
    let path = tree.state.path().join("next");
    Root::below(tree.state.handle(), c"next", path)
        .map_err(|e| Error::io("cannot open", tree.state.next_path(), e))
}
