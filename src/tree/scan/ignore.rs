//! Which paths a walk leaves out: the excludes it was given, and the ignore files that it meets.

use std::io::Read;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use crate::manifest::TreePath;
use crate::manifest::rules::{Exclude, MAX_EXCLUDE_BYTES, PathFilter};
use crate::tree::meta::{FileStat, Version};
use crate::tree::root::{Root, open_file_at};
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
pub(super) struct Filter {
    excludes: Vec<Exclude>,
    filter: PathFilter,
}

impl Filter {
    pub(super) fn new(excludes: Vec<Exclude>) -> Result<Self> {
        let filter = PathFilter::new(&excludes).map_err(|e| Error::usage(format!("exclude pattern {e}")))?;
        Ok(Self { excludes, filter })
    }

    /// Whether `path` is left out, its parents being known not to be.
    pub(super) fn leaves_out(&self, path: &TreePath, is_dir: bool) -> bool {
        !self.filter.is_empty() && self.filter.matches_here(path, is_dir)
    }

    /// The filter with more patterns, which decide over those above.
    pub(super) fn with(self: &Arc<Self>, more: &[Exclude]) -> Result<Arc<Self>> {
        if more.is_empty() {
            return Ok(Arc::clone(self));
        }
        Ok(Arc::new(Self::new([&self.excludes, more].concat())?))
    }
}

/// Patterns, and the files that they come from as they were then.
pub(super) type Patterns = (Vec<Exclude>, Vec<(TreePath, Version)>);

/// The patterns of the ignore files in the directory `base`, and those files.
pub(super) fn patterns_in(
    root: &Root,
    dir: BorrowedFd<'_>,
    base: Option<&TreePath>,
    kind: IgnoreFiles,
    has: impl Fn(&[u8]) -> bool,
) -> Result<Patterns> {
    let (mut found, mut files) = (Vec::new(), Vec::new());
    for name in kind.names().iter().filter(|n| has(n.to_bytes())) {
        let at = base.map_or(root.path().to_path_buf(), |b| root.shown(b)).join(&*name.to_string_lossy());
        let mut text = Vec::new();
        let read = open_file_at(dir, name).and_then(|f| {
            // Before it is read: a change in between makes another version of it.
            let version = FileStat::of(&f)?.version();
            f.take(MAX_EXCLUDE_BYTES as u64 + 1).read_to_end(&mut text)?;
            Ok(version)
        });
        let version = read.map_err(|e| super::unreadable(&at, e))?;
        let path = base.map_or_else(|| TreePath::new(name.to_bytes()), |base| base.join(name.to_bytes()));
        files.extend(path.ok().map(|path| (path, version)));
        if text.len() > MAX_EXCLUDE_BYTES {
            let why = format!("{}: more than {MAX_EXCLUDE_BYTES} bytes of patterns", at.display());
            return Err(Error::usage(why).hint("a release carries its patterns to every host: use fewer, broader ones"));
        }
        let text = String::from_utf8(text).map_err(|e| Error::usage(format!("{}: {e}", at.display())))?;
        let exclude = |line: &str| Exclude { base: base.cloned(), pattern: line.to_string() };
        let lines: Vec<Exclude> = text.lines().filter(|l| is_pattern(l)).map(exclude).collect();
        PathFilter::new(&lines).map_err(|e| Error::usage(format!("{}: pattern {e}", at.display())))?;
        found.extend(lines);
    }
    Ok((found, files))
}

fn is_pattern(line: &str) -> bool {
    !line.trim().is_empty() && !line.starts_with('#')
}
