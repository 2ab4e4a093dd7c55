//! The exclusive right to stage, commit or revert on a tree.

use std::ops::Deref;
use std::sync::atomic::Ordering;

use super::Tree;
use crate::error::{Error, Result};

/// Attempts at a busy tree, and the pause between them.
const CLAIMS: usize = 50;
const CLAIM_PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

/// Exclusive right of one caller to stage, commit or revert.
#[derive(Debug)]
pub(crate) struct Claim<T: Deref<Target = Tree>>(T);

impl<'a> Claim<&'a Tree> {
    /// Like [`Claim::new`], but waits a moment for a busy tree.
    pub(crate) fn patient(tree: &'a Tree) -> Result<Self> {
        for _ in 0..CLAIMS {
            if let Ok(claim) = Self::new(tree) {
                return Ok(claim);
            }
            std::thread::sleep(CLAIM_PAUSE);
        }
        Self::new(tree)
    }
}

impl<T: Deref<Target = Tree>> Claim<T> {
    pub(crate) fn new(tree: T) -> Result<Self> {
        if tree.busy.swap(true, Ordering::AcqRel) {
            return Err(Error::refused(format!(
                "tree {} is in the middle of another release",
                tree.name()
            ))
            .hint("wait for it to end, then try again"));
        }

        Ok(Self(tree))
    }
}

impl<T: Deref<Target = Tree>> Drop for Claim<T> {
    fn drop(&mut self) {
        self.0.busy.store(false, Ordering::Release);
    }
}
