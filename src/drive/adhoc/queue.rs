//! The queue of requests: one session at a time for each tree, and none after the host's end.

use std::collections::{HashMap, HashSet};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::drive::deploy::Interrupt;
use crate::id::TreeName;
use crate::sync::locked;
use crate::{Error, Result};

/// Interval between a waiting request's checks for an interrupt.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Requests, running or waiting for a tree.
#[derive(Debug, Default)]
pub(super) struct RequestQueue {
    state: Mutex<KnownRequests>,
    free: Condvar,
}

#[derive(Debug, Default)]
struct KnownRequests {
    /// Trees with a session in progress.
    trees: HashSet<TreeName>,
    /// Number of further parts before the next merge, by tree.
    until_merge: HashMap<TreeName, usize>,
    /// Interrupts of all requests, running or waiting.
    interrupts: Vec<Interrupt>,
    /// Set when the host ends: no request begins any more.
    ending: bool,
}

impl RequestQueue {
    /// Number of sessions in progress.
    pub(super) fn len(&self) -> usize {
        self.locked().trees.len()
    }

    /// Waits until no other session of `tree` is in progress.
    pub(super) fn begin(&self, tree: &TreeName, interrupt: &Interrupt) -> Result<TreeTurn<'_>> {
        let known = self.register(interrupt)?;

        let mut state = self.locked();
        while !state.trees.insert(tree.clone()) {
            if interrupt.is_asked() {
                return Err(Error::refused("interrupted before anything was sent"));
            }
            state = self
                .free
                .wait_timeout(state, POLL_INTERVAL)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }

        Ok(TreeTurn {
            known,
            tree: tree.clone(),
        })
    }

    fn register(&self, interrupt: &Interrupt) -> Result<Registered<'_>> {
        let mut state = self.locked();
        if state.ending {
            return Err(Error::refused("the daemon ends"));
        }

        state.interrupts.push(interrupt.clone());

        Ok(Registered {
            queue: self,
            interrupt: interrupt.clone(),
        })
    }

    /// Interrupts all requests and refuses new ones.
    pub(super) fn stop(&self) {
        let mut state = self.locked();
        state.ending = true;
        for interrupt in &state.interrupts {
            interrupt.interrupt();
        }
    }

    /// Counts a new part of `tree`; returns whether to try a merge.
    pub(super) fn may_merge(&self, tree: &TreeName) -> bool {
        let mut state = self.locked();
        let Some(left) = state.until_merge.get_mut(tree) else {
            return true;
        };
        *left = left.saturating_sub(1);
        *left == 0
    }

    /// Tries again after `parts` further ones.
    pub(super) fn merge_after(&self, tree: &TreeName, parts: usize) {
        self.locked().until_merge.insert(tree.clone(), parts);
    }

    fn locked(&self) -> MutexGuard<'_, KnownRequests> {
        locked(&self.state)
    }
}

/// The right to a session of a tree, until dropped.
pub(super) struct TreeTurn<'a> {
    known: Registered<'a>,
    tree: TreeName,
}

impl Drop for TreeTurn<'_> {
    fn drop(&mut self) {
        let queue = self.known.queue;
        queue.locked().trees.remove(&self.tree);
        queue.free.notify_all();
    }
}

/// A request to interrupt at the host's end, until dropped.
struct Registered<'a> {
    queue: &'a RequestQueue,
    interrupt: Interrupt,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.queue
            .locked()
            .interrupts
            .retain(|other| !other.is(&self.interrupt));
    }
}
