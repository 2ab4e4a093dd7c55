//! Status of one path in the manifest's terms: times, owners, link targets. Reads only.

use std::collections::HashMap;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex};

use minicbor::{Decode, Encode};
use nix::errno::Errno as NixErrno;
use rustix::fs::{
    AtFlags, FileType, Statx, StatxAttributes, StatxFlags, StatxTimestamp, makedev, statx,
};
use rustix::io::Errno;

use super::root::{FileId, NOFOLLOW};
use super::user_lookup;
use crate::manifest::entry::MAX_OWNER_NAME;
use crate::manifest::{Mode, Mtime, Owner};
use crate::sync::locked;

/// Result of one statx call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileStat {
    /// Device and inode.
    pub id: FileId,
    /// Number of links.
    pub nlink: u32,
    /// File type.
    pub file_type: FileType,
    /// Permission bits.
    pub mode: Mode,
    /// Numeric user id.
    pub uid: u32,
    /// Numeric group id.
    pub gid: u32,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Size in bytes.
    pub size: u64,
    /// Space on the disk, in units of 512 bytes.
    pub blocks: u64,
    /// Last modification of the content.
    pub mtime: Mtime,
    /// Last change of content or metadata; only the kernel sets it.
    pub ctime: Mtime,
    /// Creation time, if the filesystem reports one.
    pub born: Option<Mtime>,
    /// Inode flags, as far as the filesystem reports them.
    pub attributes: StatxAttributes,
}

/// Fields of statx that a [`FileStat`] needs.
const WANTED: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

/// Values that must all be equal for a file to count as unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Version {
    /// The device.
    #[n(0)]
    pub dev: u64,
    /// The inode.
    #[n(1)]
    pub ino: u64,
    /// The size in bytes.
    #[n(2)]
    pub size: u64,
    /// Last modification of the content.
    #[n(3)]
    pub mtime: Mtime,
    /// Last change of content or metadata.
    #[n(4)]
    pub ctime: Mtime,
}

impl Version {
    /// Version of no file; every scan looks at a path with this version.
    pub const NONE: Self = Self {
        dev: 0,
        ino: 0,
        size: 0,
        mtime: Mtime { secs: 0, nanos: 0 },
        ctime: Mtime { secs: 0, nanos: 0 },
    };

    /// Device and inode.
    pub fn id(&self) -> FileId {
        FileId {
            dev: self.dev,
            ino: self.ino,
        }
    }
}

impl FileStat {
    /// Status of `name`, one component, in the directory `dir`; of a symbolic link, the link
    /// itself.
    pub fn at(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<Self> {
        Ok(Self::from_statx(&statx(dir, name, NOFOLLOW, WANTED)?))
    }

    /// Status behind a handle.
    pub fn of(handle: impl AsFd) -> io::Result<Self> {
        Ok(Self::from_statx(&statx(
            handle,
            c"",
            AtFlags::EMPTY_PATH,
            WANTED,
        )?))
    }

    /// Keeps the recorded version of a directory from ever matching, so every later scan lists the
    /// directory again. Device and inode stay.
    pub(crate) fn forget_change(&mut self) {
        self.ctime = Mtime {
            secs: i64::MIN,
            nanos: 0,
        };
    }

    /// Returns whether a file may have holes: it takes less space than its size.
    pub fn has_holes(&self) -> bool {
        self.blocks.saturating_mul(512) < self.size
    }

    /// Version that must stay the same while a file is read; an index compares it later.
    pub fn version(&self) -> Version {
        Version {
            dev: self.id.dev,
            ino: self.id.ino,
            size: self.size,
            mtime: self.mtime,
            ctime: self.ctime,
        }
    }

    fn from_statx(s: &Statx) -> Self {
        let has_birth_time = s.stx_mask & StatxFlags::BTIME.bits() != 0;

        Self {
            id: FileId {
                dev: makedev(s.stx_dev_major, s.stx_dev_minor),
                ino: s.stx_ino,
            },
            nlink: s.stx_nlink,
            file_type: FileType::from_raw_mode(u32::from(s.stx_mode)),
            mode: Mode::from_bits(u32::from(s.stx_mode)),
            uid: s.stx_uid,
            gid: s.stx_gid,
            device: (s.stx_rdev_major, s.stx_rdev_minor),
            size: s.stx_size,
            blocks: s.stx_blocks,
            mtime: time(s.stx_mtime),
            ctime: time(s.stx_ctime),
            born: has_birth_time.then(|| time(s.stx_btime)),
            attributes: s.stx_attributes,
        }
    }

    /// Flag that keeps even root from renaming, linking or removing the inode.
    pub(crate) fn fixed(&self) -> Option<&'static str> {
        if self.attributes.contains(StatxAttributes::IMMUTABLE) {
            return Some("immutable");
        }
        self.attributes
            .contains(StatxAttributes::APPEND)
            .then_some("append-only")
    }

    /// Returns whether a filesystem is mounted here; false if the kernel cannot tell (before Linux
    /// 5.8).
    pub(crate) fn is_mount_root(&self) -> bool {
        self.attributes.contains(StatxAttributes::MOUNT_ROOT)
    }
}

/// Returns whether a filesystem is mounted on `name` in `dir`; false if the kernel cannot tell
/// (before Linux 5.8).
pub(crate) fn is_mount_root(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<bool> {
    match statx(dir, name, NOFOLLOW, StatxFlags::empty()) {
        Ok(found) => Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)),
        Err(Errno::NOENT) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Device and mount of a handle; the mount is `None` before Linux 5.8.
pub(crate) fn mount_of(handle: BorrowedFd<'_>) -> io::Result<(u64, Option<u64>)> {
    let found = statx(
        handle,
        c"",
        AtFlags::EMPTY_PATH,
        StatxFlags::BASIC_STATS | StatxFlags::MNT_ID,
    )?;
    let known = found.stx_mask & StatxFlags::MNT_ID.bits() != 0;
    Ok((
        makedev(found.stx_dev_major, found.stx_dev_minor),
        known.then_some(found.stx_mnt_id),
    ))
}

fn time(t: StatxTimestamp) -> Mtime {
    // A broken filesystem could report more, and every host would refuse a manifest with such a
    // value.
    Mtime {
        secs: t.tv_sec,
        nanos: t.tv_nsec.min(999_999_999),
    }
}

/// Names of users and groups, each looked up once; shared by the threads of a scan.
#[derive(Debug, Default)]
pub struct OwnerNames {
    users: Mutex<HashMap<u32, Option<Box<str>>>>,
    groups: Mutex<HashMap<u32, Option<Box<str>>>>,
    pairs: Mutex<HashMap<(u32, u32), Arc<Owner>>>,
}

impl OwnerNames {
    /// Owner with these ids. An id without a name gets none; a failed lookup is an error.
    pub fn of(&self, uid: u32, gid: u32) -> io::Result<Arc<Owner>> {
        if let Some(known) = locked(&self.pairs).get(&(uid, gid)) {
            return Ok(Arc::clone(known));
        }

        let user = cached(&self.users, uid, |id| named(user_lookup::user_name(id)))?;
        let group = cached(&self.groups, gid, |id| named(user_lookup::group_name(id)))?;
        let owner = Arc::new(Owner {
            uid,
            gid,
            user,
            group,
        });

        Ok(Arc::clone(
            locked(&self.pairs).entry((uid, gid)).or_insert(owner),
        ))
    }
}

fn cached(
    map: &Mutex<HashMap<u32, Option<Box<str>>>>,
    id: u32,
    look_up: impl FnOnce(u32) -> io::Result<Option<Box<str>>>,
) -> io::Result<Option<Box<str>>> {
    let mut map = locked(map);
    if let Some(known) = map.get(&id) {
        return Ok(known.clone());
    }
    let name = look_up(id)?;
    map.insert(id, name.clone());
    Ok(name)
}

fn named(found: nix::Result<Option<String>>) -> io::Result<Option<Box<str>>> {
    match found {
        // getpwuid(3) lists these for "no such user".
        Ok(None) | Err(NixErrno::ENOENT | NixErrno::ESRCH | NixErrno::EBADF | NixErrno::EPERM) => {
            Ok(None)
        }
        Ok(Some(name)) => Ok(Some(name)
            .filter(|n| !n.is_empty() && n.len() <= MAX_OWNER_NAME)
            .map(String::into_boxed_str)),
        Err(e) => Err(e.into()),
    }
}

/// Target of the symbolic link `name` in `dir`.
pub fn link_target(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<Vec<u8>> {
    Ok(rustix::fs::readlinkat(dir, name, Vec::new())?.into_bytes())
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn a_stat_speaks_of_the_name_itself() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "12345").unwrap();
        std::os::unix::fs::symlink("no/where", dir.path().join("link")).unwrap();
        let handle = File::open(dir.path()).unwrap();
        let file = FileStat::at(handle.as_fd(), c"file").unwrap();
        assert_eq!(
            (file.size, file.nlink, file.file_type),
            (5, 1, FileType::RegularFile)
        );

        assert_eq!(
            file,
            FileStat::of(File::open(dir.path().join("file")).unwrap()).unwrap()
        );
        assert_eq!(
            FileStat::at(handle.as_fd(), c"link").unwrap().file_type,
            FileType::Symlink
        );

        assert_eq!(link_target(handle.as_fd(), c"link").unwrap(), b"no/where");
        let plain = rustix::fs::fstat(&handle).unwrap();
        assert_eq!(FileStat::of(&handle).unwrap().id, FileId::of(&plain));
    }

    #[test]
    fn owners_are_looked_up_once_and_shared() {
        let owners = OwnerNames::default();
        let root = owners.of(0, 0).unwrap();
        assert_eq!(root.user.as_deref(), Some("root"));
        assert!(Arc::ptr_eq(&root, &owners.of(0, 0).unwrap()));
        let nobody = owners.of(3_999_999_999, 3_999_999_999).unwrap();

        assert_eq!(
            (nobody.user.as_deref(), nobody.group.as_deref()),
            (None, None)
        );
    }
}
