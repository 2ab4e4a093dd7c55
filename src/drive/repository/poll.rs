//! Looks into the repository of a tree from time to time, and takes what is new.
//!
//! The hosts of a network look at different times. The first that finds a release waits a moment,
//! at random, and sends it to all that lack it; the others take part and load nothing.

use std::sync::Arc;
use std::time::Duration;

use super::find::{FoundRelease, KnownHead, Lookup, find};
use super::take::{TakeOptions, pull};
use crate::Result;
use crate::drive::adhoc::AdhocService;
use crate::drive::catch_up::CatchUpLog;
use crate::drive::clock;
use crate::drive::deploy::Interrupt;
use crate::drive::host::LocalHost;
use crate::id::TreeName;
use crate::outcome::Outcome;
use crate::spec::Compress;
use crate::store::Store;
use crate::units::Rate;

/// Longest delay between the head and the rest, for another host to be first.
const MAX_YIELD: Duration = Duration::from_secs(2);
/// Delay before a look while a session is under way.
const BUSY_DELAY: Duration = Duration::from_secs(1);
/// Timeout for a silent host.
const SILENT_HOST_TIMEOUT: Duration = Duration::from_secs(30);

/// A tree with a repository.
#[derive(Debug, Clone)]
pub struct RepositoryPoll {
    /// The tree.
    pub tree: TreeName,
    /// Place of the repository.
    pub store: Store,
    /// Interval of the looks.
    pub interval: Duration,
    /// Rate on the network.
    pub rate: Rate,
}

/// Takes releases as long as the process runs.
pub fn follow(host: &Arc<LocalHost>, service: &AdhocService, poll: &RepositoryPoll) {
    let mut rng = fastrand::Rng::with_seed(clock::seed());
    let mut log = CatchUpLog::new();
    let mut known = KnownHead::default();
    // Hosts that start together do not look together.
    let mut delay = poll.interval.min(Duration::from_secs(5)).mul_f64(rng.f64());
    loop {
        std::thread::sleep(delay);
        if service.handle().sessions() > 0 {
            delay = BUSY_DELAY;
            continue;
        }

        delay = poll.interval.mul_f64(0.75 + rng.f64() / 2.0);
        let yields = poll.interval.min(MAX_YIELD).mul_f64(rng.f64());
        match look(host, service, poll, &known, yields, &mut log) {
            Ok(Some(head)) => known = head,
            Ok(None) => {}
            Err(e) => log.warn(&format!("tree {}: {}", poll.tree, e.with_hint())),
        }
    }
}

/// Looks once; returns the head if it has nothing more to take.
fn look(
    host: &Arc<LocalHost>,
    service: &AdhocService,
    poll: &RepositoryPoll,
    known: &KnownHead,
    yields: Duration,
    log: &mut CatchUpLog,
) -> Result<Option<KnownHead>> {
    // The tree may be opened later.
    let Some(managed) = host.trees.get(&poll.tree) else {
        return Ok(None);
    };

    let handle = service.handle();
    let mut goes_on = || {
        std::thread::sleep(yields);
        handle.sessions() == 0
    };
    let store = poll.store.clone();
    let (head, found) = find(store, host, &poll.tree, known, &mut goes_on)?;
    if let Some(warning) = head.warning(&poll.tree, managed.max_age) {
        log.warn(&warning);
    }

    match found {
        Lookup::Yielded => Ok(None),
        Lookup::Unchanged | Lookup::UpToDate(_) => Ok(Some(head)),
        Lookup::Refused(serial, why) => {
            log.warn(&format!(
                "{}@{serial} of the repository cannot be taken: {why}",
                poll.tree
            ));
            Ok(None)
        }
        Lookup::Found(found) => {
            let outcome = take(host, service, poll, *found, log)?;
            if let Some(why) = outcome.error {
                log.warn(&format!(
                    "tree {}: not all hosts took the repository's release: {why}",
                    poll.tree
                ));
            }
            Ok(None)
        }
    }
}

fn take(
    host: &Arc<LocalHost>,
    service: &AdhocService,
    poll: &RepositoryPoll,
    found: FoundRelease,
    log: &mut CatchUpLog,
) -> Result<Outcome> {
    let release = found.record.release.clone();
    let options = TakeOptions {
        rate: Some(poll.rate),
        timeout: SILENT_HOST_TIMEOUT,
        fleet: u32::try_from(service.members().len() + 1).unwrap_or(u32::MAX),
        known: 0,
        compress: Compress::Auto,
    };
    let network = service.join()?;
    let outcome = pull(network, found, host, &options, &Interrupt::default(), log)?;

    let took = outcome.hosts.iter().filter(|h| h.state.has_release());
    log.info(&format!(
        "{release}: taken from the repository by {} hosts",
        took.count()
    ));
    Ok(outcome)
}
