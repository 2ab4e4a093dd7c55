//! What changed between two looks at the fleet.

use crate::outcome::Standing;

/// Entries that are new or changed, and those that are gone.
pub(in crate::report) struct FleetChanges<T> {
    pub(in crate::report) new: Vec<T>,
    pub(in crate::report) gone: Vec<T>,
}

impl<T: Clone> FleetChanges<T> {
    /// Compares the entries by `key`, and those of one key by `is_same`.
    pub(in crate::report) fn between<K: PartialEq>(
        before: &[T],
        now: &[T],
        key: impl Fn(&T) -> K,
        is_same: impl Fn(&T, &T) -> bool,
    ) -> Self {
        let find = |list: &[T], entry: &T| list.iter().position(|old| key(old) == key(entry));
        let is_new = |entry: &&T| match find(before, entry) {
            Some(place) => !is_same(&before[place], entry),
            None => true,
        };

        Self {
            new: now.iter().filter(is_new).cloned().collect(),
            gone: before
                .iter()
                .filter(|entry| find(now, entry).is_none())
                .cloned()
                .collect(),
        }
    }
}

/// Returns whether both say the same of a host, apart from ages and counts of checks.
pub(in crate::report) fn is_same_standing(one: &Standing, other: &Standing) -> bool {
    without_ages(one) == without_ages(other)
}

fn without_ages(standing: &Standing) -> Standing {
    let mut standing = standing.clone();
    if let Some(status) = &mut standing.status {
        if let Some(trouble) = &mut status.trouble {
            trouble.age = 0;
        }
        if let Some(stale) = &mut status.stale {
            stale.age = 0;
        }
        if let Some(repository) = &mut status.repository {
            repository.age = 0;
        }
        if let Some(drifted) = &mut status.drifted {
            drifted.looks = 0;
        }
    }

    standing
}
