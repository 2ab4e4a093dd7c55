//! The state directory of one tree: its place, its lock, and the small files inside.
//!
//! It is on the tree's own filesystem, since staged items enter the tree by rename: beside the
//! tree, or for a tree that is a mount point, in a directory inside that no release can name
//! ([`TreePath::is_reserved`]). Only this user can read it.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Write};
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use minicbor::bytes::ByteVec;
use rustix::fs::{AtFlags, FlockOperation, OFlags, RenameFlags};
use rustix::io::Errno;

use super::reader::{
    BESIDE, CommitMark, FORWARD, Mark, StateReader, TOMBSTONES, grant_name, inside,
};
use crate::error::{Error, IoResultExt as _, Result};
use crate::id::{Serial, TreeName};
use crate::tree::fs::dir::{
    c_name, discard, is_overlay, names, open_dir, open_for_writing, private_dir, private_dir_at,
    slot_name, sync_dir,
};
use crate::tree::fs::metadata::Metadata;
use crate::tree::fs::root::{FileId, Root};
use crate::tree::fs::stat::{FileStat, mount_of};
use crate::tree::fs::symlinks::{self, LinkPolicy};

/// In an undo directory: the record of another release of the same serial, and the order that
/// committed it.
const ASIDE_RELEASE: &str = "release";
const ASIDE_ORDER: &str = "order";
/// Directory for entries that could not be removed.
const TRASH: &str = "trash";
/// Attempts at the lock, and the pause between them.
const LOCK_TRIES: usize = 20;
const LOCK_PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

/// State directory of one tree, locked for this process.
#[derive(Debug)]
pub struct StateDir {
    records: StateReader,
    handle: OwnedFd,
    stage: OwnedFd,
    warning: Option<String>,
    is_overlay: bool,
    /// For a state inside the tree: the directory at the top of the tree that holds it.
    hidden: Option<FileId>,
    _lock: File,
}

/// Reads need no lock.
impl Deref for StateDir {
    type Target = StateReader;

    fn deref(&self) -> &StateReader {
        &self.records
    }
}

impl StateDir {
    /// Opens or creates the state directory of the tree `name` at `tree`: `state_dir`/NAME if given
    /// and on the tree's filesystem, else `.makuo`/NAME beside the tree.
    pub fn open(name: &TreeName, tree: &Root, state_dir: Option<&Path>) -> Result<Self> {
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
                return Self::hold(name, path, dir, None, None);
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
        let (path, dir, hidden) = match real.parent().filter(|_| is_on_mount_of(tree, &above)) {
            Some(parent) => {
                let path = parent.join(BESIDE).join(name.as_str());
                let dir = make(Some(above.as_fd()), Path::new(BESIDE), name, path.clone())?;
                (path, dir, None)
            }
            None => {
                let path = real.join(BESIDE).join(name.as_str());
                let hidden = real.join(BESIDE);
                check_moved(name, &real, &path)?;
                let before = FileStat::of(tree).context("cannot look at", &real)?;
                let handle = private_dir_at(tree.as_fd(), Path::new(BESIDE), &hidden)?;
                // The directory is no part of the tree, so its creation leaves no mark there.
                if let Err(e) = (Metadata {
                    mtime: Some(before.mtime),
                    ..Metadata::default()
                })
                .set(tree)
                {
                    tracing::debug!("the time of {} is not what it was: {e}", real.display());
                }
                let id = rustix::fs::fstat(&handle).context("cannot look at", &hidden)?;
                let dir = make(Some(handle.as_fd()), Path::new("."), name, path.clone())?;
                (path, dir, Some(FileId::of(&id)))
            }
        };

        if !on_same(tree, &dir)? {
            forsake(&dir, name);
            return Err(Error::usage(format!(
                "no place for the state of tree {name} on the filesystem of {}: {} is on another \
                 one",
                real.display(),
                path.display()
            ))
            .hint("set state_dir to a directory on the filesystem of the tree"));
        }

        let warning = warning.map(|w| {
            format!(
                "{w}: the state of tree {name} is in {} instead",
                path.display()
            )
        });

        Self::hold(name, path, dir, warning, hidden)
    }

    fn hold(
        name: &TreeName,
        path: PathBuf,
        dir: Root,
        warning: Option<String>,
        hidden: Option<FileId>,
    ) -> Result<Self> {
        let lock_path = path.join("lock");
        let lock = open_for_writing(dir.as_fd(), c"lock", OFlags::empty());
        let lock = lock.context("cannot open", &lock_path)?;
        match try_lock(&lock) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(Error::refused(format!(
                    "another makuo daemon serves tree {name} ({})",
                    path.display()
                ))
                .hint("stop it first, or give this one another tree"));
            }
            Err(e) => return Err(Error::io("cannot lock", &lock_path, e)),
        }

        for sub in ["stage", "undo", "releases", TOMBSTONES] {
            private_dir_at(dir.as_fd(), Path::new(sub), &path.join(sub))?;
        }

        let handle = dir.dir(None).context("cannot open", &path)?;
        let stage = dir
            .dir(Some(&inside("stage")))
            .map_err(|e| Error::io("cannot open", path.join("stage"), e))?;
        let is_overlay = is_overlay(handle.as_fd());

        Ok(Self {
            records: StateReader::at(dir),
            handle,
            stage,
            warning,
            is_overlay,
            hidden,
            _lock: lock,
        })
    }

    /// Returns whether the path still leads to the opened directory.
    pub(crate) fn still_there(&self) -> io::Result<bool> {
        self.root().still_there()
    }

    /// Handle of the directory.
    pub(crate) fn handle(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }

    /// Path of the next tree, which a commit in the layout `swap` exchanges with the live one.
    pub(crate) fn next_path(&self) -> PathBuf {
        self.here().join("next")
    }

    /// Creates an empty directory for the next tree.
    pub(crate) fn fresh_next(&self) -> Result<()> {
        self.forget_next()?;
        private_dir(&self.next_path())
    }

    /// Removes a next tree that was not committed.
    pub(crate) fn forget_next(&self) -> Result<()> {
        self.discard(self.handle(), c"next", &self.next_path())
    }

    /// Removes `name` in the directory `dir` of the state, at `path`, with everything below. An
    /// entry that cannot be removed now (an immutable file, say) moves to the trash for a later
    /// attempt, so new work does not wait.
    pub(crate) fn discard(&self, dir: BorrowedFd<'_>, name: &CStr, path: &Path) -> Result<()> {
        let Err(why) = discard(dir, name) else {
            return Ok(());
        };

        let trash = self.here().join(TRASH);
        let aside = || -> Result<()> {
            private_dir(&trash)?;
            let there = open_dir(&trash)?;
            for number in 1u64.. {
                match rustix::fs::renameat_with(
                    dir,
                    name,
                    &there,
                    slot_name(number),
                    RenameFlags::NOREPLACE,
                ) {
                    Err(Errno::EXIST) => {}
                    done => return done.context("cannot put aside", path),
                }
            }
            Ok(())
        };

        match aside() {
            Ok(()) => {
                tracing::warn!(
                    "{}: it is in {} and goes as soon as that can be done",
                    Error::io("cannot remove", path, why),
                    self.path().join(TRASH).display()
                );
                Ok(())
            }
            Err(e) => {
                tracing::debug!("{e}");
                Err(Error::io("cannot remove", path, why))
            }
        }
    }

    /// Retries the removal of everything in the trash.
    pub(crate) fn empty_trash(&self) {
        let path = self.here().join(TRASH);
        let Ok(dir) = open_dir(&path) else { return };
        for name in names(&path).into_iter().flatten() {
            let gone = CString::new(name.as_encoded_bytes()).map_err(io::Error::from);
            if let Err(e) = gone.and_then(|name| discard(dir.as_fd(), &name)) {
                tracing::debug!("{} is still there: {e}", path.join(&name).display());
            }
        }
    }

    /// Directories that belong to the state and not to the tree.
    pub fn apart(&self) -> Vec<FileId> {
        [Some(self.root().id()), self.hidden]
            .into_iter()
            .flatten()
            .collect()
    }

    /// Returns whether the state is inside the tree, which is a mount point then.
    pub fn is_inside(&self) -> bool {
        self.hidden.is_some()
    }

    /// Returns whether state and tree are on an overlay filesystem.
    pub(crate) fn is_overlay(&self) -> bool {
        self.is_overlay
    }

    /// Warning about the place of the state, for the operator.
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    /// Path of the handle in /proc; valid in this process while this value lives.
    pub fn here(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.handle.as_raw_fd()))
    }

    /// Path of the tree's index in this process.
    pub fn index_path(&self) -> PathBuf {
        self.here().join("index")
    }

    /// Directory of staged items.
    pub fn stage(&self) -> BorrowedFd<'_> {
        self.stage.as_fd()
    }

    /// Path of the directory of staged items in this process, for listings.
    pub fn stage_path(&self) -> PathBuf {
        self.here().join("stage")
    }

    /// Directory of all undo directories.
    pub(crate) fn undo_dirs(&self) -> PathBuf {
        self.here().join("undo")
    }

    /// Undo directory of `serial`: entries that its commit replaced or deleted.
    pub fn undo_path(&self, serial: Serial) -> PathBuf {
        self.undo_dirs().join(serial.to_string())
    }

    /// Opens the undo directory of a commit in progress.
    pub(crate) fn undo_dir(&self, serial: Serial) -> Result<OwnedFd> {
        let path = self.undo_path(serial);
        private_dir(&path)?;
        open_dir(&path)
    }

    /// Creates an empty undo directory and removes every other one.
    pub(crate) fn fresh_undo(&self, serial: Serial) -> Result<OwnedFd> {
        self.forget_undo()?;
        let path = self.undo_path(serial);
        private_dir(&path)?;
        sync_dir(&self.undo_dirs())?;
        open_dir(&path)
    }

    /// Removes all undo directories.
    pub fn forget_undo(&self) -> Result<()> {
        let path = self.undo_dirs();
        let undo = open_dir(&path)?;
        for name in names(&path)? {
            // The journal goes first: an undo from half a directory must not start.
            self.remove(&format!("undo/{}/{FORWARD}", name.to_string_lossy()))?;
            self.discard(undo.as_fd(), &c_name(&name)?, &path.join(&name))?;
        }

        Ok(())
    }

    /// Removes files with the prefix `prefix`: partial writes of processes that ended early.
    pub(crate) fn sweep(&self, prefix: &str) {
        for name in names(&self.here()).into_iter().flatten() {
            if name.to_string_lossy().starts_with(prefix) {
                // A file that stays costs disk space only.
                let _ = std::fs::remove_file(self.here().join(name));
            }
        }
    }

    /// Raises the highest release to `mark`, durably; refuses an older one and another one of the
    /// same serial.
    pub fn raise_highest(&self, mark: Mark) -> Result<()> {
        match self.highest()? {
            Some(highest) if highest.serial >= mark.serial => {
                return Err(Error::refused(format!(
                    "release {} is not newer than {}, which was accepted here",
                    mark.serial, highest.serial
                ))
                .hint("release again: that takes a new serial"));
            }
            _ => {}
        }

        self.write_mark("serial", mark, 0)
    }

    pub(crate) fn set_last_commit(&self, commit: Option<CommitMark>) -> Result<()> {
        match commit {
            Some(commit) => self.write_mark("current", commit.release, commit.number),
            None => self.remove("current"),
        }
    }

    /// Records the newest release with this tree as its source.
    pub(crate) fn set_sent(&self, mark: Mark) -> Result<()> {
        self.write_mark("source", mark, 0)
    }

    /// Stores header and signature of a release.
    pub(crate) fn store(&self, serial: Serial, header: &[u8], signature: &[u8]) -> Result<()> {
        let pair = (
            ByteVec::from(header.to_vec()),
            ByteVec::from(signature.to_vec()),
        );
        let bytes = minicbor::to_vec(pair).expect("writing to a Vec cannot fail");
        self.write(&format!("releases/{serial}"), &bytes)
    }

    pub(crate) fn forget(&self, serial: Serial) -> Result<()> {
        self.remove(&grant_name(serial))?;
        self.remove(&format!("releases/{serial}"))
    }

    /// Moves the record of the release `mark` into the undo directory of a commit of the same
    /// serial. Repeatable after a crash: a missing record was moved already.
    pub(crate) fn set_aside(&self, mark: Mark) -> Result<()> {
        let serial = mark.serial;
        if self
            .stored(serial)?
            .is_some_and(|stored| stored.release.id() == mark.id)
        {
            for (name, aside) in [
                (grant_name(serial), ASIDE_ORDER),
                (format!("releases/{serial}"), ASIDE_RELEASE),
            ] {
                if self.read(&name)?.is_some() {
                    self.rename(&name, &format!("undo/{serial}/{aside}"))?;
                }
            }
        }

        Ok(())
    }

    /// Moves the record of the release `mark` back, over the record of the other release of its
    /// serial.
    pub(crate) fn bring_back(&self, mark: Mark) -> Result<()> {
        let serial = mark.serial;
        for (name, aside) in [
            (format!("releases/{serial}"), ASIDE_RELEASE),
            (grant_name(serial), ASIDE_ORDER),
        ] {
            let aside = format!("undo/{serial}/{aside}");
            // Without one, the present order may belong to the other release; users compare it with
            // theirs.
            if self.read(&aside)?.is_some() {
                self.rename(&aside, &name)?;
            }
        }

        Ok(())
    }

    /// Writes the file `name` atomically and durably.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.write_with(name, |file| file.write_all(bytes))
    }

    /// Like [`StateDir::write`], with content from `fill`.
    pub(crate) fn write_with(
        &self,
        name: &str,
        fill: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> Result<()> {
        let write = || {
            let (dir, last) = self.place(name)?;
            let temporary = CString::new([last.as_bytes(), b".new"].concat())?;
            let mut file = open_for_writing(dir.as_fd(), &temporary, OFlags::TRUNC)?;
            fill(&mut file)?;
            file.sync_all()?;
            rustix::fs::renameat(&dir, &temporary, &dir, &last)?;
            Ok(rustix::fs::fsync(&dir)?)
        };

        write().map_err(|e: io::Error| Error::io("cannot write", self.path().join(name), e))
    }

    /// Removes the file `name` durably; a missing file is no error.
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        let remove = || {
            let (dir, last) = self.place(name)?;
            rustix::fs::unlinkat(&dir, &last, AtFlags::empty())?;
            Ok(rustix::fs::fsync(&dir)?)
        };

        match remove() {
            Err(e) if io::Error::kind(&e) != io::ErrorKind::NotFound => {
                Err(Error::io("cannot remove", self.path().join(name), e))
            }
            _ => Ok(()),
        }
    }

    /// Renames a file of the state durably.
    pub(crate) fn rename(&self, from: &str, to: &str) -> Result<()> {
        let rename = || {
            let ((old, last), (new, name)) = (self.place(from)?, self.place(to)?);
            rustix::fs::renameat(&old, &last, &new, &name)?;
            Ok(rustix::fs::fsync(&new)?)
        };
        rename().map_err(|e: io::Error| Error::io("cannot rename", self.path().join(from), e))?;
        self.sync()
    }

    /// Parent directory of the file `name`, and the last component.
    fn place(&self, name: &str) -> io::Result<(OwnedFd, CString)> {
        let path = inside(name);
        Ok((
            self.root().dir(path.parent().as_ref())?,
            CString::new(path.name())?,
        ))
    }

    /// Syncs the names in the directory.
    pub(crate) fn sync(&self) -> Result<()> {
        rustix::fs::fsync(&self.handle).context("cannot sync", self.path())
    }

    pub(crate) fn write_mark(&self, name: &str, mark: Mark, number: u64) -> Result<()> {
        self.write(
            name,
            format!("{} {} {number}\n", mark.serial, mark.id).as_bytes(),
        )
    }
}

/// Waits a moment for a process that is about to end, or is between fork and exec.
fn try_lock(lock: &File) -> rustix::io::Result<()> {
    for _ in 0..LOCK_TRIES {
        match rustix::fs::flock(lock, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => std::thread::sleep(LOCK_PAUSE),
            done => return done,
        }
    }
    Err(Errno::WOULDBLOCK)
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
