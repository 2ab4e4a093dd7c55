//! Rules for putting a release here or comparing with it: the role of its key, its time, its
//! serial.
//!
//! The caller has verified the signature. The rules apply when a session opens and again before the
//! commit, since keys and time may have changed meanwhile.

use super::shared::LocalHost;
use crate::Error;
use crate::id::{Serial, SessionId};
use crate::keys::{Namespace, PublicKey, Role, verify, verify_all};
use crate::manifest::{Header, Intent, Release};
use crate::proto::receiver::{OfferRefusal, ReasonText};
use crate::tree::{Following, Mark, Tree};
use crate::units::{WallTime, shown_age};
use crate::wire::message::{Order, OrderKind, SignedOrder};

/// Seconds around the time of its signature, by this host's clock, in which an audit is answered.
///
/// A recorded question must not reveal the host's differences later. The window is symmetric
/// because clocks differ.
pub(super) const AUDIT_SECONDS: u64 = 3600;

/// Checks whether `key` may put `release` here at `now`.
pub(super) fn check_allowed(
    host: &LocalHost,
    key: &PublicKey,
    release: &Release,
    now: WallTime,
) -> Result<(), ReasonText> {
    check_key(host, key, release, now)?;
    check_expiry(release.header(), now)
}

/// Checks the role of `key`.
pub(super) fn check_key(
    host: &LocalHost,
    key: &PublicKey,
    release: &Release,
    now: WallTime,
) -> Result<(), ReasonText> {
    let header = release.header();
    let keys = host.keys();
    keys.allows(key, &header.tree, Role::from(header.intent), now)
        .map_err(|denied| denied.to_string())?;

    if header.intent == Intent::Rollback
        && let Err(denied) = keys.allows(key, &header.tree, Role::Deploy, now)
        && !had_before(host, header)
    {
        return Err(format!(
            "this host keeps no release like this one, and a new one is more than a rollback: \
            {denied}"
        ));
    }

    Ok(())
}

/// Checks that as many different authorized keys signed `release` as its tree requires here.
pub(super) fn check_signatures(
    host: &LocalHost,
    release: &Release,
    signature: &[u8],
    now: WallTime,
) -> Result<(), ReasonText> {
    let header = release.header();
    let managed = host.trees.get(&header.tree);
    let needed = managed.map_or(1, |managed| managed.rules().require_signatures);
    if needed <= 1 || header.intent == Intent::Audit {
        return Ok(());
    }

    let keys = host.keys();
    // A rollback to new content is a release: the role rollback is not enough.
    let role = match header.intent {
        Intent::Rollback if !had_before(host, header) => Role::Deploy,
        intent => Role::from(intent),
    };
    let mut by = verify_all(Namespace::RELEASE, release.bytes(), signature);
    by.retain(|key| keys.allows(key, &header.tree, role, now).is_ok());
    if by.len() >= needed {
        return Ok(());
    }

    Err(format!(
        "it has {} of the {needed} signatures by different authorized keys that this host requires \
         of tree {}: others sign it with --cosign",
        by.len(),
        header.tree
    ))
}

/// Checks that the release was signed for this session, which stops replays. A release that is
/// `known`, because it was committed elsewhere or is staged here, fits any session.
pub(super) fn check_session(
    header: &Header,
    session: SessionId,
    known: bool,
) -> Result<(), ReasonText> {
    match header.session {
        Some(signed) if signed != session && !known => {
            Err("it was signed for another session: release again".into())
        }
        None if header.intent == Intent::Audit => {
            Err("this comparison is signed for no session: the sender needs a newer makuo".into())
        }
        _ => Ok(()),
    }
}

/// Returns whether the tree has or had the same content: a key with the role rollback may choose
/// only among those.
fn had_before(host: &LocalHost, new: &Header) -> bool {
    let Some(managed) = host.trees.get(&new.tree) else {
        return false;
    };

    let same = |old: &Header| {
        (old.root, &old.rules, &old.scope, &old.top) == (new.root, &new.rules, &new.scope, &new.top)
    };

    let serials = managed.tree.releases().unwrap_or_default();
    serials.into_iter().any(|s| {
        managed
            .tree
            .release(s)
            .ok()
            .flatten()
            .is_some_and(|kept| same(kept.release.header()))
    })
}

/// Checks the expiry of a release and the age of an audit.
pub(super) fn check_expiry(header: &Header, now: WallTime) -> Result<(), ReasonText> {
    if let Some(expired) = header.expires.filter(|at| *at <= now) {
        let ago = shown_age(now.0.abs_diff(expired.0));
        return Err(format!(
            "the release expired {ago} ago: release again, and check that the clocks agree"
        ));
    }

    let apart = now.0.abs_diff(header.created.0);
    if header.intent == Intent::Audit && apart > AUDIT_SECONDS {
        let apart = shown_age(apart);
        let when = if header.created < now {
            "ago"
        } else {
            "in the future"
        };
        return Err(format!(
            "this comparison was signed {apart} {when} by this host's clock, and is answered for \
            an hour only: ask \
             again, and see whether the clocks agree"
        ));
    }

    Ok(())
}

/// Checks that the serial follows the highest one accepted.
pub(super) fn check_newer(tree: &Tree, header: &Header) -> Result<(), ReasonText> {
    let highest = tree
        .highest_serial()
        .map_err(|e| e.with_hint())?
        .unwrap_or_default();

    if header.serial.0.saturating_sub(highest.0) > Serial::MAX_STEP && highest > Serial(0) {
        tracing::warn!(
            "tree {}: serial {} is far above {highest}, the last one here",
            header.tree,
            header.serial
        );
    }

    follows(header, highest)
}

/// Checks the order that came with a release: it must commit the release, on this host, by the same
/// key.
pub(super) fn check_grant(
    host: &LocalHost,
    key: &PublicKey,
    release: &Release,
    grant: &SignedOrder,
) -> Result<(), OfferRefusal> {
    let by = verify(Namespace::ORDER, &grant.order, &grant.signature)
        .map_err(|e| format!("the order that came with the release is not signed: {e}"))?;
    let order = Order::decode(&grant.order)
        .ok_or_else(|| "what came with the release is no order".to_string())?;
    let is_for_us = order.permits(&host.name, grant.hosts.as_ref());
    let commits = order.kind == OrderKind::Commit && order.release == release.id();

    match (commits && by.orders_for(key), is_for_us) {
        (true, true) => Ok(()),
        (true, false) => Err(OfferRefusal::for_others(
            "its sender ordered other hosts to commit it, and not this one".to_string(),
        )),
        (false, _) => {
            let why = "what came with the release is no order of its key to commit it";
            Err(why.to_string().into())
        }
    }
}

/// Like [`check_newer`], for a release committed elsewhere.
///
/// The current release may be committed again as a repair. It gives way to another one if it was
/// reverted or has the same serial, see [`Following`].
pub(super) fn check_catch_up(tree: &Tree, release: &Release) -> Result<(), ReasonText> {
    match tree.state().following(release).map_err(|e| e.with_hint())? {
        Some(Following::Again | Following::Back | Following::Twin) => Ok(()),
        Some(Following::Newer) | None => check_newer(tree, release.header()),
    }
}

/// Checks that `release` is staged here.
pub(super) fn check_staged(tree: &Tree, release: &Release) -> Result<(), OfferRefusal> {
    let unreadable = |e: Error| OfferRefusal::proven(e.with_hint());
    let awaiting = tree.awaiting().map_err(unreadable)?;
    let running = tree.state().current().map_err(unreadable)?;
    let why = match awaiting {
        Some(found) if found.stored.release.id() == release.id() => return Ok(()),
        _ if running == Some(Mark::of(release)) => {
            return Err(OfferRefusal {
                for_others: true,
                ..OfferRefusal::proven(format!("it runs {release} already"))
            });
        }
        Some(found) => format!(
            "{release} is not staged here, but {} is",
            found.stored.release
        ),
        None => format!("{release} is not staged here"),
    };

    Err(OfferRefusal::proven(why))
}

fn follows(header: &Header, highest: Serial) -> Result<(), ReasonText> {
    let serial = header.serial;
    match serial.0.checked_sub(highest.0) {
        _ if header.intent == Intent::Audit => Ok(()),
        None | Some(0) => Err(format!(
            "serial {serial} is not newer than {highest}, which this host has accepted"
        )),
        Some(_) if serial.0 > Serial::MAX_ACCEPTED => Err(format!(
            "serial {serial} is more than {}: it would use up the numbers of later releases",
            Serial::MAX_ACCEPTED
        )),
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests;
