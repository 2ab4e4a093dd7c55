//! The key that a host signs its words with: the same at each start, whichever of its trees can be opened then.
//!
//! Each tree keeps a copy, since a tree may go with its disk or from the configuration. A tree that cannot be opened or
//! read may have the host's key: as long as no other tree has one, none is written.

use std::path::PathBuf;
use std::sync::OnceLock;

use super::trees::Trees;
use crate::Result;
use crate::id::TreeName;
use crate::keys::{HostKey, random_bytes};
use crate::tree::Tree;

/// The secret of the key that this process uses, once it has one.
#[derive(Debug, Default)]
pub struct OwnKey(OnceLock<[u8; 32]>);

impl OwnKey {
    /// The secret for this process; `trees` keep it from now on.
    pub(super) fn of(&self, trees: &Trees) -> Result<[u8; 32]> {
        let kept = Kept::read(trees);
        let seed = kept.first().map_or_else(random_bytes, Ok)?;
        let used = *self.0.get_or_init(|| seed);
        kept.complete(used);
        Ok(used)
    }

    /// A tree could be opened only now: all of `trees` keep the same key.
    pub(super) fn opened(&self, trees: &Trees) {
        if let Some(used) = self.0.get() {
            Kept::read(trees).complete(*used);
        }
    }
}

/// What the trees of a host keep.
#[derive(Default)]
struct Kept<'a> {
    seeds: Vec<(&'a Tree, [u8; 32])>,
    lacking: Vec<&'a Tree>,
    /// A tree that may keep one.
    unknown: Option<&'a TreeName>,
}

impl<'a> Kept<'a> {
    fn read(trees: &'a Trees) -> Self {
        let mut kept = Self {
            unknown: trees.all_broken().next().map(|(name, _)| name),
            ..Self::default()
        };

        for (name, tree) in trees.iter().map(|(name, managed)| (name, &*managed.tree)) {
            match tree.state().kept_host_key() {
                Ok(Some(seed)) => kept.seeds.push((tree, seed)),
                Ok(None) => kept.lacking.push(tree),
                Err(e) => {
                    tracing::warn!("tree {name}: the key of this host cannot be read: {e}");
                    kept.unknown = Some(name);
                }
            }
        }

        kept
    }

    fn first(&self) -> Option<[u8; 32]> {
        self.seeds.first().map(|(_, seed)| *seed)
    }

    /// Copies the key that is kept, else the one that is `used`, to the trees that lack one.
    fn complete(&self, used: [u8; 32]) {
        let is_kept = self.seeds.iter().any(|(_, seed)| *seed == used);
        let seed = match (self.first().filter(|_| !is_kept), self.unknown) {
            (Some(other), _) => {
                tracing::warn!(
                    "the host key from the next start on is {}",
                    fingerprint(other)
                );
                other
            }
            (None, Some(name)) if !is_kept => {
                tracing::warn!("the host key is not kept: tree {name} may have the right one");
                return;
            }
            (None, _) => used,
        };

        for (tree, other) in self.seeds.iter().filter(|(_, other)| *other != seed) {
            let (file, other) = (file(tree).display().to_string(), fingerprint(*other));
            tracing::warn!(
                "{file} is another host key, {other}, than {}: delete the wrong one",
                fingerprint(seed)
            );
        }

        for tree in &self.lacking {
            if let Err(e) = tree.state().keep_host_key(&seed) {
                tracing::warn!(
                    "tree {}: the key of this host is not kept: {e}",
                    tree.name()
                );
            }
        }
    }
}

fn file(tree: &Tree) -> PathBuf {
    tree.state().host_key_file()
}

fn fingerprint(seed: [u8; 32]) -> String {
    HostKey::new(seed, 0)
        .identity()
        .public()
        .map_or_else(String::new, |key| key.fingerprint().to_string())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::TreeConfig;
    use crate::drive::disk::open_tree;

    fn name(name: &str) -> TreeName {
        TreeName::new(name).expect("legal")
    }

    /// Trees in `dir`; those in `broken` cannot be opened.
    fn trees(dir: &Path, open: &[&str], broken: &[&str]) -> Trees {
        let mut trees: Trees = open
            .iter()
            .map(|tree| (name(tree), managed(dir, tree)))
            .collect();
        broken
            .iter()
            .for_each(|tree| trees.add_broken(name(tree), "not mounted".into()));
        trees
    }

    fn managed(dir: &Path, tree: &str) -> crate::drive::disk::ManagedTree {
        std::fs::create_dir_all(dir.join(tree)).expect("writable");
        open_tree(&TreeConfig::new(name(tree), dir.join(tree)), None).expect("opens")
    }

    /// The key at a start with these trees.
    fn start(dir: &Path, open: &[&str], broken: &[&str]) -> [u8; 32] {
        OwnKey::default()
            .of(&trees(dir, open, broken))
            .expect("random")
    }

    fn kept(dir: &Path, tree: &str) -> Option<Vec<u8>> {
        std::fs::read(dir.join(".makuo").join(tree).join("host_key")).ok()
    }

    #[test]
    fn a_tree_that_is_away_or_gone_does_not_take_the_key_along() {
        let dir = tempfile::tempdir().expect("a directory");
        let key = start(dir.path(), &["a"], &[]);
        assert_eq!(start(dir.path(), &["a", "b"], &[]), key);
        assert_eq!(start(dir.path(), &["b"], &["a"]), key);
        assert_eq!(start(dir.path(), &["b", "c"], &[]), key);
        assert_eq!(start(dir.path(), &["c"], &[]), key);
    }

    #[test]
    fn while_a_tree_is_away_that_may_have_the_key_no_other_one_is_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        let key = start(dir.path(), &["a"], &[]);
        let (own, trees) = (OwnKey::default(), trees(dir.path(), &["b"], &["a"]));
        let used = own.of(&trees).expect("random");
        assert!(used != key && kept(dir.path(), "b").is_none());
        trees.serve(&name("a"), managed(dir.path(), "a"));
        own.opened(&trees);
        assert_eq!(
            (own.of(&trees).expect("the same"), kept(dir.path(), "b")),
            (used, Some(key.to_vec()))
        );
        drop(trees);

        assert_eq!(start(dir.path(), &["b"], &["a"]), key);
    }

    #[test]
    fn a_tree_that_is_opened_later_keeps_the_key_too() {
        let dir = tempfile::tempdir().expect("a directory");
        for first in [&["b"][..], &[]] {
            let (own, trees) = (OwnKey::default(), trees(dir.path(), first, &["a"]));
            let used = own.of(&trees).expect("random");
            assert!(kept(dir.path(), "a").is_none() && kept(dir.path(), "b").is_none());
            trees.serve(&name("a"), managed(dir.path(), "a"));
            own.opened(&trees);
            assert_eq!(kept(dir.path(), "a"), Some(used.to_vec()));
            assert_eq!(kept(dir.path(), "b").is_some(), !first.is_empty());
            drop(trees);
            std::fs::remove_dir_all(dir.path().join(".makuo")).expect("mine");
        }
    }

    #[test]
    fn a_key_that_cannot_be_read_is_not_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        let key = start(dir.path(), &["a"], &[]);
        let file = dir.path().join(".makuo/a/host_key");
        std::fs::rename(&file, dir.path().join("aside")).expect("mine");
        std::fs::create_dir(&file).expect("mine");
        let used = start(dir.path(), &["a", "b"], &[]);
        assert!(used != key && file.is_dir() && kept(dir.path(), "b").is_none());
        std::fs::remove_dir(&file).expect("mine");
        std::fs::rename(dir.path().join("aside"), &file).expect("mine");

        assert_eq!(start(dir.path(), &["a", "b"], &[]), key);
    }

    #[test]
    fn trees_with_other_keys_keep_them() {
        let dir = tempfile::tempdir().expect("a directory");
        let (a, b) = (
            start(dir.path(), &["a"], &[]),
            start(dir.path(), &["b"], &[]),
        );
        assert_eq!(start(dir.path(), &["a", "b", "c"], &[]), a);
        assert_eq!(
            (kept(dir.path(), "b"), kept(dir.path(), "c")),
            (Some(b.to_vec()), Some(a.to_vec()))
        );
    }
}
