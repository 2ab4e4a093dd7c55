//! Feedback of hosts on the data: requested ordinals, missing symbols, measurements.

use std::ops::Range;

use minicbor::{Decode, Encode};

use super::caps::within;
use crate::id::{Generation, SessionId};

/// Largest number of ranges in one message.
pub const MAX_RANGES: usize = 2048;
/// Largest number of generations in one negative acknowledgement.
pub const MAX_NACKS: usize = 64;
/// Largest number of columns of a generation.
pub const MAX_NEEDS: usize = 32;

/// Ordinals requested by a host.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct WantList {
    /// The session.
    #[n(0)]
    pub session: SessionId,
    /// Number of this message for the acknowledgement.
    #[n(1)]
    pub number: u32,
    /// Sorted, disjoint ranges.
    #[n(2)]
    pub ranges: Ranges,
    /// Whether more messages of the same list follow.
    #[n(3)]
    pub more: bool,
    /// Highest data counter when the host began to listen: the host receives everything sent after
    /// it.
    #[n(4)]
    pub seen: u64,
    /// Bytes to fetch according to the comparison; `None` before.
    #[n(5)]
    pub fetch: Option<u64>,
}

/// Symbols missing at a host.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Nack {
    /// The session.
    #[n(0)]
    pub session: SessionId,
    /// Highest data counter received from the sender: later datagrams may still be in flight.
    #[n(1)]
    pub seen: u64,
    /// One element for each generation.
    #[n(2)]
    pub missing: Vec<Missing>,
}

impl Nack {
    pub(super) fn check(&self) -> Result<(), String> {
        within(self.missing.len() <= MAX_NACKS, "too many generations")?;
        within(
            self.missing.iter().all(|m| m.need.len() <= MAX_NEEDS),
            "too many columns",
        )
    }
}

/// Symbols of one generation missing at a host.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Missing {
    /// The generation.
    #[n(0)]
    pub generation: Generation,
    /// Symbols that each column still needs, plain or coded; empty if nothing of the generation
    /// arrived.
    #[n(1)]
    pub need: Vec<u32>,
    /// Missing symbols (row * columns + column) if they are few; else empty.
    #[n(2)]
    pub symbols: Ranges,
}

/// Measurements of one host since the session began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct ReceiverReport {
    /// The session.
    #[n(0)]
    pub session: SessionId,
    /// Highest data counter received from the sender.
    #[n(1)]
    pub seen: u64,
    /// Datagrams received from the sender.
    #[n(2)]
    pub datagrams: u64,
    /// Bytes of data symbols received.
    #[n(3)]
    pub bytes: u64,
    /// Queueing delay in the network, in microseconds: arrival time above the smallest seen.
    #[n(4)]
    pub delay: u32,
    /// Bytes received and not yet written.
    #[n(5)]
    pub backlog: u64,
    /// Bytes that may be in flight to this host: a part of its receive buffer.
    #[n(6)]
    pub window: u32,
    /// Arrival of the last datagram, in microseconds of any steady clock of the host.
    #[n(7)]
    pub at: u64,
    /// Datagrams that this host was to pass on and dropped; `None` for none.
    #[n(8)]
    pub unrelayed: Option<u64>,
}

/// Sorted, disjoint ranges; encoded as gaps and lengths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ranges(pub Vec<Range<u64>>);

impl<C> Encode<C> for Ranges {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.array(self.0.len() as u64 * 2)?;
        let mut at = 0;
        for range in &self.0 {
            e.u64(range.start - at)?.u64(range.end - range.start)?;
            at = range.end;
        }
        Ok(())
    }
}

impl<'b, C> Decode<'b, C> for Ranges {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let refuse = |why| minicbor::decode::Error::message(why);
        let numbers = d
            .array()?
            .ok_or_else(|| refuse("ranges of unknown length"))?;
        if numbers % 2 != 0 || numbers > 2 * MAX_RANGES as u64 {
            return Err(refuse("too many ranges"));
        }

        let mut ranges = Vec::with_capacity((numbers / 2) as usize);
        let mut at = 0u64;
        for _ in 0..numbers / 2 {
            let start = at
                .checked_add(d.u64()?)
                .ok_or_else(|| refuse("a range overflows"))?;
            let end = start
                .checked_add(d.u64()?)
                .ok_or_else(|| refuse("a range overflows"))?;
            if start == end || (at == start && at != 0) {
                return Err(refuse("ranges that are empty or touch"));
            }
            ranges.push(start..end);
            at = end;
        }

        Ok(Ranges(ranges))
    }
}
