//! Decides which rights a daemon gives up and when: turns the configuration into a
//! [`sandbox::SandboxRules`].

use std::path::{Path, PathBuf};

use super::send_only_trees::{SendOnlyTree, SendOnlyTrees};
use super::{DaemonSetup, repositories, sandbox};
use crate::config::{DEFAULT_SENDER_KEY, HostConfig, PeerName, Sandbox, TreeConfig};
use crate::drive::host::LocalHost;
use crate::hook::helper_process::{HelperProcess, HookSource};
use crate::net::peer_lookup;
use crate::tree::{BESIDE, user_lookup};
use crate::{Error, Result};

/// Returns whether this daemon should confine itself and the kernel supports it.
pub(super) fn confines(config: &HostConfig) -> Result<bool> {
    match (config.sandbox, sandbox::is_possible()) {
        (Sandbox::Off, _) => Ok(false),
        (_, true) => Ok(true),
        (Sandbox::Auto, false) => {
            tracing::warn!(
                "this kernel has no Landlock (Linux 5.19): the daemon is not confined to its trees"
            );
            Ok(false)
        }
        (Sandbox::Require, false) => Err(Error::usage(
            "this kernel has no Landlock, and the configuration requires it",
        )
        .hint("boot with Landlock (Linux 5.19 and later), or write sandbox = \"auto\"")),
    }
}

/// Starts the helper processes that keep the daemon's rights, then drops the rights.
pub(super) fn step_down(setup: &mut DaemonSetup, confines: bool) -> Result<()> {
    if confines || setup.run_as.is_another() {
        let path = setup.config.path.clone();
        for tree in setup
            .config
            .trees
            .iter_mut()
            .filter(|tree| !tree.hooks.is_empty())
        {
            let source = HookSource::new(&path, tree.name.as_str());
            tree.hooks.helper = Some(HelperProcess::start(&tree.hooks, source)?);
        }
    }

    let devices = setup.config.trees.iter().any(|tree| tree.devices);
    sandbox::drop_to(&setup.run_as, devices)?;
    if !confines {
        return Ok(());
    }

    let config = &setup.config;
    let has_peers = config.network.peers.iter().any(PeerName::is_name);
    if has_peers || repositories::has_names(config) {
        peer_lookup::start()?;
    }
    user_lookup::start()
}

/// Directory to keep reachable for a tree that cannot be opened yet: the tree's own if it exists
/// and stays the same, else its nearest existing ancestor; `None` if that is the root of the file
/// system.
pub(super) fn anchor(tree: &TreeConfig) -> Option<PathBuf> {
    let own = std::fs::canonicalize(&tree.path)
        .ok()
        .filter(|path| path.is_dir() && tree.swap != Some(true));
    if own.is_some() {
        return own;
    }

    let above = tree
        .path
        .ancestors()
        .skip(1)
        .find_map(|above| std::fs::canonicalize(above).ok())?;
    above.parent().is_some().then_some(above)
}

/// Restricts the daemon to the trees, their state and its own files.
pub(super) fn confine(
    setup: &DaemonSetup,
    host: &LocalHost,
    send_only: &SendOnlyTrees,
) -> Result<()> {
    let config = &setup.config;
    let mut reach = sandbox::SandboxRules::default();
    let beside = |path: &Path| path.parent().map(Path::to_path_buf);
    for tree in &config.trees {
        if host.trees.broken(&tree.name).is_some() {
            let anchor = anchor(tree);
            let state = anchor
                .as_deref()
                .and_then(beside)
                .map(|above| above.join(BESIDE));
            reach
                .write
                .extend(state.filter(|dir| dir.is_dir()).into_iter().chain(anchor));
            reach
                .write
                .extend(config.state_dir.clone().filter(|dir| dir.is_dir()));
            continue;
        }
        let Some(managed) = host.trees.get(&tree.name) else {
            reach
                .read
                .extend(send_only.get(&tree.name).map(|tree| tree.root.here()));
            reach
                .write
                .extend(send_only.get(&tree.name).map(SendOnlyTree::path));
            continue;
        };
        // Directories as opened, wherever their paths lead by now. An exchanged tree has another
        // directory each time, so only its parent stays the same.
        let root = managed.tree.root();
        let is_in_some_directory = root
            .real_path()
            .is_ok_and(|path| path.parent() != Some(Path::new("/")));
        let opens = tree.swap == Some(true) && is_in_some_directory;
        reach.write.push(if opens {
            root.here().join("..")
        } else {
            root.here()
        });
        reach.write.push(managed.tree.state().here());
    }

    // Sockets are removed at the end.
    let sockets = setup
        .socket
        .as_deref()
        .into_iter()
        .chain(config.console.socket.as_deref());

    reach.sockets.extend(sockets.filter_map(beside));
    // Files that are reloaded are often replaced, so their directories are allowed instead.
    let keys = config
        .sender_key
        .as_deref()
        .unwrap_or(Path::new(DEFAULT_SENDER_KEY));

    let files = [
        config.path.as_path(),
        config.authorized_keys.as_path(),
        keys,
    ]
    .into_iter();

    let files = files.chain(config.console.password.as_deref());
    let files = files.chain(config.network.group_keys.iter().map(PathBuf::as_path));
    reach.read.extend(files.filter_map(beside));
    reach.read.extend(repositories::reach(config));

    match (sandbox::confine(&reach)?, config.sandbox) {
        (sandbox::Confined::Not, Sandbox::Require) => {
            Err(Error::usage("this daemon cannot be confined"))
        }
        (confined, _) => {
            tracing::debug!("confined: {confined:?} {reach:?}");
            Ok(())
        }
    }
}
