//! The trees of a host: a fixed set of names, each served once it can be opened.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock};

use super::managed::ManagedTree;
use crate::id::TreeName;
use crate::sync::locked;

/// The trees in the configuration.
#[derive(Debug, Default)]
pub struct Trees(BTreeMap<TreeName, Slot>);

/// One tree.
#[derive(Debug, Default)]
struct Slot {
    served: OnceLock<ManagedTree>,
    /// Reason why the tree cannot be served.
    why: Mutex<String>,
}

impl Trees {
    /// Adds an unavailable tree, with the reason `why`.
    pub fn add_broken(&mut self, name: TreeName, why: String) {
        self.0.insert(
            name,
            Slot {
                served: OnceLock::new(),
                why: Mutex::new(why),
            },
        );
    }

    /// Names of all trees.
    pub fn names(&self) -> impl Iterator<Item = &TreeName> {
        self.0.keys()
    }

    /// Returns the tree `name` if served.
    pub fn get(&self, name: &TreeName) -> Option<&ManagedTree> {
        self.0.get(name)?.served.get()
    }

    /// Served trees.
    pub fn iter(&self) -> impl Iterator<Item = (&TreeName, &ManagedTree)> {
        self.0
            .iter()
            .filter_map(|(name, slot)| Some((name, slot.served.get()?)))
    }

    /// Reason why the tree `name` is not served; `None` if served or unknown.
    pub fn broken(&self, name: &TreeName) -> Option<String> {
        let slot = self
            .0
            .get(name)
            .filter(|slot| slot.served.get().is_none())?;
        Some(locked(&slot.why).clone())
    }

    /// Unavailable trees, with the reasons.
    pub fn all_broken(&self) -> impl Iterator<Item = (&TreeName, String)> {
        self.0
            .keys()
            .filter_map(|name| Some((name, self.broken(name)?)))
    }

    /// Sets the reason why the tree `name` cannot be served; returns whether new.
    pub fn set_why(&self, name: &TreeName, why: &str) -> bool {
        let Some(slot) = self.0.get(name) else {
            return false;
        };
        let mut known = locked(&slot.why);
        let is_new = *known != why;
        *known = why.to_string();
        is_new
    }

    /// Serves the tree `name` from now on.
    pub fn serve(&self, name: &TreeName, managed: ManagedTree) {
        if let Some(slot) = self.0.get(name) {
            // Only one thread opens trees, so the cell is empty.
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
