//! Quantities with their units: times, sizes, rates, limits, quorums. Reads and writes the
//! notation of people, and makes untrusted text safe to show.

mod parse;
mod show;
mod text;

use std::ops::{Add, Sub};
use std::time::Duration;

pub use parse::{ParseError, parse_duration};
pub use show::{shown_age, shown_duration};
pub use text::{is_plain_line, one_line, printable, printable_path};

/// Defines a quantity or position as a bare number. Attributes of the item may derive more.
macro_rules! number {
    ($(#[$meta:meta])* $type:ident($(#[$field:meta])* $number:ty)) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type($(#[$field])* pub $number);
    };
}
pub(crate) use number;

number!(
    /// Point on the clock given to a state machine: nanoseconds since an origin known only to the
    /// caller.
    Moment(u64)
);

impl Moment {
    /// Time elapsed since `earlier`; zero if `earlier` is later.
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;
    fn add(self, d: Duration) -> Moment {
        Moment(
            self.0
                .saturating_add(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

impl Sub<Duration> for Moment {
    type Output = Moment;
    fn sub(self, d: Duration) -> Moment {
        Moment(
            self.0
                .saturating_sub(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

number!(
    /// Time of day, in seconds since 1970-01-01 UTC.
    #[derive(minicbor::Encode, minicbor::Decode, serde::Serialize, serde::Deserialize)]
    #[cbor(transparent)]
    #[serde(transparent)]
    WallTime(#[n(0)] i64)
);

number!(
    /// Number of bytes.
    #[derive(serde::Serialize, serde::Deserialize)]
    ByteSize(u64)
);

/// Transfer rate in bits per second.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct Rate(pub u64);

impl Rate {
    /// Time to transfer `bytes` at this rate.
    pub fn time_for(self, bytes: u64) -> Duration {
        let nanos = u128::from(bytes) * 8 * 1_000_000_000 / u128::from(self.0.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Bytes transferred in `time` at this rate.
    pub fn bytes_in(self, time: Duration) -> u64 {
        u64::try_from(u128::from(self.0) * time.as_nanos() / 8_000_000_000).unwrap_or(u64::MAX)
    }
}

/// Largest number out of a total that may be affected: a count or a share.
#[derive(Debug, Clone, Copy, PartialEq, minicbor::Encode, minicbor::Decode)]
pub enum Limit {
    /// At most this many.
    #[n(0)]
    Count(#[n(0)] u64),
    /// At most this share, in hundredths of a per cent.
    #[n(1)]
    Share(#[n(0)] u16),
}

impl Limit {
    /// No limit at all: a hundred per cent.
    pub const NONE: Limit = Limit::Share(10_000);

    /// Largest number allowed out of `total`.
    pub fn of(self, total: u64) -> u64 {
        match self {
            Limit::Count(n) => n,
            Limit::Share(p) => {
                u64::try_from(u128::from(total) * u128::from(p.min(10_000)) / 10_000)
                    .unwrap_or(u64::MAX)
            }
        }
    }
}

/// Number of hosts that must be staged before any of them commits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Quorum {
    /// Every target.
    All,
    /// Share of the targets, in hundredths of a per cent, rounded up.
    Share(u16),
    /// Number of hosts.
    Count(u32),
}

impl Quorum {
    /// Number of hosts needed out of `targets`.
    pub fn of(self, targets: usize) -> usize {
        match self {
            Quorum::All => targets,
            Quorum::Share(p) => (targets * usize::from(p)).div_ceil(10_000).max(1),
            Quorum::Count(n) => (n as usize).max(1),
        }
    }
}

/// Receive rate below which a host is served after the others instead of with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Floor {
    /// Share of the others' median receive rate, in hundredths of a per cent; 0 is never.
    Share(u16),
    /// This rate, if the others receive more than twice as much.
    Rate(Rate),
}

impl Default for Floor {
    fn default() -> Self {
        Floor::Share(2_500)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_and_its_time_agree() {
        let rate = Rate(8_000_000);
        assert_eq!(rate.time_for(1_000_000), Duration::from_secs(1));
        assert_eq!(rate.bytes_in(Duration::from_secs(2)), 2_000_000);
    }
}
