//! Releases that a host keeps, and the content that restores one without a transfer.

pub(crate) mod content;
pub(crate) mod content_index;
pub(crate) mod gathering;
pub(crate) mod kept_releases;
pub(crate) mod retention;
