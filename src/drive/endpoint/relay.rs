//! Datagrams that this host passes on to all others, as they came: sealed, unopened, once.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::host_links::HostLinks;
use crate::id::InstanceId;
use crate::net::{Link, LinkSet, MAX_SEGMENTS, MAX_SEND_BYTES, SendOutcome};
use crate::proto::roster::Hop;
use crate::wire::relay::RelayTargets;

/// Bound on waiting bytes. What does not fit is not passed on; repair replaces it.
const MAX_WAITING_BYTES: usize = 4 << 20;
/// Trains whose memory is kept for later ones.
const MAX_SPARE_TRAINS: usize = 64;

/// Datagrams to pass on, as trains of one size and source.
#[derive(Debug, Default)]
pub(super) struct RelayQueue {
    trains: VecDeque<Train>,
    spare: Vec<Vec<u8>>,
    /// Bytes of all trains.
    waiting: usize,
    /// Bytes passed on, counted for each host.
    sent: u64,
    /// Set if the kernel has no room.
    blocked: Option<BlockedRelay>,
}

/// Where and how long the queue waits for room.
#[derive(Debug, Clone, Copy)]
struct BlockedRelay {
    link: usize,
    /// Wait before the next attempt, if the poller cannot detect room.
    retry_after: Option<Duration>,
}

/// Consecutive datagrams of one source.
#[derive(Debug)]
struct Train {
    from: SocketAddr,
    hop: Hop,
    targets: Arc<RelayTargets>,
    bytes: Vec<u8>,
    /// Bytes of each datagram but the last.
    segment: usize,
    /// A shorter datagram ends the train.
    is_complete: bool,
    /// Destinations that have not received it yet, the next one at the end.
    copies: Vec<RelayCopy>,
    /// True once a part was sent.
    is_begun: bool,
    /// Bytes sent to the next host.
    offset: usize,
}

/// Destination of one copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RelayCopy {
    link: usize,
    to: SocketAddr,
}

impl RelayQueue {
    /// Adds a datagram that came from `from`, to be passed on to `targets`.
    pub(super) fn push(
        &mut self,
        from: SocketAddr,
        hop: Hop,
        targets: Arc<RelayTargets>,
        datagram: &[u8],
    ) {
        if self.waiting + datagram.len() > MAX_WAITING_BYTES {
            return;
        }

        self.waiting += datagram.len();
        if let Some(last) = self.trains.back_mut()
            && last.takes(from, &targets, datagram.len())
        {
            last.is_complete = datagram.len() < last.segment;
            last.bytes.extend_from_slice(datagram);
            return;
        }

        let mut bytes = self.spare.pop().unwrap_or_default();
        bytes.clear();
        bytes.extend_from_slice(datagram);
        self.trains.push_back(Train {
            from,
            hop,
            targets,
            bytes,
            segment: datagram.len(),
            is_complete: false,
            copies: Vec::new(),
            is_begun: false,
            offset: 0,
        });
    }

    /// Sends the trains to the targets whose address is known, until the kernel has no room. `own`
    /// is this process.
    pub(super) fn send(
        &mut self,
        links: &LinkSet,
        host_links: &HostLinks,
        own: InstanceId,
        address_of: impl Fn(InstanceId) -> Option<SocketAddr>,
    ) {
        self.blocked = None;
        while let Some(train) = self.trains.front_mut() {
            train.begin(links, host_links, own, &address_of);
            while let Some(&copy) = train.copies.last() {
                if let Some(link) = links.get(copy.link)
                    && let Err(retry_after) = train.send(link, copy.to, &mut self.sent)
                {
                    self.blocked = Some(BlockedRelay {
                        link: copy.link,
                        retry_after,
                    });
                    return;
                }
                train.copies.pop();
                train.offset = 0;
            }

            if let Some(train) = self.trains.pop_front() {
                self.waiting -= train.bytes.len();
                if self.spare.len() < MAX_SPARE_TRAINS {
                    self.spare.push(train.bytes);
                }
            }
        }
    }

    /// Returns whether the queue waits for room on a link, which the poller can detect.
    pub(super) fn waits_on(&self, link: usize) -> bool {
        self.blocked
            .is_some_and(|blocked| blocked.link == link && blocked.retry_after.is_none())
    }

    /// Wait before the next attempt, if the poller cannot detect room.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        self.blocked.and_then(|blocked| blocked.retry_after)
    }

    /// Bytes passed on, counted for each host.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }
}

impl Train {
    /// Returns whether a datagram of `len` bytes from `from` continues the train.
    fn takes(&self, from: SocketAddr, targets: &Arc<RelayTargets>, len: usize) -> bool {
        self.from == from
            && Arc::ptr_eq(&self.targets, targets)
            && !self.is_complete
            && !self.is_begun
            && len <= self.segment
            && self.bytes.len() + len <= MAX_SEND_BYTES
            && self.bytes.len() / self.segment < MAX_SEGMENTS
    }

    /// Fixes the destinations: the targets whose address is known.
    fn begin(
        &mut self,
        links: &LinkSet,
        host_links: &HostLinks,
        own: InstanceId,
        address_of: impl Fn(InstanceId) -> Option<SocketAddr>,
    ) {
        if std::mem::replace(&mut self.is_begun, true) {
            return;
        }

        let mut add = |host: &InstanceId| {
            let to = address_of(*host).filter(|_| *host != own);
            let Some(to) = to else { return };
            let link = host_links.of(to).or_else(|| links.of_family(to));
            self.copies.extend(link.map(|link| RelayCopy { link, to }));
        };

        if self.hop == Hop::First {
            self.targets.heads.iter().for_each(&mut add);
        }
        if !self.targets.multicast {
            self.targets.group.iter().for_each(add);
            return;
        }

        let reaching = links
            .iter()
            .zip(0..)
            .filter(|(link, _)| link.is_multicast());
        let copies = reaching.map(|(link, at)| RelayCopy {
            link: at,
            to: link.group(),
        });
        self.copies.extend(copies);
    }

    /// Sends the rest to `host`. If the kernel has no room for all of it, fails with the time to
    /// wait, or `None` if the poller detects room.
    fn send(
        &mut self,
        link: &Link,
        host: SocketAddr,
        sent_bytes: &mut u64,
    ) -> Result<(), Option<Duration>> {
        let rest = &self.bytes[self.offset..];
        match link.send(host, rest, self.segment) {
            Ok(SendOutcome::Sent) => *sent_bytes += rest.len() as u64,
            Ok(SendOutcome::Blocked { sent, retry_after }) => {
                *sent_bytes += sent as u64;
                self.offset += sent;
                return Err(retry_after);
            }
            // Lost like any datagram on the network.
            Ok(SendOutcome::TooLarge) => {}
            Err(e) => tracing::debug!("{}", link.explain_send(host, e)),
        }

        Ok(())
    }
}

#[cfg(test)]
mod tests;
