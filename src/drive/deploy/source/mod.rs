//! A sender's source: a directory, scanned and made into a manifest, or data from elsewhere.
//!
//! `settings` select the part and the mode, `prepare` scans, and `prepared` holds the facts of the
//! release. The index stays in the `index_place`, and `unmounted` checks for file systems that have
//! gone. `reader` reads the data generation by generation, `node_reader` the nodes by their hashes.
//! `moved` puts the entries at another path.

mod index_place;
mod moved;
mod node_reader;
mod prepare;
mod prepared;
mod reader;
mod settings;
mod unmounted;

pub use moved::moved;
pub(in crate::drive) use node_reader::NodeReader;
pub use prepare::prepare;
pub use prepared::{NewRelease, PreparedRelease};
pub use reader::ReleaseSource;
pub use settings::{SourcePart, SourceScan, Unmounted};
