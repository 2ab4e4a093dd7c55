//! Random trees with access lists, attributes, groups and links, deployed and compared with rsync's
//! result on a copy.
//!
//! `MAKUO_METADATA_SEED` sets the seed, `MAKUO_METADATA_ROUNDS` the number of rounds.

use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{AtFlags, Timespec, Timestamps, XattrFlags};

use super::kinds::acl;
use super::world::{World, is_root, xattrs_of};
use crate::manifest::rules::PathFilter;

/// A seeded random number generator.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    fn often(&mut self) -> bool {
        self.below(3) > 0
    }
}

/// Generator of random trees.
struct Grower<'a> {
    random: &'a mut Random,
    top: &'a Path,
    /// Adds attributes, and names in [`KEPT`] and outside of the tree.
    decorates: bool,
    made: Vec<PathBuf>,
}

/// The protected directory.
const KEPT: &str = "keep";

impl Grower<'_> {
    fn grow(&mut self) {
        let mut dirs = vec![self.top.to_path_buf()];
        for name in ["d0", "d0/e", "d0/e/g", "d1"] {
            let dir = self.top.join(name);
            if dir.parent().is_some_and(Path::is_dir) && self.random.often() {
                std::fs::create_dir(&dir).unwrap();
                dirs.push(dir);
            }
        }

        for dir in &dirs {
            for nth in 0..4 {
                if self.random.often() {
                    self.thing(dir.join(format!("n{nth}")));
                }
            }
        }

        for dir in dirs.iter().rev() {
            let mode = self.random.one(&[0o755, 0o2775, 0o700, 0o2750]);
            self.dress(dir, Some(mode));
        }
    }

    fn thing(&mut self, at: PathBuf) {
        if self.random.below(4) == 0 && !self.made.is_empty() {
            let first = self.made[self.random.below(self.made.len() as u64) as usize].clone();
            std::fs::hard_link(first, &at).unwrap();
            return;
        }

        let mut mode = Some(
            self.random
                .one(&[0o644, 0o600, 0o755, 0o664, 0o4755, 0o444]),
        );

        match self.random.below(8) {
            0 => {
                std::os::unix::fs::symlink(self.random.one(&["x", "n0", "/no/where"]), &at)
                    .unwrap();
                mode = None;
            }
            1 => nix::unistd::mkfifo(&at, nix::sys::stat::Mode::S_IRWXU).unwrap(),
            _ => std::fs::write(
                &at,
                self.random
                    .one(&["", "a", "b", "other", "longer than the others"]),
            )
            .unwrap(),
        }

        self.dress(&at, mode);
        self.made.push(at);
    }

    /// Sets owner, attributes, mode and time; `None` for a symbolic link.
    fn dress(&mut self, at: &Path, mode: Option<u32>) {
        let uid = self.random.one(&[0, 0, 33]);
        let gid = self.random.one(&[0, 1234, 33]);
        lchown(at, Some(uid), Some(gid)).unwrap();
        let set = |name: &str, value: &[u8]| {
            rustix::fs::lsetxattr(at, name, value, XattrFlags::empty()).unwrap()
        };

        if self.decorates && self.random.below(3) == 0 {
            set("trusted.note", self.random.one(&[b"1", b"2"]));
            let meta = std::fs::symlink_metadata(at).unwrap();
            if meta.is_file() || meta.is_dir() {
                set("user.note", self.random.one(&[b"3", b"4"]));
            }
            if !meta.is_symlink() && self.random.often() {
                set("system.posix_acl_access", &acl());
            }
            if meta.is_dir() && self.random.often() {
                set("system.posix_acl_default", &acl());
            }
        }

        if let Some(mode) = mode {
            std::fs::set_permissions(at, std::fs::Permissions::from_mode(mode)).unwrap();
        }

        let time = Timespec {
            tv_sec: self.random.one(&[1_000_000_000, 1_000_000_001]),
            tv_nsec: 0,
        };

        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };

        rustix::fs::utimensat(rustix::fs::CWD, at, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}

/// Details of each path: governed metadata, owner, attributes.
type Looks = BTreeMap<PathBuf, [String; 3]>;

/// Reads all details below `top`, except for protected paths.
fn look(top: &Path) -> Looks {
    let mut all = BTreeMap::new();
    let mut firsts = HashMap::new();
    let mut left = vec![PathBuf::new()];
    while let Some(path) = left.pop() {
        let at = top.join(&path);
        let meta = std::fs::symlink_metadata(&at).unwrap();
        if meta.is_dir() {
            let mut names: Vec<_> = std::fs::read_dir(&at)
                .unwrap()
                .map(|e| path.join(e.unwrap().file_name()))
                .collect();
            names.sort();
            left.extend(
                names
                    .into_iter()
                    .rev()
                    .filter(|name| name != Path::new(KEPT)),
            );
        }
        let what = match meta.file_type() {
            kind if kind.is_file() => String::from_utf8(std::fs::read(&at).unwrap()).unwrap(),
            kind if kind.is_symlink() => {
                format!("-> {}", std::fs::read_link(&at).unwrap().display())
            }
            kind if kind.is_fifo() => "pipe".into(),
            _ => "dir".into(),
        };
        let first = firsts
            .entry(meta.ino())
            .or_insert_with(|| path.clone())
            .clone();
        let xattrs: Vec<_> = xattrs_of(&at)
            .into_iter()
            .map(|x| (String::from_utf8(x.name).unwrap(), x.value))
            .collect();
        let content = format!("{what} {:o} {} {first:?}", meta.mode(), meta.mtime());
        let owner = format!("{} {}", meta.uid(), meta.gid());
        all.insert(path, [content, owner, format!("{xattrs:?}")]);
    }

    all
}

fn run(command: &mut Command) {
    let done = command.output().unwrap();
    assert!(
        done.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
}

/// Links some of the tree's files under names that no release governs.
fn link_away(random: &mut Random, files: &[PathBuf], away: &[PathBuf]) {
    for (nth, file) in files.iter().enumerate() {
        if random.below(3) == 0 {
            std::fs::hard_link(
                file,
                random.one(&[0, 1].map(|n| &away[n])).join(nth.to_string()),
            )
            .unwrap();
        }
    }
}

const ACLS: [&str; 2] = ["system.posix_acl_access", "system.posix_acl_default"];

/// Removes the access lists that rsync, unlike makuo, leaves on files passed to another user: on
/// directories before rsync runs, on files afterwards.
fn take_rights(judge: &Path, taken: &[PathBuf], dirs: bool) {
    for at in taken.iter().map(|path| judge.join(path)) {
        let Ok(now) = std::fs::symlink_metadata(&at) else {
            continue;
        };
        if now.is_symlink() || now.is_dir() != dirs {
            continue;
        }
        for acl in ACLS {
            // The access list may be absent.
            let _ = rustix::fs::removexattr(&at, acl);
        }
        if dirs {
            continue;
        }
        // As in a new file, the directory's defaults apply.
        let probe = at.with_file_name("probe");
        let above = at.parent().unwrap();
        let time = std::fs::metadata(above).unwrap();
        std::fs::write(&probe, "").unwrap();
        if let Some(acl) = xattrs_of(&probe)
            .iter()
            .find(|x| x.name == ACLS[0].as_bytes())
        {
            rustix::fs::setxattr(&at, ACLS[0], &acl.value, XattrFlags::empty()).unwrap();
        }
        std::fs::set_permissions(&at, now.permissions()).unwrap();
        std::fs::remove_file(&probe).unwrap();
        std::fs::File::open(above)
            .unwrap()
            .set_modified(time.modified().unwrap())
            .unwrap();
    }
}

fn round(seed: u64) {
    let mut random = Random(seed);
    let mut world = World::new(&[], &[]).swapping(random.below(2) == 0);
    world.rules.xattrs = random.below(2) == 0;
    let owners = random.below(2) == 0;
    world.rules.set_user = owners;
    world.rules.set_group = owners;
    world.protect = PathFilter::at_top(&["/keep/"]);

    let www = world.www();
    let source = world.source();
    let outside = www.with_file_name("outside");
    std::fs::create_dir(www.join(KEPT)).unwrap();
    std::fs::create_dir(&outside).unwrap();

    let decorates = world.rules.xattrs;
    Grower {
        random: &mut random,
        top: &source,
        decorates,
        made: Vec::new(),
    }
    .grow();

    let mut host = Grower {
        random: &mut random,
        top: &www,
        decorates: true,
        made: Vec::new(),
    };

    host.grow();
    let files = host.made;
    let judge = www.with_file_name("judge");
    run(Command::new("cp")
        .args(["-a", "--no-preserve=links"])
        .arg(&www)
        .arg(&judge));

    let away = [outside.clone(), www.join(KEPT)];
    link_away(&mut random, &files, &away);

    let mut rsync = Command::new("rsync");

    // In place, a file keeps its ungoverned attributes; hard links were separated above.
    rsync.args(["-rlptDHc", "--inplace", "--delete", "--exclude=/keep"]);
    if owners {
        rsync.args(["-og", "--numeric-ids"]);
    }

    if world.rules.xattrs {
        rsync.args(["-A", "-X"]);
    }

    let taken = |path: &PathBuf| {
        let old = std::fs::symlink_metadata(www.join(path));
        let new = std::fs::symlink_metadata(source.join(path));
        let (Ok(old), Ok(new)) = (old, new) else {
            return false;
        };
        old.file_type() == new.file_type() && old.uid() != 0 && old.uid() != new.uid()
    };

    let takes = owners && !world.rules.xattrs;
    let taken: Vec<PathBuf> = look(&www)
        .into_keys()
        .filter(|path| takes && taken(path))
        .collect();
    take_rights(&judge, &taken, true);
    run(rsync.arg(source.join("")).arg(judge.join("")));

    take_rights(&judge, &taken, false);

    let inodes = |dir: &PathBuf| {
        let mut found: Vec<_> = std::fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap())
            .collect();
        found.sort_by_key(|e| e.file_name());
        let inodes: Vec<_> = found.iter().map(|e| e.metadata().unwrap().ino()).collect();
        (look(dir), inodes)
    };

    let before = away.each_ref().map(inodes);
    let tree = world.open();
    let kind = format!(
        "seed {seed}, {:?}, xattrs {}, owners {owners}",
        world.rules.layout, world.rules.xattrs
    );
    let old = look(&www);

    world
        .deploy(&tree, 1)
        .unwrap_or_else(|e| panic!("{kind}: {e}"));
    let mut is = look(&www);
    let mut should = look(&judge);

    // rsync differs in two cases: it takes the ungoverned attributes of a file with several names
    // from another name, and it treats a symbolic link with a changed target as new.
    for path in is.clone().into_keys() {
        let found = std::fs::symlink_metadata(source.join(&path)).unwrap();
        if !found.is_dir() && found.nlink() > 1 || found.is_symlink() {
            for looks in [&mut is, &mut should] {
                let Some(look) = looks.get_mut(&path) else {
                    continue;
                };
                look[1] = if owners {
                    look[1].clone()
                } else {
                    String::new()
                };
                look[2] = if decorates {
                    look[2].clone()
                } else {
                    String::new()
                };
            }
        }
    }

    for path in is
        .keys()
        .chain(should.keys())
        .filter(|path| is.get(*path) != should.get(*path))
    {
        println!(
            "{}: was {:?}, is in the source {:?}",
            path.display(),
            old.get(path),
            look(&source).get(path)
        );
    }

    assert_same(&kind, &is, &should);
    let after = away.each_ref().map(inodes);
    assert_eq!(before[0], after[0], "{kind}: outside");
    assert_eq!(before[1].1, after[1].1, "{kind}: protected");
    assert_same(&kind, &before[1].0, &after[1].0);
    tree.revert().unwrap_or_else(|e| panic!("{kind}: {e}"));

    assert_same(&format!("{kind}, taken back"), &look(&www), &old);
}

fn assert_same(kind: &str, is: &Looks, should: &Looks) {
    for path in is.keys().chain(should.keys()) {
        assert_eq!(is.get(path), should.get(path), "{kind}: {}", path.display());
    }
}

#[test]
fn metadata_is_what_rsync_makes_of_it_and_nobody_elses_file_changes() {
    let has_rsync = Command::new("rsync")
        .arg("--version")
        .output()
        .is_ok_and(|o| {
            let said = String::from_utf8_lossy(&o.stdout).into_owned();
            said.contains(" ACLs") && said.contains(" xattrs") && !said.contains("no ACLs")
        });

    if !is_root() || !has_rsync {
        crate::skip::skipped("not root, or no rsync with ACLs");
        return;
    }

    let probe = super::world::scratch();
    let acls = rustix::fs::setxattr(
        probe.path(),
        "system.posix_acl_default",
        &acl(),
        XattrFlags::empty(),
    );

    if let Err(e) = acls {
        crate::skip::skipped(format!("no ACLs here: {e}"));
        return;
    }

    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    let first = number("MAKUO_METADATA_SEED").unwrap_or(1);
    for seed in first..first + number("MAKUO_METADATA_ROUNDS").unwrap_or(24) {
        println!("seed {seed}");
        round(seed);
    }
}
