//! The host's own rules for a tree, which a reload replaces while the tree is served.

use std::time::Duration;

use crate::config::{CommitWindow, TreeConfig};
use crate::hook::Hooks;
use crate::manifest::rules::PathFilter;
use crate::units::Limit;

/// The host's own rules for a tree. A session keeps the ones with which it began.
#[derive(Debug)]
pub struct TreeRules {
    /// Paths protected from every release.
    pub protect: PathFilter,
    /// Largest number of deletions in one commit.
    pub max_delete: Limit,
    /// Age from which a release is reported as stale.
    pub max_age: Option<Duration>,
    /// Number of different authorized keys that have to sign a release.
    pub require_signatures: usize,
    /// Times in which the tree commits; `None` for any time.
    pub window: Option<CommitWindow>,
    /// Commands around a commit.
    pub hooks: Hooks,
}

impl From<&TreeConfig> for TreeRules {
    fn from(config: &TreeConfig) -> Self {
        Self {
            protect: config.protect.clone(),
            max_delete: config.max_delete.unwrap_or(Limit::NONE),
            max_age: config.max_age,
            require_signatures: usize::from(config.require_signatures),
            window: config.window.clone(),
            hooks: config.hooks.clone(),
        }
    }
}
