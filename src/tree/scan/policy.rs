//! Overrides of owners, modes and times: the values a release declares instead of its source's.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};

use minicbor::{Decode, Encode};

use crate::manifest::entry::NO_ID;
use crate::manifest::{Mode, Mtime, Owner, Top};
use crate::sync::locked;
use crate::tree::fs::stat::{FileStat, OwnerNames};
use crate::tree::fs::user_lookup;
use crate::{Error, Kind, Result};

/// Users or groups that a release declares.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub enum OwnerMapping {
    /// Those of the source.
    #[default]
    #[n(0)]
    Preserve,
    /// None: entries carry [`NO_ID`], and the release's rules must tell hosts to set none.
    #[n(1)]
    Ignore,
    /// This name for every entry, or this number if no such name exists. A name unknown to this
    /// machine gets the number [`NO_ID`].
    #[n(2)]
    Fixed(#[n(0)] Box<str>),
}

/// Overrides of owners, modes and times.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct Policy {
    /// Users.
    #[n(0)]
    pub user: OwnerMapping,
    /// Groups.
    #[n(1)]
    pub group: OwnerMapping,
    /// Permission bits of all regular files.
    #[n(2)]
    pub file_mode: Option<Mode>,
    /// Permission bits of all directories.
    #[n(3)]
    pub dir_mode: Option<Mode>,
    /// Leaves out modification times: hosts do not set them, and releases must not differ by them.
    #[n(4)]
    pub without_mtime: bool,
}

/// Number and name for every entry; `None` keeps each entry's own.
type Wanted = Option<(u32, Option<Box<str>>)>;

/// A policy with its names looked up and a cache of owners; shared by the threads of a scan.
#[derive(Debug)]
pub(super) struct ResolvedPolicy<'a> {
    policy: &'a Policy,
    user: Wanted,
    group: Wanted,
    names: OwnerNames,
    owners: Mutex<HashMap<(u32, u32), Arc<Owner>>>,
}

impl<'a> ResolvedPolicy<'a> {
    pub(super) fn new(policy: &'a Policy) -> Result<Self> {
        let user = wanted("user", &policy.user, user_lookup::user_id)?;
        let group = wanted("group", &policy.group, user_lookup::group_id)?;
        Ok(Self {
            policy,
            user,
            group,
            names: OwnerNames::default(),
            owners: Mutex::default(),
        })
    }

    /// Returns the declared owner for files with these numbers.
    pub(super) fn owner(&self, uid: u32, gid: u32) -> io::Result<Arc<Owner>> {
        if let Some(known) = locked(&self.owners).get(&(uid, gid)) {
            return Ok(Arc::clone(known));
        }

        let had = self.names.of(uid, gid)?;
        let (uid_said, user) = self
            .user
            .clone()
            .unwrap_or_else(|| (had.uid, had.user.clone()));
        let (gid_said, group) = self
            .group
            .clone()
            .unwrap_or_else(|| (had.gid, had.group.clone()));

        let new = Arc::new(Owner {
            uid: uid_said,
            gid: gid_said,
            user,
            group,
        });

        Ok(Arc::clone(
            locked(&self.owners).entry((uid, gid)).or_insert(new),
        ))
    }

    /// Returns all owners looked up so far, with their local numbers.
    pub(super) fn owners_met(&self) -> Vec<(u32, u32, Owner)> {
        let owners = locked(&self.owners);
        let mut met: Vec<_> = owners
            .iter()
            .map(|(&(uid, gid), owner)| (uid, gid, Owner::clone(owner)))
            .collect();
        met.sort_by_key(|&(uid, gid, _)| (uid, gid));
        met
    }

    /// Returns whether a lookup of the owners of an earlier scan would give the same result now.
    pub(super) fn still_holds(&self, met: &[(u32, u32, Owner)]) -> bool {
        met.iter()
            .all(|(uid, gid, owner)| self.owner(*uid, *gid).is_ok_and(|now| *now == *owner))
    }

    pub(super) fn mode(&self, stat: &FileStat) -> Mode {
        let said = match stat.file_type {
            rustix::fs::FileType::RegularFile => self.policy.file_mode,
            rustix::fs::FileType::Directory => self.policy.dir_mode,
            _ => None,
        };
        said.unwrap_or(stat.mode)
    }

    pub(super) fn mtime(&self, stat: &FileStat) -> Mtime {
        if self.policy.without_mtime {
            Mtime::default()
        } else {
            stat.mtime
        }
    }

    /// Describes the root directory.
    pub(super) fn top(
        &self,
        stat: &FileStat,
        owner: &Owner,
        xattrs: Vec<crate::manifest::Xattr>,
    ) -> Top {
        Top {
            mode: self.mode(stat),
            owner: owner.clone(),
            mtime: self.mtime(stat),
            xattrs,
        }
    }
}

fn wanted(
    what: &str,
    policy: &OwnerMapping,
    look_up: impl FnOnce(&str) -> nix::Result<Option<u32>>,
) -> Result<Wanted> {
    match policy {
        OwnerMapping::Preserve => Ok(None),
        OwnerMapping::Ignore => Ok(Some((NO_ID, None))),
        OwnerMapping::Fixed(name) => {
            let known = look_up(name).map_err(|e| {
                let shown = crate::units::printable(name.as_bytes());
                Error::new(Kind::Io, format!("cannot look up the {what} {shown}"))
                    .because(io::Error::from(e))
            })?;

            Ok(Some(match (known, name.parse()) {
                (Some(id), _) => (id, Some(name.clone())),
                (None, Ok(number)) if number != NO_ID => (number, None),
                (None, _) => (NO_ID, Some(name.clone())),
            }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixed_owner_is_looked_up_as_a_name_first() {
        let user = |name: &str| {
            let policy = Policy {
                user: OwnerMapping::Fixed(name.into()),
                ..Policy::default()
            };
            ResolvedPolicy::new(&policy).unwrap().user.clone()
        };

        assert_eq!(user("root"), Some((0, Some("root".into()))));
        assert_eq!(user("4000000"), Some((4_000_000, None)));
    }

    #[test]
    fn recorded_owners_hold_until_a_name_changes() {
        let policy = Policy::default();
        let released = ResolvedPolicy::new(&policy).unwrap();
        released.owner(0, 0).unwrap();
        let mut met = released.owners_met();
        assert!(ResolvedPolicy::new(&policy).unwrap().still_holds(&met));
        met[0].2.user = Some("someone else".into());
        assert!(!ResolvedPolicy::new(&policy).unwrap().still_holds(&met));
    }
}
