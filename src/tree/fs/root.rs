//! A directory by its handle; every path inside is resolved from this handle.
//!
//! Resolution (openat2) never follows a symbolic link, `..` or a magic link of `/proc`; mounts
//! inside are crossed. Nothing is resolved twice: a caller gets the handle of the parent directory
//! and the last component, and works with those.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat, StatxFlags, openat, openat2, statat,
    statx,
};
use rustix::io::Errno;

use super::errors::is_gone;
use super::symlinks::{self, LinkPolicy};
use crate::manifest::TreePath;

/// Number of attempts at an openat2 that failed because of a concurrent rename.
const MAX_OPEN_TRIES: usize = 100;

/// A directory by its handle, with a path for messages.
#[derive(Debug)]
pub struct Root {
    handle: OwnedFd,
    path: PathBuf,
    identity: RootIdentity,
    links: LinkPolicy,
}

/// Identity of an inode, whatever its name. See [`Root::id`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId {
    /// Device of the filesystem (`st_dev`).
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
}

impl FileId {
    /// Identity from a stat result.
    pub fn of(stat: &Stat) -> Self {
        Self {
            dev: stat.st_dev,
            ino: stat.st_ino,
        }
    }
}

/// Identities of the directory and of the last component of its path, perhaps a symbolic link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RootIdentity {
    directory: FileId,
    name: FileId,
}

impl Root {
    /// Opens the directory at `path`. The operator chose the path, so it may lead through symbolic
    /// links.
    pub fn open(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        let handle = retry(|| openat(CWD, &path, DIRECTORY, Mode::empty()))?;
        let directory = FileId::of(&rustix::fs::fstat(&handle)?);
        let name = FileId::of(&statat(CWD, &path, AtFlags::SYMLINK_NOFOLLOW)?);

        Ok(Self {
            handle,
            path,
            identity: RootIdentity { directory, name },
            links: LinkPolicy::Any,
        })
    }

    /// Like [`Root::open`], but the path may lead through `links` only, now and at every later
    /// lookup.
    pub fn open_through(path: impl Into<PathBuf>, links: LinkPolicy) -> io::Result<Self> {
        let path = path.into();
        if links == LinkPolicy::Any {
            return Self::open(path);
        }
        let handle = symlinks::open(None, &path, links)?;
        Self::of_handle(&handle, path, links)
    }

    /// Wraps an `O_PATH` handle of the directory at `path`.
    pub(crate) fn of_handle(
        handle: &OwnedFd,
        path: PathBuf,
        links: LinkPolicy,
    ) -> io::Result<Self> {
        let handle = retry(|| openat(handle, c".", DIRECTORY, Mode::empty()))?;
        let directory = FileId::of(&rustix::fs::fstat(&handle)?);
        let name = FileId::of(&statat(CWD, &path, AtFlags::SYMLINK_NOFOLLOW)?);
        Ok(Self {
            handle,
            path,
            identity: RootIdentity { directory, name },
            links,
        })
    }

    /// Opens the subdirectory `name`, one component, of `dir`; `path` is its path. Never follows a
    /// link.
    pub(crate) fn below(dir: BorrowedFd<'_>, name: &CStr, path: PathBuf) -> io::Result<Self> {
        let handle = open_dir_at(dir, name)?;
        let id = FileId::of(&rustix::fs::fstat(&handle)?);
        Ok(Self {
            handle,
            path,
            identity: RootIdentity {
                directory: id,
                name: id,
            },
            links: LinkPolicy::Any,
        })
    }

    /// Returns `other`, which replaced this directory, under the path and link policy of this one.
    pub(crate) fn succeeded_by(&self, other: Self) -> Self {
        let RootIdentity { directory, name } = self.identity;
        let identity = RootIdentity {
            name: if name == directory { other.id() } else { name },
            ..other.identity
        };

        Self {
            handle: other.handle,
            path: self.path.clone(),
            identity,
            links: self.links,
        }
    }

    /// Path of the handle in /proc; valid while this value lives.
    pub fn here(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.handle.as_raw_fd()))
    }

    /// Real path of the directory as the kernel knows it, without links.
    pub fn real_path(&self) -> io::Result<PathBuf> {
        let path = std::fs::read_link(self.here());
        // Without /proc, resolve the path that the root was opened by.
        path.or_else(|_| std::fs::canonicalize(&self.path))
    }

    /// Parent directory as an `O_PATH` handle for *at calls.
    pub(crate) fn above(&self) -> io::Result<OwnedFd> {
        Ok(retry(|| {
            openat(&self.handle, c"..", DIRECTORY | OFlags::PATH, Mode::empty())
        })?)
    }

    /// Opens the directory `path` inside this root as a root of its own.
    pub fn open_below(&self, path: &TreePath) -> io::Result<Self> {
        let handle = self.dir(Some(path))?;
        let id = FileId::of(&rustix::fs::fstat(&handle)?);
        Ok(Self {
            handle,
            path: self.shown(path),
            identity: RootIdentity {
                directory: id,
                name: id,
            },
            links: self.links,
        })
    }

    /// Path that the root was opened by, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Path of an entry outside of the root, for messages only.
    pub fn shown(&self, path: &TreePath) -> PathBuf {
        self.path.join(path.as_path())
    }

    /// Path of a directory of the tree, or of the root, for messages.
    pub(crate) fn shown_dir(&self, dir: Option<&TreePath>) -> PathBuf {
        dir.map_or_else(|| self.path().to_path_buf(), |dir| self.shown(dir))
    }

    /// Like [`Root::shown`], with control characters escaped.
    pub fn printed(&self, path: &TreePath) -> String {
        crate::units::printable(self.shown(path).as_os_str().as_encoded_bytes())
    }

    /// Identity of the directory.
    pub fn id(&self) -> FileId {
        self.identity.directory
    }

    /// Readable handle of the directory `path`, or of the root itself, with a read position of its
    /// own.
    pub fn dir(&self, path: Option<&TreePath>) -> io::Result<OwnedFd> {
        self.resolve(path, DIRECTORY)
    }

    /// Parent directory of `path` as an `O_PATH` handle for *at calls, and the last component.
    pub fn parent(&self, path: &TreePath) -> io::Result<(OwnedFd, CString)> {
        let handle = self.resolve(path.parent().as_ref(), DIRECTORY | OFlags::PATH)?;
        Ok((handle, component(path.name())?))
    }

    /// `O_PATH` handle of the directory with these path bytes; empty bytes are the root itself.
    pub(crate) fn handle_of(&self, path: &[u8]) -> io::Result<OwnedFd> {
        let below = if path.is_empty() {
            c".".to_owned()
        } else {
            component(path)?
        };

        Ok(retry(|| {
            openat2(
                &self.handle,
                &below,
                DIRECTORY | OFlags::PATH,
                Mode::empty(),
                RESOLVE,
            )
        })?)
    }

    /// Opens the regular file at `path` for reading. Other types fail with `InvalidInput`, a
    /// symbolic link with the system's "too many levels of symbolic links".
    pub fn open_file(&self, path: &TreePath) -> io::Result<File> {
        let (parent, name) = self.parent(path)?;
        open_file_at(parent.as_fd(), &name)
    }

    /// Status of `path`; of a symbolic link, the link itself.
    pub fn stat(&self, path: &TreePath) -> io::Result<Stat> {
        let (parent, name) = self.parent(path)?;
        Ok(statat(&parent, &name, NOFOLLOW)?)
    }

    /// Returns whether a rename between the two roots can work: same filesystem and same mount.
    pub fn same_filesystem(&self, other: &Root) -> io::Result<bool> {
        Ok(self.id().dev == other.id().dev && self.mount()? == other.mount()?)
    }

    /// Returns whether the path still leads to this directory: not removed, replaced or turned into
    /// a symbolic link.
    pub fn still_there(&self) -> io::Result<bool> {
        let now = |flags| match statat(CWD, &self.path, flags).map_err(io::Error::from) {
            Ok(stat) => Ok(Some(FileId::of(&stat))),
            Err(e) if is_gone(&e) => Ok(None),
            Err(e) => Err(e),
        };

        let directory = match self.links {
            LinkPolicy::Any => now(AtFlags::empty())?,
            links => match symlinks::open(None, &self.path, links) {
                Ok(handle) => Some(FileId::of(&rustix::fs::fstat(&handle)?)),
                Err(e) if symlinks::is_foreign(&e) => None,
                Err(e) if is_gone(&e) => None,
                Err(e) => return Err(e),
            },
        };

        Ok(directory == Some(self.identity.directory)
            && now(AtFlags::SYMLINK_NOFOLLOW)? == Some(self.identity.name))
    }

    /// Mount id; `None` before Linux 5.8.
    fn mount(&self) -> io::Result<Option<u64>> {
        let found = statx(&self.handle, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
        Ok((found.stx_mask & StatxFlags::MNT_ID.bits() != 0).then_some(found.stx_mnt_id))
    }

    fn resolve(&self, path: Option<&TreePath>, flags: OFlags) -> io::Result<OwnedFd> {
        let below = match path {
            None => c".".to_owned(),
            Some(path) => component(path.as_bytes())?,
        };
        Ok(retry(|| {
            openat2(&self.handle, &below, flags, Mode::empty(), RESOLVE)
        })?)
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

/// Opens the subdirectory `name`, one component, of `parent` for reading; never follows a link.
pub fn open_dir_at(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    Ok(retry(|| {
        openat(parent, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())
    })?)
}

/// Opens the regular file `name`, one component, of `parent` for reading; never follows a link.
pub fn open_file_at(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<File> {
    // The type is checked first, since opening a device or pipe can have effects, and again
    // afterwards, since the file may have been replaced.
    regular(&statat(parent, name, NOFOLLOW)?)?;
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(retry(|| openat(parent, name, flags, Mode::empty()))?);
    regular(&rustix::fs::fstat(&file)?)?;
    Ok(file)
}

/// Flags for the status of a name itself.
pub const NOFOLLOW: AtFlags = AtFlags::SYMLINK_NOFOLLOW.union(AtFlags::NO_AUTOMOUNT);

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

const RESOLVE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS);

fn regular(stat: &Stat) -> io::Result<()> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(()),
        FileType::Symlink => Err(Errno::LOOP.into()),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        )),
    }
}

/// Converts a component. A legal path has no NUL, so an error here is a defect.
fn component(bytes: &[u8]) -> io::Result<CString> {
    CString::new(bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))
}

fn retry<T>(call: impl Fn() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    let mut tries = 0;
    loop {
        match call() {
            Err(Errno::AGAIN | Errno::INTR) if tries < MAX_OPEN_TRIES => tries += 1,
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests;
