//! One tree of this host: its root, its state, and the rule that an interrupted commit is ended before anything else.

use std::ffi::CStr;
use std::io;
use std::ops::Deref;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::chains::Chains;
use super::commit;
use super::doubt::Doubt;
use super::heard::Heard;
use super::index::TEMPORARY;
use super::journal::{BACKWARD, FORWARD, Journal};
use super::leftover::Leftovers;
use super::links::{self, Links};
use super::meta::locked;
use super::nodes::Nodes;
use super::records::grant_name;
use super::relink;
use super::root::Root;
use super::shelf;
use super::state::{State, StoredRelease};
use super::swap;
use super::undo;
use super::way;
use crate::diff::Plan;
use crate::error::{Error, Result};
use crate::id::{Serial, TreeName};

/// How often a tree is tried to be claimed that somebody else has for a moment, and the pause between.
const CLAIMS: usize = 50;
const CLAIM_PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

/// How a tree is kept.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How many releases are kept for rollback; at least the present one.
    pub keep: usize,
    /// Whether the tree's path may lead through symbolic links of any user, not only root's and this process's.
    pub follow_links: bool,
    /// Whether a release may exchange the tree as a whole.
    pub exchanges: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            keep: 3,
            follow_links: false,
            exchanges: true,
        }
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
    root: Mutex<Arc<Root>>,
    pub(super) state: State,
    nodes: Nodes,
    pub(super) options: Options,
    /// What our own operations did to times of change since a commit began.
    pub(super) chains: Mutex<Chains>,
    pub(super) doubt: Doubt,
    /// What others do in the live tree as long as the one before it stands aside.
    pub(super) heard: Mutex<Option<Heard>>,
    busy: AtomicBool,
    recovery: Recovery,
    /// A commit that failed and cannot be undone: which, and why.
    torn: Mutex<Option<(Serial, String)>>,
    pub(super) crash: Crash,
}

impl Tree {
    /// Opens the tree `name` at `path` and ends what an earlier process left unfinished. The directory itself is made
    /// when only it is missing; a missing parent is an error, since that is more likely a typo or a missing mount.
    pub fn open(
        name: TreeName,
        path: &Path,
        state_dir: Option<&Path>,
        options: Options,
    ) -> Result<Arc<Self>> {
        Self::open_with(name, path, state_dir, options, Crash::default()).map(Arc::new)
    }

    pub(super) fn open_with(
        name: TreeName,
        path: &Path,
        state_dir: Option<&Path>,
        options: Options,
        crash: Crash,
    ) -> Result<Self> {
        let root = open_root(&name, path, options.follow_links)?;
        let state = State::open(&name, &root, state_dir)?;
        let nodes = Nodes::open(state.here().join("nodes"))?;
        let doubt = Doubt::read(&state);
        let mut tree = Self {
            name,
            root: Mutex::new(Arc::new(root)),
            state,
            nodes,
            options,
            chains: Mutex::default(),
            doubt,
            heard: Mutex::default(),
            busy: AtomicBool::new(false),
            recovery: Recovery::Nothing,
            torn: Mutex::default(),
            crash,
        };

        match tree.recover() {
            Ok(recovery) => tree.recovery = recovery,
            Err(e) if tree.crash.happened() => return Err(e),
            // What is left of the commit is all that can make the tree whole: nothing is tidied up.
            Err(e) => {
                let why = tree.tear(&e);
                tracing::error!("tree {}: {why}", tree.name);
                return Ok(tree);
            }
        }

        match tree.recovery {
            Recovery::Nothing => {}
            Recovery::Completed(serial) => {
                tracing::info!("tree {}: completed the commit of {serial}", tree.name)
            }
            Recovery::Undone(serial) => {
                tracing::warn!("tree {}: undid the commit of {serial}", tree.name)
            }
        }

        tree.state.sweep(TEMPORARY);
        tree.state.forget_next()?;
        let tidied = Leftovers::tidy(&tree.state).and_then(|()| match tree.revertible()? {
            // What it may go back to is kept.
            Some(_) => Ok(()),
            None => shelf::put_away(&tree)
                .and_then(|()| tree.prune())
                .and_then(|()| tree.prune_nodes()),
        });

        if let Err(e) = tidied {
            if tree.crash.happened() {
                return Err(e);
            }
            tracing::warn!(
                "tree {}: what is not needed any more cannot be removed: {e}",
                tree.name
            );
        }

        Ok(tree)
    }

    /// The tree's name.
    pub fn name(&self) -> &TreeName {
        &self.name
    }

    /// The tree's directory as it is now: a commit in the layout `swap` puts another one in its place.
    pub fn root(&self) -> Arc<Root> {
        Arc::clone(&locked(&self.root))
    }

    /// Whether the tree's path still leads to its directory: not moved, removed or replaced by somebody else.
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

    /// Refuses when the tree cannot be exchanged as a whole (layout `swap`), and says why and what to do. Tried with two
    /// empty directories, which are removed again.
    pub fn check_swap(&self) -> Result<()> {
        let root = locked(&self.root);
        swap::probe(self, &root)
    }

    /// Refuses a plan that something in the tree stands in the way of, such as a mounted filesystem.
    pub fn check_way(&self, plan: &Plan) -> Result<()> {
        way::check(self, plan)
    }

    /// Lets `exchange` put another directory, which it gives, in the place of the tree's own; nobody gets a handle
    /// meanwhile. Its path is not asked again: somebody else may have changed what that leads to.
    pub(super) fn replace_root(&self, exchange: impl FnOnce(&Root) -> Result<Root>) -> Result<()> {
        let mut root = locked(&self.root);
        let new = exchange(&root)?;
        *root = Arc::new(root.succeeded_by(new));
        Ok(())
    }

    /// The tree's directory to read a release from; refused when its path leads elsewhere by now.
    pub fn root_to_send(&self) -> Result<Arc<Root>> {
        self.check_there()?;
        Ok(self.root())
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

    /// Keeps the order by which the release `serial` was committed; `None`: forgets it, since that was taken back.
    pub fn keep_grant(&self, serial: Serial, order: Option<&[u8]>) -> Result<()> {
        match order {
            Some(order) => self.state.write(&grant_name(serial), order),
            None => self.state.remove(&grant_name(serial)),
        }
    }

    /// The numbers of the releases that are kept, rising.
    pub fn releases(&self) -> Result<Vec<Serial>> {
        self.state.serials()
    }

    /// Takes the last commit back as long as it is not confirmed ([`Tree::forget_undo`], or a stage that was begun
    /// since): the tree and its current release are again what they were before. Says which release was taken back.
    /// Its serial stays the highest that was accepted, and is never accepted again.
    pub fn revert(&self) -> Result<Serial> {
        let _busy = Claim::new(self)?;
        self.check_state()?;
        if let Some(serial) = self.settle()? {
            return Ok(serial);
        }

        let none = || {
            Error::refused(format!(
                "tree {}: the last commit can no longer be undone",
                self.name
            ))
        };

        let journal = self.unconfirmed()?.ok_or_else(none)?;
        shelf::keep_nothing(self, journal.serial())?;
        self.crash.point()?;
        self.state
            .rename(&kept_journal(journal.serial()), BACKWARD)?;

        match undo::run(self, &journal) {
            Err(e) if !self.crash.happened() => {
                Err(Error::refused(format!("the tree is {}", self.tear(&e))))
            }
            done => done.map(|()| journal.serial()),
        }
    }

    /// The release that [`Tree::revert`] would take back; `None` when there is none.
    pub fn revertible(&self) -> Result<Option<Serial>> {
        Ok(self.unconfirmed()?.map(|journal| journal.serial()))
    }

    /// Confirms the last commit: it cannot be taken back any more. What it replaced and deleted is kept as the content
    /// of the release before, as long as that is kept; the oldest releases beyond those to be kept go.
    pub fn forget_undo(&self) -> Result<()> {
        let _busy = Claim::new(self)?;
        self.check_state()?;
        self.settle()?;
        self.confirm()
    }

    pub(super) fn confirm(&self) -> Result<()> {
        let journal = self.unconfirmed()?;
        if let Some(journal) = &journal {
            self.follow_last(journal)?;
            match self.keep(journal) {
                Err(e) if self.crash.happened() => return Err(e),
                Err(e) => {
                    tracing::warn!(
                        "tree {}: what release {} replaced is not kept: {e}",
                        self.name,
                        journal.serial()
                    )
                }
                Ok(()) => {}
            }
        }

        if let Some((journal, swap)) = journal.as_ref().and_then(|j| Some((j, j.swap.as_ref()?))) {
            // There is no way back from here on: the old tree is taken apart.
            self.crash.point()?;
            self.state.rename(
                &kept_journal(journal.serial()),
                &done_journal(journal.serial()),
            )?;
            if let Err(e) = relink::relink(self, journal, swap.old.ino, &swap.changed) {
                tracing::warn!(
                    "tree {}: its files are read anew by the next comparison: {e}",
                    self.name
                );
            }
        }

        locked(&self.chains).begin(false);
        shelf::put_away(self)?;
        self.prune()
    }

    /// Follows what others wrote into the old tree by handles that they opened before the exchange.
    fn follow_last(&self, journal: &Journal) -> Result<()> {
        let Some(exchange) = &journal.swap else {
            return Ok(());
        };

        match swap::follow_handles(self, journal, exchange) {
            Err(e) if self.crash.happened() => Err(e),
            Err(e) => {
                tracing::warn!(
                    "tree {}: what was written into the old tree may be missing: {e}",
                    self.name
                );
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// The journal of the last commit, when it can be taken back.
    fn unconfirmed(&self) -> Result<Option<Journal>> {
        let Some(last) = self.state.last_commit()? else {
            return Ok(None);
        };
        Ok(
            Journal::read(&self.state, &kept_journal(last.release.serial))?
                .filter(|j| j.commit == last),
        )
    }

    /// Refuses when the directory was moved, removed or replaced since it was opened.
    pub(super) fn check_there(&self) -> Result<()> {
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

    /// The same of the state directory.
    pub(super) fn check_state(&self) -> Result<()> {
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

    /// Why the tree is part new, part old, and with which release: its commit failed and cannot be undone.
    pub fn torn(&self) -> Option<(Serial, String)> {
        locked(&self.torn).clone()
    }

    /// Takes note that a commit cannot be undone, for the reason `e`; what to tell people.
    pub(super) fn tear(&self, e: &Error) -> String {
        let journal = Journal::read(&self.state, BACKWARD).ok().flatten();
        let journal = journal.or_else(|| Journal::read(&self.state, FORWARD).ok().flatten());
        let serial = journal.map(|j| j.serial()).unwrap_or_default();
        let text = format!(
            "part new, part old: the commit of {}@{serial} failed and cannot be undone: {e} (mend the cause, then \
             deploy again or restart the daemon: the rest is undone first)",
            self.name
        );
        *locked(&self.torn) = Some((serial, text.clone()));

        text
    }

    /// Undoes what is left of a commit that failed; an error as long as that cannot be done.
    pub fn mend(&self) -> Result<()> {
        if self.torn().is_none() {
            return Ok(());
        }
        let _busy = Claim::patient(self)?;
        self.check_state()?;
        self.settle().map(drop)
    }

    /// Undoes the commit that could neither be ended nor undone and was therefore called failed; says which. As long
    /// as that cannot be done nothing else may be: its journal and what is beside the tree are all that is left of it.
    pub(super) fn settle(&self) -> Result<Option<Serial>> {
        match self.undo_failed() {
            Err(e) if !self.crash.happened() => {
                Err(Error::refused(format!("the tree is {}", self.tear(&e))))
            }
            Ok(settled) => {
                *locked(&self.torn) = None;
                Ok(settled)
            }
            done => done,
        }
    }

    fn undo_failed(&self) -> Result<Option<Serial>> {
        let mut journal = Journal::read(&self.state, BACKWARD)?;
        if journal.is_none() {
            journal = Journal::read(&self.state, FORWARD)?;
            if journal.is_some() {
                undo::begin(self)?;
            }
        }

        let Some(journal) = journal else {
            return Ok(None);
        };

        undo::run(self, &journal)?;
        tracing::warn!(
            "tree {}: undid the commit of {}, which had failed",
            self.name,
            journal.serial()
        );

        Ok(Some(journal.serial()))
    }

    fn recover(&self) -> Result<Recovery> {
        if let Some(journal) = Journal::read(&self.state, BACKWARD)? {
            undo::run(self, &journal)?;
            return Ok(Recovery::Undone(journal.serial()));
        }

        let Some(journal) = Journal::read(&self.state, FORWARD)? else {
            return Ok(Recovery::Nothing);
        };

        let serial = journal.serial();
        match commit::complete(self, &journal, commit::Try::Again) {
            Ok(_) => Ok(Recovery::Completed(serial)),
            Err(e) if self.crash.happened() => Err(e),
            Err(e) => {
                tracing::warn!(
                    "tree {}: release {serial} cannot be completed, undoing it: {e}",
                    self.name
                );
                undo::begin(self)?;
                undo::run(self, &journal)?;
                Ok(Recovery::Undone(serial))
            }
        }
    }
}

/// The tree is being staged, committed or reverted by one caller.
#[derive(Debug)]
pub(super) struct Claim<T: Deref<Target = Tree>>(T);

impl<'a> Claim<&'a Tree> {
    /// As [`Claim::new`], after a while when somebody else has the tree for a moment.
    pub(super) fn patient(tree: &'a Tree) -> Result<Self> {
        for _ in 0..CLAIMS {
            if let Ok(claim) = Self::new(tree) {
                return Ok(claim);
            }
            std::thread::sleep(CLAIM_PAUSE);
        }
        Self::new(tree)
    }
}

impl<T: Deref<Target = Tree>> Claim<T> {
    pub(super) fn new(tree: T) -> Result<Self> {
        if tree.busy.swap(true, Ordering::AcqRel) {
            return Err(Error::refused(format!(
                "tree {} is in the middle of another release",
                tree.name
            ))
            .hint("wait for it to end, then try again"));
        }

        Ok(Self(tree))
    }
}

impl<T: Deref<Target = Tree>> Drop for Claim<T> {
    fn drop(&mut self) {
        self.0.busy.store(false, Ordering::Release);
    }
}

/// Where the journal of a commit that can be taken back is kept.
pub(super) fn kept_journal(serial: Serial) -> String {
    format!("undo/{serial}/{FORWARD}")
}

/// Where it is kept while what the commit replaced is put away.
pub(super) fn done_journal(serial: Serial) -> String {
    format!("undo/{serial}/{FORWARD}.done")
}

/// Opens the directory of a tree; with `follow_links` also through other users' links.
pub fn open_dir(path: &Path, follow_links: bool) -> Result<Root> {
    through(path, follow_links).map_err(|e| unopened(path, e))
}

fn open_root(name: &TreeName, path: &Path, follow_links: bool) -> Result<Root> {
    match through(path, follow_links) {
        Ok(root) => return Ok(root),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(unopened(path, e)),
    }

    make_root(path, follow_links).map_err(|e| {
        Error::io(
            &format!("cannot make the directory of tree {name},"),
            path,
            e,
        )
        .hint("make the directory that it is in, or correct the tree's path")
    })?;
    open_dir(path, follow_links)
}

fn make_root(path: &Path, follow_links: bool) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::NotFound.into());
    };

    let parent = links::open(None, parent, links_of(follow_links))?;
    Ok(rustix::fs::mkdirat(
        parent,
        name,
        rustix::fs::Mode::from_bits_truncate(0o777),
    )?)
}

fn through(path: &Path, follow_links: bool) -> io::Result<Root> {
    Root::open_through(path, links_of(follow_links))
}

fn links_of(follow_links: bool) -> Links {
    if follow_links {
        Links::Any
    } else {
        Links::own()
    }
}

fn unopened(path: &Path, e: io::Error) -> Error {
    let foreign = links::is_foreign(&e);
    let error = links::failed("cannot open the tree", path, e);
    match foreign {
        true => error.hint(
            "write the path that the link leads to, or set follow_links = true in its [[tree]]",
        ),
        false => error,
    }
}

/// Where tests stop a commit dead, as a crash would, or take an ability of the filesystem away.
#[derive(Debug, Default)]
pub(super) struct Crash {
    #[cfg(test)]
    pub(super) after: Option<std::sync::atomic::AtomicI64>,
    /// As on a filesystem that cannot exchange two names.
    #[cfg(test)]
    pub(super) no_exchange: bool,
    /// As on an overlay filesystem, whose lower directories cannot be renamed.
    #[cfg(test)]
    pub(super) no_directories: bool,
    /// What others do at every point, and right before and after an exchange.
    #[cfg(test)]
    pub(super) others: Others,
}

/// What others do in the tree meanwhile, in tests.
#[cfg(test)]
#[derive(Clone, Default)]
pub(super) struct Others(pub(super) Option<Arc<dyn Fn() + Send + Sync>>);

#[cfg(test)]
impl Others {
    fn act(&self) {
        if let Some(act) = &self.0 {
            act();
        }
    }
}

#[cfg(test)]
impl std::fmt::Debug for Others {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Others")
    }
}

impl Crash {
    /// Lets two names change places.
    pub(super) fn exchange(
        &self,
        from: BorrowedFd<'_>,
        old: &CStr,
        to: BorrowedFd<'_>,
        new: &CStr,
    ) -> rustix::io::Result<()> {
        #[cfg(test)]
        if self.no_exchange {
            return Err(rustix::io::Errno::INVAL);
        }

        #[cfg(test)]
        self.others.act();
        let done = rustix::fs::renameat_with(from, old, to, new, rustix::fs::RenameFlags::EXCHANGE);
        #[cfg(test)]
        self.others.act();

        done
    }

    /// Renames what may be a directory.
    pub(super) fn rename(
        &self,
        is_dir: bool,
        from: BorrowedFd<'_>,
        old: &CStr,
        to: BorrowedFd<'_>,
        new: &CStr,
    ) -> rustix::io::Result<()> {
        #[cfg(test)]
        if self.no_directories && is_dir {
            return Err(rustix::io::Errno::XDEV);
        }
        let _ = is_dir;
        rustix::fs::renameat(from, old, to, new)
    }

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
        self.others.act();
        match &self.after {
            Some(left) if left.fetch_sub(1, Ordering::SeqCst) <= 0 => {
                Err(Error::refused("crashed here"))
            }
            _ => Ok(()),
        }
    }

    #[cfg(test)]
    pub(super) fn happened(&self) -> bool {
        self.after
            .as_ref()
            .is_some_and(|left| left.load(Ordering::SeqCst) < 0)
    }
}
