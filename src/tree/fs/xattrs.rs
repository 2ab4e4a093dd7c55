//! Extended attributes: well-known names, and a reader that sorts and caps the list.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{getxattr, lgetxattr, listxattr, llistxattr};
use rustix::io::Errno;

use crate::manifest::Xattr;
use crate::manifest::entry::MAX_XATTR_BYTES;

/// SELinux label, a property of the host.
pub(crate) const LABEL: &[u8] = b"security.selinux";

/// Longest list of names and longest value in Linux (XATTR_LIST_MAX, XATTR_SIZE_MAX), in bytes.
const XATTR_MAX: usize = 64 << 10;

/// Access list of a file or directory.
pub(crate) const ACL: &[u8] = b"system.posix_acl_access";

/// Access list that a directory gives to new entries.
pub(crate) const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";

/// Capabilities that an executable grants.
pub(crate) const CAPABILITY: &[u8] = b"security.capability";

/// Reads extended attributes into a reusable buffer.
#[derive(Debug)]
pub struct XattrReader {
    buffer: Vec<u8>,
    /// Whether the last list of names contained a label.
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
    /// Attributes of `name` in `dir` (of a symbolic link itself), sorted by name. Empty on a
    /// filesystem without attributes.
    pub fn at(&mut self, dir: BorrowedFd<'_>, name: &CStr) -> io::Result<Vec<Xattr>> {
        // Linux before 6.13 has no *at call for attributes: the name of the handle in /proc
        // replaces it.
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

    /// Attributes behind an `O_PATH` handle, sorted by name. Opens nothing, so a device is safe.
    pub fn through(&mut self, handle: BorrowedFd<'_>) -> io::Result<Vec<Xattr>> {
        // The link in /proc leads to the inode, even of a symbolic link.
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

    /// Attributes that a directory gives to new entries: its label and its default ACL.
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

    /// Label behind a handle; looked up only if the last list had one, or if `asked`.
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

    /// Returns whether the filesystem of a handle supports attributes.
    pub(crate) fn is_supported(&mut self, handle: BorrowedFd<'_>) -> io::Result<bool> {
        let path = format!("/proc/self/fd/{}", handle.as_raw_fd());
        match listxattr(&path, &mut self.buffer) {
            Err(Errno::NOTSUP) => Ok(false),
            found => Ok(found.map(|_| true)?),
        }
    }

    /// Attributes of an open file, sorted by name.
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

    /// Value of an attribute; `None` if it vanished since it was listed.
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

/// Returns whether a release carries the attribute. Security labels and overlay marks belong to the
/// host.
fn is_carried(name: &[u8]) -> bool {
    !name.is_empty() && name != LABEL && !name.starts_with(b"trusted.overlay.")
}

fn capped(xattrs: Vec<Xattr>) -> io::Result<Vec<Xattr>> {
    let bytes: usize = xattrs.iter().map(|x| x.name.len() + x.value.len()).sum();
    if bytes > MAX_XATTR_BYTES {
        let why = format!(
            "{bytes} bytes of extended attributes, a release carries at most {MAX_XATTR_BYTES} a \
             file"
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
            crate::skip::skipped(format!("no user xattrs here: {e}"));
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
