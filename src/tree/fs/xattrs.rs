//! Extended attributes: the names that matter here, and a reader that sorts and caps them.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{getxattr, lgetxattr, listxattr, llistxattr};
use rustix::io::Errno;

use crate::manifest::Xattr;
use crate::manifest::entry::MAX_XATTR_BYTES;

/// The security label of SELinux, which is the host's own.
pub(crate) const LABEL: &[u8] = b"security.selinux";

/// The longest list of names and the longest value that Linux has (XATTR_LIST_MAX, XATTR_SIZE_MAX), in bytes.
const XATTR_MAX: usize = 64 << 10;

/// The access list of a file or directory.
pub(crate) const ACL: &[u8] = b"system.posix_acl_access";

/// The access list that a directory gives to what is made in it.
pub(crate) const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";

/// The capabilities that running a file gives.
pub(crate) const CAPABILITY: &[u8] = b"security.capability";

/// Reads extended attributes; keeps the buffer that the kernel writes them to.
#[derive(Debug)]
pub struct XattrReader {
    buffer: Vec<u8>,
    /// Whether the last list of names had a label in it.
    labelled: bool,
}

impl Default for XattrReader {
    fn default() -> Self {
        Self {
            buffer: vec![0; XATTR_MAX],
            labelled: false,
        }
    }
}

impl XattrReader {
    /// The attributes of `name` in `dir` (a symbolic link's own), sorted by name. A file system without any has none.
    pub fn at(&mut self, dir: BorrowedFd<'_>, name: &CStr) -> io::Result<Vec<Xattr>> {
        // There is no *at call for attributes before Linux 6.13: the handle's own name in /proc stands in for it.
        let mut path = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
        path.push(std::ffi::OsStr::from_bytes(name.to_bytes()));
        self.names(|buffer| llistxattr(&path, buffer))?
            .into_iter()
            .filter_map(|name| {
                self.value(name, |name, buffer| lgetxattr(&path, name, buffer))
                    .transpose()
            })
            .collect::<io::Result<Vec<_>>>()
            .and_then(capped)
    }

    /// The attributes of what an `O_PATH` handle is, sorted by name; nothing is opened, so that it may be a device.
    pub fn through(&mut self, handle: BorrowedFd<'_>) -> io::Result<Vec<Xattr>> {
        // The link in /proc has attributes of its own, and leads to the inode: a symbolic link, where that is it.
        let path = format!("/proc/self/fd/{}", handle.as_raw_fd());
        self.names(|buffer| listxattr(&path, buffer))?
            .into_iter()
            .filter_map(|name| {
                self.value(name, |name, buffer| getxattr(&path, name, buffer))
                    .transpose()
            })
            .collect::<io::Result<Vec<_>>>()
            .and_then(capped)
    }

    /// What a directory gives to what is made in it: its label and its default ACL.
    pub(crate) fn given(&mut self, dir: BorrowedFd<'_>) -> io::Result<Vec<Xattr>> {
        let path = format!("/proc/self/fd/{}", dir.as_raw_fd());
        let names = self.names(|buffer| listxattr(&path, buffer))?;
        let label = self.labelled.then(|| LABEL.to_vec());
        let default = names.into_iter().find(|name| name == DEFAULT_ACL);

        label
            .into_iter()
            .chain(default)
            .filter_map(|name| {
                self.value(name, |name, buffer| getxattr(&path, name, buffer))
                    .transpose()
            })
            .collect()
    }

    /// The label of what a handle is, which is looked for only where the last list had one, or where `asked`.
    pub(crate) fn label(
        &mut self,
        handle: BorrowedFd<'_>,
        asked: bool,
    ) -> io::Result<Option<Xattr>> {
        if !self.labelled && !asked {
            return Ok(None);
        }

        let path = format!("/proc/self/fd/{}", handle.as_raw_fd());
        match self.value(LABEL.to_vec(), |name, buffer| getxattr(&path, name, buffer)) {
            Err(e) if e.kind() == io::ErrorKind::Unsupported => Ok(None),
            found => found,
        }
    }

    /// Whether the filesystem of a handle has attributes.
    pub(crate) fn is_supported(&mut self, handle: BorrowedFd<'_>) -> io::Result<bool> {
        let path = format!("/proc/self/fd/{}", handle.as_raw_fd());
        match listxattr(&path, &mut self.buffer) {
            Err(Errno::NOTSUP) => Ok(false),
            found => Ok(found.map(|_| true)?),
        }
    }

    /// The attributes of an open file, sorted by name.
    pub fn of(&mut self, file: impl AsFd) -> io::Result<Vec<Xattr>> {
        self.names(|buffer| rustix::fs::flistxattr(&file, buffer))?
            .into_iter()
            .filter_map(|name| {
                self.value(name, |name, buffer| {
                    rustix::fs::fgetxattr(&file, name, buffer)
                })
                .transpose()
            })
            .collect::<io::Result<Vec<_>>>()
            .and_then(capped)
    }

    fn names(
        &mut self,
        list: impl FnOnce(&mut [u8]) -> Result<usize, Errno>,
    ) -> io::Result<Vec<Vec<u8>>> {
        let length = match list(&mut self.buffer) {
            Ok(length) => length,
            Err(Errno::NOTSUP) => 0,
            Err(e) => return Err(e.into()),
        };

        let names = self.buffer[..length].split(|&b| b == 0);
        self.labelled = names.clone().any(|name| name == LABEL);
        let mut names: Vec<Vec<u8>> = names
            .filter(|n| is_carried(n))
            .map(<[u8]>::to_vec)
            .collect();
        names.sort();

        Ok(names)
    }

    /// `None` when the attribute went away since it was listed.
    fn value(
        &mut self,
        name: Vec<u8>,
        get: impl FnOnce(&[u8], &mut [u8]) -> Result<usize, Errno>,
    ) -> io::Result<Option<Xattr>> {
        match get(&name, &mut self.buffer) {
            Ok(length) => Ok(Some(Xattr {
                name,
                value: self.buffer[..length].to_vec(),
            })),
            Err(Errno::NODATA) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }
}

/// Not what belongs to the host rather than to the file: its security labels, the marks of its overlay mounts.
fn is_carried(name: &[u8]) -> bool {
    !name.is_empty() && name != LABEL && !name.starts_with(b"trusted.overlay.")
}

fn capped(xattrs: Vec<Xattr>) -> io::Result<Vec<Xattr>> {
    let bytes: usize = xattrs.iter().map(|x| x.name.len() + x.value.len()).sum();
    if bytes > MAX_XATTR_BYTES {
        let why = format!(
            "{bytes} bytes of extended attributes, a release carries at most {MAX_XATTR_BYTES} a file"
        );
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }

    Ok(xattrs)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use rustix::fs::{XattrFlags, fsetxattr};

    use super::*;

    #[test]
    fn xattrs_are_sorted_and_capped() {
        let dir = tempfile::tempdir().unwrap();
        let file = File::create(dir.path().join("file")).unwrap();
        if let Err(e) = fsetxattr(&file, "user.b", b"2", XattrFlags::empty()) {
            println!("skipped: no user xattrs here: {e}");
            return;
        }

        fsetxattr(&file, "user.a", b"\0\xff", XattrFlags::empty()).unwrap();
        let handle = File::open(dir.path()).unwrap();
        let mut reader = XattrReader::default();
        let read = reader.at(handle.as_fd(), c"file").unwrap();
        let expected = [(&b"user.a"[..], &b"\0\xff"[..]), (b"user.b", b"2")].map(|(n, v)| Xattr {
            name: n.into(),
            value: v.into(),
        });

        assert_eq!(read, expected);
        assert_eq!(reader.of(&file).unwrap(), expected);
    }

    #[test]
    fn what_belongs_to_the_host_is_not_carried() {
        for (name, carried) in [
            (&b"user.x"[..], true),
            (b"system.posix_acl_access", true),
            (b"security.capability", true),
            (b"security.selinux", false),
            (b"trusted.overlay.opaque", false),
        ] {
            assert_eq!(is_carried(name), carried);
        }

        let big = vec![Xattr {
            name: b"user.x".to_vec(),
            value: vec![0; MAX_XATTR_BYTES],
        }];
        assert!(capped(big).is_err_and(|e| e.to_string().contains("extended attributes")));
    }
}
