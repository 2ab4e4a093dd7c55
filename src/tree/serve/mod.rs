//! Sources for a sender: a scanned tree, or a release that a host keeps.

pub(crate) mod ordinals;
pub(crate) mod release_nodes;
pub(crate) mod scanned_source;
pub(crate) mod stored_source;
