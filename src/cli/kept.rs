//! Finds a kept release for show and diff: in a repository, or in the state of this host.

use std::path::{Path, PathBuf};

use super::args::KeptArgs;
use super::release_ref::ReleaseRef;
use super::{network, sign, store};
use crate::config::HostConfig;
use crate::drive::kept::KeptContent;
use crate::drive::repository::kept_content;
use crate::id::TreeName;
use crate::keys::{Namespace, PublicKey, verify};
use crate::report::words;
use crate::store::Store;
use crate::tree::{StateReader, StoredRelease};
use crate::{Error, Result};

/// The place of kept releases.
pub(super) enum KeptPlace {
    Repository(Box<(Store, HostConfig)>),
    ThisHost(Box<HostConfig>),
}

impl KeptPlace {
    /// The place that the arguments name.
    pub(super) fn resolve(args: &KeptArgs, config: Option<&Path>) -> Result<Self> {
        let config = network::host_config(config)?;
        let Some(from) = &args.from else {
            return Ok(Self::ThisHost(Box::new(config)));
        };

        let url = store::url(from)?;
        let store = Store::open(&url, &store::options(args.ca_file.as_deref()))?;
        Ok(Self::Repository(Box::new((store, config))))
    }

    /// Opens a release; `None` if this host does not have the tree, or nothing that may be read.
    pub(super) fn open(&self, wanted: &ReleaseRef) -> Result<Option<KeptContent>> {
        match self {
            KeptPlace::Repository(place) => {
                let (store, config) = &**place;
                let keys = sign::authorized(None, config)?;
                kept_content(store.clone(), &wanted.tree, wanted.serial, &keys).map(Some)
            }
            KeptPlace::ThisHost(config) => local(wanted, config),
        }
    }

    /// Opens a release whose content is needed, by a key whose signature holds.
    pub(super) fn open_content(&self, wanted: &ReleaseRef) -> Result<KeptContent> {
        let tree = &wanted.tree;
        let elsewhere = || {
            Error::refused(format!("this machine does not keep {wanted}")).hint(format!(
                "run this on a host that keeps it, by root or the daemon's user, or name a \
                 repository with --from; `makuo log {tree}` lists the hosts"
            ))
        };
        let found = self.open(wanted)?.ok_or_else(elsewhere)?;
        signing_key(&found.stored)?;
        Ok(found)
    }
}

/// The key that signed a release; an error if the signature does not hold.
pub(super) fn signing_key(stored: &StoredRelease) -> Result<PublicKey> {
    let release = &stored.release;
    verify(Namespace::RELEASE, release.bytes(), &stored.signature)
        .map_err(|e| Error::refused(format!("the signature of {release} does not hold")).because(e))
}

/// Path and state of the tree on this machine, if served here.
pub(super) fn local_state(
    tree: &TreeName,
    config: &HostConfig,
) -> Result<Option<(PathBuf, StateReader)>> {
    let Some(tree) = config.trees.iter().find(|t| t.name == *tree) else {
        return Ok(None);
    };

    let records = StateReader::find(&tree.name, &tree.path, config.state_dir.as_deref())?;
    Ok(records.map(|records| (tree.path.clone(), records)))
}

fn local(wanted: &ReleaseRef, config: &HostConfig) -> Result<Option<KeptContent>> {
    let found = match local_state(&wanted.tree, config) {
        Err(e) if e.is_os(std::io::ErrorKind::PermissionDenied) => None,
        found => found?,
    };
    let Some((path, records)) = found else {
        return Ok(None);
    };

    let current = || -> Result<_> { Ok(records.current()?.map(|mark| mark.serial)) };
    let serial = match wanted.serial {
        Some(serial) => Some(serial),
        None => current()?,
    };
    let stored = serial.map(|serial| records.stored(serial)).transpose()?;
    match stored.flatten() {
        Some(stored) => KeptContent::local(&path, &records, stored).map(Some),
        None => Err(not_kept(wanted, &records)?),
    }
}

/// Error for a release that this host does not keep.
pub(super) fn not_kept(wanted: &ReleaseRef, records: &StateReader) -> Result<Error> {
    let shown = |kept: &crate::tree::KeptRelease| words::release(&wanted.tree, Some(kept.serial));
    let kept: Vec<String> = records.kept()?.iter().map(shown).collect();
    let hint = match kept.is_empty() {
        true => "it has no release of the tree yet".to_string(),
        false => format!(
            "it keeps {}; `keep` in its [[tree]] sets how many",
            kept.join(", ")
        ),
    };
    Ok(Error::refused(format!("this host does not keep {wanted} any more")).hint(hint))
}
