//! Datagrams on their way out, kept until sent on every link.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::host_links::HostLinks;
use crate::metrics::TrafficFigures;
use crate::net::{Interest, Link, LinkSet, SendOutcome};
use crate::proto::{Dest, Transmit};
use crate::units::Moment;
use crate::wire::datagram::set_direct;
use crate::wire::seal::Seal;

/// Longest wait before a blocked send is retried.
const MAX_BLOCKED_WAIT: Duration = Duration::from_millis(1);
/// Destinations that get their copy at once: with full datagrams the queue of a small switch.
const MAX_DESTINATIONS: usize = 32;
/// Interval after which as many others get theirs.
const DESTINATIONS_INTERVAL: Duration = Duration::from_millis(1);

/// A buffer of datagrams of one size, and the links to send on.
#[derive(Debug)]
pub(super) struct SendBuffer {
    out: Vec<u8>,
    /// Size of the datagrams in `out`.
    segment: usize,
    /// Parts of `out` that the kernel had no room for, by link.
    pending: Vec<PendingSend>,
    /// Time before which nothing more is sent, after a part of many destinations.
    resume: Moment,
    /// Datagrams for the hosts that multicast reaches, as they were before a relay's were sealed.
    /// Hosts older than relays know no data of another kind.
    direct: Vec<u8>,
    /// Bytes sent so far, on all links.
    sent: u64,
    /// Latest warning for people, until taken.
    warning: Option<String>,
    /// True once a warning was recorded.
    has_warned: bool,
    traffic: Arc<TrafficFigures>,
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

impl SendBuffer {
    /// An empty buffer that counts in `traffic`.
    pub(super) fn new(traffic: Arc<TrafficFigures>) -> Self {
        Self {
            out: Vec::new(),
            segment: 0,
            pending: Vec::new(),
            resume: Moment::default(),
            direct: Vec::new(),
            sent: 0,
            warning: None,
            has_warned: false,
            traffic,
        }
    }

    /// Bytes of datagrams sent on all links, without IP and UDP headers.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// Returns whether every link has taken the datagrams.
    pub(super) fn is_sent(&self) -> bool {
        self.pending.is_empty()
    }

    /// Memory for the next datagrams.
    pub(super) fn datagrams(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Keeps a copy of the datagrams, of `segment` bytes each, to be sent by multicast.
    pub(super) fn keep_direct(&mut self, segment: usize) {
        self.direct.clone_from(&self.out);
        self.direct.chunks_mut(segment.max(1)).for_each(set_direct);
    }

    /// Makes that copy the next datagrams.
    pub(super) fn take_direct(&mut self) -> Option<Transmit> {
        if self.direct.is_empty() {
            return None;
        }

        std::mem::swap(&mut self.out, &mut self.direct);
        self.direct.clear();
        Some(Transmit {
            dest: Dest::Multicast,
            segment: self.segment,
        })
    }

    /// Seals each datagram of `segment` bytes.
    pub(super) fn seal(&mut self, segment: usize, seal: &mut dyn Seal) {
        self.segment = segment;
        self.out
            .chunks_mut(segment.max(1))
            .for_each(|datagram| seal.seal(datagram));
    }

    /// Chooses the links for the content of the buffer. The group is `unicast` and those that
    /// `multicast` reaches.
    pub(super) fn address(
        &mut self,
        dest: Dest,
        links: &LinkSet,
        hosts: &HostLinks,
        (unicast, multicast): (&[SocketAddr], bool),
    ) {
        let pending = |link, to| PendingSend {
            link,
            to,
            from: 0,
            retry_after: None,
        };

        if matches!(dest, Dest::Group | Dest::Multicast) && multicast {
            let reaching = links
                .iter()
                .zip(0..)
                .filter(|(link, _)| link.is_multicast());
            let reaching = reaching.map(|(link, at)| pending(at, link.group()));
            self.pending.extend(reaching);
        }

        let mut send_to = |to: SocketAddr| match hosts.of(to) {
            _ if links.len() == 1 => self.pending.push(pending(0, to)),
            Some(link) => self.pending.push(pending(link, to)),
            None => {
                let fits = |(link, _): &(&Link, usize)| link.local().is_ipv4() == to.is_ipv4();
                let fitting = links.iter().zip(0..).filter(fits);
                self.pending.extend(fitting.map(|(_, at)| pending(at, to)));
            }
        };

        match dest {
            Dest::Host(to) | Dest::Relay(to) => send_to(to),
            Dest::Group => unicast.iter().for_each(|&to| send_to(to)),
            Dest::Multicast => {}
        }
    }

    /// Sends to all destinations; returns false if one is still blocked, or has to wait its turn.
    pub(super) fn send(&mut self, links: &LinkSet, now: Moment) -> bool {
        if now < self.resume {
            return self.pending.is_empty();
        }

        let mut pending = std::mem::take(&mut self.pending);
        // Multicast has one destination on each link.
        let most = MAX_DESTINATIONS.max(links.len());
        let mut turn = 0..most;
        pending.retain_mut(|pending| turn.next().is_none() || !self.send_on(links, pending));
        if turn.is_empty() && !pending.is_empty() && pending.len() > links.len() {
            self.resume = now + DESTINATIONS_INTERVAL;
            for pending in &mut pending {
                pending.retry_after = Some(DESTINATIONS_INTERVAL);
            }
        }

        self.pending = pending;
        self.pending.is_empty()
    }

    /// Sends on one link; returns whether the link is done.
    fn send_on(&mut self, links: &LinkSet, pending: &mut PendingSend) -> bool {
        let Some(link) = links.get(pending.link) else {
            return true;
        };

        match link.send(pending.to, &self.out[pending.from..], self.segment) {
            Ok(SendOutcome::Sent) => self.on_sent(pending.to, self.out.len() - pending.from),
            Ok(SendOutcome::Blocked { sent, retry_after }) => {
                self.on_sent(pending.to, sent);
                pending.from += sent;
                pending.retry_after = retry_after;
                return false;
            }
            // Lost like any datagram on the network; repair replaces it if possible.
            Ok(SendOutcome::TooLarge) => self.too_large(&link.interface().name),
            Err(e) => tracing::debug!("{}", link.explain_send(pending.to, e)),
        }

        true
    }

    fn on_sent(&mut self, to: SocketAddr, bytes: usize) {
        self.sent += bytes as u64;
        self.traffic.on_sent(to, bytes as u64);
    }

    fn too_large(&mut self, name: &str) {
        let segment = self.segment;
        tracing::debug!("datagrams of {segment} bytes are too large for {name}");

        if !std::mem::replace(&mut self.has_warned, true) {
            let first = format!(
                "{name} does not take datagrams of {segment} bytes any more: its MTU was lowered"
            );
            self.warning = Some(first);
        }
    }

    /// Drops unsent datagrams, which count as lost.
    pub(super) fn clear(&mut self) {
        self.pending.clear();
        self.direct.clear();
    }

    /// Takes the latest warning for people; each is reported once.
    pub(super) fn take_warning(&mut self) -> Option<String> {
        self.warning.take()
    }

    /// Readiness to wait for on a link.
    pub(super) fn interest(&self, link: usize) -> Interest {
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

    /// Wait before the next attempt if a send is blocked.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        self.pending
            .iter()
            .map(|pending| pending.retry_after.unwrap_or(MAX_BLOCKED_WAIT))
            .min()
    }
}
