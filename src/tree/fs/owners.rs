//! Owners on this host: names to ids, and the owners that this process may give to a file.

use std::collections::HashMap;
use std::sync::Mutex;

use nix::errno::Errno;

use super::user_lookup;
use crate::diff::{LocalOwner, OwnerResolver};
use crate::sync::locked;
use crate::units::printable;
use crate::{Error, Kind, Result};

/// User and group databases of the host, each name looked up once. A failed lookup is an error,
/// since the name may well exist.
#[derive(Debug, Default)]
pub struct HostNames {
    users: Mutex<HashMap<Box<str>, Option<u32>>>,
    groups: Mutex<HashMap<Box<str>, Option<u32>>>,
}

impl OwnerResolver for HostNames {
    fn uid(&self, name: &str) -> Result<Option<u32>> {
        cached(&self.users, name, |n| {
            found("user", n, user_lookup::user_id(n))
        })
    }

    fn gid(&self, name: &str) -> Result<Option<u32>> {
        cached(&self.groups, name, |n| {
            found("group", n, user_lookup::group_id(n))
        })
    }
}

fn cached(
    map: &Mutex<HashMap<Box<str>, Option<u32>>>,
    name: &str,
    look_up: impl FnOnce(&str) -> Result<Option<u32>>,
) -> Result<Option<u32>> {
    let mut map = locked(map);
    if let Some(&known) = map.get(name) {
        return Ok(known);
    }
    let found = look_up(name)?;
    map.insert(name.into(), found);
    Ok(found)
}

fn found(what: &str, name: &str, answer: nix::Result<Option<u32>>) -> Result<Option<u32>> {
    match answer {
        // getpwnam(3) lists these for "no such user".
        Err(Errno::ENOENT | Errno::ESRCH | Errno::EBADF | Errno::EPERM) => Ok(None),
        Ok(id) => Ok(id),
        Err(e) => {
            let message = format!(
                "this host's {what} {:?} cannot be looked up: {e}",
                printable(name.as_bytes())
            );
            Err(Error::new(Kind::Io, message).hint("the name service does not answer: try again"))
        }
    }
}

/// Rights of this process over files of other users.
#[derive(Debug, Clone)]
pub struct Rights {
    uid: u32,
    groups: Vec<u32>,
    capabilities: u64,
}

const CAP_CHOWN: u32 = 0;
const CAP_DAC_OVERRIDE: u32 = 1;
const CAP_FOWNER: u32 = 3;
const CAP_MKNOD: u32 = 27;

impl Rights {
    /// Present rights of this process.
    pub fn of_process() -> Self {
        let uid = rustix::process::geteuid().as_raw();
        let mut groups: Vec<u32> = rustix::process::getgroups()
            .unwrap_or_default()
            .iter()
            .map(|g| g.as_raw())
            .collect();

        groups.push(rustix::process::getegid().as_raw());
        let sets = rustix::thread::capabilities(None);

        // Without an answer from the kernel, root counts as root.
        let capabilities = sets.map_or(if uid == 0 { u64::MAX } else { 0 }, |sets| {
            sets.effective.bits()
        });

        Self {
            uid,
            groups,
            capabilities,
        }
    }

    /// Reason why a new file cannot be given to `owner`, if any.
    pub fn refuses_owner(&self, owner: LocalOwner) -> Option<String> {
        if self.has(CAP_CHOWN) {
            return None;
        }

        if let Some(uid) = owner.uid.filter(|&uid| uid != self.uid) {
            return Some(format!(
                "only root may give a file to user {uid}, this daemon runs as user {}",
                self.uid
            ));
        }

        let foreign = owner.gid.filter(|gid| !self.groups.contains(gid))?;
        Some(format!(
            "only root may give a file to group {foreign}, of which this daemon is no member"
        ))
    }

    /// Returns whether this process may set mode and time of files owned by `uid`.
    pub fn changes_modes_of(&self, uid: u32) -> bool {
        self.uid == uid || self.has(CAP_FOWNER)
    }

    /// Returns whether this process may set mode and time of any file.
    pub fn changes_modes_of_all(&self) -> bool {
        self.has(CAP_FOWNER)
    }

    /// Returns whether this process may create devices.
    pub fn makes_devices(&self) -> bool {
        self.has(CAP_MKNOD)
    }

    /// Returns whether permission bits of directories do not bind this process.
    pub fn overrides_modes(&self) -> bool {
        self.has(CAP_DAC_OVERRIDE)
    }

    fn has(&self, capability: u32) -> bool {
        self.capabilities >> capability & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_numbers() {
        let names = HostNames::default();
        assert_eq!(names.uid("root").unwrap(), Some(0));
        assert_eq!(names.gid("no-such-group-here").unwrap(), None);
        assert_eq!(names.gid("no-such-group-here").unwrap(), None);
    }

    #[test]
    fn a_lookup_that_fails_is_not_an_unknown_name() {
        assert_eq!(found("user", "x", Err(Errno::ENOENT)).unwrap(), None);
        assert!(found("user", "x", Err(Errno::EIO)).is_err());
    }

    #[test]
    fn without_capabilities_only_the_own_owner_can_be_set() {
        let rights = Rights {
            uid: 33,
            groups: vec![33, 100],
            capabilities: 0,
        };

        let owner = |uid, gid| LocalOwner { uid, gid };
        assert_eq!(rights.refuses_owner(owner(Some(33), Some(100))), None);
        assert_eq!(rights.refuses_owner(owner(None, None)), None);
        assert!(rights.refuses_owner(owner(Some(0), None)).is_some());
        assert!(rights.refuses_owner(owner(None, Some(0))).is_some());
        assert!(rights.changes_modes_of(33) && !rights.changes_modes_of(0));

        assert_eq!(
            Rights {
                capabilities: 1,
                ..rights
            }
            .refuses_owner(owner(Some(0), Some(0))),
            None
        );
    }
}
