//! Drops the daemon's user, rights and file access before it listens on the network.
//!
//! [`drop_to`] changes user and group and keeps the few capabilities needed for a release's owners
//! and modes. [`confine`] restricts this process, even if compromised, to writing in its trees,
//! their state and beside its socket, and to starting no program (Landlock). Both apply to the
//! calling thread and threads started later, so they run before the first of those. Hooks run in a
//! process of their own, see [`crate::hook::helper_process`].
//!
//! Still readable: libraries, /proc, /sys, /dev and the directories of the configuration and the
//! keys. Another process looks up users and groups, see [`crate::tree::user_lookup`]. Use of the
//! network is not confined; a systemd unit can do so.

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

/// Capabilities that a daemon keeps: to change owners, to act on files of others, to bypass
/// permissions, and to keep the set-group-id bit of files of another group.
const KEPT_CAPABILITIES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FSETID);
/// Newest Landlock version with rights named here.
const LANDLOCK_ABI: ABI = ABI::V5;
/// Readable system paths: libraries and their caches, time zones, /proc.
const SYSTEM_PATHS: [&str; 9] = [
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

/// User and groups of the daemon, from the command line.
#[derive(Debug, Clone, Default)]
pub struct RunAs {
    /// User, by name or number; `None` for the user that started the daemon.
    pub user: Option<String>,
    /// Group, by name or number; default: the group of the user.
    pub group: Option<String>,
    /// Supplementary groups, by name or number; empty for those of the user.
    pub groups: Vec<String>,
}

impl RunAs {
    /// Returns whether a user or group change is requested.
    pub fn is_another(&self) -> bool {
        self.user.is_some() || self.group.is_some() || !self.groups.is_empty()
    }
}

/// Paths within reach of a confined daemon.
#[derive(Debug, Clone, Default)]
pub struct SandboxRules {
    /// Directories with full access except starting programs, possibly given by handles of this
    /// process.
    pub write: Vec<PathBuf>,
    /// Directories for creating and removing sockets.
    pub sockets: Vec<PathBuf>,
    /// Readable directories.
    pub read: Vec<PathBuf>,
}

/// Extent of a confinement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confined {
    /// All requested restrictions are in force.
    Wholly,
    /// Only the restrictions known to this kernel are in force.
    Partly,
    /// The kernel does not support confinement.
    Not,
}

/// Changes the user and drops all capabilities except the needed ones; creating devices needs one
/// more. Does nothing without a name.
pub fn drop_to(run_as: &RunAs, devices: bool) -> Result<()> {
    if !run_as.is_another() {
        return Ok(());
    }

    require_single_thread()?;
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

    let kept = if devices {
        KEPT_CAPABILITIES | CapabilitySet::MKNOD
    } else {
        KEPT_CAPABILITIES
    };

    let failed = |what: &str| {
        let message = format!("cannot {what} to run as user {uid}, group {gid}");
        move |e: std::io::Error| {
            Error::new(Kind::Usage, message.clone()).because(e).hint(
                "only root may change the user: start the daemon as root, \
                     or without --user and --run-group",
            )
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
    // Must come before the right to do so is dropped.
    for capability in CapabilitySet::all().iter().filter(|c| !kept.contains(*c)) {
        // A capability unknown to this kernel is in no set.
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

/// Returns whether this kernel supports [`confine`].
pub fn is_possible() -> bool {
    ruleset().is_some()
}

/// The Landlock ruleset. REFER must be supported: staged files are renamed into trees.
fn ruleset() -> Option<landlock::RulesetCreated> {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::Refer)
        .ok()?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(LANDLOCK_ABI))
        .ok()?
        .create()
        .ok()
}

/// Confines the calling thread and its later threads to `reach`, permanently.
pub fn confine(reach: &SandboxRules) -> Result<Confined> {
    let Some(mut rules) = ruleset() else {
        return Ok(Confined::Not);
    };

    let write = AccessFs::from_all(LANDLOCK_ABI) & !(AccessFs::Execute | AccessFs::IoctlDev);
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let sockets = AccessFs::MakeSock | AccessFs::RemoveFile | AccessFs::ReadDir;
    let system = SYSTEM_PATHS.iter().map(Path::new);
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
        // Destination for discarded output.
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

/// Adds a rule; a missing path cannot be reached and needs none.
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
        access & AccessFs::from_file(LANDLOCK_ABI)
    };

    let shown = printable(path.as_os_str().as_encoded_bytes());
    rules
        .add_rule(PathBeneath::new(handle, access))
        .map_err(|e| failed(format!("{shown}: {e}")))
}

fn failed(why: String) -> Error {
    Error::new(Kind::Io, format!("cannot confine this process: {why}"))
        .hint("set sandbox = \"off\" in the configuration to run without")
}

/// Fails if other threads run: they would keep the rights.
fn require_single_thread() -> Result<()> {
    match std::fs::read_dir("/proc/self/task").map(Iterator::count) {
        Ok(1) | Err(_) => Ok(()),
        Ok(count) => Err(Error::new(
            Kind::Io,
            format!("a defect in makuo: {count} threads run before rights are dropped"),
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
mod tests;
