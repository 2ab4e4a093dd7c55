//! Tests: generations are recovered after any loss.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::id::{InstanceId, Ordinal, SessionId};
use crate::proto::generation::grid_for;
use crate::proto::sender::generation::{OutgoingGeneration, Stamp};
use crate::units::Moment;
use crate::wire::{Datagram, SymbolHeader};

const STAMP: Stamp = Stamp {
    session: SessionId(1),
    source: InstanceId(2),
    sent: 0,
    room: 0,
    relayed: false,
};
const SYMBOL: u16 = 64;

/// Returns a payload of blocks of these sizes, with all of its ordinals.
fn payload(sizes: &[u16], rng: &mut fastrand::Rng) -> (RangeSet, Vec<u8>) {
    let mut map = Map::default();
    let mut content = Vec::new();
    for (ordinal, size) in sizes.iter().enumerate() {
        map.push(Ordinal(ordinal as u64), u32::from(*size));
        content.extend(std::iter::repeat_with(|| rng.u8(..)).take(usize::from(*size)));
    }

    (
        [0..sizes.len() as u64].into_iter().collect(),
        map.payload(&content),
    )
}

/// A host that loses datagrams and wants some of the blocks.
struct Host {
    buffer: Buffer,
    wants: RangeSet,
    seen: u64,
    done: Progress,
}

impl Host {
    fn receive(&mut self, bytes: &[u8], grid: Grid) {
        let Ok(Datagram::Data(front, symbol)) = Datagram::parse(bytes) else {
            panic!("a data datagram")
        };
        self.seen = self.seen.max(front.counter);
        if self.done == Progress::Missing && self.buffer.take(grid, &symbol, Vec::new) {
            self.done = self.buffer.progress(&self.wants);
        }
    }

    /// Reads back parts from `payload`, except some with simulated read errors.
    fn read_back(&mut self, payload: &[u8], starts: &[usize], mut reads: impl FnMut() -> bool) {
        let parts = self.buffer.readable_parts(Ordinal(0));
        let read = parts.into_iter().filter(|_| reads()).map(|part| {
            assert!(!self.wants.contains(part.ordinal.0), "{part:?} is wanted");
            let start = starts[part.ordinal.0 as usize];
            let bytes = payload[start + part.bytes.start..start + part.bytes.end].to_vec();
            (part, bytes)
        });
        let read: Vec<_> = read.collect();
        if self.buffer.add_parts(&read) {
            self.done = self.buffer.progress(&self.wants);
        }
    }
}

/// Returns the start of each block in the payload.
fn starts(payload: &[u8]) -> Vec<usize> {
    let (map, body) = Map::parse(payload, payload.len())
        .expect("legal")
        .expect("whole");
    map.placed().map(|p| body.start + p.bytes.start).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Every host recovers its wanted blocks to the last byte, for any losses of data and repairs
    /// and any wants.
    #[test]
    fn any_losses_are_repaired(
        sizes in prop::collection::vec(1..9000u16, 1..40),
        loss in 0.0..0.6f64,
        hosts in 1..6usize,
        few: bool,
        read_back in prop::option::of(0.0..1.0f64),
        seed: u64,
    ) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (all, payload) = payload(&sizes, &mut rng);
        let starts = starts(&payload);
        let grid = grid_for(payload.len(), SYMBOL).expect("within the caps");
        let mut outgoing =
            OutgoingGeneration::new(0, grid, all.clone(), Arc::new(payload.to_vec()));
        let mut fleet: Vec<Host> = (0..hosts)
            .map(|host| {
                let wants = all
                    .iter()
                    .flatten()
                    .filter(|_| host == 0 || rng.bool())
                    .map(|o| o..o + 1)
                    .collect();
                Host { buffer: Buffer::default(), wants, seen: 0, done: Progress::Missing }
            })
            .collect();

        let mut counter = 0;
        let mut rounds = 0;
        while fleet.iter().any(|h| h.done == Progress::Missing) {
            rounds += 1;
            prop_assert!(rounds < 200, "no end");
            let mut out = Vec::new();
            while outgoing.write(STAMP, 7, false, &mut counter, &mut out).datagrams > 0 {
                let segment = usize::from(SYMBOL) + crate::wire::DATA_OVERHEAD;
                for host in &mut fleet {
                    out.chunks(segment)
                        .filter(|_| rng.f64() >= loss)
                        .for_each(|bytes| host.receive(bytes, grid));
                }
                out.clear();
            }
            if let Some(share) = read_back {
                for host in fleet.iter_mut().filter(|h| h.done == Progress::Missing) {
                    host.read_back(&payload, &starts, || rng.f64() < share);
                }
            }
            for host in fleet.iter_mut().filter(|h| h.done == Progress::Missing) {
                host.seen = counter;
                outgoing.on_missing(&host.buffer.missing(Generation(0), MAX_SYMBOL_RANGES), host.seen, Moment(0), few);
            }
            outgoing.decide(Moment(0));
        }

        for host in fleet {
            let (bytes, parts) = host.buffer.into_parts();
            if host.done == Progress::Useless {
                prop_assert!(host.wants.is_empty());
                continue;
            }
            let (body, blocks) = parts.expect("whole");
            prop_assert_eq!(blocks.len() as u64, host.wants.len());
            for block in blocks {
                let at = block.bytes.start + body.start..block.bytes.end + body.start;
                prop_assert_eq!(&bytes[at.clone()], &payload[at]);
            }
        }
    }
}

#[test]
fn one_coded_symbol_repairs_a_different_loss_at_every_host() {
    let mut rng = fastrand::Rng::with_seed(3);
    let (all, payload) = payload(&[9000; 20], &mut rng);
    let grid = grid_for(payload.len(), SYMBOL).expect("within the caps");
    let mut outgoing = OutgoingGeneration::new(0, grid, all.clone(), Arc::new(payload.to_vec()));
    let fresh = || Host {
        buffer: Buffer::default(),
        wants: all.clone(),
        seen: 0,
        done: Progress::Missing,
    };

    let mut fleet: Vec<Host> = (0..20).map(|_| fresh()).collect();
    let mut counter = 0;
    let mut out = Vec::new();
    outgoing.write(STAMP, usize::MAX, false, &mut counter, &mut out);

    for (nth, bytes) in out
        .chunks(usize::from(SYMBOL) + crate::wire::DATA_OVERHEAD)
        .enumerate()
    {
        // Host h loses the symbol in row h of the first column.
        let lost = nth / usize::from(grid.columns());
        let in_first = nth % usize::from(grid.columns()) == 0;
        fleet
            .iter_mut()
            .enumerate()
            .filter(|(h, _)| !in_first || *h != lost)
            .for_each(|(_, h)| h.receive(bytes, grid));
    }

    for host in &fleet {
        outgoing.on_missing(
            &host.buffer.missing(Generation(0), MAX_SYMBOL_RANGES),
            counter,
            Moment(0),
            false,
        );
    }

    outgoing.decide(Moment(0));
    let before = counter;
    out.clear();
    outgoing.write(STAMP, usize::MAX, false, &mut counter, &mut out);
    assert_eq!(counter - before, 1);
    fleet.iter_mut().for_each(|host| host.receive(&out, grid));

    assert!(fleet.iter().all(|h| h.done == Progress::Whole));
}

#[test]
fn blocks_on_disk_need_no_coded_symbols() {
    let mut rng = fastrand::Rng::with_seed(5);
    // The host wants the first of two blocks, and loses every fifth symbol.
    let (all, payload) = payload(&[9000, 9000], &mut rng);
    let starts = starts(&payload);
    let grid = Grid::new(payload.len() as u32, SYMBOL, 4).expect("legal");
    let mut outgoing = OutgoingGeneration::new(0, grid, all, Arc::new(payload.clone()));
    let wants = [0..1].into_iter().collect();

    let mut host = Host {
        buffer: Buffer::default(),
        wants,
        seen: 0,
        done: Progress::Missing,
    };

    let mut counter = 0;
    let mut out = Vec::new();
    outgoing.write(STAMP, usize::MAX, false, &mut counter, &mut out);
    let segment = usize::from(SYMBOL) + crate::wire::DATA_OVERHEAD;
    out.chunks(segment)
        .enumerate()
        .filter(|(nth, _)| nth % 5 != 4)
        .for_each(|(_, bytes)| host.receive(bytes, grid));

    let need = |host: &Host| {
        host.buffer
            .missing(Generation(0), MAX_SYMBOL_RANGES)
            .need
            .iter()
            .sum::<u32>()
    };
    let before = need(&host);
    assert!(
        host.buffer.readable_parts(Ordinal(2)).is_empty(),
        "what is asked for begins with an ordinal"
    );

    // Half a symbol is useless.
    let mut part = host.buffer.readable_parts(Ordinal(0)).swap_remove(0);
    let bytes = vec![0; 10];

    part.bytes.end = part.bytes.start + bytes.len();
    assert!(!host.buffer.add_parts(&[(part, bytes)]));
    assert_eq!(need(&host), before);
    host.read_back(&payload, &starts, || true);
    let after = need(&host);

    // The symbol between the two blocks is a wanted one.
    assert!(
        (before / 2 - 2..=before / 2 + 2).contains(&after),
        "{after} of {before}"
    );

    assert!(
        host.buffer.readable_parts(Ordinal(0)).is_empty(),
        "nothing else is of use"
    );
    outgoing.on_missing(
        &host.buffer.missing(Generation(0), MAX_SYMBOL_RANGES),
        counter,
        Moment(0),
        false,
    );

    outgoing.decide(Moment(0));
    out.clear();
    let sent = outgoing
        .write(STAMP, usize::MAX, false, &mut counter, &mut out)
        .datagrams;
    assert_eq!(sent, u64::from(after));
    out.chunks(segment)
        .for_each(|bytes| host.receive(bytes, grid));

    assert_eq!(host.done, Progress::Whole);
    let (bytes, _) = host.buffer.into_parts();
    assert_eq!(bytes[..starts[1]], payload[..starts[1]]);
}

#[test]
fn readback_is_bounded() {
    for sizes in [vec![20; 6000], vec![60_000; 120]] {
        let mut rng = fastrand::Rng::with_seed(6);
        let (all, payload) = payload(&sizes, &mut rng);
        let grid = Grid::new(payload.len() as u32, 1400, 1).expect("legal");
        let mut buffer = Buffer::default();
        let wants = [all.len() - 1..all.len()].into_iter().collect();

        let symbol = |index: u32| {
            let (row, column) = grid.place(index).expect("a symbol");
            let header = SymbolHeader {
                session: SessionId(1),
                generation: Generation(0),
                row,
                column,
                columns: 1,
                payload: grid.payload(),
                sent: 0,
            };
            Symbol {
                header,
                bytes: &payload[grid.bytes_of(index)],
            }
        };

        // Only the front with the map arrives.
        let front = starts(&payload)[0].div_ceil(1400) as u32;
        for index in 0..front {
            buffer.take(grid, &symbol(index), Vec::new);
            buffer.progress(&wants);
        }

        let parts = buffer.readable_parts(Ordinal(0));
        let blocks: std::collections::BTreeSet<u64> = parts.iter().map(|p| p.ordinal.0).collect();
        let bytes: usize = blocks.iter().map(|&o| usize::from(sizes[o as usize])).sum();
        assert!(
            !parts.is_empty() && blocks.len() <= 1024 && bytes <= 4 << 20,
            "{} blocks, {bytes} bytes",
            blocks.len()
        );
    }
}

#[test]
fn a_forged_first_symbol_is_outvoted() {
    use crate::fec::Grid;
    let forged = Grid::new(8 << 20, 1400, 31).expect("legal");
    let right = Grid::new(50_000, 1400, 2).expect("legal");
    let symbol = |bytes: &'static [u8]| Symbol {
        header: crate::wire::SymbolHeader {
            session: crate::id::SessionId(1),
            generation: Generation(0),
            row: 0,
            column: 0,
            columns: 31,
            payload: 8 << 20,
            sent: 0,
        },
        bytes,
    };

    let mut buffer = Buffer::default();
    assert_eq!(buffer.vote(forged), Vote::Agrees);
    assert!(buffer.take(forged, &symbol(&[1; 1400]), Vec::new));

    assert_eq!(
        (buffer.vote(forged), buffer.vote(right), buffer.vote(right)),
        (Vote::Agrees, Vote::Differs, Vote::Outvotes)
    );
}
