//! A machine's door to the network: its datagrams out in as few system calls as can be, others' in.

use std::net::SocketAddr;
use std::time::Duration;

use crate::Result;
use crate::net::{Channel, Datagram, Interest, Link, Poller, RecvBatch, SendOutcome, Waker};
use crate::proto::{Dest, Transmit};

/// The largest datagram that we make, whatever the interface takes: a jumbo frame's.
pub const MAX_DATAGRAM: usize = 8_972;
/// System calls of reading before the machine is asked again what it has to say.
const READS: usize = 16;

/// A link, a place to wait, and buffers.
#[derive(Debug)]
pub struct Endpoint {
    link: Link,
    poller: Poller,
    batch: RecvBatch,
    out: Vec<u8>,
    /// What the kernel had no room for: where it goes, from which byte of `out`, in segments of which size.
    blocked: Option<(SocketAddr, usize, usize)>,
    /// How long to wait before that is tried again, when room to send does not show in waiting for it.
    retry_after: Option<Duration>,
    sent: u64,
}

impl Endpoint {
    /// For an open link.
    pub fn new(link: Link) -> Result<Self> {
        let poller = Poller::new()?;
        Ok(Self { link, poller, batch: RecvBatch::new(), out: Vec::new(), blocked: None, retry_after: None, sent: 0 })
    }

    /// The link.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// Ends a wait from another thread.
    pub fn waker(&self) -> Waker {
        self.poller.waker()
    }

    /// Bytes of datagrams sent, without IP and UDP headers.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// The size of datagrams to make.
    pub fn datagram(&self) -> usize {
        self.link.max_segment().min(MAX_DATAGRAM)
    }

    /// Bytes that the network adds to each datagram: the headers of UDP, IP and Ethernet.
    pub fn overhead(&self) -> usize {
        let ip = if self.link.group().is_ipv6() { 40 } else { 20 };
        8 + ip + 18
    }

    /// Sends what `next` writes, until it has no more or the kernel has no room.
    pub fn flush(&mut self, mut next: impl FnMut(&mut Vec<u8>) -> Option<Transmit>) {
        loop {
            if self.blocked.is_none() {
                let Some(transmit) = next(&mut self.out) else { return };
                let to = match transmit.dest {
                    Dest::Group => self.link.group(),
                    Dest::Host(address) => address,
                };
                self.blocked = Some((to, 0, transmit.segment));
            }
            if !self.send_rest() {
                return;
            }
        }
    }

    /// Sends on where the kernel had no room; false when it still has none.
    fn send_rest(&mut self) -> bool {
        let Some((to, from, segment)) = self.blocked else { return true };
        match self.link.send(to, &self.out[from..], segment) {
            Ok(SendOutcome::Sent) => {
                self.sent += (self.out.len() - from) as u64;
                self.blocked = None;
                true
            }
            Ok(SendOutcome::Blocked { sent, retry_after }) => {
                self.sent += sent as u64;
                self.retry_after = retry_after;
                self.blocked = Some((to, from + sent, segment));
                false
            }
            // Lost like any datagram on the way; repair mends it where it can be mended.
            Ok(SendOutcome::TooLarge) => {
                tracing::warn!("datagrams of {segment} bytes are too large for {}", self.link.interface().name);
                self.blocked = None;
                true
            }
            Err(e) => {
                tracing::debug!("{}", self.link.explain_send(to, e));
                self.blocked = None;
                true
            }
        }
    }

    /// Hands what has come to `each`.
    pub fn receive(&mut self, mut each: impl FnMut(Datagram<'_>)) {
        for channel in [Channel::Own, Channel::Group] {
            for _ in 0..READS {
                match self.link.recv(channel, &mut self.batch, &mut each) {
                    Ok(0) => break,
                    Ok(_) => {}
                    // An error of an earlier send (an ICMP "port unreachable") is reported by reading: not ours.
                    Err(e) => {
                        tracing::debug!("receive on {}: {e}", self.link.interface().name);
                        break;
                    }
                }
            }
        }
    }

    /// Waits for datagrams, a waker, room to send when that is lacking, or the time.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<()> {
        let (interest, timeout) = self.waiting(timeout);
        self.poller.wait(&self.link, interest, timeout).map(drop).map_err(|e| {
            crate::Error::new(crate::Kind::Io, format!("cannot wait for datagrams on {}", self.link.interface().name))
                .because(e)
        })
    }
}

impl Endpoint {
    /// What to wait for and how long. While a send is blocked the machine's own time says nothing: it may be due all
    /// along, with more to send that there is no room for.
    fn waiting(&self, timeout: Option<Duration>) -> (Interest, Option<Duration>) {
        match (self.blocked, self.retry_after) {
            (None, _) => (Interest::READ, timeout),
            (Some(_), None) => (Interest::READ_WRITE, Some(BLOCKED)),
            // ENOBUFS: the socket has room and the interface has none, so that POLLOUT would come at once.
            (Some(_), Some(after)) => (Interest::READ, Some(after)),
        }
    }
}

/// How long a send that was blocked waits at most before it is tried again.
const BLOCKED: Duration = Duration::from_millis(1);
