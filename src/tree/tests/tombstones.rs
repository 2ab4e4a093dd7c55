//! Permanently reverted releases, and two releases with one serial: the retained content, and every
//! crash on the way.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::crash::{new, old};
use super::world::{World, look};
use crate::block::BlockHash;
use crate::id::{Serial, SessionId, TreeName};
use crate::manifest::{Header, Release, ReleaseId};
use crate::tree::Tree;
use crate::tree::state::tombstones::Following;
use crate::units::WallTime;
use crate::wire::message::{Order, OrderKind, SignedOrder, Tombstone};

#[expect(clippy::disallowed_methods, reason = "files have the time of day")]
fn now() -> SystemTime {
    SystemTime::now()
}

fn signed(order: &Order) -> SignedOrder {
    SignedOrder {
        order: order.encode(),
        signature: b"signature".to_vec(),
        hosts: None,
    }
}

fn order(serial: u64, kind: OrderKind) -> SignedOrder {
    let release = ReleaseId(BlockHash::of(&serial.to_be_bytes()));
    let tree = TreeName::new("www").ok();
    let serial = Some(Serial(serial));
    signed(&Order {
        session: SessionId(1),
        release,
        kind,
        up_to: None,
        tree,
        serial,
        hosts: None,
        except: None,
    })
}

fn stones(tree: &Tree) -> Vec<Tombstone> {
    tree.state()
        .tombstones()
        .unwrap()
        .into_iter()
        .map(|buried| buried.stone)
        .collect()
}

/// Commits the source as release `serial`, created at `created`.
fn commit(world: &World, tree: &Arc<Tree>, serial: u64, created: i64) -> crate::Result<Release> {
    let (stage, release) = world.stage(tree, serial)?;
    let release = Release::new(Header {
        created: WallTime(created),
        ..release.header().clone()
    })
    .expect("legal");
    stage.commit(&release, b"signature").map(|_| release)
}

#[test]
fn tombstones_last_and_stay_bounded() {
    let world = World::new(&[], &new());
    let tree = world.open();
    let now = now();
    let day = Duration::from_secs(24 * 3600);
    for serial in 1..=40 {
        let kind = if serial % 2 == 0 {
            OrderKind::Revert
        } else {
            OrderKind::Abort
        };
        assert!(tree.bury(&order(serial, kind), now).unwrap());
        assert!(
            !tree.bury(&order(serial, kind), now).unwrap(),
            "it is known"
        );
    }

    let kept = stones(&tree);
    assert_eq!(
        (kept.len(), kept[0].serial, kept[31].serial),
        (32, Serial(40), Serial(9))
    );

    // A revert overrides an abort, not the reverse.
    assert!(tree.bury(&order(39, OrderKind::Revert), now).unwrap());
    assert!(!tree.bury(&order(40, OrderKind::Abort), now).unwrap());
    assert!(tree.bury(&order(5, OrderKind::Commit), now).is_err());
    std::fs::write(tree.state().path().join("tombstones/7-damaged"), "no order").unwrap();
    let kept = stones(&tree);
    drop(tree);

    let tree = world.open();
    assert_eq!(stones(&tree), kept);

    // Old tombstones below the present release are removed.
    world.deploy(&tree, 39).unwrap();
    tree.bury(&order(50, OrderKind::Revert), now + day * 29)
        .unwrap();
    assert!(stones(&tree).len() > 20);
    tree.bury(&order(51, OrderKind::Revert), now + day * 31)
        .unwrap();

    assert_eq!(
        stones(&tree).last().map(|stone| stone.serial),
        Some(Serial(39))
    );
}

#[test]
fn a_host_goes_back_to_what_the_others_run_and_not_further() {
    for after in 0.. {
        let world = World::new(&[], &old());
        let tree = world.open();
        let oldest = commit(&world, &tree, 4, 900).unwrap();
        let first = commit(&world, &tree, 5, 1000).unwrap();
        let before = look(&world.www());
        world.release(&new());
        let second = commit(&world, &tree, 6, 2000).unwrap();
        let taken = look(&world.www());
        tree.forget_undo().unwrap();
        assert_eq!(tree.state().following(&first).unwrap(), None);
        let revert = signed(&Order::new(SessionId(1), &second, OrderKind::Revert));
        tree.bury(&revert, now()).unwrap();
        assert_eq!(
            tree.state().following(&first).unwrap(),
            Some(Following::Back)
        );
        assert_eq!(
            tree.state().following(&oldest).unwrap(),
            None,
            "older than what it had before"
        );
        drop(tree);

        world.release(&old());
        let tree = world.open_crashing(Some(after)).unwrap();
        let done = commit(&world, &tree, 5, 1000).is_ok();
        drop(tree);
        let tree = world.open();
        let current = tree.current().unwrap().unwrap().release;
        let expected = if current.id() == first.id() {
            &before
        } else {
            &taken
        };
        assert_eq!(look(&world.www()), *expected, "crash {after}");
        assert!(!done || current.id() == first.id());
        assert!(
            tree.release(Serial(5)).unwrap().is_some(),
            "crash {after}: what was kept is kept"
        );
        if done {
            tree.forget_undo().unwrap();
            assert_eq!(
                tree.highest_serial().unwrap(),
                Some(Serial(6)),
                "its serial is not used again"
            );
            assert_eq!(tree.state().following(&second).unwrap(), None);
            assert_eq!(
                tree.release(Serial(6))
                    .unwrap()
                    .map(|stored| stored.release.id()),
                None
            );
            assert!(
                commit(&world, &tree, 5, 1000).is_ok(),
                "it is mended as any other"
            );
            assert!(commit(&world, &tree, 7, 3000).is_ok());
            break;
        }
    }
}

#[test]
fn of_two_releases_of_one_serial_the_later_one_takes_the_place_of_the_other_or_does_not() {
    for swap in [false, true] {
        for after in 0.. {
            let world = World::new(&[], &old()).swapping(swap);
            let tree = world.open();
            let first = commit(&world, &tree, 5, 1000).unwrap();
            tree.forget_undo().unwrap();
            tree.keep_grant(Serial(5), Some(b"first")).unwrap();
            let before = look(&world.www());
            drop(tree);

            world.release(&new());
            let tree = world.open_crashing(Some(after)).unwrap();
            let done = commit(&world, &tree, 5, 2000);
            drop(tree);
            let tree = world.open();
            let current = tree.current().unwrap().expect("one of the two").release;
            match current.id() == first.id() {
                true => {
                    assert_eq!(look(&world.www()), before, "crash {after}");
                    assert_eq!(
                        tree.state().grant(Serial(5)).unwrap().as_deref(),
                        Some(&b"first"[..])
                    );
                }
                false => assert_eq!(look(&world.www()), look(&world.source()), "crash {after}"),
            }
            if let Ok(second) = done {
                assert_eq!(
                    tree.state().following(&first).unwrap(),
                    None,
                    "the later one stays"
                );
                drop(tree);
                undo_with_crashes(&world, &first, &second);
                break;
            }
        }
    }
}

/// Reverts the second of two releases with one serial, from every state that allows a revert.
fn undo_with_crashes(world: &World, first: &Release, second: &Release) {
    for after in 0..60 {
        let tree = world.open_crashing(Some(after)).unwrap();
        let current = tree.current().unwrap().unwrap().release.id();
        if current == first.id() {
            break;
        }
        assert_eq!(current, second.id());
        let _ = tree.revert();
        drop(tree);
        drop(world.open_crashing(Some(after)));
        drop(world.open());
    }

    let tree = world.open();
    assert_eq!(tree.current().unwrap().unwrap().release.id(), first.id());
    assert_eq!(
        tree.state().grant(Serial(5)).unwrap().as_deref(),
        Some(&b"first"[..])
    );
}
