//! Opens the trees and keys of a host, with all of its rights.

use std::sync::{Arc, Mutex};

use super::send_only_trees::{SendOnlyTree, SendOnlyTrees};
use super::{DaemonSetup, confinement, reopening};
use crate::config::HostConfig;
use crate::drive::host::{LocalHost, OwnKey, Trees, open_tree};
use crate::keys::AuthorizedKeys;
use crate::units::printable_path;
use crate::{Kind, Result};

/// Opens every tree, completing recovery after a crash, and reads the authorized keys. Without a
/// key file the host runs and refuses every release, with a message on how to add a key.
pub(super) fn open(setup: &DaemonSetup, confines: bool) -> Result<LocalHost> {
    let config = &setup.config;
    let (keys, warning) = authorized_keys(config)?;
    if let Some(warning) = warning {
        tracing::warn!("{warning}");
    }

    let state_dir = config.state_dir.as_deref();
    let received = config.trees.iter().filter(|_| setup.mode.receives);
    let mut trees = Vec::new();
    let mut broken = Vec::new();

    for tree in received {
        match open_tree(tree, state_dir) {
            Ok(managed) => trees.push((tree.name.clone(), managed)),
            Err(e) => {
                let is_reachable = !confines || confinement::anchor(tree).is_some();
                let why = reopening::unserved(tree, &e, is_reachable);
                tracing::error!("{why}");
                broken.push((tree.name.clone(), why, e));
            }
        }
    }

    // A wrong configuration or a tree of another daemon will not fix itself.
    let is_final = trees.is_empty() && broken.iter().all(|(_, _, e)| e.kind() != Kind::Io);

    if is_final && let Some((_, _, first)) = broken.pop() {
        return Err(first);
    }

    let mut trees: Trees = trees.into_iter().collect();
    for (name, why, _) in broken {
        trees.add_broken(name, why);
    }

    Ok(LocalHost {
        name: setup.name.clone(),
        trees,
        keys: Mutex::new(Arc::new(keys)),
        labels: Mutex::new(config.labels.clone()),
        own_key: OwnKey::default(),
        figures: Arc::default(),
    })
}

/// The authorized keys, and a warning if there are none.
pub(super) fn authorized_keys(config: &HostConfig) -> Result<(AuthorizedKeys, Option<String>)> {
    let path = &config.authorized_keys;
    let keys = match AuthorizedKeys::load(path) {
        Ok(keys) => keys,
        Err(e) if e.is_os(std::io::ErrorKind::NotFound) => {
            let warning = format!("{e}: every release will be refused");
            return Ok((AuthorizedKeys::none(path), Some(warning)));
        }
        Err(e) => return Err(e),
    };

    let shown = printable_path(path);
    let warning = format!("no key is listed in {shown}: every release will be refused");
    let warning = keys.is_empty().then_some(warning);
    Ok((keys, warning))
}

/// Opens the trees that accept no releases of others.
pub(super) fn send_only(setup: &DaemonSetup, host: &LocalHost) -> Result<SendOnlyTrees> {
    let alone = setup
        .config
        .trees
        .iter()
        .filter(|tree| !host.trees.names().any(|n| *n == tree.name));
    let state_dir = setup.config.state_dir.as_deref();
    alone
        .map(|tree| Ok((tree.name.clone(), SendOnlyTree::of(tree, state_dir)?)))
        .collect()
}
