//! A machine's door to the network: its datagrams out in as few system calls as can be, others' in.
//!
//! With several links what is for the group goes out on each of them, and what is for one host on the link where that
//! host was heard last.

use std::cell::Cell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::clock;
use super::reopen::{Follow, Reopen};
use super::strangers::{Stranger, Strangers};
use crate::Result;
use crate::id::{HostName, InstanceId};
use crate::keys::{GroupKey, random_bytes};
use crate::net::{
    Channel, Interest, Link, LinkSet, Poller, ReceivedDatagram, RecvBatch, SendOutcome, Waker,
};
use crate::proto::{Dest, Transmit};
use crate::wire::seal::{Plain, Seal, Sealed};

/// The largest datagram that we make, whatever the interface takes: a jumbo frame's.
pub const MAX_DATAGRAM: usize = 8_972;
/// System calls of reading before the machine is asked again what it has to say.
const READS: usize = 16;
/// How long a send that was blocked waits at most before it is tried again.
const BLOCKED: Duration = Duration::from_millis(1);
/// The hosts whose link is remembered; beyond it everything is learnt anew.
const MAX_WAYS: usize = 20_000;

/// How a process reaches the others: its links, and the keys that its group shares.
#[derive(Debug)]
pub struct Door {
    /// The links.
    pub links: LinkSet,
    /// The group keys: what is sent is sealed with the first, what comes opens with any. Without one nothing is sealed.
    pub keys: Vec<GroupKey>,
    /// Opens links again whose interface has changed; without it they stay as they are.
    pub reopen: Option<Reopen>,
}

impl From<LinkSet> for Door {
    /// Without a group key.
    fn from(links: LinkSet) -> Self {
        Self {
            links,
            keys: Vec::new(),
            reopen: None,
        }
    }
}

impl From<Link> for Door {
    /// Without a group key.
    fn from(link: Link) -> Self {
        LinkSet::from(link).into()
    }
}

/// Links, a place to wait, and buffers.
#[derive(Debug)]
pub struct Endpoint {
    links: LinkSet,
    instance: InstanceId,
    seal: Box<dyn Seal>,
    strangers: Strangers,
    ways: Ways,
    follow: Option<Follow>,
    /// Whether the last wait ended with a change of interfaces.
    changed: Cell<bool>,
    poller: Poller,
    batch: RecvBatch,
    out: Vec<u8>,
    /// The size of the datagrams in `out`.
    segment: usize,
    /// What of `out` has still to go, and on which links: what the kernel had no room for.
    rest: Vec<Rest>,
    sent: u64,
    /// What went wrong in a way that people should know, until it is told.
    trouble: Option<String>,
    /// Whether anything of that kind was told.
    troubled: bool,
}

/// A datagram that came, opened.
#[derive(Debug, Clone, Copy)]
pub struct Arrived<'a> {
    /// The sender's own socket; answers go there.
    pub from: SocketAddr,
    /// What it says.
    pub bytes: &'a [u8],
    /// When the kernel got it, since 1970.
    pub stamp: Option<Duration>,
}

/// What one link has still to send.
#[derive(Debug, Clone, Copy)]
struct Rest {
    link: usize,
    to: SocketAddr,
    /// From which byte of the buffer.
    from: usize,
    /// How long to wait before it is tried again, when room to send does not show in waiting for it.
    retry_after: Option<Duration>,
}

/// On which link a host is.
#[derive(Debug, Default)]
struct Ways {
    links: HashMap<SocketAddr, usize>,
    last: Option<(SocketAddr, usize)>,
}

impl Ways {
    fn heard(&mut self, from: SocketAddr, link: usize) {
        if self.last == Some((from, link)) {
            return;
        }

        self.last = Some((from, link));
        if self.links.len() >= MAX_WAYS && !self.links.contains_key(&from) {
            self.links.clear();
        }

        self.links.insert(from, link);
    }
}

impl Endpoint {
    /// For an open door. Who the process is and when it began to seal are drawn here, from the system's randomness: keys
    /// depend on them.
    pub fn new(door: impl Into<Door>) -> Result<Self> {
        Self::of(door, InstanceId(u64::from_be_bytes(random_bytes()?)))
    }

    /// The same for the process `instance`, which was drawn as well.
    pub fn of(door: impl Into<Door>, instance: InstanceId) -> Result<Self> {
        let Door {
            links,
            keys,
            reopen,
        } = door.into();

        let seal: Box<dyn Seal> = match Sealed::new(&keys, random_bytes()?) {
            Some(sealed) => Box::new(sealed),
            None => Box::new(Plain),
        };

        Ok(Self {
            instance,
            follow: reopen.map(|reopen| Follow::begin(reopen, &links)),
            changed: Cell::new(false),
            links,
            seal,
            strangers: Strangers::default(),
            ways: Ways::default(),
            poller: Poller::new()?,
            batch: RecvBatch::new(),
            out: Vec::new(),
            segment: 0,
            rest: Vec::new(),
            sent: 0,
            trouble: None,
            troubled: false,
        })
    }

    /// The links.
    pub fn links(&self) -> &LinkSet {
        &self.links
    }

    /// This process, for the front of all that it sends.
    pub fn instance(&self) -> InstanceId {
        self.instance
    }

    /// Who sends what this process does not open.
    pub fn strangers(&self) -> &Strangers {
        &self.strangers
    }

    /// Those who are new among them, once.
    pub fn take_strangers(&mut self) -> Vec<Stranger> {
        self.strangers.take_fresh()
    }

    /// Seals with the first of `keys` from now on, and opens with all; false when a plain process was asked to seal, or
    /// a sealed one to be plain: that takes a restart.
    pub fn rekey(&mut self, keys: &[GroupKey]) -> Result<bool> {
        Ok(self.seal.rekey(keys, random_bytes()?))
    }

    /// Ends a wait from another thread.
    pub fn waker(&self) -> Waker {
        self.poller.waker()
    }

    /// Bytes of datagrams sent on all links together, without IP and UDP headers.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// The size of datagrams to make: what every link takes, less the room to seal them.
    pub fn datagram(&self) -> usize {
        self.links
            .narrowest()
            .max_segment()
            .min(MAX_DATAGRAM)
            .saturating_sub(self.room())
    }

    /// A line about datagrams of `datagram` bytes before they are sealed, smaller than the links take for the sake of
    /// `host`: with their size on the network.
    pub fn narrowed(&self, datagram: usize, host: &HostName) -> String {
        let (size, most) = (datagram + self.room(), self.datagram() + self.room());
        let interface = &self.links.narrowest().interface().name;
        format!(
            "datagrams of {size} bytes, not {most} as {interface} takes: larger ones do not reach {host}"
        )
    }

    /// Whether there is a group key.
    pub fn is_sealed(&self) -> bool {
        self.room() > 0
    }

    /// Bytes to leave free behind every datagram.
    pub fn room(&self) -> usize {
        self.seal.room()
    }

    /// Bytes that the network adds to each datagram: the headers of UDP, IP and Ethernet.
    pub fn overhead(&self) -> usize {
        let ip = if self.links.group().is_ipv6() { 40 } else { 20 };
        8 + ip + 18 + self.room()
    }

    /// Sends what `next` writes, until it has no more or the kernel has no room.
    pub fn flush(&mut self, mut next: impl FnMut(&mut Vec<u8>) -> Option<Transmit>) {
        loop {
            if self.rest.is_empty() {
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

    /// Says which links send what is in the buffer.
    fn address(&mut self, dest: Dest) {
        let rest = |link, to| Rest {
            link,
            to,
            from: 0,
            retry_after: None,
        };

        match dest {
            Dest::Group => self.rest.extend(
                self.links
                    .iter()
                    .zip(0..)
                    .map(|(link, i)| rest(i, link.group())),
            ),
            Dest::Host(to) if self.links.len() == 1 => self.rest.push(rest(0, to)),
            Dest::Host(to) => match self.ways.links.get(&to) {
                Some(&link) => self.rest.push(rest(link, to)),
                None => self
                    .rest
                    .extend((0..self.links.len()).map(|link| rest(link, to))),
            },
        }
    }

    /// Sends on where the kernel had no room; false when it still has none somewhere.
    fn send_rest(&mut self) -> bool {
        let mut rest = std::mem::take(&mut self.rest);
        rest.retain_mut(|rest| !self.send_on(rest));
        self.rest = rest;
        self.rest.is_empty()
    }

    /// Sends on one link; whether it is done with it.
    fn send_on(&mut self, rest: &mut Rest) -> bool {
        let Some(link) = self.links.get(rest.link) else {
            return true;
        };

        match link.send(rest.to, &self.out[rest.from..], self.segment) {
            Ok(SendOutcome::Sent) => self.sent += (self.out.len() - rest.from) as u64,
            Ok(SendOutcome::Blocked { sent, retry_after }) => {
                self.sent += sent as u64;
                rest.from += sent;
                rest.retry_after = retry_after;
                return false;
            }
            // Lost like any datagram on the way; repair mends it where it can be mended.
            Ok(SendOutcome::TooLarge) => self.too_large(rest.link),
            Err(e) => tracing::debug!("{}", link.explain_send(rest.to, e)),
        }

        true
    }

    fn too_large(&mut self, link: usize) {
        let (name, segment) = (
            self.links.get(link).map_or("", |l| &l.interface().name),
            self.segment,
        );
        tracing::debug!("datagrams of {segment} bytes are too large for {name}");

        if !std::mem::replace(&mut self.troubled, true) {
            let first = format!(
                "{name} does not take datagrams of {segment} bytes any more: its MTU was lowered"
            );
            self.trouble = Some(first);
        }
    }

    /// What went wrong since the last call in a way that people should know; each thing is told once.
    pub fn take_trouble(&mut self) -> Option<String> {
        self.trouble.take()
    }

    /// Opens links again whose interface has changed.
    fn follow(&mut self) {
        let Some(follow) = &mut self.follow else {
            return;
        };

        if self.changed.take() {
            follow.changed();
        }

        if follow.look(&mut self.links) {
            // What is blocked is lost like any datagram on the way, and hosts may be on other links now.
            self.rest.clear();
            self.ways = Ways::default();
        }
    }

    /// Hands what has come to `each`, opened.
    pub fn receive(&mut self, mut each: impl FnMut(Arrived<'_>)) {
        self.follow();
        let Self {
            links,
            ways,
            batch,
            seal,
            strangers,
            ..
        } = self;

        let several = links.len() > 1;
        for (link, place) in links.iter().zip(0..) {
            let mut each = |ReceivedDatagram { from, bytes, stamp }: ReceivedDatagram<'_>| {
                let bytes = match seal.open(bytes) {
                    Ok(bytes) => bytes,
                    Err(kind) => {
                        return strangers.refused(
                            kind,
                            from,
                            stamp.unwrap_or_else(clock::since_epoch),
                        );
                    }
                };
                if several {
                    ways.heard(from, place);
                }
                each(Arrived { from, bytes, stamp });
            };
            read(link, batch, &mut each);
        }
    }

    /// Waits for datagrams, a waker, room to send when that is lacking, or the time.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<()> {
        let links = self
            .links
            .iter()
            .zip(0..)
            .map(|(link, place)| (link, self.interest(place)));

        let changes = self.follow.as_ref().map(Follow::changes);
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
        // ENOBUFS: the socket has room and the interface has none, so that POLLOUT would come at once.
        let blocked = self
            .rest
            .iter()
            .any(|rest| rest.link == link && rest.retry_after.is_none());

        if blocked {
            Interest::READ_WRITE
        } else {
            Interest::READ
        }
    }

    /// How long to wait. While a send is blocked the machine's own time says nothing: it may be due all along, with
    /// more to send that there is no room for.
    fn longest(&self, timeout: Option<Duration>) -> Option<Duration> {
        let rest = self
            .rest
            .iter()
            .map(|rest| rest.retry_after.unwrap_or(BLOCKED))
            .min()
            .or(timeout);
        rest.into_iter()
            .chain(self.follow.as_ref().and_then(Follow::timeout))
            .min()
    }
}

fn read(link: &Link, batch: &mut RecvBatch, each: &mut impl FnMut(ReceivedDatagram<'_>)) {
    for channel in [Channel::Own, Channel::Group] {
        for _ in 0..READS {
            match link.recv(channel, batch, &mut *each) {
                Ok(0) => break,
                Ok(_) => {}
                // An error of an earlier send (an ICMP "port unreachable") is reported by reading: not ours.
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

    /// Adds up the bytes and turns them over: enough to see that everything is sealed once and opened once.
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

        let mut sender = Endpoint {
            seal: Box::new(Sum(0x5a)),
            ..Endpoint::new(a).expect("a door")
        };

        let mut host = Endpoint {
            seal: Box::new(Sum(0x5a)),
            ..Endpoint::new(b).expect("a door")
        };

        assert_eq!(sender.datagram(), MAX_DATAGRAM - 16);
        let narrowed = sender.narrowed(1456, &HostName::new("web1").expect("legal"));
        assert!(
            narrowed.starts_with(&format!("datagrams of 1472 bytes, not {MAX_DATAGRAM} as ")),
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

        // Another key's: as if it had not come.
        let mut stranger = Endpoint {
            seal: Box::new(Sum(1)),
            ..Endpoint::new(open().expect("as before")).expect("a door")
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
        assert_eq!(host.strangers.count(OpenError::Wrong), 1);
        assert_eq!(host.take_strangers().len(), 1);
    }

    #[test]
    fn a_host_is_where_it_was_heard_last_and_a_flood_of_hosts_stays_bounded() {
        let (mut ways, host) = (Ways::default(), |n: u16| {
            SocketAddr::from(([10, 0, 0, 1], n))
        });
        ways.heard(host(1), 0);
        ways.heard(host(1), 1);
        ways.heard(host(2), 0);
        assert_eq!(
            (ways.links.get(&host(1)), ways.links.get(&host(2))),
            (Some(&1), Some(&0))
        );
        (0..u16::MAX).for_each(|n| ways.heard(host(n), 0));

        assert!(ways.links.len() <= MAX_WAYS);
    }
}
