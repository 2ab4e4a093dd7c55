//! Table of watched directories: maps each inotify watch to a directory with its name and parent.
//!
//! Pure. Each directory stores its name and a link to its parent, so renaming one with ten thousand
//! below changes a single entry. A path is assembled only for an event. Knows neither the kernel
//! nor the disk: the caller walks the tree and reports directories.

use std::collections::HashMap;

/// Watch descriptor of inotify.
pub type Watch = i32;

/// Index of a watched directory in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DirId(u32);

/// Root directory of the tree.
pub const TOP_DIR: DirId = DirId(0);

/// Parent link of the root and of directories moved away.
const NO_PARENT: u32 = u32::MAX;

/// Watched directory: about 120 bytes with its name and its entries in the tables.
#[derive(Debug)]
struct WatchedDir {
    watch: Watch,
    parent: u32,
    name: Box<[u8]>,
    /// Sorted by name.
    children: Vec<u32>,
}

/// Effect of [`DirTable::put`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutResult {
    /// The directory was already there under this watch.
    Known(DirId),
    /// The directory is new.
    New(DirId),
    /// The directory moved here from elsewhere, with everything below.
    Moved(DirId),
    /// The directory would be below itself: the table is out of step with the disk.
    Impossible,
}

/// Table of watched directories.
#[derive(Debug)]
pub struct DirTable {
    nodes: Vec<WatchedDir>,
    /// Free entries for reuse.
    free: Vec<u32>,
    of: HashMap<Watch, u32>,
    /// Further entries of a directory that is also mounted elsewhere.
    more: HashMap<Watch, Vec<u32>>,
}

impl DirTable {
    /// Creates a table of the root alone, under the watch `top`.
    pub fn new(top: Watch) -> Self {
        let node = WatchedDir {
            watch: top,
            parent: NO_PARENT,
            name: Box::default(),
            children: Vec::new(),
        };

        Self {
            nodes: vec![node],
            free: Vec::new(),
            of: HashMap::from([(top, 0)]),
            more: HashMap::new(),
        }
    }

    /// Number of watched directories.
    pub fn len(&self) -> usize {
        self.of.len()
    }

    /// Returns whether nothing is watched, not even the root.
    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// Directory under this watch.
    pub fn of(&self, watch: Watch) -> Option<DirId> {
        self.of.get(&watch).map(|&at| DirId(at))
    }

    /// Watch on a directory.
    pub fn watch(&self, dir: DirId) -> Option<Watch> {
        self.nodes.get(dir.0 as usize).map(|node| node.watch)
    }

    /// Parent directory; `None` for the root and for directories moved away.
    pub fn parent(&self, dir: DirId) -> Option<DirId> {
        let parent = self.nodes.get(dir.0 as usize)?.parent;
        (parent != NO_PARENT).then_some(DirId(parent))
    }

    /// Further entries of the same directory.
    pub fn more(&self, watch: Watch) -> Vec<DirId> {
        self.more
            .get(&watch)
            .into_iter()
            .flatten()
            .map(|&at| DirId(at))
            .collect()
    }

    /// Writes the path relative to the root into `path`; returns false for a directory moved away.
    pub fn path(&self, dir: DirId, path: &mut Vec<u8>) -> bool {
        path.clear();
        let mut at = dir.0;
        while at != TOP_DIR.0 {
            let node = &self.nodes[at as usize];
            if node.parent == NO_PARENT {
                return false;
            }
            // Built backwards and reversed at the end.
            path.extend(node.name.iter().rev());
            if node.parent != TOP_DIR.0 {
                path.push(b'/');
            }
            at = node.parent;
        }

        path.reverse();
        true
    }

    /// Watched directory `name` in `dir`.
    pub fn child(&self, dir: DirId, name: &[u8]) -> Option<DirId> {
        let children = &self.nodes[dir.0 as usize].children;
        self.search(children, name)
            .ok()
            .map(|at| DirId(children[at]))
    }

    /// Records that the directory `name` in `parent` has this watch. A different directory of this
    /// name is moved away: see [`DirTable::is_away`].
    pub fn put(&mut self, parent: DirId, name: &[u8], watch: Watch) -> PutResult {
        let known = self.of(watch);
        if known.is_some_and(|known| known == TOP_DIR || self.is_within(parent, known)) {
            return PutResult::Impossible;
        }

        if let Some(child) = self.child(parent, name) {
            if self.nodes[child.0 as usize].watch == watch {
                return PutResult::Known(child);
            }
            self.detach(child);
        }

        let dir = known.unwrap_or_else(|| self.add(watch));
        self.of.insert(watch, dir.0);
        self.detach(dir);
        self.attach(parent, dir, name);

        if known.is_some() {
            PutResult::Moved(dir)
        } else {
            PutResult::New(dir)
        }
    }

    /// Records that a directory known elsewhere is also at `name` in `parent`.
    pub fn put_again(&mut self, parent: DirId, name: &[u8], watch: Watch) -> DirId {
        if let Some(child) = self.child(parent, name) {
            if self.nodes[child.0 as usize].watch == watch {
                return child;
            }
            self.detach(child);
        }

        let dir = self.add(watch);
        self.more.entry(watch).or_default().push(dir.0);
        self.attach(parent, dir, name);

        dir
    }

    /// Marks a directory as moved to an unknown place.
    pub fn detach(&mut self, dir: DirId) {
        let parent = self.nodes[dir.0 as usize].parent;
        if parent == NO_PARENT {
            return;
        }

        let mut children = std::mem::take(&mut self.nodes[parent as usize].children);
        if let Ok(at) = self.search(&children, &self.nodes[dir.0 as usize].name) {
            children.remove(at);
        }

        self.nodes[parent as usize].children = children;
        self.nodes[dir.0 as usize].parent = NO_PARENT;
    }

    /// Returns whether the watch is on a directory that was moved away and has not come back.
    pub fn is_away(&self, watch: Watch) -> bool {
        self.of(watch)
            .is_some_and(|dir| dir != TOP_DIR && self.nodes[dir.0 as usize].parent == NO_PARENT)
    }

    /// Removes a watch that ended. Directories below lose their parent.
    pub fn remove(&mut self, watch: Watch) {
        let dirs = self
            .of
            .remove(&watch)
            .into_iter()
            .chain(self.more.remove(&watch).into_iter().flatten());

        for at in dirs.collect::<Vec<_>>() {
            self.detach(DirId(at));
            for child in std::mem::take(&mut self.nodes[at as usize].children) {
                self.nodes[child as usize].parent = NO_PARENT;
            }
            self.nodes[at as usize].name = Box::default();
            self.free.push(at);
        }
    }

    /// Watches on a directory and everything below.
    pub fn below(&self, dir: DirId) -> Vec<Watch> {
        let mut open = vec![dir.0];
        let mut watches = Vec::new();
        while let Some(at) = open.pop() {
            let node = &self.nodes[at as usize];
            watches.push(node.watch);
            open.extend(&node.children);
        }
        watches
    }

    fn add(&mut self, watch: Watch) -> DirId {
        let node = WatchedDir {
            watch,
            parent: NO_PARENT,
            name: Box::default(),
            children: Vec::new(),
        };

        match self.free.pop() {
            Some(at) => {
                self.nodes[at as usize] = node;
                DirId(at)
            }
            None => {
                self.nodes.push(node);
                // The kernel hands out fewer watches than that.
                DirId(u32::try_from(self.nodes.len() - 1).expect("fewer than 2^31 watches"))
            }
        }
    }

    fn attach(&mut self, parent: DirId, dir: DirId, name: &[u8]) {
        let node = &mut self.nodes[dir.0 as usize];
        node.parent = parent.0;
        node.name = name.into();
        let mut children = std::mem::take(&mut self.nodes[parent.0 as usize].children);
        if let Err(at) = self.search(&children, name) {
            children.insert(at, dir.0);
        }

        self.nodes[parent.0 as usize].children = children;
    }

    fn is_within(&self, dir: DirId, above: DirId) -> bool {
        let mut at = dir.0;
        while at != NO_PARENT {
            if at == above.0 {
                return true;
            }
            at = self.nodes[at as usize].parent;
        }

        false
    }

    fn search(&self, children: &[u32], name: &[u8]) -> Result<usize, usize> {
        children.binary_search_by(|&child| (*self.nodes[child as usize].name).cmp(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn path(dirs: &DirTable, watch: Watch) -> Option<String> {
        let mut path = Vec::new();
        let there = dirs.path(dirs.of(watch)?, &mut path);
        there.then(|| String::from_utf8(path).expect("UTF-8"))
    }

    #[test]
    fn a_rename_takes_along_what_is_below() {
        let mut dirs = DirTable::new(1);
        let PutResult::New(a) = dirs.put(TOP_DIR, b"a", 2) else {
            panic!("new")
        };

        let PutResult::New(b) = dirs.put(a, b"b", 3) else {
            panic!("new")
        };

        dirs.put(b, b"c", 4);
        assert_eq!(path(&dirs, 4).as_deref(), Some("a/b/c"));
        assert_eq!(dirs.put(TOP_DIR, b"z", 3), PutResult::Moved(b));
        assert_eq!(
            (path(&dirs, 4).as_deref(), path(&dirs, 2).as_deref()),
            (Some("z/c"), Some("a"))
        );

        assert_eq!(dirs.put(TOP_DIR, b"z", 3), PutResult::Known(b));
        assert_eq!(dirs.put(b, b"a", 1), PutResult::Impossible);
        assert_eq!(
            dirs.put(dirs.of(4).expect("there"), b"z", 3),
            PutResult::Impossible
        );
    }

    #[test]
    fn what_is_away_has_no_path_and_can_come_back() {
        let mut dirs = DirTable::new(1);
        let PutResult::New(a) = dirs.put(TOP_DIR, b"a", 2) else {
            panic!("new")
        };

        dirs.put(a, b"b", 3);
        dirs.detach(a);
        assert!(dirs.is_away(2) && !dirs.is_away(3) && path(&dirs, 3).is_none());
        assert_eq!(dirs.below(a), [2, 3]);
        dirs.put(TOP_DIR, b"new", 2);
        assert_eq!(path(&dirs, 3).as_deref(), Some("new/b"));

        // A different directory takes the name.
        dirs.put(TOP_DIR, b"new", 4);
        assert!(dirs.is_away(2) && path(&dirs, 4).as_deref() == Some("new"));
        dirs.remove(2);
        dirs.remove(3);

        assert_eq!((dirs.len(), dirs.of(2)), (2, None));
    }

    #[test]
    fn one_directory_in_two_places() {
        let mut dirs = DirTable::new(1);
        dirs.put(TOP_DIR, b"a", 2);
        let again = dirs.put_again(TOP_DIR, b"b", 2);
        assert_eq!(dirs.put_again(TOP_DIR, b"b", 2), again);
        assert_eq!(dirs.more(2), [again]);
        dirs.remove(2);

        assert!(
            dirs.more(2).is_empty()
                && dirs.child(TOP_DIR, b"b").is_none()
                && dirs.child(TOP_DIR, b"a").is_none()
        );
    }

    proptest! {
        #[test]
        fn as_a_map_of_paths(
            steps in proptest::collection::vec((0u8..3, 0usize..12, "[a-d]", 2i32..14), 1..80),
        ) {
            let mut dirs = DirTable::new(1);
            let mut model: BTreeMap<Watch, (Watch, String)> = BTreeMap::new();
            let full = |model: &BTreeMap<Watch, (Watch, String)>, watch: Watch| {
                let mut parts = Vec::new();
                let mut at = watch;
                while at != 1 {
                    let (parent, name) = model.get(&at)?;
                    parts.insert(0, name.clone());
                    at = *parent;
                }
                Some(parts.join("/"))
            };

            for (what, parent, name, watch) in steps {
                let known: Vec<Watch> = std::iter::once(1)
                    .chain(2..14)
                    .filter(|w| dirs.of(*w).is_some())
                    .collect();
                let parent = known[parent % known.len()];
                match what {
                    0 | 1 => {
                        let mut path = Vec::new();
                        let dir = dirs.of(parent).expect("known");
                        if !dirs.path(dir, &mut path) {
                            continue;
                        }
                        if dirs.put(dir, name.as_bytes(), watch) != PutResult::Impossible {
                            model.retain(|w, (p, n)| *w == watch || (*p, &*n) != (parent, &name));
                            model.insert(watch, (parent, name));
                        }
                    }
                    _ => {
                        dirs.remove(watch);
                        model.remove(&watch);
                        model.retain(|_, (p, _)| *p != watch);
                    }
                }
                for watch in 2..14 {
                    prop_assert_eq!(path(&dirs, watch), full(&model, watch));
                }
            }
        }
    }
}
