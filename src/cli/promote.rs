//! `makuo promote`, and the deploy of a spec with pauses: a staged release commits on one batch of
//! hosts, and the command ends.
//!
//! The batches are in the signed header, so nothing is remembered here: each command plans them
//! from what hosts have. The order for a batch names its hosts, so that no other host takes the
//! release from them meanwhile. The order for the last batch is for all.

mod checks;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use self::checks::{
    all_done, check_enough, check_expected, check_fleet, check_newest, check_number, rules_of,
};
use super::args::{PromoteArgs, ReleaseName};
use super::batch_outcome::{BatchReport, after_staging};
use super::deploy::{SessionOptions, session_outcome};
use super::interrupt::handle_ctrl_c;
use super::staged_order::{OrderContext, StagedOrder, named_or_only};
use super::{network, sign};
use crate::drive::deploy::Interrupt;
use crate::drive::survey;
use crate::id::{HostName, NamedHost};
use crate::manifest::Release;
use crate::outcome::{
    Event, ExitStatus, HostResult, HostState, Observer, Outcome, Purpose, Standing, rollout_host,
};
use crate::proto::rollout::{NextBatch, ReleasePlace, Rollout};
use crate::report::{Report, notify, words};
use crate::spec::{BatchRule, Expect, OnFailure};
use crate::units::Quorum;
use crate::{Error, Result};

/// Looks for the hosts that have just staged the release.
const STAGED_LOOKS: usize = 4;
/// Longest time of a look at the hosts after a batch was taken back.
const REVERT_LOOK_TIMEOUT: Duration = Duration::from_secs(2);
/// Looks until hosts of earlier batches went back as well.
const REVERT_LOOKS: usize = 10;
/// Time between two of them.
const REVERT_LOOK_INTERVAL: Duration = Duration::from_millis(300);

/// How a batch commits.
#[derive(Debug, Default)]
struct BatchOptions {
    /// Number of the batch, if only that one is meant.
    number: Option<usize>,
    /// Hosts of a batch that have to be ready, if not as the release says.
    require: Option<Quorum>,
    /// Reaction to a failure, if not as the release says.
    on_failure: Option<OnFailure>,
    recheck: bool,
}

pub(super) fn run(args: &PromoteArgs, config: Option<&Path>, report: &mut Report) -> Result<u8> {
    let (tree, serial) = &args.release;
    let context = OrderContext::with(args.key.as_deref(), &args.hosts, config)?;
    if context.expect == Some(Expect::Known) {
        return Err(
            Error::usage("--expect known: a batch is planned from the hosts that answer")
                .hint("write the number of hosts that have the release or keep it staged"),
        );
    }

    let staged = StagedOrder::find(context, tree, report, |standings| {
        named_or_only(tree, *serial, standings)
    })?;
    let how = BatchOptions {
        number: args.batch,
        require: args.require,
        on_failure: args.on_failure,
        recheck: args.recheck,
    };
    let stop = Interrupt::default();
    handle_ctrl_c(stop.clone());
    let outcome = promote(staged, &how, &stop, report)?;
    report.outcome(&outcome);
    Ok(outcome.exit.code())
}

/// Stages the release on every host, and commits it on the first batch.
pub(super) fn deploy(options: &mut SessionOptions, report: &mut Report) -> Result<u8> {
    let stop = Interrupt::default();
    let recheck = std::mem::take(&mut options.recheck);
    options.purpose = Purpose::Stage;
    let signer = sign::cosigned(&options.key, &options.cosigners)?;
    let staging = session_outcome(options, Arc::clone(&signer), &stop, report)?;

    let is_staged = staging.hosts.iter().any(|h| h.state == HostState::Staged);
    let outcome = match staging.serial.filter(|_| is_staged && !stop.is_asked()) {
        Some(serial) => {
            let tree = options.spec.tree.clone();
            let is_staged = |h: &&HostResult| h.state == HostState::Staged;
            let count = staging.hosts.iter().filter(is_staged).count();
            let context = OrderContext {
                network: options.network.clone(),
                signer,
                only: Vec::new(),
                expect: u32::try_from(count).ok().map(Expect::Count),
                timeout: options.timeout,
                checksum: options.checksum,
                strict: options.strict,
            };
            let name = ReleaseName {
                tree: tree.clone(),
                serial,
            };
            let staged = find_on(count, context, &name, report)?;
            let how = BatchOptions {
                recheck,
                ..BatchOptions::default()
            };
            after_staging(promote(staged, &how, &stop, report)?, staging)
        }
        None => not_begun(staging, is_staged),
    };

    report.outcome(&outcome);
    notify(&options.spec, &outcome);
    Ok(outcome.exit.code())
}

/// Finds the release that `count` hosts have just staged. Answers may be lost, and the batches of a
/// smaller fleet are others.
fn find_on(
    count: usize,
    context: OrderContext,
    name: &ReleaseName,
    report: &mut Report,
) -> Result<StagedOrder> {
    let mut look = || StagedOrder::find(context.clone(), &name.tree, report, |_| Ok(name.clone()));
    for _ in 1..STAGED_LOOKS {
        if let Ok(staged) = look()
            && plan(&staged, &[]).there() >= count
        {
            return Ok(staged);
        }
    }
    look()
}

/// Outcome of a deploy that ended before its first batch.
fn not_begun(staging: Outcome, is_staged: bool) -> Outcome {
    let mut outcome = Outcome {
        purpose: Purpose::Deploy,
        exit: ExitStatus::Refused,
        ..staging
    };
    if is_staged {
        let tree = &outcome.tree;
        let hint = format!("`makuo promote {tree}` goes on, `makuo abort {tree}` drops it");
        outcome.error = Some("interrupted: it is staged, and committed nowhere".to_string());
        outcome.hint = Some(hint);
    }
    outcome
}

/// Commits the batch that is due.
fn promote(
    mut staged: StagedOrder,
    how: &BatchOptions,
    stop: &Interrupt,
    report: &mut Report,
) -> Result<Outcome> {
    let release = staged.stored.release.clone();
    let header = release.header();
    let rules = rules_of(&release)?;
    let place = |s: &Standing| rollout_host(s, header.serial, release.id());
    let rollout = plan(&staged, &rules.batches);
    check_newest(&release, &rollout)?;
    let next = rollout
        .next(how.require.unwrap_or(rules.require))
        .ok_or_else(|| all_done(&release))?;
    check_number(&release, how.number, &next)?;
    check_enough(&release, &next)?;
    match staged.context.expect.take() {
        Some(expect) => check_expected(&expect, &release, &rollout)?,
        None => check_fleet(&release, &rules, &rollout, &next)?,
    }
    tell(&release, &next, &rollout, report);

    staged.hosts = names(&next.hosts);
    let mut options = staged.options(Purpose::Deploy)?;
    let reverts = match how.on_failure {
        Some(on_failure) => on_failure == OnFailure::Revert,
        None => rules.revert,
    };
    if reverts {
        options.spec.commit.on_failure = OnFailure::Revert;
    }
    if next.needed < next.hosts.len() {
        options.spec.commit.require = Quorum::Count(next.needed as u32);
    } else {
        // They answered a moment ago.
        options.spec.targets.expect = Some(Expect::Names(host_names(&next.hosts)));
    }
    options.recheck = how.recheck;
    // Hosts of later batches must not take it from these.
    options.names = !next.is_last();

    let dial = staged.context.network.clone();
    let outcome = staged.run(options, stop, report)?;
    let mut batch = BatchReport {
        outcome,
        next,
        well: rollout.hosts_in(ReleasePlace::Well),
        failing: rollout.hosts_in(ReleasePlace::Failing),
        checking: rollout.hosts_in(ReleasePlace::Checking),
        missing: rollout.missing().to_vec(),
        unknown: rollout.hosts_in(ReleasePlace::Unknown),
        after: None,
    };
    if batch.is_taken_back() {
        report.start(&format!("{release}: earlier batches go back"));
        for _ in 0..REVERT_LOOKS {
            let found = survey::status(
                network::open(&dial)?,
                Some(&header.tree),
                REVERT_LOOK_TIMEOUT,
            )?;
            let is_left = found
                .found
                .iter()
                .any(|s| place(s).place != ReleasePlace::Missing);
            batch.after = Some(found.found.iter().map(place).collect());
            if !is_left || stop.is_asked() {
                break;
            }
            std::thread::sleep(REVERT_LOOK_INTERVAL);
        }
    }
    Ok(batch.outcome())
}

/// Plans the batches by the answers of the hosts.
fn plan(staged: &StagedOrder, batches: &[BatchRule]) -> Rollout {
    let release = &staged.stored.release;
    let serial = release.header().serial;
    let hosts = staged.standings.iter();
    let hosts = hosts.map(|standing| rollout_host(standing, serial, release.id()));
    Rollout::plan(batches, hosts)
}

fn tell(release: &Release, next: &NextBatch, rollout: &Rollout, report: &mut Report) {
    let hosts = words::hosts(&next.hosts);
    let text = format!("{release}: batch {} of {}: {hosts}", next.number, next.of);
    report.event(&Event::Note(text));
    let mut note = |hosts: &[NamedHost], why: &str| {
        if !hosts.is_empty() {
            let hosts = words::hosts(hosts);
            report.event(&Event::Note(format!("{hosts}: {why}")));
        }
    };
    note(
        rollout.missing(),
        "not staged there; they take it from the others after the last batch",
    );
    note(&rollout.hosts_in(ReleasePlace::Unknown), "did not answer");
}

fn names(hosts: &[NamedHost]) -> Vec<String> {
    hosts.iter().map(|host| host.name.to_string()).collect()
}

fn host_names(hosts: &[NamedHost]) -> Vec<HostName> {
    hosts.iter().map(|host| host.name.clone()).collect()
}
