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
use crate::net::peer_lookup;
use crate::store::{Store, StoreOptions, StoreUrl};

/// Environment variables with files that a client reads again: keys that are rotated.
const KEY_FILES: [&str; 5] = [
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_CONFIG_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AZURE_FEDERATED_TOKEN_FILE",
];

/// Opens the repositories of `config`.
pub(super) fn open(config: &HostConfig) -> Result<Vec<RepositoryPoll>> {
    let environment = StoreOptions::from_environment();
    let mut polls: Vec<RepositoryPoll> = Vec::new();
    for tree in &config.trees {
        let Some(repository) = &tree.repository else {
            continue;
        };
        let options = StoreOptions {
            ca_file: repository.ca_file.clone(),
            lookup: Some(peer_lookup::resolve),
            ..environment.clone()
        };
        let opened = StoreUrl::parse(&repository.url, Path::new("/"))
            .and_then(|url| Ok((url.to_string(), Store::open(&url, &options)?)));
        let (place, store) = opened.map_err(|e| repository.wrong(&e))?;
        let same = polls.iter().find(|poll| poll.place == place);
        let figures = same.map(|poll| Arc::clone(&poll.figures));
        let figures = figures.unwrap_or_default();

        polls.push(RepositoryPoll {
            tree: tree.name.clone(),
            store: store.counted(Arc::clone(&figures)),
            place,
            figures,
            interval: repository.poll,
            rate: config.network.catch_up_rate,
        });
    }

    Ok(polls)
}

/// Returns whether a repository is reached by a name.
pub(super) fn has_names(config: &HostConfig) -> bool {
    places(config).any(|place| !matches!(place, StoreUrl::Directory(_)))
}

/// Paths that a confined daemon has to read for its repositories: directories with objects or keys.
/// Certificates are read before, and names are looked up by another process.
pub(super) fn reach(config: &HostConfig) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for place in places(config) {
        match place {
            StoreUrl::Directory(path) => paths.push(path),
            StoreUrl::Web(_) => {}
            StoreUrl::Bucket(_) => {
                let named = KEY_FILES.iter().filter_map(std::env::var_os);
                // A file that is replaced is another one, so its directory is allowed.
                paths.extend(named.filter_map(|file| Some(Path::new(&file).parent()?.into())));
                paths.extend(std::env::home_dir().map(|home| home.join(".aws")));
            }
        }
    }

    paths
}

fn places(config: &HostConfig) -> impl Iterator<Item = StoreUrl> {
    let repositories = config.trees.iter().filter_map(|t| t.repository.as_ref());
    repositories.filter_map(|repository| StoreUrl::parse(&repository.url, Path::new("/")).ok())
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
