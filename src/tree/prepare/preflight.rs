//! All checks of a plan against the present tree in one call, before anything is staged.

use super::groups::give_groups;
use super::{obstructions, permissions};
use crate::diff::Plan;
use crate::error::{Error, Result};
use crate::manifest::rules::Layout;
use crate::tree::fs::dir_access::OpenedDirs;
use crate::tree::state::worktree::Worktree;

/// Refuses a plan that this process cannot carry out, and gives new paths the groups of their
/// directories.
///
/// Directories whose mode bars their own user stay open as long as the result lives.
pub(crate) fn check(tree: &Worktree, plan: &mut Plan) -> Result<OpenedDirs> {
    let root = tree.root();
    let opened = OpenedDirs::of_plan(&root, plan)?;
    if plan.layout == Layout::Swap {
        opened.refuse_exchange(&root)?;
    }

    obstructions::check(tree, plan)?;

    let unreadable = |e| Error::io("cannot look into", root.path(), e);
    let strangers = give_groups(&root, plan).map_err(unreadable)?;

    permissions::check_owners(plan, &strangers)?;
    permissions::check_metadata(tree, plan)?;
    permissions::check_top(tree, plan)?;
    Ok(opened)
}
