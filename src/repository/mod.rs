//! Releases on a store that is not trusted: the formats of its objects and the machines that read
//! and write them, without I/O.
//!
//! **Objects.** `makuo-repository` is a marker with the format. `packs/ab/SHA256.pack` has pieces
//! one after another: blocks, manifest nodes, places pages, release records. `trees/NAME/head` is
//! the only object that changes. It is signed, and names the records of the releases that the
//! repository keeps.
//!
//! **Places.** A record names the places of the root node and of its places page, a places page
//! those of the blocks and children of its node ([`places`]). So the places form a tree beside the
//! manifest, and two releases share it where they share the manifest. A publication writes a pack
//! with the new blocks, then the nodes and places pages that changed, then the record. A small one
//! is one pack, and a reader gets all of it with the record by one request.
//!
//! **Trust.** The head is signed by a key that may deploy or roll back the tree. It contains the
//! hash of the record, a record that of the root places page, and so on: places cannot be forged.
//! The header has its own signature, as on the network, and binds nodes and blocks.

pub mod attempt;
pub mod fetch;
pub mod gc;
pub mod head;
mod loader;
pub mod marker;
pub mod object;
pub mod pack;
mod packer;
pub mod places;
pub mod publish;
pub mod pull;
mod puts;
pub mod record;
mod slots;
#[cfg(test)]
mod tests;

pub use packer::SignedRelease;
