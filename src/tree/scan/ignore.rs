//! Decides which paths a walk leaves out: by excludes and by the ignore files in the tree.

use std::io::Read;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use rustix::fs::FileType;

use super::errors;
use crate::manifest::TreePath;
use crate::manifest::rules::{Exclude, MAX_EXCLUDE_BYTES, PathFilter, lines};
use crate::tree::fs::root::{Root, open_file_at};
use crate::tree::fs::stat::{FileStat, Version};
use crate::{Error, Result};

/// Kinds of ignore files to apply.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum IgnoreFiles {
    /// None: for a host's own tree, which follows the release's rules.
    #[default]
    None,
    /// `.makuoignore` files.
    Makuo,
    /// Also `.gitignore` files; a `.makuoignore` in the same directory takes precedence.
    MakuoAndGit,
}

impl IgnoreFiles {
    /// Returns whether `name` is an ignore file.
    pub(super) fn has(self, name: &std::ffi::CStr) -> bool {
        self.names().contains(&name)
    }

    /// Names in order of precedence, the strongest last.
    fn names(self) -> &'static [&'static std::ffi::CStr] {
        match self {
            IgnoreFiles::None => &[],
            IgnoreFiles::Makuo => &[c".makuoignore"],
            IgnoreFiles::MakuoAndGit => &[c".gitignore", c".makuoignore"],
        }
    }
}

/// The patterns in force in one directory: its own and those from above.
#[derive(Debug)]
pub(super) struct IgnoreFilter(PathFilter);

impl IgnoreFilter {
    pub(super) fn new(excludes: &[Exclude]) -> Self {
        Self(PathFilter::new(excludes))
    }

    /// Returns whether `path` is left out, given that its parents are not.
    pub(super) fn excludes(&self, path: &TreePath, is_dir: bool) -> bool {
        !self.0.is_empty() && self.0.matches_here(path, is_dir)
    }

    /// Returns the filter with more patterns, which take precedence.
    pub(super) fn with(self: &Arc<Self>, more: &[Exclude]) -> Arc<Self> {
        if more.is_empty() {
            return Arc::clone(self);
        }
        Arc::new(Self(self.0.with(more)))
    }
}

/// Patterns, and the versions of the files they come from.
pub(super) type Patterns = (Vec<Exclude>, Vec<(TreePath, Version)>);

/// Reads the patterns of the ignore files in the directory `base`.
///
/// As in git, only regular files count: a directory or link of that name has no patterns.
pub(super) fn patterns_in(
    root: &Root,
    dir: BorrowedFd<'_>,
    base: Option<&TreePath>,
    kind: IgnoreFiles,
    has: impl Fn(&[u8]) -> bool,
) -> Result<Patterns> {
    let mut found = Vec::new();
    let mut files = Vec::new();

    for name in kind.names().iter().filter(|n| has(n.to_bytes())) {
        let at = base
            .map_or(root.path().to_path_buf(), |b| root.shown(b))
            .join(&*name.to_string_lossy());
        let unreadable = |e| errors::unreadable(&at, e);

        // Before the read: a change in between gives another version.
        let stat = FileStat::at(dir, name).map_err(unreadable)?;
        let path = base.map_or_else(
            || TreePath::new(name.to_bytes()),
            |base| base.join(name.to_bytes()),
        );
        files.extend(path.ok().map(|path| (path, stat.version())));
        if stat.file_type != FileType::RegularFile {
            continue;
        }

        let mut text = Vec::new();
        let file = open_file_at(dir, name).map_err(unreadable)?;
        file.take(MAX_EXCLUDE_BYTES as u64 + 1)
            .read_to_end(&mut text)
            .map_err(unreadable)?;
        if text.len() > MAX_EXCLUDE_BYTES {
            let why = format!(
                "{}: more than {MAX_EXCLUDE_BYTES} bytes of patterns",
                at.display()
            );
            return Err(Error::usage(why)
                .hint("a release carries its patterns to every host: use fewer, broader ones"));
        }
        found.extend(lines(&text).map(|line| Exclude {
            base: base.cloned(),
            pattern: line.into(),
        }));
    }

    Ok((found, files))
}
