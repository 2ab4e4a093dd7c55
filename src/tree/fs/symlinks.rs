//! The way to a directory, component by component, through no symbolic link of an untrusted user.
//!
//! Each component is opened relative to the handle of its parent, and a link is checked and read by
//! the same handle: a checked component cannot be replaced before its use.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    CWD, FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat, openat2, readlinkat,
};
use rustix::io::Errno;

use crate::error::Error;
use crate::units::printable;

/// Largest number of links in a path, as in the kernel.
const MAX_PATH_SYMLINKS: usize = 40;

const HANDLE_FLAGS: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Owners whose symbolic links a path may follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkPolicy {
    /// Links of any owner.
    Any,
    /// Links of root and of the user with this id.
    Of(u32),
}

impl LinkPolicy {
    /// Links of root and of this process's user.
    pub fn own() -> Self {
        Self::Of(nix::unistd::geteuid().as_raw())
    }

    fn allow(self, uid: u32) -> bool {
        match self {
            Self::Any => true,
            Self::Of(own) => uid == 0 || uid == own,
        }
    }
}

/// A link that a path must not follow.
#[derive(Debug)]
struct Foreign {
    link: PathBuf,
    uid: u32,
}

impl std::error::Error for Foreign {}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "goes through the link {} of user {}",
            shown(&self.link),
            self.uid
        )
    }
}

/// Returns whether a path was refused for a link of another user.
pub(crate) fn is_foreign(e: &io::Error) -> bool {
    e.get_ref().is_some_and(|inner| inner.is::<Foreign>())
}

/// Error for a directory `path` that could not be opened; a foreign link makes it a refusal.
pub(crate) fn failed(action: &str, path: &Path, e: io::Error) -> Error {
    match e
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Foreign>())
    {
        Some(foreign) => Error::refused(format!("{} {foreign}", shown(path))),
        None => Error::io(action, path, e),
    }
}

/// Opens the directory at `path` as an `O_PATH` handle, relative to `start` if given.
pub(crate) fn open(
    start: Option<BorrowedFd<'_>>,
    path: &Path,
    links: LinkPolicy,
) -> io::Result<OwnedFd> {
    // Most paths contain no link at all: one call by the kernel finds out.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_SYMLINKS;

    match openat2(start.unwrap_or(CWD), path, flags, Mode::empty(), resolve) {
        Ok(handle) => Ok(handle),
        Err(_) => walk(start, path, links, false),
    }
}

/// Like [`open`], but creates missing directories, for this user only.
pub(crate) fn make(
    start: Option<BorrowedFd<'_>>,
    path: &Path,
    links: LinkPolicy,
) -> io::Result<OwnedFd> {
    walk(start, path, links, true)
}

fn walk(
    start: Option<BorrowedFd<'_>>,
    path: &Path,
    links: LinkPolicy,
    make: bool,
) -> io::Result<OwnedFd> {
    let start = start.unwrap_or(CWD);
    let mut here = Here {
        handle: openat(start, c".", HANDLE_FLAGS, Mode::empty())?,
        path: PathBuf::new(),
    };

    let mut left = parts(path);
    let mut followed = 0;
    while let Some(name) = left.pop_front() {
        if name == "/" {
            here = Here {
                handle: openat(CWD, c"/", HANDLE_FLAGS, Mode::empty())?,
                path: "/".into(),
            };
            continue;
        }
        let Some(link) = here.enter(&name, make)? else {
            continue;
        };

        let uid = fstat(&link)?.st_uid;
        if !links.allow(uid) {
            return Err(io::Error::other(Foreign {
                link: here.path.join(&name),
                uid,
            }));
        }
        followed += 1;
        if followed > MAX_PATH_SYMLINKS {
            return Err(Errno::LOOP.into());
        }
        let target = readlinkat(&link, c"", Vec::new())?;
        let mut next = parts(Path::new(&OsString::from_vec(target.into_bytes())));
        next.append(&mut left);
        left = next;
    }

    Ok(here.handle)
}

/// A directory on the way.
struct Here {
    handle: OwnedFd,
    /// Path for messages.
    path: PathBuf,
}

impl Here {
    /// Enters the directory `name`; for a symbolic link, stays and returns its handle.
    fn enter(&mut self, name: &OsStr, make: bool) -> io::Result<Option<OwnedFd>> {
        // An automounter mounts only a path that is opened as a directory.
        let mut opened = openat(
            &self.handle,
            name,
            HANDLE_FLAGS | OFlags::DIRECTORY,
            Mode::empty(),
        );

        if make && opened.as_ref().is_err_and(|e| *e == Errno::NOENT) {
            match mkdirat(&self.handle, name, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(e.into()),
            }
            opened = openat(
                &self.handle,
                name,
                HANDLE_FLAGS | OFlags::DIRECTORY,
                Mode::empty(),
            );
        }

        match opened {
            Ok(handle) => {
                self.handle = handle;
                match name == ".." {
                    true if self.path.pop() => {}
                    _ => self.path.push(name),
                }
                Ok(None)
            }
            Err(Errno::NOTDIR | Errno::LOOP) => {
                let link = openat(&self.handle, name, HANDLE_FLAGS, Mode::empty())?;
                match FileType::from_raw_mode(fstat(link.as_fd())?.st_mode) {
                    FileType::Symlink => Ok(Some(link)),
                    _ => Err(Errno::NOTDIR.into()),
                }
            }
            Err(e) => Err(e.into()),
        }
    }
}

/// Components of `path`; a component `/` starts at the root again.
fn parts(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter(|c| *c != Component::CurDir)
        .map(|c| c.as_os_str().to_os_string())
        .collect()
}

fn shown(path: &Path) -> String {
    printable(path.as_os_str().as_encoded_bytes())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{lchown, symlink};

    use super::*;
    use crate::tree::fs::root::FileId;

    const NOBODY: u32 = 65_534;

    fn id(handle: &OwnedFd) -> FileId {
        FileId::of(&fstat(handle).unwrap())
    }

    fn same(dir: &Path, path: &str, wanted: &str) {
        let found = open(None, &dir.join(path), LinkPolicy::own()).unwrap();
        assert_eq!(
            id(&found),
            id(&open(None, &dir.join(wanted), LinkPolicy::Any).unwrap()),
            "{path}"
        );
    }

    #[test]
    fn own_links_are_followed_as_the_kernel_follows_them() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("real/www/sub")).unwrap();
        std::fs::write(at("file"), "").unwrap();
        symlink("real/www", at("relative")).unwrap();
        symlink(at("relative"), at("absolute")).unwrap();
        symlink("absolute/sub/..", at("dots")).unwrap();

        symlink("round", at("round")).unwrap();
        for path in [
            "real/www",
            "relative",
            "absolute",
            "dots",
            "relative/sub/../../www",
            "real/./www/",
        ] {
            same(dir.path(), path, "real/www");
        }

        let fails = |path: &str| {
            open(None, &at(path), LinkPolicy::own())
                .map(drop)
                .unwrap_err()
                .raw_os_error()
        };

        assert_eq!(fails("round"), Some(Errno::LOOP.raw_os_error()));
        assert_eq!(fails("file"), Some(Errno::NOTDIR.raw_os_error()));
        assert_eq!(fails("real/none"), Some(Errno::NOENT.raw_os_error()));
    }

    #[test]
    fn links_of_others_are_refused_wherever_they_are() {
        if !nix::unistd::geteuid().is_root() {
            crate::skip::skipped("only root can give a link to another user");
            return;
        }

        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("real/www")).unwrap();
        symlink("real", at("theirs")).unwrap();
        symlink("theirs/www", at("ours")).unwrap();
        symlink(at("none"), at("real/dangling")).unwrap();
        lchown(at("theirs"), Some(NOBODY), None).unwrap();

        lchown(at("real/dangling"), Some(NOBODY), None).unwrap();
        for path in ["theirs", "theirs/www", "ours"] {
            let e = open(None, &at(path), LinkPolicy::own())
                .map(drop)
                .unwrap_err();
            let said = failed("cannot open", &at(path), e).to_string();
            let wanted = format!(
                "{} goes through the link {} of user {NOBODY}",
                at(path).display(),
                at("theirs").display()
            );
            assert!(said.contains(&wanted), "{said}");
            assert!(
                open(None, &at(path), LinkPolicy::Of(NOBODY)).is_ok()
                    && open(None, &at(path), LinkPolicy::Any).is_ok()
            );
        }

        assert!(make(None, &at("real/dangling/state"), LinkPolicy::own()).is_err());
        assert!(!at("none").exists());
    }

    #[test]
    fn missing_directories_are_made_for_this_user_only() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let start = open(None, dir.path(), LinkPolicy::own()).unwrap();
        make(Some(start.as_fd()), Path::new("a/b"), LinkPolicy::own()).unwrap();
        make(Some(start.as_fd()), Path::new("a/b"), LinkPolicy::own()).unwrap();
        let mode = std::fs::metadata(dir.path().join("a/b"))
            .unwrap()
            .permissions()
            .mode();

        assert_eq!(mode & 0o7777, 0o700);
    }
}
