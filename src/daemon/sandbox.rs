//! What the daemon gives away before it listens to anybody: its user, its rights, and the sight of what is not its
//! own.
//!
//! [`drop_to`] changes to another user and group and keeps the few rights that a release's owners and modes need.
//! [`confine`] lets this process, whatever becomes of it, write only in its trees, their state and beside its socket,
//! and start no program (Landlock). Both bind the calling thread and the threads that it starts later, so they come
//! before the first of those. What runs around a commit runs in a process of its own, see [`crate::hook::outside`].
//!
//! Still readable: libraries, /proc, /sys, /dev and the directories of the configuration and the keys. Users and groups
//! are looked up by another process, see [`crate::tree::user_lookup`]. Not confined: what the network may be used for, which a unit of systemd can do.

use std::ffi::CString;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetStatus,
};
use nix::unistd::{Gid, Group, Uid, User};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::units::printable;
use crate::{Error, Kind, Result};

/// The rights that a daemon keeps: to give files away, to set what others own, to go where it may not, and to keep
/// the set-group-id bit of what belongs to another group.
const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FSETID);
/// The newest of Landlock's versions whose rights are named here.
const KNOWN: ABI = ABI::V5;
/// What may be read wherever a system keeps it: libraries and what they need, zones, /proc.
const SYSTEM: [&str; 9] = [
    "/usr",
    "/lib",
    "/lib64",
    "/nix/store",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/proc",
    "/sys",
    "/dev",
];

/// Who the daemon is to be, as the command line says.
#[derive(Debug, Clone, Default)]
pub struct RunAs {
    /// The user, by name or number.
    pub user: Option<String>,
    /// The group, by name or number; else the user's own.
    pub group: Option<String>,
    /// Further groups, by name or number; none: those that the system gives the user.
    pub groups: Vec<String>,
    /// Whether the right to make devices is kept.
    pub devices: bool,
}

impl RunAs {
    /// Whether the daemon is to be somebody else than who started it.
    pub fn is_another(&self) -> bool {
        self.user.is_some() || self.group.is_some() || !self.groups.is_empty()
    }
}

/// What a confined daemon reaches.
#[derive(Debug, Clone, Default)]
pub struct Reach {
    /// Directories in which it may do everything but start programs, perhaps by handles of this process.
    pub write: Vec<PathBuf>,
    /// Directories in which it makes and removes sockets.
    pub sockets: Vec<PathBuf>,
    /// Directories that it may read.
    pub read: Vec<PathBuf>,
}

/// How far a confinement went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confined {
    /// All that is asked for.
    Wholly,
    /// All that this kernel can.
    Partly,
    /// Not at all: the kernel cannot.
    Not,
}

/// Becomes another user and gives away all rights but those that are needed. Without a name nothing is done.
pub fn drop_to(run_as: &RunAs) -> Result<()> {
    if !run_as.is_another() {
        return Ok(());
    }

    only_thread()?;
    let user = run_as.user.as_deref().map(user).transpose()?;
    let gid = match (&run_as.group, &user) {
        (Some(group), _) => self::group(group)?,
        (None, Some(user)) => user.gid,
        (None, None) => nix::unistd::getegid(),
    };

    let groups = run_as
        .groups
        .iter()
        .map(|name| self::group(name))
        .collect::<Result<Vec<_>>>()?;

    let uid = user
        .as_ref()
        .map_or(nix::unistd::geteuid(), |user| user.uid);
    let same = uid == nix::unistd::geteuid() && gid == nix::unistd::getegid() && groups.is_empty();
    if same && !uid.is_root() {
        return Ok(());
    }

    let kept = if run_as.devices {
        KEPT | CapabilitySet::MKNOD
    } else {
        KEPT
    };

    let failed = |what: &str| {
        let message = format!("cannot {what} to run as user {uid}, group {gid}");
        move |e: std::io::Error| {
            Error::new(Kind::Usage, message.clone())
                .because(e)
                .hint("only root may become another user: start the daemon as root, or without --user and --run-group")
        }
    };

    become_user(user.as_ref(), uid, (gid, &groups), kept).map_err(failed("change"))?;
    keep_only(kept).map_err(failed("give rights away"))?;
    tracing::info!("running as user {uid}, group {gid}");

    Ok(())
}

fn become_user(
    user: Option<&User>,
    uid: Uid,
    (gid, groups): (Gid, &[Gid]),
    kept: CapabilitySet,
) -> std::io::Result<()> {
    // Before the right to do so goes.
    for capability in CapabilitySet::all().iter().filter(|c| !kept.contains(*c)) {
        // One that this kernel does not know is in nobody's set.
        let _ = rustix::thread::remove_capability_from_bounding_set(capability);
    }

    rustix::thread::set_keep_capabilities(true)?;
    match user.filter(|_| groups.is_empty()) {
        Some(user) => nix::unistd::initgroups(&CString::new(user.name.as_str())?, gid)?,
        None => nix::unistd::setgroups(&[&[gid], groups].concat())?,
    }

    nix::unistd::setresgid(gid, gid, gid)?;
    nix::unistd::setresuid(uid, uid, uid)?;
    Ok(())
}

fn keep_only(kept: CapabilitySet) -> std::io::Result<()> {
    let had = rustix::thread::capabilities(None)?.permitted;
    let kept = kept & had;
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };

    rustix::thread::set_capabilities(None, sets)?;
    rustix::thread::set_keep_capabilities(false)?;
    rustix::thread::set_no_new_privs(true)?;

    Ok(())
}

/// Whether this kernel can confine a process as [`confine`] does.
pub fn is_possible() -> bool {
    ruleset().is_some()
}

/// The access that is confined: to move what was staged into a tree is a part of it that has to be there.
fn ruleset() -> Option<landlock::RulesetCreated> {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::Refer)
        .ok()?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(KNOWN))
        .ok()?
        .create()
        .ok()
}

/// Confines the calling thread and those that it starts to `reach`, for good.
pub fn confine(reach: &Reach) -> Result<Confined> {
    let Some(mut rules) = ruleset() else {
        return Ok(Confined::Not);
    };

    let write = AccessFs::from_all(KNOWN) & !(AccessFs::Execute | AccessFs::IoctlDev);
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let sockets = AccessFs::MakeSock | AccessFs::RemoveFile | AccessFs::ReadDir;
    let system = SYSTEM.iter().map(Path::new);
    let all = (reach.write.iter().map(|p| (p.as_path(), write)))
        .chain(reach.sockets.iter().map(|p| (p.as_path(), sockets)))
        .chain(
            reach
                .read
                .iter()
                .map(PathBuf::as_path)
                .chain(system)
                .map(|p| (p, read)),
        )
        // Where logs and the like may go.
        .chain([(Path::new("/dev/null"), read | AccessFs::WriteFile)]);

    for (path, access) in all {
        rules = allow(rules, path, access)?;
    }

    let done = rules.restrict_self().map_err(|e| failed(e.to_string()))?;
    Ok(match done.ruleset {
        RulesetStatus::FullyEnforced => Confined::Wholly,
        RulesetStatus::PartiallyEnforced => Confined::Partly,
        RulesetStatus::NotEnforced => Confined::Not,
    })
}

/// What is not there cannot be reached, and needs no rule.
fn allow(
    rules: landlock::RulesetCreated,
    path: &Path,
    access: BitFlags<AccessFs>,
) -> Result<landlock::RulesetCreated> {
    let Ok(handle) = PathFd::new(path) else {
        return Ok(rules);
    };

    let is_dir = std::fs::metadata(path).is_ok_and(|m| m.is_dir());
    let access = if is_dir {
        access
    } else {
        access & AccessFs::from_file(KNOWN)
    };

    let shown = printable(path.as_os_str().as_encoded_bytes());
    rules
        .add_rule(PathBeneath::new(handle, access))
        .map_err(|e| failed(format!("{shown}: {e}")))
}

fn failed(why: String) -> Error {
    Error::new(Kind::Io, format!("cannot confine this process: {why}"))
        .hint("sandbox = \"off\" in the configuration goes on without")
}

/// A thread that runs already would keep what is given away.
fn only_thread() -> Result<()> {
    match std::fs::read_dir("/proc/self/task").map(Iterator::count) {
        Ok(1) | Err(_) => Ok(()),
        Ok(count) => Err(Error::new(
            Kind::Io,
            format!("a defect in makuo: {count} threads run before rights are given"),
        )),
    }
}

fn user(name: &str) -> Result<User> {
    let found = match name.parse() {
        Ok(number) => User::from_uid(Uid::from_raw(number)),
        Err(_) => User::from_name(name),
    };

    found
        .ok()
        .flatten()
        .ok_or_else(|| Error::usage(format!("there is no user {:?}", printable(name.as_bytes()))))
}

fn group(name: &str) -> Result<Gid> {
    if let Ok(number) = name.parse() {
        return Ok(Gid::from_raw(number));
    }

    let found = Group::from_name(name).ok().flatten().map(|group| group.gid);
    found.ok_or_else(|| {
        Error::usage(format!(
            "there is no group {:?}",
            printable(name.as_bytes())
        ))
    })
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    /// What a thread finds that has confined itself to `www` and `state`: every way out is tried.
    #[test]
    fn a_confined_thread_reaches_its_own_and_nothing_else() {
        if !is_possible() {
            println!("skipped: this kernel has no Landlock");
            return;
        }

        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["www", "state", "other", "keys", "run"] {
            std::fs::create_dir(at(name)).unwrap();
            std::fs::write(at(name).join("file"), name).unwrap();
        }

        let reach = Reach {
            write: vec![at("www"), at("state")],
            sockets: vec![at("run")],
            read: vec![at("keys")],
        };

        let names = ["www", "state", "other", "keys", "run"].map(at);
        let tried = std::thread::spawn(move || {
            assert_ne!(confine(&reach).unwrap(), Confined::Not);
            let [www, state, other, keys, run] = names;
            std::fs::write(state.join("staged"), "x").unwrap();
            std::fs::rename(state.join("staged"), www.join("staged")).unwrap();
            std::fs::create_dir(www.join("dir")).unwrap();
            assert_eq!(std::fs::read(keys.join("file")).unwrap(), b"keys");
            drop(std::os::unix::net::UnixListener::bind(run.join("sock")).unwrap());
            std::fs::remove_file(run.join("sock")).unwrap();
            [
                std::fs::write(other.join("new"), "x"),
                std::fs::write(other.join("file"), "x"),
                std::fs::write(keys.join("file"), "x"),
                std::fs::write(run.join("file"), "x"),
                std::fs::read(other.join("file")).map(drop),
                std::fs::read("/etc/passwd").map(drop),
                std::fs::read_dir("/etc").map(drop),
                std::fs::read_dir(&other).map(drop),
                std::fs::remove_file(other.join("file")),
                std::fs::create_dir(other.join("dir")),
                std::fs::rename(other.join("file"), www.join("stolen")),
                std::fs::rename(www.join("staged"), other.join("left")),
                std::fs::hard_link(other.join("file"), www.join("linked")),
                std::os::unix::fs::symlink("x", other.join("link")),
                std::process::Command::new("/bin/true").status().map(drop),
            ]
            .map(|tried| tried.map_err(|e| e.kind()))
        });

        for (number, tried) in tried.join().unwrap().into_iter().enumerate() {
            // A link or rename across the border is refused as one across devices.
            let refused = [ErrorKind::PermissionDenied, ErrorKind::CrossesDevices];
            assert!(
                tried.is_err_and(|kind| refused.contains(&kind)),
                "{number}: {tried:?}"
            );
        }

        assert_eq!(std::fs::read(at("other/file")).unwrap(), b"other");
        // This thread is as free as before.
        std::fs::write(at("other/new"), "x").unwrap();
    }

    #[test]
    fn nobody_becomes_whom_there_is_not() {
        let run_as = |user: &str| RunAs {
            user: Some(user.into()),
            ..RunAs::default()
        };

        assert!(
            user("no-such-user-here")
                .unwrap_err()
                .to_string()
                .contains("no user")
        );

        assert!(
            group("no-such-group-here")
                .unwrap_err()
                .to_string()
                .contains("no group")
        );

        assert_eq!(user("0").unwrap().name, "root");
        assert!(drop_to(&RunAs::default()).is_ok());

        // Threads of the tests run beside this one.
        assert!(drop_to(&run_as("root")).is_err());
    }
}
