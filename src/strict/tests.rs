//! Files that others could have changed are refused, with a remedy that works.

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, chown, symlink};

use super::*;

struct KeyDir(tempfile::TempDir);

impl KeyDir {
    /// `a/b/key`, with safe modes.
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        std::fs::create_dir_all(place.at("a/b")).unwrap();
        std::fs::write(place.at("a/b/key"), "secret").unwrap();
        for (name, mode) in [("a", 0o755), ("a/b", 0o755), ("a/b/key", 0o600)] {
            place.set(name, mode);
        }
        place
    }

    fn at(&self, name: &str) -> PathBuf {
        std::fs::canonicalize(self.0.path()).unwrap().join(name)
    }

    fn set(&self, name: &str, mode: u32) {
        std::fs::set_permissions(self.at(name), std::fs::Permissions::from_mode(mode)).unwrap();
    }

    fn reads(&self, name: &str) -> Result<String> {
        let mut text = String::new();
        open(&self.at(name), Readers::Owner)?
            .read_to_string(&mut text)
            .unwrap();
        Ok(text)
    }

    #[track_caller]
    fn refused(&self, name: &str, of: &str, mends: &str) {
        let error = self.reads(name).expect_err(name);
        let of = self.at(of).display().to_string();
        let hint = error.hint_text().unwrap_or_default();
        assert!(
            error.to_string().contains(&format!("{of} ")) && error.to_string().contains("mode "),
            "{error}"
        );
        assert_eq!(hint, format!("{mends} {of}"), "{error}");

        assert_eq!(error.kind(), crate::Kind::Usage);
    }
}

#[test]
fn a_file_that_others_can_change_or_read_is_refused_and_the_remedy_works() {
    let place = KeyDir::new();
    assert_eq!(place.reads("a/b/key").unwrap(), "secret");
    for (name, bad, good, mends) in [
        ("a/b/key", 0o620, 0o600, "chmod go-w"),
        ("a/b/key", 0o602, 0o600, "chmod go-w"),
        ("a/b/key", 0o640, 0o600, "chmod 0600"),
        ("a/b/key", 0o604, 0o600, "chmod 0600"),
        ("a/b", 0o775, 0o755, "chmod go-w"),
        ("a", 0o757, 0o755, "chmod go-w"),
    ] {
        place.set(name, bad);
        place.refused("a/b/key", name, mends);
        place.set(name, good);
        assert!(place.reads("a/b/key").is_ok(), "{name}");
    }

    // The sticky bit makes a writable directory safe, but not a writable file.
    place.set("a", 0o1777);
    assert!(place.reads("a/b/key").is_ok());
    place.set("a/b/key", 0o1622);

    place.refused("a/b/key", "a/b/key", "chmod go-w");
}

#[test]
fn who_may_read_depends_on_what_it_is() {
    let place = KeyDir::new();
    place.set("a/b/key", 0o644);
    assert!(open(&place.at("a/b/key"), Readers::All).is_ok());
    assert!(open(&place.at("a/b/key"), Readers::Group).is_err());
    place.set("a/b/key", 0o640);
    assert!(open(&place.at("a/b/key"), Readers::Group).is_ok());
    assert!(open(&place.at("a/b/key"), Readers::Owner).is_err());
}

#[test]
fn links_are_followed_and_both_ways_to_the_file_are_checked() {
    let place = KeyDir::new();
    std::fs::create_dir_all(place.at("c")).unwrap();
    symlink("../a/b/key", place.at("c/relative")).unwrap();
    symlink(place.at("a/b"), place.at("c/absolute")).unwrap();

    for name in [
        "c/relative",
        "c/absolute/key",
        "c/../a/./b/key",
        "c/absolute/../b/key",
    ] {
        assert_eq!(place.reads(name).unwrap(), "secret", "{name}");
    }

    place.set("c", 0o777);
    for name in ["c/relative", "c/absolute/key"] {
        place.refused(name, "c", "chmod go-w");
    }

    place.set("c", 0o755);
    place.set("a", 0o777);
    for name in ["c/relative", "c/absolute/key"] {
        place.refused(name, "a", "chmod go-w");
    }

    symlink("loop", place.at("c/loop")).unwrap();
    assert!(place.reads("c/loop").is_err());
    assert!(
        place
            .reads("c/nothing")
            .unwrap_err()
            .is_os(io::ErrorKind::NotFound)
    );

    assert!(
        place.reads("c").is_err()
            && place.reads("a/b/key/x").is_err()
            && place.reads("c/..").is_err()
    );
}

#[test]
fn owners_are_root_and_who_runs() {
    if !nix::unistd::geteuid().is_root() {
        return crate::skip::skipped("only root can give files away");
    }

    let place = KeyDir::new();
    symlink("key", place.at("a/b/link")).unwrap();
    for name in ["a", "a/b", "a/b/key"] {
        chown(place.at(name), Some(12_345), None).unwrap();
        place.refused("a/b/key", name, "chown -h 0");
        chown(place.at(name), Some(0), None).unwrap();
    }

    std::os::unix::fs::lchown(place.at("a/b/link"), Some(12_345), None).unwrap();
    place.refused("a/b/link", "a/b/link", "chown -h 0");
    assert!(place.reads("a/b/key").is_ok());
}

/// Judges a path without links by the names of its parts.
fn is_safe(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let mine = |uid: u32| uid == 0 || uid == nix::unistd::geteuid().as_raw();
    path.ancestors().all(|part| {
        let meta = std::fs::symlink_metadata(part).unwrap();
        let open = meta.mode() & 0o022 != 0 && !(meta.is_dir() && meta.mode() & 0o1000 != 0);
        mine(meta.uid()) && !open
    })
}

#[test]
fn it_is_strict_as_a_look_at_every_part_of_the_path_is() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let place = KeyDir::new();
    let mut safe = 0;
    let mut unsafe_ones = 0;

    for _ in 0..400 {
        for name in ["a", "a/b", "a/b/key"] {
            let modes = [0o755, 0o700, 0o755, 0o711, 0o1777, 0o775, 0o757, 0o2755];
            place.set(name, modes[rng.usize(..modes.len())]);
            if nix::unistd::geteuid().is_root() {
                let owner = if rng.u8(..8) == 0 { 12_345 } else { 0 };
                chown(place.at(name), Some(owner), None).unwrap();
            }
        }
        let path = place.at("a/b/key");
        let opened = open(&path, Readers::All).is_ok();
        assert_eq!(opened, is_safe(&path), "seed {seed}");
        *(if opened { &mut safe } else { &mut unsafe_ones }) += 1;
    }

    assert!(
        safe > 10 && unsafe_ones > 10,
        "seed {seed}: {safe} {unsafe_ones}"
    );
}

#[test]
fn a_name_that_is_exchanged_meanwhile_never_leads_to_what_was_not_checked() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let place = KeyDir::new();
    std::fs::create_dir_all(place.at("evil/b")).unwrap();
    std::fs::write(place.at("evil/b/key"), "planted").unwrap();
    place.set("evil/b/key", 0o600);
    place.set("evil", 0o777);
    let over = AtomicBool::new(false);

    let exchange = |with: &Path| {
        use rustix::fs::{RenameFlags, renameat_with};
        renameat_with(CWD, place.at("a"), CWD, with, RenameFlags::EXCHANGE).is_ok()
    };

    symlink(place.at("evil"), place.at("link")).unwrap();
    if !exchange(&place.at("evil")) {
        return crate::skip::skipped("no two names can be exchanged here");
    }

    assert!(exchange(&place.at("evil")));
    std::thread::scope(|scope| {
        let flips = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                for with in ["evil", "link"] {
                    exchange(&place.at(with));
                    exchange(&place.at(with));
                }
            }
        });
        let mut read = 0;
        let mut refused = 0;
        for _ in 0..3000 {
            match place.reads("a/b/key") {
                Ok(text) => {
                    assert_eq!(text, "secret");
                    read += 1;
                }
                Err(_) => refused += 1,
            }
        }
        over.store(true, Ordering::Relaxed);
        flips.join().unwrap();
        println!("{read} read, {refused} refused");
    });
}

#[test]
fn a_pipe_of_this_process_is_read() {
    let (mut reader, mut writer) = io::pipe().unwrap();
    writer.write_all(b"key").unwrap();
    drop(writer);
    let path = PathBuf::from(format!("/dev/fd/{}", reader.as_raw_fd()));
    let mut text = String::new();
    open(&path, Readers::Owner)
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, "key");

    assert_eq!(reader.read(&mut [0]).unwrap(), 0);
}

#[test]
fn paths_in_remedies_are_one_word() {
    assert_eq!(
        word(Path::new("/etc/makuo/group.key")),
        "/etc/makuo/group.key"
    );
    assert_eq!(word(Path::new("/a b/it's")), r"'/a b/it'\''s'");
}
