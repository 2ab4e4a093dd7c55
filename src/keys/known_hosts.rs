//! Previously seen keys of hosts, to detect that another machine uses a host's name.
//!
//! **Text.** One line for each key, `NAME ssh-ed25519 AAAA...`, as in a known_hosts file of
//! OpenSSH. Empty lines, comments and malformed lines are skipped.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::PublicKey;
use crate::id::HostName;

/// Largest number of keys of one name: several hosts may share it.
const MAX_KEYS_PER_NAME: usize = 8;
/// Largest number of keys in total. No key is evicted for another: invented hosts would push the
/// true ones out.
const MAX_KNOWN_KEYS: usize = 50_000;
/// Largest number of new keys learned at once: an attacker who invents hosts has to come back for
/// more.
pub const MAX_NEW_KEYS: usize = 10_000;
/// Largest text to read, in bytes.
pub const MAX_KNOWN_HOSTS_BYTES: u64 = 16 << 20;

/// Keys by host name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KnownHosts {
    keys: BTreeMap<HostName, Vec<PublicKey>>,
    count: usize,
}

/// Result of learning new keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Learned {
    /// Keys added.
    pub new: KnownHosts,
    /// Keys refused for lack of room.
    pub full: usize,
    /// Keys refused as too many at once.
    pub late: usize,
}

impl KnownHosts {
    /// Parses a text.
    pub fn parse(text: &str) -> Self {
        let mut known = Self::default();
        for line in text
            .lines()
            .map(str::trim)
            .filter(|line| !line.starts_with('#'))
        {
            let Some((name, key)) = line.split_once([' ', '\t']) else {
                continue;
            };
            if let (Ok(name), Ok((key, _))) = (HostName::new(name), PublicKey::from_openssh(key)) {
                known.insert(name, key);
            }
        }

        known
    }

    /// Text of the keys.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for (name, key) in self
            .keys
            .iter()
            .flat_map(|(name, keys)| keys.iter().map(move |key| (name, key)))
        {
            let _ = writeln!(text, "{name} {key}");
        }

        text
    }

    /// Adds a key, unless already present. Returns whether there was room.
    pub fn insert(&mut self, name: HostName, key: PublicKey) -> bool {
        let of_name = self.of(&name);
        if of_name.contains(&key) {
            return true;
        }

        if of_name.len() >= MAX_KEYS_PER_NAME || self.count >= MAX_KNOWN_KEYS {
            return false;
        }

        self.keys.entry(name).or_default().push(key);
        self.count += 1;
        true
    }

    /// Keys of a name.
    pub fn of(&self, name: &HostName) -> &[PublicKey] {
        self.keys.get(name).map_or(&[], Vec::as_slice)
    }

    /// Adds all keys of `others`; returns the number of keys without room.
    pub fn extend(&mut self, others: &Self) -> usize {
        let all = others
            .keys
            .iter()
            .flat_map(|(name, keys)| keys.iter().map(move |key| (name, key)));
        all.filter(|(name, key)| !self.insert((*name).clone(), **key))
            .count()
    }

    /// Adds the keys of `others` for names that are not here: a known name keeps its keys. A name
    /// gets all its keys or none, because the missing ones would later look like changed keys.
    pub fn learn(&mut self, others: &Self) -> Learned {
        let mut learned = Learned::default();
        for (name, keys) in &others.keys {
            if self.keys.contains_key(name) {
                continue;
            }
            if self.count + keys.len() > MAX_KNOWN_KEYS {
                learned.full += keys.len();
            } else if learned.new.count + keys.len() > MAX_NEW_KEYS {
                learned.late += keys.len();
            } else {
                for key in keys {
                    self.insert(name.clone(), *key);
                    learned.new.insert(name.clone(), *key);
                }
            }
        }

        learned
    }

    /// Returns whether each name of `others` has a key here.
    pub fn has_names_of(&self, others: &Self) -> bool {
        others.keys.keys().all(|name| self.keys.contains_key(name))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::keys::HostKey;

    fn name(name: &str) -> HostName {
        HostName::new(name).expect("legal")
    }

    fn key(n: u64) -> PublicKey {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&n.to_be_bytes());
        PublicKey::from_bytes(HostKey::new(seed, 1).identity().key).expect("a sound key")
    }

    #[test]
    fn what_was_written_is_read_and_lines_of_others_are_left_out() {
        let mut known = KnownHosts::default();
        for (host, n) in [("web1", 1), ("web2", 2), ("web2", 3), ("web2", 3)] {
            known.insert(name(host), key(n));
        }

        let text = format!(
            "# ours\n\nweb9\nweb/8 {}\nweb7 ssh-rsa AAAA\n{}",
            key(7),
            known.to_text()
        );
        assert_eq!(KnownHosts::parse(&text), known);
        assert_eq!(known.of(&name("web2")), [key(2), key(3)]);

        assert!(known.of(&name("web9")).is_empty());
    }

    #[test]
    fn a_name_that_is_known_keeps_its_keys() {
        let mut known = KnownHosts::default();
        let mut seen = KnownHosts::default();
        known.insert(name("web1"), key(1));
        seen.insert(name("web1"), key(9));
        assert!(known.has_names_of(&seen));
        seen.insert(name("web2"), key(2));
        assert!(!known.has_names_of(&seen));
        let learned = known.learn(&seen);

        assert_eq!(
            (learned.new.to_text(), learned.full, learned.late),
            (format!("web2 {}\n", key(2)), 0, 0)
        );
        assert!(known.has_names_of(&seen));

        assert_eq!(
            (known.of(&name("web1")), known.of(&name("web2"))),
            (&[key(1)][..], &[key(2)][..])
        );
    }

    #[test]
    fn many_invented_hosts_push_none_out() {
        let mut known = KnownHosts::default();
        known.insert(name("web1"), key(1));
        let one = key(2);
        let full = (0..MAX_KNOWN_KEYS + 10)
            .filter(|n| !known.insert(name(&format!("x{n}")), one))
            .count();
        assert_eq!(full, 11);

        assert!(known.insert(name("web1"), key(1)), "it is there");
        assert!(!(2..20).any(|n| known.insert(name("web1"), key(n))));
        assert_eq!(
            (known.count, known.of(&name("web1"))),
            (MAX_KNOWN_KEYS, &[key(1)][..])
        );
        let mut seen = KnownHosts::default();

        ["web1", "web2", "web3"]
            .iter()
            .for_each(|host| assert!(seen.insert(name(host), one)));

        assert_eq!(
            known.learn(&seen),
            Learned {
                full: 2,
                ..Learned::default()
            }
        );
    }

    #[test]
    fn one_session_brings_so_many_new_keys_and_no_part_of_a_name() {
        let mut known = KnownHosts::default();
        let mut seen = KnownHosts::default();
        (1..MAX_NEW_KEYS).for_each(|n| assert!(seen.insert(name(&format!("a{n}")), key(1))));
        for (host, n) in [("b1", 1), ("b1", 2), ("b2", 1), ("b3", 1)] {
            assert!(seen.insert(name(host), key(n)));
        }

        let learned = known.learn(&seen);
        assert_eq!(
            (learned.new.count, known.count, learned.full, learned.late),
            (MAX_NEW_KEYS, MAX_NEW_KEYS, 0, 3)
        );
        assert!(known.of(&name("b1")).is_empty() && !known.of(&name("b2")).is_empty());
        assert_eq!(known.learn(&seen).late, 0);

        assert!(known.has_names_of(&seen));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "\\PC{0,200}") {
            let known = KnownHosts::parse(&text);
            prop_assert_eq!(KnownHosts::parse(&known.to_text()), known);
        }
    }
}
