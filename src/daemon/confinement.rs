//! When a daemon gives its rights away, and what it keeps: the configuration turned into a [`sandbox::Reach`].

use std::path::{Path, PathBuf};

use super::unmanaged::{Place, Places};
use super::{Setup, sandbox};
use crate::config::{DEFAULT_SENDER_KEY, HostConfig, Sandbox, TreeConfig};
use crate::drive::disk::Host;
use crate::hook::outside::Outside;
use crate::tree::{BESIDE, user_lookup};
use crate::{Error, Result};

/// Whether this daemon is to confine itself, and can.
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

/// Starts what keeps the daemon's rights, and gives them away.
pub(super) fn step_down(setup: &mut Setup, confines: bool) -> Result<()> {
    let run_as = sandbox::RunAs {
        user: setup.user.clone(),
        group: setup.run_group.clone(),
        groups: setup.groups.clone(),
        devices: setup.config.trees.iter().any(|tree| tree.devices),
    };

    if confines || run_as.is_another() {
        for tree in setup
            .config
            .trees
            .iter_mut()
            .filter(|tree| !tree.hooks.is_empty())
        {
            tree.hooks.outside = Some(Outside::start(&tree.hooks)?);
        }
    }

    sandbox::drop_to(&run_as)?;
    if confines {
        user_lookup::start()
    } else {
        Ok(())
    }
}

/// The directory below which a tree that cannot be opened yet is to be reached: its own where there is one and it stays
/// the same, else the nearest one above it, unless that is all of the machine.
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

/// Gives away the sight of all but the trees, their state and the daemon's own files.
pub(super) fn confine(setup: &Setup, host: &Host, places: &Places) -> Result<()> {
    let config = &setup.config;
    let mut reach = sandbox::Reach::default();
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
                .extend(places.get(&tree.name).map(|place| place.root.here()));
            reach.write.extend(places.get(&tree.name).map(Place::path));
            continue;
        };
        // What was opened, whatever the paths lead to by now. An exchanged tree has another directory each time, so that
        // only the one above it stays what it is.
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

    // They are removed at the end.
    let sockets = setup
        .socket
        .as_deref()
        .into_iter()
        .chain(config.console.socket.as_deref());

    reach.sockets.extend(sockets.filter_map(beside));
    // Files that are read again are often replaced: their directories are what stays.
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
