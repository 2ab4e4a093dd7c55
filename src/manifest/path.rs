//! Paths within a tree: relative bytes, checked once.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use minicbor::{Decode, Encode};

/// Longest path of an entry, in bytes (PATH_MAX with its NUL).
pub const MAX_PATH: usize = 4095;
/// Reserved name at the top of a tree: hosts without another place keep the tree's state there, so
/// no release may have it.
pub const RESERVED: &str = ".makuo";
/// Longest component, in bytes (NAME_MAX).
pub const MAX_COMPONENT: usize = 255;

/// Reason for refusing a path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// The path or one of its components is empty.
    #[error("path {0:?} has an empty component")]
    Empty(String),
    /// A component is `.` or `..`.
    #[error("path {0:?} has a component . or ..")]
    Dots(String),
    /// The path contains a NUL byte.
    #[error("path {0:?} contains a NUL byte")]
    Nul(String),
    /// The path begins with `/`.
    #[error("path {0:?} is absolute")]
    Absolute(String),
    /// The path or a component is too long.
    #[error("path of {0} bytes is too long, or a component of it is")]
    TooLong(usize),
}

/// A legal path of an entry: one or more components, none of them empty, `.` or `..`, no NUL, not
/// absolute.
///
/// Ordered like a depth-first walk: by bytes, with `/` counted lowest. Copies share the bytes,
/// because a plan of a million changes holds each path many times.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TreePath(Arc<[u8]>);

impl TreePath {
    /// Checks `bytes` and returns the path.
    pub fn new(bytes: impl Into<Arc<[u8]>>) -> Result<Self, PathError> {
        let bytes = bytes.into();
        check(&bytes)?;
        Ok(Self(bytes))
    }

    /// Returns the bytes of the path.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the path for calls of the standard library.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// Returns the parent directory; `None` at the top of the tree.
    pub fn parent(&self) -> Option<TreePath> {
        let slash = self.0.iter().rposition(|&b| b == b'/')?;
        Some(Self(self.0[..slash].into()))
    }

    /// Returns the last component.
    pub fn name(&self) -> &[u8] {
        let start = self
            .0
            .iter()
            .rposition(|&b| b == b'/')
            .map_or(0, |slash| slash + 1);
        &self.0[start..]
    }

    /// Returns the components from the top.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|&b| b == b'/')
    }

    /// Returns true at or below [`RESERVED`].
    pub fn is_reserved(&self) -> bool {
        is_within(&self.0, RESERVED.as_bytes())
    }

    /// Returns true if this path is `other` or lies below.
    pub fn is_within(&self, other: &TreePath) -> bool {
        is_within(&self.0, &other.0)
    }

    /// Returns the path of `name` in the directory `self`.
    pub fn join(&self, name: &[u8]) -> Result<TreePath, PathError> {
        Self::new([&self.0, b"/".as_slice(), name].concat())
    }
}

/// Returns true if `path` is `prefix` or lies below; the empty prefix is the whole tree.
pub fn is_within(path: &[u8], prefix: &[u8]) -> bool {
    prefix.is_empty()
        || (path.starts_with(prefix) && matches!(path.get(prefix.len()), None | Some(b'/')))
}

/// Compares path bytes in the order of a depth-first walk.
pub fn compare(a: &[u8], b: &[u8]) -> Ordering {
    let common = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    let rank = |path: &[u8]| {
        path.get(common).map_or(
            0,
            |&byte| if byte == b'/' { 1 } else { u16::from(byte) + 1 },
        )
    };

    rank(a).cmp(&rank(b))
}

fn check(bytes: &[u8]) -> Result<(), PathError> {
    let shown = || crate::units::printable(&bytes[..bytes.len().min(200)]);
    if bytes.len() > MAX_PATH {
        return Err(PathError::TooLong(bytes.len()));
    }

    if bytes.first() == Some(&b'/') {
        return Err(PathError::Absolute(shown()));
    }

    if bytes.contains(&0) {
        return Err(PathError::Nul(shown()));
    }

    for component in bytes.split(|&b| b == b'/') {
        match component {
            b"" => return Err(PathError::Empty(shown())),
            b"." | b".." => return Err(PathError::Dots(shown())),
            c if c.len() > MAX_COMPONENT => return Err(PathError::TooLong(bytes.len())),
            _ => {}
        }
    }

    Ok(())
}

impl Ord for TreePath {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(&self.0, &other.0)
    }
}

impl PartialOrd for TreePath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Borrow<[u8]> for TreePath {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&crate::units::printable(&self.0))
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl<C> Encode<C> for TreePath {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for TreePath {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        Self::new(d.bytes()?).map_err(|e| minicbor::decode::Error::message(e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn illegal_paths_are_refused_by_name() {
        let cases: [(&[u8], &str); 8] = [
            (b"", "empty"),
            (b"a//b", "empty"),
            (b"a/", "empty"),
            (b"/etc", "absolute"),
            (b"..", ". or .."),
            (b"a/../b", ". or .."),
            (b"./a", ". or .."),
            (b"a\0b", "NUL"),
        ];

        for (bytes, word) in cases {
            let refused = TreePath::new(bytes).map_err(|e| e.to_string());
            assert!(
                refused.as_ref().is_err_and(|e| e.contains(word)),
                "{bytes:?}: {refused:?}"
            );
        }

        assert!(TreePath::new(vec![b'x'; 256]).is_err());
        assert!(TreePath::new(vec![b'x'; 255]).is_ok());
    }

    #[test]
    fn a_directory_is_followed_by_what_it_contains() {
        let mut paths: Vec<TreePath> = [&b"a-b"[..], b"a", b"a/z", b"a/b", b"ab", b"a/b/c"]
            .into_iter()
            .filter_map(|p| TreePath::new(p).ok())
            .collect();
        paths.sort();
        let shown: Vec<String> = paths.iter().map(TreePath::to_string).collect();
        assert_eq!(shown, ["a", "a/b", "a/b/c", "a/z", "a-b", "ab"]);
    }

    proptest! {
        #[test]
        fn order_is_that_of_component_lists(a in "[a-c/.-]{1,12}", b in "[a-c/.-]{1,12}") {
            if let (Ok(a), Ok(b)) = (TreePath::new(a.as_bytes()), TreePath::new(b.as_bytes())) {
                let (x, y): (Vec<_>, Vec<_>) = (a.components().collect(), b.components().collect());
                prop_assert_eq!(a.cmp(&b), x.cmp(&y));
            }
        }
    }
}
