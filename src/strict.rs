//! Opens security-relevant files, if nobody else could have changed them.
//!
//! The rules are those of OpenSSH's StrictModes: the file and every directory above it belong to
//! root or to the current user, and neither their group nor others may write to them. One addition:
//! a directory with the sticky bit, such as /tmp, may be writable by all, because nobody can
//! replace another user's files there.
//!
//! A path is walked once. Each component is opened by the handle of the one before it and checked
//! by its own handle, and the checked file is the one that is read.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{CWD, FileType, Mode, OFlags, Stat, fstat, fstatfs, openat, readlinkat};
use rustix::io::Errno;

use crate::error::IoResultExt;
use crate::units::{printable, printable_path};
use crate::{Error, Result};

/// Largest number of symbolic links on a path, as in the kernel.
const MAX_SYMLINKS: usize = 40;
/// File system type of /proc, whose links in `fd` are not paths.
const PROC_MAGIC: u64 = 0x9fa0;
/// Owner of files whose real owner is not in this user namespace.
const UNKNOWN_OWNER: u32 = 65_534;
const PATH_HANDLE: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const STICKY: u32 = 0o1000;

/// A further trusted user.
static TRUSTED: OnceLock<u32> = OnceLock::new();

/// The users that may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readers {
    /// Anybody.
    All,
    /// Owner and group.
    Group,
    /// The owner only; also the group, if the owner is not the current user.
    Owner,
}

/// Also trusts the files of user `uid`: this process is about to become that user, or acts for it.
pub fn trust(uid: u32) {
    // The first call wins: a process has one such user.
    let _ = TRUSTED.set(uid);
}

/// Opens the file `path` for reading, if only root and the current user can have written it and
/// only `readers` can read it. A link of /proc, such as the one behind /dev/fd, refers to a file
/// that this process was given: it is opened as it is.
pub fn open(path: &Path, readers: Readers) -> Result<File> {
    let absolute = std::path::absolute(path).context("cannot open", path)?;
    let file = walk(&absolute).map_err(|stop| stop.into_error(path))?;
    check_readers(&file, path, readers)?;
    Ok(file)
}

/// Refuses the open file `path` if others than `readers` can read it.
pub fn check_readers(file: &File, path: &Path, readers: Readers) -> Result<()> {
    let stat = fstat(file).context("cannot read", path)?;
    let mine = stat.st_uid == rustix::process::geteuid().as_raw();
    let closed = match readers {
        Readers::All => 0,
        Readers::Owner if mine => 0o077,
        Readers::Group | Readers::Owner => 0o007,
    };

    if stat.st_mode & closed == 0 {
        return Ok(());
    }

    Err(Error::usage(format!(
        "{} is a secret that others can read ({})",
        printable_path(path),
        facts(&stat)
    ))
    .hint(format!("chmod 0600 {}", word(path))))
}

/// Reason for the end of a walk.
enum Stop {
    Failed(io::Error),
    Refused(Error),
}

impl From<Errno> for Stop {
    fn from(e: Errno) -> Self {
        Self::Failed(e.into())
    }
}

impl Stop {
    fn into_error(self, path: &Path) -> Error {
        match self {
            Self::Failed(e) => Error::io("cannot open", path, e),
            Self::Refused(error) => error,
        }
    }
}

fn walk(path: &Path) -> Result<File, Stop> {
    let mut left: VecDeque<OsString> = names(path);
    let top = || -> Result<(OwnedFd, PathBuf), Stop> {
        let root = openat(CWD, "/", PATH_HANDLE | OFlags::DIRECTORY, Mode::empty())?;
        check(&fstat(&root)?, Path::new("/")).map_err(Stop::Refused)?;
        Ok((root, PathBuf::from("/")))
    };

    let mut above = vec![top()?];
    let mut links = 0;
    while let Some(name) = left.pop_front() {
        if name == OsStr::new("..") {
            if above.len() > 1 {
                above.pop();
            }
            continue;
        }

        let Some((dir, at)) = above.last() else {
            return Err(Errno::NOENT.into());
        };
        let dir = dir.as_fd();
        let at = at.join(&name);
        let handle = openat(dir, &name, PATH_HANDLE, Mode::empty())?;
        let stat = fstat(&handle)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink
                if fstatfs(&handle)?.f_type as u64 == PROC_MAGIC && left.is_empty() =>
            {
                check_owner(&stat, &at).map_err(Stop::Refused)?;
                let file = openat(dir, &name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
                return Ok(file.into());
            }
            FileType::Symlink => {
                links += 1;
                if links > MAX_SYMLINKS {
                    return Err(Errno::LOOP.into());
                }
                check_owner(&stat, &at).map_err(Stop::Refused)?;
                let target = PathBuf::from(OsString::from_vec(
                    readlinkat(&handle, "", Vec::new())?.into_bytes(),
                ));
                if target.is_absolute() {
                    above = vec![top()?];
                }
                for name in names(&target).into_iter().rev() {
                    left.push_front(name);
                }
            }
            FileType::Directory if left.is_empty() => return Err(Errno::ISDIR.into()),
            FileType::Directory => {
                check(&stat, &at).map_err(Stop::Refused)?;
                above.push((handle, at));
            }
            _ if !left.is_empty() => return Err(Errno::NOTDIR.into()),
            _ => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = openat(dir, &name, flags, Mode::empty())?;
                check(&fstat(&file)?, &at).map_err(Stop::Refused)?;
                return Ok(file.into());
            }
        }
    }

    // The path ends in "..", or is "/".
    Err(Errno::ISDIR.into())
}

/// The components of a path below its start.
fn names(path: &Path) -> VecDeque<OsString> {
    let name = |component: Component<'_>| match component {
        Component::Normal(name) => Some(name.to_os_string()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    };
    path.components().filter_map(name).collect()
}

/// Refuses files that others than root and the current user could have changed.
fn check(stat: &Stat, path: &Path) -> Result<()> {
    check_owner(stat, path)?;
    let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    if stat.st_mode & 0o022 == 0 || is_dir && stat.st_mode & STICKY != 0 {
        return Ok(());
    }

    let who = if stat.st_mode & 0o002 != 0 {
        "anybody"
    } else {
        "its group"
    };

    let what = if is_dir { "the directory " } else { "" };
    Err(Error::usage(format!(
        "{what}{} can be written to by {who} ({})",
        printable_path(path),
        facts(stat)
    ))
    .hint(format!("chmod go-w {}", word(path))))
}

fn check_owner(stat: &Stat, path: &Path) -> Result<()> {
    let me = rustix::process::geteuid().as_raw();
    let uid = stat.st_uid;
    if uid == 0
        || uid == me
        || TRUSTED.get() == Some(&uid)
        || uid == UNKNOWN_OWNER && is_unknown_here()
    {
        return Ok(());
    }

    let to = if me == 0 {
        "root".to_string()
    } else {
        format!("root or user {me}")
    };

    Err(Error::usage(format!(
        "{} does not belong to {to} ({})",
        printable_path(path),
        facts(stat)
    ))
    .hint(format!("chown -h {me} {}", word(path))))
}

/// Returns whether files of [`UNKNOWN_OWNER`] belong to users outside this process's user
/// namespace: in a container, root's own directories. Their real owners cannot be seen from inside.
fn is_unknown_here() -> bool {
    let Ok(map) = std::fs::read_to_string("/proc/self/uid_map") else {
        return false;
    };

    !map.lines().any(|line| {
        let mut numbers = line
            .split_whitespace()
            .map(|word| word.parse::<u64>().unwrap_or(0));
        let (first, _, count) = (
            numbers.next().unwrap_or(0),
            numbers.next(),
            numbers.next().unwrap_or(0),
        );
        (first..first + count).contains(&u64::from(UNKNOWN_OWNER))
    })
}

/// Owner and mode, for errors.
fn facts(stat: &Stat) -> String {
    let name = nix::unistd::User::from_uid(stat.st_uid.into())
        .ok()
        .flatten();
    let owner = name.map_or_else(|| stat.st_uid.to_string(), |user| user.name);
    format!(
        "owner {}, mode {:04o}",
        printable(owner.as_bytes()),
        stat.st_mode & 0o7777
    )
}

/// Path quoted as one word for a shell.
fn word(path: &Path) -> String {
    let text = printable_path(path);
    let plain = |c: char| c.is_alphanumeric() || "/._-+@%,:=".contains(c);
    if text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests;
