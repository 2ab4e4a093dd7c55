//! One generation in transit: the first pass, and repair by plain or coded symbols, whichever are
//! fewer.
//!
//! Hosts report the number of missing symbols in each column and, if few, the symbols themselves.
//! NACKs are gathered for a moment. Then the union of the named symbols is sent again, unless coded
//! symbols are clearly fewer: one coded symbol repairs a different loss at every host (see
//! [`crate::fec`]). Both kinds of repair can follow each other in one generation.
//!
//! Symbols in flight are not sent twice: a NACK carries the counter of the last datagram received.
//! Until then the host has received as many coded symbols of a column as were sent, so these plus
//! its need are all that the column has to have.

use std::sync::Arc;

use super::coded::{CodedRepairs, CodedSymbol};
use crate::fec::Grid;
use crate::id::{Generation, InstanceId, SessionId};
use crate::proto::RangeSet;
use crate::units::Moment;
use crate::wire::datagram::{Front, write_relayed_symbol, write_symbol};
use crate::wire::message::Missing;
use crate::wire::{DATA_OVERHEAD, SymbolHeader};

/// Bound on coded rows of a generation; hosts that lack more ask for the blocks again.
const MAX_CODED: u32 = 4096;
/// Percentage of the coded symbols up to which plain repair is preferred: plain symbols need no
/// decoding, and each one helps a host by itself.
const PLAIN_PREFERENCE: u64 = 115;

/// Header fields common to the datagrams of a send.
#[derive(Debug, Clone, Copy)]
pub struct Stamp {
    /// The session.
    pub session: SessionId,
    /// The sending process.
    pub source: InstanceId,
    /// The sender's clock in microseconds, wrapping.
    pub sent: u32,
    /// Bytes left free behind each datagram.
    pub room: usize,
    /// Whether the host that receives a datagram passes it on.
    pub relayed: bool,
}

impl Stamp {
    fn write(&self, out: &mut Vec<u8>, front: Front, header: SymbolHeader, symbol: &[u8]) {
        match self.relayed {
            true => write_relayed_symbol(out, front, header, symbol),
            false => write_symbol(out, front, header, symbol),
        }
    }
}

/// A generation in transit.
#[derive(Debug)]
pub struct OutgoingGeneration {
    number: u32,
    grid: Grid,
    payload: Arc<Vec<u8>>,
    ordinals: RangeSet,
    /// Next symbol of the first pass.
    next: u32,
    /// Data counter of the last transmission of each symbol; 0 for never.
    sent_at: Vec<u64>,
    /// Data counter of the last datagram.
    latest: u64,
    /// Symbols to send again.
    resend: RangeSet,
    coded: CodedRepairs,
    nacks: Option<GatheredNacks>,
}

impl OutgoingGeneration {
    /// Bytes of the payload.
    pub fn payload_bytes(&self) -> usize {
        self.payload.len()
    }
}

/// Datagrams written in one send.
#[derive(Debug, Clone, Copy)]
pub struct SentDatagrams {
    /// All of them.
    pub datagrams: u64,
    /// Repairs among them.
    pub repairs: u64,
    /// Data counter under which the first of them was sent before; 0 for never.
    pub lost: u64,
}

/// Last transmission of each symbol of a generation.
#[derive(Debug, Clone, Copy)]
pub struct SentSymbols<'a> {
    /// Symbols in a row.
    pub columns: u8,
    /// Data counter of each symbol; 0 for never.
    pub counters: &'a [u64],
}

/// Losses gathered for a repair.
#[derive(Debug)]
struct GatheredNacks {
    /// Time of the decision on the repair.
    due: Moment,
    /// Symbols named by hosts.
    named: RangeSet,
    /// Some host named no symbols, or the hosts that did are no sample of all.
    unnamed: bool,
    /// Coded symbols that each column would need.
    coded: Vec<u32>,
}

impl OutgoingGeneration {
    /// Creates generation `number` of the `ordinals` in `payload`.
    pub fn new(number: u32, grid: Grid, ordinals: RangeSet, payload: Arc<Vec<u8>>) -> Self {
        Self {
            number,
            grid,
            payload,
            ordinals,
            next: 0,
            sent_at: vec![0; grid.symbols() as usize],
            latest: 0,
            resend: RangeSet::default(),
            coded: CodedRepairs::new(&grid),
            nacks: None,
        }
    }

    /// Number of the generation.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Ordinals in the generation.
    pub fn ordinals(&self) -> &RangeSet {
        &self.ordinals
    }

    /// Returns whether symbols of the first pass are left.
    pub fn is_fresh(&self) -> bool {
        self.next < self.grid.symbols()
    }

    /// Returns whether repairs are ready to be sent.
    pub fn has_repairs(&self) -> bool {
        !self.resend.is_empty() || self.coded.next_unsent().is_some()
    }

    /// Returns whether the whole generation was sent by data counter `seen`.
    pub fn is_sent_by(&self, seen: u64) -> bool {
        !self.is_fresh() && !self.has_repairs() && self.latest <= seen
    }

    /// Last transmission of each symbol.
    pub fn sent_symbols(&self) -> SentSymbols<'_> {
        SentSymbols {
            columns: self.grid.columns(),
            counters: &self.sent_at,
        }
    }

    /// Data counter of the last datagram.
    pub fn latest(&self) -> u64 {
        self.latest
    }

    /// Takes the losses of a host that has received data counter `seen`.
    pub fn on_missing(&mut self, missing: &Missing, seen: u64, due: Moment, few: bool) {
        let columns = usize::from(self.grid.columns());
        let nacks = self.nacks.get_or_insert_with(|| GatheredNacks {
            due,
            named: RangeSet::default(),
            unnamed: false,
            coded: vec![0; columns],
        });

        let all = u64::from(self.grid.symbols());
        let nothing_came = missing.need.is_empty();
        nacks.unnamed |= !nothing_came && (!few || missing.symbols.0.is_empty());
        let everything = [0..all];
        let named = if nothing_came {
            &everything[..]
        } else {
            &missing.symbols.0[..]
        };

        for symbol in named.iter().flat_map(|r| r.start..r.end.min(all)) {
            // Symbols sent after `seen` may still be in flight, and unsent ones are yet to come.
            let sent = self.sent_at[symbol as usize];
            if sent != 0 && sent <= seen {
                nacks.named.insert(symbol..symbol + 1);
            }
        }

        let rows = u32::from(self.grid.rows());
        let every_row = std::iter::repeat_n(&rows, if nothing_came { columns } else { 0 });
        let needs = missing.need.iter().chain(every_row);
        for ((column, need), wanted) in needs.enumerate().zip(&mut nacks.coded) {
            if *need > 0 {
                let enough = self.coded.sent_by(column, seen) + (*need).min(rows);
                *wanted = (*wanted).max(enough).min(MAX_CODED);
            }
        }
    }

    /// Time of the decision on the gathered losses.
    pub fn due(&self) -> Option<Moment> {
        self.nacks.as_ref().map(|c| c.due)
    }

    /// Decides on the gathered losses once due.
    pub fn decide(&mut self, now: Moment) {
        let Some(nacks) = self.nacks.take_if(|c| c.due <= now) else {
            return;
        };

        let coded = self.coded.missing(&nacks.coded);
        if !nacks.unnamed && nacks.named.len() * 100 <= coded * PLAIN_PREFERENCE {
            self.resend.extend(&nacks.named);
        } else {
            self.coded.want(&nacks.coded);
        }
    }

    /// Appends at most `most` datagrams numbered by `counter`. Repairs precede the rest of the
    /// first pass unless `fresh_first` is set. A short symbol ends the send.
    pub fn write(
        &mut self,
        stamp: Stamp,
        most: usize,
        fresh_first: bool,
        counter: &mut u64,
        out: &mut Vec<u8>,
    ) -> SentDatagrams {
        let payload = Arc::clone(&self.payload);
        let (mut written, mut lost) = (0, 0);
        let repairs = self.has_repairs() && !(fresh_first && self.is_fresh());
        let full = usize::from(self.grid.symbol()) + DATA_OVERHEAD + stamp.room;
        while written < most as u64 {
            let before = out.len();
            let fresh = !repairs && self.is_fresh();
            let again = self.resend.first().map(|s| s as u32).filter(|_| !fresh);
            if let Some(symbol) = again.or(fresh.then_some(self.next)) {
                if fresh {
                    self.next += 1;
                } else {
                    self.resend.remove(u64::from(symbol)..u64::from(symbol) + 1);
                }
                let at = self.write_plain(stamp, symbol, &payload, counter, out);
                let before = std::mem::replace(&mut self.sent_at[symbol as usize], at);
                if written == 0 {
                    lost = before;
                }
            } else if let Some(symbol) = self.coded.next_unsent() {
                self.write_coded(stamp, symbol, &payload, counter, out);
            } else {
                break;
            }
            out.resize(out.len() + stamp.room, 0);
            self.latest = *counter;
            written += 1;
            if out.len() - before < full {
                break;
            }
        }

        if repairs && !self.has_repairs() {
            self.coded.forget_rows();
        }

        SentDatagrams {
            datagrams: written,
            repairs: if repairs { written } else { 0 },
            lost,
        }
    }

    fn write_plain(
        &self,
        stamp: Stamp,
        symbol: u32,
        payload: &[u8],
        counter: &mut u64,
        out: &mut Vec<u8>,
    ) -> u64 {
        let columns = u32::from(self.grid.columns());
        let header = self.header(stamp, symbol / columns, symbol % columns);
        *counter += 1;
        let front = Front {
            source: stamp.source,
            counter: *counter,
        };

        stamp.write(out, front, header, &payload[self.grid.bytes_of(symbol)]);
        *counter
    }

    fn write_coded(
        &mut self,
        stamp: Stamp,
        symbol: CodedSymbol,
        payload: &[u8],
        counter: &mut u64,
        out: &mut Vec<u8>,
    ) {
        let row = u32::from(self.grid.rows()) + symbol.row;
        let header = self.header(stamp, row, symbol.column as u32);
        *counter += 1;
        let front = Front {
            source: stamp.source,
            counter: *counter,
        };

        let bytes = self.coded.bytes_of(symbol, &self.grid, payload);
        stamp.write(out, front, header, bytes);
        self.coded.on_sent(symbol, *counter);
    }

    fn header(&self, stamp: Stamp, row: u32, column: u32) -> SymbolHeader {
        SymbolHeader {
            session: stamp.session,
            generation: Generation(self.number),
            row: row as u16,
            column: column as u8,
            columns: self.grid.columns(),
            payload: self.grid.payload(),
            sent: stamp.sent,
        }
    }
}
