//! The place of a tree's state directory.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::AtFlags;

use super::reader::BESIDE;
use crate::error::{Error, IoResultExt as _, Result};
use crate::id::TreeName;
use crate::tree::fs::dir::private_dir_at;
use crate::tree::fs::metadata::Metadata;
use crate::tree::fs::root::{FileId, Root};
use crate::tree::fs::stat::{FileStat, mount_of};
use crate::tree::fs::symlinks::{self, LinkPolicy};

/// Place chosen for the state of a tree, with the directory made.
pub(super) struct StateLocation {
    pub(super) path: PathBuf,
    pub(super) dir: Root,
    /// Warning about the place, for the operator.
    pub(super) warning: Option<String>,
    /// For a state inside the tree: the directory at the top of the tree that holds it.
    pub(super) hidden: Option<FileId>,
}

impl StateLocation {
    /// Chooses `state_dir`/NAME if given and on the filesystem of `tree`, else `.makuo`/NAME beside
    /// the tree.
    pub(super) fn choose(name: &TreeName, tree: &Root, state_dir: Option<&Path>) -> Result<Self> {
        let mut warning = None;
        if let Some(given) = state_dir {
            let path = given.join(name.as_str());
            if is_inside(&path, tree)? {
                return Err(Error::usage(format!(
                    "state directory {} is inside tree {name}",
                    path.display()
                ))
                .hint("a tree serves everything in it: put state_dir somewhere else"));
            }
            let dir = make(None, given, name, path.clone())?;
            if on_same(tree, &dir)? {
                return Ok(Self::at(path, dir));
            }
            forsake(&dir, name);
            warning = Some(format!(
                "{} is not on the filesystem of {}",
                given.display(),
                tree.path().display()
            ));
        }

        let real = std::fs::canonicalize(tree.path()).context("cannot resolve", tree.path())?;
        let above = tree
            .above()
            .context("cannot open the directory of", tree.path())?;
        let mut location = match real.parent().filter(|_| is_on_mount_of(tree, &above)) {
            Some(parent) => {
                let path = parent.join(BESIDE).join(name.as_str());
                let dir = make(Some(above.as_fd()), Path::new(BESIDE), name, path.clone())?;
                Self::at(path, dir)
            }
            None => Self::within(name, tree, &real)?,
        };

        if !on_same(tree, &location.dir)? {
            forsake(&location.dir, name);
            return Err(Error::usage(format!(
                "no place for the state of tree {name} on the filesystem of {}: {} is on another \
                 one",
                real.display(),
                location.path.display()
            ))
            .hint("set state_dir to a directory on the filesystem of the tree"));
        }

        location.warning = warning.map(|w| {
            format!(
                "{w}: the state of tree {name} is in {} instead",
                location.path.display()
            )
        });

        Ok(location)
    }

    fn at(path: PathBuf, dir: Root) -> Self {
        Self {
            path,
            dir,
            warning: None,
            hidden: None,
        }
    }

    /// Makes the directory inside the tree at `real`, which is a mount point.
    fn within(name: &TreeName, tree: &Root, real: &Path) -> Result<Self> {
        let path = real.join(BESIDE).join(name.as_str());
        let hidden = real.join(BESIDE);
        check_moved(name, real, &path)?;
        let before = FileStat::of(tree).context("cannot look at", real)?;
        let handle = private_dir_at(tree.as_fd(), Path::new(BESIDE), &hidden)?;

        // The directory is no part of the tree, so its creation leaves no mark there.
        let time = Metadata {
            mtime: Some(before.mtime),
            ..Metadata::default()
        };
        if let Err(e) = time.set(tree) {
            tracing::debug!("the time of {} is not what it was: {e}", real.display());
        }

        let id = rustix::fs::fstat(&handle).context("cannot look at", &hidden)?;
        let dir = make(Some(handle.as_fd()), Path::new("."), name, path.clone())?;

        Ok(Self {
            hidden: Some(FileId::of(&id)),
            ..Self::at(path, dir)
        })
    }
}

/// Creates the directory of the tree `name` in `dir`, relative to `start`; `path` is the result's
/// path.
fn make(start: Option<BorrowedFd<'_>>, dir: &Path, name: &TreeName, path: PathBuf) -> Result<Root> {
    let links = LinkPolicy::own();
    let above = symlinks::make(start, dir, links).map_err(|e| {
        let hint = match symlinks::is_foreign(&e) {
            true => {
                "remove the link, or set state_dir to a directory that no link of another \
                 user leads to"
            }
            false => "set state_dir to a directory that the daemon may write",
        };
        symlinks::failed("cannot make the state directory", &path, e).hint(hint)
    })?;
    check_owner(&above, &path)?;
    let handle = private_dir_at(above.as_fd(), Path::new(name.as_str()), &path)?;

    Root::of_handle(&handle, path.clone(), links).context("cannot open", &path)
}

/// Refuses a directory in which another user could replace the state of a tree.
fn check_owner(dir: &OwnedFd, path: &Path) -> Result<()> {
    let failed = |e: io::Error| Error::io("cannot look at", path, e);
    let now = FileStat::of(dir).map_err(failed)?;
    let above = path.parent().unwrap_or(path).display();
    if now.uid != 0 && now.uid != nix::unistd::geteuid().as_raw() {
        return Err(Error::refused(format!(
            "{above} belongs to user {}, who could replace the state in it",
            now.uid
        ))
        .hint("remove that directory, give it to root, or set state_dir to another one"));
    }

    if now.mode.bits() & 0o1002 == 0o002 {
        return Err(
            Error::refused(format!("everybody may replace the state in {above}")).hint(format!(
                "take the right away (chmod o-w {above}), or set state_dir to another directory"
            )),
        );
    }

    Ok(())
}

/// Removes an empty directory of a tree that will keep its state elsewhere.
fn forsake(dir: &Root, name: &TreeName) {
    let gone = dir
        .above()
        .map(|above| rustix::fs::unlinkat(above, name.as_str(), AtFlags::REMOVEDIR));
    if let Ok(Err(e)) = gone {
        tracing::debug!("{} stays: {e}", dir.path().display());
    }
}

/// Refuses a new state at `inside` if a state exists beside the tree, from before the tree was a
/// mount point: a new state would accept old releases again.
fn check_moved(name: &TreeName, tree: &Path, inside: &Path) -> Result<()> {
    let Some(beside) = tree
        .parent()
        .map(|above| above.join(BESIDE).join(name.as_str()))
    else {
        return Ok(());
    };

    if inside.join("lock").exists() || !beside.join("serial").exists() {
        return Ok(());
    }

    let tree = tree.display();
    let beside = beside.display();
    Err(Error::usage(format!(
        "the state of tree {name} is in {beside}, and {tree} is a mount \
         point now"
    ))
    .hint(format!(
        "a unit's ReadWritePaths has to name the directory that {tree} is in; or move \
         {beside} to {}",
        inside.display()
    )))
}

/// Returns whether the tree's parent directory is on the same mount as the tree.
fn is_on_mount_of(tree: &Root, above: &OwnedFd) -> bool {
    mount_of(above.as_fd())
        .ok()
        .is_some_and(|above| mount_of(tree.as_fd()).is_ok_and(|own| own == above))
}

fn on_same(tree: &Root, dir: &Root) -> Result<bool> {
    tree.same_filesystem(dir)
        .context("cannot look at", dir.path())
}

fn is_inside(path: &Path, tree: &Root) -> Result<bool> {
    // A missing directory will be created in its nearest existing ancestor.
    let nearest = path
        .ancestors()
        .find_map(|above| std::fs::canonicalize(above).ok());
    let real = nearest
        .map_or_else(|| std::fs::canonicalize("."), Ok)
        .context("cannot resolve", path)?;

    for above in real.ancestors() {
        let stat = std::fs::metadata(above).context("cannot look at", above)?;
        if (FileId {
            dev: stat.dev(),
            ino: stat.ino(),
        }) == tree.id()
        {
            return Ok(true);
        }
    }

    Ok(false)
}
