//! The protocol as state machines without clock, file or socket.
//!
//! **Contract of a machine.** Hand it one thing that happened (`handle_datagram`, `handle_reply`, `handle_timeout`), then
//! drain what it has to say: `poll_transmit` until there is nothing to send, `poll_request` until there is nothing to
//! ask of the disk, `poll_notice` until there is nothing to tell; then wait for `poll_timeout`. Time is a
//! [`Moment`](crate::units::Moment) that the caller passes, randomness is a seed given at the start; the same inputs
//! give the same outputs, so that one number replays a whole network.
//!
//! **The way of a session** (RFC 5740 NORM is the relative whose words we use):
//! - [`members`]: who is alive, by beacons and solicits; [`freshness`] tells their words from recorded ones.
//! - [`sender`]: announces a release, merges what hosts want, sends each block once in generations, repairs what
//!   hosts report missing, decides when all are ready, repeats its signed order until each host has answered.
//!   [`effort`] decides how hard what it sends is compressed.
//! - [`questions`]: which questions outside of a session a host answers, and when.
//! - [`receiver`]: joins, explores which manifest nodes it lacks, compares, fetches, is ready, commits.
//!
//! **On the network.** What a capture shows (`tests/capture.rs` takes one):
//! - A datagram of data is as large as the narrowest path takes (1472 bytes on Ethernet under IPv4, never above 8972),
//!   44 of them header. Messages are cut to 1232 bytes at most.
//! - Datagrams leave in trains of at most 32: as many as the present rate sends in 0.3 ms, so that a train is 12 at
//!   500 Mbit/s. Without a ceiling a late train is caught up with for 4 ms; with one, no more than 50,000 bytes (and
//!   1/16 of what the ceiling lets through in 100 ms) go at once, and the ceiling holds over any 100 ms, all headers and
//!   messages counted.
//! - All hosts together say no more than [`FEEDBACK_A_SECOND`] datagrams to a sender in a second, whatever the fleet:
//!   words of stages and wants, of which a host says one in its [`turn`] (at once in a fleet of up to 16, in half a
//!   second among a thousand), the newest stage instead of those before it, no want for what came meanwhile; a report of
//!   measurements every 256 KiB or 10 ms from at most 16 hosts, at most 2,000 a second; complaints after an exponentially
//!   distributed time ([`backoff`]), at most 12 generations each, none while repairs come; a sign of life after half a
//!   second of silence, or 500 a second for a large fleet. Nothing that arrived is acknowledged but being ready. So the
//!   last answer of ten thousand hosts comes five seconds after the first.
//!
//! **What a host has.** A lost symbol that holds only blocks that a host has already is read back from its disk before the
//! host complains ([`receiver::Part`]), so that hosts that miss different parts of a release need fewer coded symbols. A
//! payload that travels compressed is one frame, of which no block makes a symbol: there every lost symbol counts.
//!
//! Disk is an effect too: a machine asks ([`receiver::Request`], [`sender::Request`]) and is answered later, so that a
//! slow or broken disk, and a crash between any two steps, can be simulated.

use std::net::SocketAddr;
use std::time::Duration;

pub mod bits;
pub mod control;
pub mod counters;
pub mod effort;
pub mod freshness;
pub mod generation;
pub mod members;
pub mod outbox;
pub mod path;
pub mod questions;
pub mod range_set;
pub mod rate;
pub mod receiver;
pub mod sender;

pub use range_set::RangeSet;

/// Where datagrams go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dest {
    /// To every host.
    Group,
    /// To one.
    Host(SocketAddr),
}

/// What stands in the buffer after `poll_transmit`: datagrams of `segment` bytes one after the other, the last of which
/// may be shorter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transmit {
    /// Where they go.
    pub dest: Dest,
    /// Bytes of each.
    pub segment: usize,
}

/// Datagrams that all hosts together say to one sender in a second, whatever the fleet; up to [`PEAK`] times as densely
/// for a tenth of a second. What hosts say is shared out below; the rest is for complaints, which suppress each other.
pub const FEEDBACK_A_SECOND: u32 = 5_000;
/// See [`FEEDBACK_A_SECOND`].
pub const PEAK: u32 = 2;
/// Words of stages and wants: two fifths.
const WORDS_A_SECOND: u32 = FEEDBACK_A_SECOND * 2 / 5;
/// Reports of measurements: as many.
const REPORTS_A_SECOND: u32 = FEEDBACK_A_SECOND * 2 / 5;
/// Signs of life: a tenth.
const ALIVE_A_SECOND: u32 = FEEDBACK_A_SECOND / 10;
/// Complaints that are repeated because nothing came: a twentieth.
const COMPLAINTS_A_SECOND: u32 = FEEDBACK_A_SECOND / 20;
/// A fleet of so many hosts need not take turns.
const AT_ONCE: u32 = 16;
/// The most hosts that a stranger's word makes us reckon with.
const MAX_FLEET: u32 = 20_000;
/// The least time before a host complains: datagrams that overtook each other are not lost.
const COMPLAIN: Duration = Duration::from_millis(2);
/// How long it takes, about, from a complaint to the repair that makes it needless for others.
const REACTION: Duration = Duration::from_millis(4);

/// The time in which each of `hosts` hosts may say one word, so that all together say no more than their share: a fleet
/// of ten answers at once, a thousand hosts within half a second.
pub fn turn(hosts: u32) -> Duration {
    Duration::from_secs(1) * hosts.min(MAX_FLEET).saturating_sub(AT_ONCE) / WORDS_A_SECOND
}

/// How long a host waits with a complaint that another's may make needless, with `chance` from 0 to 1: exponentially
/// distributed, so that of any number of hosts a few speak early and the others hear the repair first (RFC 5401,
/// "NormRandomBackoff").
pub fn backoff(hosts: u32, chance: f64) -> Duration {
    COMPLAIN + REACTION.mul_f64((1.0 + chance * f64::from(hosts.saturating_sub(1))).ln())
}

/// How often a host says that it is alive when `hosts` take part and it has nothing else to say.
pub fn alive_interval(hosts: u32) -> Duration {
    Duration::from_millis(500).max(Duration::from_secs(1) * hosts.min(MAX_FLEET) / ALIVE_A_SECOND)
}

/// The least time between two reports of a host when `hosts` report.
pub fn report_interval(hosts: u32) -> Duration {
    Duration::from_secs(1) * hosts.min(MAX_FLEET) / REPORTS_A_SECOND
}

/// The longest wait before a host of `hosts` repeats a complaint after which nothing came.
pub fn complaint_interval(hosts: u32) -> Duration {
    Duration::from_millis(800)
        .max(Duration::from_secs(1) * hosts.min(MAX_FLEET) / COMPLAINTS_A_SECOND)
}
