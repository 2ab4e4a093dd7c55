//! A tree with its state: both directories, opened and locked, and the small files that record the
//! tree's releases.

pub(crate) mod awaiting;
pub(crate) mod block_log;
pub(crate) mod dir;
pub(crate) mod failures;
mod files;
pub(crate) mod health;
pub(crate) mod hold;
pub(crate) mod host_key;
pub(crate) mod index_trust;
mod location;
pub(crate) mod node_store;
pub(crate) mod pins;
pub(crate) mod reader;
mod records;
mod size;
pub(crate) mod tombstones;
mod trash;
pub(crate) mod worktree;
