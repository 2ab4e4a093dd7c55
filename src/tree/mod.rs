//! The disk: reads and changes a tree, by handles only.
//!
//! Each folder knows only those before it:
//!
//! | folder | owns |
//! |---|---|
//! | [`fs`] | handles, directories, metadata and attributes, without any notion of a release |
//! | [`index`] | the result of the last scan, so that the next one reads changes only |
//! | [`state`] | the [`Worktree`], on which every step works, and the small files of its state |
//! | [`scan`] | walking and hashing a tree |
//! | [`prepare`] | checks before anything changes: items, permissions, space, obstructions |
//! | [`commit`] | the journal, its steps in place or the exchange of trees, and the undo |
//! | [`history`] | kept releases, and the content that restores one |
//! | [`lifecycle`] | the [`Tree`]: exclusive claim, crash recovery, commit, revert, confirm |
//! | [`serve`] | sources for a sender |
//! | [`stage`] | a release in preparation beside its tree |

pub mod index;
pub mod scan;
pub mod stage;

mod commit;
mod fs;
mod history;
mod lifecycle;
mod prepare;
mod serve;
mod state;

#[cfg(test)]
mod tests;

pub use commit::journal::{DirStep, Journal, Step};
pub use commit::run::CommitReport;
pub use fs::abilities::FsAbilities;
pub use fs::owners::{HostNames, Rights};
pub use fs::root::{FileId, Root, open_file_at};
pub use fs::stat::{FileStat, Version};
pub use fs::volume::Volume;
pub use fs::{mounts, sys, user_lookup};
pub use history::kept_releases::KeptRelease;
pub use history::retention::{Arriving, Lacking, Merged, NextRelease, Unmerged};
pub use index::{Index, IndexEntry};
pub use lifecycle::{Recovery, Tree};
pub use scan::{ScanOptions, Scanned, scan, scan_with_written};
pub use serve::release_nodes::ReleaseNodes;
pub use serve::scanned_source::{Blocks, Nothing, ScannedSource, SourceError};
pub use serve::stored_source::{LiveTree, StoredSource};
pub use stage::{Committed, NotReverted, Stage, Staged};
pub use state::awaiting::AwaitingRelease;
pub use state::dir::StateDir;
pub use state::failures::{FailedRelease, MAX_FAILED_RELEASES};
pub use state::health::Unhealthy;
pub use state::hold::{Hold, HoldRecord};
pub use state::node_store::NodeStore;
pub use state::pins::MAX_PINS;
pub use state::reader::{BESIDE, CommitMark, FORWARD, Mark, StateReader, StoredRelease};
pub use state::tombstones::Following;
pub use state::worktree::{TreeOptions, Worktree, check_dir, open_dir};
