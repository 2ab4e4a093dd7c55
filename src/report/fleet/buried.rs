//! Words for a release that was stopped or taken back.

use crate::wire::message::Tombstone;

/// Describes the tombstone of a running release.
pub(super) fn buried(stone: &Tombstone) -> &'static str {
    if stone.revert {
        "was taken back"
    } else {
        "was stopped"
    }
}
