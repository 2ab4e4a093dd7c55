//! Compares the metadata of a host's entry with that of the release's.

use super::{Delta, LocalOwner};
use crate::manifest::{Entry, Mode, Mtime, Owner, Rules, Top, Xattr};

/// Metadata common to entries and the root directory.
#[derive(Clone, Copy)]
pub(super) struct EntryMetadata<'a> {
    mode: Mode,
    owner: &'a Owner,
    mtime: Mtime,
    xattrs: &'a [Xattr],
}

impl EntryMetadata<'_> {
    /// Returns the differences to `want` that count under `rules`. `owner` is the wanted owner on
    /// this host; a symbolic link has no mode.
    pub(super) fn differences(
        self,
        want: EntryMetadata<'_>,
        is_link: bool,
        owner: LocalOwner,
        rules: &Rules,
    ) -> Delta {
        Delta {
            content: false,
            size: false,
            mtime: rules.mtime && self.mtime != want.mtime,
            mode: !is_link && self.mode != want.mode,
            user: owner.uid.is_some_and(|uid| uid != self.owner.uid),
            group: owner.gid.is_some_and(|gid| gid != self.owner.gid),
            acl: rules.xattrs && differ(self.xattrs, want.xattrs, true),
            xattrs: rules.xattrs && differ(self.xattrs, want.xattrs, false),
        }
    }
}

/// Returns true if the ACLs, or all other attributes, differ.
fn differ(have: &[Xattr], want: &[Xattr], acls: bool) -> bool {
    let of = |all: &'_ [Xattr]| -> Vec<Xattr> {
        all.iter()
            .filter(|x| x.name.starts_with(b"system.posix_acl_") == acls)
            .cloned()
            .collect()
    };
    of(have) != of(want)
}

impl<'a> From<&'a Entry> for EntryMetadata<'a> {
    fn from(e: &'a Entry) -> Self {
        Self {
            mode: e.mode,
            owner: &e.owner,
            mtime: e.mtime,
            xattrs: &e.xattrs,
        }
    }
}

impl<'a> From<&'a Top> for EntryMetadata<'a> {
    fn from(t: &'a Top) -> Self {
        Self {
            mode: t.mode,
            owner: &t.owner,
            mtime: t.mtime,
            xattrs: &t.xattrs,
        }
    }
}
