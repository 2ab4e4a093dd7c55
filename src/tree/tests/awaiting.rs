//! Releases that stay staged after their session: over restarts, other sessions, and a crash at
//! every step.

use std::sync::Arc;

use super::crash::{new, old};
use super::deploy::noise;
use super::world::{Thing, World, file, look};
use crate::id::{Serial, SessionId};
use crate::manifest::Release;
use crate::tree::stage::Stage;
use crate::tree::{Tree, Worktree};
use crate::units::WallTime;
use crate::wire::message::{Order, OrderKind, SignedOrder};
use crate::{Error, Result};

const NOW: WallTime = WallTime(1_000);

fn large() -> Vec<(&'static str, Thing)> {
    let mut things = new();
    things.push(("z-large", Thing::File(noise(120_000, 5), 0o640)));
    things
}

fn other() -> Vec<(&'static str, Thing)> {
    vec![
        ("changed", file("of another release")),
        ("z-other", Thing::File(noise(90_000, 6), 0o600)),
    ]
}

/// Stages the source as release `serial`, and keeps it.
fn keep(world: &World, tree: &Arc<Tree>, serial: u64) -> Result<Release> {
    let (staged, release) = world.stage(tree, serial)?;
    staged.abort();
    tree.keep_staged(&release, b"signature", NOW)?;
    Ok(release)
}

/// Begins to stage the source as release `serial`, as a later session does.
fn again(world: &World, tree: &Arc<Tree>, serial: u64) -> Result<(Stage, Release)> {
    let kept = tree.awaiting()?.map(|found| found.stored.release);
    let release = kept.filter(|release| release.header().serial == Serial(serial));
    if let Some(release) = release {
        tree.stage_for(&release)?;
    }
    let (stage, release, _) = world.begin(tree, serial)?;
    Ok((stage, release))
}

/// Puts the remains of another release into the stage.
fn disturb(world: &World, tree: &Arc<Tree>, serial: u64) -> Result<()> {
    let release = Release::new(crate::manifest::Header {
        serial: Serial(serial),
        ..crate::manifest::header::tests::a_header()
    });
    tree.stage_for(&release.map_err(|e| Error::refused(e.to_string()))?)?;
    let (staged, _) = world.stage(tree, serial)?;
    staged.abort();
    Ok(())
}

fn awaiting(tree: &Worktree) -> Option<u64> {
    let found = tree.state().awaiting().expect("readable");
    found.map(|found| found.serial().0)
}

fn apart(world: &World) -> Vec<String> {
    let state = world.www().with_file_name(".makuo/www");
    let names = std::fs::read_dir(state).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("staged")).collect()
}

fn order(kind: OrderKind, release: &Release) -> SignedOrder {
    SignedOrder {
        order: Order::new(SessionId(1), release, kind).encode(),
        signature: b"signed".to_vec(),
        hosts: None,
    }
}

#[test]
fn a_staged_release_is_committed_after_restarts_and_other_sessions_without_a_transfer() {
    for swap in [false, true] {
        let world = World::new(&old(), &large()).swapping(swap);
        let before = look(&world.www());
        let release = keep(&world, &world.open(), 5).unwrap();
        assert_eq!(look(&world.www()), before, "staging changed the tree");

        world.release(&other());
        disturb(&world, &world.open(), 6).unwrap();
        let tree = world.open();
        assert_eq!(awaiting(&tree), Some(5));
        disturb(&world, &tree, 7).unwrap();

        world.release(&large());
        let (stage, same) = again(&world, &tree, 5).unwrap();
        assert_eq!(same.id(), release.id());
        assert!(stage.wants().is_empty(), "swap {swap}: {:?}", stage.wants());
        stage.finish().unwrap().commit(&same, b"signature").unwrap();

        assert_eq!(look(&world.www()), look(&world.source()), "swap {swap}");
        assert_eq!(awaiting(&tree), None);
        let swept = tree.sweep_staged(NOW).unwrap();
        assert_eq!(swept.map(|(serial, _)| serial), Some(Serial(5)));
        assert_eq!(apart(&world), [""; 0]);
    }
}

#[test]
fn a_newer_release_takes_the_place_of_a_staged_one_and_an_older_one_does_not() {
    let world = World::new(&old(), &large());
    let tree = world.open();
    keep(&world, &tree, 5).unwrap();
    world.release(&other());
    disturb(&world, &tree, 6).unwrap();
    assert_eq!(apart(&world).len(), 2, "a record, and content apart");

    let (staged, six) = world.stage(&tree, 6).unwrap();
    staged.abort();
    let replaced = tree.keep_staged(&six, b"signature", NOW).unwrap();
    assert_eq!(replaced, Some(Serial(5)));
    assert_eq!(awaiting(&tree), Some(6));
    assert_eq!(
        apart(&world),
        ["staged"],
        "content of the older one is gone"
    );

    let refused = keep(&world, &tree, 4).unwrap_err().to_string();
    assert!(
        refused.contains("www@6 is staged here already"),
        "{refused}"
    );
    assert_eq!(awaiting(&tree), Some(6));

    world.deploy(&tree, 7).unwrap();
    assert_eq!(awaiting(&tree), None);
    let (_, why) = tree.sweep_staged(NOW).unwrap().expect("one");
    assert_eq!(why, "replaced by www@7");
}

#[test]
fn an_aborted_or_expired_release_is_staged_no_more() {
    let world = World::new(&old(), &large());
    let tree = world.open();
    let release = keep(&world, &tree, 5).unwrap();
    assert_eq!(tree.sweep_staged(NOW).unwrap(), None);

    let now = std::time::UNIX_EPOCH + std::time::Duration::from_secs(2_000);
    tree.bury(&order(OrderKind::Abort, &release), now).unwrap();
    assert_eq!(awaiting(&tree), None, "at once");
    let swept = tree.sweep_staged(NOW).unwrap();
    assert_eq!(swept, Some((Serial(5), "aborted by its sender".into())));
    let again = tree.sweep_staged(NOW).unwrap();
    assert_eq!(again, None);

    // The same content under a new serial, with an end.
    let (staged, release) = world.stage(&tree, 6).unwrap();
    staged.abort();
    let header = crate::manifest::Header {
        expires: Some(WallTime(NOW.0 + 10)),
        ..release.header().clone()
    };
    let release = Release::new(header).unwrap();
    tree.keep_staged(&release, b"signature", NOW).unwrap();
    let later = |seconds| WallTime(NOW.0 + seconds);
    assert_eq!(tree.sweep_staged(later(9)).unwrap(), None);
    let swept = tree.sweep_staged(later(10)).unwrap();
    assert_eq!(swept, Some((Serial(6), "expired".into())));
    tree.forget_if_staged(&release).unwrap();
}

#[test]
fn a_damaged_record_holds_up_nothing() {
    let world = World::new(&old(), &large());
    keep(&world, &world.open(), 5).unwrap();
    let record = world.www().with_file_name(".makuo/www/staged");
    for bytes in [b"".as_slice(), b"\x83\x41", &[0xff; 40]] {
        std::fs::write(&record, bytes).unwrap();
        assert_eq!(awaiting(&world.open()), None);
    }
    world.deploy(&world.open(), 6).unwrap();
}

#[test]
fn a_crash_at_any_step_loses_neither_the_tree_nor_a_staged_release() {
    for swap in [false, true] {
        let mut kept = 0;
        for after in 0.. {
            let world = World::new(&old(), &large()).swapping(swap);
            let before = look(&world.www());
            let course = |tree: &Arc<Tree>| -> Result<()> {
                keep(&world, tree, 5)?;
                world.release(&other());
                disturb(&world, tree, 6)?;
                world.release(&large());
                drop(again(&world, tree, 5)?);
                Ok(())
            };

            let was_staged;
            {
                let Ok(tree) = world.open_crashing(Some(after)) else {
                    continue;
                };
                let done = course(&tree);
                was_staged = awaiting(&tree) == Some(5);
                if done.is_ok() {
                    assert!(
                        after > 5 && kept > 5,
                        "swap {swap}: {after} steps, {kept} kept"
                    );
                    break;
                }
            }

            let at = format!("swap {swap}, crash after {after}");
            let tree = world.open();
            assert_eq!(look(&world.www()), before, "{at}");
            assert_eq!(awaiting(&tree) == Some(5), was_staged, "{at}");
            world.release(&large());
            let (stage, release) = again(&world, &tree, 5).unwrap();
            if was_staged {
                kept += 1;
                assert!(stage.wants().is_empty(), "{at}: {:?}", stage.wants());
                stage
                    .finish()
                    .unwrap()
                    .commit(&release, b"signature")
                    .unwrap();
                assert_eq!(look(&world.www()), look(&world.source()), "{at}");
            }
        }
    }
}

#[test]
fn a_twin_of_the_serial_takes_no_content_away() {
    let world = World::new(&old(), &large());
    let tree = world.open();
    keep(&world, &tree, 5).unwrap();

    world.release(&other());
    let twin = Release::new(crate::manifest::Header {
        serial: Serial(5),
        ..crate::manifest::header::tests::a_header()
    });
    tree.stage_for(&twin.unwrap()).unwrap();
    let (staged, twin) = world.stage(&tree, 5).unwrap();
    staged.abort();
    tree.keep_staged(&twin, b"signature", NOW).unwrap();

    let tree = {
        drop(tree);
        world.open()
    };
    tree.stage_for(&twin).unwrap();
    let (stage, _, _) = world.begin(&tree, 5).unwrap();
    assert!(stage.wants().is_empty(), "{:?}", stage.wants());
}

#[test]
fn a_damaged_record_of_a_hold_holds_the_tree() {
    let world = World::new(&old(), &large());
    let tree = world.open();
    assert_eq!(tree.state().hold_record().unwrap().hold, None);
    let record = world.www().with_file_name(".makuo/www/hold");
    std::fs::write(record, "damaged").unwrap();
    let hold = tree.state().hold_record().unwrap().hold;
    assert!(hold.is_some_and(|hold| hold.until() > WallTime(i64::from(u32::MAX))));
}
