//! Tests of tombstones: repetition for members that lack one, and floods of orders.

use super::super::test_fleet::{at, table, www};
use super::*;
use crate::block::BlockHash;
use crate::id::{Serial, SessionId};
use crate::proto::receiver::order_checks::MAX_PENDING_CHECKS;
use crate::wire::message::OrderKind;

fn id(serial: u64) -> ReleaseId {
    ReleaseId(BlockHash::of(&serial.to_be_bytes()))
}

fn order(serial: u64, kind: OrderKind) -> SignedOrder {
    let tree = Some(www());
    let release = id(serial);
    let serial = Some(Serial(serial));
    let order = Order {
        session: SessionId(1),
        release,
        kind,
        up_to: None,
        tree,
        serial,
        hosts: None,
        except: None,
    };

    SignedOrder {
        order: order.encode(),
        signature: vec![1],
        hosts: None,
    }
}

fn state(running: u64, told: Option<&[u64]>) -> TreeState {
    let stone = |&n: &u64| Tombstone {
        serial: Serial(n),
        release: id(n),
        revert: true,
    };

    TreeState {
        serial: Serial(running),
        release: Some(id(running)),
        running: Some(Serial(running)),
        tombstones: told.map(|told| told.iter().map(stone).collect()),
        ..TreeState::nothing(www())
    }
}

/// Counts transmissions in one minute.
fn said(stones: &mut Tombstones, members: &[TreeState]) -> usize {
    let table = table(members.iter().cloned());
    (0..60_000)
        .step_by(100)
        .map(|ms| stones.poll(at(ms), InstanceId(1), &table).len())
        .sum()
}

#[test]
fn a_tombstone_is_sent_to_members_that_need_it_and_backs_off() {
    let new = || Tombstones::new(vec![order(5, OrderKind::Revert)], 1);
    let of = |member| said(&mut new(), &[member]);
    assert!(
        (4..=7).contains(&of(state(4, Some(&[])))),
        "{}",
        of(state(4, Some(&[])))
    );
    assert!(of(state(5, Some(&[8, 7]))) > 0, "it runs the release");
    assert_eq!(of(state(4, Some(&[5]))), 0, "it knows");
    assert_eq!(of(state(6, Some(&[]))), 0, "it runs a newer one");
    assert_eq!(of(state(4, Some(&[8, 7]))), 0, "its beacon is full");

    assert_eq!(of(state(4, None)), 0, "it would not understand");
}

#[test]
fn the_first_transmission_serves_all_members() {
    let mut stones = Tombstones::new(vec![order(5, OrderKind::Revert)], 1);
    let own = [state(4, Some(&[5]))];
    let table = table([state(4, Some(&[]))]);
    assert!(stones.poll(at(0), InstanceId(1), &table).is_empty());
    assert!(
        !stones.on_order(at(0), &order(5, OrderKind::Revert), &own),
        "it is known"
    );

    assert!(stones.timeout() >= Some(at(2000)));
}

#[test]
fn an_invalid_order_is_checked_once_and_a_flood_stays_bounded() {
    let mut stones = Tombstones::new(Vec::new(), 1);
    let own = [state(4, Some(&[]))];
    let mut looked = 0;
    for n in 0..1000 {
        looked += usize::from(stones.on_order(at(n), &order(n, OrderKind::Abort), &own));
    }

    assert_eq!(looked, MAX_PENDING_CHECKS);
    stones.on_checked(order(0, OrderKind::Abort), false);
    assert!(!stones.on_order(at(0), &order(0, OrderKind::Abort), &own));
    stones.on_checked(order(1, OrderKind::Abort), true);
    assert!(stones.of(&www(), id(1)).is_some() && !stones.is_reverted(&www(), id(1)));
    assert!(
        stones.on_order(at(0), &order(1, OrderKind::Revert), &own),
        "a stronger word"
    );

    for n in 0..1000 {
        stones.on_checked(order(n, OrderKind::Revert), true);
    }

    assert!(
        stones.trees[&www()].len() <= MAX_TREE_TOMBSTONES && stones.of(&www(), id(999)).is_some()
    );
    assert!(!stones.on_order(at(0), &order(3000, OrderKind::Commit), &own));
}
