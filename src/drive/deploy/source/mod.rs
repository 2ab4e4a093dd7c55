//! A sender's source: a directory, scanned and made into a manifest, or data from elsewhere.
//!
//! `settings` select the part and the mode, `prepare` scans, and `prepared` holds the facts of the
//! release. The index stays in the `index_place`, and `unmounted` checks for file systems that have
//! gone. `reader` reads the data generation by generation.

mod index_place;
mod prepare;
mod prepared;
mod reader;
mod settings;
mod unmounted;

pub use prepare::prepare;
pub use prepared::{NewRelease, PreparedRelease};
pub use reader::ReleaseSource;
pub use settings::{SourcePart, SourceScan, Unmounted};
