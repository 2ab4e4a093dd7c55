//! The directory of a tree and its state directory, opened and locked for this process. Every step
//! of a commit works on a worktree, which knows no commit itself.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use super::dir::StateDir;
use super::node_store::NodeStore;
use super::reader::{INDEX_DOUBT, StoredRelease, grant_name};
use crate::error::{Error, Result};
use crate::id::{Serial, TreeName};
use crate::sync::locked;
use crate::tree::fs::ctime_chains::CtimeChains;
use crate::tree::fs::dir_watch::DirWatch;
use crate::tree::fs::fault::Faults;
use crate::tree::fs::root::Root;
use crate::tree::fs::symlinks::{self, LinkPolicy};

/// Settings of a tree.
#[derive(Debug, Clone, Copy)]
pub struct TreeOptions {
    /// Number of releases kept for rollback; at least the present one.
    pub keep: usize,
    /// Whether the tree's path may lead through symbolic links of any user, not only of root and
    /// this process's user.
    pub follow_links: bool,
    /// Whether a release may exchange the tree as a whole.
    pub exchanges: bool,
}

impl Default for TreeOptions {
    fn default() -> Self {
        Self {
            keep: 3,
            follow_links: false,
            exchanges: true,
        }
    }
}

/// Directory of a tree, with its state.
#[derive(Debug)]
pub struct Worktree {
    name: TreeName,
    root: Mutex<Arc<Root>>,
    pub(crate) state: StateDir,
    nodes: NodeStore,
    pub(crate) options: TreeOptions,
    /// Changes of ctime by our own operations since a commit began.
    pub(crate) chains: Mutex<CtimeChains>,
    /// Whether only the contents of the index are usable.
    pub(crate) index_doubted: AtomicBool,
    /// Changes by others in the live tree while its predecessor exists.
    pub(crate) heard: Mutex<Option<DirWatch>>,
    pub(crate) crash: Faults,
}

impl Worktree {
    pub(crate) fn open(
        name: TreeName,
        path: &Path,
        state_dir: Option<&Path>,
        options: TreeOptions,
        crash: Faults,
    ) -> Result<Self> {
        let root = open_root(&name, path, options.follow_links)?;
        let state = StateDir::open(&name, &root, state_dir)?;
        let nodes = NodeStore::open(state.here().join("nodes"))?;
        // An unreadable mark counts as one.
        let doubted = state.read(INDEX_DOUBT).map_or(true, |mark| mark.is_some());

        Ok(Self {
            name,
            root: Mutex::new(Arc::new(root)),
            state,
            nodes,
            options,
            chains: Mutex::default(),
            index_doubted: AtomicBool::new(doubted),
            heard: Mutex::default(),
            crash,
        })
    }

    /// Name of the tree.
    pub fn name(&self) -> &TreeName {
        &self.name
    }

    /// Present directory of the tree; a commit in the layout `swap` replaces it.
    pub fn root(&self) -> Arc<Root> {
        Arc::clone(&locked(&self.root))
    }

    /// Returns whether the tree's path still leads to its directory: not moved, removed or replaced
    /// by others.
    pub fn still_there(&self) -> std::io::Result<bool> {
        loop {
            let root = self.root();
            // A commit may have exchanged it since.
            let there = root.still_there()?;
            if there || Arc::ptr_eq(&root, &self.root()) {
                return Ok(there);
            }
        }
    }

    /// Runs `work` with the tree's directory; no commit exchanges it meanwhile.
    pub(crate) fn with_root<T>(&self, work: impl FnOnce(&Root) -> T) -> T {
        work(&locked(&self.root))
    }

    /// Replaces the tree's directory with the result of `exchange`; no other thread gets a handle
    /// meanwhile. The path is not resolved again, since others may have changed it.
    pub(crate) fn replace_root(&self, exchange: impl FnOnce(&Root) -> Result<Root>) -> Result<()> {
        let mut root = locked(&self.root);
        let new = exchange(&root)?;
        *root = Arc::new(root.succeeded_by(new));
        Ok(())
    }

    /// Directory of the tree as a source; refused if its path leads elsewhere by now.
    pub fn root_to_send(&self) -> Result<Arc<Root>> {
        self.check_there()?;
        Ok(self.root())
    }

    /// State directory of the tree.
    pub fn state(&self) -> &StateDir {
        &self.state
    }

    /// Path of the tree's index.
    pub fn index_path(&self) -> PathBuf {
        self.state.index_path()
    }

    /// Path of the list of files that the last commit wrote.
    pub fn written_path(&self) -> PathBuf {
        self.index_path().with_extension("written")
    }

    /// Manifest nodes of kept releases and of transfers in progress.
    pub fn nodes(&self) -> &NodeStore {
        &self.nodes
    }

    /// Highest serial ever accepted here.
    pub fn highest_serial(&self) -> Result<Option<Serial>> {
        Ok(self.state.highest()?.map(|mark| mark.serial))
    }

    /// Release of the last commit.
    pub fn current(&self) -> Result<Option<StoredRelease>> {
        match self.state.current()? {
            Some(mark) => self.state.stored(mark.serial),
            None => Ok(None),
        }
    }

    /// Stored release with this serial, if any.
    pub fn release(&self, serial: Serial) -> Result<Option<StoredRelease>> {
        self.state.stored(serial)
    }

    /// Stores the commit order of the release `serial`; `None` removes it after a revert.
    pub fn keep_grant(&self, serial: Serial, order: Option<&[u8]>) -> Result<()> {
        match order {
            Some(order) => self.state.write(&grant_name(serial), order),
            None => self.state.remove(&grant_name(serial)),
        }
    }

    /// Serials of the stored releases, rising.
    pub fn releases(&self) -> Result<Vec<Serial>> {
        self.state.serials()
    }

    /// Refuses if the directory was moved, removed or replaced since it was opened.
    pub(crate) fn check_there(&self) -> Result<()> {
        match self.still_there() {
            Ok(true) => self.check_state(),
            Ok(false) => Err(Error::refused(format!(
                "{} is not the directory any more that was opened",
                self.root().path().display()
            ))
            .hint("it was moved or replaced: restart the daemon")),
            Err(e) => Err(Error::io("cannot look at the tree", self.root().path(), e)),
        }
    }

    /// Like [`Worktree::check_there`], for the state directory.
    pub(crate) fn check_state(&self) -> Result<()> {
        match self.state.still_there() {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::refused(format!(
                "the state directory {} is not the one any more that was opened",
                self.state.path().display()
            ))
            .hint("it was moved or replaced: put it back, or restart the daemon")),
            Err(e) => Err(Error::io("cannot look at", self.state.path(), e)),
        }
    }
}

/// Opens the directory of a tree; with `follow_links`, also through links of other users.
pub fn open_dir(path: &Path, follow_links: bool) -> Result<Root> {
    through(path, follow_links).map_err(|e| unopened(path, e))
}

fn open_root(name: &TreeName, path: &Path, follow_links: bool) -> Result<Root> {
    match through(path, follow_links) {
        Ok(root) => return Ok(root),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(unopened(path, e)),
    }

    make_root(path, follow_links).map_err(|e| unmade(name, path, e))?;
    open_dir(path, follow_links)
}

/// Finds out whether the tree's directory can be opened, or made, and changes nothing.
pub fn check_dir(name: &TreeName, path: &Path, follow_links: bool) -> Result<()> {
    match through(path, follow_links) {
        Ok(_) => return Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(unopened(path, e)),
    }

    parent_of(path, follow_links)
        .map(drop)
        .map_err(|e| unmade(name, path, e))
}

/// Error for a directory that cannot be made.
fn unmade(name: &TreeName, path: &Path, e: io::Error) -> Error {
    let action = format!("cannot make the directory of tree {name},");
    Error::io(&action, path, e).hint("make the directory that it is in, or correct the tree's path")
}

fn make_root(path: &Path, follow_links: bool) -> io::Result<()> {
    let (parent, name) = parent_of(path, follow_links)?;
    Ok(rustix::fs::mkdirat(
        parent,
        name,
        rustix::fs::Mode::from_bits_truncate(0o777),
    )?)
}

/// The directory above `path`, and the last component.
fn parent_of(path: &Path, follow_links: bool) -> io::Result<(OwnedFd, &OsStr)> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::NotFound.into());
    };

    let parent = symlinks::open(None, parent, links_of(follow_links))?;
    Ok((parent, name))
}

fn through(path: &Path, follow_links: bool) -> io::Result<Root> {
    Root::open_through(path, links_of(follow_links))
}

fn links_of(follow_links: bool) -> LinkPolicy {
    if follow_links {
        LinkPolicy::Any
    } else {
        LinkPolicy::own()
    }
}

fn unopened(path: &Path, e: io::Error) -> Error {
    let foreign = symlinks::is_foreign(&e);
    let error = symlinks::failed("cannot open the tree", path, e);
    match foreign {
        true => error.hint(
            "write the path that the link leads to, or set follow_links = true in its [[tree]]",
        ),
        false => error,
    }
}
