//! Arriving data of a session: accepted sources, duplicates, and the reports about the data.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::id::{InstanceId, SessionId};
use crate::proto::duplicates::DuplicateFilter;
use crate::proto::receiver::measurements::Measurements;
use crate::units::Moment;
use crate::wire::Symbol;
use crate::wire::message::{ReceiverReport, SenderStatus};
use crate::wire::window::Seen;

/// Largest number of remembered data source addresses.
const MAX_SOURCE_ADDRESSES: usize = 4;

/// Filter and measurements of a session's data.
#[derive(Debug)]
pub(super) struct Intake {
    sources: DataSources,
    counters: DuplicateFilter,
    measurements: Measurements,
    /// Bytes in flight that this host accepts.
    window: u32,
}

impl Intake {
    /// Starts a session with `hosts` hosts, for at most `window` bytes in flight. In distress this
    /// host waits the random `part` of the interval of reports.
    pub(super) fn new(now: Moment, hosts: u32, window: u32, part: f64) -> Self {
        Self {
            sources: DataSources::default(),
            counters: DuplicateFilter::default(),
            measurements: Measurements::new(now, hosts, part),
            window,
        }
    }

    /// Returns true if data from `from` is accepted.
    pub(super) fn accepts(&mut self, from: IpAddr, sender: SocketAddr) -> bool {
        self.sources.accept(from, sender)
    }

    /// Restricts the sources after invalid data. Returns all addresses so far.
    pub(super) fn restrict(&mut self, sender: SocketAddr) -> Vec<IpAddr> {
        self.sources.restrict(sender)
    }

    /// Measures a datagram of data, unless it is a duplicate. Ones that are too old to be known
    /// count as new: they are rare, and their payload may be needed.
    pub(super) fn measure(&mut self, counter: u64, symbol: &Symbol<'_>, arrival: u64) -> Seen {
        let seen = self.counters.take(counter);
        if seen != Seen::Again {
            self.measurements.on_data(counter, symbol, arrival);
        }

        seen
    }

    /// Updates counter and duty from a status, for the host with the process `me`.
    pub(super) fn on_status(&mut self, status: &SenderStatus, me: InstanceId) {
        self.measurements.on_counter(status.counter);
        self.measurements.on_reporters(me, status);
    }

    /// Records that hosts pass data on in this session.
    pub(super) fn on_relayed(&mut self) {
        self.measurements.on_relayed();
    }

    /// Takes the load of this host as a relay.
    pub(super) fn on_relay_load(&mut self, dropped: u64, wait: Option<Duration>) {
        self.measurements.on_relay_load(dropped, wait);
    }

    /// Returns the highest counter of the sender's datagrams.
    pub(super) fn seen(&self) -> u64 {
        self.measurements.seen()
    }

    /// Returns the report that is due, in a fleet of `hosts` and with `backlog` bytes pending on
    /// the disk.
    pub(super) fn report(
        &mut self,
        now: Moment,
        session: SessionId,
        hosts: u32,
        backlog: u64,
    ) -> Option<ReceiverReport> {
        self.measurements.watch_distress(now);
        let due = self.measurements.is_due(now, hosts, backlog);
        due.then(|| self.measurements.report(now, session, backlog, self.window))
    }

    /// Returns the time of the next report, if one is to be expected.
    pub(super) fn timeout(&self, now: Moment, hosts: u32, backlog: u64) -> Option<Moment> {
        self.measurements.timeout(now, hosts, backlog)
    }
}

/// Sources of a session's data.
#[derive(Debug, Default)]
struct DataSources {
    /// Claimed addresses, at most [`MAX_SOURCE_ADDRESSES`].
    addresses: Vec<IpAddr>,
    /// Set after invalid data: only data from the announced sender's address is accepted.
    sender_address_only: bool,
}

impl DataSources {
    /// Returns true if data from `from` is accepted: from any address, until some of it was
    /// invalid.
    fn accept(&mut self, from: IpAddr, sender: SocketAddr) -> bool {
        if !self.addresses.contains(&from) && self.addresses.len() < MAX_SOURCE_ADDRESSES {
            self.addresses.push(from);
        }

        !self.sender_address_only || from == sender.ip()
    }

    /// Restricts the sources after invalid data, which by its address may come from a third party.
    /// Returns all addresses so far.
    fn restrict(&mut self, sender: SocketAddr) -> Vec<IpAddr> {
        self.sender_address_only |= self.addresses.contains(&sender.ip());
        self.addresses.clone()
    }
}
