//! What has to hold before a batch commits.

use crate::id::HostName;
use crate::manifest::Release;
use crate::outcome::named_hosts;
use crate::proto::rollout::{FleetGap, NextBatch, Rollout, RolloutRules};
use crate::report::words;
use crate::spec::Expect;
use crate::{Error, Result};

pub(super) fn rules_of(release: &Release) -> Result<RolloutRules> {
    let paused = release.header().paused.as_ref().ok_or_else(|| {
        Error::refused(format!("{release} has no batches with pauses")).hint(format!(
            "`makuo commit {release}` commits it; pause = true in [commit] makes pauses"
        ))
    })?;
    RolloutRules::of(paused).ok_or_else(|| {
        Error::refused(format!("{release} has batches of a later makuo"))
            .hint("install it here, or go on from the machine that deployed")
    })
}

pub(super) fn all_done(release: &Release) -> Error {
    Error::refused(format!("every batch of {release} has it")).hint(format!(
        "`makuo commit {release}` is for hosts that keep it staged all the same"
    ))
}

/// Refuses a release that hosts have replaced.
pub(super) fn check_newest(release: &Release, rollout: &Rollout) -> Result<()> {
    if rollout.newer().is_empty() {
        return Ok(());
    }

    let hosts = words::hosts(rollout.newer());
    Err(Error::refused(format!("{hosts}: a newer release than {release} is there")).hint(format!(
        "`makuo abort {release}` drops it where it is staged; `makuo commit {release}` goes on all \
         the same"
    )))
}

/// Refuses another batch than the one that is meant: somebody else may have promoted meanwhile.
pub(super) fn check_number(
    release: &Release,
    meant: Option<usize>,
    next: &NextBatch,
) -> Result<()> {
    let number = next.number;
    match meant {
        Some(meant) if meant != number => Err(Error::refused(format!(
            "batch {meant} of {release} is not next: batch {number} of {} is",
            next.of
        ))
        .hint(format!(
            "`makuo promote {release} --batch {number}` commits that one"
        ))),
        _ => Ok(()),
    }
}

/// Refuses to go on if too many hosts of the batch fail their checks, or do not answer.
pub(super) fn check_enough(release: &Release, next: &NextBatch) -> Result<()> {
    if next.needed <= next.hosts.len() {
        return Ok(());
    }

    let tree = &release.header().tree;
    if next.failing.is_empty() && !next.checking.is_empty() {
        let hosts = words::hosts(&next.checking);
        let what = format!("{release} still runs its checks on {hosts}");
        let hint = format!("try again once `makuo status {tree}` shows them done");
        return Err(Error::refused(what).hint(hint));
    }
    if next.failing.is_empty() {
        let hosts = words::hosts(&next.unknown);
        return Err(Error::refused(format!(
            "{hosts}: no answer, so batch {} of {release} may not have it",
            next.number
        ))
        .hint("try again once `makuo status` shows them, or go on with a smaller --require"));
    }

    let hosts = words::hosts(&next.failing);
    Err(Error::refused(format!(
        "{release} fails its checks on {hosts}: no further host takes it"
    ))
    .hint(format!(
        "`makuo status {tree}` shows why. Once the cause is mended, a new deploy runs the checks \
         again; `makuo rollback {tree} --to SERIAL` takes it back; `makuo commit {release}`, or a \
         smaller --require, goes on all the same"
    )))
}

/// Refuses to go on with fewer hosts than are expected.
pub(super) fn check_expected(expect: &Expect, release: &Release, rollout: &Rollout) -> Result<()> {
    let there = rollout.there();
    let what = match expect {
        Expect::Count(count) if *count as usize > there => format!(
            "{} with {release} in place or staged, and {count} are expected",
            words::count(there as u64, "host")
        ),
        Expect::Names(names) => {
            let lacks = |name: &&HostName| !rollout.is_at(name);
            match named_hosts(names.iter().filter(lacks)) {
                Some(names) => format!("{names}: expected, without {release} in place or staged"),
                None => return Ok(()),
            }
        }
        Expect::Count(_) | Expect::Known => return Ok(()),
    };

    Err(Error::refused(what).hint("`makuo status` shows the hosts that answer"))
}

/// Refuses a batch that hosts without an answer may make another one, if nobody said how many hosts
/// there are.
pub(super) fn check_fleet(
    release: &Release,
    rules: &RolloutRules,
    rollout: &Rollout,
    next: &NextBatch,
) -> Result<()> {
    let Some(shortage) = rollout.shortage(rules, next) else {
        return Ok(());
    };

    let there = rollout.there();
    let hosts = words::count(there as u64, "host");
    let what = match shortage {
        FleetGap::Fewer(made_for) => format!(
            "{hosts} with {release} in place or staged, and it was made for {made_for}: \
             batch {} of {} may come too early",
            next.number, next.of
        ),
        FleetGap::Unsaid => format!(
            "{hosts} with {release} in place or staged, and it does not say whether these are all: \
             the last batch is for everybody"
        ),
    };
    Err(Error::refused(what).hint(format!(
        "try again once `makuo status` shows all of them, or `makuo promote {release} --expect \
         {there}` goes on with these"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::NamedHost;
    use crate::manifest::header::tests::a_header;

    fn hosts(names: &[&str]) -> Vec<NamedHost> {
        let host = |name: &&str| NamedHost::from(HostName::new(name).expect("legal"));
        names.iter().map(host).collect()
    }

    fn said(failing: &[&str], checking: &[&str], unknown: &[&str]) -> String {
        let release = Release::new(a_header()).expect("legal");
        let next = NextBatch {
            number: 2,
            of: 3,
            needed: 2,
            hosts: hosts(&["web2"]),
            failing: hosts(failing),
            checking: hosts(checking),
            unknown: hosts(unknown),
            waiting: Vec::new(),
        };
        let refused = check_enough(&release, &next).expect_err("one is missing");
        refused.to_string()
    }

    #[test]
    fn a_check_that_runs_is_not_told_as_failing() {
        assert!(said(&[], &["web3"], &[]).contains("still runs its checks on web3"));
        assert!(said(&["web3"], &["web4"], &[]).contains("fails its checks on web3"));
        assert!(said(&[], &[], &["web3"]).contains("web3: no answer"));
    }
}
