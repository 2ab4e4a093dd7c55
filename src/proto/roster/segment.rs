//! The multicast segment of this process: its pings to the group, the processes that it hears, and
//! the label that it shares with them.
//!
//! A process pings its group again and again, each time with a new nonce. A process that hears it
//! repeats the nonce in its own messages, which shows that it hears this process now. The hosts
//! that hear each other call their segment after the lowest of them. That host pings the group at a
//! fixed interval; the interval of the others grows with their number.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::listing::ReachedHost;
use crate::id::{InstanceId, Nonce, SegmentId};
use crate::units::Moment;
use crate::wire::peer::Ping;

/// Interval of the first pings to the group; doubles with each ping.
const FIRST_GROUP_INTERVAL: Duration = Duration::from_millis(100);
/// Doublings until the longest interval is exceeded.
const MAX_GROUP_DOUBLINGS: u32 = 13;
/// Shortest interval between pings to the group after them.
const MIN_GROUP_INTERVAL: Duration = Duration::from_secs(3);
/// Longest interval that a ping to the group may state.
const MAX_GROUP_INTERVAL: Duration = Duration::from_secs(410);
/// Pings to the group that all hosts of a segment send in a second.
const GROUP_PINGS_A_SECOND: u32 = 10;
/// Intervals without a ping after which a process is not heard any more.
const HEARD_INTERVALS: f64 = 3.5;
/// Largest number of processes that are heard.
const MAX_HEARD: usize = 4096;

/// Facts about this process and its segment.
#[derive(Debug, Clone, Copy)]
pub struct SegmentSetup {
    /// Whether this process sends and receives multicast.
    pub multicast: bool,
    /// Segment of the configuration.
    pub named: Option<SegmentId>,
}

/// Own pings to the group, and those of others.
#[derive(Debug)]
pub(super) struct Segment {
    setup: SegmentSetup,
    /// This process, if it is a host.
    own: Option<InstanceId>,
    label: Option<SegmentId>,
    /// Other hosts of the segment.
    hosts: usize,
    /// Time of the next ping to the group.
    due: Moment,
    /// Pings sent to the group.
    count: u32,
    /// Nonces of the last pings to the group, each with the time until which it may be repeated.
    sent: VecDeque<(Nonce, Moment)>,
    heard: BTreeMap<InstanceId, HeardProcess>,
}

/// Last ping to the group of another process.
#[derive(Debug)]
struct HeardProcess {
    nonce: Nonce,
    until: Moment,
}

impl Segment {
    /// Creates the segment of a process; `own` is its instance if it is a host.
    pub(super) fn new(now: Moment, setup: SegmentSetup, own: Option<InstanceId>) -> Self {
        Self {
            setup,
            own,
            label: setup.named.filter(|_| setup.multicast),
            hosts: 0,
            due: now,
            count: 0,
            sent: VecDeque::new(),
            heard: BTreeMap::new(),
        }
    }

    /// Returns whether this process has no multicast, or has pinged the group.
    pub(super) fn has_pinged(&self) -> bool {
        !self.setup.multicast || self.count > 0
    }

    /// The configured word, or the label; `None` without another host.
    pub(super) fn label(&self) -> Option<SegmentId> {
        self.label
    }

    /// Returns the due ping to the group. `random` is from 0 to 1.
    pub(super) fn ping(&mut self, now: Moment, nonce: Nonce, random: f64) -> Option<Ping> {
        if !self.setup.multicast || now < self.due {
            return None;
        }

        let interval = self.interval();
        let early = FIRST_GROUP_INTERVAL * (1 << self.count.min(MAX_GROUP_DOUBLINGS));
        self.due = now + interval.min(early).mul_f64(0.75 + random / 2.0);
        self.count = self.count.saturating_add(1);
        self.sent.retain(|(_, until)| now < *until);
        self.sent
            .push_back((nonce, now + interval.mul_f64(HEARD_INTERVALS)));

        Some(Ping {
            nonce,
            echo: None,
            host: self.own.is_some(),
            list: false,
            heard: None,
            segment: self.label,
            interval: u32::try_from(interval.as_millis()).ok(),
        })
    }

    /// Interval between pings to the group.
    fn interval(&self) -> Duration {
        let is_lowest = self.own.map(SegmentId::of) == self.label;
        let hosts = u32::try_from(self.hosts).unwrap_or(u32::MAX);
        match is_lowest {
            true => MIN_GROUP_INTERVAL,
            false => (Duration::from_secs(1) * hosts / GROUP_PINGS_A_SECOND)
                .clamp(MIN_GROUP_INTERVAL, MAX_GROUP_INTERVAL),
        }
    }

    /// Time of the next ping to the group.
    pub(super) fn timeout(&self) -> Option<Moment> {
        self.setup.multicast.then_some(self.due)
    }

    /// Records a ping to the group; returns whether its process was not heard before.
    pub(super) fn hear(&mut self, now: Moment, source: InstanceId, ping: &Ping) -> bool {
        let interval = ping.interval.map_or(MIN_GROUP_INTERVAL, |interval| {
            Duration::from_millis(interval.into()).clamp(MIN_GROUP_INTERVAL, MAX_GROUP_INTERVAL)
        });
        let is_new = self.heard(now, source).is_none();
        if is_new && self.heard.len() >= MAX_HEARD {
            self.heard.retain(|_, heard| now < heard.until);
        }
        if is_new && self.heard.len() >= MAX_HEARD {
            return false;
        }

        let heard = HeardProcess {
            nonce: ping.nonce,
            until: now + interval.mul_f64(HEARD_INTERVALS),
        };
        self.heard.insert(source, heard);
        is_new
    }

    /// Nonce of the last ping to the group that arrived from a process, if it is still heard.
    pub(super) fn heard(&self, now: Moment, source: InstanceId) -> Option<Nonce> {
        let heard = self.heard.get(&source)?;
        (now < heard.until).then_some(heard.nonce)
    }

    /// Forgets a process that ends.
    pub(super) fn forget(&mut self, source: InstanceId) {
        self.heard.remove(&source);
    }

    /// Returns whether `nonce` is of a late ping of this process to the group.
    pub(super) fn is_own(&self, now: Moment, nonce: Nonce) -> bool {
        self.sent
            .iter()
            .any(|(sent, until)| *sent == nonce && now < *until)
    }

    /// Returns whether a process that repeats the nonce `heard` is near. Where both segments have a
    /// configured word, they have to be the same.
    pub(super) fn is_near(
        &self,
        now: Moment,
        heard: Option<Nonce>,
        segment: Option<SegmentId>,
    ) -> bool {
        let other = segment.filter(|segment| segment.is_named());
        let may_be = self
            .setup
            .named
            .zip(other)
            .is_none_or(|(own, other)| own == other);
        may_be && heard.is_some_and(|nonce| self.is_own(now, nonce))
    }

    /// Sets the label, from the hosts that answer.
    pub(super) fn update(&mut self, now: Moment, reached: &[ReachedHost]) {
        if !self.setup.multicast {
            return;
        }

        let near: Vec<SegmentId> = reached
            .iter()
            .filter(|host| host.hears && self.heard(now, host.instance).is_some())
            .map(|host| SegmentId::of(host.instance))
            .collect();
        let own = self.own.map(SegmentId::of).filter(|_| !near.is_empty());
        let lowest = near.iter().copied().chain(own).min();
        self.label = self.setup.named.or(lowest);
        self.hosts = near.len();
    }
}
