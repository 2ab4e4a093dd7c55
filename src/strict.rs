//! Opens security-relevant files, if nobody else could have changed them.
//!
//! The rules are those of OpenSSH's StrictModes: the file and every directory above it belong to
//! root or to the current user, and neither their group nor others may write to them. One addition:
//! a directory with the sticky bit, such as /tmp, may be writable by all, because nobody can
//! replace another user's files there.
//!
//! A path is walked once. Each component is opened by the handle of the one before it and checked
//! by its own handle, and the checked file is the one that is read.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{CWD, FileType, Mode, OFlags, Stat, fstat, fstatfs, openat, readlinkat};
use rustix::io::Errno;

use crate::error::IoResultExt;
use crate::units::printable;
use crate::{Error, Result};

/// Largest number of symbolic links on a path, as in the kernel.
const MAX_SYMLINKS: usize = 40;
/// File system type of /proc, whose links in `fd` are not paths.
const PROC_MAGIC: u64 = 0x9fa0;
/// Owner of files whose real owner is not in this user namespace.
const UNKNOWN_OWNER: u32 = 65_534;
const PATH_HANDLE: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const STICKY: u32 = 0o1000;

/// A further trusted user.
static TRUSTED: OnceLock<u32> = OnceLock::new();

/// The users that may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readers {
    /// Anybody.
    All,
    /// Owner and group.
    Group,
    /// The owner only; also the group, if the owner is not the current user.
    Owner,
}

/// Also trusts the files of user `uid`: this process is about to become that user, or acts for it.
pub fn trust(uid: u32) {
    // The first call wins: a process has one such user.
    let _ = TRUSTED.set(uid);
}

/// Opens the file `path` for reading, if only root and the current user can have written it and
/// only `readers` can read it. A link of /proc, such as the one behind /dev/fd, refers to a file
/// that this process was given: it is opened as it is.
pub fn open(path: &Path, readers: Readers) -> Result<File> {
    let absolute = std::path::absolute(path).context("cannot open", path)?;
    let file = walk(&absolute).map_err(|stop| stop.into_error(path))?;
    check_readers(&file, path, readers)?;
    Ok(file)
}

/// Refuses the open file `path` if others than `readers` can read it.
pub fn check_readers(file: &File, path: &Path, readers: Readers) -> Result<()> {
    let stat = fstat(file).context("cannot read", path)?;
    let mine = stat.st_uid == rustix::process::geteuid().as_raw();
    let closed = match readers {
        Readers::All => 0,
        Readers::Owner if mine => 0o077,
        Readers::Group | Readers::Owner => 0o007,
    };

    if stat.st_mode & closed == 0 {
        return Ok(());
    }

    Err(Error::usage(format!(
        "{} is a secret that others can read ({})",
        shown(path),
        facts(&stat)
    ))
    .hint(format!("chmod 0600 {}", word(path))))
}

/// Reason for the end of a walk.
enum Stop {
    Failed(io::Error),
    Refused(Error),
}

impl From<Errno> for Stop {
    fn from(e: Errno) -> Self {
        Self::Failed(e.into())
    }
}

impl Stop {
    fn into_error(self, path: &Path) -> Error {
        match self {
            Self::Failed(e) => Error::io("cannot open", path, e),
            Self::Refused(error) => error,
        }
    }
}

fn walk(path: &Path) -> Result<File, Stop> {
    let mut left: VecDeque<OsString> = names(path);
    let top = || -> Result<(OwnedFd, PathBuf), Stop> {
        let root = openat(CWD, "/", PATH_HANDLE | OFlags::DIRECTORY, Mode::empty())?;
        check(&fstat(&root)?, Path::new("/")).map_err(Stop::Refused)?;
        Ok((root, PathBuf::from("/")))
    };

    let mut above = vec![top()?];
    let mut links = 0;
    while let Some(name) = left.pop_front() {
        if name == OsStr::new("..") {
            if above.len() > 1 {
                above.pop();
            }
            continue;
        }

        let Some((dir, at)) = above.last() else {
            return Err(Errno::NOENT.into());
        };
        let dir = dir.as_fd();
        let at = at.join(&name);
        let handle = openat(dir, &name, PATH_HANDLE, Mode::empty())?;
        let stat = fstat(&handle)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink
                if fstatfs(&handle)?.f_type as u64 == PROC_MAGIC && left.is_empty() =>
            {
                check_owner(&stat, &at).map_err(Stop::Refused)?;
                let file = openat(dir, &name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
                return Ok(file.into());
            }
            FileType::Symlink => {
                links += 1;
                if links > MAX_SYMLINKS {
                    return Err(Errno::LOOP.into());
                }
                check_owner(&stat, &at).map_err(Stop::Refused)?;
                let target = PathBuf::from(OsString::from_vec(
                    readlinkat(&handle, "", Vec::new())?.into_bytes(),
                ));
                if target.is_absolute() {
                    above = vec![top()?];
                }
                for name in names(&target).into_iter().rev() {
                    left.push_front(name);
                }
            }
            FileType::Directory if left.is_empty() => return Err(Errno::ISDIR.into()),
            FileType::Directory => {
                check(&stat, &at).map_err(Stop::Refused)?;
                above.push((handle, at));
            }
            _ if !left.is_empty() => return Err(Errno::NOTDIR.into()),
            _ => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = openat(dir, &name, flags, Mode::empty())?;
                check(&fstat(&file)?, &at).map_err(Stop::Refused)?;
                return Ok(file.into());
            }
        }
    }

    // The path ends in "..", or is "/".
    Err(Errno::ISDIR.into())
}

/// The components of a path below its start.
fn names(path: &Path) -> VecDeque<OsString> {
    let name = |component: Component<'_>| match component {
        Component::Normal(name) => Some(name.to_os_string()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    };
    path.components().filter_map(name).collect()
}

/// Refuses files that others than root and the current user could have changed.
fn check(stat: &Stat, path: &Path) -> Result<()> {
    check_owner(stat, path)?;
    let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    if stat.st_mode & 0o022 == 0 || is_dir && stat.st_mode & STICKY != 0 {
        return Ok(());
    }

    let who = if stat.st_mode & 0o002 != 0 {
        "anybody"
    } else {
        "its group"
    };

    let what = if is_dir { "the directory " } else { "" };
    Err(Error::usage(format!(
        "{what}{} can be written to by {who} ({})",
        shown(path),
        facts(stat)
    ))
    .hint(format!("chmod go-w {}", word(path))))
}

fn check_owner(stat: &Stat, path: &Path) -> Result<()> {
    let me = rustix::process::geteuid().as_raw();
    let uid = stat.st_uid;
    if uid == 0
        || uid == me
        || TRUSTED.get() == Some(&uid)
        || uid == UNKNOWN_OWNER && is_unknown_here()
    {
        return Ok(());
    }

    let to = if me == 0 {
        "root".to_string()
    } else {
        format!("root or user {me}")
    };

    Err(Error::usage(format!(
        "{} does not belong to {to} ({})",
        shown(path),
        facts(stat)
    ))
    .hint(format!("chown -h {me} {}", word(path))))
}

/// Returns whether files of [`UNKNOWN_OWNER`] belong to users outside this process's user
/// namespace: in a container, root's own directories. Their real owners cannot be seen from inside.
fn is_unknown_here() -> bool {
    let Ok(map) = std::fs::read_to_string("/proc/self/uid_map") else {
        return false;
    };

    !map.lines().any(|line| {
        let mut numbers = line
            .split_whitespace()
            .map(|word| word.parse::<u64>().unwrap_or(0));
        let (first, _, count) = (
            numbers.next().unwrap_or(0),
            numbers.next(),
            numbers.next().unwrap_or(0),
        );
        (first..first + count).contains(&u64::from(UNKNOWN_OWNER))
    })
}

/// Owner and mode, for errors.
fn facts(stat: &Stat) -> String {
    let name = nix::unistd::User::from_uid(stat.st_uid.into())
        .ok()
        .flatten();
    let owner = name.map_or_else(|| stat.st_uid.to_string(), |user| user.name);
    format!(
        "owner {}, mode {:04o}",
        printable(owner.as_bytes()),
        stat.st_mode & 0o7777
    )
}

fn shown(path: &Path) -> String {
    printable(path.as_os_str().as_bytes())
}

/// Path quoted as one word for a shell.
fn word(path: &Path) -> String {
    let text = shown(path);
    let plain = |c: char| c.is_alphanumeric() || "/._-+@%,:=".contains(c);
    if text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
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
                error.to_string().contains(&format!("{of} "))
                    && error.to_string().contains("mode "),
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
            return eprintln!("skipped: only root can give files away");
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
            return eprintln!("skipped: no two names can be exchanged here");
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
}
