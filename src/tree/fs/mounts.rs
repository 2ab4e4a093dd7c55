//! Mount points at a directory and below, as the kernel lists them.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::manifest::TreePath;

/// The kernel's list of mounts that this process sees.
pub const LIST: &str = "/proc/self/mountinfo";

/// Id and mount point of each mount at `dir` and below; `dir` is a path without links.
pub fn list(dir: &Path) -> io::Result<BTreeSet<(u64, PathBuf)>> {
    Ok(parse(&std::fs::read(LIST)?, dir))
}

/// Paths below `dir` that are mount points, sorted.
pub fn below(dir: &Path) -> io::Result<Vec<TreePath>> {
    let dir = std::fs::canonicalize(dir)?;
    let places: BTreeSet<TreePath> = list(&dir)?
        .iter()
        .filter_map(|(_, place)| TreePath::new(relative(place, &dir)?).ok())
        .collect();
    Ok(places.into_iter().collect())
}

/// Mounts of a list at `dir` or below.
fn parse(list: &[u8], dir: &Path) -> BTreeSet<(u64, PathBuf)> {
    let mounts = list.split(|&b| b == b'\n').filter_map(|line| {
        let mut fields = line.split(|&b| b == b' ');
        let number = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
        let place = PathBuf::from(OsString::from_vec(unescape(fields.nth(3)?)));
        Some((number, place))
    });
    mounts.filter(|(_, place)| place.starts_with(dir)).collect()
}

/// Decodes octal escapes: a space is listed as `\040`.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, more)) = rest.split_first() {
        let octal = |b: &u8| (b'0'..=b'7').contains(b).then(|| u16::from(b - b'0'));
        let code = more.get(..3).filter(|_| first == b'\\').and_then(|digits| {
            digits.iter().try_fold(0, |sum: u16, digit| {
                octal(digit).map(|value| sum * 8 + value)
            })
        });
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

/// Bytes of `path` relative to `dir`, if `path` is `dir` or below.
pub fn relative<'a>(path: &'a Path, dir: &Path) -> Option<&'a [u8]> {
    path.strip_prefix(dir)
        .ok()
        .map(|rest| rest.as_os_str().as_bytes())
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
        let expected =
            [(36, "/srv/my site"), (37, "/srv/my site/data")].map(|(n, p)| (n, PathBuf::from(p)));
        assert_eq!(found, BTreeSet::from(expected));
        assert!(parse(TEXT, Path::new("/home")).is_empty());
    }

    #[test]
    fn odd_escapes_stay_as_they_are() {
        assert_eq!(unescape(b"a\\134b\\040"), b"a\\b ");
        assert_eq!(unescape(b"\\04 \\9 \\777"), b"\\04 \\9 \\777");
    }
}
