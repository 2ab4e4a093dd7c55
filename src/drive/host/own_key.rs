//! The signing key of a host: the same at each start, whichever trees can be opened.
//!
//! Each tree keeps a copy, since a tree may disappear with its disk or from the configuration. An
//! unreadable tree may hold the key, so none is written then unless another tree has one.

use std::path::PathBuf;
use std::sync::OnceLock;

use super::trees::Trees;
use crate::Result;
use crate::id::TreeName;
use crate::keys::{HostKey, random_bytes};
use crate::tree::Tree;

/// Seed of the key in use, once there is one.
#[derive(Debug, Default)]
pub struct OwnKey(OnceLock<[u8; 32]>);

impl OwnKey {
    /// Returns the seed for this process and stores it in `trees`.
    pub(super) fn of(&self, trees: &Trees) -> Result<[u8; 32]> {
        let kept = StoredSeeds::read(trees);
        let seed = kept.first().map_or_else(random_bytes, Ok)?;
        let used = *self.0.get_or_init(|| seed);
        kept.complete(used);
        Ok(used)
    }

    /// Stores the key in a tree opened late.
    pub(super) fn opened(&self, trees: &Trees) {
        if let Some(used) = self.0.get() {
            StoredSeeds::read(trees).complete(*used);
        }
    }
}

/// Seeds stored in the trees of a host.
#[derive(Default)]
struct StoredSeeds<'a> {
    seeds: Vec<(&'a Tree, [u8; 32])>,
    lacking: Vec<&'a Tree>,
    /// An unreadable tree, which may hold a seed.
    unknown: Option<&'a TreeName>,
}

impl<'a> StoredSeeds<'a> {
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

    /// Copies the stored key, or the one in use, to trees without one.
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
            let file = file(tree).display().to_string();
            let other = fingerprint(*other);
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

    use super::super::managed::open_tree;
    use super::*;
    use crate::config::TreeConfig;

    fn name(name: &str) -> TreeName {
        TreeName::new(name).expect("legal")
    }

    /// Opens trees in `dir`, except the `broken` ones.
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

    fn managed(dir: &Path, tree: &str) -> super::super::managed::ManagedTree {
        std::fs::create_dir_all(dir.join(tree)).expect("writable");
        open_tree(&TreeConfig::new(name(tree), dir.join(tree)), None).expect("opens")
    }

    /// Returns the key of a start with these trees.
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
        let own = OwnKey::default();
        let trees = trees(dir.path(), &["b"], &["a"]);
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
            let own = OwnKey::default();
            let trees = trees(dir.path(), first, &["a"]);
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
        let a = start(dir.path(), &["a"], &[]);
        let b = start(dir.path(), &["b"], &[]);
        assert_eq!(start(dir.path(), &["a", "b", "c"], &[]), a);
        assert_eq!(
            (kept(dir.path(), "b"), kept(dir.path(), "c")),
            (Some(b.to_vec()), Some(a.to_vec()))
        );
    }
}
