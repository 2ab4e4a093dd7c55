//! A machine's access to the network: sends and receives its datagrams with few system calls.
//!
//! With several links, datagrams for the group go out on each link, and datagrams for a host on the
//! link that last received from the host. `send_buffer` holds datagrams on their way out,
//! `host_links` the link of each host.

mod host_links;
mod relay;
mod send_buffer;

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use self::host_links::HostLinks;
use self::relay::{RelayQueue, RelayWay};
use self::send_buffer::SendBuffer;
use super::clock::{self, Clock};
use super::peers::{PeerConfig, Peers, SETTLE_TIMEOUT};
use super::reopen::{LinkFollower, LinkOpener};
use super::unheard::UnheardPeers;
use crate::Result;
use crate::id::{HostName, InstanceId, SegmentId};
use crate::keys::{GroupKey, random_bytes};
use crate::metrics::{DataWay, TrafficFigures};
use crate::net::{Channel, Interest, Link, LinkSet, Poller, ReceivedDatagram, RecvBatch, Waker};
use crate::outcome::Stranger;
use crate::proto::receiver::RelayLoad;
use crate::proto::roster::{Hop, Roster, RosterSetup, SegmentSetup};
use crate::proto::sender::reach::{DataTargets, RosterView};
use crate::proto::{Dest, Transmit};
use crate::wire::Datagram;
use crate::wire::datagram::{is_data, is_peer, is_relayed};
use crate::wire::relay::RelayTargets;
use crate::wire::seal::{Plain, Seal, Sealed};

/// Largest datagram sent, whatever the interface takes: a jumbo frame's.
pub const MAX_SENT_DATAGRAM: usize = 8_972;
/// Longest time for the last datagrams of an endpoint.
const LEAVE_TIMEOUT: Duration = Duration::from_millis(300);
/// Interval of attempts to send them.
const LEAVE_INTERVAL: Duration = Duration::from_millis(1);
/// Largest number of reads before the machine may send again.
const MAX_READ_CALLS: usize = 16;
/// A process's network: its links and the keys of its group.
#[derive(Debug)]
pub struct GroupLinks {
    /// Links to the network.
    pub links: LinkSet,
    /// Group keys: the first seals, each may open. Without a key datagrams are plain.
    pub keys: Vec<GroupKey>,
    /// Reopens links whose interface has changed; without it they stay as they are.
    pub reopen: Option<LinkOpener>,
    /// Hosts to start from where multicast does not reach.
    pub peers: Option<PeerConfig>,
    /// Counters of the process's datagrams.
    pub traffic: Arc<TrafficFigures>,
}

impl From<LinkSet> for GroupLinks {
    /// A network without a group key.
    fn from(links: LinkSet) -> Self {
        Self {
            links,
            keys: Vec::new(),
            reopen: None,
            peers: None,
            traffic: Arc::default(),
        }
    }
}

impl From<Link> for GroupLinks {
    /// A network without a group key.
    fn from(link: Link) -> Self {
        LinkSet::from(link).into()
    }
}

/// Links, poller and buffers of a machine.
#[derive(Debug)]
pub struct GroupEndpoint {
    links: LinkSet,
    instance: InstanceId,
    seal: Box<dyn Seal>,
    unheard: UnheardPeers,
    host_links: HostLinks,
    follow: Option<LinkFollower>,
    /// True if the last wait ended with a change of interfaces.
    changed: Cell<bool>,
    poller: Poller,
    batch: RecvBatch,
    out: SendBuffer,
    traffic: Arc<TrafficFigures>,
    clock: Clock,
    peers: Option<Peers>,
    /// Destinations of this process's data, if not all hosts are reached by multicast.
    data: Option<DataTargets>,
    relay: RelayQueue,
    /// Whether this process passes on what hosts passed on to it.
    is_second_hop: bool,
    /// A received datagram as it came, while it is opened.
    sealed: Vec<u8>,
}

/// A received datagram, opened.
#[derive(Debug, Clone, Copy)]
pub struct Arrived<'a> {
    /// Socket of the sender, the destination of answers.
    pub from: SocketAddr,
    /// Content of the datagram.
    pub bytes: &'a [u8],
    /// Time of arrival in the kernel, since 1970.
    pub stamp: Option<Duration>,
    /// Data to pass on, from a process that is known at its address.
    pub is_peer: bool,
}

impl GroupEndpoint {
    /// Opens the endpoint with a random instance and seal start; keys depend on both.
    pub fn new(network: impl Into<GroupLinks>) -> Result<Self> {
        Self::of(network, InstanceId(u64::from_be_bytes(random_bytes()?)))
    }

    /// Opens the endpoint for `instance`, which has to be random as well.
    pub fn of(network: impl Into<GroupLinks>, instance: InstanceId) -> Result<Self> {
        let GroupLinks {
            links,
            keys,
            reopen,
            peers,
            traffic,
        } = network.into();

        let seal: Box<dyn Seal> = match Sealed::new(&keys, random_bytes()?) {
            Some(sealed) => Box::new(sealed),
            None => Box::new(Plain),
        };

        let clock = Clock::start();
        let poller = Poller::new()?;
        let own = links.iter().map(Link::local).collect();
        let start = |config: PeerConfig| {
            let setup = RosterSetup {
                instance,
                seed: clock::seed(),
                room: seal.room(),
                host: config.host,
                segment: SegmentSetup {
                    multicast: links.first().is_multicast(),
                    named: config.segment.as_ref().map(SegmentId::named),
                },
            };
            Peers::start(clock.now(), config, setup, own, poller.waker())
        };

        let mut endpoint = Self {
            instance,
            peers: peers.map(start).transpose()?,
            clock,
            follow: reopen.map(|reopen| LinkFollower::begin(reopen, &links)),
            changed: Cell::new(false),
            links,
            seal,
            unheard: UnheardPeers::default(),
            host_links: HostLinks::default(),
            poller,
            batch: RecvBatch::new(),
            out: SendBuffer::new(Arc::clone(&traffic)),
            traffic,
            data: None,
            relay: RelayQueue::default(),
            is_second_hop: false,
            sealed: Vec::new(),
        };

        endpoint.settle()?;
        Ok(endpoint)
    }

    /// Waits until the known peers have answered, or have let pass the time for it.
    fn settle(&mut self) -> Result<()> {
        let began = self.clock.now();
        loop {
            // The last ping that is worth waiting for may be among them.
            self.flush(|_| None);
            let waited = self.clock.now().since(began);
            let is_settled = |peers: &Peers| peers.is_settled() || waited >= SETTLE_TIMEOUT;
            if self.peers.as_ref().is_none_or(is_settled) {
                return Ok(());
            }

            self.wait(Some(SETTLE_TIMEOUT - waited))?;
            // The machine has not begun, so nothing else is expected yet.
            self.receive(|_| {});
        }
    }

    /// Links of the endpoint.
    pub fn links(&self) -> &LinkSet {
        &self.links
    }

    /// Instance of this process, for the front of each datagram.
    pub fn instance(&self) -> InstanceId {
        self.instance
    }

    /// Peers whose datagrams do not open.
    pub fn unheard(&self) -> &UnheardPeers {
        &self.unheard
    }

    /// Takes the new ones among them.
    pub fn take_new_unheard(&mut self) -> Vec<Stranger> {
        self.unheard.take_new()
    }

    /// Seals with the first of `keys` from now on, and opens with all.
    ///
    /// Returns false for a change between plain and sealed, which takes a restart.
    pub fn rekey(&mut self, keys: &[GroupKey]) -> Result<bool> {
        Ok(self.seal.rekey(keys, random_bytes()?))
    }

    /// Ends a wait from another thread.
    pub fn waker(&self) -> Waker {
        self.poller.waker()
    }

    /// Takes the hosts that have answered for the first time, where multicast does not reach.
    pub fn take_new_peers(&mut self) -> Vec<SocketAddr> {
        self.peers.as_mut().map(Peers::take_new).unwrap_or_default()
    }

    /// Takes the hosts that do not answer any more, where multicast does not reach.
    pub fn take_gone_peers(&mut self) -> Vec<SocketAddr> {
        self.peers
            .as_mut()
            .map(Peers::take_gone)
            .unwrap_or_default()
    }

    /// Hosts that are reached by unicast, and whether there is multicast. `None` without a roster.
    pub fn roster(&self) -> Option<RosterView<'_>> {
        let roster = self.peers.as_ref()?.roster();
        Some(RosterView {
            version: roster.version(),
            multicast: self.links.first().is_multicast(),
            hosts: roster.reached(),
            distant: roster.distant().len(),
        })
    }

    /// Number of processes that get each message to the group by unicast.
    pub fn distant(&self) -> usize {
        let roster = self.peers.as_ref().map(Peers::roster);
        roster.map_or(0, |roster| roster.distant().len())
    }

    /// Sets the destinations of this process's data for the group.
    pub fn set_data_targets(&mut self, targets: DataTargets) {
        self.data = Some(targets);
    }

    /// Sets whether this process passes on what hosts passed on to it.
    pub fn set_second_hop(&mut self, is_second_hop: bool) {
        self.is_second_hop = is_second_hop;
    }

    /// Bytes of datagrams passed on, counted for each host.
    pub fn relayed(&self) -> u64 {
        self.relay.sent()
    }

    /// Takes the load of this host as a relay.
    pub fn take_relay_load(&mut self) -> RelayLoad {
        self.relay.take_load()
    }

    /// Bytes of datagrams sent on all links, without IP and UDP headers.
    pub fn sent(&self) -> u64 {
        self.out.sent()
    }

    /// Size of datagrams to build: the smallest limit of the links, less the room for the seal.
    pub fn datagram(&self) -> usize {
        self.links
            .narrowest()
            .max_segment()
            .min(MAX_SENT_DATAGRAM)
            .saturating_sub(self.room())
    }

    /// Log line about datagrams of `datagram` bytes before sealing, which `host` made smaller than
    /// the links take; shows their size on the network.
    pub fn narrowed(&self, datagram: usize, host: &HostName) -> String {
        let size = datagram + self.room();
        let most = self.datagram() + self.room();
        let interface = &self.links.narrowest().interface().name;
        format!(
            "datagrams of {size} bytes, not {most} as {interface} takes: larger ones do not \
            reach {host}"
        )
    }

    /// Returns whether there is a group key.
    pub fn is_sealed(&self) -> bool {
        self.room() > 0
    }

    /// Bytes to leave free behind each datagram.
    pub fn room(&self) -> usize {
        self.seal.room()
    }

    /// Bytes that the network adds to each datagram: UDP, IP and Ethernet headers.
    pub fn overhead(&self) -> usize {
        let ip = if self.links.group().is_ipv6() { 40 } else { 20 };
        8 + ip + 18 + self.room()
    }

    /// Sends the datagrams that `next` writes, until there are no more or the kernel has no room,
    /// and passes on those of others.
    pub fn flush(&mut self, next: impl FnMut(&mut Vec<u8>) -> Option<Transmit>) {
        if self.send_own(next)
            && let Some(peers) = &self.peers
        {
            let way = RelayWay {
                links: &self.links,
                host_links: &self.host_links,
                own: self.instance,
                traffic: &self.traffic,
                roster: (peers.roster().version(), peers.roster().reached()),
            };
            self.relay.send(self.clock.now(), &way);
        }
    }

    /// Sends what is left at the end, to many hosts one after the other.
    fn flush_all(&mut self) {
        let began = self.clock.now();
        while !self.send_own(|_| None) && self.clock.now().since(began) < LEAVE_TIMEOUT {
            std::thread::sleep(LEAVE_INTERVAL);
        }
    }

    /// Sends the datagrams that `next` writes; returns false if the kernel has no room.
    fn send_own(&mut self, mut next: impl FnMut(&mut Vec<u8>) -> Option<Transmit>) -> bool {
        loop {
            if self.out.is_sent() {
                let transmit = self.out.take_direct();
                let transmit = transmit.or_else(|| self.poll_peers());
                let transmit = transmit.or_else(|| next(self.out.datagrams()));
                let Some(transmit) = transmit else {
                    return true;
                };
                self.address(transmit);
                self.out.seal(transmit.segment, &mut *self.seal);
            }

            if !self.out.send(&self.links, self.clock.now()) {
                return false;
            }
        }
    }

    /// Chooses the links and hosts for the content of the buffer, which is not sealed yet.
    fn address(&mut self, transmit: Transmit) {
        let Transmit { dest, segment } = transmit;
        let roster = self.peers.as_ref().map(Peers::roster);
        let distant = || roster.map_or(&[][..], Roster::distant);
        let datagram = self.out.datagrams();
        let targets = match &self.data {
            _ if is_peer(datagram) => (&[][..], true),
            Some(data) if is_data(datagram) => (&data.hosts[..], data.multicast),
            _ => (distant(), true),
        };
        if matches!(dest, Dest::Relay(_)) && targets.1 {
            self.out.keep_direct(segment);
        }
        self.out
            .address(dest, &self.links, &self.host_links, targets);
    }

    /// Performs due work of the roster and writes its next datagram.
    fn poll_peers(&mut self) -> Option<Transmit> {
        let peers = self.peers.as_mut()?;
        peers.poll(self.clock.now(), self.out.datagrams())
    }

    /// Takes the latest warning for people; each is reported once.
    pub fn take_warning(&mut self) -> Option<String> {
        self.out.take_warning()
    }

    /// Reopens links whose interface has changed.
    fn follow(&mut self) {
        let Some(follow) = &mut self.follow else {
            return;
        };

        if self.changed.take() {
            follow.changed();
        }

        if follow.poll(&mut self.links) {
            // Blocked datagrams count as lost, and hosts may be on other links now.
            self.out.clear();
            self.host_links = HostLinks::default();
            if let Some(peers) = &mut self.peers {
                let own = self.links.iter().map(Link::local).collect();
                peers.set_own(self.clock.now(), own);
            }
        }
    }

    /// Passes each received datagram to `each`, opened.
    pub fn receive(&mut self, mut each: impl FnMut(Arrived<'_>)) {
        self.receive_and_relay(|arrived| {
            each(arrived);
            None
        });
    }

    /// Passes each received datagram to `each`, opened. If `each` returns targets, they get the
    /// datagram as it came.
    pub fn receive_and_relay(
        &mut self,
        mut each: impl FnMut(Arrived<'_>) -> Option<Arc<RelayTargets>>,
    ) {
        self.follow();
        let Self {
            links,
            host_links,
            batch,
            seal,
            unheard,
            peers,
            clock,
            relay,
            is_second_hop,
            sealed,
            traffic,
            ..
        } = self;

        let several = links.len() > 1;
        let (now, since_epoch) = (clock.now(), clock::since_epoch());
        let age = |stamp: Duration| since_epoch.saturating_sub(stamp);
        for (link, place) in links.iter().zip(0..) {
            let mut each = |channel, datagram: ReceivedDatagram<'_>| {
                let ReceivedDatagram { from, bytes, stamp } = datagram;
                let hop = match peers {
                    Some(peers) if is_relayed(bytes) => peers.roster().hop(from),
                    _ => None,
                };
                let is_peer_data = hop.is_some();
                // Multicast has reached all hosts of the segment already.
                let hop = hop.filter(|hop| {
                    channel == Channel::Own && (*is_second_hop || *hop == Hop::First)
                });
                if hop.is_some() {
                    sealed.clear();
                    sealed.extend_from_slice(bytes);
                }

                let bytes = match seal.open(bytes) {
                    Ok(bytes) => bytes,
                    Err(kind) => {
                        traffic.unsealed.add(1);
                        let stamp = stamp.unwrap_or_else(clock::since_epoch);
                        return unheard.refused(kind, from, stamp);
                    }
                };
                if several {
                    host_links.record(from, place);
                }

                if let Some(peers) = peers
                    && !is_data(bytes)
                    && let Ok(Datagram::Control(front, _)) = Datagram::parse(bytes)
                {
                    peers.on_source(clock.now(), from, front.source);
                }
                if !is_peer(bytes) {
                    let arrived = Arrived {
                        from,
                        bytes,
                        stamp,
                        is_peer: is_peer_data,
                    };
                    if let Some(targets) = each(arrived)
                        && let Some(hop) = hop
                        && hop.is_passed_on(&targets)
                    {
                        let since = now - stamp.map(age).unwrap_or_default();
                        relay.push(since, (from, hop), targets, sealed);
                    }
                } else if let (Some(peers), Ok(Datagram::Peer(front, message))) =
                    (peers.as_mut(), Datagram::parse(bytes))
                {
                    peers.handle(clock.now(), channel, from, (front.source, message));
                }
            };
            read(link, batch, traffic, &mut each);
        }
    }

    /// Waits for datagrams, a waker, room to send if a send is blocked, or the timeout.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<()> {
        let links = self
            .links
            .iter()
            .zip(0..)
            .map(|(link, place)| (link, self.interest(place)));

        let changes = self.follow.as_ref().map(LinkFollower::changes);
        let ready = self
            .poller
            .wait_any(links, changes, self.longest(timeout))
            .map_err(|e| {
                crate::Error::new(
                    crate::Kind::Io,
                    format!("cannot wait for datagrams on {}", self.links.names()),
                )
                .because(e)
            })?;

        self.changed.set(self.changed.get() | ready.changed);
        Ok(())
    }

    /// Readiness to wait for on a link.
    fn interest(&self, link: usize) -> Interest {
        // While own datagrams wait, nothing is passed on.
        match self.out.is_sent() && self.relay.waits_on(link) {
            true => Interest::READ_WRITE,
            false => self.out.interest(link),
        }
    }

    /// Timeout of a wait. While a send is blocked the machine's own deadline is ignored: it may be
    /// due all the time with no room to send.
    fn longest(&self, timeout: Option<Duration>) -> Option<Duration> {
        let follow = self.follow.as_ref().and_then(LinkFollower::timeout);
        // While a send is blocked, the roster has to wait, too.
        let peers = self.peers.as_ref().filter(|_| self.out.is_sent());
        let roster = peers.map(|peers| peers.timeout(self.clock.now()));
        let retry = self.out.retry_after().into_iter();
        let timeout = retry.chain(self.relay.retry_after()).min().or(timeout);
        timeout.into_iter().chain(follow).chain(roster).min()
    }
}

impl Drop for GroupEndpoint {
    fn drop(&mut self) {
        if let Some(peers) = &mut self.peers {
            peers.leave();
            self.flush_all();
        }
    }
}

fn read(
    link: &Link,
    batch: &mut RecvBatch,
    traffic: &TrafficFigures,
    each: &mut impl FnMut(Channel, ReceivedDatagram<'_>),
) {
    for (channel, way) in [
        (Channel::Own, DataWay::Unicast),
        (Channel::Group, DataWay::Multicast),
    ] {
        let mut bytes = 0;
        for _ in 0..MAX_READ_CALLS {
            let received = link.recv(channel, batch, |datagram| {
                bytes += datagram.bytes.len() as u64;
                each(channel, datagram)
            });
            match received {
                Ok(0) => break,
                Ok(_) => {}
                // Reading reports the error of an earlier send (an ICMP "port unreachable"), which
                // does not concern us.
                Err(e) => {
                    tracing::debug!("receive on {}: {e}", link.interface().name);
                    break;
                }
            }
        }

        traffic.received.of(way).add(bytes);
    }
}

#[cfg(test)]
mod tests;
