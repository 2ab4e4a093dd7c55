//! Releases that a host keeps: which stay, and the content that brings one back without fetching it.

pub(crate) mod content;
pub(crate) mod kept_releases;
pub(crate) mod retention;
