//! Path patterns in the syntax of .gitignore, and the filter built from a list of patterns.
//!
//! The rules are git's own: paths ignored by git are excluded, byte for byte. A line that git
//! accepts and that matches nothing (an unclosed bracket, a lone `!`) is no error here either.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use minicbor::decode::Error as DecodeError;
use minicbor::{Decode, Decoder, Encode, Encoder};

use super::TreePath;
use super::wildmatch::{PatternShape, Wildcard};

/// Weight of a pattern in addition to its text, so that a cap in bytes also limits the number of
/// patterns.
const WEIGHT_OF_ONE: usize = 8;

/// One line of .gitignore, without the line ending.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern(Arc<[u8]>);

impl Pattern {
    /// Returns the line.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the line as text. A byte outside UTF-8 becomes `?`, which matches that byte.
    fn text(&self) -> String {
        self.0.utf8_chunks().fold(String::new(), |mut text, chunk| {
            text.push_str(chunk.valid());
            text.extend(chunk.invalid().iter().map(|_| '?'));
            text
        })
    }
}

impl From<&[u8]> for Pattern {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }
}

impl From<&str> for Pattern {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().into())
    }
}

impl From<String> for Pattern {
    fn from(text: String) -> Self {
        Self(text.into_bytes().into())
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", crate::units::printable(&self.0))
    }
}

/// One pattern, anchored at the directory of its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exclude {
    /// The directory; `None` at the top of the tree.
    pub base: Option<TreePath>,
    /// One line of .gitignore.
    pub pattern: Pattern,
}

/// Encoding of an exclude: the two fields of earlier header versions, and a third for a line that
/// is not UTF-8. Hosts of an earlier version use the text of such a line.
#[derive(Encode, Decode)]
struct Encoded<'a> {
    #[n(0)]
    base: Option<TreePath>,
    #[b(1)]
    text: std::borrow::Cow<'a, str>,
    #[b(2)]
    #[cbor(with = "minicbor::bytes")]
    bytes: Option<&'a [u8]>,
}

impl<C> Encode<C> for Exclude {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        let line = self.pattern.as_bytes();
        let base = self.base.clone();
        let encoded = match std::str::from_utf8(line) {
            Ok(text) => Encoded {
                base,
                text: text.into(),
                bytes: None,
            },
            // A broader negation would delete more, so older hosts receive none.
            Err(_) if line.first() == Some(&b'!') => Encoded {
                base,
                text: "#".into(),
                bytes: Some(line),
            },
            Err(_) => Encoded {
                base,
                text: self.pattern.text().into(),
                bytes: Some(line),
            },
        };

        encoded.encode(e, ctx)
    }
}

impl<'b, C> Decode<'b, C> for Exclude {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, DecodeError> {
        let Encoded { base, text, bytes } = Encoded::decode(d, ctx)?;
        let pattern = bytes.map_or_else(|| Pattern::from(&*text), Pattern::from);
        Ok(Self { base, pattern })
    }
}

impl Exclude {
    /// Creates a pattern at the top of the tree.
    pub fn at_top(pattern: impl Into<Pattern>) -> Self {
        Self {
            base: None,
            pattern: pattern.into(),
        }
    }

    /// Creates the pattern of exactly `path`.
    pub fn literal(path: &TreePath) -> Self {
        let mut line = vec![b'/'];
        for &byte in path.as_bytes() {
            if b"*?[]{}\\!# ".contains(&byte) {
                line.push(b'\\');
            }
            line.push(byte);
        }

        Self::at_top(line.as_slice())
    }

    /// Returns the bytes of the pattern and of its directory.
    pub(super) fn plain_bytes(&self) -> usize {
        let base = self.base.as_ref().map_or(0, |base| base.as_bytes().len());
        base + self.pattern.as_bytes().len()
    }

    /// Returns the share of the pattern in the cap on all patterns of a release.
    pub fn weight(&self) -> usize {
        WEIGHT_OF_ONE + self.plain_bytes()
    }
}

/// Splits an ignore file into its patterns, by git's rules.
pub fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    text.split(|byte| *byte == b'\n').filter_map(|line| {
        if line.first() == Some(&b'#') {
            return None;
        }
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = line.split(|byte| *byte == 0).next().unwrap_or_default();
        Some(without_trailing_spaces(line)).filter(|line| !line.is_empty())
    })
}

/// Removes trailing spaces from the line unless they are escaped.
fn without_trailing_spaces(line: &[u8]) -> &[u8] {
    let mut end = 0;
    let mut at = 0;
    while let Some(byte) = line.get(at) {
        at += 1 + usize::from(*byte == b'\\');
        if *byte != b' ' {
            end = at;
        }
    }

    &line[..end.min(line.len())]
}

/// One compiled line.
#[derive(Debug)]
struct Compiled {
    wildcard: Wildcard,
    negative: bool,
    /// Matches directories only.
    directory: bool,
    /// Matches the last component of a path, not the full path.
    name: bool,
}

impl Compiled {
    /// Compiles a line; `None` if the line matches nothing.
    fn new(line: &[u8]) -> Option<Self> {
        if line.first() == Some(&b'#') {
            return None;
        }

        let line = without_trailing_spaces(line);
        let negative = line.first() == Some(&b'!');
        let line = &line[usize::from(negative)..];

        let directory = line.last() == Some(&b'/');
        let line = &line[..line.len() - usize::from(directory)];
        let name = !line.contains(&b'/');

        let line = line.strip_prefix(b"/").unwrap_or(line);
        if line.is_empty() {
            return None;
        }

        Some(Self {
            wildcard: Wildcard::compile(line)?,
            negative,
            directory,
            name,
        })
    }
}

/// The last pattern with a certain literal or extension.
#[derive(Debug, Clone, Copy, Default)]
struct LastMatch {
    /// LastMatch pattern that matches any kind of path.
    any: Option<usize>,
    /// LastMatch pattern at all: the one that applies to directories.
    directory: Option<usize>,
}

impl LastMatch {
    fn add(&mut self, place: usize, directory: bool) {
        self.directory = Some(place);
        if !directory {
            self.any = Some(place);
        }
    }

    fn of(self, is_dir: bool) -> Option<usize> {
        if is_dir { self.directory } else { self.any }
    }
}

/// The patterns of one directory, numbered by position.
#[derive(Debug, Default)]
struct DirPatterns {
    patterns: Vec<Exclude>,
    /// True at the position of a negation.
    negative: Vec<bool>,
    names: HashMap<Box<[u8]>, LastMatch>,
    paths: HashMap<Box<[u8]>, LastMatch>,
    extensions: HashMap<Box<[u8]>, LastMatch>,
    /// All other patterns, the last first.
    others: Vec<(usize, Compiled)>,
    /// True if a pattern can match a path in any directory.
    anywhere: bool,
    /// Directories in which the other patterns can match.
    parents: HashSet<Box<[u8]>>,
    parent_patterns: Vec<Wildcard>,
}

impl DirPatterns {
    fn new(patterns: Vec<Exclude>) -> Self {
        let mut group = Self::default();
        for (place, exclude) in patterns.iter().enumerate() {
            let compiled = Compiled::new(exclude.pattern.as_bytes());
            group
                .negative
                .push(compiled.as_ref().is_some_and(|compiled| compiled.negative));
            let Some(compiled) = compiled else { continue };
            if !compiled.negative {
                group.note_parent(&compiled);
            }
            let (map, key) = match compiled.wildcard.shape() {
                PatternShape::Literal(literal) if compiled.name => (&mut group.names, literal),
                PatternShape::Literal(literal) => (&mut group.paths, literal),
                PatternShape::Extension(extension) if compiled.name => {
                    (&mut group.extensions, extension)
                }
                _ => {
                    group.others.push((place, compiled));
                    continue;
                }
            };
            map.entry(key.into())
                .or_default()
                .add(place, compiled.directory);
        }

        group.others.reverse();
        group.patterns = patterns;
        group
    }

    fn note_parent(&mut self, compiled: &Compiled) {
        let parent = if compiled.name {
            None
        } else {
            compiled.wildcard.directory()
        };

        match parent {
            None => self.anywhere = true,
            Some(parent) => match parent.shape() {
                PatternShape::Literal(literal) => drop(self.parents.insert(literal.into())),
                _ => self.parent_patterns.push(parent),
            },
        }
    }

    /// Returns true if a pattern can match a path directly in `dir`, relative to the group's
    /// directory.
    fn may_match_in(&self, dir: &[u8]) -> bool {
        self.anywhere
            || self.parents.contains(dir)
            || self
                .parent_patterns
                .iter()
                .any(|parent| parent.matches(dir))
    }

    /// Returns the verdict of the last pattern that matches `path`, relative to the group's
    /// directory: true to exclude.
    fn decide(&self, path: &[u8], is_dir: bool) -> Option<bool> {
        let slash = path.iter().rposition(|byte| *byte == b'/');
        let name = slash.map_or(path, |slash| &path[slash + 1..]);
        let find = |map: &HashMap<Box<[u8]>, LastMatch>, key: &[u8]| {
            if map.is_empty() {
                None
            } else {
                map.get(key).and_then(|last| last.of(is_dir))
            }
        };

        let mut last = find(&self.names, name).max(find(&self.paths, path));

        if let Some(dot) = name.iter().rposition(|byte| *byte == b'.') {
            last = last.max(find(&self.extensions, &name[dot + 1..]));
        }

        let later = self
            .others
            .iter()
            .take_while(|(place, _)| Some(*place) > last);
        let other = later
            .filter(|(_, compiled)| is_dir || !compiled.directory)
            .find(|(_, compiled)| {
                compiled
                    .wildcard
                    .matches(if compiled.name { name } else { path })
            });

        if let Some((place, _)) = other {
            last = Some(*place);
        }

        last.map(|place| !self.negative[place])
    }
}

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
                    .map_or_else(Vec::new, |group| group.patterns.clone())
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
            .flat_map(|group| group.patterns.iter().cloned())
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

#[cfg(test)]
mod tests;
