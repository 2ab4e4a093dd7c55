//! `makuo pull`: takes the newest release of a tree from a repository, without a daemon.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::args::PullArgs;
use super::{interrupt, network, store};
use crate::config::{CatchUp, HostConfig, TreeConfig};
use crate::drive::deploy::Interrupt;
use crate::drive::host::{LocalHost, open_tree};
use crate::drive::repository::{
    FoundRelease, KnownHead, LookOptions, Lookup, LoopbackHost, TakeOptions, find, pull,
};
use crate::error::IoResultExt;
use crate::id::Serial;
use crate::keys::AuthorizedKeys;
use crate::outcome::{Event, HostResult, HostState, Observer, Outcome, Purpose};
use crate::report::Report;
use crate::spec::Compress;
use crate::{Error, Result};

/// Times that a pull goes on with a newer release.
const MAX_RESTARTS: u32 = 8;
/// Bytes of a payload between the two ends. Nothing is lost on the way, so a small one costs
/// nothing, and the memory of a pull is some 30 of them.
const LOOPBACK_PAYLOAD: usize = 1 << 20;
/// Longest silence of the two ends, which are in one process.
const LOOPBACK_TIMEOUT: Duration = Duration::from_secs(60);

pub(super) fn run(args: &PullArgs, config: Option<&Path>, report: &mut Report) -> Result<u8> {
    let url = store::url(&args.url)?;
    let store = store::open(&url, &args.store)?;
    let host = Arc::new(host(args, &network::host_config(config)?, report)?);

    report.start(&format!("{}: looking into {url}", args.tree));
    let how = LookOptions {
        known: &KnownHead::default(),
        allow_stale: args.allow_stale,
    };
    let (head, found) = find(store.clone(), &host, &args.tree, how, &mut |_| true)?;
    let max_age = host
        .trees
        .get(&args.tree)
        .and_then(|tree| tree.rules().max_age);
    let warning = head.warning(&args.tree, max_age);
    if let Some(warning) = warning
        .as_ref()
        .filter(|_| !matches!(found, Lookup::Stale(_)))
    {
        report.event(&Event::Note(warning.clone()));
    }

    let outcome = match found {
        Lookup::Found(found) => {
            let mut again = || find(store.clone(), &host, &args.tree, how, &mut |_| true);
            take_newest(found, &host, &mut again, report)?
        }
        Lookup::UpToDate(serial) => unchanged(args, &host, Some(serial)),
        Lookup::Unchanged | Lookup::Yielded => unchanged(args, &host, None),
        Lookup::Older(serial, here) => {
            let tree = &args.tree;
            report.event(&Event::Note(format!(
                "{tree}@{here} here is newer than {tree}@{serial}, the newest of the repository"
            )));
            unchanged(args, &host, Some(here))
        }
        Lookup::Stale(serial) => {
            let why = warning.unwrap_or_default();
            return Err(
                Error::refused(format!("{}@{serial} is not taken: {why}", args.tree))
                    .hint("--allow-stale takes it nevertheless"),
            );
        }
        Lookup::Refused(serial, why) => {
            let what = format!("{}@{serial} cannot be taken: {why}", args.tree);
            return Err(Error::refused(what));
        }
    };

    report.outcome(&outcome);
    Ok(outcome.exit.code())
}

/// The host of this pull, with one tree.
fn host(args: &PullArgs, config: &HostConfig, report: &mut Report) -> Result<LocalHost> {
    std::fs::create_dir_all(&args.dir).context("cannot make", &args.dir)?;
    let path = std::fs::canonicalize(&args.dir).context("cannot use", &args.dir)?;
    let keys = args.authorized_keys.as_ref();
    let keys = AuthorizedKeys::load(keys.unwrap_or(&config.authorized_keys))?;
    let name = match args.name.clone().or_else(|| config.name.clone()) {
        Some(name) => name,
        None => network::host_name()?,
    };

    let mut tree = tree_at(&path, args, config, report)?;
    // A tree that takes nothing from other hosts may still be pulled.
    tree.catch_up = CatchUp::Group;
    let state_dir = args.state_dir.as_ref().map(std::path::absolute).transpose();
    let state_dir = state_dir.io_context("the state directory is no path")?;
    let managed = open_tree(&tree, state_dir.as_deref().or(config.state_dir.as_deref()))?;
    managed.failures.end_pauses();

    Ok(LocalHost {
        name,
        trees: [(tree.name, managed)].into_iter().collect(),
        keys: Mutex::new(Arc::new(keys)),
        labels: Mutex::new(config.labels.clone()),
        own_key: Default::default(),
        figures: Default::default(),
    })
}

/// The tree as it is configured, or one without rules if another directory is configured.
fn tree_at(
    path: &Path,
    args: &PullArgs,
    config: &HostConfig,
    report: &mut Report,
) -> Result<TreeConfig> {
    let Some(known) = config.trees.iter().find(|tree| tree.name == args.tree) else {
        return Ok(TreeConfig::new(args.tree.clone(), path.into()));
    };

    // Links and mounts give one directory several paths.
    let place = |path: &Path| path.metadata().map(|found| (found.dev(), found.ino()));
    let here = place(path).context("cannot use", path)?;
    if place(&known.path).is_ok_and(|configured| configured == here) {
        return Ok(known.clone());
    }

    report.event(&Event::Note(format!(
        "tree {} is configured in {}: its rules, hooks and limits do not hold in {}",
        args.tree,
        known.path.display(),
        path.display()
    )));
    Ok(TreeConfig::new(args.tree.clone(), path.into()))
}

/// Takes `found`, or the newest release if the repository dropped `found` meanwhile.
fn take_newest(
    mut found: Box<FoundRelease>,
    host: &Arc<LocalHost>,
    again: &mut dyn FnMut() -> Result<(KnownHead, Lookup)>,
    report: &mut Report,
) -> Result<Outcome> {
    let mut left = MAX_RESTARTS;
    loop {
        let id = found.record.release.id();
        let end = take(*found, host, report);
        if left == 0 || end.as_ref().is_ok_and(|outcome| outcome.exit.code() == 0) {
            return end;
        }

        left -= 1;
        match again() {
            Ok((_, Lookup::Found(newer))) if newer.record.release.id() != id => found = newer,
            _ => return end,
        }
    }
}

fn take(found: FoundRelease, host: &Arc<LocalHost>, report: &mut Report) -> Result<Outcome> {
    let interrupt = Interrupt::default();
    interrupt::handle_ctrl_c(interrupt.clone());
    let (running, network) = LoopbackHost::start(Arc::clone(host))?;
    let options = TakeOptions {
        rate: None,
        timeout: LOOPBACK_TIMEOUT,
        fleet: 1,
        known: 1,
        compress: Compress::Off,
        payload: LOOPBACK_PAYLOAD,
    };

    let outcome = pull(network, found, host, &options, &interrupt, report);
    drop(running);
    outcome
}

/// Outcome of a pull with nothing to do.
fn unchanged(args: &PullArgs, host: &LocalHost, serial: Option<Serial>) -> Outcome {
    let result = HostResult {
        serial,
        ..HostResult::new(host.name.clone(), HostState::Unchanged)
    };
    Outcome {
        serial,
        hosts: vec![result],
        ..Outcome::new(Purpose::Deploy, args.tree.clone())
    }
    .settle()
}
