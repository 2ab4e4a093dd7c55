//! One tree of this host: its root, its state, and the rule that an interrupted commit is ended before anything else.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::commit;
use super::journal::{BACKWARD, FORWARD, Journal};
use super::nodes::Nodes;
use super::root::Root;
use super::state::{State, StoredRelease};
use super::undo;
use crate::error::{Error, Result};
use crate::id::{Serial, TreeName};

/// How a tree is kept.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How many releases are kept for rollback; at least the present one.
    pub keep: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { keep: 3 }
    }
}

/// What opening a tree found to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// Nothing was under way.
    Nothing,
    /// A commit was under way and has been completed.
    Completed(Serial),
    /// A commit was under way and has been undone.
    Undone(Serial),
}

/// One tree of this host, locked for this process.
#[derive(Debug)]
pub struct Tree {
    name: TreeName,
    pub(super) root: Root,
    pub(super) state: State,
    nodes: Nodes,
    pub(super) options: Options,
    busy: AtomicBool,
    recovery: Recovery,
    pub(super) crash: Crash,
}

impl Tree {
    /// Opens the tree `name` at `path` and ends what an earlier process left unfinished. The directory itself is made
    /// when only it is missing; a missing parent is an error, since that is more likely a typo or a missing mount.
    pub fn open(name: TreeName, path: &Path, state_dir: Option<&Path>, options: Options) -> Result<Arc<Self>> {
        Self::open_with(name, path, state_dir, options, Crash::default()).map(Arc::new)
    }

    pub(super) fn open_with(
        name: TreeName,
        path: &Path,
        state_dir: Option<&Path>,
        options: Options,
        crash: Crash,
    ) -> Result<Self> {
        let root = open_root(&name, path)?;
        let state = State::open(&name, &root, state_dir)?;
        let nodes = Nodes::open(state.path().join("nodes"))?;
        let mut tree = Self {
            name,
            root,
            state,
            nodes,
            options,
            busy: AtomicBool::new(false),
            recovery: Recovery::Nothing,
            crash,
        };
        tree.recovery = tree.recover()?;
        Ok(tree)
    }

    /// The tree's name.
    pub fn name(&self) -> &TreeName {
        &self.name
    }

    /// The tree's directory.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// The tree's state directory.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Where the tree's index belongs.
    pub fn index_path(&self) -> PathBuf {
        self.state.index_path()
    }

    /// The manifest nodes of the releases that are kept, and of what is being fetched.
    pub fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    /// What opening the tree found to end.
    pub fn recovery(&self) -> Recovery {
        self.recovery
    }

    /// The highest serial ever accepted here.
    pub fn highest_serial(&self) -> Result<Option<Serial>> {
        Ok(self.state.highest()?.map(|mark| mark.serial))
    }

    /// The release that the tree was last made.
    pub fn current(&self) -> Result<Option<StoredRelease>> {
        match self.state.current()? {
            Some(mark) => self.state.stored(mark.serial),
            None => Ok(None),
        }
    }

    /// The release with this number, when it is kept.
    pub fn release(&self, serial: Serial) -> Result<Option<StoredRelease>> {
        self.state.stored(serial)
    }

    /// The numbers of the releases that are kept, rising.
    pub fn releases(&self) -> Result<Vec<Serial>> {
        self.state.serials()
    }

    /// Undoes the last commit as long as nothing was staged or forgotten since: the tree is again what it was before.
    /// The highest serial stays: what was undone is not accepted again.
    pub fn revert_last(&self) -> Result<Serial> {
        let _busy = self.claim()?;
        let none = || Error::refused(format!("tree {}: the last commit can no longer be undone", self.name));
        let current = self.state.current()?.ok_or_else(none)?;
        let kept = format!("undo/{}/{FORWARD}", current.serial);
        let journal = Journal::read(&self.state, &kept)?.filter(|j| j.release == current).ok_or_else(none)?;
        self.state.rename(&kept, BACKWARD)?;
        undo::run(self, &journal)?;
        Ok(current.serial)
    }

    /// Gives up the means to undo the last commit, and the space that they take.
    pub fn forget_undo(&self) -> Result<()> {
        let _busy = self.claim()?;
        self.state.forget_undo()
    }

    /// Marks the tree as being staged or committed by one caller.
    pub(super) fn claim(&self) -> Result<Claim<'_>> {
        self.take()?;
        Ok(Claim(self))
    }

    pub(super) fn take(&self) -> Result<()> {
        if self.busy.swap(true, Ordering::AcqRel) {
            return Err(Error::refused(format!("tree {} is in the middle of another release", self.name))
                .hint("wait for it to end, then try again"));
        }
        Ok(())
    }

    pub(super) fn give_back(&self) {
        self.busy.store(false, Ordering::Release);
    }

    fn recover(&self) -> Result<Recovery> {
        if let Some(journal) = Journal::read(&self.state, BACKWARD)? {
            undo::run(self, &journal)?;
            return Ok(Recovery::Undone(journal.release.serial));
        }
        let Some(journal) = Journal::read(&self.state, FORWARD)? else { return Ok(Recovery::Nothing) };
        let serial = journal.release.serial;
        match commit::complete(self, &journal) {
            Ok(_) => Ok(Recovery::Completed(serial)),
            Err(e) if self.crash.happened() => Err(e),
            Err(e) => {
                tracing::warn!("tree {}: release {serial} cannot be completed, undoing it: {e}", self.name);
                undo::begin(self)?;
                undo::run(self, &journal)?;
                Ok(Recovery::Undone(serial))
            }
        }
    }

    /// The marks that say which releases stay: the present one and the newest others.
    pub(super) fn prune(&self) -> Result<()> {
        let current = self.state.current()?.map(|m| m.serial);
        let mut serials = self.state.serials()?;
        serials.sort_by_key(|&s| std::cmp::Reverse((Some(s) == current, s)));
        let gone = serials.split_off(serials.len().min(self.options.keep.max(1)));
        if gone.is_empty() {
            return Ok(());
        }
        for serial in gone {
            self.state.forget(serial)?;
        }
        let mut roots = Vec::with_capacity(serials.len());
        for serial in serials {
            roots.extend(self.state.stored(serial)?.map(|s| s.release.header().root));
        }
        self.nodes.prune(&roots)
    }
}

pub(super) struct Claim<'a>(&'a Tree);

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.0.give_back();
    }
}

fn open_root(name: &TreeName, path: &Path) -> Result<Root> {
    match Root::open(path) {
        Ok(root) => return Ok(root),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(Error::io("cannot open the tree", path, e)),
    }
    std::fs::create_dir(path).map_err(|e| {
        Error::io(&format!("cannot make the directory of tree {name},"), path, e)
            .hint("make the directory that it is in, or correct the tree's path")
    })?;
    Root::open(path).map_err(|e| Error::io("cannot open the tree", path, e))
}

/// Where tests stop a commit dead, as a crash would.
#[derive(Debug, Default)]
pub(super) struct Crash {
    #[cfg(test)]
    pub(super) after: Option<std::sync::atomic::AtomicI64>,
}

impl Crash {
    /// A point at which the machine may stop; before every change to the disk.
    #[cfg(not(test))]
    pub(super) fn point(&self) -> Result<()> {
        Ok(())
    }

    #[cfg(not(test))]
    pub(super) fn happened(&self) -> bool {
        false
    }

    #[cfg(test)]
    pub(super) fn point(&self) -> Result<()> {
        match &self.after {
            Some(left) if left.fetch_sub(1, Ordering::SeqCst) <= 0 => Err(Error::refused("crashed here")),
            _ => Ok(()),
        }
    }

    #[cfg(test)]
    pub(super) fn happened(&self) -> bool {
        self.after.as_ref().is_some_and(|left| left.load(Ordering::SeqCst) < 0)
    }
}
