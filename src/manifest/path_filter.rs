//! The filter of paths built from a list of patterns.
//!
//! The rules are git's own: paths ignored by git are excluded, byte for byte. A line that git
//! accepts and that matches nothing (an unclosed bracket, a lone `!`) is no error here either.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use super::TreePath;
use super::dir_patterns::DirPatterns;
use super::exclude::Exclude;

/// A filter of patterns, each group anchored at its directory. The last matching pattern decides,
/// and a deeper directory takes precedence. Everything below a matched directory is matched.
#[derive(Debug, Clone, Default)]
pub struct PathFilter {
    top: Option<Arc<DirPatterns>>,
    below: HashMap<TreePath, Arc<DirPatterns>>,
}

impl PathFilter {
    /// Creates the filter of `excludes`.
    pub fn new(excludes: &[Exclude]) -> Self {
        Self::default().with(excludes)
    }

    /// Creates a filter of patterns at the top of the tree.
    pub fn at_top<S: AsRef<str>>(patterns: &[S]) -> Self {
        let excludes: Vec<Exclude> = patterns
            .iter()
            .map(|p| Exclude::at_top(p.as_ref()))
            .collect();
        Self::new(&excludes)
    }

    /// Returns the filter with `more` patterns, which take precedence over those of the same
    /// directory.
    pub fn with(&self, more: &[Exclude]) -> Self {
        let mut found: HashMap<Option<&TreePath>, Vec<Exclude>> = HashMap::new();
        for exclude in more {
            let base = exclude.base.as_ref();
            let known = || {
                self.group(base)
                    .map_or_else(Vec::new, |group| group.patterns().to_vec())
            };
            found
                .entry(base)
                .or_insert_with(known)
                .push(exclude.clone());
        }

        let mut filter = self.clone();

        for (base, patterns) in found {
            let group = Arc::new(DirPatterns::new(patterns));
            match base {
                None => filter.top = Some(group),
                Some(base) => drop(filter.below.insert(base.clone(), group)),
            }
        }

        filter
    }

    fn group(&self, base: Option<&TreePath>) -> Option<&Arc<DirPatterns>> {
        base.map_or(self.top.as_ref(), |base| self.below.get(base))
    }

    /// Returns the patterns of the filter, those of each directory in their order.
    pub fn patterns(&self) -> Vec<Exclude> {
        let mut bases: Vec<&TreePath> = self.below.keys().collect();
        bases.sort();
        let below = bases.into_iter().filter_map(|base| self.below.get(base));
        self.top
            .iter()
            .chain(below)
            .flat_map(|group| group.patterns().iter().cloned())
            .collect()
    }

    /// Returns true without any pattern.
    pub fn is_empty(&self) -> bool {
        self.top.is_none() && self.below.is_empty()
    }

    /// Returns true if `path` itself is matched. The caller, a walk from the top, has ruled out the
    /// parents.
    pub fn matches_here(&self, path: &TreePath, is_dir: bool) -> bool {
        self.decide(path.as_bytes(), is_dir)
    }

    /// Returns true if `path` or a directory above is matched.
    pub fn matches(&self, path: &TreePath, is_dir: bool) -> bool {
        if self.is_empty() {
            return false;
        }
        let path = path.as_bytes();
        slashes(path).any(|slash| self.decide(&path[..slash], true)) || self.decide(path, is_dir)
    }

    /// Returns true if a pattern can match some name directly in `dir`; `None` for the top.
    pub fn may_match_in(&self, dir: Option<&TreePath>) -> bool {
        let dir = dir.map_or(&b""[..], TreePath::as_bytes);
        let within = |base: &TreePath| match dir.strip_prefix(base.as_bytes()) {
            Some([b'/', rest @ ..]) => Some(rest),
            Some([]) => Some(&[][..]),
            _ => None,
        };

        let below = || {
            self.below
                .iter()
                .filter_map(|(base, group)| within(base).map(|dir| (group, dir)))
        };

        self.top
            .as_ref()
            .is_some_and(|group| group.may_match_in(dir))
            || below().any(|(group, dir)| group.may_match_in(dir))
    }

    fn decide(&self, path: &[u8], is_dir: bool) -> bool {
        if !self.below.is_empty() {
            for slash in slashes(path).rev() {
                let group = self.below.get(&path[..slash]);
                if let Some(decided) =
                    group.and_then(|group| group.decide(&path[slash + 1..], is_dir))
                {
                    return decided;
                }
            }
        }

        self.top
            .as_ref()
            .and_then(|group| group.decide(path, is_dir))
            .unwrap_or(false)
    }
}

/// Returns the positions of the slashes in `path`.
fn slashes(path: &[u8]) -> impl DoubleEndedIterator<Item = usize> {
    path.iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'/')
        .map(|(at, _)| at)
}
