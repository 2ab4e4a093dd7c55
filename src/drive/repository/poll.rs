//! Looks into the repository of a tree from time to time, and takes what is new.
//!
//! The hosts of a network look at different times. The first that finds a release waits a moment,
//! at random, and sends it to all that lack it; the others take part and load nothing.

use std::sync::Arc;
use std::time::Duration;

use super::find::{FoundRelease, LookOptions, Lookup, find};
use super::known_head::KnownHead;
use super::rest::Rest;
use super::take::{TakeOptions, pull};
use crate::Result;
use crate::drive::adhoc::AdhocService;
use crate::drive::catch_up::CatchUpLog;
use crate::drive::clock;
use crate::drive::deploy::Interrupt;
use crate::drive::host::{LocalHost, ManagedTree, RepositoryFault};
use crate::id::TreeName;
use crate::metrics::StoreFigures;
use crate::outcome::Outcome;
use crate::proto::generation::TARGET_BYTES;
use crate::spec::Compress;
use crate::store::Store;
use crate::units::Rate;

/// Longest delay between the head and the rest, for another host to be first.
const MAX_YIELD: Duration = Duration::from_secs(2);
/// Delay before a look while a session holds the tree.
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
    /// Place for people, without passwords.
    pub place: String,
    /// Counters of the store, which trees of one repository share.
    pub figures: Arc<StoreFigures>,
    /// Interval of the looks.
    pub interval: Duration,
    /// Rate on the network.
    pub rate: Rate,
}

/// What keeps a tree from following its repository.
type FollowTrouble = (RepositoryFault, String);

/// Result of a look: the head to remember, and the trouble.
type PollFinding = (Option<KnownHead>, Option<FollowTrouble>);

/// Takes releases as long as the process runs.
pub fn follow(host: &Arc<LocalHost>, service: &AdhocService, poll: &RepositoryPoll) {
    let mut rng = fastrand::Rng::with_seed(clock::seed());
    let mut log = CatchUpLog::new();
    let mut known = KnownHead::default();
    let mut rest = Rest::new();
    // Hosts that start together do not look together.
    let mut delay = poll.interval.min(Duration::from_secs(5)).mul_f64(rng.f64());
    loop {
        std::thread::sleep(delay);
        if !service.handle().is_idle(&poll.tree) {
            delay = BUSY_DELAY;
            continue;
        }

        delay = poll.interval.mul_f64(0.75 + rng.f64() / 2.0);
        // The tree may be opened later.
        let Some(managed) = host.trees.get(&poll.tree) else {
            continue;
        };
        let yields = poll.interval.min(MAX_YIELD).mul_f64(rng.f64());
        let looked = look(
            host,
            managed,
            service,
            poll,
            (&known, &mut rest),
            yields,
            &mut log,
        );
        let (head, trouble) = looked.unwrap_or_else(|e| {
            let trouble = (RepositoryFault::Unreadable, e.with_hint());
            (None, Some(trouble))
        });
        known = head.unwrap_or(known);
        tell(managed, trouble, &mut log);
    }
}

/// Logs a trouble when it begins and when it ends; `status` shows it in between.
fn tell(managed: &ManagedTree, trouble: Option<FollowTrouble>, log: &mut CatchUpLog) {
    let tree = managed.tree.name();
    let shown = trouble
        .as_ref()
        .map(|(fault, text)| (*fault, text.as_str()));
    let is_news = managed.repository.set(shown, clock::wall_seconds());
    match trouble.filter(|_| is_news) {
        Some((_, text)) => log.warn(&format!("tree {tree}: repository: {text}")),
        None if is_news => log.info(&format!("tree {tree}: repository: in order again")),
        None => {}
    }
}

/// Looks once, and takes what is new.
fn look(
    host: &Arc<LocalHost>,
    managed: &ManagedTree,
    service: &AdhocService,
    poll: &RepositoryPoll,
    (known, rest): (&KnownHead, &mut Rest),
    yields: Duration,
    log: &mut CatchUpLog,
) -> Result<PollFinding> {
    let tree = &poll.tree;
    let handle = service.handle();
    let mut wait = Some(yields);
    let mut goes_on = |id| {
        if rest.holds(id) || managed.failures.pause(id).is_some() {
            return false;
        }
        std::thread::sleep(wait.take().unwrap_or_default());
        handle.is_idle(tree)
    };
    let how = LookOptions {
        known,
        allow_stale: false,
    };
    let store = poll.store.clone();
    let (head, found) = find(store, host, tree, how, &mut goes_on)?;
    poll.figures.last_success.set_time(clock::wall_seconds());
    let stale = head.warning(tree, managed.rules().max_age);
    let stale = stale.map(|text| (RepositoryFault::Stale, text));

    Ok(match found {
        Lookup::Unchanged | Lookup::UpToDate(_) | Lookup::Yielded => (Some(head), stale),
        Lookup::Older(serial, here) => {
            let older = format!(
                "its newest release is {tree}@{serial}, older than {tree}@{here}: that was \
                 deployed without --to, or somebody withholds releases"
            );
            (Some(head), stale.or(Some((RepositoryFault::Older, older))))
        }
        // Not remembered: the clock may have been wrong.
        Lookup::Stale(serial) => {
            let (fault, text) = stale.unwrap_or((RepositoryFault::Stale, "stale".into()));
            (
                None,
                Some((fault, format!("{text}; {tree}@{serial} is not taken"))),
            )
        }
        Lookup::Refused(serial, why) => {
            let refused = format!("{tree}@{serial} cannot be taken: {why}");
            (Some(head), Some((RepositoryFault::Refused, refused)))
        }
        Lookup::Found(found) => {
            take_found(host, managed, service, poll, *found, rest, log);
            (Some(head), stale)
        }
    })
}

/// Takes a release, and lets it rest if this host could not.
fn take_found(
    host: &Arc<LocalHost>,
    managed: &ManagedTree,
    service: &AdhocService,
    poll: &RepositoryPoll,
    found: FoundRelease,
    rest: &mut Rest,
    log: &mut CatchUpLog,
) {
    let id = found.record.release.id();
    let failures = managed.failures.count(id);
    let failed = match take(host, service, poll, found, log) {
        Ok(outcome) => outcome.shortfall(),
        Err(e) => Some(e.with_hint()),
    };
    if let Some(why) = failed {
        log.warn(&format!(
            "tree {}: not all hosts took the repository's release: {why}",
            poll.tree
        ));
    }

    let current = managed.tree.state().current().ok().flatten();
    if current.is_some_and(|mark| mark.id == id) {
        rest.on_success();
    } else if managed.failures.count(id) == failures {
        // It did not come as far as this tree.
        rest.on_failure(id);
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
        payload: TARGET_BYTES,
    };
    let outcome =
        service.send(|network| pull(network, found, host, &options, &Interrupt::default(), log))?;

    let took = outcome.hosts.iter().filter(|h| h.state.has_release());
    let took = took.count();
    if took > 0 {
        log.info(&format!(
            "{release}: taken from the repository by {took} hosts"
        ));
    }
    Ok(outcome)
}
