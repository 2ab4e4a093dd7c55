//! Files with names that are not watched: the kernel tells nothing of what is written through those.
//!
//! Owns which watched files have further names, outside the source or excluded, and when each was last seen to change.
//! Must not know where names come from, nor how a file is looked at.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::time::Duration;

use crate::manifest::TreePath;
use crate::tree::meta::{FileStat, Version};
use crate::tree::root::FileId;

/// How often such files are looked at.
pub const EVERY: Duration = Duration::from_secs(2);
/// How many are looked at each time, at most: of more it is the next ones' turn.
const AT_ONCE: usize = 10_000;
/// How many files with several names are kept in mind.
pub const MAX_FILES: usize = 200_000;

/// The watched files that have several names.
#[derive(Debug, Default)]
pub struct Links {
    files: BTreeMap<FileId, Linked>,
    /// The file of each watched name.
    names: HashMap<TreePath, FileId>,
    /// The file that was looked at last.
    last: Option<FileId>,
    /// Whether there were too many to keep them all in mind.
    full: bool,
}

#[derive(Debug)]
struct Linked {
    /// The names that are watched.
    paths: Vec<TreePath>,
    /// How many names there are.
    names: u32,
    version: Version,
}

impl Linked {
    fn has_other_names(&self) -> bool {
        self.names as usize > self.paths.len()
    }
}

impl Links {
    /// A watched name of a file that has several.
    pub fn add(&mut self, path: &TreePath, stat: &FileStat) {
        if self.files.len() >= MAX_FILES && !self.files.contains_key(&stat.id) {
            self.full = true;
            return;
        }
        let fresh = || Linked { paths: Vec::new(), names: stat.nlink, version: stat.version() };
        let linked = self.files.entry(stat.id).or_insert_with(fresh);
        linked.names = stat.nlink;
        if self.names.insert(path.clone(), stat.id) != Some(stat.id) {
            linked.paths.push(path.clone());
        }
    }

    /// Whether the path is a name that [`Links::add`] was given.
    pub fn has(&self, path: &TreePath) -> bool {
        self.names.contains_key(path)
    }

    /// A change of the file is known already.
    pub fn seen(&mut self, stat: &FileStat) {
        if let Some(linked) = self.files.get_mut(&stat.id) {
            linked.version = stat.version();
        }
    }

    /// How many files have names that are not watched, and a watched name of one of them.
    pub fn unwatched(&self) -> Option<(usize, &TreePath)> {
        let mut found = self.files.values().filter(|linked| linked.has_other_names());
        let first = found.next()?.paths.first()?;
        Some((1 + found.count(), first))
    }

    /// Whether some files were not kept in mind.
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// Whether there is nothing to look at.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Looks at the next files. Returns the watched names of each that changed without being [seen](Links::seen).
    pub fn look(&mut self, mut stat: impl FnMut(&TreePath) -> Option<FileStat>) -> Vec<Vec<TreePath>> {
        let next = self.next();
        self.last = next.last().copied();
        let mut changed = Vec::new();
        for id in next {
            let Some(linked) = self.files.get_mut(&id) else { continue };
            let mut now = None;
            linked.paths.retain(|path| {
                let found = stat(path).filter(|found| found.id == id);
                now = found.or(now);
                let stays = found.is_some() && self.names.get(path) == Some(&id);
                if !stays && self.names.get(path) == Some(&id) {
                    self.names.remove(path);
                }
                stays
            });
            let Some(now) = now.filter(|now| now.nlink > 1 && !linked.paths.is_empty()) else {
                self.drop_file(id);
                continue;
            };

            // A name more or less changes the file as well: looking at it is cheap.
            linked.names = now.nlink;
            if std::mem::replace(&mut linked.version, now.version()) != now.version() {
                changed.push(linked.paths.clone());
            }
        }
        changed
    }

    fn drop_file(&mut self, id: FileId) {
        let paths = self.files.remove(&id).map_or_else(Vec::new, |linked| linked.paths);
        for path in paths {
            if self.names.get(&path) == Some(&id) {
                self.names.remove(&path);
            }
        }
    }

    /// The files whose turn it is.
    fn next(&self) -> Vec<FileId> {
        let last = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let rest = self.files.range((last, Bound::Unbounded));
        let start = self.last.map(|last| self.files.range(..=last)).into_iter().flatten();
        rest.chain(start).map(|(id, _)| *id).take(AT_ONCE).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::new(text.as_bytes()).expect("legal")
    }

    #[test]
    fn what_is_written_through_another_name_is_found() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        let stat = |path: &TreePath| {
            let name = std::ffi::CString::new(path.as_bytes()).expect("no NUL");
            let open = std::fs::File::open(dir.path()).expect("there");
            FileStat::at(std::os::fd::AsFd::as_fd(&open), &name).ok()
        };
        std::fs::write(at("both"), "1").expect("mine");
        std::fs::hard_link(at("both"), at("out")).expect("mine");
        std::fs::write(at("within"), "1").expect("mine");
        std::fs::hard_link(at("within"), at("within2")).expect("mine");
        let mut links = Links::default();
        for name in ["both", "within", "within2"].map(path) {
            links.add(&name, &stat(&name).expect("there"));
        }
        assert_eq!(links.unwatched(), Some((1, &path("both"))));
        let nothing: [Vec<TreePath>; 0] = [];
        assert_eq!(links.look(stat), nothing);
        std::fs::write(at("out"), "22").expect("mine");
        assert_eq!(links.look(stat), [[path("both")]]);
        assert_eq!(links.look(stat), nothing);
        std::fs::write(at("both"), "333").expect("mine");
        links.seen(&stat(&path("both")).expect("there"));
        assert_eq!(links.look(stat), nothing, "it is known");
        std::fs::remove_file(at("both")).expect("mine");
        links.look(stat);
        assert_eq!((links.unwatched(), links.files.len(), links.has(&path("both"))), (None, 1, false));
    }

    #[test]
    fn of_many_it_is_the_next_ones_turn() {
        let mut links = Links::default();
        let dir = tempfile::tempdir().expect("a directory");
        let one = FileStat::of(std::fs::File::open(dir.path()).expect("there")).expect("a stat");
        let stat = |ino: u64| FileStat { id: FileId { dev: 1, ino }, nlink: 2, ..one };
        let count = 2 * AT_ONCE as u64 + 10;
        (0..count).for_each(|ino| links.add(&path(&ino.to_string()), &stat(ino)));
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..3 {
            let mut now = 0;
            links.look(|path| {
                let ino = path.to_string().parse().expect("a number");
                seen.insert(ino);
                now += 1;
                Some(stat(ino))
            });
            assert_eq!(now, AT_ONCE);
        }
        assert_eq!(seen.len() as u64, count);
    }
}
