//! One generation on its way: its first pass, and its repair by whichever costs fewer symbols.
//!
//! Hosts say how many symbols they lack in each column and, when those are few, which. Complaints are gathered for a
//! moment; then the union of what was named is sent again, unless coded symbols are clearly fewer: one of them mends a
//! different loss at every host (see [`crate::fec`]). Both ways can follow each other in one generation.
//!
//! What is on its way is not sent twice: a host's word carries the counter of the last datagram that it saw. Of a
//! column it has seen as many coded symbols as were sent until then, so that those plus its need are all that the
//! column has to have.

use std::ops::Range;
use std::sync::Arc;

use crate::fec::{self, Grid, Kernel};
use crate::id::{Generation, InstanceId, SessionId};
use crate::proto::RangeSet;
use crate::units::Moment;
use crate::wire::datagram::{Front, write_symbol};
use crate::wire::message::Missing;
use crate::wire::{DATA_OVERHEAD, SymbolHeader};

/// Coded rows that are made at once: the payload is read once for all of them.
const CODED_ROWS: u32 = 4;
/// The most coded rows of one generation; hosts that lack more ask for the blocks again.
const MAX_CODED: u32 = 4096;
/// Percent of the coded symbols that the union may cost and still be preferred: plain symbols need no decoding, and a
/// host can take up a part of them.
const PLAIN_BONUS: u64 = 115;

/// What a datagram of data says besides its place.
#[derive(Debug, Clone, Copy)]
pub struct Stamp {
    /// The session.
    pub session: SessionId,
    /// The sending process.
    pub source: InstanceId,
    /// The sender's clock in microseconds, wrapping.
    pub sent: u32,
    /// Bytes that are left free behind it.
    pub room: usize,
}

/// One generation.
#[derive(Debug)]
pub struct Outgoing {
    number: u32,
    grid: Grid,
    payload: Arc<Vec<u8>>,
    ordinals: RangeSet,
    /// The next symbol of the first pass.
    next: u32,
    /// The data counter at which each symbol was last sent; 0 is never.
    sent_at: Vec<u64>,
    /// The data counter of what was sent last.
    latest: u64,
    /// Symbols to be sent again.
    resend: RangeSet,
    columns: Vec<Column>,
    /// Encoded rows: the first, and their bytes.
    coded: (u32, Vec<u8>),
    complaints: Option<Complaints>,
}

/// The coded symbols of one column.
#[derive(Debug, Clone, Default)]
struct Column {
    /// The data counter of each that was sent.
    sent: Vec<u64>,
    /// How many there have to be.
    wanted: u32,
}

/// What hosts miss, until it is decided how to mend it.
#[derive(Debug)]
struct Complaints {
    /// When that is.
    due: Moment,
    /// The symbols that were named.
    named: RangeSet,
    /// Some host only counted, or those who named something do not stand for all.
    unnamed: bool,
    /// Coded symbols that each column would have to have.
    coded: Vec<u32>,
}

impl Outgoing {
    /// Generation `number` of `ordinals` in `payload`.
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
            columns: vec![Column::default(); usize::from(grid.columns())],
            coded: (0, Vec::new()),
            complaints: None,
        }
    }

    /// Its number.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// What is in it.
    pub fn ordinals(&self) -> &RangeSet {
        &self.ordinals
    }

    /// Whether symbols of the first pass are left.
    pub fn is_fresh(&self) -> bool {
        self.next < self.grid.symbols()
    }

    /// Whether repairs are ready to be sent.
    pub fn has_repairs(&self) -> bool {
        !self.resend.is_empty() || self.next_coded().is_some()
    }

    /// Whether everything of it was sent until the data counter was `seen`.
    pub fn was_sent_by(&self, seen: u64) -> bool {
        !self.is_fresh() && !self.has_repairs() && self.latest <= seen
    }

    /// The data counter of what was sent last.
    pub fn latest(&self) -> u64 {
        self.latest
    }

    /// Takes the word of a host that saw the data counter `seen` and misses something.
    pub fn missing(&mut self, missing: &Missing, seen: u64, due: Moment, few: bool) {
        let columns = self.columns.len();
        let complaints = self.complaints.get_or_insert_with(|| Complaints {
            due,
            named: RangeSet::default(),
            unnamed: false,
            coded: vec![0; columns],
        });

        let all = u64::from(self.grid.symbols());
        let nothing_came = missing.need.is_empty();
        complaints.unnamed |= !nothing_came && (!few || missing.symbols.0.is_empty());
        let everything = [0..all];
        let named = if nothing_came {
            &everything[..]
        } else {
            &missing.symbols.0[..]
        };

        for symbol in named.iter().flat_map(|r| r.start..r.end.min(all)) {
            // What was sent after the host's last word may still be on its way; what was never sent will come.
            let sent = self.sent_at[symbol as usize];
            if sent != 0 && sent <= seen {
                complaints.named.insert(symbol..symbol + 1);
            }
        }

        let rows = u32::from(self.grid.rows());
        let every_row = std::iter::repeat_n(&rows, if nothing_came { columns } else { 0 });
        for ((column, need), wanted) in self
            .columns
            .iter()
            .zip(missing.need.iter().chain(every_row))
            .zip(&mut complaints.coded)
        {
            if *need > 0 {
                let saw = column.sent.partition_point(|&at| at <= seen) as u32;
                *wanted = (*wanted).max(saw + (*need).min(rows)).min(MAX_CODED);
            }
        }
    }

    /// When gathered complaints are decided on.
    pub fn due(&self) -> Option<Moment> {
        self.complaints.as_ref().map(|c| c.due)
    }

    /// Decides on what was gathered, when it is time.
    pub fn decide(&mut self, now: Moment) {
        let Some(complaints) = self.complaints.take_if(|c| c.due <= now) else {
            return;
        };

        let more =
            |(column, &wanted): (&Column, &u32)| u64::from(wanted.saturating_sub(column.wanted));
        let coded: u64 = self.columns.iter().zip(&complaints.coded).map(more).sum();
        if !complaints.unnamed && complaints.named.len() * 100 <= coded * PLAIN_BONUS {
            self.resend.extend(&complaints.named);
        } else {
            self.columns
                .iter_mut()
                .zip(complaints.coded)
                .for_each(|(c, wanted)| c.wanted = c.wanted.max(wanted));
        }
    }

    /// The lowest coded row of which a symbol has to be sent, and its column.
    fn next_coded(&self) -> Option<(u32, usize)> {
        let open = self
            .columns
            .iter()
            .enumerate()
            .filter(|(_, c)| (c.sent.len() as u32) < c.wanted);
        open.map(|(at, c)| (c.sent.len() as u32, at)).min()
    }

    /// Appends at most `most` datagrams, repairs before the rest of the first pass unless `fresh_first`; each is numbered
    /// by `counter`. A symbol that is shorter than the others ends a send. Gives the datagrams, and how many of them are repairs.
    pub fn write(
        &mut self,
        stamp: Stamp,
        most: usize,
        fresh_first: bool,
        counter: &mut u64,
        out: &mut Vec<u8>,
    ) -> (u64, u64) {
        let payload = Arc::clone(&self.payload);
        let (mut written, repairs) = (0, self.has_repairs() && !(fresh_first && self.is_fresh()));
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
                self.sent_at[symbol as usize] =
                    self.write_plain(stamp, symbol, &payload, counter, out);
            } else if let Some((row, column)) = self.next_coded() {
                let at = self.write_coded(stamp, row, column, &payload, counter, out);
                self.columns[column].sent.push(at);
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
            // All of these rows are sent.
            self.coded = (0, Vec::new());
        }

        (written, if repairs { written } else { 0 })
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

        write_symbol(out, front, header, &payload[self.grid.bytes_of(symbol)]);
        *counter
    }

    fn write_coded(
        &mut self,
        stamp: Stamp,
        row: u32,
        column: usize,
        payload: &[u8],
        counter: &mut u64,
        out: &mut Vec<u8>,
    ) -> u64 {
        let symbol = usize::from(self.grid.symbol());
        let width = symbol * self.columns.len();
        let place = |coded: &(u32, Vec<u8>)| -> Option<Range<usize>> {
            let start = row.checked_sub(coded.0)? as usize * width + column * symbol;
            (start + symbol <= coded.1.len()).then(|| start..start + symbol)
        };

        if place(&self.coded).is_none() {
            let last = self
                .columns
                .iter()
                .map(|c| c.wanted)
                .max()
                .unwrap_or(row + 1);
            self.coded.0 = row;
            self.coded.1.clear();
            let rows = row as u16..last.min(row + CODED_ROWS).max(row + 1) as u16;
            fec::encode(Kernel::best(), &self.grid, payload, rows, &mut self.coded.1);
        }

        let header = self.header(stamp, u32::from(self.grid.rows()) + row, column as u32);
        *counter += 1;
        let bytes = place(&self.coded)
            .map(|place| &self.coded.1[place])
            .unwrap_or_default();
        write_symbol(
            out,
            Front {
                source: stamp.source,
                counter: *counter,
            },
            header,
            bytes,
        );

        *counter
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
