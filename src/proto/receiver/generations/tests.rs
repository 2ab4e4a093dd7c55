//! Tests of generations: forged claims, a slow disk, and a host that was away.

use super::open::REPAIR_GAP;
use super::payloads::MAX_PAYLOAD_BYTES;
use super::position::MAX_CONTRADICTIONS;
use super::*;
use crate::id::SessionId;
use crate::proto::generation::{Map, grid_for};
use crate::wire::SymbolHeader;

fn at(horizon: u32) -> Generations {
    let mut generations = Generations::new(1400);
    generations.on_sent(Generation(horizon));
    generations.resolved.insert(0..horizon);
    generations
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
            let columns = u32::from(grid.columns());
            let header = SymbolHeader {
                session: SessionId(1),
                generation: Generation(number),
                row: (index / columns) as u16,
                column: (index % columns) as u8,
                columns: grid.columns(),
                payload: grid.payload(),
                sent: 0,
            };
            let symbol = Symbol {
                header,
                bytes: &payload[grid.bytes_of(index)],
            };
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
