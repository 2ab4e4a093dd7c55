//! Finds a kept release for show and diff: in a repository, or in the state of this host.

use std::path::{Path, PathBuf};

use super::args::KeptArgs;
use super::release_ref::ReleaseRef;
use super::{network, sign, store};
use crate::config::HostConfig;
use crate::drive::clock;
use crate::drive::kept::KeptContent;
use crate::drive::repository::kept_content;
use crate::id::TreeName;
use crate::keys::{AuthorizedKeys, Namespace, PublicKey, Role, verify};
use crate::manifest::Release;
use crate::outcome::{Event, Observer};
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

    /// Opens a release whose content is needed, by a key whose signature holds and which may
    /// release the tree.
    pub(super) fn open_content(
        &self,
        wanted: &ReleaseRef,
        observer: &mut dyn Observer,
    ) -> Result<KeptContent> {
        let tree = &wanted.tree;
        let elsewhere = || {
            Error::refused(format!("this machine does not keep {wanted}")).hint(format!(
                "run this on a host that keeps it, by root or the daemon's user, or name a \
                 repository with --from; `makuo log {tree}` lists the hosts"
            ))
        };
        let found = self.open(wanted)?.ok_or_else(elsewhere)?;
        let key = signing_key(&found.stored)?;
        // A host has verified what it keeps; anybody may write to a repository.
        if let KeptPlace::Repository(place) = self {
            let authorized = sign::authorized(None, &place.1)?;
            check_signer(&found.stored.release, &key, &authorized, observer)?;
        }
        Ok(found)
    }
}

/// Refuses a release of a key that this machine does not list for the tree. A machine without a
/// list names the key.
fn check_signer(
    release: &Release,
    key: &PublicKey,
    authorized: &AuthorizedKeys,
    observer: &mut dyn Observer,
) -> Result<()> {
    let header = release.header();
    let fingerprint = key.fingerprint();
    if authorized.is_empty() {
        let note = format!(
            "{release} is signed by {fingerprint}: this machine has no authorized keys to compare \
             it with"
        );
        observer.event(&Event::Note(note));
        return Ok(());
    }

    let now = clock::wall_seconds();
    let allowed = authorized.allows(key, &header.tree, Role::from(header.intent), now);
    allowed.map(drop).map_err(|denied| {
        let what = format!("{release} is signed by {fingerprint}, which may not release the tree");
        Error::refused(what)
            .because(denied.to_string())
            .hint("its content is not shown: if the key is yours, list it in authorized_keys")
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{FileSigner, Signer};
    use crate::manifest::header::tests::a_header;

    struct Notes(Vec<String>);

    impl Observer for Notes {
        fn event(&mut self, event: &Event) {
            if let Event::Note(note) = event {
                self.0.push(note.clone());
            }
        }
    }

    #[test]
    fn content_of_a_repository_is_shown_by_the_keys_of_this_machine() {
        let key = |seed: u8| *FileSigner::from_seed([seed; 32]).public();
        let release = Release::new(a_header()).expect("legal");
        let checked = |lines: &str, seed: u8| {
            let keys = AuthorizedKeys::parse(lines.as_bytes(), Path::new("authorized_keys"));
            let mut notes = Notes(Vec::new());
            let checked = check_signer(&release, &key(seed), &keys.expect("legal"), &mut notes);
            (checked.err().map(|e| e.to_string()), notes.0)
        };

        let listed = format!("{}\n", key(1));
        assert_eq!(checked(&listed, 1), (None, Vec::new()));
        let elsewhere = format!("tree=\"docs\" {}\n", key(1));
        for (lines, seed) in [(&listed, 2), (&elsewhere, 1)] {
            let (refused, _) = checked(lines, seed);
            let refused = refused.expect("refused");
            assert!(
                refused.contains(&key(seed).fingerprint().to_string()),
                "{refused}"
            );
        }

        let (refused, notes) = checked("", 2);
        assert_eq!((refused, notes.len()), (None, 1));
        assert!(
            notes[0].contains(&key(2).fingerprint().to_string()),
            "{notes:?}"
        );
    }
}
