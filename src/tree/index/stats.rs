//! The stat records of a page: names and versions in page order.
//!
//! The records need no decoding, so a comparison with the tree runs as fast as the kernel returns
//! stats.
//!
//! A record is flags, depth (components above the name), length of the name, the name with a NUL,
//! inode, size and both times. The device follows only if different from the root's. Numbers are
//! little-endian.

use std::ffi::CStr;
use std::io;

use super::format::{damaged, is_unread};
use crate::manifest::node::MAX_PAGE_ENTRIES;
use crate::manifest::{Entry, EntryKind, Mtime};
use crate::tree::fs::stat::Version;

/// The device differs from the root's and follows.
const FLAG_OTHER_DEVICE: u8 = 1;
/// The entry is a directory.
const FLAG_DIRECTORY: u8 = 2;
/// The entry is a file that was listed but not read.
const FLAG_UNREAD: u8 = 4;
/// Inode, size, and two times of seconds and nanoseconds.
const NUMBER_BYTES: usize = 8 + 8 + 2 * (8 + 4);
/// Largest size of one record in bytes.
const MAX_STAT_RECORD: usize = 1 + 2 + 1 + 256 + NUMBER_BYTES + 8;
/// Largest size of the stat records of one page in bytes.
pub(super) const MAX_STATS_BYTES: usize = MAX_PAGE_ENTRIES * MAX_STAT_RECORD;

/// The stat of one entry.
#[derive(Debug, Clone, Copy)]
pub(in crate::tree) struct StatRecord<'a> {
    /// Number of path components above the name.
    pub(in crate::tree) depth: usize,
    /// Last component of the path.
    pub(in crate::tree) name: &'a CStr,
    /// Whether the entry is a directory.
    pub(in crate::tree) is_dir: bool,
    /// Whether the entry is a file that was listed but not read.
    pub(in crate::tree) unread: bool,
    /// Version of the file.
    pub(in crate::tree) version: Version,
}

/// Appends the record of `entry`.
pub(super) fn push(out: &mut Vec<u8>, entry: &Entry, version: &Version, root_dev: u64) {
    let path = &entry.path;
    let other = version.dev != root_dev;
    let name = path.name();
    let depth = path.components().count() - 1;
    let flag = |on: bool, flag: u8| if on { flag } else { 0 };
    let is_dir = matches!(entry.kind, EntryKind::Directory);
    out.push(
        flag(other, FLAG_OTHER_DEVICE)
            | flag(is_dir, FLAG_DIRECTORY)
            | flag(is_unread(&entry.kind), FLAG_UNREAD),
    );

    // A path has at most 4,095 bytes, a component at most 255.
    out.extend_from_slice(&(depth as u16).to_le_bytes());
    out.push(name.len() as u8);
    out.extend_from_slice(name);
    out.push(0);
    out.extend_from_slice(&version.ino.to_le_bytes());
    out.extend_from_slice(&version.size.to_le_bytes());

    for time in [version.mtime, version.ctime] {
        out.extend_from_slice(&time.secs.to_le_bytes());
        out.extend_from_slice(&time.nanos.to_le_bytes());
    }

    if other {
        out.extend_from_slice(&version.dev.to_le_bytes());
    }
}

/// Iterator over the records of a page.
#[derive(Debug, Clone)]
pub(in crate::tree) struct StatRecords<'a> {
    rest: &'a [u8],
    root_dev: u64,
}

impl<'a> StatRecords<'a> {
    pub(super) fn new(bytes: &'a [u8], root_dev: u64) -> Self {
        Self {
            rest: bytes,
            root_dev,
        }
    }

    fn read(&mut self) -> Option<StatRecord<'a>> {
        let (&[flags, d0, d1, length], after) = self.rest.split_first_chunk::<4>()?;
        let (name, after) = after.split_at_checked(usize::from(length) + 1)?;
        let name = CStr::from_bytes_with_nul(name).ok()?;
        let (numbers, after) = after.split_first_chunk::<NUMBER_BYTES>()?;
        let (dev, after) = match flags & FLAG_OTHER_DEVICE {
            0 => (self.root_dev, after),
            _ => after
                .split_first_chunk::<8>()
                .map(|(dev, after)| (u64::from_le_bytes(*dev), after))?,
        };

        self.rest = after;
        let version = Version {
            dev,
            ino: word(numbers, 0),
            size: word(numbers, 8),
            mtime: Mtime {
                secs: word(numbers, 16) as i64,
                nanos: half(numbers, 24),
            },
            ctime: Mtime {
                secs: word(numbers, 28) as i64,
                nanos: half(numbers, 36),
            },
        };

        let depth = usize::from(u16::from_le_bytes([d0, d1]));
        let is_dir = flags & FLAG_DIRECTORY != 0;
        let unread = flags & FLAG_UNREAD != 0;

        Some(StatRecord {
            depth,
            name,
            is_dir,
            unread,
            version,
        })
    }
}

impl<'a> Iterator for StatRecords<'a> {
    type Item = io::Result<StatRecord<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }

        let read = self.read();
        if read.is_none() {
            self.rest = &[];
        }

        Some(read.ok_or_else(|| damaged("a record that is cut off")))
    }
}

fn word(bytes: &[u8; NUMBER_BYTES], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

fn half(bytes: &[u8; NUMBER_BYTES], at: usize) -> u32 {
    let mut half = [0; 4];
    half.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(half)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::manifest::{Content, Mode, Owner, TreePath};

    fn a_version() -> impl Strategy<Value = Version> {
        let time =
            || (any::<i64>(), 0..1_000_000_000u32).prop_map(|(secs, nanos)| Mtime { secs, nanos });
        (0..3u64, any::<u64>(), any::<u64>(), time(), time()).prop_map(
            |(dev, ino, size, mtime, ctime)| Version {
                dev,
                ino,
                size,
                mtime,
                ctime,
            },
        )
    }

    fn an_entry(path: &str, kind: EntryKind) -> Option<Entry> {
        let path = TreePath::new(path.as_bytes()).ok()?;
        let owner = Owner {
            uid: 0,
            gid: 0,
            user: None,
            group: None,
        };

        Some(Entry {
            path,
            kind,
            mode: Mode::from_bits(0o644),
            owner: owner.into(),
            mtime: Mtime::default(),
            xattrs: Vec::new(),
        })
    }

    fn a_kind() -> impl Strategy<Value = EntryKind> {
        prop_oneof![
            Just(EntryKind::Directory),
            Just(EntryKind::Fifo),
            Just(EntryKind::File(crate::tree::index::unread_content())),
            Just(EntryKind::File(Content::Blocks(Vec::new()))),
        ]
    }

    proptest! {
        #[test]
        fn records_round_trip(
            all in prop::collection::vec(
                ("[a-z]{1,9}(/[^/\0]{1,20}){0,3}x", a_kind(), a_version()),
                0..20,
            )
        ) {
            let entries: Vec<Entry> = all
                .iter()
                .filter_map(|(path, kind, _)| an_entry(path, kind.clone()))
                .collect();
            prop_assume!(entries.len() == all.len());
            let mut bytes = Vec::new();
            for (entry, (.., version)) in entries.iter().zip(&all) {
                push(&mut bytes, entry, version, 1);
            }

            let read: Vec<_> = StatRecords::new(&bytes, 1).collect::<io::Result<_>>().unwrap();
            prop_assert_eq!(read.len(), all.len());
            for ((stat, entry), (_, kind, version)) in read.iter().zip(&entries).zip(&all) {
                prop_assert_eq!(stat.name.to_bytes(), entry.path.name());
                prop_assert_eq!(stat.depth, entry.path.components().count() - 1);
                prop_assert_eq!(stat.is_dir, *kind == EntryKind::Directory);
                prop_assert_eq!(stat.version, *version);
                prop_assert_eq!(stat.unread, is_unread(kind));
            }

            for cut in 0..bytes.len() {
                prop_assert!(StatRecords::new(&bytes[..cut], 1).count() <= all.len());
            }
        }

        #[test]
        fn any_bytes_are_records_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            StatRecords::new(&bytes, 1).for_each(drop);
        }
    }
}
