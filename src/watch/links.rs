//! Files that can change without an event: the kernel tells nothing of what is done through a name that is not watched,
//! nor through a handle whose name is gone.
//!
//! Owns which watched files have further names, or were open for writing when they were read, and what each was when
//! that was known last. Must not know where names come from, nor how a file is looked at.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::time::Duration;

use crate::manifest::TreePath;
use crate::tree::scan::Exposed;
use crate::tree::{FileId, FileStat, Version};
use crate::units::Moment;

/// How often such files are looked at.
pub const EVERY: Duration = Duration::from_secs(2);
/// How many are looked at each time, at most: of more it is the next ones' turn.
const AT_ONCE: usize = 10_000;
/// How many files with several names are kept in mind.
pub const MAX_FILES: usize = 200_000;

/// Where it cannot be told whether a file is open it counts as open for so long after its last change.
const MAY_BE_OPEN: Duration = Duration::from_secs(600);

/// The watched files that can change without an event.
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
    /// Whether somebody could write to it when that was asked last.
    is_open: bool,
    /// Its last change that is known.
    since: Moment,
}

/// A file that changed, or that was closed.
#[derive(Debug, PartialEq, Eq)]
pub struct Changed {
    /// Its watched names.
    pub paths: Vec<TreePath>,
    /// Whether somebody has it open for writing.
    pub is_open: bool,
    /// Whether it is not what it was known to be.
    pub is_other: bool,
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

        let fresh = || Linked {
            paths: Vec::new(),
            names: stat.nlink,
            version: stat.version(),
            is_open: false,
            since: Moment::default(),
        };

        let linked = self.files.entry(stat.id).or_insert_with(fresh);
        linked.names = stat.nlink;
        if self.names.insert(path.clone(), stat.id) != Some(stat.id) {
            linked.paths.push(path.clone());
        }
    }

    /// A file that a scan found exposed, and read as it then was.
    pub fn expose(&mut self, now: Moment, exposed: &Exposed) {
        self.add(&exposed.path, &exposed.stat);
        if let Some(linked) = self.files.get_mut(&exposed.stat.id) {
            linked.version = exposed.stat.version();
            linked.is_open |= exposed.is_open;
            linked.since = now;
        }
    }

    /// Takes over which files are open from one who listened before.
    pub fn keep_open_files(&mut self, before: Links) {
        for (id, old) in before.files.into_iter().filter(|(_, old)| old.is_open) {
            for path in &old.paths {
                self.names.entry(path.clone()).or_insert(id);
            }
            let paths = self
                .files
                .remove(&id)
                .map_or_else(Vec::new, |known| known.paths);
            let more = old
                .paths
                .iter()
                .filter(|path| !paths.contains(path))
                .cloned()
                .collect::<Vec<_>>();
            self.files.insert(
                id,
                Linked {
                    paths: [paths, more].concat(),
                    ..old
                },
            );
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
        let mut found = self
            .files
            .values()
            .filter(|linked| linked.has_other_names());
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

    /// Looks at the next files. Returns those that changed without being [seen](Links::seen), or were closed.
    pub fn look(
        &mut self,
        at: Moment,
        mut stat: impl FnMut(&TreePath) -> Option<FileStat>,
        mut is_open: impl FnMut(&TreePath) -> Option<bool>,
    ) -> Vec<Changed> {
        let next = self.next();
        self.last = next.last().copied();
        let mut changed = Vec::new();
        for id in next {
            let Some(linked) = self.files.get_mut(&id) else {
                continue;
            };
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
            let (Some(mut now), Some(path)) = (now, linked.paths.first()) else {
                self.drop_file(id);
                continue;
            };

            // Its other name may be gone and still be open.
            let was_open = linked.is_open;
            if was_open || now.nlink == 1 || now.version() != linked.version {
                linked.is_open = is_open(path).unwrap_or(at.since(linked.since) < MAY_BE_OPEN);
                // After that nobody can write who could before, unless it is open.
                now = stat(path).filter(|found| found.id == id).unwrap_or(now);
            }

            // A name more or less changes the file as well: looking at it is cheap.
            linked.names = now.nlink;
            let is_other = std::mem::replace(&mut linked.version, now.version()) != now.version();
            if is_other {
                linked.since = at;
            }
            if is_other || was_open && !linked.is_open {
                changed.push(Changed {
                    paths: linked.paths.clone(),
                    is_open: linked.is_open,
                    is_other,
                });
            }
            if now.nlink == 1 && !linked.is_open {
                self.drop_file(id);
            }
        }

        changed
    }

    fn drop_file(&mut self, id: FileId) {
        let paths = self
            .files
            .remove(&id)
            .map_or_else(Vec::new, |linked| linked.paths);

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
        let start = self
            .last
            .map(|last| self.files.range(..=last))
            .into_iter()
            .flatten();
        rest.chain(start).map(|(id, _)| *id).take(AT_ONCE).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::new(text.as_bytes()).expect("legal")
    }

    /// A directory, and how files in it are looked at.
    struct Dir(tempfile::TempDir);

    impl Dir {
        fn at(&self, name: &str) -> std::path::PathBuf {
            self.0.path().join(name)
        }

        fn stat(&self, path: &TreePath) -> Option<FileStat> {
            let name = std::ffi::CString::new(path.as_bytes()).expect("no NUL");
            let open = std::fs::File::open(self.0.path()).expect("there");
            FileStat::at(std::os::fd::AsFd::as_fd(&open), &name).ok()
        }

        /// What changed, of files that nobody has open but as `open` says.
        fn look(&self, links: &mut Links, open: Option<bool>) -> Vec<(Vec<TreePath>, bool, bool)> {
            let changed = links.look(Moment::default(), |path| self.stat(path), |_| open);
            changed
                .into_iter()
                .map(|changed| (changed.paths, changed.is_open, changed.is_other))
                .collect()
        }
    }

    #[test]
    fn what_is_written_through_another_name_is_found() {
        let dir = Dir(tempfile::tempdir().expect("a directory"));
        std::fs::write(dir.at("both"), "1").expect("mine");
        std::fs::hard_link(dir.at("both"), dir.at("out")).expect("mine");
        std::fs::write(dir.at("within"), "1").expect("mine");
        std::fs::hard_link(dir.at("within"), dir.at("within2")).expect("mine");
        let mut links = Links::default();
        for name in ["both", "within", "within2"].map(path) {
            links.add(&name, &dir.stat(&name).expect("there"));
        }

        let closed = Some(false);
        assert_eq!(links.unwatched(), Some((1, &path("both"))));
        assert_eq!(dir.look(&mut links, closed), []);
        std::fs::write(dir.at("out"), "22").expect("mine");
        assert_eq!(
            dir.look(&mut links, closed),
            [(vec![path("both")], false, true)]
        );

        assert_eq!(dir.look(&mut links, closed), []);
        std::fs::write(dir.at("both"), "333").expect("mine");
        links.seen(&dir.stat(&path("both")).expect("there"));
        assert_eq!(dir.look(&mut links, closed), [], "it is known");
        std::fs::remove_file(dir.at("both")).expect("mine");
        dir.look(&mut links, closed);

        assert_eq!(
            (
                links.unwatched(),
                links.files.len(),
                links.has(&path("both"))
            ),
            (None, 1, false)
        );
    }

    #[test]
    fn a_file_stays_in_mind_while_it_is_open_by_a_name_that_is_gone() {
        let dir = Dir(tempfile::tempdir().expect("a directory"));
        let is = |open, other| [(vec![path("stays")], open, other)];
        std::fs::write(dir.at("stays"), "1").expect("mine");
        std::fs::hard_link(dir.at("stays"), dir.at("goes")).expect("mine");
        let mut links = Links::default();
        links.add(&path("stays"), &dir.stat(&path("stays")).expect("there"));
        std::fs::remove_file(dir.at("goes")).expect("mine");

        assert_eq!(dir.look(&mut links, Some(true)), is(true, true));
        assert_eq!(dir.look(&mut links, Some(true)), []);
        std::fs::write(dir.at("stays"), "22").expect("mine");
        assert_eq!(dir.look(&mut links, Some(true)), is(true, true));
        assert_eq!(
            dir.look(&mut links, Some(false)),
            is(false, false),
            "it was closed"
        );

        assert!(links.is_empty() && !links.has(&path("stays")));

        // One that was written to and closed between two looks.
        std::fs::write(dir.at("stays"), "333").expect("mine");
        let stat = dir.stat(&path("stays")).expect("there");
        links.expose(
            Moment::default(),
            &Exposed {
                path: path("stays"),
                stat,
                is_open: true,
            },
        );

        std::fs::write(dir.at("stays"), "4444").expect("mine");
        assert_eq!(dir.look(&mut links, Some(false)), is(false, true));
        assert!(links.is_empty());

        // Where nobody knows, for a while; and as long as another listens.
        links.expose(
            Moment::default(),
            &Exposed {
                path: path("stays"),
                stat,
                is_open: true,
            },
        );

        let mut later = Links::default();
        later.keep_open_files(links);
        assert_eq!(dir.look(&mut later, None), is(true, true));
        let stat = |path: &TreePath| dir.stat(path);
        assert_eq!(
            later
                .look(Moment::default() + MAY_BE_OPEN, stat, |_| None)
                .len(),
            1
        );

        assert!(later.is_empty());
    }

    #[test]
    fn of_many_it_is_the_next_ones_turn() {
        let mut links = Links::default();
        let dir = tempfile::tempdir().expect("a directory");
        let one = FileStat::of(std::fs::File::open(dir.path()).expect("there")).expect("a stat");
        let stat = |ino: u64| FileStat {
            id: FileId { dev: 1, ino },
            nlink: 2,
            ..one
        };

        let count = 2 * AT_ONCE as u64 + 10;
        (0..count).for_each(|ino| links.add(&path(&ino.to_string()), &stat(ino)));
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..3 {
            let mut now = 0;
            let look = |path: &TreePath| {
                let ino = path.to_string().parse().expect("a number");
                seen.insert(ino);
                now += 1;
                Some(stat(ino))
            };
            links.look(Moment::default(), look, |_| Some(false));
            assert_eq!(now, AT_ONCE);
        }

        assert_eq!(seen.len() as u64, count);
    }
}
