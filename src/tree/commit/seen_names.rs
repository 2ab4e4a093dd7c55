//! Names in the directories of a tree at the last look.
//!
//! Two trees exist side by side during an exchange, and others write to both. Only the earlier
//! names of a directory show whether a name arrived in one tree or left the other. The record is
//! beside the tree that is not live, so a restart finds it.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::fd::BorrowedFd;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::manifest::{Mtime, TreePath};
use crate::tree::fs::stat::FileStat;

/// Name of the record in a directory of the state.
pub(crate) const RECORD_NAME: &CStr = c"names";
/// Upper bound for the bytes of one directory's record.
const MAX_RECORD: u32 = 1 << 30;

/// Recorded state of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Was {
    /// A directory that exists in both trees.
    Directory,
    /// Any other entry, by its inode in the old tree and in the new one; zero for none.
    Other(u64, u64),
    /// The new tree gets the first inode (zero for none) from the old one in the place of the
    /// second. After a crash either may be there.
    ComingNew(u64, u64),
    /// Like [`Self::ComingNew`], in the other direction.
    ComingOld(u64, u64),
}

/// Flags in the length of a name: in transfer, or with different inodes in the two trees. Each has
/// a second inode.
const COMING_NEW: u16 = 1 << 15;
const COMING_OLD: u16 = 1 << 14;
const APART: u16 = 1 << 13;
const LENGTH: u16 = APART - 1;

/// One directory.
#[derive(Debug, Clone, Default)]
pub(crate) struct SeenDir {
    /// Ctime of the directory before it was listed; `None` if a later change could have the same
    /// ctime.
    pub(crate) ctime: Option<Mtime>,
    /// For each name its length, the name, and its inode, zero for a directory; then a second
    /// inode, if any.
    packed: Vec<u8>,
}

impl SeenDir {
    pub(crate) fn new(ctime: Option<Mtime>) -> Self {
        Self {
            ctime,
            packed: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, name: &CStr, was: Was) {
        let (flag, first, second) = match was {
            Was::Directory => (0, 0, None),
            // The same as no record.
            Was::Other(0, 0) => return,
            Was::Other(old, new) if old == new => (0, old, None),
            Was::Other(old, new) => (APART, old, Some(new)),
            Was::ComingNew(now, before) => (COMING_NEW, now, Some(before)),
            Was::ComingOld(now, before) => (COMING_OLD, now, Some(before)),
        };

        let name = name.to_bytes();
        // No filesystem of Linux has longer names.
        let length = (name.len() as u16) & LENGTH;
        self.packed
            .extend_from_slice(&(length | flag).to_be_bytes());
        self.packed.extend_from_slice(&name[..usize::from(length)]);
        self.packed.extend_from_slice(&first.to_be_bytes());

        self.packed
            .extend(second.into_iter().flat_map(u64::to_be_bytes));
    }

    /// All names with their states, up to the first malformed record.
    pub(crate) fn names(&self) -> HashMap<CString, Was> {
        let mut all = HashMap::new();
        let mut rest = self.packed.as_slice();
        while let Some((length, after)) = rest.split_first_chunk() {
            let length = u16::from_be_bytes(*length);
            let Some((name, after)) = after.split_at_checked(usize::from(length & LENGTH)) else {
                break;
            };
            let Some((first, mut after)) = after.split_first_chunk() else {
                break;
            };
            let first = u64::from_be_bytes(*first);
            let mut second = first;
            if length & !LENGTH != 0 {
                let Some((found, rest)) = after.split_first_chunk() else {
                    break;
                };
                (second, after) = (u64::from_be_bytes(*found), rest);
            }
            let was = match first {
                _ if length & COMING_NEW != 0 => Was::ComingNew(first, second),
                _ if length & COMING_OLD != 0 => Was::ComingOld(first, second),
                0 if length & APART == 0 => Was::Directory,
                _ => Was::Other(first, second),
            };
            if let Ok(name) = CString::new(name) {
                all.insert(name, was);
            }
            rest = after;
        }

        all
    }
}

/// Directories of one tree by path; `None` is the root.
#[derive(Debug, Clone, Default)]
pub(crate) struct SeenNames(pub(crate) BTreeMap<Option<TreePath>, SeenDir>);

impl SeenNames {
    /// Appends the record to the file of records in `dir`.
    pub(crate) fn append(&self, dir: BorrowedFd<'_>) -> io::Result<()> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(
            dir,
            RECORD_NAME,
            flags,
            Mode::RUSR | Mode::WUSR,
        )?);

        let mut out = BufWriter::with_capacity(64 << 10, file);
        for (path, known) in &self.0 {
            let path = path.as_ref().map_or(&[][..], TreePath::as_bytes);
            let ctime = known
                .ctime
                .map_or((i64::MIN, 0), |time| (time.secs, time.nanos));
            out.write_all(&(path.len() as u32).to_be_bytes())?;
            out.write_all(&(known.packed.len() as u32).to_be_bytes())?;
            out.write_all(&ctime.0.to_be_bytes())?;
            out.write_all(&ctime.1.to_be_bytes())?;
            out.write_all(path)?;
            out.write_all(&known.packed)?;
        }

        out.flush()?;
        out.get_ref().sync_all()
    }

    /// Reads the records in `dir`; later ones replace earlier ones. A missing file is empty, and a
    /// partial record at the end, as after a crash, is ignored.
    pub(crate) fn read(dir: BorrowedFd<'_>) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(dir, RECORD_NAME, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(Self::default()),
            file => File::from(file?),
        };

        let mut input = BufReader::with_capacity(64 << 10, file);
        let mut all = BTreeMap::new();
        loop {
            match record(&mut input) {
                Ok((path, known)) => drop(all.insert(path, known)),
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(Self(all)),
                Err(e) => return Err(e),
            }
        }
    }
}

fn record(input: &mut impl Read) -> io::Result<(Option<TreePath>, SeenDir)> {
    let mut head = [0; 20];
    input.read_exact(&mut head)?;
    let number =
        |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let secs = head[8..16]
        .iter()
        .fold(0u64, |all, &byte| all << 8 | u64::from(byte)) as i64;

    if number(0) > MAX_RECORD || number(4) > MAX_RECORD {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a record of names is damaged",
        ));
    }

    let mut path = vec![0; number(0) as usize];
    let mut packed = vec![0; number(4) as usize];
    input.read_exact(&mut path)?;
    input.read_exact(&mut packed)?;
    let path = match path.is_empty() {
        true => None,
        false => {
            Some(TreePath::new(path).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?)
        }
    };

    let ctime = (secs != i64::MIN).then_some(Mtime {
        secs,
        nanos: number(16),
    });

    Ok((path, SeenDir { ctime, packed }))
}

/// Longest tick of a filesystem clock, in nanoseconds, doubled for safety.
const CLOCK_TICK_NANOS: i128 = 20_000_000;

/// Ctime of a directory, unless the last change of `other`, made just now, is so close that another
/// change could follow within the same tick.
pub(crate) fn steady_ctime(dir: &FileStat, other: BorrowedFd<'_>) -> io::Result<Option<Mtime>> {
    let nanos = |t: Mtime| i128::from(t.secs) * 1_000_000_000 + i128::from(t.nanos);
    let now = FileStat::of(other)?.ctime;
    Ok((nanos(dir.ctime) + CLOCK_TICK_NANOS < nanos(now)).then_some(dir.ctime))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn later_records_count_and_half_a_record_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let handle = File::open(dir.path()).unwrap();
        assert!(SeenNames::read(handle.as_fd()).unwrap().0.is_empty());

        let path = Some(TreePath::new(b"d".as_slice()).unwrap());
        let mut known = SeenDir::new(Some(Mtime { secs: -3, nanos: 5 }));
        known.add(c"f", Was::Other(7, 7));

        known.add(c"apart", Was::Other(0, 7));
        known.add(c"nothing", Was::Other(0, 0));
        known.add(c"leaves", Was::ComingNew(0, 7));
        known.add(c"sub", Was::Directory);
        known.add(c"way", Was::ComingOld(8, 9));
        let first = SeenNames([(None, SeenDir::default()), (path.clone(), known)].into());
        first.append(handle.as_fd()).unwrap();

        let read = SeenNames::read(handle.as_fd()).unwrap();
        assert_eq!(read.0.len(), 2);
        let names = read.0[&path].names();
        assert_eq!(
            (names[c"f"], names[c"sub"], names.len()),
            (Was::Other(7, 7), Was::Directory, 5)
        );

        assert_eq!(names[c"way"], Was::ComingOld(8, 9));
        assert_eq!(
            (names[c"apart"], names[c"leaves"]),
            (Was::Other(0, 7), Was::ComingNew(0, 7))
        );
        assert_eq!(read.0[&path].ctime, Some(Mtime { secs: -3, nanos: 5 }));

        let later = SeenNames([(path.clone(), SeenDir::default())].into());

        later.append(handle.as_fd()).unwrap();
        assert!(
            SeenNames::read(handle.as_fd()).unwrap().0[&path]
                .names()
                .is_empty()
        );

        let file = dir.path().join("names");
        let whole = std::fs::read(&file).unwrap();
        std::fs::write(&file, &whole[..whole.len() - 1]).unwrap();

        assert_eq!(
            SeenNames::read(handle.as_fd()).unwrap().0[&path]
                .names()
                .len(),
            5
        );
    }
}
