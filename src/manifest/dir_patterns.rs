//! The compiled patterns of one directory. Literals and extensions are looked up in tables, so that
//! thousands of them cost no more than one.

use std::collections::{HashMap, HashSet};

use super::exclude::{Exclude, without_trailing_spaces};
use super::wildmatch::{PatternShape, Wildcard};

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
    /// Last pattern that matches any kind of path.
    any: Option<usize>,
    /// Last pattern at all: the one that applies to directories.
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
pub(super) struct DirPatterns {
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
    /// Compiles the patterns.
    pub(super) fn new(patterns: Vec<Exclude>) -> Self {
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

    /// Notes where the pattern can match.
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

    /// Returns the patterns, in their order.
    pub(super) fn patterns(&self) -> &[Exclude] {
        &self.patterns
    }

    /// Returns true if a pattern can match a path directly in `dir`, relative to the group's
    /// directory.
    pub(super) fn may_match_in(&self, dir: &[u8]) -> bool {
        self.anywhere
            || self.parents.contains(dir)
            || self
                .parent_patterns
                .iter()
                .any(|parent| parent.matches(dir))
    }

    /// Returns the verdict of the last pattern that matches `path`, relative to the group's
    /// directory: true to exclude.
    pub(super) fn decide(&self, path: &[u8], is_dir: bool) -> Option<bool> {
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
