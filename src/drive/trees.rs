//! The trees of a host: a fixed set of names, each served as soon as it can be opened.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use super::disk::ManagedTree;
use crate::id::TreeName;

/// The trees that the configuration names.
#[derive(Debug, Default)]
pub struct Trees(BTreeMap<TreeName, Slot>);

/// One of them.
#[derive(Debug, Default)]
struct Slot {
    served: OnceLock<ManagedTree>,
    /// Why it cannot be served.
    why: Mutex<String>,
}

impl Trees {
    /// Adds a tree that cannot be served, for the reason `why`.
    pub fn add_broken(&mut self, name: TreeName, why: String) {
        self.0.insert(
            name,
            Slot {
                served: OnceLock::new(),
                why: Mutex::new(why),
            },
        );
    }

    /// The names of all trees.
    pub fn names(&self) -> impl Iterator<Item = &TreeName> {
        self.0.keys()
    }

    /// The tree `name`, when it is served.
    pub fn get(&self, name: &TreeName) -> Option<&ManagedTree> {
        self.0.get(name)?.served.get()
    }

    /// The trees that are served.
    pub fn iter(&self) -> impl Iterator<Item = (&TreeName, &ManagedTree)> {
        self.0
            .iter()
            .filter_map(|(name, slot)| Some((name, slot.served.get()?)))
    }

    /// Why the tree `name` is not served; `None` when it is, or is none of this host.
    pub fn broken(&self, name: &TreeName) -> Option<String> {
        let slot = self
            .0
            .get(name)
            .filter(|slot| slot.served.get().is_none())?;
        Some(
            slot.why
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
        )
    }

    /// The trees that are not served.
    pub fn all_broken(&self) -> impl Iterator<Item = (&TreeName, String)> {
        self.0
            .keys()
            .filter_map(|name| Some((name, self.broken(name)?)))
    }

    /// Says why the tree `name` cannot be served; whether that is another reason than before.
    pub fn set_why(&self, name: &TreeName, why: &str) -> bool {
        let Some(slot) = self.0.get(name) else {
            return false;
        };
        let mut known = slot.why.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = *known != why;
        *known = why.to_string();
        is_new
    }

    /// Serves the tree `name` from now on.
    pub fn serve(&self, name: &TreeName, managed: ManagedTree) {
        if let Some(slot) = self.0.get(name) {
            // It is opened by one thread only.
            let _ = slot.served.set(managed);
        }
    }
}

impl FromIterator<(TreeName, ManagedTree)> for Trees {
    fn from_iter<T: IntoIterator<Item = (TreeName, ManagedTree)>>(trees: T) -> Self {
        let slot = |managed| Slot {
            served: OnceLock::from(managed),
            why: Mutex::default(),
        };

        Self(
            trees
                .into_iter()
                .map(|(name, managed)| (name, slot(managed)))
                .collect(),
        )
    }
}
