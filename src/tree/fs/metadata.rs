//! Metadata of one path: read and set through a handle that was opened once.
//!
//! Order matters: the owner first (a change clears set-user-id), attributes next (they need a
//! writable file), then the mode, the mtime last.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use minicbor::{Decode, Encode};
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags,
};
use rustix::io::Errno;

use super::handover::{is_foreign, is_grant};
use super::stat::FileStat;
use super::xattrs::{ACL, DEFAULT_ACL, LABEL, XattrReader};
use crate::diff::{Change, Plan, TopChange};
use crate::manifest::{EntryKind, Mode, Mtime, Xattr};
use crate::units::printable;

/// Metadata to set; `None` leaves a value alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct Metadata {
    /// Permission bits.
    #[n(0)]
    pub mode: Option<Mode>,
    /// Numeric user id.
    #[n(1)]
    pub uid: Option<u32>,
    /// Numeric group id.
    #[n(2)]
    pub gid: Option<u32>,
    /// Modification time.
    #[n(3)]
    pub mtime: Option<Mtime>,
    /// All extended attributes, sorted by name.
    #[n(4)]
    pub xattrs: Option<Vec<Xattr>>,
    /// Security label; no release governs labels.
    #[n(5)]
    #[cbor(with = "minicbor::bytes")]
    pub label: Option<Vec<u8>>,
}

impl Metadata {
    /// Metadata that `change` sets on its path.
    pub fn wanted(change: &Change, plan: &Plan) -> Self {
        let Some(entry) = change.want.as_ref().map(|w| &w.entry) else {
            return Self::default();
        };

        let is_link = matches!(entry.kind, EntryKind::Symlink(_));
        Self {
            mode: (!is_link).then_some(entry.mode),
            uid: change.owner.uid,
            gid: change.owner.gid,
            mtime: plan.sets_mtime.then_some(entry.mtime),
            xattrs: plan.sets_xattrs.then(|| entry.xattrs.clone()),
            label: None,
        }
    }

    /// Metadata that the release sets on the tree's root directory.
    pub fn of_top(top: &TopChange, plan: &Plan) -> Self {
        Self {
            mode: Some(top.want.mode),
            uid: top.owner.uid,
            gid: top.owner.gid,
            mtime: plan.sets_mtime.then_some(top.want.mtime),
            xattrs: plan.sets_xattrs.then(|| top.want.xattrs.clone()),
            label: None,
        }
    }

    /// Present metadata of `name` in `dir`; attributes on request only.
    pub fn present(dir: BorrowedFd<'_>, name: &CStr, with_xattrs: bool) -> io::Result<Self> {
        Self::of(handle_of(dir, name)?, with_xattrs)
    }

    /// Present metadata behind `handle`; attributes on request only.
    pub fn of(handle: impl AsFd, with_xattrs: bool) -> io::Result<Self> {
        let handle = handle.as_fd();
        let stat = FileStat::of(handle)?;
        let is_link = stat.file_type == FileType::Symlink;
        let mut reader = with_xattrs.then(XattrReader::default);
        let xattrs = reader
            .as_mut()
            .map(|reader| reader.through(handle))
            .transpose()?;

        let label = reader
            .map(|mut reader| reader.label(handle, false))
            .transpose()?
            .flatten();

        Ok(Self {
            mode: (!is_link).then_some(stat.mode),
            uid: Some(stat.uid),
            gid: Some(stat.gid),
            mtime: Some(stat.mtime),
            xattrs,
            label: label.map(|label| label.value),
        })
    }

    /// Returns whether the owner of this inode granted rights that end when the inode passes to
    /// `uid`.
    pub(crate) fn is_foreign_to(&self, uid: Option<u32>) -> bool {
        self.uid.is_some_and(|now| is_foreign(now, uid))
    }

    /// Returns the metadata as handed to the user `uid`: without rights that another user granted.
    pub(crate) fn handed_to(mut self, uid: Option<u32>) -> Self {
        if self.is_foreign_to(uid) {
            self.label = None;
            self.xattrs
                .iter_mut()
                .for_each(|all| all.retain(|xattr| !is_grant(&xattr.name)));
        }
        self
    }

    /// Sets all metadata of `handle` (`O_PATH` suffices); leaves correct values alone.
    pub fn set(&self, handle: impl AsFd) -> io::Result<()> {
        let handle = handle.as_fd();
        self.set_over(handle, &FileStat::of(handle)?)
    }

    /// Like [`Metadata::set`], with the present status `now`.
    pub(crate) fn set_over(&self, handle: BorrowedFd<'_>, now: &FileStat) -> io::Result<()> {
        let uid = self.uid.filter(|&uid| uid != now.uid);
        let gid = self.gid.filter(|&gid| gid != now.gid);
        let mut mode_now = Some(now.mode);
        if uid.is_some() || gid.is_some() {
            // A change of owner clears set-user-id and set-group-id, and an owner may have changed
            // the mode until now.
            let is_known = !is_foreign(now.uid, uid);
            mode_now = mode_now.filter(|mode| is_known && mode.bits() & 0o6000 == 0);
            rustix::fs::chownat(
                handle,
                c"",
                uid.map(Uid::from_raw),
                gid.map(Gid::from_raw),
                AtFlags::EMPTY_PATH,
            )?;
        }

        if self.xattrs.is_none() && is_foreign(now.uid, uid) && now.file_type != FileType::Symlink {
            // Another user created these lists.
            [ACL, DEFAULT_ACL]
                .iter()
                .try_for_each(|acl| remove_acl(handle, acl))?;
        }

        if let Some(xattrs) = &self.xattrs {
            // An ACL changes the mode, and so may a new attribute.
            mode_now = None;
            set_xattrs(handle, now.mode, xattrs)?;
        }

        if let Some(label) = &self.label {
            let label = Xattr {
                name: LABEL.to_vec(),
                value: label.clone(),
            };
            add_attribute(&in_proc(handle), &label)?;
        }

        if let Some(mode) = self.mode.filter(|_| now.file_type != FileType::Symlink)
            && mode_now != Some(mode)
        {
            chmod(handle, mode)?;
        }

        // Only the owner may set a time, even to its present value.
        if let Some(mtime) = self.mtime.filter(|&mtime| mtime != now.mtime) {
            set_mtime(handle, mtime)?;
        }

        Ok(())
    }
}

/// Opens a metadata-only handle of `name` in `dir`; of a symbolic link, the link itself.
pub fn handle_of(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(
        dir,
        name,
        flags,
        rustix::fs::Mode::empty(),
    )?)
}

/// Sets permission bits through any handle.
pub fn chmod(handle: BorrowedFd<'_>, mode: Mode) -> io::Result<()> {
    let mode = rustix::fs::Mode::from_raw_mode(mode.bits());
    match rustix::fs::fchmod(handle, mode) {
        // fchmod refuses an O_PATH handle, but accepts its name in /proc.
        Err(Errno::BADF) => Ok(rustix::fs::chmodat(
            CWD,
            in_proc(handle),
            mode,
            AtFlags::empty(),
        )?),
        done => Ok(done?),
    }
}

fn set_mtime(handle: BorrowedFd<'_>, mtime: Mtime) -> io::Result<()> {
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: mtime.secs,
            tv_nsec: i64::from(mtime.nanos),
        },
    };

    Ok(rustix::fs::utimensat(
        handle,
        c"",
        &times,
        AtFlags::EMPTY_PATH,
    )?)
}

/// Makes the attributes exactly `wanted`.
///
/// Opens nothing: a device may lack a driver, and opening a pipe would release its writer. The name
/// of the handle in `/proc` leads to the same inode.
fn set_xattrs(handle: BorrowedFd<'_>, mode: Mode, wanted: &[Xattr]) -> io::Result<()> {
    let mut reader = XattrReader::default();
    let mut meanwhile = mode;
    let present = match reader.through(handle) {
        // The file's own mode keeps an ordinary owner from reading the values.
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            meanwhile = Mode::from_bits(mode.bits() & 0o777 | 0o600);
            chmod(handle, meanwhile)?;
            reader.through(handle)?
        }
        present => present?,
    };

    if present == wanted {
        return Ok(());
    }

    // Writable in the meantime. A set-user-id bit that the new owner cleared returns with the final
    // mode only.
    let writable = Mode::from_bits(meanwhile.bits() & 0o777 | 0o200);

    if writable != meanwhile && FileStat::of(handle)?.file_type != FileType::Symlink {
        chmod(handle, writable)?;
    }

    let path = in_proc(handle);

    for extra in present
        .iter()
        .filter(|x| !wanted.iter().any(|w| w.name == x.name))
    {
        rustix::fs::removexattr(&path, extra.name.as_slice())
            .map_err(|e| of_attribute(extra, e))?;
    }

    for x in wanted.iter().filter(|w| !present.contains(w)) {
        rustix::fs::setxattr(&path, x.name.as_slice(), &x.value, XattrFlags::empty())
            .map_err(|e| of_attribute(x, e))?;
    }

    Ok(())
}

/// Removes the access list `acl` if present.
pub(crate) fn remove_acl(handle: BorrowedFd<'_>, acl: &[u8]) -> io::Result<()> {
    match rustix::fs::removexattr(in_proc(handle), acl) {
        // Only a directory has a default list.
        Ok(()) | Err(Errno::NODATA | Errno::NOTSUP | Errno::ACCESS) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Adds attributes outside of the release and sets the final mode, which an ACL changes in part.
pub(crate) fn add_xattrs(handle: BorrowedFd<'_>, mode: Mode, xattrs: &[Xattr]) -> io::Result<()> {
    let is_link = FileStat::of(handle)?.file_type == FileType::Symlink;
    if !is_link && mode.bits() & 0o200 == 0 {
        chmod(handle, Mode::from_bits(mode.bits() & 0o777 | 0o200))?;
    }

    let path = in_proc(handle);
    for xattr in xattrs {
        add_attribute(&path, xattr)?;
    }

    if is_link { Ok(()) } else { chmod(handle, mode) }
}

/// Sets one attribute outside of the release. A failure to set an attribute is only logged, except
/// for an ACL: without one, others could read the file.
fn add_attribute(path: &str, xattr: &Xattr) -> io::Result<()> {
    let is_acl = xattr.name.starts_with(b"system.posix_acl_");

    match rustix::fs::setxattr(
        path,
        xattr.name.as_slice(),
        &xattr.value,
        XattrFlags::empty(),
    ) {
        Err(e @ (Errno::PERM | Errno::ACCESS | Errno::NOTSUP)) if !is_acl => {
            // A label that cannot be set is the same for every file of a host.
            match xattr.name == LABEL {
                true => tracing::debug!("a label is not kept: {e}"),
                false => tracing::warn!("attribute {} is not kept: {e}", printable(&xattr.name)),
            }
            Ok(())
        }
        done => done.map_err(|e| of_attribute(xattr, e)),
    }
}

/// Error of one attribute, with its name.
fn of_attribute(xattr: &Xattr, e: Errno) -> io::Error {
    let e = io::Error::from(e);
    io::Error::new(
        e.kind(),
        format!("attribute {}: {e}", printable(&xattr.name)),
    )
}

fn in_proc(handle: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", handle.as_raw_fd())
}

#[cfg(test)]
mod tests;
