//! Leftovers of an aborted transfer on a disk without space for both the leftovers and the next
//! release.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::deploy::{Mount, noise};
use super::world::{Thing, World, look};
use crate::id::Ordinal;
use crate::tree::stage::Stage;

/// Size of a filesystem; a release takes seven tenths.
const SPACE: usize = 10 << 20;
const WANTED: usize = SPACE / 10 * 7;

/// An ext4 image, mounted until dropped.
struct Loop(PathBuf);

impl Loop {
    fn mount(image: &Path, at: &Path) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        // The filesystem's own tables take a part of the space.
        std::fs::File::create(image)
            .unwrap()
            .set_len(SPACE as u64 / 4 * 5)
            .unwrap();

        let run = |command: &mut Command| command.output().is_ok_and(|o| o.status.success());
        let made = run(Command::new("mkfs.ext4")
            .args(["-q", "-F", "-m", "0", "-O", "^has_journal"])
            .arg(image));
        let mounted = made
            && run(Command::new("mount")
                .args(["-o", "loop"])
                .arg(image)
                .arg(at));

        mounted.then(|| Self(at.to_path_buf()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Fetches `part` thousandths of the missing content.
fn fetch(stage: &Stage, source: &super::world::Scanned, part: u64) {
    let wanted: Vec<u64> = stage.wants().iter().cloned().flatten().collect();
    let end = wanted.len() * part as usize / 1000;
    for ordinal in &wanted[..end] {
        let block = stage.wanted(Ordinal(*ordinal)).unwrap().unwrap();
        assert!(
            stage
                .put(Ordinal(*ordinal), &source.blocks[&block.hash])
                .unwrap()
        );
    }
}

/// Truncates the logs as the end of a process does.
fn lose_logs(world: &World) {
    for entry in std::fs::read_dir(world.www().with_file_name(".makuo/www/stage")).unwrap() {
        let path = entry.unwrap().path();
        if path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("log-"))
        {
            std::fs::write(path, "").unwrap();
        }
    }
}

fn try_again(host: &Path, killed: bool) {
    std::fs::create_dir(host.join("www")).unwrap();
    let new = [
        ("large", Thing::File(noise(WANTED, 3), 0o640)),
        ("small", Thing::File(noise(1000, 4), 0o600)),
    ];
    let world = World::new(&[], &new).hosted(host);

    for serial in 1..3 {
        let tree = world.open();
        let (stage, _, source) = world.begin(&tree, serial).unwrap();
        stage.reserve().unwrap();
        fetch(&stage, &source, 400);
        stage.abort();
        if killed {
            lose_logs(&world);
        }
    }

    let tree = world.open();
    let (stage, ..) = world.begin(&tree, 3).unwrap();
    let wanted = stage.plan().summary.fetch_bytes as usize;
    assert!(
        killed || wanted < WANTED / 2,
        "what came is not fetched again: {wanted}"
    );

    stage.abort();
    world.deploy(&tree, 4).unwrap();
    assert_eq!(look(&world.www()), look(&world.source()));
}

#[test]
fn what_an_aborted_transfer_left_is_not_in_the_way_of_the_next() {
    for killed in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let Some(_mount) = Mount::tmpfs(&dir.path().join("disk"), &format!("size={SPACE}")) else {
            crate::skip::skipped("no right to mount a tmpfs");
            return;
        };
        try_again(&dir.path().join("disk"), killed);
    }
}

#[test]
fn nor_is_it_where_space_is_taken_beforehand() {
    for killed in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let Some(_disk) = Loop::mount(&dir.path().join("image"), &dir.path().join("disk")) else {
            crate::skip::skipped("no right or no tools to make and mount an ext4");
            return;
        };
        try_again(&dir.path().join("disk"), killed);
    }
}

/// A seeded random number generator.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end.max(1)
    }
}

/// Makes a release of a few files that fits: some unchanged, some with data inserted at the front,
/// some new.
fn files(random: &mut Random, last: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut left = WANTED;
    let mut all = Vec::new();
    for nth in 0..1 + random.below(4) as usize {
        let mut bytes = match (random.below(3), last.get(nth)) {
            (0, Some(same)) => same.clone(),
            (1, Some(same)) => [
                noise(random.below(100_000) as usize, random.0),
                same.clone(),
            ]
            .concat(),
            _ => noise(random.below(left as u64) as usize, random.0),
        };
        if random.below(3) == 0 {
            let hole = bytes.len() / 4..bytes.len() / 2;
            bytes[hole].fill(0);
        }
        bytes.truncate(left);
        left -= bytes.len();
        all.push(bytes);
    }

    all
}

/// `MAKUO_RESUME_SEED` sets the seed, `MAKUO_RESUME_ROUNDS` the number of rounds.
#[test]
fn a_release_that_fits_arrives_after_any_aborted_ones() {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    let first = number("MAKUO_RESUME_SEED").unwrap_or(1);
    for seed in first..first + number("MAKUO_RESUME_ROUNDS").unwrap_or(3) {
        println!("seed {seed}");
        let mut random = Random(seed);
        let dir = tempfile::tempdir().unwrap();
        let Some(_mount) = Mount::tmpfs(&dir.path().join("disk"), &format!("size={SPACE}")) else {
            crate::skip::skipped("no right to mount a tmpfs");
            return;
        };
        let host = dir.path().join("disk");
        std::fs::create_dir(host.join("www")).unwrap();
        let world = World::new(&[], &[]).hosted(&host);
        let mut last = Vec::new();
        for serial in 1..6 {
            last = files(&mut random, &last);
            let names = ["a", "b", "c", "d"];
            let modes = [0o600, 0o644, 0o444, 0o4755];
            let things = last.iter().zip(names);
            let things: Vec<_> = things
                .map(|(bytes, name)| {
                    (
                        name,
                        Thing::File(bytes.clone(), modes[random.below(4) as usize]),
                    )
                })
                .collect();
            world.release(&things);
            let tree = world.open();
            let (stage, _, source) = world.begin(&tree, serial).expect("it fits");
            fetch(&stage, &source, random.below(1001));
            if random.below(3) == 0 {
                let _ = stage.finish();
            } else {
                stage.abort();
            }
            if random.below(4) == 0 {
                lose_logs(&world);
            }
        }
        world.deploy(&world.open(), 9).expect("it fits");
        assert_eq!(look(&world.www()), look(&world.source()), "seed {seed}");
    }
}
