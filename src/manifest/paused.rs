//! The part of a release's header about a commit with pauses: batches, and a person's word between
//! two of them.
//!
//! Commands read it, so that any machine with the release's key can go on. Hosts only keep it: they
//! follow orders, as in every commit.

use minicbor::{Decode, Encode};

use super::header::MAX_PATTERN_BYTES;

/// Largest number of batches of a commit, before the final one.
pub const MAX_BATCHES: usize = 64;

/// Rules of a commit with pauses, as a spec writes them.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct PausedCommit {
    /// Rules of the first batch, the second and so on; the remaining hosts commit in a last one.
    #[n(0)]
    pub batches: Vec<String>,
    /// Hosts of a batch that have to be ready.
    #[n(1)]
    pub require: String,
    /// Whether a failure takes every host back.
    #[n(2)]
    pub revert: bool,
    /// Number of hosts that the release was made for; a command that hears fewer does not take one
    /// of the first batches for the last one.
    #[n(3)]
    pub hosts: Option<u32>,
}

impl PausedCommit {
    /// Refuses lists and texts beyond their caps.
    pub(crate) fn check(&self) -> Result<(), String> {
        let mut texts = self.batches.iter().chain([&self.require]);
        if self.batches.len() > MAX_BATCHES || texts.any(|text| text.len() > MAX_PATTERN_BYTES) {
            return Err("too many batches, or too long rules of batches".to_string());
        }

        Ok(())
    }
}
