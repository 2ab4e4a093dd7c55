//! Serves this host's release to hosts that missed it, from the live tree, with the original
//! signatures and commit order.
//!
//! One such session runs at a time in a process, at the configured rate. Pulls that arrive
//! meanwhile join in or follow.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::Receiver as Inbox;
use std::time::Duration;

use super::clock::Clock;
use super::deploy::{self, DeployOptions, Granted, Interrupt, ReleaseKeys, ReleaseOrigin};
use super::log_limit::LogLimit;
use crate::drive::adhoc::AdhocService;
use crate::drive::deploy::rollback::spec;
use crate::drive::deploy::source::{PreparedRelease, ReleaseSource};
use crate::drive::host::LocalHost;
use crate::id::{HostName, Serial};
use crate::keys::{Namespace, PublicKey, Signature, Signer, verify};
use crate::outcome::{Event, HostState, Observer, Purpose, named_hosts};
use crate::spec::Compress;
use crate::tree::{Lacking, LiveTree, NextRelease, StoredRelease, StoredSource, Tree};
use crate::units::{Rate, one_line};
use crate::wire::message::{Order, Pull, SignedOrder};
use crate::{Error, Result};

/// Delay before an offer, for other hosts with the same gap to join.
const GATHER_DELAY: Duration = Duration::from_millis(250);
/// Timeout for a silent host.
const HOST_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves pulls until the channel closes.
pub fn run(
    host: &Arc<LocalHost>,
    service: &AdhocService,
    rate: Rate,
    pulls: &Inbox<(SocketAddr, Pull)>,
) {
    let mut log = CatchUpLog::new();
    while let Ok(pull) = pulls.recv() {
        std::thread::sleep(GATHER_DELAY);
        let mut open: VecDeque<_> = std::iter::once(pull).chain(pulls.try_iter()).collect();

        while let Some((first, pull)) = open.pop_front() {
            if is_for_others(host, &pull) {
                let who = pull.host.as_ref().map_or("a host", HostName::as_str);
                log.info(&format!(
                    "tree {}: {who} lacks the release, whose order names other hosts: it gets the \
                     release once an order for all is given",
                    pull.tree
                ));
                continue;
            }

            let same = open.iter().filter(|(_, other)| other.tree == pull.tree);
            let asking: BTreeSet<SocketAddr> = same.map(|(from, _)| *from).chain([first]).collect();
            let served = serve(host, service, rate, (&pull, &asking), &mut log);
            let served = served.unwrap_or_else(|e| {
                log.warn(&format!(
                    "tree {}: cannot offer a release that others lack: {e}",
                    pull.tree
                ));
                Vec::new()
            });

            // Hosts that pulled the same tree before have received the offer, or pull again.
            open.extend(pulls.try_iter());
            let is_served = |name: &Option<HostName>| name.iter().any(|n| served.contains(n));
            open.retain(|(from, other)| {
                other.tree != pull.tree || !asking.contains(from) && !is_served(&other.host)
            });
        }
    }
}

/// Returns whether the release was ordered for other hosts than the asking one, as between two
/// batches. It would refuse an offer, and ask again as long as it waits.
fn is_for_others(host: &LocalHost, pull: &Pull) -> bool {
    let Some((managed, name)) = host.trees.get(&pull.tree).zip(pull.host.as_ref()) else {
        return false;
    };

    let is_permitted = || -> Option<bool> {
        let tree = &managed.tree;
        let current = tree.current().ok()??.release;
        // Before a part of a tree comes the whole, which has an order of its own.
        let is_asked = current.id() == pull.release && current.header().is_whole();
        let grant = tree.state().grant(current.header().serial).ok()??;
        let grant: SignedOrder = minicbor::decode(&grant).ok()?;
        let order = Order::decode(&grant.order).filter(|_| is_asked)?;
        Some(order.release != current.id() || order.permits(name, grant.hosts.as_ref()))
    };
    is_permitted() == Some(false)
}

/// Offers the release of a pull to the hosts at the addresses `asking`, and to all that multicast
/// reaches. Returns the hosts that took part.
fn serve(
    host: &Arc<LocalHost>,
    service: &AdhocService,
    rate: Rate,
    (pull, asking): (&Pull, &BTreeSet<SocketAddr>),
    log: &mut CatchUpLog,
) -> Result<Vec<HostName>> {
    let nobody = Ok(Vec::new());
    let Some(managed) = host.trees.get(&pull.tree) else {
        return nobody;
    };

    let tree = &managed.tree;
    let Some(current) = tree
        .current()?
        .filter(|current| current.release.id() == pull.release)
    else {
        return nobody;
    };

    if tree.state().tombstone(pull.release)?.is_some()
        || tree.state().unhealthy(pull.release).is_some()
    {
        return nobody;
    }

    let Some(NextOffer {
        release: current,
        follows,
        alone,
    }) = next_for(tree, current, pull)?
    else {
        return nobody;
    };

    let header = current.release.header().clone();
    // The order is not stored yet, or was lost in a crash after the commit.
    let Some(grant) = tree.state().grant(header.serial)? else {
        return nobody;
    };

    let grant: SignedOrder = minicbor::decode(&grant).map_err(|e| {
        Error::refused("the order that is kept with the release is damaged").because(e)
    })?;

    if Order::decode(&grant.order).is_none_or(|order| order.release != current.release.id()) {
        // The order is for another release of the same serial.
        return nobody;
    }

    let by = verify(
        Namespace::RELEASE,
        current.release.bytes(),
        &current.signature,
    )
    .map_err(|e| {
        Error::refused("the signature that is kept with the release does not hold").because(e)
    })?;

    let mut spec = spec(&current.release, &current.release.header().targets)?;
    spec.transfer.rate = Some(rate);
    let records = (*tree.state()).clone();
    let live = LiveTree::Served(Arc::clone(tree));
    let facts = PreparedRelease::of(&header, Vec::new());
    let prepare = move || {
        let source = StoredSource::open(live, records, header.root)?;
        Ok((ReleaseSource::of(Box::new(source), Compress::Auto), facts))
    };

    let options = DeployOptions {
        beside: Some(service.handle()),
        ..DeployOptions::new(
            spec,
            Purpose::Deploy,
            ReleaseKeys::of(Arc::new(PublicKeyOnly(by))),
            host.name.clone(),
            HOST_TIMEOUT,
        )
    };

    let fleet = u32::try_from(service.members().len()).unwrap_or(u32::MAX);
    let release = current.release.clone();
    let only = pull.host.clone().filter(|_| alone);
    let granted = Granted {
        release: current.release,
        signature: current.signature,
        grant,
        fleet,
        follows,
        only,
        asking: asking.iter().copied().collect(),
    };

    let origin = ReleaseOrigin::Granted(granted, Box::new(prepare));
    let outcome = service
        .send(|network| deploy::run(network, options, origin, &Interrupt::default(), log))?;

    if let Some(why) = outcome.shortfall() {
        log.warn(&format!(
            "{release}: not all of it could be given to those that lack it: {why}"
        ));
    }

    let made = outcome.hosts.iter().filter(|host| host.state.has_release());
    if let Some(names) = named_hosts(made.map(|host| &host.host)) {
        let sent = outcome.bytes_sent;
        log.info(&format!("{release}: passed on to {names}; {sent} sent"));
    }

    Ok(outcome.hosts.into_iter().map(|h| h.host).collect())
}

/// The release to offer next, see [`NextRelease::Release`].
struct NextOffer {
    release: StoredRelease,
    follows: Option<Serial>,
    alone: bool,
}

/// The next release on the way to `current` for the pulling host: the last whole release, then each
/// later part.
fn next_for(tree: &Tree, current: StoredRelease, pull: &Pull) -> Result<Option<NextOffer>> {
    let newest = current.release.header().serial;
    let have = pull.have;
    if have == newest {
        return Ok(Some(NextOffer {
            release: current,
            follows: None,
            alone: false,
        }));
    }

    let name = tree.name();
    let lacks = |why: String| Err(Error::refused(why).hint("deploy the whole tree"));
    match tree.next_for(Lacking {
        have,
        base: pull.base,
        host: pull.host.as_ref(),
        labels: pull.labels.as_ref(),
    })? {
        NextRelease::Release {
            serial,
            follows,
            alone,
        } => Ok(tree.release(serial)?.map(|release| NextOffer {
            release,
            follows,
            alone,
        })),
        NextRelease::NoWhole => lacks(format!(
            "{name}@{newest} is of a part of the tree, and no release of the whole is kept"
        )),
        NextRelease::Unknown => lacks(format!(
            "{name}@{have} is not known here, and what is kept are parts of the tree"
        )),
        NextRelease::Nothing => Ok(None),
    }
}

/// Log of all such sessions: anyone can cause them, so lines are few and short.
pub(super) struct CatchUpLog {
    clock: Clock,
    warnings: LogLimit,
    infos: LogLimit,
}

impl CatchUpLog {
    pub(super) fn new() -> Self {
        let clock = Clock::start();
        let warnings = LogLimit::new(clock.now());
        let infos = LogLimit::new(clock.now());
        Self {
            clock,
            warnings,
            infos,
        }
    }

    pub(super) fn warn(&mut self, text: &str) {
        self.warnings.log(self.clock.now(), |more| {
            tracing::warn!("{}{more}", one_line(text));
        });
    }

    pub(super) fn info(&mut self, text: &str) {
        self.infos.log(self.clock.now(), |more| {
            tracing::info!("{}{more}", one_line(text));
        });
    }
}

impl Observer for CatchUpLog {
    fn event(&mut self, event: &Event) {
        match event {
            Event::Note(note) => self.info(note),
            Event::Host(change)
                if change.state.is_trouble() && change.state != HostState::Aborted =>
            {
                let why = change.error.as_deref().unwrap_or_default();
                self.warn(&format!(
                    "{} did not take the release that it lacks: {}: {why}",
                    change.host,
                    change.state.word()
                ));
            }
            _ => {}
        }
    }
}

/// Stands for the signing key: nothing needs a new signature.
#[derive(Debug)]
pub(super) struct PublicKeyOnly(pub(super) PublicKey);

impl Signer for PublicKeyOnly {
    fn sign(&self, _: Namespace, _: &[u8]) -> Result<Signature> {
        Err(Error::refused(
            "a release that is passed on is not signed again",
        ))
    }

    fn public(&self) -> &PublicKey {
        &self.0
    }
}
