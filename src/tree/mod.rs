//! The disk: reading a tree and changing it, by handles only.
//!
//! Reading: [`root`] resolves every path, [`meta`] says what the file system says, [`scan`] walks and hashes, [`index`]
//! remembers, [`source`] gives a sender its manifest and blocks, [`own`] a
//! host's tree to the comparison. Writing: [`open`] locks a tree and ends what a crash
//! left, [`stage`] makes a release complete beside it, [`journal`], [`commit`] and [`undo`] switch to it or back, path by
//! path or (`next`, `swap`, `moves`, `follow`, `rivals`) the whole tree in one exchange, [`state`] and [`nodes`] keep what must last, `shelf` the
//! content of the releases that can be gone back to.

pub mod index;
mod marks;
pub mod meta;
pub mod mounts;
pub mod root;
pub mod scan;
pub mod source;

mod fs;

pub mod apply;
mod barred;
mod carry;
mod chains;
pub mod commit;
mod copies;
mod doubt;
mod drain;
mod executor;
mod follow;
mod grants;
pub mod health;
mod heard;
mod host_key;
mod inherit;
mod items;
pub mod journal;
mod kept;
mod leftover;
pub mod links;
pub mod lookup;
mod moves;
mod names;
mod next;
pub mod nodes;
mod numbered;
pub mod open;
mod overlay;
mod own;
pub mod owners;
mod pair;
mod passing;
mod permissions;
mod places;
mod raise;
pub mod records;
mod relink;
mod retention;
mod rivals;
mod sent;
mod shelf;
mod space;
mod sparse;
pub mod stage;
pub mod state;
mod steps;
pub mod stored;
mod swap;
pub mod sys;
pub mod tombstones;
pub mod undo;
mod way;
mod worktree;
mod written;

#[cfg(test)]
mod tests;

pub use commit::CommitReport;
pub use index::{Index, IndexEntry};
pub use kept::KeptRelease;
pub use open::{Recovery, Tree};
pub use owners::HostNames;
pub use records::{Records, StoredRelease};
pub use retention::{Arriving, Lacking, Merged, Next, Unmerged};
pub use root::Root;
pub use scan::{ScanOptions, Scanned, scan, scan_knowing};
pub use source::{Source, SourceError};
pub use stage::Stage;
pub use stored::{Live, StoredSource};
pub use worktree::{Options, Worktree, open_dir};
