//! What a rollback leaves alone: paths that the releases since the earlier one exclude belong to the host by now.
//!
//! The earlier release may govern such a path, or delete it as extra. Its own excludes say nothing of it, so those of the
//! releases that the host kept since then protect it as well, as long as the host runs what a rollback put.

use crate::Result;
use crate::error::Error;
use crate::id::Serial;
use crate::manifest::rules::PathFilter;
use crate::manifest::{Header, Intent};
use crate::tree::Tree;

/// Filters of what `header` leaves alone in `tree`, besides what it excludes itself.
pub(super) fn spared(tree: &Tree, header: &Header) -> Result<Vec<PathFilter>> {
    let Some(mut since) = put_again(header) else {
        return Ok(Vec::new());
    };

    let mut kept = Vec::new();
    for serial in tree.releases()? {
        // A damaged file keeps nobody from going back.
        kept.extend(
            tree.release(serial)
                .ok()
                .flatten()
                .map(|stored| stored.release),
        );
    }

    // A rollback since then left alone what the releases before it excluded.
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
        // The excludes of files that were sent by hand narrow that one sending.
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

/// The release that `header` puts again. All kept ones may be newer than one that does not say.
fn put_again(header: &Header) -> Option<Serial> {
    header
        .again
        .or((header.intent == Intent::Rollback).then_some(Serial(0)))
}
