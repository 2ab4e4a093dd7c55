//! The scan: turns a tree on disk into sorted entries with block-hashed content, in an
//! [`Index`](super::index::Index).
//!
//! One thread walks, merges with the old index and writes the new one; the other threads list
//! directories and read files ahead. Memory holds a window of the tree, never all of it. A file is
//! not read if its stat is unchanged since the last scan, except for a change so close to that scan
//! that the stat proves nothing (git's "racily clean" entries).
//!
//! With an old index made by the same options, nothing is walked: every path is stat-checked
//! ([`compare`]), only differences are described ([`changes`]), and unchanged pages are copied
//! ([`merge`]). Without differences the old index stays.
//!
//! The scan does not know the purpose of the entries: a sender's source and a host's own tree are
//! scanned alike.

mod batch;
mod change_finder;
mod changes;
mod clock;
mod collect;
mod compare;
mod content;
mod context;
mod counts;
mod describe;
mod differences;
mod errors;
mod exposed;
#[cfg(test)]
mod git_tests;
mod have;
mod hints;
mod ignore;
mod inode_names;
mod known_paths;
mod large_file;
mod lister;
mod listing;
mod mapped;
mod merge;
mod old_entries;
mod options;
mod policy;
mod read;
mod run;
mod scanned;
mod segments;
mod selection;
#[cfg(test)]
mod tests;
mod walk;
mod windows;
mod work;

pub(super) use self::clock::{CLOCK_GRANULARITY, is_racy};
pub(super) use self::content::holds;
pub use self::counts::ScanCounts;
pub use self::exposed::{Exposed, Exposures};
pub use self::hints::Hints;
pub use self::ignore::IgnoreFiles;
#[cfg(test)]
pub use self::options::Gap;
pub use self::options::{EntryRules, IndexReuse, ScanOptions};
pub use self::policy::{OwnerMapping, Policy};
pub use self::run::{scan, scan_with_written};
pub use self::scanned::{FOREIGN_OWNER, ScanStats, Scanned, Skipped};
pub use self::selection::PathSelection;
pub use self::windows::ScanWindows;
pub use super::index::unread_content;
