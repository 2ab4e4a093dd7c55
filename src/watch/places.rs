//! Which directory each watch is on: every watched directory with its name and where it is.
//!
//! Pure. A directory has one name and a link to the one that it is in, so that a rename of one with ten thousand below
//! it changes one entry, and a path is put together only when something happens there. Must not know the kernel, nor
//! what is on the disk: who walks the tree tells what is where.

use std::collections::HashMap;

/// The number of a watch, as the kernel counts.
pub type Watch = i32;

/// A watched directory in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place(u32);

/// The tree's own directory.
pub const TOP: Place = Place(0);

/// The link of what is in no directory: the top, and what was moved away.
const NOWHERE: u32 = u32::MAX;

/// A directory: about 120 bytes with its name and its entries in the tables.
#[derive(Debug)]
struct Node {
    watch: Watch,
    parent: u32,
    name: Box<[u8]>,
    /// Sorted by name.
    children: Vec<u32>,
}

/// What [`Places::put`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It was there, with this watch.
    Known(Place),
    /// It is there now.
    New(Place),
    /// It is there now and was elsewhere; all that is below it came with it.
    Moved(Place),
    /// It cannot be below itself: the table is out of step with the disk.
    Impossible,
}

/// The table.
#[derive(Debug)]
pub struct Places {
    nodes: Vec<Node>,
    /// Entries that may be used again.
    free: Vec<u32>,
    of: HashMap<Watch, u32>,
    /// Further places of one directory: it is mounted there, too.
    more: HashMap<Watch, Vec<u32>>,
}

impl Places {
    /// A table with the top, that has this watch.
    pub fn new(top: Watch) -> Self {
        let node = Node {
            watch: top,
            parent: NOWHERE,
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

    /// How many directories are watched.
    pub fn len(&self) -> usize {
        self.of.len()
    }

    /// Whether nothing is watched, not even the top.
    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// The place of a watch.
    pub fn of(&self, watch: Watch) -> Option<Place> {
        self.of.get(&watch).map(|&at| Place(at))
    }

    /// The watch of a place.
    pub fn watch(&self, place: Place) -> Option<Watch> {
        self.nodes.get(place.0 as usize).map(|node| node.watch)
    }

    /// The directory that it is in; `None` of the top, and when it was moved away.
    pub fn parent(&self, place: Place) -> Option<Place> {
        let parent = self.nodes.get(place.0 as usize)?.parent;
        (parent != NOWHERE).then_some(Place(parent))
    }

    /// Further places of the same directory.
    pub fn more(&self, watch: Watch) -> Vec<Place> {
        self.more
            .get(&watch)
            .into_iter()
            .flatten()
            .map(|&at| Place(at))
            .collect()
    }

    /// Puts the path of a place, relative to the top, into `path`; false when it was moved away.
    pub fn path(&self, place: Place, path: &mut Vec<u8>) -> bool {
        path.clear();
        let mut at = place.0;
        while at != TOP.0 {
            let node = &self.nodes[at as usize];
            if node.parent == NOWHERE {
                return false;
            }
            // Backwards: it is turned round in the end.
            path.extend(node.name.iter().rev());
            if node.parent != TOP.0 {
                path.push(b'/');
            }
            at = node.parent;
        }

        path.reverse();
        true
    }

    /// The directory `name` in `place`, when it is watched.
    pub fn child(&self, place: Place, name: &[u8]) -> Option<Place> {
        let children = &self.nodes[place.0 as usize].children;
        self.search(children, name)
            .ok()
            .map(|at| Place(children[at]))
    }

    /// The directory `name` in `parent` has this watch. Another one of this name is away from now on: see
    /// [`Places::is_away`].
    pub fn put(&mut self, parent: Place, name: &[u8], watch: Watch) -> Put {
        let known = self.of(watch);
        if known.is_some_and(|known| known == TOP || self.is_within(parent, known)) {
            return Put::Impossible;
        }

        if let Some(child) = self.child(parent, name) {
            if self.nodes[child.0 as usize].watch == watch {
                return Put::Known(child);
            }
            self.detach(child);
        }

        let place = known.unwrap_or_else(|| self.add(watch));
        self.of.insert(watch, place.0);
        self.detach(place);
        self.attach(parent, place, name);

        if known.is_some() {
            Put::Moved(place)
        } else {
            Put::New(place)
        }
    }

    /// The directory `name` in `parent` is one that is known elsewhere, and is there still.
    pub fn put_again(&mut self, parent: Place, name: &[u8], watch: Watch) -> Place {
        if let Some(child) = self.child(parent, name) {
            if self.nodes[child.0 as usize].watch == watch {
                return child;
            }
            self.detach(child);
        }

        let place = self.add(watch);
        self.more.entry(watch).or_default().push(place.0);
        self.attach(parent, place, name);

        place
    }

    /// The directory is not where it was, and it is not known where it is.
    pub fn detach(&mut self, place: Place) {
        let parent = self.nodes[place.0 as usize].parent;
        if parent == NOWHERE {
            return;
        }

        let mut children = std::mem::take(&mut self.nodes[parent as usize].children);
        if let Ok(at) = self.search(&children, &self.nodes[place.0 as usize].name) {
            children.remove(at);
        }

        self.nodes[parent as usize].children = children;
        self.nodes[place.0 as usize].parent = NOWHERE;
    }

    /// Whether the watch is on a directory that was moved away and has not come back.
    pub fn is_away(&self, watch: Watch) -> bool {
        self.of(watch)
            .is_some_and(|place| place != TOP && self.nodes[place.0 as usize].parent == NOWHERE)
    }

    /// The watch has ended. What is below loses its place.
    pub fn remove(&mut self, watch: Watch) {
        let places = self
            .of
            .remove(&watch)
            .into_iter()
            .chain(self.more.remove(&watch).into_iter().flatten());

        for at in places.collect::<Vec<_>>() {
            self.detach(Place(at));
            for child in std::mem::take(&mut self.nodes[at as usize].children) {
                self.nodes[child as usize].parent = NOWHERE;
            }
            self.nodes[at as usize].name = Box::default();
            self.free.push(at);
        }
    }

    /// The watches on a directory and all below it.
    pub fn below(&self, place: Place) -> Vec<Watch> {
        let (mut open, mut watches) = (vec![place.0], Vec::new());
        while let Some(at) = open.pop() {
            let node = &self.nodes[at as usize];
            watches.push(node.watch);
            open.extend(&node.children);
        }
        watches
    }

    fn add(&mut self, watch: Watch) -> Place {
        let node = Node {
            watch,
            parent: NOWHERE,
            name: Box::default(),
            children: Vec::new(),
        };

        match self.free.pop() {
            Some(at) => {
                self.nodes[at as usize] = node;
                Place(at)
            }
            None => {
                self.nodes.push(node);
                // The kernel gives out fewer watches than that.
                Place(u32::try_from(self.nodes.len() - 1).expect("fewer than 2^31 watches"))
            }
        }
    }

    fn attach(&mut self, parent: Place, place: Place, name: &[u8]) {
        let node = &mut self.nodes[place.0 as usize];
        node.parent = parent.0;
        node.name = name.into();
        let mut children = std::mem::take(&mut self.nodes[parent.0 as usize].children);
        if let Err(at) = self.search(&children, name) {
            children.insert(at, place.0);
        }

        self.nodes[parent.0 as usize].children = children;
    }

    fn is_within(&self, place: Place, above: Place) -> bool {
        let mut at = place.0;
        while at != NOWHERE {
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

    fn path(places: &Places, watch: Watch) -> Option<String> {
        let mut path = Vec::new();
        let there = places.path(places.of(watch)?, &mut path);
        there.then(|| String::from_utf8(path).expect("UTF-8"))
    }

    #[test]
    fn a_rename_takes_along_what_is_below() {
        let mut places = Places::new(1);
        let Put::New(a) = places.put(TOP, b"a", 2) else {
            panic!("new")
        };

        let Put::New(b) = places.put(a, b"b", 3) else {
            panic!("new")
        };

        places.put(b, b"c", 4);
        assert_eq!(path(&places, 4).as_deref(), Some("a/b/c"));
        assert_eq!(places.put(TOP, b"z", 3), Put::Moved(b));
        assert_eq!(
            (path(&places, 4).as_deref(), path(&places, 2).as_deref()),
            (Some("z/c"), Some("a"))
        );

        assert_eq!(places.put(TOP, b"z", 3), Put::Known(b));
        assert_eq!(places.put(b, b"a", 1), Put::Impossible);
        assert_eq!(
            places.put(places.of(4).expect("there"), b"z", 3),
            Put::Impossible
        );
    }

    #[test]
    fn what_is_away_has_no_path_and_can_come_back() {
        let mut places = Places::new(1);
        let Put::New(a) = places.put(TOP, b"a", 2) else {
            panic!("new")
        };

        places.put(a, b"b", 3);
        places.detach(a);
        assert!(places.is_away(2) && !places.is_away(3) && path(&places, 3).is_none());
        assert_eq!(places.below(a), [2, 3]);
        places.put(TOP, b"new", 2);
        assert_eq!(path(&places, 3).as_deref(), Some("new/b"));

        // Another directory in its place.
        places.put(TOP, b"new", 4);
        assert!(places.is_away(2) && path(&places, 4).as_deref() == Some("new"));
        places.remove(2);
        places.remove(3);

        assert_eq!((places.len(), places.of(2)), (2, None));
    }

    #[test]
    fn one_directory_in_two_places() {
        let mut places = Places::new(1);
        places.put(TOP, b"a", 2);
        let again = places.put_again(TOP, b"b", 2);
        assert_eq!(places.put_again(TOP, b"b", 2), again);
        assert_eq!(places.more(2), [again]);
        places.remove(2);

        assert!(
            places.more(2).is_empty()
                && places.child(TOP, b"b").is_none()
                && places.child(TOP, b"a").is_none()
        );
    }

    proptest! {
        #[test]
        fn as_a_map_of_paths(steps in proptest::collection::vec((0u8..3, 0usize..12, "[a-d]", 2i32..14), 1..80)) {
            let mut places = Places::new(1);
            let mut model: BTreeMap<Watch, (Watch, String)> = BTreeMap::new();
            let full = |model: &BTreeMap<Watch, (Watch, String)>, watch: Watch| {
                let (mut parts, mut at) = (Vec::new(), watch);
                while at != 1 {
                    let (parent, name) = model.get(&at)?;
                    parts.insert(0, name.clone());
                    at = *parent;
                }
                Some(parts.join("/"))
            };

            for (what, parent, name, watch) in steps {
                let known: Vec<Watch> = std::iter::once(1).chain(2..14).filter(|w| places.of(*w).is_some()).collect();
                let parent = known[parent % known.len()];
                match what {
                    0 | 1 => {
                        let mut path = Vec::new();
                        let place = places.of(parent).expect("known");
                        if !places.path(place, &mut path) { continue; }
                        if places.put(place, name.as_bytes(), watch) != Put::Impossible {
                            model.retain(|w, (p, n)| *w == watch || (*p, &*n) != (parent, &name));
                            model.insert(watch, (parent, name));
                        }
                    }
                    _ => {
                        places.remove(watch);
                        model.remove(&watch);
                        model.retain(|_, (p, _)| *p != watch);
                    }
                }
                for watch in 2..14 {
                    prop_assert_eq!(path(&places, watch), full(&model, watch));
                }
            }
        }
    }
}
