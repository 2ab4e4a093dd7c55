//! The disk: reading a tree and changing it, by handles only.

pub mod root;

pub mod apply;
pub mod commit;
pub mod journal;
mod leftover;
pub mod meta;
pub mod nodes;
pub mod open;
pub mod owners;
pub mod stage;
pub mod state;
#[cfg(test)]
mod tests;
pub mod undo;

pub use open::{Options, Tree};
pub use root::Root;
pub use stage::Stage;
