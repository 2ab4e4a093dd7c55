//! Tests of the events that the kernel reports, and of the changes derived from them.

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::Result;
use crate::manifest::rules::PathFilter;
use crate::watch::batch::{ChangeBatch, Pace};
use crate::watch::watched_dirs::MOVE_TIMEOUT;

struct Fixture {
    dir: tempfile::TempDir,
    watcher: Watcher,
    batcher: Batcher,
    now: Moment,
}

impl Fixture {
    fn on(dirs: &[&str], excludes: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        dirs.iter().for_each(|name| {
            std::fs::create_dir_all(dir.path().join("top").join(name)).expect("new")
        });
        Self::of(dir, excludes)
    }

    fn of(dir: tempfile::TempDir, excludes: &[&str]) -> Self {
        let excluded = PathFilter::at_top(excludes);
        let target = WatchTarget {
            source: dir.path().join("top"),
            excluded,
            own: None,
        };

        let pace = Pace {
            settle: Duration::ZERO,
            max_delay: Duration::ZERO,
        };

        let watcher = Watcher::establish(target).expect("watched");
        Self {
            dir,
            watcher,
            batcher: Batcher::new(pace),
            now: Moment(1),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("top").join(name)
    }

    fn read(&mut self) -> Result<Events> {
        self.now = self.now + Duration::from_secs(3600);
        loop {
            match self.watcher.read_events(self.now, &mut self.batcher)? {
                Events::More => {}
                other => return Ok(other),
            }
        }
    }

    /// Changes reported since the last call, with `.` for the root.
    fn changes(&mut self) -> Vec<String> {
        assert_eq!(self.read().expect("there"), Events::Drained);

        match self.batcher.take(self.now + Duration::from_secs(3600)) {
            None => Vec::new(),
            Some(ChangeBatch::Paths(batch)) => {
                let top = batch.top.then(|| ".".to_string());
                let mut all: Vec<String> = batch
                    .paths
                    .iter()
                    .map(|p| p.to_string())
                    .chain(top)
                    .collect();
                all.sort();
                all
            }
            Some(everything) => panic!("{everything:?}"),
        }
    }

    fn write(&self, name: &str) {
        std::fs::write(self.path(name), "x").expect("written");
    }

    fn mkdir(&self, name: &str) {
        std::fs::create_dir_all(self.path(name)).expect("made");
    }

    fn rename(&self, from: &str, to: &str) {
        std::fs::rename(self.path(from), self.path(to)).expect("renamed");
    }
}

#[test]
fn a_path_is_told_where_it_is() {
    let mut fixture = Fixture::on(&["a/b", "c"], &[]);
    assert_eq!(
        (fixture.watcher.directories(), fixture.changes().len()),
        (4, 0)
    );
    fixture.write("a/b/file");
    fixture.write("top-file");
    assert_eq!(fixture.changes(), [".", "a/b/file", "top-file"]);
    std::fs::remove_file(fixture.path("a/b/file")).expect("there");
    std::fs::set_permissions(
        fixture.path("c"),
        std::os::unix::fs::PermissionsExt::from_mode(0o700),
    )
    .expect("mine");

    assert_eq!(fixture.changes(), [".", "a/b/file", "c"]);
    std::fs::set_permissions(
        fixture.path(""),
        std::os::unix::fs::PermissionsExt::from_mode(0o700),
    )
    .expect("mine");

    assert_eq!(fixture.changes(), ["."]);
}

#[test]
fn what_is_made_in_a_new_directory_before_it_is_watched_is_found() {
    let mut fixture = Fixture::on(&["a"], &[]);
    fixture.mkdir("a/new/deep");
    fixture.write("a/new/deep/file");
    assert_eq!(
        fixture.changes(),
        ["a/new", "a/new/deep", "a/new/deep/file"]
    );
    assert_eq!(fixture.watcher.directories(), 4);
    fixture.write("a/new/deep/other");
    assert_eq!(fixture.changes(), ["a/new/deep/other"]);
}

#[test]
fn a_directory_that_is_renamed_is_heard_under_its_new_name() {
    let mut fixture = Fixture::on(&["a/sub/deep", "b"], &[]);
    fixture.rename("a/sub", "b/moved");
    fixture.write("b/moved/deep/file");
    let changes = fixture.changes();
    assert!(
        changes.contains(&"a/sub".to_string())
            && changes.contains(&"b/moved/deep/file".to_string()),
        "{changes:?}"
    );

    assert_eq!(fixture.watcher.directories(), 5);
    fixture.write("b/moved/deep/file");
    assert_eq!(fixture.changes(), ["b/moved/deep/file"]);

    // There and back again, with all events read late.
    fixture.rename("b/moved", "a/sub");
    fixture.rename("a/sub", "a/other");
    fixture.rename("a/other", "a/sub");
    fixture.changes();
    fixture.write("a/sub/deep/file");

    assert_eq!(fixture.changes(), ["a/sub/deep/file"]);
}

#[test]
fn a_directory_that_leaves_is_forgotten_and_one_that_takes_its_name_is_heard() {
    let mut fixture = Fixture::on(&["a/sub/deep"], &[]);
    let out = fixture.dir.path().join("out");
    std::fs::rename(fixture.path("a/sub"), &out).expect("renamed");
    fixture.mkdir("a/sub");
    fixture.changes();
    std::fs::write(out.join("deep/file"), "x").expect("written");
    fixture.write("a/sub/file");

    assert_eq!(fixture.changes(), ["a/sub/file"]);
    assert!(fixture.watcher.is_waiting());
    fixture.watcher.forget(fixture.now + MOVE_TIMEOUT);
    assert_eq!(
        (fixture.watcher.directories(), fixture.watcher.is_waiting()),
        (3, false)
    );

    std::fs::rename(&out, fixture.path("back")).expect("renamed");
    fixture.changes();
    fixture.write("back/deep/file");

    assert_eq!(fixture.changes(), ["back/deep/file"]);
}

#[test]
fn directories_that_changed_places_are_both_heard() {
    use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
    let mut fixture = Fixture::on(&["a/x", "b/y"], &[]);
    if renameat2(
        AT_FDCWD,
        &fixture.path("a"),
        AT_FDCWD,
        &fixture.path("b"),
        RenameFlags::RENAME_EXCHANGE,
    )
    .is_err()
    {
        return crate::skip::skipped("no exchange here");
    }

    fixture.changes();
    fixture.watcher.forget(fixture.now + MOVE_TIMEOUT);
    assert_eq!(fixture.watcher.directories(), 5);
    fixture.write("a/y/file");
    fixture.write("b/x/file");

    assert_eq!(fixture.changes(), ["a/y/file", "b/x/file"]);
}

#[test]
fn links_are_never_followed() {
    let mut fixture = Fixture::on(&["a"], &[]);
    std::fs::create_dir(fixture.dir.path().join("outside")).expect("new");
    symlink("../../outside", fixture.path("a/link")).expect("new");
    assert_eq!(fixture.changes(), ["a/link"]);
    std::fs::write(fixture.dir.path().join("outside/file"), "x").expect("written");
    assert!(fixture.changes().is_empty() && fixture.watcher.directories() == 2);
}

#[test]
fn what_is_excluded_is_not_watched_but_the_time_of_its_directory_is_told() {
    let mut fixture = Fixture::on(&["a/cache/deep", "b"], &["cache/", "*.tmp"]);
    assert_eq!(fixture.watcher.directories(), 3);
    fixture.write("a/cache/deep/file");
    assert!(fixture.changes().is_empty());
    fixture.write("b/x.tmp");
    assert_eq!(fixture.changes(), [".", "b"]);
    fixture.write("b/x.tmp");

    assert!(fixture.changes().is_empty());
}

#[test]
fn an_ignore_file_that_takes_something_back_makes_everything_heard() {
    let mut fixture = Fixture::on(&["a/cache/deep"], &["cache/"]);
    std::fs::write(fixture.path("a/.makuoignore"), "!cache/\n").expect("written");
    assert!(matches!(fixture.read(), Ok(Events::Lost(_))));
    let Fixture { dir, .. } = fixture;
    let mut fixture = Fixture::of(dir, &["cache/"]);
    assert_eq!(fixture.watcher.directories(), 4);
    fixture.write("a/cache/deep/file");

    assert_eq!(fixture.changes(), ["a/cache/deep/file"]);
}

#[test]
fn makuos_own_directory_is_left_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::create_dir_all(dir.path().join("top/.cache/makuo")).expect("new");
    let mut fixture = Fixture::of(dir, &[]);
    let target = WatchTarget {
        own: Some(fixture.path(".cache/makuo")),
        ..fixture.watcher.target().clone()
    };

    fixture.watcher = Watcher::establish(target).expect("watched");
    assert_eq!(fixture.watcher.directories(), 2);
    fixture.write(".cache/makuo/index");

    assert!(fixture.changes().is_empty());
}

#[test]
fn a_source_that_is_gone_or_another_is_an_error() {
    for how in ["removed", "moved", "replaced"] {
        let mut fixture = Fixture::on(&["a"], &[]);
        let aside = fixture.dir.path().join("aside");
        match how {
            "removed" => std::fs::remove_dir_all(fixture.path("")).expect("mine"),
            "moved" => std::fs::rename(fixture.path(""), &aside).expect("mine"),
            _ => {
                std::fs::rename(fixture.path(""), &aside).expect("mine");
                fixture.mkdir("a");
            }
        }

        let error = fixture.read().expect_err(how);
        assert!(
            error.to_string().contains("nothing is deployed any more"),
            "{error}"
        );
        assert!(fixture.watcher.check().is_err());
    }
}

#[test]
fn an_overflow_is_told() {
    let mut fixture = Fixture::on(&["a"], &[]);
    let Some(queued) = limit(limits::MAX_QUEUED_EVENTS).filter(|n| *n <= 20_000) else {
        return crate::skip::skipped("the queue is long, or its length unknown");
    };

    // Two distinct events for each file.
    (0..=queued / 2).for_each(|i| fixture.write(&format!("a/f{i}")));
    let Ok(Events::Lost(why)) = fixture.read() else {
        panic!("nothing was lost")
    };

    assert!(why.contains("overflowed"), "{why}");
}
