//! Metadata of directories in a tree aside.

use std::io;
use std::os::fd::AsFd;

use crate::error::{Error, Result};
use crate::manifest::TreePath;
use crate::tree::fs::metadata::{Metadata, handle_of};
use crate::tree::fs::root::Root;

/// Sets metadata of directories in `to`, innermost first.
pub(crate) fn set_dirs(
    to: &Root,
    dirs: impl IntoIterator<Item = Option<TreePath>>,
    metadata: impl Fn(Option<&TreePath>) -> Result<Metadata>,
) -> Result<()> {
    let mut dirs: Vec<_> = dirs.into_iter().collect();
    dirs.sort();
    dirs.dedup();

    for path in dirs.iter().rev() {
        let wanted = metadata(path.as_ref())?;
        let set = || match path {
            Some(path) => {
                let (parent, name) = to.parent(path)?;
                wanted.set(handle_of(parent.as_fd(), &name)?)
            }
            None => wanted.set(to),
        };
        match set() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            done => done.map_err(|e| {
                Error::io(
                    "cannot set mode, owner or time of",
                    to.shown_dir(path.as_ref()),
                    e,
                )
                .hint("run the daemon as root, or set commit.layout = \"in-place\" in the spec")
            })?,
        }
    }

    Ok(())
}

/// Present metadata of the directory `path` of `root`, attributes included.
pub(crate) fn present(root: &Root, path: Option<&TreePath>) -> Result<Metadata> {
    let look = || match path {
        Some(path) => {
            let (parent, name) = root.parent(path)?;
            Metadata::present(parent.as_fd(), &name, true)
        }
        None => Metadata::present(root.as_fd(), c".", true),
    };

    look().map_err(|e| Error::io("cannot look at", root.shown_dir(path), e))
}
