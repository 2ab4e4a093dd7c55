//! What is mounted in a source: the kernel tells no watch of a mount, but it wakes who waits for the list of them.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

const LIST: &str = "/proc/self/mountinfo";

/// The mounts at a directory and below it.
#[derive(Debug)]
pub struct Mounts {
    /// Whoever polls it is woken by a change of the list.
    list: File,
    /// The directory, without links in its path.
    dir: PathBuf,
    /// Number and place of each.
    known: BTreeSet<(u64, PathBuf)>,
}

/// How the list has changed.
#[derive(Debug, PartialEq, Eq)]
pub enum Change {
    /// Not where it matters.
    None,
    /// Something is mounted now that was not.
    Mounted(PathBuf),
    /// Something is not mounted any more.
    Unmounted(PathBuf),
}

impl Mounts {
    /// What is mounted now.
    pub fn of(dir: &Path) -> io::Result<Self> {
        let (list, dir) = (File::open(LIST)?, std::fs::canonicalize(dir)?);
        let known = parse(&std::fs::read(LIST)?, &dir);
        Ok(Self { list, dir, known })
    }

    /// Looks again.
    pub fn change(&mut self) -> io::Result<Change> {
        let now = parse(&std::fs::read(LIST)?, &self.dir);
        let known = std::mem::replace(&mut self.known, now);
        if let Some((_, gone)) = known.difference(&self.known).next() {
            return Ok(Change::Unmounted(gone.clone()));
        }
        Ok(self.known.difference(&known).next().map_or(Change::None, |(_, new)| Change::Mounted(new.clone())))
    }
}

impl AsFd for Mounts {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.list.as_fd()
    }
}

/// The mounts of a list that are at `dir` or below it.
fn parse(list: &[u8], dir: &Path) -> BTreeSet<(u64, PathBuf)> {
    let mounts = list.split(|&b| b == b'\n').filter_map(|line| {
        let mut fields = line.split(|&b| b == b' ');
        let number = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
        let place = PathBuf::from(OsString::from_vec(unescape(fields.nth(3)?)));
        Some((number, place))
    });
    mounts.filter(|(_, place)| place.starts_with(dir)).collect()
}

/// Blanks and the like stand there as `\040`.
fn unescape(field: &[u8]) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::with_capacity(field.len()), field);
    while let Some((&first, more)) = rest.split_first() {
        let octal = |b: &u8| (b'0'..=b'7').contains(b).then(|| u16::from(b - b'0'));
        let code = more
            .get(..3)
            .filter(|_| first == b'\\')
            .and_then(|digits| digits.iter().try_fold(0, |sum: u16, digit| octal(digit).map(|value| sum * 8 + value)));
        match code.and_then(|code| u8::try_from(code).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &more[3..];
            }
            None => {
                out.push(first);
                rest = more;
            }
        }
    }
    out
}

/// Whether `path` is `dir` or below it, as a path of bytes relative to it.
pub fn relative<'a>(path: &'a Path, dir: &Path) -> Option<&'a [u8]> {
    path.strip_prefix(dir).ok().map(|rest| rest.as_os_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"21 1 0:19 / / rw,relatime - ext4 /dev/vda rw\n\
        36 21 0:31 / /srv/my\\040site rw - tmpfs none rw\n\
        37 36 0:32 / /srv/my\\040site/data rw shared:5 - tmpfs none rw\n\
        38 21 0:33 / /srv/my\\040sites rw - tmpfs none rw\n";

    #[test]
    fn mounts_in_a_directory_are_found() {
        let found = parse(TEXT, Path::new("/srv/my site"));
        let expected = [(36, "/srv/my site"), (37, "/srv/my site/data")].map(|(n, p)| (n, PathBuf::from(p)));
        assert_eq!(found, BTreeSet::from(expected));
        assert!(parse(TEXT, Path::new("/home")).is_empty());
    }

    #[test]
    fn odd_escapes_stay_as_they_are() {
        assert_eq!(unescape(b"a\\134b\\040"), b"a\\b ");
        assert_eq!(unescape(b"\\04 \\9 \\777"), b"\\04 \\9 \\777");
    }

    #[test]
    fn nothing_changes_by_itself() {
        let dir = tempfile::tempdir().expect("a directory");
        match Mounts::of(dir.path()) {
            Ok(mut mounts) => assert_eq!(mounts.change().expect("readable"), Change::None),
            Err(e) => println!("skipped: {e}"),
        }
    }
}
