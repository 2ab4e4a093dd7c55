//! The hosts that are alive: a row for people.

use crate::outcome::MemberInfo;
use crate::report::paint::Tint;
use crate::report::table::{Cell, TextTable};
use crate::report::words;

/// Formats one row for each host.
pub(in crate::report) fn members(members: &[MemberInfo]) -> TextTable {
    let mut table = TextTable::new(&[]);
    for member in members {
        let trees: Vec<String> = member
            .trees
            .iter()
            .map(|t| words::release(&t.tree, t.serial))
            .collect();
        table.row(vec![
            Cell::new(member.host.as_str(), Tint::Strong),
            member.address.to_string().into(),
            words::safe(&member.version).into(),
            trees.join(" ").into(),
            member.labels.to_string().into(),
        ]);
    }

    table
}
