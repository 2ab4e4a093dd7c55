//! The filesystem without any notion of a release: handles, directories, metadata, attributes,
//! errors.

pub(crate) mod abilities;
pub(crate) mod ctime_chains;
pub(crate) mod dir;
pub(crate) mod dir_access;
pub(crate) mod dir_cursor;
pub(crate) mod dir_watch;
pub(crate) mod errors;
pub(crate) mod fault;
pub(crate) mod handover;
pub(crate) mod metadata;
pub mod mounts;
pub(crate) mod owners;
pub(crate) mod project_flags;
pub(crate) mod root;
pub(crate) mod sparse;
pub(crate) mod stat;
pub(crate) mod symlinks;
pub mod sys;
pub mod user_lookup;
pub mod volume;
pub(crate) mod xattrs;
