//! Files with new metadata only that are copied all the same, so that no file of others changes.
//!
//! In place, owner, mode and mtime belong to the inode. The inode may have names outside of the
//! release, or be open for writing in a process that must not write to the result. An inode created
//! by another user never passes to a third one, and no inode gains rights.

use std::collections::{HashMap, HashSet};

use super::items::is_copied;
use crate::diff::{Change, Plan, Shape};
use crate::error::{Error, Result};
use crate::manifest::rules::Layout;
use crate::tree::fs::dir::stat;
use crate::tree::fs::dir_cursor::DirCursor;
use crate::tree::fs::root::Root;
use crate::tree::fs::stat::FileStat;
use crate::tree::fs::xattrs::CAPABILITY;

/// Write bits of group and others.
const OTHERS_WRITE: u32 = 0o022;

/// Indexes in `plan` of the metadata changes that are made on a copy.
pub(crate) fn chosen(root: &Root, plan: &Plan) -> Result<HashSet<usize>> {
    if plan.summary.metadata == 0 {
        return Ok(HashSet::new());
    }

    let mut names = HashMap::new();
    for further in &plan.further {
        *names.entry(further.first as usize).or_insert(1u32) += 1;
    }

    let mut chosen = HashSet::new();
    let mut dirs = DirCursor::default();
    for (at, change) in plan
        .changes
        .iter()
        .enumerate()
        .filter(|(_, c)| is_copied(c))
    {
        // The next tree is separate: nothing in the live tree changes.
        if plan.layout == Layout::Swap {
            chosen.insert(at);
            continue;
        }
        let now = dirs
            .parent(root, &change.path)
            .and_then(|(parent, name)| stat(parent, &name))
            .map_err(|e| Error::io("cannot look at", root.shown(&change.path), e))?;
        let governed = names.get(&at).copied().unwrap_or(1);
        if now.is_some_and(|now| now.nlink > governed || is_taken_from_others(&now, &change)) {
            chosen.insert(at);
        }
    }

    Ok(chosen)
}

/// Returns whether a process that created the inode, or has it open, could write to the result:
/// another owner, more rights, or fewer users with write access.
pub(crate) fn is_taken_from_others(now: &FileStat, change: &Change) -> bool {
    let Some(want) = change.want.as_ref().map(|want| &want.entry) else {
        return false;
    };

    // Only root creates devices, and the daemon may lack the right.
    if change.shape() == Shape::Device {
        return false;
    }

    let is_another = |wanted: Option<u32>, now| wanted.is_some_and(|id| id != now);
    let new = want.mode.bits();
    let old = now.mode.bits();

    let is_link = change.shape() == Shape::Symlink;
    let gains = !is_link && new & !old != 0;
    let narrows = !is_link && new != old && old & OTHERS_WRITE != 0;
    let is_capable = change.delta.xattrs && want.xattrs.iter().any(|x| x.name == CAPABILITY);

    is_another(change.owner.uid, now.uid)
        || is_another(change.owner.gid, now.gid)
        || gains
        || narrows
        || is_capable
        || change.delta.acl
}
