//! Which paths a walk leaves out: the excludes it was given, and the ignore files that it meets.

use std::io::Read;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use rustix::fs::FileType;

use crate::manifest::TreePath;
use crate::manifest::rules::{Exclude, MAX_EXCLUDE_BYTES, PathFilter, lines};
use crate::tree::fs::root::{Root, open_file_at};
use crate::tree::fs::stat::{FileStat, Version};
use crate::{Error, Result};

/// Which files of the tree itself exclude paths.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum IgnoreFiles {
    /// None: a host's own tree, to which the release's rules apply.
    #[default]
    None,
    /// `.makuoignore` files.
    Makuo,
    /// `.gitignore` files too; a `.makuoignore` beside one decides over it.
    MakuoAndGit,
}

impl IgnoreFiles {
    /// Whether a file of this name is one.
    pub(super) fn has(self, name: &std::ffi::CStr) -> bool {
        self.names().contains(&name)
    }

    /// The names in the order in which they count: later ones decide.
    fn names(self) -> &'static [&'static std::ffi::CStr] {
        match self {
            IgnoreFiles::None => &[],
            IgnoreFiles::Makuo => &[c".makuoignore"],
            IgnoreFiles::MakuoAndGit => &[c".gitignore", c".makuoignore"],
        }
    }
}

/// The patterns that hold in one directory: its own and those of the directories above it.
#[derive(Debug)]
pub(super) struct Filter(PathFilter);

impl Filter {
    pub(super) fn new(excludes: &[Exclude]) -> Self {
        Self(PathFilter::new(excludes))
    }

    /// Whether `path` is left out, its parents being known not to be.
    pub(super) fn leaves_out(&self, path: &TreePath, is_dir: bool) -> bool {
        !self.0.is_empty() && self.0.matches_here(path, is_dir)
    }

    /// The filter with more patterns, which decide over those above.
    pub(super) fn with(self: &Arc<Self>, more: &[Exclude]) -> Arc<Self> {
        if more.is_empty() {
            return Arc::clone(self);
        }
        Arc::new(Self(self.0.with(more)))
    }
}

/// Patterns, and the files that they come from as they were then.
pub(super) type Patterns = (Vec<Exclude>, Vec<(TreePath, Version)>);

/// The patterns of the ignore files in the directory `base`, and those files.
///
/// As for git, only a regular file says anything: a directory or a link of that name does not.
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
        let unreadable = |e| super::unreadable(&at, e);

        // Before it is read: a change in between makes another version of it.
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
