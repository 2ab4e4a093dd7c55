//! The keys of hosts between sessions: trust on first use, as OpenSSH has it.
//!
//! A key is kept once a host has signed a word with it. A name that has a key already keeps it, whatever is shown later:
//! a person takes its line out.
//!
//! **On disk.** `known_hosts/GROUP` in the cache, GROUP being the name of the group key or `plain`: lines as
//! [`crate::keys::KnownHosts`] has them, replaced by a rename while `known_hosts/.lock` is held. While a group changes its
//! key over, the hosts of the other keys are known too.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::id::HostName;
use crate::keys::{GroupKey, KnownHosts, MAX_KNOWN_HOSTS, PublicKey};
use crate::proto::sender::hosts::{Host, OtherKey};
use crate::units::printable;
use crate::{Error, Result};

/// The directory in the cache.
const KNOWN_HOSTS: &str = "known_hosts";
/// The group of hosts that have no group key.
const PLAIN: &str = "plain";

/// Hosts that are told of each in a line of its own; of more only the number.
const MAX_TOLD: usize = 8;

/// What one session makes of the keys that hosts show.
#[derive(Debug)]
pub(super) struct Acquaintance {
    memory: Option<Memory>,
    /// Hosts with other keys than before.
    others: usize,
}

impl Acquaintance {
    /// Reads in `cache` what is known of the hosts of a group with these keys, which `strict` needs. What cannot be read
    /// is told with `note`.
    pub(super) fn begin(
        cache: Option<&Path>,
        keys: &[GroupKey],
        strict: bool,
        note: impl FnOnce(String),
    ) -> Result<(Self, KnownHosts)> {
        let memory = cache.map(|cache| Memory::new(cache, keys));
        let known = match memory.as_ref().map(Memory::load) {
            Some(Ok(known)) => known,
            Some(Err(e)) if strict => return Err(e),
            Some(Err(e)) => {
                note(format!("no host is known by its key: {e}"));
                KnownHosts::default()
            }
            None if strict => {
                let what = "there is no place for the keys of hosts, which strict_host_keys compares with";
                return Err(Error::usage(what).hint("set HOME or XDG_CACHE_HOME"));
            }
            None => KnownHosts::default(),
        };
        Ok((Self { memory, others: 0 }, known))
    }

    /// The line about a host that shows another key than its name had before; none when there were many.
    pub(super) fn other(&mut self, other: &OtherKey) -> Option<String> {
        self.others += 1;
        (self.others <= MAX_TOLD).then(|| words(other, self.memory.as_ref()))
    }

    /// Keeps the keys of `hosts` whose names are new; what is to be told of that.
    pub(super) fn end<'a>(&self, known: &KnownHosts, hosts: impl Iterator<Item = &'a Host>) -> Vec<String> {
        let mut told = Vec::new();
        if let Some(more) = self.others.checked_sub(MAX_TOLD).filter(|more| *more > 0) {
            told.push(format!("{more} more hosts show other host keys than before"));
        }
        let Some(memory) = &self.memory else { return told };
        let seen = seen(hosts);
        let is_new = memory.groups.len() > 1 || !known.has_names_of(&seen);
        if let Some(Err(e)) = is_new.then(|| memory.learn(&seen)) {
            told.push(format!("the keys of hosts are not kept in {}: {e}", shown(&memory.path())));
        }
        told
    }
}

/// The place where the keys of the hosts of one group are kept.
#[derive(Debug, Clone)]
struct Memory {
    dir: PathBuf,
    /// The files of all keys of the group; the first is written.
    groups: Vec<String>,
}

impl Memory {
    /// The place in `cache` for the hosts of a group with these keys.
    fn new(cache: &Path, keys: &[GroupKey]) -> Self {
        let mut groups: Vec<String> = keys.iter().map(GroupKey::id).collect();
        if groups.is_empty() {
            groups.push(PLAIN.to_string());
        }
        Self { dir: cache.join(KNOWN_HOSTS), groups }
    }

    /// The keys that are kept.
    fn load(&self) -> Result<KnownHosts> {
        let mut known = KnownHosts::default();
        for path in self.groups.iter().map(|group| self.dir.join(group)) {
            known.extend(&read(&path).map_err(|e| Error::io("cannot read", &path, e))?);
        }
        Ok(known)
    }

    /// Keeps the keys of hosts whose names are new.
    fn learn(&self, seen: &KnownHosts) -> io::Result<()> {
        std::fs::create_dir_all(&self.dir)?;
        let lock = File::options().create(true).truncate(false).write(true).open(self.dir.join(".lock"))?;
        flock(&lock, FlockOperation::LockExclusive)?;
        let written = read(&self.path())?;
        let mut known = written.clone();
        for group in self.groups.iter().skip(1) {
            known.extend(&read(&self.dir.join(group))?);
        }
        known.learn(seen);
        if known == written { Ok(()) } else { write(&self.path(), &known.to_text()) }
    }

    /// The file that a person may change.
    fn path(&self) -> PathBuf {
        self.dir.join(self.groups.first().map_or(PLAIN, String::as_str))
    }
}

/// A line about a host that shows another key than its name had before.
fn words(other: &OtherKey, memory: Option<&Memory>) -> String {
    let OtherKey { name, address, shows, had, both } = other;
    let (shows, had, address) = (shows.fingerprint(), had.fingerprint(), address.ip());
    if *both {
        return format!(
            "{name} ({address}): two processes speak under this name and address, with the host keys {had} and {shows}: \
             one of them may be somebody else"
        );
    }
    let place = memory.map_or_else(String::new, |memory| {
        format!("; if it is the right one, delete the line of {name} in {}", shown(&memory.path()))
    });
    format!(
        "{name} ({address}) shows the host key {shows}, not {had} as before: it was installed again, or another machine \
         speaks in its name; compare with the host key in the log of its daemon{place}"
    )
}

fn shown(path: &Path) -> String {
    printable(path.as_os_str().as_encoded_bytes())
}

/// The keys that hosts of a session have signed with, but for those of names that show two keys at one address.
fn seen<'a>(hosts: impl Iterator<Item = &'a Host>) -> KnownHosts {
    let mut places: BTreeMap<(&HostName, IpAddr), Option<PublicKey>> = BTreeMap::new();
    for host in hosts {
        let Some(key) = host.key() else { continue };
        let place = places.entry((&host.name, host.address.ip())).or_insert(Some(key));
        *place = place.filter(|known| *known == key);
    }
    let mut seen = KnownHosts::default();
    for ((name, _), key) in places {
        key.into_iter().for_each(|key| seen.insert(name.clone(), key));
    }
    seen
}

fn read(path: &Path) -> io::Result<KnownHosts> {
    let mut text = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(MAX_KNOWN_HOSTS).read_to_end(&mut text)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(KnownHosts::default()),
        Err(e) => return Err(e),
    };
    Ok(KnownHosts::parse(&String::from_utf8_lossy(&text)))
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push("~");
    let temporary = PathBuf::from(temporary);
    let mut file = File::create(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::HostKey;

    fn name(name: &str) -> HostName {
        HostName::new(name).expect("legal")
    }

    fn key(n: u8) -> PublicKey {
        PublicKey::from_bytes(HostKey::new([n; 32], 1).identity().key).expect("a sound key")
    }

    fn hosts(all: &[(&str, u8)]) -> KnownHosts {
        let mut known = KnownHosts::default();
        all.iter().for_each(|(host, n)| known.insert(name(host), key(*n)));
        known
    }

    #[test]
    fn the_first_key_of_a_name_stays_until_its_line_goes() {
        let dir = tempfile::tempdir().expect("a directory");
        let memory = Memory::new(dir.path(), &[]);
        assert_eq!(memory.load().expect("nothing is there"), KnownHosts::default());
        memory.learn(&hosts(&[("web1", 1), ("web2", 2)])).expect("writable");
        memory.learn(&hosts(&[("web2", 9), ("web3", 3)])).expect("writable");
        assert_eq!(memory.load().expect("readable"), hosts(&[("web1", 1), ("web2", 2), ("web3", 3)]));
        let text = std::fs::read_to_string(memory.path()).expect("readable");
        let others: Vec<&str> = text.lines().filter(|line| !line.starts_with("web2 ")).collect();
        std::fs::write(memory.path(), others.join("\n")).expect("writable");
        memory.learn(&hosts(&[("web2", 9)])).expect("writable");
        assert_eq!(memory.load().expect("readable"), hosts(&[("web1", 1), ("web2", 9), ("web3", 3)]));
    }

    #[test]
    fn groups_do_not_share_hosts_and_a_group_that_changes_its_key_keeps_them() {
        let dir = tempfile::tempdir().expect("a directory");
        let keys: Vec<GroupKey> = (0..3).map(|_| GroupKey::random().expect("random")).collect();
        let of = |keys: &[GroupKey]| Memory::new(dir.path(), keys);
        of(&keys[..1]).learn(&hosts(&[("web1", 1)])).expect("writable");
        assert_eq!(of(&keys[1..2]).load().expect("readable"), KnownHosts::default());
        let both = [keys[1].clone(), keys[0].clone()];
        assert_eq!(of(&both).load().expect("readable"), hosts(&[("web1", 1)]));
        of(&both).learn(&hosts(&[("web2", 2)])).expect("writable");
        assert_eq!(of(&keys[1..2]).load().expect("readable"), hosts(&[("web1", 1), ("web2", 2)]));
    }

    #[test]
    fn two_at_once_lose_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let memory = Memory::new(dir.path(), &[]);
        std::thread::scope(|scope| {
            for n in 0..8 {
                let memory = &memory;
                scope.spawn(move || memory.learn(&hosts(&[(&format!("web{n}"), n)])).expect("writable"));
            }
        });
        assert_eq!(
            (0..8).filter(|n| !memory.load().expect("reads").of(&name(&format!("web{n}"))).is_empty()).count(),
            8
        );
    }
}
