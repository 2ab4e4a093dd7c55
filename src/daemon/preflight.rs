//! What would keep a daemon with a configuration from starting or serving on this machine, found by
//! the steps of its start that change nothing.

use super::{confinement, control, opening, repositories, serving};
use crate::config::HostConfig;
use crate::tree::check_dir;
use crate::{Error, Result};

/// What a daemon would meet on this machine.
#[derive(Debug, Default)]
pub struct Preflight {
    /// The daemon would not start, or not serve a tree.
    pub errors: Vec<Error>,
    /// The daemon would start, and hardly as somebody meant.
    pub warnings: Vec<String>,
}

impl Preflight {
    /// Goes through the start of a daemon with `config`.
    pub fn run(config: &HostConfig) -> Self {
        let mut preflight = Self::default();
        preflight.require(confinement::confines(config));
        preflight.require(serving::signer(config));
        preflight.require(serving::password(config));
        preflight.require(repositories::open(config));
        if let Some(group) = &config.socket_group {
            preflight.require(control::socket_group(group));
        }
        if let Some((_, warning)) = preflight.require(opening::authorized_keys(config)) {
            preflight.warnings.extend(warning);
        }
        for tree in &config.trees {
            preflight.require(check_dir(&tree.name, &tree.path, tree.follow_links));
        }

        preflight
    }

    /// Records the error of a step.
    pub fn require<T>(&mut self, step: Result<T>) -> Option<T> {
        step.map_err(|e| self.errors.push(e)).ok()
    }
}
