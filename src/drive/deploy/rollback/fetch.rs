//! Fetches the header of an earlier release from hosts, and checks the key.
//!
//! A new signature on an old header vouches for its content with the new key. So a release is
//! signed again only if the original signature holds and the original key is the signing key or
//! authorized here. Otherwise a rollback would sign any data found on a host's disk.

use std::time::Duration;

use crate::drive::endpoint::GroupLinks;
use crate::drive::survey;
use crate::id::{Serial, TreeName};
use crate::keys::{AuthorizedKeys, Namespace, PublicKey, Role, verify};
use crate::manifest::Release;
use crate::tree::StoredRelease;
use crate::units::{WallTime, printable};
use crate::{Error, Result};

/// Fetches the earlier release `serial` from the hosts that keep it; ignores unverifiable copies.
pub fn fetch(
    network: impl Into<GroupLinks>,
    tree: &TreeName,
    serial: Serial,
    longest: Duration,
) -> Result<StoredRelease> {
    let mut found = fetch_all(network, tree, serial, longest)?;
    match (found.pop(), found.is_empty()) {
        (Some(one), true) => Ok(one),
        (Some(_), false) => Err(Error::refused(format!(
            "hosts keep different releases under the number {tree}@{serial}"
        ))
        .hint("run the rollback on a host that keeps the right one, or deploy it")),
        (None, _) => Err(Error::refused(format!(
            "no host sent {tree}@{serial} with a signature that holds"
        ))
        .hint("see `makuo log`; deploy the release from its source")),
    }
}

/// Fetches all releases of `serial` on hosts whose copies verify.
pub fn fetch_all(
    network: impl Into<GroupLinks>,
    tree: &TreeName,
    serial: Serial,
    longest: Duration,
) -> Result<Vec<StoredRelease>> {
    let mut found: Vec<StoredRelease> = Vec::new();
    for (_, header, signature) in survey::release(network, tree, serial, longest)? {
        let Ok(release) = Release::from_bytes(&header) else {
            continue;
        };
        let whole = release.header().tree == *tree && release.header().serial == serial;
        let signed = verify(Namespace::RELEASE, release.bytes(), &signature).is_ok();
        if whole && signed && !found.iter().any(|f| f.release.id() == release.id()) {
            found.push(StoredRelease { release, signature });
        }
    }

    Ok(found)
}

/// Refuses a release unless its key is that of `signer` or authorized here.
pub fn check_key(
    earlier: &StoredRelease,
    signer: &PublicKey,
    authorized: &AuthorizedKeys,
    now: WallTime,
) -> Result<()> {
    let header = earlier.release.header();
    let shown = format!("{}@{}", header.tree, header.serial);
    let key = verify(
        Namespace::RELEASE,
        earlier.release.bytes(),
        &earlier.signature,
    )
    .map_err(|e| Error::refused(format!("the signature of {shown} does not hold: {e}")))?;

    if key == *signer {
        return Ok(());
    }

    authorized
        .allows(&key, &header.tree, Role::from(header.intent), now)
        .map_err(|_| {
            Error::refused(format!(
                "{shown} was signed by {}, which is not the key that signs now and not authorized \
            here ({})",
                key.fingerprint(),
                printable(authorized.file().as_os_str().as_encoded_bytes())
            ))
            .hint(
                "signing it again would make it yours: name a file that lists the key with \
            --authorized-keys, or use that key",
            )
        })
}
