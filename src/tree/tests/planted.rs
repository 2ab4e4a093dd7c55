//! A user with write access to directories of a tree plants files and keeps handles. None of the
//! planted files may get another owner or more rights while the user can write to them.

use std::collections::BTreeMap;
use std::fs::{File, Permissions};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{
    DirBuilderExt, FileExt, MetadataExt, PermissionsExt, chown, lchown, symlink,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags, XattrFlags, openat, unlinkat};

use super::world::{NOBODY, Thing, World, file, is_root, look, nobody_does};
use crate::tree::fs::fault::OtherProcesses;

const EVIL: &[u8] = b"EVIL";
const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";
/// Names in the releases below the user's writable directory.
const NAMES: [&str; 7] = ["tool", "conf", "data", "sub", "sub/cron", "link", "pipe"];
const MODES: [u32; 8] = [0o644, 0o755, 0o4755, 0o2755, 0o600, 0o664, 0o666, 0o6775];

/// Encodes an access list that grants the user full access.
fn acl_for(uid: u32) -> Vec<u8> {
    let all = [
        (1u16, 7u16, u32::MAX),
        (2, 7, uid),
        (4, 7, u32::MAX),
        (16, 7, u32::MAX),
        (32, 0, u32::MAX),
    ];
    let mut bytes = 2u32.to_le_bytes().to_vec();

    for (tag, rights, id) in all {
        bytes.extend([tag.to_le_bytes(), rights.to_le_bytes()].concat());
        bytes.extend(id.to_le_bytes());
    }

    bytes
}

/// An attacker with open handles and a directory of his own beside the tree.
struct Attacker {
    rng: fastrand::Rng,
    home: PathBuf,
    files: Vec<File>,
    dirs: Vec<OwnedFd>,
}

impl Attacker {
    fn new(beside: &Path, seed: u64) -> Self {
        let home = beside.join("home");
        std::fs::create_dir(&home).unwrap();
        chown(&home, Some(NOBODY), Some(NOBODY)).unwrap();
        Self {
            rng: fastrand::Rng::with_seed(seed),
            home,
            files: Vec::new(),
            dirs: Vec::new(),
        }
    }

    /// Keeps every obtainable handle, and replaces some names by files of the attacker.
    fn plants(&mut self, top: &Path, wanted: &BTreeMap<PathBuf, Vec<u8>>) {
        for name in NAMES {
            let path = top.join("d").join(name);
            self.holds(&path);
            if self.rng.u8(..3) == 0 {
                continue;
            }
            // Moves the file away where the attacker may not remove it.
            let away = self.home.join(format!("{}", self.rng.u32(..)));
            if std::fs::symlink_metadata(&path).is_ok() && std::fs::rename(&path, &away).is_err() {
                let _ = std::fs::remove_file(&path);
            }
            match self.rng.u8(..8) {
                0 => drop(symlink(self.home.join("secret"), &path)),
                1 => drop(nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU)),
                2 => drop(std::fs::rename(&away, &path)),
                3 => self.makes_dir(&path),
                4 => self.writes(&path, b"something else"),
                _ => match wanted.get(&Path::new("d").join(name)) {
                    Some(content) => self.writes(&path, content),
                    None => self.makes_dir(&path),
                },
            }
            if self.rng.bool() {
                let _ = std::fs::hard_link(&path, self.home.join(format!("{}", self.rng.u32(..))));
            }
            self.holds(&path);
        }

        self.holds(&top.join("d"));
    }

    fn writes(&mut self, path: &Path, content: &[u8]) {
        let mut options = File::options();
        let Ok(file) = options.read(true).write(true).create_new(true).open(path) else {
            return;
        };

        file.write_all_at(content, 0).unwrap();
        let mode = MODES[self.rng.usize(..MODES.len())];
        file.set_permissions(Permissions::from_mode(mode)).unwrap();
        if self.rng.bool() {
            let _ = rustix::fs::fsetxattr(&file, ACCESS, &acl_for(NOBODY), XattrFlags::empty());
        }

        self.files.push(file);
    }

    fn makes_dir(&mut self, path: &Path) {
        if std::fs::DirBuilder::new().mode(0o777).create(path).is_err() {
            return;
        }

        for acl in [ACCESS, DEFAULT] {
            if self.rng.bool() {
                let _ = rustix::fs::setxattr(path, acl, &acl_for(NOBODY), XattrFlags::empty());
            }
        }
    }

    fn holds(&mut self, path: &Path) {
        let Ok(now) = std::fs::symlink_metadata(path) else {
            return;
        };

        let any = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let nothing = Mode::empty();

        if now.is_dir() {
            self.dirs.extend(rustix::fs::open(
                path,
                any | OFlags::RDONLY | OFlags::DIRECTORY,
                nothing,
            ));
        } else if now.is_file() || now.permissions().mode() & 0o170_000 == 0o010_000 {
            self.files
                .extend(rustix::fs::open(path, any | OFlags::RDWR, nothing).map(File::from));
        }
    }

    /// Writes through every held handle.
    fn strikes(&self) {
        strike(&self.files);
        for dir in &self.dirs {
            let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
            let made = openat(dir, "evil", flags, Mode::from_raw_mode(0o666)).map(File::from);
            let _ = made.map(|file| file.write_all_at(EVIL, 0));
            for name in NAMES {
                let _ = openat(
                    dir,
                    name,
                    OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC,
                    Mode::empty(),
                )
                .map(|file| File::from(file).write_all_at(EVIL, 0));
                let _ = rustix::fs::renameat(dir, "evil", dir, name);
            }
        }
    }
}

fn strike(files: &[File]) {
    for file in files {
        let _ = file.write_all_at(EVIL, 0);
        let _ = file.set_permissions(Permissions::from_mode(0o777));
    }
}

/// Returns true if the user may write to a file with this owner and mode.
fn may_write(meta: &std::fs::Metadata) -> bool {
    let mode = meta.permissions().mode();
    meta.uid() == NOBODY || mode & 0o002 != 0 || meta.gid() == NOBODY && mode & 0o020 != 0
}

/// Fails if a file closed to the attacker holds a word of his, or if a directory of another user
/// holds a name of his.
#[track_caller]
fn check(top: &Path, held_only: bool, what: &str) {
    let meta = std::fs::symlink_metadata(top).unwrap();
    if meta.is_dir() {
        assert!(
            may_write(&meta) || !top.join("evil").exists(),
            "{what}: a name of his in {}",
            top.display()
        );
        let names = std::fs::read_dir(top)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        return names.for_each(|path| check(&path, held_only, what));
    }

    // By path, the attacker may write to his own files.
    let is_his = meta.uid() == NOBODY && (!held_only || meta.mode() & 0o6000 == 0);
    // In his directory, the attacker may write to and replace the files, except for programs that
    // run as other users.
    let above = std::fs::metadata(top.parent().unwrap()).unwrap();
    let is_given = !held_only && above.uid() == NOBODY && meta.mode() & 0o6000 == 0;
    if !meta.is_file() || is_his || is_given || may_write(&meta) {
        return;
    }

    let mut bytes = Vec::new();
    File::open(top).unwrap().read_to_end(&mut bytes).unwrap();
    assert!(
        !bytes.starts_with(EVIL),
        "{what}: {} of user {} {:o}",
        top.display(),
        meta.uid(),
        meta.mode()
    );
}

/// Makes a release with random owners and modes, and returns the content of its files.
fn a_release(world: &World, rng: &mut fastrand::Rng, content: u8) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut things = vec![
        ("d", Thing::Dir(0o777)),
        ("d/sub", Thing::Dir([0o755, 0o777, 0o775][rng.usize(..3)])),
    ];
    let mut wanted = BTreeMap::new();

    for name in ["d/conf", "d/data", "d/sub/cron", "d/tool"] {
        if rng.u8(..8) == 0 {
            continue;
        }
        let bytes = format!("{name} {}", if rng.u8(..4) == 0 { content } else { 0 }).into_bytes();
        wanted.insert(PathBuf::from(name), bytes.clone());
        things.push((name, Thing::File(bytes, MODES[rng.usize(..MODES.len())])));
    }

    things.push(("d/link", Thing::Link("tool")));
    things.push(("d/pipe", Thing::Pipe));
    things.push(("other", file("left alone")));
    world.release(&things);

    for (path, thing) in &things {
        let at = world.source().join(path);
        let uid = [0, 0, 1234, NOBODY][rng.usize(..4)];
        lchown(&at, Some(uid), Some([0, 1234, NOBODY][rng.usize(..3)])).unwrap();
        if let Thing::File(_, mode) | Thing::Dir(mode) = thing {
            std::fs::set_permissions(&at, Permissions::from_mode(*mode)).unwrap();
        }
    }

    // The attacker needs access to the directory.
    super::world::set_top(&world.source(), 0o755, 900_000_002);
    wanted
}

#[test]
fn nothing_that_a_user_planted_and_holds_becomes_somebody_elses() {
    if !is_root() {
        return crate::skip::skipped("not root");
    }

    let number = |name: &str, other| {
        std::env::var(name)
            .ok()
            .and_then(|s| s.parse().ok())
            .unwrap_or(other)
    };

    let seed = number("MAKUO_PLANT_SEED", 1);
    let rounds = number("MAKUO_PLANT_ROUNDS", 60);
    println!("MAKUO_PLANT_SEED={seed} MAKUO_PLANT_ROUNDS={rounds}");
    let mut through = 0;
    let mut held = 0;

    for round in seed..seed + rounds {
        let mut rng = fastrand::Rng::with_seed(round);
        let swap = rng.bool();
        let governed = rng.bool();
        let meanwhile = rng.u8(..3) == 0;
        let what =
            format!("seed {round}, swap {swap}, attributes {governed}, meanwhile {meanwhile}");
        let mut world = World::new(&[], &[]).swapping(swap);
        world.rules.xattrs = governed;
        std::fs::set_permissions(world.www().parent().unwrap(), Permissions::from_mode(0o755))
            .unwrap();
        let mut attacker = Attacker::new(world.www().parent().unwrap(), round);
        for serial in 1..4 {
            let wanted = a_release(&world, &mut rng, serial as u8);
            nobody_does(|| attacker.plants(&world.www(), &wanted));
            if meanwhile {
                let held: Vec<File> = attacker
                    .files
                    .iter()
                    .map(|file| file.try_clone().unwrap())
                    .collect();
                world.others = OtherProcesses(Some(Arc::new(move || strike(&held))));
            }
            let tree = world.open();
            // Changes made to the old tree through a handle are found when the old tree is removed:
            // the report asks for another deployment.
            let done = world
                .deploy(&tree, serial)
                .or_else(|_| world.deploy(&tree, serial));
            drop(tree);
            world.others = OtherProcesses::default();
            assert!(meanwhile || done.is_ok(), "{what}: {:?}", done.err());
            if done.is_ok() {
                through += 1;
                // Before an exchange, the attacker wrote to the tree through handles, and makuo
                // keeps such writes where he has write access.
                let judged = governed && !meanwhile && (!swap || serial == 1);
                assert!(
                    !judged || look(&world.www()) == look(&world.source()),
                    "{what}: not the release"
                );
            }

            held += attacker.files.len() + attacker.dirs.len();
            check(&world.www(), true, &format!("{what}, before"));
            nobody_does(|| strike(&attacker.files));
            check(&world.www(), true, &format!("{what}, by what he holds"));
            nobody_does(|| attacker.strikes());
            check(&world.www(), false, &format!("{what}, by what he reaches"));
        }
    }

    assert!(through > rounds, "{through} of {} went through", rounds * 3);
    assert!(held as u64 > rounds * 5, "he held {held}");
}

#[test]
fn a_copy_is_the_release_whatever_its_original_becomes_meanwhile() {
    for size in [5, 20 << 20] {
        let tool = |mode| [("tool", Thing::File(vec![7; size], mode))];
        let world = World::new(&tool(0o755), &tool(0o4755));
        let held = File::options()
            .write(true)
            .open(world.www().join("tool"))
            .unwrap();
        let (stage, _, source) = world.begin(&world.open(), 1).unwrap();
        held.write_all_at(EVIL, size as u64 - 4).unwrap();
        let e = World::fill(stage, &source).unwrap_err();
        assert!(
            e.to_string()
                .contains("changed since the tree was compared"),
            "{e}"
        );
        let now = std::fs::metadata(world.www().join("tool")).unwrap();
        assert_eq!(now.permissions().mode() & 0o7777, 0o755);
    }
}

#[test]
fn access_lists_of_another_user_end_with_his_ownership_and_come_back_with_it() {
    if !is_root() {
        return crate::skip::skipped("not root");
    }

    for swap in [false, true] {
        let old = [
            ("d", Thing::Dir(0o775)),
            ("d/f", file("same")),
            ("d/g", file("old")),
        ];
        let new = [
            ("d", Thing::Dir(0o775)),
            ("d/f", Thing::File(b"same".to_vec(), 0o664)),
            ("d/g", file("new")),
        ];
        let mut world = World::new(&old, &new).swapping(swap);
        world.rules.xattrs = false;
        let at = |name: &str| world.www().join(name);
        let lists = |path: &Path| super::world::xattrs_of(path);
        for name in ["d", "d/f", "d/g"] {
            for acl in [ACCESS, DEFAULT]
                .into_iter()
                .filter(|acl| name == "d" || *acl == ACCESS)
            {
                if let Err(e) =
                    rustix::fs::setxattr(at(name), acl, &acl_for(NOBODY), XattrFlags::empty())
                {
                    return crate::skip::skipped(format!("no access lists here: {e}"));
                }
            }
            chown(at(name), Some(NOBODY), None).unwrap();
        }
        let before: Vec<_> = ["d", "d/f", "d/g"].map(|name| lists(&at(name))).into();
        let tree = world.open();
        world.deploy(&tree, 1).unwrap();
        for name in ["d", "d/f", "d/g"] {
            assert_eq!(std::fs::metadata(at(name)).unwrap().uid(), 0);
            assert_eq!(lists(&at(name)), [], "{name}, swap {swap}");
        }
        tree.revert().unwrap();
        assert_eq!(
            Vec::from(["d", "d/f", "d/g"].map(|name| lists(&at(name)))),
            before,
            "swap {swap}"
        );
    }
}

#[test]
fn who_holds_a_directory_that_was_his_can_change_nothing_in_it() {
    if !is_root() {
        return crate::skip::skipped("not root");
    }

    for swap in [false, true] {
        let things = [("d", Thing::Dir(0o755)), ("d/f", file("same"))];
        let world = World::new(&things, &things).swapping(swap);
        std::fs::set_permissions(world.www().parent().unwrap(), Permissions::from_mode(0o755))
            .unwrap();
        chown(world.www().join("d"), Some(NOBODY), None).unwrap();
        let open = || File::open(world.www().join("d")).unwrap();
        let held = nobody_does(open);
        let tree = world.open();
        world.deploy(&tree, 1).unwrap();
        nobody_does(|| {
            // After a whole-tree exchange, the attacker holds the old directory, which he still
            // owns.
            let made = openat(
                &held,
                "new",
                OFlags::CREATE | OFlags::WRONLY,
                Mode::from_raw_mode(0o600),
            );
            assert_eq!(made.is_ok(), swap);
            assert_eq!(unlinkat(&held, "f", AtFlags::empty()).is_ok(), swap);
            assert_eq!(
                rustix::fs::fchmod(&held, Mode::from_raw_mode(0o777)).is_ok(),
                swap
            );
        });
        tree.forget_undo().unwrap();
        assert_eq!(look(&world.www()), look(&world.source()), "swap {swap}");
    }
}
