//! The disk: reading a tree and changing it, by handles only.

pub mod index;
pub mod meta;
pub mod root;
pub mod scan;
pub mod source;

pub use index::{Index, IndexEntry};
pub use root::Root;
pub use scan::{ScanOptions, Scanned, scan};
pub use source::{Source, SourceError};
