//! The disk: reading a tree and changing it, by handles only.

pub mod root;

pub use root::Root;
