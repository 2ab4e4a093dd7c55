//! Datagrams that this host passes on to all others, as they came: sealed, unopened, once.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::host_links::HostLinks;
use crate::id::InstanceId;
use crate::metrics::TrafficFigures;
use crate::net::{Link, LinkSet, MAX_SEGMENTS, MAX_SEND_BYTES, SendOutcome};
use crate::proto::receiver::RelayLoad;
use crate::proto::roster::{Hop, ReachedHost, TargetAddresses, TargetLookup};
use crate::units::Moment;
use crate::wire::relay::RelayTargets;

/// Bound on waiting bytes, all copies counted. What does not fit is not passed on; repair replaces
/// it.
const MAX_WAITING_BYTES: usize = 16 << 20;
/// Time after which a train is passed on no more: by then the hosts have asked for it.
const MAX_WAIT: Duration = Duration::from_millis(100);
/// Trains whose memory is kept for later ones.
const MAX_SPARE_TRAINS: usize = 64;

/// Datagrams to pass on, as trains of one size and source.
#[derive(Debug, Default)]
pub(super) struct RelayQueue {
    trains: VecDeque<Train>,
    spare: Vec<Vec<u8>>,
    /// Bytes of all trains, each copy counted.
    waiting: usize,
    /// Copies of the last train.
    copies: usize,
    /// Addresses of the last targets.
    addresses: TargetLookup,
    load: RelayLoad,
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
    /// Time of arrival of the first datagram.
    since: Moment,
    /// Copies counted for it before it is begun.
    counted: usize,
}

/// Ways to the targets.
#[derive(Debug, Clone, Copy)]
pub(super) struct RelayWay<'a> {
    pub(super) links: &'a LinkSet,
    pub(super) host_links: &'a HostLinks,
    /// This process.
    pub(super) own: InstanceId,
    pub(super) traffic: &'a TrafficFigures,
    /// Version of the roster, and its hosts.
    pub(super) roster: (u64, &'a [ReachedHost]),
}

/// Destination of one copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RelayCopy {
    link: usize,
    to: SocketAddr,
}

impl RelayQueue {
    /// Adds a datagram that came from `from` at the time `since`, to be passed on to `targets`.
    pub(super) fn push(
        &mut self,
        since: Moment,
        (from, hop): (SocketAddr, Hop),
        targets: Arc<RelayTargets>,
        datagram: &[u8],
    ) {
        let last = self.trains.back_mut();
        let mut last = last.filter(|last| last.takes(from, &targets, datagram.len()));
        let counted = last
            .as_ref()
            .map_or(self.copies.max(1), |last| last.counted);
        if self.waiting + datagram.len() * counted > MAX_WAITING_BYTES {
            return self.load.on_dropped(1);
        }

        self.waiting += datagram.len() * counted;
        if let Some(last) = &mut last {
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
            since,
            counted,
        });
    }

    /// Drops the trains that have waited too long.
    fn drop_stale(&mut self, now: Moment) {
        let is_stale = |train: &Train| !train.is_begun && now.since(train.since) > MAX_WAIT;
        while self.trains.front().is_some_and(is_stale)
            && let Some(train) = self.trains.pop_front()
        {
            self.load.on_wait(MAX_WAIT);
            self.load
                .on_dropped(train.bytes.len().div_ceil(train.segment.max(1)));
            self.waiting -= train.bytes.len() * train.counted;
            self.keep(train.bytes);
        }
    }

    /// Keeps memory for a later train.
    fn keep(&mut self, bytes: Vec<u8>) {
        if self.spare.len() < MAX_SPARE_TRAINS {
            self.spare.push(bytes);
        }
    }

    /// Sends the trains, until the kernel has no room. Trains that have waited too long are
    /// dropped.
    pub(super) fn send(&mut self, now: Moment, way: &RelayWay<'_>) {
        self.blocked = None;
        self.drop_stale(now);
        while let Some(train) = self.trains.front_mut() {
            if !train.is_begun {
                let found = self.addresses.find(&train.targets, way.roster, way.own);
                train.begin(way, found);
                self.load.on_wait(now.since(train.since));
                self.copies = train.copies.len();
                self.waiting -= train.bytes.len() * train.counted;
                self.waiting += train.bytes.len() * self.copies;
            }

            while let Some(&copy) = train.copies.last() {
                let before = self.sent;
                let sent = match way.links.get(copy.link) {
                    Some(link) => train.send(link, copy.to, &mut self.sent),
                    None => Ok(()),
                };
                way.traffic.on_sent(copy.to, self.sent - before);
                if let Err(retry_after) = sent {
                    self.blocked = Some(BlockedRelay {
                        link: copy.link,
                        retry_after,
                    });
                    return;
                }
                train.copies.pop();
                train.offset = 0;
                self.waiting -= train.bytes.len();
            }

            if let Some(train) = self.trains.pop_front() {
                self.keep(train.bytes);
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

    /// Takes the load of this host as a relay.
    pub(super) fn take_load(&mut self) -> RelayLoad {
        self.load.take()
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

    /// Fixes the destinations among `targets`.
    fn begin(&mut self, way: &RelayWay<'_>, targets: &TargetAddresses) {
        self.is_begun = true;
        let mut add = |&to: &SocketAddr| {
            let link = way.host_links.of(to).or_else(|| way.links.of_family(to));
            self.copies.extend(link.map(|link| RelayCopy { link, to }));
        };

        if self.hop == Hop::First {
            targets.heads.iter().for_each(&mut add);
        }
        if !self.targets.multicast {
            targets.group.iter().for_each(add);
            return;
        }

        let links = way.links.iter().zip(0..);
        let reaching = links.filter(|(link, _)| link.is_multicast());
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
