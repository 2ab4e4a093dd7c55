//! Releases that a host keeps, and the content that restores one without a transfer.
//!
//! `content` owns the kept files on disk, `content_index` the format of their index, `gathering`
//! the choice of files that a commit replaced, `kept_releases` the list of releases and its
//! pruning, and `retention` the rules by which releases stay, merge and follow each other.

pub(crate) mod content;
pub(crate) mod content_index;
pub(crate) mod gathering;
pub(crate) mod kept_releases;
pub(crate) mod retention;
