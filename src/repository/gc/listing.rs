//! The list of a repository's objects, and the choice of those to delete.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::{Gc, GcError, GcStage, GcStep};
use crate::id::TreeName;
use crate::repository::head::tree_of_head;
use crate::repository::object::{ListedObject, ObjectPath, temporary_name};
use crate::repository::pack::{MAX_PACK_BYTES, PackName};
use crate::units::WallTime;

/// Objects that are deleted before the store is listed again: an age is looked at shortly before.
pub(crate) const MAX_DELETED_AT_ONCE: usize = 256;

/// An object beside heads: a store whose lists have it would list heads as well. If it is left
/// behind, a later gc deletes it like those of killed publishers.
pub(super) fn probe() -> ObjectPath {
    let name = temporary_name("trees/gc/head", 0);
    ObjectPath::new(&name).expect("legal")
}

/// Objects of a repository.
#[derive(Debug, Default)]
pub(super) struct ListedObjects {
    trees: BTreeSet<TreeName>,
    packs: Vec<(PackName, ListedObject)>,
    /// What killed publishers left.
    temporary: Vec<ListedObject>,
    /// The present by the store's clock, or earlier.
    now: WallTime,
}

/// What was deleted, and what stays for the next gc.
#[derive(Debug, Default)]
pub(super) struct Deletion {
    done: HashSet<ObjectPath>,
    /// Packs that the heads before referred to. A publisher may still refer to them if the store
    /// cannot tell it that its head changed.
    spared: HashSet<PackName>,
}

impl Deletion {
    pub(super) fn spare(&mut self, pack: PackName) {
        self.spared.insert(pack);
    }
}

impl ListedObjects {
    /// Sorts what is listed; `clock` is this machine's time.
    fn new(
        listed: impl IntoIterator<Item = ListedObject>,
        clock: WallTime,
    ) -> Result<Self, GcError> {
        let mut listing = Self::default();
        let mut newest = WallTime(i64::MIN);
        for object in listed {
            newest = newest.max(object.stored);
            if let Some(tree) = tree_of_head(&object.object) {
                listing.trees.insert(tree);
            } else if object.object.is_temporary() {
                listing.temporary.push(object);
            } else if let Some(pack) = PackName::of_object(&object.object) {
                if object.size > u64::from(MAX_PACK_BYTES) {
                    return Err(GcError::TooLarge(pack, object.size));
                }
                listing.packs.push((pack, object));
            }
        }

        // What is being stored now is young, whichever clock is wrong.
        listing.now = newest.min(clock);
        Ok(listing)
    }

    fn sizes(&self) -> HashMap<PackName, u64> {
        let sizes = self.packs.iter().map(|(pack, listed)| (*pack, listed.size));
        sizes.collect()
    }

    fn age(&self, listed: &ListedObject) -> u64 {
        u64::try_from(self.now.0.saturating_sub(listed.stored.0)).unwrap_or(0)
    }
}

impl Gc {
    /// Takes the list of all objects; `clock` is the time of this machine.
    pub fn listed(&mut self, listed: impl IntoIterator<Item = ListedObject>, clock: WallTime) {
        self.asked = false;
        let listing = match ListedObjects::new(listed, clock) {
            Ok(listing) => listing,
            Err(error) => return self.fail(error),
        };

        if self.stage == GcStage::Listing {
            if listing.trees.is_empty() {
                let may_go_on = self.setup.no_trees && self.setup.grace.is_some();
                match listing.packs.is_empty() {
                    true => return self.end(GcStep::Done(self.report)),
                    false if !may_go_on => return self.fail(GcError::NoTrees),
                    false => {}
                }
            }
            self.heads.reading = listing.trees.into_iter().collect();
            self.stage = GcStage::Reading;
            return;
        }

        let read: BTreeSet<TreeName> = self.heads.trees.iter().map(|t| t.tree.clone()).collect();
        if let Some(tree) = read.symmetric_difference(&listing.trees).next() {
            return self.fail(GcError::Changed(tree.clone()));
        }
        if read.is_empty() && !listing.temporary.iter().any(|l| l.object == probe()) {
            // Heads would not be listed either.
            return self.fail(GcError::NoTrees);
        }
        self.listing = listing;
        if self.stage == GcStage::Sizing {
            return self.size();
        }
        self.begin_deletion();
    }

    /// Compares what is stored with what releases refer to.
    fn size(&mut self) {
        self.rewrite.sizes = self.listing.sizes();
        let sizes = self.rewrite.sizes.values();
        self.report.before = sizes.fold(0, |sum, size| sum.saturating_add(*size));
        self.report.live = self.marks.live.all_bytes();
        if let Some(pack) = self.marks.live.missing(&self.rewrite.sizes) {
            return self.fail(GcError::Missing(pack));
        }

        match (self.setup.grace, self.setup.rewrites) {
            (None, _) => self.end(GcStep::Done(self.report)),
            (Some(_), Some(_)) => self.begin_rewrite(),
            (Some(_), None) => self.begin_deletion(),
        }
    }

    /// Deletes with the present list. A store without conditions may have another head than the one
    /// that was stored, so the heads are read once more.
    fn begin_deletion(&mut self) {
        self.heads.at = 0;
        self.stage = if self.heads.has_conditions {
            GcStage::Deleting
        } else {
            GcStage::Rechecking
        };
    }

    /// Deletes some of what is old and not needed.
    pub(super) fn delete(&mut self) {
        let Some(grace) = self.setup.grace else {
            return self.end(GcStep::Done(self.report));
        };

        let listing = std::mem::take(&mut self.listing);
        let packs = listing.packs.iter();
        let packs = packs.filter(|(pack, _)| self.is_dead(pack));
        let packs = packs.map(|(pack, listed)| (listed, self.is_spared(pack)));
        let temporary = listing.temporary.iter();
        let others = temporary.filter(|listed| listed.object != probe());
        let others = others.map(|listed| (listed, false));
        let dead: Vec<(&ListedObject, bool)> = packs.chain(others).collect();

        let mut objects = Vec::new();
        let mut later = 0_u64;
        let mut is_last = true;
        for (listed, is_spared) in dead {
            if self.deletion.done.contains(&listed.object) {
                continue;
            }

            if is_spared || listing.age(listed) < grace {
                later = later.saturating_add(listed.size);
            } else if objects.len() < MAX_DELETED_AT_ONCE {
                self.report.deleted = self.report.deleted.saturating_add(listed.size);
                objects.push(listed.object.clone());
            } else {
                is_last = false;
            }
        }

        self.report.later = later;
        self.deletion.done.extend(objects.iter().cloned());
        if !objects.is_empty() {
            self.steps.push_back(GcStep::Delete(objects));
        }
        if is_last {
            if self.heads.trees.is_empty() {
                self.steps.push_back(GcStep::Delete(vec![probe()]));
            }
            self.end(GcStep::Done(self.report));
        } else {
            self.stage = GcStage::Listing2;
        }
    }

    /// Returns whether no head refers to the pack, after the rewrite.
    fn is_dead(&self, pack: &PackName) -> bool {
        self.rewrite.moved.is_weak(pack)
            || !self.marks.live.has(pack) && !self.packer.packs.has(pack)
    }

    /// Returns whether a publisher may refer to the pack because a head did so before.
    fn is_spared(&self, pack: &PackName) -> bool {
        let was_live = self.marks.live.has(pack) || self.deletion.spared.contains(pack);
        was_live && !self.heads.has_conditions
    }
}
