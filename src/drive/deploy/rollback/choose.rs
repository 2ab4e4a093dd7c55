//! Chooses the release of a rollback.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use super::history::{DistinctContent, RollbackHistory, words};
use crate::id::Serial;
use crate::manifest::Release;
use crate::outcome::ReleaseLog;
use crate::proto::receiver::is_target;
use crate::tree::KeptRelease;
use crate::{Error, Result};

/// Direction of a rollback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RollbackPath {
    /// Release to restore.
    pub to: Serial,
    /// Running releases, the newest first; several if hosts disagree.
    pub from: Vec<Serial>,
}

/// Chooses the release to restore: `to`, or the newest earlier one on all hosts of the current
/// release.
///
/// A release counts as running if hosts show its signature. `signed` returns the releases of a
/// serial with valid signatures: a release for some hosts is no gap on the others.
pub fn choose(
    log: &ReleaseLog,
    local: &[KeptRelease],
    to: Option<Serial>,
    signed: impl Fn(Serial) -> Result<Vec<Release>>,
) -> Result<RollbackPath> {
    let history = RollbackHistory::of(log, local);
    let from = history.running();

    if let Some(to) = to {
        return match history
            .releases
            .iter()
            .any(|release| release.serials.contains(&to))
        {
            true => Ok(RollbackPath { to, from }),
            false => Err(
                Error::refused(format!("no host that answers keeps {}@{to}", log.tree))
                    .hint(history.kept()),
            ),
        };
    }

    let to = previous(&history, signed)?;
    Ok(RollbackPath { to, from })
}

/// An earlier release, and the newest serial of it before the current one.
type EarlierSerial<'a> = (Serial, &'a DistinctContent);

/// The newest earlier release on all hosts of the current one.
fn previous(
    history: &RollbackHistory<'_>,
    signed: impl Fn(Serial) -> Result<Vec<Release>>,
) -> Result<Serial> {
    let tree = history.tree;
    let present = present(history)?;
    let now = present.newest_running();
    let before = before(history, present);

    match agreed(history, present, &before, signed)? {
        Some((serial, release)) if release.part => Err(Error::refused(format!(
            "{tree}@{serial}, the release before {tree}@{now}, is of a part of the tree"
        ))
        .hint(format!(
            "say with --to what to put again: a part, or a release of the whole \
            tree; {}",
            history.kept()
        ))),
        Some((serial, _)) => Ok(serial),
        None if before.is_empty() => Err(Error::refused(format!(
            "there is no release of {tree} to go back to that is older than {tree}@{now}, \
            which all hosts run"
        ))
        .hint(history.kept())),
        None => {
            let shown = before
                .iter()
                .map(|(serial, r)| format!("{tree}@{serial} by {}", words(&r.kept)));
            let shown: Vec<String> = shown.collect();
            Err(Error::refused(format!(
                "no earlier release is kept by all hosts that run \
                {tree}@{now}"
            ))
            .hint(format!("give one with --to: {}", shown.join("; "))))
        }
    }
}

/// The release on all hosts.
fn present<'a>(history: &'a RollbackHistory<'_>) -> Result<&'a DistinctContent> {
    let tree = history.tree;
    let running: Vec<&DistinctContent> = history
        .releases
        .iter()
        .filter(|r| !r.running.is_empty())
        .collect();

    match running.as_slice() {
        [] => {
            let why = match history.unshown.is_empty() {
                true => format!("no host runs a release of {tree}"),
                false => format!(
                    "no host shows the release of {tree} that it runs, with a signature that \
                    holds"
                ),
            };
            Err(Error::refused(why).hint(history.kept()))
        }
        [present] => Ok(*present),
        several => {
            let shown = several
                .iter()
                .map(|r| format!("{tree}@{} on {}", r.newest_running(), words(&r.running)));
            let shown: Vec<String> = shown.collect();
            let why = format!("hosts run different releases: {}", shown.join("; "));
            Err(ambiguous(history, why))
        }
    }
}

/// Releases before `present`, the newest first, except releases taken back on all hosts of it.
fn before<'a>(
    history: &'a RollbackHistory<'_>,
    present: &DistinctContent,
) -> Vec<EarlierSerial<'a>> {
    let now = present.newest_running();
    let earlier =
        |release: &DistinctContent| release.serials.iter().copied().find(|&serial| serial < now);
    let taken_back = |r: &&DistinctContent| {
        let buried = r.buried.as_ref().filter(|buried| !buried.is_empty());
        buried.is_some_and(|buried| present.running.is_subset(buried))
    };

    let others = history
        .releases
        .iter()
        .filter(|r| r.content != present.content && !taken_back(r));
    let mut before: Vec<EarlierSerial<'a>> =
        others.filter_map(|r| Some((earlier(r)?, r))).collect();
    before.sort_by_key(|(serial, _)| Reverse(*serial));
    before
}

/// The newest of `candidates` on all hosts of `present`.
///
/// Refuses if a newer one was taken back on some hosts, or is missing on hosts it was meant for.
fn agreed<'a>(
    history: &RollbackHistory<'_>,
    present: &DistinctContent,
    candidates: &[EarlierSerial<'a>],
    signed: impl Fn(Serial) -> Result<Vec<Release>>,
) -> Result<Option<EarlierSerial<'a>>> {
    for &(serial, release) in candidates {
        let mut buriers = release.buried.iter().flatten();
        let doubted = buriers.any(|host| present.running.contains(host));
        if present.running.is_subset(&release.kept) && !doubted {
            return Ok(Some((serial, release)));
        }

        let lacking: BTreeSet<String> =
            present.running.difference(&release.kept).cloned().collect();
        let signed = signed(serial)?;
        if signed.is_empty()
            || !(doubted || signed.iter().any(|r| is_for_any(history, r, &lacking)))
        {
            continue;
        }

        let why = if doubted {
            "was taken back, by the word of some hosts only".to_string()
        } else {
            format!("is not kept by {}", words(&lacking))
        };
        let tree = history.tree;
        let now = present.newest_running();
        return Err(ambiguous(
            history,
            format!("hosts disagree about the release before {tree}@{now}: {tree}@{serial} {why}"),
        ));
    }

    Ok(None)
}

/// Returns whether one of `hosts`, as shown to people, is a target of `release`.
fn is_for_any(history: &RollbackHistory<'_>, release: &Release, hosts: &BTreeSet<String>) -> bool {
    hosts.iter().any(|shown| {
        // A host with a shared name is shown with the address.
        let name = shown.split(' ').next().and_then(|name| name.parse().ok());
        name.is_some_and(|name| is_target(release, &name, history.labels_of(shown)))
    })
}

/// Error for a choice that needs a person.
fn ambiguous(history: &RollbackHistory<'_>, why: String) -> Error {
    Error::refused(why).hint(format!(
        "say with --to which one all of them are to have; {}",
        history.kept()
    ))
}
