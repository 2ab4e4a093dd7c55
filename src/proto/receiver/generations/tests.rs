//! Tests of generations: forged claims, a slow disk, and a host that was away.

use super::open::REPAIR_GAP;
use super::payloads::MAX_PAYLOAD_BYTES;
use super::position::MAX_CONTRADICTIONS;
use super::*;
use crate::fec::Grid;
use crate::id::SessionId;
use crate::proto::generation::{Map, grid_for};
use crate::wire::SymbolHeader;

fn at(horizon: u32) -> Generations {
    let mut generations = Generations::new(1400);
    generations.on_sent(Generation(horizon));
    generations.resolved.insert(0..horizon);
    generations
}

/// A symbol of a payload in place.
fn plain(grid: Grid, number: u32, index: u32, payload: &[u8]) -> Symbol<'_> {
    let columns = u32::from(grid.columns());
    Symbol {
        header: SymbolHeader {
            session: SessionId(1),
            generation: Generation(number),
            row: (index / columns) as u16,
            column: (index % columns) as u8,
            columns: grid.columns(),
            payload: grid.payload(),
            sent: 0,
        },
        bytes: &payload[grid.bytes_of(index)],
    }
}

#[test]
fn losses_and_repairs_are_counted_once() {
    let mut generations = Generations::new(1400);
    let wants = [0..10].into_iter().collect();
    let mut map = Map::default();
    map.push(Ordinal(0), 14_000);
    let payload = map.payload(&[7; 14_000]);
    let grid = grid_for(payload.len(), 1400).expect("not empty");
    let symbol = |index| plain(grid, 0, index, &payload);
    let lost = [3, 5];

    let mut now = Moment(1_000_000_000);
    for index in (0..grid.symbols()).filter(|index| !lost.contains(index)) {
        assert!(generations.symbol(now, &symbol(index), &wants).is_none());
    }
    generations.on_sent(Generation(1));
    for _ in 0..4 {
        now = now + Duration::from_secs(1);
        generations.due(now, REPAIR_GAP, None, || Duration::ZERO);
    }
    let counts = |lost, repairs| SymbolCounts { lost, repairs };
    assert_eq!(generations.take_counts(), counts(2, 0));

    assert!(generations.symbol(now, &symbol(3), &wants).is_none());
    assert!(
        generations.symbol(now, &symbol(3), &wants).is_none(),
        "twice"
    );
    now = now + Duration::from_secs(1);
    generations.due(now, REPAIR_GAP, None, || Duration::ZERO);
    assert!(generations.symbol(now, &symbol(5), &wants).is_some());
    assert_eq!(generations.take_counts(), counts(0, 2));
}

#[test]
fn forged_claims_between_true_ones_change_nothing() {
    let mut generations = at(100);
    for n in 0..10_000u32 {
        generations.on_sent(Generation(u32::MAX - 1 - n));
        generations.on_sent(Generation(100 + n / 1000));
    }

    assert_eq!(
        (
            generations.position.horizon(),
            generations.resolved.contains(99),
            generations.resolved.contains(120)
        ),
        (109, true, false)
    );
}

#[test]
fn a_host_that_was_offline_believes_repeated_claims() {
    let mut generations = at(100);
    (0..=MAX_CONTRADICTIONS).for_each(|_| generations.on_sent(Generation(500)));
    assert_eq!(generations.position.horizon(), 500);
    assert_eq!(
        generations.unresolved(2),
        [100, 101],
        "what passed by is still to be given up"
    );
    generations.due(Moment(0), REPAIR_GAP, None, || REPAIR_GAP);

    assert!(generations.take_abandoned() && generations.unresolved(1) == [500 - KEPT_GENERATIONS]);
}

#[test]
fn an_early_forged_claim_is_corrected() {
    let mut generations = at(u32::MAX - 1);
    (0..=MAX_CONTRADICTIONS).for_each(|_| generations.on_sent(Generation(7)));
    assert_eq!(
        (
            generations.position.horizon(),
            generations.resolved.contains(3),
            generations.resolved.contains(8)
        ),
        (7, false, false)
    );
}

#[test]
fn a_sender_faster_than_the_disk_does_not_exhaust_memory() {
    const BLOCK: u32 = 2 << 20;
    let mut generations = Generations::new(60_000);
    let wants = [0..1000].into_iter().collect();
    let mut waiting = Vec::new();
    let mut most = 0;
    for number in 0..100 {
        let mut map = Map::default();
        map.push(Ordinal(number.into()), BLOCK);
        let payload = map.payload(&vec![7; BLOCK as usize]);
        let grid = grid_for(payload.len(), 60_000).expect("not empty");
        for index in 0..grid.symbols() {
            let symbol = plain(grid, number, index, &payload);
            waiting.extend(generations.symbol(Moment(1), &symbol, &wants));
        }
        most = most.max(generations.held());
        // A slow disk takes some payloads.
        if number == 80 {
            assert_eq!(
                waiting.len() as u64,
                MAX_PAYLOAD_BYTES / (u64::from(BLOCK) + 1)
            );
            waiting
                .drain(..5)
                .for_each(|delivery| generations.recycle(delivery.payload));
        }
    }

    assert_eq!(
        waiting.len() as u64,
        MAX_PAYLOAD_BYTES / (u64::from(BLOCK) + 1),
        "as many again"
    );

    assert!(most as u64 <= MAX_PAYLOAD_BYTES, "{most}");
    waiting
        .drain(..)
        .for_each(|delivery| generations.recycle(delivery.payload));
    let held = generations.held() as u64;
    assert!(
        held < 2 * u64::from(BLOCK),
        "{held} bytes of a session that waits"
    );
}
