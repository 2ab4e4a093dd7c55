//! Space on the tree's filesystem for a stage, checked before the first byte arrives.

use std::collections::HashMap;

use super::items::StagedItem;
use crate::diff::Plan;
use crate::error::{Error, IoResultExt as _, Result};
use crate::tree::state::worktree::Worktree;
use crate::units::ByteSize;

/// Inodes left for others.
const SPARE_INODES: u64 = 16;
/// Divisor for the margin: names, attributes and filesystem overhead.
const MARGIN: u64 = 64;

/// Refuses a plan that does not fit beside the present entries (content of older releases is
/// copied, not moved), and a read-only filesystem.
///
/// `held` are the bytes in each slot continued from an aborted session; `keeps` tells whether
/// content of older releases is kept.
pub(crate) fn check(
    tree: &Worktree,
    plan: &Plan,
    items: &[StagedItem],
    held: &HashMap<u64, u64>,
    keeps: bool,
) -> Result<()> {
    let path = tree.state.path();
    let fs = rustix::fs::fstatvfs(tree.state.stage()).context("cannot ask the space of", path)?;

    if fs.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
        return Err(
            Error::refused(format!("the filesystem of {} is read-only", path.display()))
                .hint("mount it writable: it may have failed, see the kernel's log"),
        );
    }

    let unit = fs.f_frsize.max(1);
    let bytes = |item: &StagedItem| {
        let taken = item
            .data()
            .map(|d| (d.end - d.start).div_ceil(unit).saturating_mul(unit));
        let all = taken.fold(0, u64::saturating_add);
        all.saturating_sub(held.get(&item.slot).copied().unwrap_or(0))
    };

    let files = items
        .iter()
        .fold(0u64, |sum, i| sum.saturating_add(bytes(i)));
    let need = files.saturating_add(files / MARGIN);
    let have = fs.f_bavail.saturating_mul(unit);

    if need > have {
        let message = format!(
            "not enough space for tree {}: {} needed, {} free",
            tree.name(),
            ByteSize(need),
            ByteSize(have)
        );
        let fewer = if keeps {
            ", or keep fewer releases of the tree (`keep` on the host)"
        } else {
            ""
        };
        return Err(Error::refused(message).hint(format!(
            "free some space on the filesystem of {}{fewer}",
            path.display()
        )));
    }

    let made = (plan.summary.created + plan.summary.updated).max(items.len() as u64);

    // Filesystems without a fixed number of inodes report 0.
    if made > 0 && fs.f_files > 0 && made + SPARE_INODES > fs.f_favail {
        let message = format!(
            "not enough inodes for tree {}: {made} needed, {} free",
            tree.name(),
            fs.f_favail
        );
        return Err(Error::refused(message).hint(format!(
            "remove files that are not needed from the filesystem of {}",
            path.display()
        )));
    }

    Ok(())
}

/// Returns whether the stage is in memory, where preallocation costs as much as writing.
pub(crate) fn is_memory(tree: &Worktree) -> bool {
    const TMPFS: i64 = 0x0102_1994;
    const RAMFS: i64 = 0x8584_58f6;
    rustix::fs::fstatfs(tree.state.stage()).is_ok_and(|fs| [TMPFS, RAMFS].contains(&fs.f_type))
}
