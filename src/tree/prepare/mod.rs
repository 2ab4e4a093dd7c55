//! Checks and choices before anything in the tree changes: items, permissions, space, obstructions,
//! attributes.

pub(crate) mod copies;
pub(crate) mod copy_up;
mod groups;
pub(crate) mod inheritance;
pub(crate) mod items;
pub(crate) mod obstructions;
pub(crate) mod permissions;
pub(crate) mod preflight;
pub(crate) mod resume;
pub(crate) mod space;
