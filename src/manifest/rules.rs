//! The rules of a release: what a host may delete, keep and set. They are part of the signed header.

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use minicbor::{Decode, Encode};

use super::TreePath;
use crate::units::Limit;

/// The most exclude patterns of a release, and the most bytes that they take together.
pub const MAX_EXCLUDES: usize = 1000;
/// See [`MAX_EXCLUDES`].
pub const MAX_EXCLUDE_BYTES: usize = 32 << 10;

/// What governs a host's commit besides the manifest.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Rules {
    /// Whether paths that the release does not have are removed.
    #[n(0)]
    pub delete_extras: bool,
    /// The most deletions on one host.
    #[n(1)]
    pub delete_max: Limit,
    /// Whether an empty manifest may empty a tree.
    #[n(2)]
    pub allow_empty: bool,
    /// Paths that the release excludes: left alone on the hosts.
    #[n(3)]
    pub excludes: Vec<Exclude>,
    /// Whether excluded paths are removed all the same.
    #[n(4)]
    pub delete_excluded: bool,
    /// Whether hosts set the user.
    #[n(5)]
    pub set_user: bool,
    /// Whether hosts set the group.
    #[n(6)]
    pub set_group: bool,
    /// What a host does with an owner's name that it does not know.
    #[n(7)]
    pub unknown_owner: UnknownOwner,
    /// Whether hosts set times of modification.
    #[n(8)]
    pub mtime: bool,
    /// Whether hosts set extended attributes and ACLs.
    #[n(9)]
    pub xattrs: bool,
    /// How the commit switches the tree.
    #[n(10)]
    pub layout: Layout,
    /// Whether names of one file on the sender are names of one file on the hosts.
    #[n(11)]
    pub hardlinks: bool,
}

/// What a host does with an owner's name that it does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum UnknownOwner {
    /// Refuse the release before anything changes.
    #[n(0)]
    Fail,
    /// Use the sender's number.
    #[n(1)]
    Numeric,
}

/// How a commit switches the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Layout {
    /// Journaled renames within the tree.
    #[n(0)]
    InPlace,
    /// The next tree is built beside the present one and exchanged with it in one rename.
    #[n(1)]
    Swap,
}

/// One exclude pattern in .gitignore syntax, anchored at the directory that its file was in.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Exclude {
    /// The directory; `None` is the top of the tree.
    #[n(0)]
    pub base: Option<TreePath>,
    /// One line of .gitignore.
    #[n(1)]
    pub pattern: String,
}

impl Exclude {
    /// The pattern of exactly `path`; none for a path that no pattern can name.
    pub fn literal(path: &TreePath) -> Option<Self> {
        let text = std::str::from_utf8(path.as_bytes()).ok()?;
        if text.contains('\n') {
            return None;
        }
        let mut pattern = String::from("/");
        for c in text.chars() {
            if matches!(c, '*' | '?' | '[' | ']' | '{' | '}' | '\\' | '!' | '#' | ' ') {
                pattern.push('\\');
            }
            pattern.push(c);
        }
        Some(Self { base: None, pattern })
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            delete_extras: false,
            delete_max: Limit::Share(5000),
            allow_empty: false,
            excludes: Vec::new(),
            delete_excluded: false,
            set_user: true,
            set_group: true,
            unknown_owner: UnknownOwner::Fail,
            mtime: true,
            xattrs: false,
            layout: Layout::InPlace,
            hardlinks: true,
        }
    }
}

impl Rules {
    /// The matcher of the excludes, or the pattern that is not legal and why.
    pub fn excluded(&self) -> Result<PathFilter, String> {
        PathFilter::new(&self.excludes)
    }

    /// The caps. Whether the patterns are legal is seen when they are compiled ([`Rules::excluded`]): that costs, and is
    /// not done for a stranger.
    pub(super) fn check(&self) -> Result<(), String> {
        let bytes: usize =
            self.excludes.iter().map(|e| e.pattern.len() + e.base.as_ref().map_or(0, |b| b.as_bytes().len())).sum();
        if self.excludes.len() > MAX_EXCLUDES || bytes > MAX_EXCLUDE_BYTES {
            return Err(format!("more than {MAX_EXCLUDES} excludes, or more than {MAX_EXCLUDE_BYTES} bytes of them"));
        }
        Ok(())
    }
}

/// Patterns in .gitignore syntax, each group anchored at its directory; the last pattern that matches decides, and
/// one of a deeper directory counts after those above it. What is below a matched directory is matched.
#[derive(Debug, Clone)]
pub struct PathFilter {
    /// Top first; deeper directories after those above them.
    groups: Vec<(Option<TreePath>, Gitignore)>,
    patterns: std::sync::Arc<[Exclude]>,
}

impl PathFilter {
    /// The filter of `excludes`, or the pattern that is not legal and why.
    pub fn new(excludes: &[Exclude]) -> Result<Self, String> {
        let mut bases: Vec<Option<TreePath>> = excludes.iter().map(|e| e.base.clone()).collect();
        bases.sort();
        bases.dedup();
        let mut groups = Vec::with_capacity(bases.len());
        for base in bases {
            let mut builder = GitignoreBuilder::new("");
            for exclude in excludes.iter().filter(|e| e.base == base) {
                builder
                    .add_line(None, &exclude.pattern)
                    .map_err(|e| format!("{:?}: {e}", crate::units::printable(exclude.pattern.as_bytes())))?;
            }
            groups.push((base, builder.build().map_err(|e| e.to_string())?));
        }
        Ok(Self { groups, patterns: excludes.into() })
    }

    /// The filter of patterns at the top of the tree.
    pub fn at_top<S: AsRef<str>>(patterns: &[S]) -> Result<Self, String> {
        let excludes: Vec<Exclude> =
            patterns.iter().map(|p| Exclude { base: None, pattern: p.as_ref().to_string() }).collect();
        Self::new(&excludes)
    }

    /// What it was made of.
    pub fn patterns(&self) -> &[Exclude] {
        &self.patterns
    }

    /// Whether there is no pattern at all.
    pub fn is_empty(&self) -> bool {
        self.groups.iter().all(|(_, g)| g.is_empty())
    }

    /// Whether `path` itself is matched, its parents being known not to be: what a walk from the top asks.
    pub fn matches_here(&self, path: &TreePath, is_dir: bool) -> bool {
        self.decide(path, is_dir).unwrap_or(false)
    }

    /// Whether `path` or a directory above it is matched.
    pub fn matches(&self, path: &TreePath, is_dir: bool) -> bool {
        if self.groups.is_empty() {
            return false;
        }
        let bytes = path.as_bytes();
        let above = bytes.iter().enumerate().filter(|&(_, &b)| b == b'/').map(|(at, _)| &bytes[..at]);
        above.filter_map(|p| TreePath::new(p).ok()).any(|p| self.matches_here(&p, true))
            || self.matches_here(path, is_dir)
    }

    fn decide(&self, path: &TreePath, is_dir: bool) -> Option<bool> {
        self.groups.iter().rev().find_map(|(base, group)| {
            let below = match base {
                None => path.as_bytes(),
                Some(base) => path.as_bytes().strip_prefix(base.as_bytes())?.strip_prefix(b"/")?,
            };
            let below = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(below);
            match group.matched(below, is_dir) {
                ignore::Match::None => None,
                ignore::Match::Ignore(_) => Some(true),
                ignore::Match::Whitelist(_) => Some(false),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::new(text.as_bytes()).expect("legal")
    }

    #[test]
    fn patterns_match_as_in_gitignore() {
        let filter = PathFilter::at_top(&["*.tmp", "/cache/", "!keep.tmp"]).expect("legal");
        assert!(filter.matches(&path("a/b.tmp"), false));
        assert!(!filter.matches(&path("a/keep.tmp"), false));
        assert!(filter.matches(&path("cache"), true));
        assert!(filter.matches(&path("cache/deep/x"), false));
        assert!(!filter.matches(&path("cache"), false));
        assert!(!filter.matches(&path("a/cache/x"), false));
    }

    #[test]
    fn a_deeper_file_decides_over_one_above() {
        let filter = PathFilter::new(&[
            Exclude { base: None, pattern: "*.log".into() },
            Exclude { base: Some(path("keep")), pattern: "!*.log".into() },
            Exclude { base: Some(path("keep")), pattern: "/x".into() },
        ])
        .expect("legal");
        assert!(filter.matches(&path("a.log"), false));
        assert!(!filter.matches(&path("keep/a.log"), false));
        assert!(filter.matches(&path("keep/x"), false));
        assert!(!filter.matches(&path("x"), false));
    }

    #[test]
    fn a_broken_pattern_is_named() {
        let refused = PathFilter::at_top(&["a{b"]).map(drop);
        assert!(refused.as_ref().is_err_and(|e| e.contains("a{b")), "{refused:?}");
    }
}
