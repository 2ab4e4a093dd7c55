//! Releases that a host keeps, and the content that restores one without a transfer.

pub(crate) mod content;
pub(crate) mod kept_releases;
pub(crate) mod retention;
