//! Chooses the serial of the next release: above every serial proven by hosts or used by this
//! sender.
//!
//! A host's claim needs proof: a release or a tombstone signed by an authorized key. The claims of
//! more than half of the hosts are believed within a limit, since releases may be by unknown keys.
//! Nobody else can use serials up.
//!
//! **What is remembered.** The highest serial used by this sender for each tree, beside the
//! indexes. Hosts with the last release may be absent from the next, and two releases of one serial
//! cannot be told apart by number.
//!
//! **On disk.** `serials/TREE` in the cache: the number and a line break, replaced by a rename
//! while `serials/.lock` is held. Written before the release is announced.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use super::cache_file;
use super::options::DeployOptions;
use crate::drive::clock;
use crate::id::{Serial, TreeName};
use crate::keys::{Namespace, PublicKey, verify};
use crate::manifest::{Intent, Release};
use crate::wire::message::{Order, SerialProof};
use crate::{Error, Result};

/// Largest useful distance of a remembered serial above the accepted ones. A larger one may stem
/// from a forged claim, and hosts refuse such a step.
const MAX_REMEMBERED_GAP: u64 = 1 << 20;

/// Highest believable serial accepted by hosts.
pub(super) fn highest(
    options: &DeployOptions,
    claims: &[(IpAddr, Serial)],
    shown: &[SerialProof],
) -> Serial {
    let tree = &options.spec.tree;
    let now = clock::wall_seconds();
    believed(tree, claims, shown, |key| {
        options.keys.prove(key, tree, now)
    })
}

/// Refuses if hosts or this machine's tree have a later release than `only_after`.
pub(super) fn check_none_later(options: &DeployOptions, highest: Serial) -> Result<()> {
    let Some(last) = options.conditions.only_after else {
        return Ok(());
    };

    let tree = &options.spec.tree;
    let own = options.beside.as_ref().and_then(|host| host.tree(tree));

    let own = own
        .map(|tree| tree.state().current())
        .transpose()?
        .flatten()
        .map(|mark| mark.serial);

    let newest = highest.max(own.unwrap_or_default());
    if newest > last {
        return Err(Error::refused(format!(
            "{tree}@{newest} came after {tree}@{last}"
        )));
    }

    Ok(())
}

/// Returns the next unused serial of the tree and stores it in the cache, if there is one; calls
/// `note` if it cannot be stored.
pub(super) fn next(options: &DeployOptions, highest: Serial, note: impl FnOnce(String)) -> Serial {
    next_of(options.cache.as_deref(), &options.spec.tree, highest, note)
}

/// Like [`next`], for `tree` and the directory `cache`.
pub(in crate::drive) fn next_of(
    cache: Option<&Path>,
    tree: &TreeName,
    highest: Serial,
    note: impl FnOnce(String),
) -> Serial {
    let Some(cache) = cache else {
        return highest.next();
    };

    take(cache, tree, highest).unwrap_or_else(|e| {
        let why = format!(
            "the last serial is not kept in {} ({e}): a host that is away may have another \
            release of the next one",
            cache.display()
        );
        note(why);
        highest.next()
    })
}

/// The last serial of `tree` that this machine used or saw, unless it is far above `near`.
pub(in crate::drive) fn remembered(cache: Option<&Path>, tree: &TreeName, near: Serial) -> Serial {
    let read = |cache: &Path| {
        read(&cache.join("serials").join(tree.as_str()))
            .ok()
            .flatten()
    };
    let known = cache.and_then(read);
    let is_believed = |known: &Serial| known.0.saturating_sub(near.0) <= MAX_REMEMBERED_GAP;
    known.filter(is_believed).unwrap_or_default()
}

/// Returns whether this machine remembers a serial of `tree`.
pub(in crate::drive) fn has_any(cache: Option<&Path>, tree: &TreeName) -> bool {
    let path = cache.map(|cache| cache.join("serials").join(tree.as_str()));
    path.is_some_and(|path| read(&path).ok().flatten().is_some())
}

/// The highest believable serial of `tree` among the accepted ones: `shown` by authorized keys, or
/// claimed by most addresses.
fn believed(
    tree: &TreeName,
    claims: &[(IpAddr, Serial)],
    shown: &[SerialProof],
    counts: impl Fn(&PublicKey) -> bool,
) -> Serial {
    let proven = shown
        .iter()
        .filter_map(|shown| proven(tree, shown, &counts))
        .filter(|serial| serial.0 <= Serial::MAX_ACCEPTED);
    let proven = proven.max().unwrap_or_default();

    let mut voices: BTreeMap<IpAddr, Serial> = BTreeMap::new();

    for (address, claim) in claims {
        voices
            .entry(*address)
            .and_modify(|least| *least = (*least).min(*claim))
            .or_insert(*claim);
    }

    let mut voices: Vec<Serial> = voices.into_values().collect();
    voices.sort_unstable();

    // More than half of the addresses claim this serial or a higher one.
    let most = voices
        .len()
        .checked_sub(1)
        .and_then(|last| voices.get(last / 2))
        .copied()
        .unwrap_or_default();

    if most.0.saturating_sub(proven.0) <= Serial::MAX_STEP {
        most.max(proven)
    } else {
        proven
    }
}

/// Serial of a release of `tree` proven by a host.
fn proven(
    tree: &TreeName,
    shown: &SerialProof,
    counts: &impl Fn(&PublicKey) -> bool,
) -> Option<Serial> {
    if let Some(told) = &shown.release {
        let key = verify(Namespace::RELEASE, &told.header, &told.signature).ok()?;
        let release = Release::from_bytes(&told.header).ok()?;
        let header = release.header();
        return (counts(&key) && header.tree == *tree && header.intent != Intent::Audit)
            .then_some(header.serial);
    }

    let signed = shown.order.as_ref()?;
    let key = verify(Namespace::ORDER, &signed.order, &signed.signature).ok()?;
    let order = Order::decode(&signed.order)?;
    let (named, stone) = order.tombstone()?;

    (counts(&key) && named == tree).then_some(stone.serial)
}

/// Takes the next serial of `tree`, above `highest` and all used here, and records the serial as
/// used.
fn take(cache: &Path, tree: &TreeName, highest: Serial) -> io::Result<Serial> {
    let dir = cache.join("serials");
    let _lock = cache_file::lock(&dir)?;
    let path = dir.join(tree.as_str());
    let used = read(&path)?.filter(|used| used.0.saturating_sub(highest.0) <= MAX_REMEMBERED_GAP);
    let next = used.unwrap_or_default().max(highest).next();
    cache_file::replace(&path, format!("{next}\n").as_bytes())?;
    File::open(&dir)?.sync_all()?;

    Ok(next)
}

fn read(path: &Path) -> io::Result<Option<Serial>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text.trim_end().parse().ok().map(Serial)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::SessionId;
    use crate::keys::{FileSigner, Signer};
    use crate::manifest::Header;
    use crate::manifest::header::tests::a_header;
    use crate::wire::message::{OrderKind, SignedOrder};
    use crate::wire::query::ReleaseBytes;

    fn www() -> TreeName {
        TreeName::new("www").expect("legal")
    }

    fn release(serial: u64, intent: Intent) -> Release {
        Release::new(Header {
            tree: www(),
            serial: Serial(serial),
            intent,
            ..a_header()
        })
        .expect("legal")
    }

    /// Proof of a release of this serial, signed by the key `key`.
    fn showing(key: u8, serial: u64) -> SerialProof {
        let release = release(serial, Intent::Deploy);
        let signature = FileSigner::from_seed([key; 32])
            .sign(Namespace::RELEASE, release.bytes())
            .expect("signs");
        let header = release.bytes().to_vec();
        let signature = signature.as_bytes().to_vec();
        SerialProof {
            release: Some(ReleaseBytes { header, signature }),
            order: None,
        }
    }

    fn taken_back(key: u8, serial: u64) -> SerialProof {
        let order = Order::new(
            SessionId(1),
            &release(serial, Intent::Deploy),
            OrderKind::Revert,
        )
        .encode();

        let signature = FileSigner::from_seed([key; 32])
            .sign(Namespace::ORDER, &order)
            .expect("signs");
        let order = SignedOrder {
            order,
            signature: signature.as_bytes().to_vec(),
            hosts: None,
        };

        SerialProof {
            release: None,
            order: Some(order),
        }
    }

    /// Result where key 1 is authorized, for claims with the host of each.
    fn highest(claims: &[(u8, u64)], shown: &[SerialProof]) -> u64 {
        let claims: Vec<_> = claims
            .iter()
            .map(|&(host, n)| (IpAddr::from([10, 0, 0, host]), Serial(n)))
            .collect();
        let key = *FileSigner::from_seed([1; 32]).public();
        believed(&www(), &claims, shown, |other| *other == key).0
    }

    #[test]
    fn a_claim_is_worth_what_is_signed_or_what_most_hosts_say() {
        assert_eq!(highest(&[], &[]), 0);
        assert_eq!(highest(&[(1, 7), (2, 3), (3, 0)], &[showing(1, 7)]), 7);
        assert_eq!(
            highest(&[(1, 9)], &[showing(1, 7), taken_back(1, 9)]),
            9,
            "an order that took it back shows it"
        );

        // One liar, two liars, and one with many names at one address; with no proof or a key of
        // his own.
        for lie in [8, (1 << 32) - 1, u64::MAX] {
            let honest = [(1, 7), (2, 7), (3, 7)];
            let with = |liars: &[(u8, u64)]| [&honest[..], liars].concat();
            assert_eq!(highest(&with(&[(9, lie)]), &[showing(1, 7)]), 7);
            assert_eq!(
                highest(
                    &with(&[(9, lie), (8, lie)]),
                    &[showing(1, 7), showing(2, lie), taken_back(2, lie)]
                ),
                7
            );
            assert_eq!(highest(&with(&[(9, lie); 20]), &[showing(1, 7)]), 7);
            assert_eq!(
                highest(&[(1, 7), (9, lie)], &[showing(1, 7)]),
                7,
                "half is not enough"
            );
        }

        assert_eq!(
            highest(&[(1, u64::MAX), (2, u64::MAX)], &[]),
            0,
            "nobody makes so many releases"
        );

        assert_eq!(
            highest(&[(1, 7), (2, 7), (3, 5)], &[showing(2, 7)]),
            7,
            "most hosts, by a key that is not known"
        );
    }

    #[test]
    fn what_does_not_verify_or_is_about_something_else_shows_nothing() {
        let forged = |change: fn(&mut ReleaseBytes)| {
            let mut shown = showing(1, 9);
            shown.release.iter_mut().for_each(change);
            highest(&[(1, 9), (2, 7), (3, 7)], &[shown, showing(1, 7)])
        };

        assert_eq!(forged(|_| ()), 9);
        assert_eq!(forged(|told| told.signature[90] ^= 1), 7);
        assert_eq!(forged(|told| told.header[20] ^= 1), 7);
        let audit = release(9, Intent::Audit);
        let signature = FileSigner::from_seed([1; 32])
            .sign(Namespace::RELEASE, audit.bytes())
            .expect("signs");

        let told = ReleaseBytes {
            header: audit.bytes().to_vec(),
            signature: signature.as_bytes().to_vec(),
        };

        assert_eq!(
            highest(
                &[(1, 0)],
                &[SerialProof {
                    release: Some(told),
                    order: None
                }]
            ),
            0,
            "a question uses no number up"
        );

        let docs = TreeName::new("docs").expect("legal");
        assert_eq!(
            believed(&docs, &[], &[showing(1, 9), taken_back(1, 9)], |_| true),
            Serial(0)
        );

        assert_eq!(
            believed(&www(), &[], &[showing(1, u64::MAX)], |_| true),
            Serial(0)
        );
    }

    #[test]
    fn no_serial_is_used_twice_whoever_is_absent() {
        let dir = tempfile::tempdir().expect("a directory");
        let tree = |name: &str| TreeName::new(name).expect("legal");
        let next = |name: &str, highest| {
            take(dir.path(), &tree(name), Serial(highest))
                .expect("writable")
                .0
        };

        assert_eq!(
            [
                next("www", 0),
                next("www", 0),
                next("www", 5),
                next("www", 1)
            ],
            [1, 2, 6, 7]
        );

        assert_eq!(next("docs", 0), 1);
        // Two senders at once.
        let mut taken: Vec<u64> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| [next("www", 1), next("www", 1)]))
                .collect();
            threads
                .into_iter()
                .flat_map(|t| t.join().expect("no panic"))
                .collect()
        });

        taken.sort_unstable();
        assert_eq!(taken, (8..16).collect::<Vec<_>>());

        // A liar's serial is forgotten with him; a damaged file counts as none.
        assert_eq!([next("www", 1 << 40), next("www", 15)], [(1 << 40) + 1, 16]);
        std::fs::write(dir.path().join("serials/www"), "no number").expect("writable");

        assert_eq!(next("www", 3), 4);
    }
}
