//! Keys of hosts between sessions: trust on first use, as in OpenSSH.
//!
//! A host's key is stored at its first signature. A name keeps the first key until a person deletes
//! the line.
//!
//! **On disk.** `known_hosts/GROUP` in the cache, GROUP being the name of the group key or `plain`:
//! lines as in [`crate::keys::KnownHosts`], replaced by a rename while `known_hosts/.lock` is held.
//! Lines written by people stay; new lines follow them. After a change of the group key, the new
//! key's file starts with the hosts of the old ones. From then on only the new file counts, so a
//! line deleted there stays away.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::cache_file;
use crate::error::IoResultExt;
use crate::id::HostName;
use crate::keys::{GroupKey, KnownHosts, Learned, MAX_KNOWN_HOSTS_BYTES, MAX_NEW_KEYS, PublicKey};
use crate::proto::sender::hosts::{Host, OtherKey};
use crate::units::printable;
use crate::{Error, Result};

/// Directory in the cache.
const KNOWN_HOSTS_DIR: &str = "known_hosts";
/// File name for hosts without a group key.
const PLAIN_GROUP: &str = "plain";

/// Largest number of hosts with a line each; beyond, only the number is reported.
const MAX_NAMED_KEYS: usize = 8;

/// Host keys of one session.
#[derive(Debug)]
pub(super) struct HostKeys {
    store: Option<HostKeyStore>,
    /// Number of hosts with another key than before.
    others: usize,
}

impl HostKeys {
    /// Reads from `cache` the known hosts of a group with `keys`, which `strict` requires. Reports
    /// unreadable files by `note`.
    pub(super) fn begin(
        cache: Option<&Path>,
        keys: &[GroupKey],
        strict: bool,
        note: impl FnOnce(String),
    ) -> Result<(Self, KnownHosts)> {
        let store = cache.map(|cache| HostKeyStore::new(cache, keys));
        let known = match store.as_ref().map(HostKeyStore::load) {
            Some(Ok(known)) => known,
            Some(Err(e)) if strict => return Err(e),
            Some(Err(e)) => {
                note(format!("no host is known by its key: {e}"));
                KnownHosts::default()
            }
            None if strict => {
                let what =
                    "there is no place for the keys of hosts, which strict_host_keys compares with";
                return Err(Error::usage(what).hint("set HOME or XDG_CACHE_HOME"));
            }
            None => KnownHosts::default(),
        };

        Ok((Self { store, others: 0 }, known))
    }

    /// Line about a host with another key than before; `None` after too many.
    pub(super) fn other(&mut self, other: &OtherKey) -> Option<String> {
        self.others += 1;
        (self.others <= MAX_NAMED_KEYS).then(|| other_key_line(other, self.store.as_ref()))
    }

    /// Stores the keys of `hosts` with new names; returns lines about problems.
    pub(super) fn end<'a>(
        &self,
        known: &KnownHosts,
        hosts: impl Iterator<Item = &'a Host>,
    ) -> Vec<String> {
        let mut told = Vec::new();
        if let Some(more) = self
            .others
            .checked_sub(MAX_NAMED_KEYS)
            .filter(|more| *more > 0)
        {
            told.push(format!(
                "{more} more hosts show other host keys than before"
            ));
        }

        told.extend(self.keep(known, &signed_keys(hosts)));
        told
    }

    /// Stores the keys in `seen` with new names; returns lines about problems.
    fn keep(&self, known: &KnownHosts, seen: &KnownHosts) -> Vec<String> {
        let mut told = Vec::new();
        let Some(store) = &self.store else {
            return told;
        };

        let is_new = store.groups.len() > 1 || !known.has_names_of(seen);
        let file = shown(&store.path());
        let learned = is_new.then(|| store.learn(seen));
        match learned.unwrap_or_else(|| Ok(Learned::default())) {
            Ok(Learned { full, late, .. }) => {
                if full > 0 {
                    told.push(format!(
                        "the keys of {full} hosts are not kept: {file} is full"
                    ));
                }
                if late > 0 {
                    told.push(format!(
                        "the keys of {late} hosts are not kept yet: one session adds \
                         {MAX_NEW_KEYS} to {file}"
                    ));
                }
            }
            Err(e) => told.push(format!("the keys of hosts are not kept in {file}: {e}")),
        }

        told
    }
}

/// Store of the host keys of one group.
#[derive(Debug, Clone)]
struct HostKeyStore {
    dir: PathBuf,
    /// Files of all keys of the group: the first is written, the others are read until the first
    /// exists.
    groups: Vec<String>,
}

impl HostKeyStore {
    /// The store in `cache` for a group with `keys`.
    fn new(cache: &Path, keys: &[GroupKey]) -> Self {
        let mut groups: Vec<String> = keys.iter().map(GroupKey::id).collect();
        if groups.is_empty() {
            groups.push(PLAIN_GROUP.to_string());
        }

        Self {
            dir: cache.join(KNOWN_HOSTS_DIR),
            groups,
        }
    }

    /// Reads the stored keys.
    fn load(&self) -> Result<KnownHosts> {
        let mut known = KnownHosts::default();
        for path in self.groups.iter().map(|group| self.dir.join(group)) {
            if let Some(text) = read(&path).context("cannot read", &path)? {
                known.extend(&parse(&text));
                if path == self.path() {
                    break;
                }
            }
        }

        Ok(known)
    }

    /// Stores the keys of hosts with new names.
    fn learn(&self, seen: &KnownHosts) -> io::Result<Learned> {
        let _lock = cache_file::lock(&self.dir)?;
        let mut known = KnownHosts::default();
        let mut full = 0;
        let (mut text, is_there) = match read(&self.path())? {
            Some(text) => {
                known = parse(&text);
                (text, true)
            }
            None => {
                for path in self.groups.iter().skip(1).map(|group| self.dir.join(group)) {
                    full += known.extend(&parse(&read(&path)?.unwrap_or_default()));
                }
                (known.to_text().into_bytes(), false)
            }
        };

        let mut learned = known.learn(seen);
        learned.full += full;
        let new = learned.new.to_text();
        if !new.is_empty() && text.last().is_some_and(|byte| *byte != b'\n') {
            text.push(b'\n');
        }

        text.extend_from_slice(new.as_bytes());
        if text.len() as u64 > MAX_KNOWN_HOSTS_BYTES {
            return Err(too_long());
        }

        if !(new.is_empty() && (is_there || text.is_empty())) {
            cache_file::replace(&self.path(), &text)?;
        }

        Ok(learned)
    }

    /// File for people to edit.
    fn path(&self) -> PathBuf {
        self.dir
            .join(self.groups.first().map_or(PLAIN_GROUP, String::as_str))
    }
}

/// Line about a host with another key than before.
fn other_key_line(other: &OtherKey, store: Option<&HostKeyStore>) -> String {
    let OtherKey {
        name,
        address,
        shows,
        had,
        both,
    } = other;

    let shows = shows.fingerprint();
    let had = had.fingerprint();
    let address = address.ip();
    if *both {
        return format!(
            "{name} ({address}): two processes speak under this name and address, with the host \
            keys {had} and {shows}: \
             one of them may be somebody else"
        );
    }

    let place = store.map_or_else(String::new, |store| {
        format!(
            "; if it is the right one, delete the line of {name} in {}",
            shown(&store.path())
        )
    });

    format!(
        "{name} ({address}) shows the host key {shows}, not {had} as before: it was installed \
        again, or another machine \
         speaks in its name; compare with the host key in the log of its daemon{place}"
    )
}

fn shown(path: &Path) -> String {
    printable(path.as_os_str().as_encoded_bytes())
}

/// Signing keys of a session's hosts, except for names with two keys at one address.
fn signed_keys<'a>(hosts: impl Iterator<Item = &'a Host>) -> KnownHosts {
    let mut places: BTreeMap<(&HostName, IpAddr), Option<PublicKey>> = BTreeMap::new();
    for host in hosts {
        let Some(key) = host.key() else { continue };
        let place = places
            .entry((&host.name, host.address.ip()))
            .or_insert(Some(key));
        *place = place.filter(|known| *known == key);
    }

    let mut seen = KnownHosts::default();
    for ((name, _), key) in places {
        if let Some(key) = key {
            seen.insert(name.clone(), key);
        }
    }

    seen
}

/// Reads a file, if present.
fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut text = Vec::new();
    match File::open(path) {
        Ok(file) => file
            .take(MAX_KNOWN_HOSTS_BYTES + 1)
            .read_to_end(&mut text)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };

    if text.len() as u64 > MAX_KNOWN_HOSTS_BYTES {
        Err(too_long())
    } else {
        Ok(Some(text))
    }
}

fn parse(text: &[u8]) -> KnownHosts {
    KnownHosts::parse(&String::from_utf8_lossy(text))
}

/// Error for a file that is too long to read: a part of it would lose hosts.
fn too_long() -> io::Error {
    io::Error::other(format!(
        "it is longer than {} MiB",
        MAX_KNOWN_HOSTS_BYTES >> 20
    ))
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
        all.iter()
            .for_each(|(host, n)| assert!(known.insert(name(host), key(*n))));
        known
    }

    fn loaded(store: &HostKeyStore) -> KnownHosts {
        store.load().expect("readable")
    }

    fn learns(store: &HostKeyStore, seen: &KnownHosts) -> Learned {
        store.learn(seen).expect("writable")
    }

    fn text_of(store: &HostKeyStore) -> String {
        std::fs::read_to_string(store.path()).expect("readable")
    }

    fn edit(store: &HostKeyStore, text: impl AsRef<[u8]>) {
        std::fs::write(store.path(), text).expect("writable");
    }

    #[test]
    fn the_first_key_of_a_name_stays_until_its_line_goes() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = HostKeyStore::new(dir.path(), &[]);
        assert_eq!(loaded(&store), KnownHosts::default());
        learns(&store, &hosts(&[("web1", 1), ("web2", 2)]));

        learns(&store, &hosts(&[("web2", 9), ("web3", 3)]));
        assert_eq!(
            loaded(&store),
            hosts(&[("web1", 1), ("web2", 2), ("web3", 3)])
        );

        let text = text_of(&store);
        let others: Vec<&str> = text
            .lines()
            .filter(|line| !line.starts_with("web2 "))
            .collect();
        edit(&store, others.join("\n"));
        learns(&store, &hosts(&[("web2", 9)]));

        assert_eq!(
            loaded(&store),
            hosts(&[("web1", 1), ("web2", 9), ("web3", 3)])
        );
    }

    #[test]
    fn groups_do_not_share_hosts_and_a_group_that_changes_its_key_keeps_them() {
        let dir = tempfile::tempdir().expect("a directory");
        let keys: Vec<GroupKey> = (0..3)
            .map(|_| GroupKey::random().expect("random"))
            .collect();
        let of = |keys: &[GroupKey]| HostKeyStore::new(dir.path(), keys);
        learns(&of(&keys[..1]), &hosts(&[("web1", 1)]));

        assert_eq!(loaded(&of(&keys[1..2])), KnownHosts::default());
        let both = [keys[1].clone(), keys[0].clone()];
        assert_eq!(loaded(&of(&both)), hosts(&[("web1", 1)]));
        learns(&of(&both), &hosts(&[("web2", 2)]));

        assert_eq!(loaded(&of(&keys[1..2])), hosts(&[("web1", 1), ("web2", 2)]));
    }

    #[test]
    fn a_line_that_is_deleted_while_a_group_changes_its_key_stays_away() {
        let dir = tempfile::tempdir().expect("a directory");
        let keys: Vec<GroupKey> = (0..2)
            .map(|_| GroupKey::random().expect("random"))
            .collect();
        HostKeyStore::new(dir.path(), &keys[1..])
            .learn(&hosts(&[("web1", 1), ("web2", 2)]))
            .expect("writable");

        let both = HostKeyStore::new(dir.path(), &keys);
        learns(&both, &KnownHosts::default());
        let text = text_of(&both);
        let others: Vec<&str> = text
            .lines()
            .filter(|line| !line.starts_with("web2 "))
            .collect();

        for left in [others.join("\n"), String::new()] {
            edit(&both, &left);
            learns(&both, &hosts(&[("web1", 1)]));
            assert_eq!(loaded(&both), hosts(&[("web1", 1)]), "{left:?}");
        }

        learns(&both, &hosts(&[("web2", 9)]));
        assert_eq!(loaded(&both), hosts(&[("web1", 1), ("web2", 9)]));
    }

    #[test]
    fn what_a_person_wrote_stays() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = HostKeyStore::new(dir.path(), &[]);
        std::fs::create_dir_all(&store.dir).expect("writable");
        let text = format!(
            "# web1 is in the cellar\nweb1 {} m\u{fc}ller\n\nweb7 ssh-rsa AAAA\n#web2",
            key(1)
        );

        let text: Vec<u8> = text.chars().map(|c| c as u8).collect();
        edit(&store, &text);
        store.learn(&hosts(&[("web1", 9)])).expect("readable");
        assert_eq!(std::fs::read(store.path()).expect("readable"), text);
        learns(&store, &hosts(&[("web1", 9), ("web2", 2)]));

        let more = [&text[..], format!("\nweb2 {}\n", key(2)).as_bytes()].concat();
        assert_eq!(std::fs::read(store.path()).expect("readable"), more);
    }

    #[test]
    fn a_file_that_is_full_or_too_long_is_told_and_left_as_it_is() {
        let dir = tempfile::tempdir().expect("a directory");
        let cache = Some(dir.path());
        let (host_keys, _) = HostKeys::begin(cache, &[], false, |_| ()).expect("readable");
        let path = host_keys.store.as_ref().expect("a place").path();
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("writable");
        let one = key(1);
        let full: String = (0..50_000).map(|n| format!("x{n} {one}\n")).collect();

        let long = "#".repeat(usize::try_from(MAX_KNOWN_HOSTS_BYTES).expect("small") + 1);
        let file = path.display();
        for (text, told) in [
            (
                full,
                format!("the keys of 2 hosts are not kept: {file} is full"),
            ),
            (
                long,
                format!("the keys of hosts are not kept in {file}: it is longer than 16 MiB"),
            ),
        ] {
            std::fs::write(&path, &text).expect("writable");
            assert_eq!(
                host_keys.keep(&KnownHosts::default(), &hosts(&[("web1", 1), ("web2", 2)])),
                [told]
            );
            assert!(std::fs::read_to_string(&path).expect("readable") == text);
        }
    }

    #[test]
    fn two_at_once_lose_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = HostKeyStore::new(dir.path(), &[]);
        std::thread::scope(|scope| {
            for n in 0..8 {
                let store = &store;
                scope.spawn(move || {
                    drop(
                        store
                            .learn(&hosts(&[(&format!("web{n}"), n)]))
                            .expect("writable"),
                    )
                });
            }
        });

        assert_eq!(
            (0..8)
                .filter(|n| !store
                    .load()
                    .expect("reads")
                    .of(&name(&format!("web{n}")))
                    .is_empty())
                .count(),
            8
        );
    }
}
