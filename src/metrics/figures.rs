//! The counters of a host, of each of its trees and of a store.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::cells::{Counter, DurationHistogram, Gauge};
use super::words::{DataWay, PerWord, RefusalCauseWord, SessionEnd, SessionRole, StoreReplyWord};
use crate::hook::Phase;
use crate::repository::object::GetReply;

/// Counters of a host, beside those of its trees and stores.
#[derive(Debug, Default)]
pub struct HostFigures {
    /// Sessions that ended, by the host's role.
    pub sessions: PerWord<SessionRole, SessionFigures>,
    /// Bytes between this host and others.
    pub traffic: Arc<TrafficFigures>,
    /// Offers refused, by the rule.
    pub refused: PerWord<RefusalCauseWord, Counter>,
    /// Symbols that this host missed and asked for.
    pub symbols_lost: Counter,
    /// Symbols that mended losses.
    pub repair_symbols: Counter,
    /// Packets that the receive buffers had no room for.
    pub receive_drops: Gauge,
    /// Size of the smallest receive buffer.
    pub receive_buffer: Gauge,
    /// Other hosts that were heard lately.
    pub members: Gauge,
    /// Durations of commands around commits.
    pub hook_durations: PerWord<Phase, DurationHistogram>,
}

/// Sessions of one role that ended.
#[derive(Debug, Default)]
pub struct SessionFigures {
    /// Their number, by their end.
    pub ends: PerWord<SessionEnd, Counter>,
    /// Their durations.
    pub durations: DurationHistogram,
}

impl HostFigures {
    /// Counts a session.
    pub fn on_session(&self, role: SessionRole, end: SessionEnd, lasted: Duration) {
        let sessions = self.sessions.of(role);
        sessions.ends.of(end).add(1);
        sessions.durations.observe(lasted);
    }
}

/// Bytes of datagrams, without IP and UDP headers, and of objects of stores.
#[derive(Debug, Default)]
pub struct TrafficFigures {
    /// Received bytes.
    pub received: PerWord<DataWay, Counter>,
    /// Sent bytes.
    pub sent: PerWord<DataWay, Counter>,
    /// Datagrams that are not sealed with a key of this group.
    pub unsealed: Counter,
}

impl TrafficFigures {
    /// Counts datagrams that were sent to one destination.
    pub fn on_sent(&self, to: SocketAddr, bytes: u64) {
        let way = match to.ip().is_multicast() {
            true => DataWay::Multicast,
            false => DataWay::Unicast,
        };
        self.sent.of(way).add(bytes);
    }
}

/// Counters of a tree since the start of the daemon.
#[derive(Debug, Default)]
pub struct TreeFigures {
    /// Files, links and devices that commits wrote.
    pub files_written: Counter,
    /// Paths that commits deleted.
    pub files_deleted: Counter,
    /// Bytes of releases that the tree had already.
    pub reused_bytes: Counter,
    /// Commands around commits that failed.
    pub hook_failures: PerWord<Phase, Counter>,
    /// Time of the last check for drift.
    pub drift_checked: Gauge,
}

/// Counters of a store.
#[derive(Debug, Default)]
pub struct StoreFigures {
    /// Requests that ended, by their last reply.
    pub requests: PerWord<StoreReplyWord, Counter>,
    /// Time of the last answer.
    pub last_success: Gauge,
    /// Bytes of objects.
    pub received: Counter,
}

impl StoreFigures {
    /// Counts a reply to a get.
    pub fn on_reply(&self, reply: &GetReply) {
        if let GetReply::Bytes(bytes) = reply {
            self.received.add(bytes.len() as u64);
        }

        if let Some(word) = StoreReplyWord::of(reply) {
            self.requests.of(word).add(1);
        }
    }
}
