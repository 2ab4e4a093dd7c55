//! The name of a release on the command line: `www@17`, `www`, `www@17:css/site.css`.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;

use crate::id::{Serial, TreeName};
use crate::manifest::TreePath;
use crate::units::printable;
use crate::{Error, Result};

/// A release, or a path of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ReleaseRef {
    pub(super) tree: TreeName,
    /// `None` for the present release.
    pub(super) serial: Option<Serial>,
    pub(super) path: Option<TreePath>,
}

impl ReleaseRef {
    /// Parses `TREE[@N][:PATH]`.
    pub(super) fn parse(text: &OsStr) -> Result<Self> {
        let bytes = text.as_bytes();
        let wrong = |why: String| {
            let shown = printable(bytes);
            Error::usage(format!("{shown} is no release: {why}"))
                .hint("write TREE@N, such as www@17; `makuo log TREE` lists the releases")
        };

        let (name, path) = match bytes.iter().position(|b| *b == b':') {
            Some(at) => (&bytes[..at], Some(&bytes[at + 1..])),
            None => (bytes, None),
        };
        let name = String::from_utf8_lossy(name);
        let (tree, serial) = match name.split_once('@') {
            Some((tree, serial)) => (tree, Some(serial)),
            None => (&*name, None),
        };

        let number = |text: &str| text.parse().map(Serial).map_err(|e| wrong(format!("{e}")));
        let path = path.map(TreePath::new).transpose();
        Ok(Self {
            tree: TreeName::new(tree).map_err(|e| wrong(e.to_string()))?,
            serial: serial.map(number).transpose()?,
            path: path.map_err(|e| wrong(e.to_string()))?,
        })
    }
}

impl fmt::Display for ReleaseRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.serial {
            Some(serial) => write!(f, "{}@{serial}", self.tree),
            None => write!(f, "the present release of {}", self.tree),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_named_by_tree_number_and_path() {
        let parsed = |text: &str| {
            let found = ReleaseRef::parse(OsStr::new(text)).ok()?;
            let path = found.path.map(|path| path.to_string());
            Some((found.tree.to_string(), found.serial.map(|s| s.0), path))
        };

        assert_eq!(parsed("www"), Some(("www".into(), None, None)));
        assert_eq!(parsed("www@17"), Some(("www".into(), Some(17), None)));
        let file = Some(("www".into(), Some(17), Some("a@b:c/d".into())));
        assert_eq!(parsed("www@17:a@b:c/d"), file);
        for bad in [
            "", "@17", "www@", "www@x", "www@17:", "www:../x", "www:/etc", "a b@1",
        ] {
            assert_eq!(parsed(bad), None, "{bad:?}");
        }
    }
}
