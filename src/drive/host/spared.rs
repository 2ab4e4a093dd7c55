//! Paths that a rollback leaves alone, because later releases excluded them: such paths belong to
//! the host now.
//!
//! The earlier release may govern such a path, or delete it as extra, without naming the path in an
//! exclude. The excludes of later releases on the host protect such paths while the host runs the
//! rollback.

use crate::Result;
use crate::error::Error;
use crate::id::Serial;
use crate::manifest::rules::PathFilter;
use crate::manifest::{Header, Intent};
use crate::tree::Tree;

/// Filters for the paths left alone by `header` in `tree`, besides the excludes of the header.
pub(super) fn spared(tree: &Tree, header: &Header) -> Result<Vec<PathFilter>> {
    let Some(mut since) = put_again(header) else {
        return Ok(Vec::new());
    };

    let mut kept = Vec::new();
    for serial in tree.releases()? {
        // A damaged file must not prevent a rollback.
        kept.extend(
            tree.release(serial)
                .ok()
                .flatten()
                .map(|stored| stored.release),
        );
    }

    // A rollback since then spared the excludes of the releases before it.
    while let Some(further) = kept
        .iter()
        .filter(|release| release.header().serial > since)
        .filter_map(|release| put_again(release.header()))
        .filter(|&again| again < since)
        .min()
    {
        since = further;
    }

    kept.retain(|release| release.header().serial > since);

    let own = &header.rules;
    let mut seen = if own.delete_excluded {
        Vec::new()
    } else {
        vec![(&own.excludes, &own.packed)]
    };

    let mut filters = Vec::new();
    for header in kept.iter().map(|release| release.header()) {
        // The excludes of an ad hoc release narrow that release only.
        let governs =
            header.scope.is_empty() && header.top.is_some() && !header.rules.delete_excluded;
        let excludes = (&header.rules.excludes, &header.rules.packed);
        if governs && !seen.contains(&excludes) {
            filters.push(header.rules.excluded().map_err(Error::refused)?);
            seen.push(excludes);
        }
    }

    Ok(filters)
}

/// The release restored by `header`. If it names none, every kept release may be newer.
fn put_again(header: &Header) -> Option<Serial> {
    header
        .again
        .or((header.intent == Intent::Rollback).then_some(Serial(0)))
}
