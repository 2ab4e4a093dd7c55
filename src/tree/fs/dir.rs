//! Directories and the names in them: list, look up, sync, rename, remove.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, renameat, renameat_with};
use rustix::io::Errno;

use super::metadata::{chmod, handle_of};
use super::project_flags::ProjectFlags;
use super::root::open_dir_at;
use super::stat::FileStat;
use super::xattrs::{ACL, DEFAULT_ACL};
use crate::error::{Error, IoResultExt as _, Result};
use crate::manifest::{Mode as Permissions, TreePath};

/// Largest number of touched paths that are synced one by one; beyond, one syncfs replaces them.
pub(crate) const MAX_SINGLE_SYNCS: usize = 16;

/// Converts a name for system calls.
pub(crate) fn c_name(name: &OsStr) -> Result<CString> {
    CString::new(name.as_encoded_bytes()).map_err(|_| Error::refused("a name with NUL"))
}

/// Name of a numbered item.
pub(crate) fn slot_name(slot: u64) -> CString {
    CString::new(slot.to_string()).expect("digits have no NUL")
}

/// Lists the names in a state directory.
pub(crate) fn names(dir: &Path) -> Result<Vec<OsString>> {
    let read = || {
        std::fs::read_dir(dir)?
            .map(|e| e.map(|e| e.file_name()))
            .collect::<io::Result<Vec<_>>>()
    };
    read().context("cannot list", dir)
}

pub(crate) fn open_dir(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).context("cannot open", path)
}

pub(crate) fn sync_dir(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|d| d.sync_all())
        .context("cannot sync", path)
}

/// Opens a state file and creates a missing one; never follows a link.
pub(crate) fn open_for_writing(
    dir: BorrowedFd<'_>,
    name: &CStr,
    flags: OFlags,
) -> io::Result<File> {
    let flags = flags | OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR)?.into())
}

/// Creates a directory that only this user can enter.
pub(crate) fn private_dir(path: &Path) -> Result<()> {
    private_dir_at(rustix::fs::CWD, path, path).map(drop)
}

/// Like [`private_dir`], below a directory handle; messages show `path`.
pub(crate) fn private_dir_at(dir: BorrowedFd<'_>, name: &Path, path: &Path) -> Result<OwnedFd> {
    match rustix::fs::mkdirat(dir, name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(e) => return Err(Error::io("cannot make", path, e)),
    }

    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let handle =
        rustix::fs::openat(dir, name, flags, Mode::empty()).context("cannot open", path)?;
    let io = |e: io::Error| Error::io("cannot look at", path, e);
    let stat = File::from(handle.try_clone().map_err(io)?)
        .metadata()
        .map_err(io)?;

    if stat.uid() != nix::unistd::geteuid().as_raw() {
        return Err(
            Error::refused(format!("{} belongs to user {}", path.display(), stat.uid()))
                .hint("run the daemon as that user, or remove the directory"),
        );
    }

    if stat.mode() & 0o7777 != 0o700 {
        rustix::fs::fchmod(&handle, Mode::RWXU).context("cannot set the mode of", path)?;
    }

    // Staged items would inherit these lists and carry them into the tree.
    for acl in [DEFAULT_ACL, ACL] {
        match rustix::fs::fremovexattr(&handle, acl) {
            Ok(()) | Err(Errno::NODATA | Errno::NOTSUP) => {}
            Err(e) => return Err(Error::io("cannot remove the ACL of", path, e)),
        }
    }

    if let Err(e) = ProjectFlags::unbind(handle.as_fd()) {
        tracing::debug!("{} gives its project: {e}", path.display());
    }

    Ok(handle)
}

/// Lists the names in a directory without `.` and `..`.
pub(crate) fn names_in(dir: BorrowedFd<'_>) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }

    Ok(names)
}

/// Path of `name` in the directory `dir`.
pub(crate) fn join(dir: Option<&TreePath>, name: &CStr) -> Result<TreePath> {
    let joined = match dir {
        Some(dir) => dir.join(name.to_bytes()),
        None => TreePath::new(name.to_bytes()),
    };
    joined.map_err(|e| Error::refused(e.to_string()).hint("shorten the path"))
}

/// Removes `name` with everything below.
pub(crate) fn remove(dir: BorrowedFd<'_>, name: &CStr, kind: FileType) -> io::Result<()> {
    if kind != FileType::Directory {
        return Ok(rustix::fs::unlinkat(dir, name, AtFlags::empty())?);
    }

    // The mode of a directory binds an ordinary user, even the owner.
    let handle = match open_dir_at(dir, name) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            loosen(dir, name)?;
            open_dir_at(dir, name)?
        }
        handle => handle?,
    };

    let mut trouble = None;
    for child in names_in(handle.as_fd())? {
        let gone = || {
            let kind = FileStat::at(handle.as_fd(), &child)?.file_type;
            match remove(handle.as_fd(), &child, kind) {
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                    loosen(dir, name)?;
                    remove(handle.as_fd(), &child, kind)
                }
                done => done,
            }
        };
        // One entry that cannot be removed does not stop the others.
        if let Err(e) = gone() {
            trouble.get_or_insert(e);
        }
    }

    match trouble {
        Some(e) => Err(e),
        None => Ok(rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)?),
    }
}

fn loosen(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    chmod(handle_of(dir, name)?.as_fd(), Permissions::from_bits(0o700))
}

/// Removes an item that was set aside.
pub(crate) fn discard(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    match FileStat::at(dir, name) {
        Ok(found) => remove(dir, name, found.file_type),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

pub(crate) fn stat(dir: BorrowedFd<'_>, name: &CString) -> io::Result<Option<FileStat>> {
    match FileStat::at(dir, name) {
        Ok(stat) => Ok(Some(stat)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Renames without ever replacing.
pub(crate) fn rename_new(
    from: BorrowedFd<'_>,
    old: &CString,
    to: BorrowedFd<'_>,
    new: &CString,
) -> io::Result<()> {
    match renameat_with(from, old, to, new, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS) if stat(to, new)?.is_none() => {
            Ok(renameat(from, old, to, new)?)
        }
        Err(Errno::INVAL | Errno::NOSYS) => Err(Errno::EXIST.into()),
        done => Ok(done?),
    }
}

pub(crate) fn is_empty(dir: BorrowedFd<'_>, name: &CString) -> io::Result<bool> {
    let handle = open_dir_at(dir, name)?;
    for entry in rustix::fs::Dir::read_from(&handle)? {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The `f_type` of overlayfs in statfs.
const OVERLAYFS: i64 = 0x794c_7630;

/// Returns whether the filesystem of a handle is an overlay.
pub(crate) fn is_overlay(handle: BorrowedFd<'_>) -> bool {
    rustix::fs::fstatfs(handle).is_ok_and(|fs| fs.f_type == OVERLAYFS)
}
