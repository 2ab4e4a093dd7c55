//! Groups of new entries: those that their directories give, where the release sets none.

use std::collections::{HashMap, HashSet};
use std::io;

use super::inheritance::Inheritance;
use crate::diff::{Action, Change, Plan, Shape};
use crate::tree::fs::owners::Rights;
use crate::tree::fs::root::Root;

/// Indexes in `plan` of replacements for further names of another kind: a list of entries does not
/// tell the kind.
pub(crate) fn strangers(root: &Root, plan: &Plan) -> io::Result<HashSet<usize>> {
    let inheritance = Inheritance::new(root, plan);
    let mut strangers = HashSet::new();
    for (at, change) in plan.changes.iter().enumerate() {
        if change.action != Action::Update || change.was != Some(Shape::Hardlink) {
            continue;
        }
        if !inheritance.is_kind(&change.path, change.shape())? {
            strangers.insert(at);
        }
    }

    Ok(strangers)
}

/// Sets the groups of new entries to those that their directories give, where the release sets
/// none.
pub(crate) fn give_groups(
    root: &Root,
    plan: &mut Plan,
    strangers: &HashSet<usize>,
) -> io::Result<()> {
    let rights = Rights::of_process();
    let wanting = |at: usize, change: &Change| {
        (matches!(change.action, Action::Create | Action::Replace) || strangers.contains(&at))
            && change.owner.gid.is_none()
            && change.shape() != Shape::Hardlink
    };

    let mut groups = HashMap::new();
    {
        let mut inheritance = Inheritance::new(root, plan);
        for (at, change) in plan
            .changes
            .iter()
            .enumerate()
            .filter(|(at, c)| wanting(*at, c))
        {
            if let Some(gid) = inheritance.group(&change)? {
                groups.insert(at, gid);
            }
        }
    }

    if groups.is_empty() {
        return Ok(());
    }

    let mut at = 0..;

    plan.changes.try_update_owners(|_, owner| {
        let gid = at.next().and_then(|at| groups.get(&at).copied());
        let given = crate::diff::LocalOwner { uid: None, gid };
        // Only the kernel can give a group of which an ordinary user is no member.
        if gid.is_some() && rights.refuses_owner(given).is_none() {
            owner.gid = gid;
        }
        Ok(())
    })
}
