//! A machine's access to the network: sends and receives its datagrams with few system calls.
//!
//! With several links, datagrams for the group go out on each link, and datagrams for a host on the
//! link that last received from the host.

use std::cell::Cell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::clock;
use super::reopen::{LinkFollower, LinkOpener};
use super::unheard::UnheardPeers;
use crate::Result;
use crate::id::{HostName, InstanceId};
use crate::keys::{GroupKey, random_bytes};
use crate::net::{
    Channel, Interest, Link, LinkSet, Poller, ReceivedDatagram, RecvBatch, SendOutcome, Waker,
};
use crate::outcome::Stranger;
use crate::proto::{Dest, Transmit};
use crate::wire::seal::{Plain, Seal, Sealed};

/// Largest datagram sent, whatever the interface takes: a jumbo frame's.
pub const MAX_SENT_DATAGRAM: usize = 8_972;
/// Largest number of reads before the machine may send again.
const MAX_READ_CALLS: usize = 16;
/// Longest wait before a blocked send is retried.
const MAX_BLOCKED_WAIT: Duration = Duration::from_millis(1);
/// Largest number of hosts whose link is remembered; beyond it the table starts over.
const MAX_HOST_LINKS: usize = 20_000;

/// A process's network: its links and the keys of its group.
#[derive(Debug)]
pub struct GroupLinks {
    /// Links to the network.
    pub links: LinkSet,
    /// Group keys: the first seals, each may open. Without a key datagrams are plain.
    pub keys: Vec<GroupKey>,
    /// Reopens links whose interface has changed; without it they stay as they are.
    pub reopen: Option<LinkOpener>,
}

impl From<LinkSet> for GroupLinks {
    /// A network without a group key.
    fn from(links: LinkSet) -> Self {
        Self {
            links,
            keys: Vec::new(),
            reopen: None,
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
    out: Vec<u8>,
    /// Size of the datagrams in `out`.
    segment: usize,
    /// Parts of `out` that the kernel had no room for, by link.
    pending: Vec<PendingSend>,
    sent: u64,
    /// Latest warning for people, until taken.
    warning: Option<String>,
    /// True once a warning was recorded.
    has_warned: bool,
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
}

/// The unsent rest of the buffer on one link.
#[derive(Debug, Clone, Copy)]
struct PendingSend {
    link: usize,
    to: SocketAddr,
    /// First unsent byte of the buffer.
    from: usize,
    /// Wait before the next attempt, if the poller cannot detect room.
    retry_after: Option<Duration>,
}

/// The link of each host.
#[derive(Debug, Default)]
struct HostLinks {
    links: HashMap<SocketAddr, usize>,
    last: Option<(SocketAddr, usize)>,
}

impl HostLinks {
    fn record(&mut self, from: SocketAddr, link: usize) {
        if self.last == Some((from, link)) {
            return;
        }

        self.last = Some((from, link));
        if self.links.len() >= MAX_HOST_LINKS && !self.links.contains_key(&from) {
            self.links.clear();
        }

        self.links.insert(from, link);
    }
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
        } = network.into();

        let seal: Box<dyn Seal> = match Sealed::new(&keys, random_bytes()?) {
            Some(sealed) => Box::new(sealed),
            None => Box::new(Plain),
        };

        Ok(Self {
            instance,
            follow: reopen.map(|reopen| LinkFollower::begin(reopen, &links)),
            changed: Cell::new(false),
            links,
            seal,
            unheard: UnheardPeers::default(),
            host_links: HostLinks::default(),
            poller: Poller::new()?,
            batch: RecvBatch::new(),
            out: Vec::new(),
            segment: 0,
            pending: Vec::new(),
            sent: 0,
            warning: None,
            has_warned: false,
        })
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

    /// Bytes of datagrams sent on all links, without IP and UDP headers.
    pub fn sent(&self) -> u64 {
        self.sent
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

    /// Sends the datagrams that `next` writes, until there are no more or the kernel has no room.
    pub fn flush(&mut self, mut next: impl FnMut(&mut Vec<u8>) -> Option<Transmit>) {
        loop {
            if self.pending.is_empty() {
                let Some(transmit) = next(&mut self.out) else {
                    return;
                };
                self.segment = transmit.segment;
                self.out
                    .chunks_mut(transmit.segment.max(1))
                    .for_each(|datagram| self.seal.seal(datagram));
                self.address(transmit.dest);
            }
            if !self.send_rest() {
                return;
            }
        }
    }

    /// Chooses the links for the content of the buffer.
    fn address(&mut self, dest: Dest) {
        let pending = |link, to| PendingSend {
            link,
            to,
            from: 0,
            retry_after: None,
        };

        match dest {
            Dest::Group => self.pending.extend(
                self.links
                    .iter()
                    .zip(0..)
                    .map(|(link, i)| pending(i, link.group())),
            ),
            Dest::Host(to) if self.links.len() == 1 => self.pending.push(pending(0, to)),
            Dest::Host(to) => match self.host_links.links.get(&to) {
                Some(&link) => self.pending.push(pending(link, to)),
                None => self
                    .pending
                    .extend((0..self.links.len()).map(|link| pending(link, to))),
            },
        }
    }

    /// Continues blocked sends; returns false if one is still blocked.
    fn send_rest(&mut self) -> bool {
        let mut pending = std::mem::take(&mut self.pending);
        pending.retain_mut(|pending| !self.send_on(pending));
        self.pending = pending;
        self.pending.is_empty()
    }

    /// Sends on one link; returns whether the link is done.
    fn send_on(&mut self, pending: &mut PendingSend) -> bool {
        let Some(link) = self.links.get(pending.link) else {
            return true;
        };

        match link.send(pending.to, &self.out[pending.from..], self.segment) {
            Ok(SendOutcome::Sent) => self.sent += (self.out.len() - pending.from) as u64,
            Ok(SendOutcome::Blocked { sent, retry_after }) => {
                self.sent += sent as u64;
                pending.from += sent;
                pending.retry_after = retry_after;
                return false;
            }
            // Lost like any datagram on the network; repair replaces it if possible.
            Ok(SendOutcome::TooLarge) => self.too_large(pending.link),
            Err(e) => tracing::debug!("{}", link.explain_send(pending.to, e)),
        }

        true
    }

    fn too_large(&mut self, link: usize) {
        let name = self.links.get(link).map_or("", |l| &l.interface().name);
        let segment = self.segment;
        tracing::debug!("datagrams of {segment} bytes are too large for {name}");

        if !std::mem::replace(&mut self.has_warned, true) {
            let first = format!(
                "{name} does not take datagrams of {segment} bytes any more: its MTU was lowered"
            );
            self.warning = Some(first);
        }
    }

    /// Takes the latest warning for people; each is reported once.
    pub fn take_warning(&mut self) -> Option<String> {
        self.warning.take()
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
            self.pending.clear();
            self.host_links = HostLinks::default();
        }
    }

    /// Passes each received datagram to `each`, opened.
    pub fn receive(&mut self, mut each: impl FnMut(Arrived<'_>)) {
        self.follow();
        let Self {
            links,
            host_links,
            batch,
            seal,
            unheard,
            ..
        } = self;

        let several = links.len() > 1;
        for (link, place) in links.iter().zip(0..) {
            let mut each = |ReceivedDatagram { from, bytes, stamp }: ReceivedDatagram<'_>| {
                let bytes = match seal.open(bytes) {
                    Ok(bytes) => bytes,
                    Err(kind) => {
                        return unheard.refused(
                            kind,
                            from,
                            stamp.unwrap_or_else(clock::since_epoch),
                        );
                    }
                };
                if several {
                    host_links.record(from, place);
                }
                each(Arrived { from, bytes, stamp });
            };
            read(link, batch, &mut each);
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

    fn interest(&self, link: usize) -> Interest {
        // ENOBUFS: the socket has room and the interface has none, so POLLOUT would fire at once.
        let blocked = self
            .pending
            .iter()
            .any(|pending| pending.link == link && pending.retry_after.is_none());

        if blocked {
            Interest::READ_WRITE
        } else {
            Interest::READ
        }
    }

    /// Timeout of a wait. While a send is blocked the machine's own deadline is ignored: it may be
    /// due all the time with no room to send.
    fn longest(&self, timeout: Option<Duration>) -> Option<Duration> {
        let pending = self
            .pending
            .iter()
            .map(|pending| pending.retry_after.unwrap_or(MAX_BLOCKED_WAIT))
            .min()
            .or(timeout);
        pending
            .into_iter()
            .chain(self.follow.as_ref().and_then(LinkFollower::timeout))
            .min()
    }
}

fn read(link: &Link, batch: &mut RecvBatch, each: &mut impl FnMut(ReceivedDatagram<'_>)) {
    for channel in [Channel::Own, Channel::Group] {
        for _ in 0..MAX_READ_CALLS {
            match link.recv(channel, batch, &mut *each) {
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::seal::OpenError;

    /// Test seal: sums the bytes and inverts them, enough to check that each datagram is sealed
    /// once and opened once.
    #[derive(Debug)]
    struct Sum(u8);

    impl Seal for Sum {
        fn room(&self) -> usize {
            16
        }

        fn seal(&mut self, datagram: &mut [u8]) {
            let end = datagram.len() - self.room();
            assert!(datagram[end..].iter().all(|&b| b == 0), "the room is free");
            datagram[..end].iter_mut().for_each(|b| *b ^= self.0);
            datagram[end] = datagram[..end]
                .iter()
                .fold(self.0, |sum, b| sum.wrapping_add(*b));
        }

        fn open<'a>(&mut self, datagram: &'a mut [u8]) -> std::result::Result<&'a [u8], OpenError> {
            let end = datagram
                .len()
                .checked_sub(self.room())
                .ok_or(OpenError::Foreign)?;
            let sum = datagram[..end]
                .iter()
                .fold(self.0, |sum, b| sum.wrapping_add(*b));
            datagram[..end].iter_mut().for_each(|b| *b ^= self.0);

            if datagram[end] == sum {
                Ok(&datagram[..end])
            } else {
                Err(OpenError::Wrong)
            }
        }
    }

    #[test]
    fn trains_are_sealed_and_opened_datagram_by_datagram() {
        let port = crate::net::testing::free_port();
        let open = || crate::net::testing::loopback("224.0.0.108", port, crate::net::Offload::Full);
        let (Some(a), Some(b)) = (open(), open()) else {
            return;
        };

        let mut sender = GroupEndpoint {
            seal: Box::new(Sum(0x5a)),
            ..GroupEndpoint::new(a).expect("a network")
        };

        let mut host = GroupEndpoint {
            seal: Box::new(Sum(0x5a)),
            ..GroupEndpoint::new(b).expect("a network")
        };

        assert_eq!(sender.datagram(), MAX_SENT_DATAGRAM - 16);
        let narrowed = sender.narrowed(1456, &HostName::new("web1").expect("legal"));
        assert!(
            narrowed.starts_with(&format!(
                "datagrams of 1472 bytes, not {MAX_SENT_DATAGRAM} as "
            )),
            "{narrowed}"
        );
        let mut told: Vec<Vec<u8>> = (0..5).map(|n| vec![n; 100]).collect();

        told.push(b"short".to_vec());
        let mut trains = 1;
        sender.flush(|out| {
            out.clear();
            told.iter().for_each(|d| {
                out.extend_from_slice(d);
                out.resize(out.len() + 16, 0);
            });
            trains -= 1;
            (trains == 0).then_some(Transmit {
                dest: Dest::Group,
                segment: 116,
            })
        });

        // A datagram with another key counts as not received.
        let mut stranger = GroupEndpoint {
            seal: Box::new(Sum(1)),
            ..GroupEndpoint::new(open().expect("as before")).expect("a network")
        };

        let mut once = Some(());
        stranger.flush(|out| {
            *out = b"forged, with room behind it".to_vec();
            out.resize(out.len() + 16, 0);
            out[20] = 9;
            once.take().map(|()| Transmit {
                dest: Dest::Group,
                segment: out.len(),
            })
        });

        let mut heard = Vec::new();
        while heard.len() < told.len() {
            host.wait(Some(Duration::from_secs(10))).expect("waits");
            let before = heard.len();
            host.receive(|arrived| heard.push(arrived.bytes.to_vec()));
            assert!(heard.len() > before, "nothing came");
        }

        assert_eq!(heard, told);
        assert_eq!(host.unheard.count(OpenError::Wrong), 1);
        assert_eq!(host.take_new_unheard().len(), 1);
    }

    #[test]
    fn a_host_is_where_it_was_heard_last_and_a_flood_of_hosts_stays_bounded() {
        let mut host_links = HostLinks::default();
        let host = |n: u16| SocketAddr::from(([10, 0, 0, 1], n));
        host_links.record(host(1), 0);
        host_links.record(host(1), 1);
        host_links.record(host(2), 0);
        assert_eq!(
            (
                host_links.links.get(&host(1)),
                host_links.links.get(&host(2))
            ),
            (Some(&1), Some(&0))
        );
        (0..u16::MAX).for_each(|n| host_links.record(host(n), 0));

        assert!(host_links.links.len() <= MAX_HOST_LINKS);
    }
}
