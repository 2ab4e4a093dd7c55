//! Repositories of a daemon's trees: opened with all of its rights, then looked into by one thread
//! for each tree.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::spawn;
use crate::Result;
use crate::config::HostConfig;
use crate::drive::adhoc::AdhocService;
use crate::drive::host::LocalHost;
use crate::drive::repository::{RepositoryPoll, follow};
use crate::store::{Store, StoreOptions, StoreUrl};

/// Files that a client of a store reads: for names, certificates and credentials.
const CLIENT_FILES: [&str; 8] = [
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/gai.conf",
    "/etc/host.conf",
    "/etc/ssl",
    "/etc/pki",
    "/run/systemd/resolve",
];

/// Opens the repositories of `config`.
pub(super) fn open(config: &HostConfig) -> Result<Vec<RepositoryPoll>> {
    let options = StoreOptions::from_environment();
    let mut polls = Vec::new();
    for tree in &config.trees {
        let Some(repository) = &tree.repository else {
            continue;
        };
        let url = StoreUrl::parse(&repository.url, Path::new("/"))?;
        polls.push(RepositoryPoll {
            tree: tree.name.clone(),
            store: Store::open(&url, &options)?,
            interval: repository.poll,
            rate: config.network.catch_up_rate,
        });
    }

    Ok(polls)
}

/// Paths that a confined daemon has to read for its repositories.
pub(super) fn reach(config: &HostConfig) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for repository in config.trees.iter().filter_map(|t| t.repository.as_ref()) {
        match StoreUrl::parse(&repository.url, Path::new("/")) {
            Ok(StoreUrl::Directory(path)) => paths.push(path),
            _ => {
                paths.extend(CLIENT_FILES.iter().map(PathBuf::from));
                paths.extend(std::env::home_dir().map(|home| home.join(".aws")));
            }
        }
    }

    paths
}

/// Starts to look into the repositories.
pub(super) fn start(
    polls: Vec<RepositoryPoll>,
    host: &Arc<LocalHost>,
    desk: &Arc<AdhocService>,
) -> Result<()> {
    for poll in polls {
        let (host, desk) = (Arc::clone(host), Arc::clone(desk));
        spawn("repository", move || follow(&host, &desk, &poll))?;
    }
    Ok(())
}
