//! Peers of an endpoint where multicast does not reach: resolves their names, and keeps the roster.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver as Inbox, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::Result;
use crate::config::PeerName;
use crate::error::IoResultExt;
use crate::id::{InstanceId, SegmentName};
use crate::net::{Channel, Family, Waker, peer_lookup};
use crate::proto::Transmit;
use crate::proto::roster::{Roster, RosterSetup, is_reachable};
use crate::units::Moment;

/// Interval at which names are resolved again.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(30);
/// The same while a name does not resolve.
const RETRY_INTERVAL: Duration = Duration::from_secs(3);
/// Longest wait of a start for its peers.
pub(super) const SETTLE_TIMEOUT: Duration = Duration::from_secs(2);

/// Hosts to start from.
#[derive(Debug, Clone, Default)]
pub struct PeerConfig {
    /// Names from the configuration.
    pub names: Vec<PeerName>,
    /// Port of names without one.
    pub port: u16,
    /// Further addresses.
    pub known: Vec<SocketAddr>,
    /// Whether this process takes releases.
    pub host: bool,
    /// Segment from the configuration.
    pub segment: Option<SegmentName>,
}

/// Roster of an endpoint, and the addresses of its configured names.
#[derive(Debug)]
pub(super) struct Peers {
    roster: Roster,
    /// Addresses besides the resolved ones.
    known: Vec<SocketAddr>,
    /// Addresses of this process, as the resolver sees them.
    own: Arc<Mutex<Vec<SocketAddr>>>,
    resolved: Inbox<ResolvedPeers>,
    /// True once all names have been resolved, or have failed.
    is_resolved: bool,
    /// Ends the resolver when dropped.
    _stop: Sender<()>,
}

impl Peers {
    /// Starts to resolve the names; `waker` ends a wait when addresses arrive.
    pub(super) fn start(
        now: Moment,
        config: PeerConfig,
        setup: RosterSetup,
        own: Vec<SocketAddr>,
        waker: Waker,
    ) -> Result<Self> {
        let PeerConfig {
            names,
            port,
            mut known,
            ..
        } = config;
        let (names, literal): (Vec<_>, Vec<_>) = names.into_iter().partition(PeerName::is_name);
        for peer in &literal {
            let address = peer.address(port);
            known.extend(address);
            warn_of_family(peer, address.as_slice(), &own);
        }

        let mut roster = Roster::new(now, setup);
        roster.set_own(now, own.clone());
        let own = Arc::new(Mutex::new(own));
        roster.configure(now, &known);

        let (resolved_to, resolved) = channel();
        let (stop, stopped) = channel();
        let is_resolved = names.is_empty();
        if !is_resolved {
            let resolver = PeerResolver {
                names,
                port,
                own: Arc::clone(&own),
                found: BTreeMap::new(),
                warned: BTreeSet::new(),
                resolved: resolved_to,
                waker,
            };
            std::thread::Builder::new()
                .name("resolver".into())
                .spawn(move || resolver.run(&stopped))
                .io_context("cannot start a thread")?;
        }

        Ok(Self {
            roster,
            known,
            own,
            resolved,
            is_resolved,
            _stop: stop,
        })
    }

    /// The roster.
    pub(super) fn roster(&self) -> &Roster {
        &self.roster
    }

    /// Takes the content of a peer datagram that arrived by `channel`.
    pub(super) fn handle(
        &mut self,
        now: Moment,
        channel: Channel,
        from: SocketAddr,
        (source, message): (InstanceId, &[u8]),
    ) {
        match channel {
            Channel::Own => self.roster.handle(now, from, source, message),
            Channel::Group => self.roster.hear(now, from, source, message),
        }
    }

    /// Records that a message of the process `source` came from `from`.
    pub(super) fn on_source(&mut self, now: Moment, from: SocketAddr, source: InstanceId) {
        self.roster.on_source(now, from, source);
    }

    /// Tells all peers that this process ends.
    pub(super) fn leave(&mut self) {
        self.roster.leave();
    }

    /// Takes the hosts that have answered for the first time.
    pub(super) fn take_new(&mut self) -> Vec<SocketAddr> {
        self.roster.take_new()
    }

    /// Takes the hosts that do not answer any more.
    pub(super) fn take_gone(&mut self) -> Vec<SocketAddr> {
        self.roster.take_gone()
    }

    /// Performs due work and writes the next datagram into `out`.
    pub(super) fn poll(&mut self, now: Moment, out: &mut Vec<u8>) -> Option<Transmit> {
        while let Ok(mut resolved) = self.resolved.try_recv() {
            resolved.addresses.extend(&self.known);
            self.roster.configure(now, &resolved.addresses);
            self.is_resolved |= resolved.is_complete;
        }

        self.roster.handle_timeout(now);
        self.roster.poll_transmit(out)
    }

    /// Sets the addresses of this process, which may have changed.
    pub(super) fn set_own(&mut self, now: Moment, own: Vec<SocketAddr>) {
        own.clone_into(&mut self.own.lock().unwrap_or_else(PoisonError::into_inner));
        self.roster.set_own(now, own);
    }

    /// Time until the next event.
    pub(super) fn timeout(&self, now: Moment) -> Duration {
        self.roster.timeout().since(now)
    }

    /// Returns whether each known peer has answered, or has let pass the time for it.
    pub(super) fn is_settled(&self) -> bool {
        self.is_resolved && self.roster.is_settled()
    }
}

/// Addresses of all names.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ResolvedPeers {
    addresses: Vec<SocketAddr>,
    /// True once each name was tried.
    is_complete: bool,
}

/// Resolves names again and again.
struct PeerResolver {
    names: Vec<PeerName>,
    port: u16,
    /// Addresses of this process.
    own: Arc<Mutex<Vec<SocketAddr>>>,
    /// Addresses by index of the name; a name that fails keeps its last ones.
    found: BTreeMap<usize, Vec<SocketAddr>>,
    /// Names whose failure was logged.
    warned: BTreeSet<usize>,
    resolved: Sender<ResolvedPeers>,
    waker: Waker,
}

impl PeerResolver {
    /// Runs until the endpoint is gone.
    fn run(mut self, stopped: &Inbox<()>) {
        let mut is_complete = false;
        loop {
            for at in 0..self.names.len() {
                let changed = self.resolve(at);
                let first = !is_complete && at + 1 == self.names.len();
                is_complete |= first;
                if (changed || first) && !self.publish(is_complete) {
                    return;
                }
            }

            let wait = match self.warned.is_empty() {
                true => RESOLVE_INTERVAL,
                false => RETRY_INTERVAL,
            };
            if stopped.recv_timeout(wait) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
    }

    /// Resolves the name at index `at`; returns whether its addresses changed.
    fn resolve(&mut self, at: usize) -> bool {
        let Some(name) = self.names.get(at) else {
            return false;
        };

        match peer_lookup::resolve(name.host(), name.port_or(self.port)) {
            Ok(mut found) => {
                self.warned.remove(&at);
                found.sort();
                found.dedup();
                self.found.get(&at) != Some(&found) && {
                    let own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
                    warn_of_family(name, &found, &own);
                    drop(own);
                    self.found.insert(at, found);
                    true
                }
            }
            Err(why) => {
                if self.warned.insert(at) {
                    tracing::warn!("cannot resolve the peer {name}: {why}");
                }
                false
            }
        }
    }

    /// Passes on all addresses; returns false if the endpoint is gone.
    fn publish(&self, is_complete: bool) -> bool {
        let addresses = self.found.values().flatten().copied().collect();
        let resolved = ResolvedPeers {
            addresses,
            is_complete,
        };
        let sent = self.resolved.send(resolved).is_ok();
        self.waker.wake();
        sent
    }
}

/// Warns of a peer that no link of this process can send to.
fn warn_of_family(peer: &PeerName, addresses: &[SocketAddr], own: &[SocketAddr]) {
    let [first, ..] = addresses else {
        return;
    };

    if !addresses.iter().any(|&address| is_reachable(own, address)) {
        let family = Family::of(first.ip());
        tracing::warn!("the peer {peer} has an {family} address, and no link here has one");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolver(names: &[&str]) -> (PeerResolver, Inbox<ResolvedPeers>) {
        let (resolved, inbox) = channel();
        let resolver = PeerResolver {
            names: names
                .iter()
                .map(|name| name.parse().expect("legal"))
                .collect(),
            port: 5001,
            own: Arc::default(),
            found: BTreeMap::new(),
            warned: BTreeSet::new(),
            resolved,
            waker: crate::net::Poller::new().expect("a poller").waker(),
        };
        (resolver, inbox)
    }

    #[test]
    fn a_name_that_does_not_resolve_holds_up_no_other_and_keeps_its_addresses() {
        let (mut resolver, inbox) = resolver(&["a..b", "127.0.0.1:7000"]);
        assert!(!resolver.resolve(0));
        assert!(resolver.resolve(1) && !resolver.resolve(1));
        assert_eq!(resolver.warned, BTreeSet::from([0]));

        let before: SocketAddr = "10.0.0.1:5001".parse().expect("legal");
        resolver.found.insert(0, vec![before]);
        assert!(!resolver.resolve(0) && resolver.publish(true));
        let resolved = inbox.recv().expect("published");
        let expected = [before, "127.0.0.1:7000".parse().expect("legal")];
        assert_eq!(
            (&resolved.addresses[..], resolved.is_complete),
            (&expected[..], true)
        );

        drop(inbox);
        assert!(!resolver.publish(true));
    }
}
