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
mod tests;
