//! The protocol as state machines without clock, file or socket.
//!
//! **Contract of a machine.** Pass one event in (`handle_datagram`, `handle_reply`,
//! `handle_timeout`), then drain the outputs: `poll_transmit` for datagrams, `poll_request` for
//! requests to the disk, `poll_notice` for notices to the caller. Then wait for `poll_timeout`. The
//! caller passes the time as a [`Moment`](crate::units::Moment) and a random seed at the start. The
//! same inputs give the same outputs, so one number replays a whole network.
//!
//! **Course of a session** (terms follow RFC 5740, NORM):
//! - [`members`]: who is alive, by beacons and solicits; [`freshness`] detects replayed ones.
//! - [`roster`]: without multicast, the addresses of all processes, each proven by a challenge.
//! - [`sender`]: announces a release, merges the wants of hosts, sends each block once in
//!   generations, repairs reported losses, decides once enough hosts are ready, and repeats its
//!   signed order until each host has answered. [`compression`] chooses the compression level.
//! - [`rollout`]: the batch that is due of a commit with pauses.
//! - [`queries`]: queries outside of a session that a host answers, and [`answer_budget`], their
//!   rate limit. [`counting`]: probes of a path that a host counts.
//! - [`receiver`]: joins, explores the missing manifest nodes, compares, fetches, reports ready,
//!   commits.
//!
//! **On the network.** Figures of a capture (`tests/it/capture.rs` takes one):
//! - A data datagram is as large as the narrowest path allows (1472 bytes on Ethernet under IPv4,
//!   never above 8972), 44 bytes of them header. Messages are cut to at most 1232 bytes.
//! - Datagrams leave in trains of at most 32: as many as the present rate sends in 0.3 ms, so a
//!   train is 12 at 500 Mbit/s. Without a ceiling a late sender catches up on at most 4 ms. With a
//!   ceiling at most 50,000 bytes (and at most 1/16 of the ceiling's bytes in 100 ms) go at once,
//!   and the ceiling holds over any 100 ms, all headers and messages counted.
//! - All hosts together send a sender no more than [`FEEDBACK_A_SECOND`] datagrams a second, for
//!   any fleet size. States and wants: each host sends one in its [`slot_interval`] (at once in a
//!   fleet of up to 16, in half a second among a thousand), the newest stage instead of earlier
//!   ones, no want for blocks received meanwhile. Reports of measurements: every 256 KiB or 10 ms
//!   from at most 16 hosts, at most 2,000 a second; another host in distress waits a random part of
//!   the interval of all. NACKs: after an exponentially distributed delay
//!   ([`backoff`]), for at most 12 generations each, none while repairs arrive. Signs of life:
//!   after half a second of silence, or 500 a second for a large fleet. Among received data only
//!   readiness is acknowledged. The last answer of ten thousand hosts therefore comes five seconds
//!   after the first.
//!
//! **Content of a host.** If a lost symbol holds only blocks already present on a host, the host
//! reads the symbol back from disk before sending a NACK ([`receiver::BlockPart`]). Hosts that miss
//! different parts of a release then need fewer coded symbols. A compressed payload is one frame,
//! and no block yields a symbol of it: there every lost symbol counts.
//!
//! Disk access is an effect too: a machine emits requests ([`receiver::DiskRequest`],
//! [`sender::SenderRequest`]) and receives replies later, so a slow or broken disk, and a crash
//! between any two steps, can be simulated.

use std::net::SocketAddr;
use std::time::Duration;

pub mod answer_budget;
pub mod bitmap;
pub mod compression;
pub mod control;
pub mod counting;
pub mod datagram_size;
pub mod duplicates;
pub mod freshness;
pub mod generation;
pub mod members;
pub mod queries;
pub mod range_set;
pub mod rate;
pub mod receiver;
pub mod retransmit;
pub mod rollout;
pub mod roster;
pub mod sender;

pub use range_set::RangeSet;

/// Destination of datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dest {
    /// Every host of the group.
    Group,
    /// One host.
    Host(SocketAddr),
    /// The hosts that multicast reaches.
    Multicast,
    /// One host that passes the datagrams on, and the hosts that multicast reaches.
    Relay(SocketAddr),
}

/// Contents of the buffer after `poll_transmit`: consecutive datagrams of `segment` bytes, the last
/// possibly shorter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transmit {
    /// Destination of the datagrams.
    pub dest: Dest,
    /// Bytes of each datagram.
    pub segment: usize,
}

/// Datagrams that all hosts together send to one sender in a second, for any fleet size, at up to
/// [`PEAK`] times the density for a tenth of a second. The shares are below; the rest is for NACKs,
/// which suppress each other.
pub const FEEDBACK_A_SECOND: u32 = 5_000;
/// See [`FEEDBACK_A_SECOND`].
pub const PEAK: u32 = 2;
/// States and wants: two fifths.
const STATES_A_SECOND: u32 = FEEDBACK_A_SECOND * 2 / 5;
/// Reports of measurements: two fifths.
const REPORTS_A_SECOND: u32 = FEEDBACK_A_SECOND * 2 / 5;
/// Signs of life: a tenth.
const ALIVE_A_SECOND: u32 = FEEDBACK_A_SECOND / 10;
/// NACKs repeated because no repair came: a twentieth.
const NACKS_A_SECOND: u32 = FEEDBACK_A_SECOND / 20;
/// Largest fleet whose hosts need no slots.
const SMALL_FLEET: u32 = 16;
/// Bound on the fleet size assumed from unproven messages.
const MAX_FLEET: u32 = 20_000;
/// Shortest delay of a NACK: datagrams that were reordered are not lost.
const MIN_NACK_DELAY: Duration = Duration::from_millis(2);
/// Approximate time from a NACK to the repair that makes the NACKs of other hosts unnecessary.
const REPAIR_DELAY: Duration = Duration::from_millis(4);
/// The same where the repair comes over two hops.
const SECOND_HOP_REPAIR_DELAY: Duration = Duration::from_millis(12);

/// Interval in which each of `hosts` hosts may send one message, so that all together stay within
/// their share. A fleet of ten answers at once, a thousand hosts within half a second.
pub fn slot_interval(hosts: u32) -> Duration {
    Duration::from_secs(1) * hosts.min(MAX_FLEET).saturating_sub(SMALL_FLEET) / STATES_A_SECOND
}

/// Delay of a NACK that another host's may make unnecessary, for a `chance` from 0 to 1.
/// Exponentially distributed: of any number of hosts a few send early, and the others receive the
/// repair first (RFC 5401, "NormRandomBackoff"). Over two hops the repair takes longer.
pub fn backoff(hosts: u32, is_second_hop: bool, chance: f64) -> Duration {
    let repair = match is_second_hop {
        true => SECOND_HOP_REPAIR_DELAY,
        false => REPAIR_DELAY,
    };
    MIN_NACK_DELAY + repair.mul_f64((1.0 + chance * f64::from(hosts.saturating_sub(1))).ln())
}

/// Interval between signs of life of an otherwise silent host, in a session of `hosts` hosts.
pub fn alive_interval(hosts: u32) -> Duration {
    Duration::from_millis(500).max(Duration::from_secs(1) * hosts.min(MAX_FLEET) / ALIVE_A_SECOND)
}

/// Shortest interval between two reports of a host, if `hosts` report.
pub fn report_interval(hosts: u32) -> Duration {
    Duration::from_secs(1) * hosts.min(MAX_FLEET) / REPORTS_A_SECOND
}

/// Longest wait before one of `hosts` hosts repeats an unanswered NACK.
pub fn complaint_interval(hosts: u32) -> Duration {
    Duration::from_millis(800).max(Duration::from_secs(1) * hosts.min(MAX_FLEET) / NACKS_A_SECOND)
}
