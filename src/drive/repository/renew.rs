//! Changes the head of a tree without the tree's source: signs it again, or publishes an earlier
//! release of the repository as the newest one.

use super::failure::of_head;
use super::head_memory::HeadMemory;
use super::publication::{Publication, PublishPlan};
use super::publish::{PublishedRelease, released, sign};
use super::requests::{runtime, seed};
use super::whole::{read_head, read_record, verified_by};
use crate::drive::clock;
use crate::drive::deploy::rollback::{check_key, spec};
use crate::drive::deploy::source::{NewRelease, PreparedRelease};
use crate::drive::deploy::{ReleaseKeys, serials};
use crate::error::{Error, Result};
use crate::id::{HostName, Serial, SessionId, TreeName};
use crate::keys::AuthorizedKeys;
use crate::manifest::{Header, Intent, ReleaseMessage};
use crate::outcome::Observer;
use crate::repository::head::{
    Head, HeadValidity, MAX_HEAD_PINS, MAX_KEPT, PinChange, VerifiedHead,
};
use crate::repository::publish::PublishSetup;
use crate::repository::record::ReleaseRecord;
use crate::store::Store;
use crate::tree::StoredRelease;
use crate::units::WallTime;

/// Settings of a new head.
#[derive(Debug, Clone)]
pub struct HeadOptions {
    /// Time until the head is stale.
    pub valid_for: HeadValidity,
    /// The signing key, and keys whose heads may be followed.
    pub keys: ReleaseKeys,
    /// What a new release changes, in its author's words.
    pub message: Option<ReleaseMessage>,
    /// Name of this host.
    pub name: HostName,
    /// Directory for the last serial.
    pub cache: Option<std::path::PathBuf>,
    /// Newest releases of the repository, as far as this machine knows.
    pub memory: HeadMemory,
}

/// A head that was signed again.
#[derive(Debug, Clone)]
pub struct RenewedHead {
    /// The tree.
    pub tree: TreeName,
    /// Its newest release.
    pub serial: Serial,
    /// Time from which the head is stale.
    pub valid_until: Option<WallTime>,
    /// True if the head before was stale.
    pub was_stale: bool,
}

/// A release that was published again.
#[derive(Debug, Clone)]
pub struct RestoredRelease {
    /// The release that was the newest one.
    pub from: Serial,
    /// The earlier release.
    pub to: Serial,
    /// The new release, with the content of the earlier one.
    pub published: PublishedRelease,
}

/// Signs the head of `tree` again.
pub fn renew(
    store: &Store,
    tree: &TreeName,
    options: &HeadOptions,
    observer: &mut dyn Observer,
) -> Result<RenewedHead> {
    let mut before = None;
    let mut check = |head: &VerifiedHead| {
        let serial = head.head().serial();
        options.memory.check(tree, serial)?;
        before = Some((serial, head.is_stale(clock::wall_seconds())));
        Ok(())
    };

    let plan = PublishPlan::Renew(&mut check);
    let keys = (&options.keys, &options.memory);
    let end = Publication::new(
        store.clone(),
        setup(tree, options, Some(MAX_KEPT)),
        keys,
        plan,
    )
    .run(observer)?;
    let (serial, was_stale) = before.unwrap_or_default();
    Ok(RenewedHead {
        tree: tree.clone(),
        serial,
        valid_until: end.stored.valid_until,
        was_stale,
    })
}

/// Signs the head of `tree` again, with or without a pin of the release `serial`.
pub fn pin(
    store: &Store,
    tree: &TreeName,
    change: PinChange,
    options: &HeadOptions,
    observer: &mut dyn Observer,
) -> Result<()> {
    let mut check = |head: &VerifiedHead| {
        options.memory.check(tree, head.head().serial())?;
        check_pin(head.head(), change)
    };

    let setup = PublishSetup {
        pin: Some(change),
        ..setup(tree, options, Some(MAX_KEPT))
    };
    let plan = PublishPlan::Renew(&mut check);
    let keys = (&options.keys, &options.memory);
    Publication::new(store.clone(), setup, keys, plan).run(observer)?;
    Ok(())
}

/// Refuses a pin of a release that the head does not keep, and the end of a pin that is not there.
fn check_pin(head: &Head, change: PinChange) -> Result<()> {
    let tree = &head.tree;
    let pins = head.pinned.as_deref().unwrap_or_default();
    let shown = |serials: &mut dyn Iterator<Item = Serial>| {
        let all: Vec<String> = serials.map(|serial| format!("{tree}@{serial}")).collect();
        all.join(", ")
    };

    match change {
        PinChange::Pin(serial) if head.kept(serial).is_none() => {
            let kept = shown(&mut head.kept.iter().map(|kept| kept.serial));
            let what = format!("the repository does not keep {tree}@{serial}");
            Err(Error::refused(what).hint(format!("it keeps {kept}")))
        }
        PinChange::Pin(serial) if pins.len() >= MAX_HEAD_PINS && !head.is_pinned(serial) => {
            let pins = shown(&mut pins.iter().copied());
            let what = format!("{MAX_HEAD_PINS} releases of {tree} are pinned there already");
            Err(Error::refused(what).hint(format!("`makuo unpin` ends the pin of one: {pins}")))
        }
        PinChange::Unpin(serial) if !head.is_pinned(serial) => {
            let what = format!("{tree}@{serial} is not pinned in the repository");
            Err(Error::refused(what).hint("`makuo repo list` shows pins"))
        }
        PinChange::Pin(_) | PinChange::Unpin(_) => Ok(()),
    }
}

/// Publishes the release `to` of the repository again, under a new serial; without `to`, the newest
/// one before the present content. The repository keeps `keep` releases.
pub fn restore(
    store: &Store,
    tree: &TreeName,
    to: Option<Serial>,
    keep: Option<usize>,
    options: &HeadOptions,
    observer: &mut dyn Observer,
) -> Result<RestoredRelease> {
    let (head, records) = runtime()?.block_on(kept(store, tree, &options.keys))?;
    let from = head.head().serial();
    options.memory.check(tree, from)?;
    let (newest, earlier) = choose(&records, to)?;
    let signer = options.keys.signer.public();
    let none = AuthorizedKeys::none("authorized_keys".as_ref());
    let authorized = options.keys.authorized.as_deref().unwrap_or(&none);
    let stored = StoredRelease {
        release: earlier.release.clone(),
        signature: earlier.signature.clone(),
    };
    check_key(&stored, signer, authorized, clock::wall_seconds())?;

    let again = |present: &VerifiedHead| {
        if present.head().release != head.head().release {
            return Err(Error::refused(format!(
                "somebody published {tree}@{} meanwhile",
                present.head().serial()
            )));
        }
        // The serial is used up, if this machine cannot remember it as well.
        let serial = serials::next_of(options.cache.as_deref(), tree, from, |note| {
            tracing::warn!("{note}");
        });
        let new = sign_again(newest, earlier, serial, options)?;
        Ok((earlier.root, new))
    };

    let setup = setup(tree, options, keep);
    let keys = (&options.keys, &options.memory);
    let plan = PublishPlan::Restore(&again);
    let end = Publication::new(store.clone(), setup, keys, plan).run(observer)?;
    Ok(RestoredRelease {
        from,
        to: earlier.release.header().serial,
        published: released(end)?,
    })
}

fn setup(tree: &TreeName, options: &HeadOptions, keep: Option<usize>) -> PublishSetup {
    PublishSetup {
        tree: tree.clone(),
        keep,
        level: None,
        valid_for: options.valid_for,
        repair: false,
        pin: None,
        seed: seed(),
    }
}

/// The head, and the records of its releases, the newest first.
async fn kept(
    store: &Store,
    tree: &TreeName,
    keys: &ReleaseKeys,
) -> Result<(VerifiedHead, Vec<ReleaseRecord>)> {
    let gone = || Error::refused(format!("the repository has no tree {tree}"));
    let signed = read_head(store, tree).await?.ok_or_else(gone)?;
    let head = verified_by(keys, tree, &signed).map_err(|e| of_head(&e))?;
    let mut records = Vec::new();
    for kept in &head.head().kept {
        records.push(read_record(store, tree, kept).await?);
    }
    Ok((head, records))
}

/// The newest release, and the one to publish again.
fn choose(
    records: &[ReleaseRecord],
    to: Option<Serial>,
) -> Result<(&ReleaseRecord, &ReleaseRecord)> {
    let header = |record: &ReleaseRecord| record.release.header().clone();
    let none = || Error::refused("the repository keeps no release");
    let newest = records.first().ok_or_else(none)?;
    let content = newest.release.header().content();
    let differs = |other: &Header| other.content() != content;
    let kept: Vec<String> = records
        .iter()
        .map(|record| record.release.to_string())
        .collect();
    let hint = format!("the repository keeps {}", kept.join(", "));

    // After a rollback, a further one goes on from where that one went.
    let last = newest.release.header().again;
    let below = last.unwrap_or(newest.release.header().serial);
    let found = records.iter().find(|record| match to {
        Some(to) => header(record).serial == to,
        None => header(record).serial < below && differs(&header(record)),
    });
    match (found, to) {
        (Some(earlier), _) if differs(&header(earlier)) => Ok((newest, earlier)),
        (Some(earlier), _) => Err(Error::refused(format!(
            "nothing to change: {} has the content of {}",
            newest.release, earlier.release
        ))
        .hint(hint)),
        (None, Some(to)) => {
            let tree = header(newest).tree;
            Err(Error::refused(format!("the repository does not keep {tree}@{to}")).hint(hint))
        }
        (None, None) => {
            let what = format!(
                "there is no release before {} to go back to",
                newest.release
            );
            Err(Error::refused(what).hint(hint))
        }
    }
}

/// Signs the content of `earlier` for the hosts of `newest`.
fn sign_again(
    newest: &ReleaseRecord,
    earlier: &ReleaseRecord,
    serial: Serial,
    options: &HeadOptions,
) -> Result<crate::repository::SignedRelease> {
    let header = earlier.release.header();
    let targets = newest.release.header().targets.clone();
    let spec = spec(&earlier.release, &targets)?;
    let session = SessionId(seed());
    let new = NewRelease {
        serial,
        intent: Intent::Rollback,
        targets,
        again: Some(header.serial),
        session,
        sender: options.name.clone(),
        checksum: false,
        quick: false,
        message: options.message.clone(),
    };

    let facts = PreparedRelease::of(header, Vec::new());
    sign(facts.header(&spec, new), session, &options.keys)
}
