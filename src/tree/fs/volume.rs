//! The filesystem of a directory: its kind, and its room.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{StatVfsMountFlags, fstatfs, fstatvfs};

/// Kinds of filesystems by their numbers in statfs(2).
const KINDS: [(u64, &str); 14] = [
    (0xef53, "ext4"),
    (0x5846_5342, "xfs"),
    (0x9123_683e, "btrfs"),
    (0xca45_1a4e, "bcachefs"),
    (0x2fc1_2fc1, "zfs"),
    (0xf2f5_2010, "f2fs"),
    (0x0102_1994, "tmpfs"),
    (0x794c_7630, "overlay"),
    (0x6969, "nfs"),
    (0xff53_4d42, "cifs"),
    (0x6573_5546, "fuse"),
    (0x00c3_6400, "ceph"),
    (0x0102_1997, "9p"),
    (0x4d44, "vfat"),
];

/// A mounted filesystem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Kind: its usual name, or its number.
    pub kind: String,
    /// Bytes free for a user without privileges.
    pub free: u64,
    /// Bytes in all.
    pub size: u64,
    /// Free inodes; `None` for a filesystem without a limit.
    pub free_inodes: Option<u64>,
    /// Whether nothing can be written.
    pub read_only: bool,
}

impl Volume {
    /// The filesystem of an open directory.
    pub fn of(dir: impl AsFd) -> io::Result<Self> {
        let room = fstatvfs(&dir)?;
        let magic = fstatfs(&dir)?.f_type as u64 & 0xffff_ffff;
        let known = KINDS.iter().find(|(number, _)| *number == magic);

        Ok(Self {
            kind: known.map_or_else(|| format!("{magic:#x}"), |(_, name)| name.to_string()),
            free: room.f_bavail.saturating_mul(room.f_frsize),
            size: room.f_blocks.saturating_mul(room.f_frsize),
            free_inodes: (room.f_files > 0).then_some(room.f_favail),
            read_only: room.f_flag.contains(StatVfsMountFlags::RDONLY),
        })
    }

    /// The filesystem at a path.
    pub fn at(path: &Path) -> io::Result<Self> {
        Self::of(std::fs::File::open(path)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_has_a_kind_and_room() {
        let volume = Volume::at(Path::new("/proc/self")).expect("there");
        assert_eq!(volume.kind, "0x9fa0");
        let dir = tempfile::tempdir().expect("a directory");
        let volume = Volume::at(dir.path()).expect("there");
        assert!(
            volume.free <= volume.size && !volume.read_only,
            "{volume:?}"
        );
        assert!(Volume::at(&dir.path().join("none")).is_err());
    }
}
