//! What the kernel tells, and what is made of it.

use super::*;
use crate::watch::batch::{Batch, Pace};
use std::os::unix::fs::symlink;

struct Eye {
    dir: tempfile::TempDir,
    watcher: Watcher,
    batcher: Batcher,
    now: Moment,
}

impl Eye {
    fn on(dirs: &[&str], excludes: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        dirs.iter().for_each(|name| {
            std::fs::create_dir_all(dir.path().join("top").join(name)).expect("new")
        });
        Self::of(dir, excludes)
    }

    fn of(dir: tempfile::TempDir, excludes: &[&str]) -> Self {
        let excluded = PathFilter::at_top(excludes);
        let target = Target {
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

    fn hear(&mut self) -> Result<Heard> {
        self.now = self.now + Duration::from_secs(3600);
        loop {
            match self.watcher.hear(self.now, &mut self.batcher)? {
                Heard::Some => {}
                other => return Ok(other),
            }
        }
    }

    /// What was told since the last time, and `.` for the top.
    fn told(&mut self) -> Vec<String> {
        assert_eq!(self.hear().expect("there"), Heard::All);
        match self.batcher.take(self.now + Duration::from_secs(3600)) {
            None => Vec::new(),
            Some(Batch::Paths(batch)) => {
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
    let mut eye = Eye::on(&["a/b", "c"], &[]);
    assert_eq!((eye.watcher.directories(), eye.told().len()), (4, 0));
    eye.write("a/b/file");
    eye.write("top-file");
    assert_eq!(eye.told(), [".", "a/b/file", "top-file"]);
    std::fs::remove_file(eye.path("a/b/file")).expect("there");
    std::fs::set_permissions(
        eye.path("c"),
        std::os::unix::fs::PermissionsExt::from_mode(0o700),
    )
    .expect("mine");

    assert_eq!(eye.told(), [".", "a/b/file", "c"]);
    std::fs::set_permissions(
        eye.path(""),
        std::os::unix::fs::PermissionsExt::from_mode(0o700),
    )
    .expect("mine");

    assert_eq!(eye.told(), ["."]);
}

#[test]
fn what_is_made_in_a_new_directory_before_it_is_watched_is_found() {
    let mut eye = Eye::on(&["a"], &[]);
    eye.mkdir("a/new/deep");
    eye.write("a/new/deep/file");
    assert_eq!(eye.told(), ["a/new", "a/new/deep", "a/new/deep/file"]);
    assert_eq!(eye.watcher.directories(), 4);
    eye.write("a/new/deep/other");
    assert_eq!(eye.told(), ["a/new/deep/other"]);
}

#[test]
fn a_directory_that_is_renamed_is_heard_under_its_new_name() {
    let mut eye = Eye::on(&["a/sub/deep", "b"], &[]);
    eye.rename("a/sub", "b/moved");
    eye.write("b/moved/deep/file");
    let told = eye.told();
    assert!(
        told.contains(&"a/sub".to_string()) && told.contains(&"b/moved/deep/file".to_string()),
        "{told:?}"
    );

    assert_eq!(eye.watcher.directories(), 5);
    eye.write("b/moved/deep/file");
    assert_eq!(eye.told(), ["b/moved/deep/file"]);

    // There and back again, all of it heard late.
    eye.rename("b/moved", "a/sub");
    eye.rename("a/sub", "a/other");
    eye.rename("a/other", "a/sub");
    eye.told();
    eye.write("a/sub/deep/file");

    assert_eq!(eye.told(), ["a/sub/deep/file"]);
}

#[test]
fn a_directory_that_leaves_is_forgotten_and_one_that_takes_its_name_is_heard() {
    let mut eye = Eye::on(&["a/sub/deep"], &[]);
    let out = eye.dir.path().join("out");
    std::fs::rename(eye.path("a/sub"), &out).expect("renamed");
    eye.mkdir("a/sub");
    eye.told();
    std::fs::write(out.join("deep/file"), "x").expect("written");
    eye.write("a/sub/file");

    assert_eq!(eye.told(), ["a/sub/file"]);
    assert!(eye.watcher.is_waiting());
    eye.watcher.forget(eye.now + AWAY);
    assert_eq!(
        (eye.watcher.directories(), eye.watcher.is_waiting()),
        (3, false)
    );

    std::fs::rename(&out, eye.path("back")).expect("renamed");
    eye.told();
    eye.write("back/deep/file");

    assert_eq!(eye.told(), ["back/deep/file"]);
}

#[test]
fn directories_that_changed_places_are_both_heard() {
    use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
    let mut eye = Eye::on(&["a/x", "b/y"], &[]);
    if renameat2(
        AT_FDCWD,
        &eye.path("a"),
        AT_FDCWD,
        &eye.path("b"),
        RenameFlags::RENAME_EXCHANGE,
    )
    .is_err()
    {
        return println!("skipped: no exchange here");
    }

    eye.told();
    eye.watcher.forget(eye.now + AWAY);
    assert_eq!(eye.watcher.directories(), 5);
    eye.write("a/y/file");
    eye.write("b/x/file");

    assert_eq!(eye.told(), ["a/y/file", "b/x/file"]);
}

#[test]
fn links_are_never_followed() {
    let mut eye = Eye::on(&["a"], &[]);
    std::fs::create_dir(eye.dir.path().join("outside")).expect("new");
    symlink("../../outside", eye.path("a/link")).expect("new");
    assert_eq!(eye.told(), ["a/link"]);
    std::fs::write(eye.dir.path().join("outside/file"), "x").expect("written");
    assert!(eye.told().is_empty() && eye.watcher.directories() == 2);
}

#[test]
fn what_is_excluded_is_not_watched_but_the_time_of_its_directory_is_told() {
    let mut eye = Eye::on(&["a/cache/deep", "b"], &["cache/", "*.tmp"]);
    assert_eq!(eye.watcher.directories(), 3);
    eye.write("a/cache/deep/file");
    assert!(eye.told().is_empty());
    eye.write("b/x.tmp");
    assert_eq!(eye.told(), [".", "b"]);
    eye.write("b/x.tmp");

    assert!(eye.told().is_empty());
}

#[test]
fn an_ignore_file_that_takes_something_back_makes_everything_heard() {
    let mut eye = Eye::on(&["a/cache/deep"], &["cache/"]);
    std::fs::write(eye.path("a/.makuoignore"), "!cache/\n").expect("written");
    assert!(matches!(eye.hear(), Ok(Heard::Lost(_))));
    let Eye { dir, .. } = eye;
    let mut eye = Eye::of(dir, &["cache/"]);
    assert_eq!(eye.watcher.directories(), 4);
    eye.write("a/cache/deep/file");

    assert_eq!(eye.told(), ["a/cache/deep/file"]);
}

#[test]
fn makuos_own_directory_is_left_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::create_dir_all(dir.path().join("top/.cache/makuo")).expect("new");
    let mut eye = Eye::of(dir, &[]);
    let target = Target {
        own: Some(eye.path(".cache/makuo")),
        ..eye.watcher.target().clone()
    };

    eye.watcher = Watcher::establish(target).expect("watched");
    assert_eq!(eye.watcher.directories(), 2);
    eye.write(".cache/makuo/index");

    assert!(eye.told().is_empty());
}

#[test]
fn a_source_that_is_gone_or_another_is_an_error() {
    for how in ["removed", "moved", "replaced"] {
        let mut eye = Eye::on(&["a"], &[]);
        let aside = eye.dir.path().join("aside");
        match how {
            "removed" => std::fs::remove_dir_all(eye.path("")).expect("mine"),
            "moved" => std::fs::rename(eye.path(""), &aside).expect("mine"),
            _ => {
                std::fs::rename(eye.path(""), &aside).expect("mine");
                eye.mkdir("a");
            }
        }
        let error = eye.hear().expect_err(how);
        assert!(
            error.to_string().contains("nothing is deployed any more"),
            "{error}"
        );
        assert!(eye.watcher.check().is_err());
    }
}

#[test]
fn an_overflow_is_told() {
    let mut eye = Eye::on(&["a"], &[]);
    let Some(queued) = limit(limits::MAX_QUEUED).filter(|n| *n <= 20_000) else {
        return println!("skipped: the queue is long, or its length unknown");
    };

    // Two events each, which are not alike.
    (0..=queued / 2).for_each(|i| eye.write(&format!("a/f{i}")));
    let Ok(Heard::Lost(why)) = eye.hear() else {
        panic!("nothing was lost")
    };

    assert!(why.contains("overflowed"), "{why}");
}
