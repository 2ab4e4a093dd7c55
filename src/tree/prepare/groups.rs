//! Groups of new entries: those that their directories give, where the release sets none.

use std::collections::{HashMap, HashSet};
use std::io;

use super::inheritance::Inheritance;
use crate::diff::{Action, Plan, Shape};
use crate::tree::fs::owners::Rights;
use crate::tree::fs::root::Root;

/// Sets the groups of new entries to those that their directories give, where the release sets
/// none.
///
/// Returns the indexes of replacements for further names of another kind: a list of entries does
/// not tell the kind.
pub(crate) fn give_groups(root: &Root, plan: &mut Plan) -> io::Result<HashSet<usize>> {
    let rights = Rights::of_process();
    let mut strangers = HashSet::new();
    let mut groups = HashMap::new();
    {
        let mut inheritance = Inheritance::new(root, plan);
        for (at, change) in plan.changes.iter().enumerate() {
            let is_strange = change.action == Action::Update
                && change.was == Some(Shape::Hardlink)
                && !inheritance.is_kind(&change.path, change.shape())?;
            if is_strange {
                strangers.insert(at);
            }

            let is_new = is_strange || matches!(change.action, Action::Create | Action::Replace);
            if is_new
                && change.owner.gid.is_none()
                && change.shape() != Shape::Hardlink
                && let Some(gid) = inheritance.group(&change)?
            {
                groups.insert(at, gid);
            }
        }
    }

    if groups.is_empty() {
        return Ok(strangers);
    }

    let mut at = 0..;

    plan.changes.try_update_owners(|_, owner| {
        let gid = at.next().and_then(|at| groups.get(&at).copied());
        let given = crate::diff::LocalOwner { uid: None, gid };
        // Only the kernel can give a group of which an ordinary user is no member.
        if gid.is_some() && rights.refuses_owner(given).is_none() {
            owner.gid = gid;
        }
        Ok::<_, io::Error>(())
    })?;

    Ok(strangers)
}
