//! Hosts that took part in earlier deploys of a tree from here, for a later deploy to miss.
//!
//! **On disk.** `last_hosts/GROUP/TREE` in the cache, GROUP being the name of the group key or
//! `plain`: a line `NAME SECONDS [LABELS]` for each host, with the time since 1970 of its last
//! answer. A host is forgotten after [`FORGOTTEN_AFTER`], or with its line. Only work is lost with
//! the file: the next deploy begins a new one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::cache_file;
use crate::id::{HostName, Labels, TreeName, matches_host};
use crate::keys::GroupKey;
use crate::units::{WallTime, printable_path};

/// Directory in the cache.
const LAST_HOSTS_DIR: &str = "last_hosts";
/// Directory name for hosts without a group key.
const PLAIN_GROUP: &str = "plain";
/// Age from which a host without an answer is not missed any more.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(30 * 86_400);
/// Largest number of hosts of a tree.
const MAX_LAST_HOSTS: usize = 10_000;
/// Largest file in bytes.
const MAX_LAST_HOSTS_BYTES: u64 = 2 << 20;
/// Largest number of trees whose hosts are read together.
const MAX_REMEMBERED_TREES: usize = 1_000;
/// Largest number of hosts named in a message.
const MAX_NAMED: usize = 8;

/// The hosts of earlier deploys of one tree.
#[derive(Debug, Default)]
pub(super) struct LastHosts {
    /// File to write; `None` to remember nothing.
    path: Option<PathBuf>,
    hosts: BTreeMap<HostName, LastAnswer>,
}

/// The last answer of a host.
#[derive(Debug, Clone, PartialEq)]
struct LastAnswer {
    at: WallTime,
    labels: Labels,
}

impl LastHosts {
    /// Reads the hosts of `tree` in a group with `keys` from `cache`, as of `now`.
    pub(super) fn load(
        cache: Option<&Path>,
        keys: &[GroupKey],
        tree: &TreeName,
        now: WallTime,
    ) -> Self {
        let Some(dir) = cache.map(|cache| cache.join(LAST_HOSTS_DIR)) else {
            return Self::default();
        };

        // After a change of the group key, the hosts of the old key's file are the same.
        let paths: Vec<PathBuf> = groups(keys)
            .iter()
            .map(|group| dir.join(group).join(tree.as_str()))
            .collect();
        let text = paths.iter().find_map(|path| read(path).ok().flatten());

        Self {
            hosts: text.map(|text| parse(&text, now)).unwrap_or_default(),
            path: paths.into_iter().next(),
        }
    }

    /// Hosts that are selected by each of the `lists` of patterns.
    pub(super) fn matching(&self, lists: &[&Vec<String>]) -> Vec<HostName> {
        let is_meant = |(name, last): &(&HostName, &LastAnswer)| {
            let selects = |pattern: &String| matches_host(pattern, name, Some(&last.labels));
            lists.iter().all(|list| list.iter().any(selects))
        };
        let meant = self.hosts.iter().filter(is_meant);
        meant.map(|(name, _)| name.clone()).collect()
    }

    /// Says which hosts that match the `lists` are not among the `targets`; `None` if all are.
    pub(super) fn missed(&self, lists: &[&Vec<String>], targets: &[HostName]) -> Option<String> {
        let mut missed = self.matching(lists);
        missed.retain(|name| !targets.contains(name));
        if missed.is_empty() {
            return None;
        }

        let mut names: Vec<&str> = missed.iter().map(HostName::as_str).collect();
        let more = names.len().saturating_sub(MAX_NAMED);
        names.truncate(MAX_NAMED);
        let more = match more {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let verb = if missed.len() == 1 { "is" } else { "are" };
        Some(format!(
            "{}{more} took part in an earlier deploy and {verb} not there now; {}",
            names.join(", "),
            self.remedy()
        ))
    }

    /// What to do about a host that is gone for good.
    pub(super) fn remedy(&self) -> String {
        let path = self.path.as_deref().map(printable_path).unwrap_or_default();
        format!("if that is right, delete the line in {path}")
    }

    /// Records the `hosts` of a deploy at `now`.
    pub(super) fn keep<'a>(
        &self,
        hosts: impl Iterator<Item = (&'a HostName, &'a Labels)>,
        now: WallTime,
    ) -> io::Result<()> {
        let Some((path, dir)) = self
            .path
            .as_deref()
            .zip(self.path.as_ref().and_then(|p| p.parent()))
        else {
            return Ok(());
        };

        let _lock = cache_file::lock(dir)?;
        // Another deploy may have written it meanwhile, or a person deleted a line.
        let mut known = match read(path)? {
            Some(text) => parse(&text, now),
            None => self.hosts.clone(),
        };
        let answer = |(name, labels): (&HostName, &Labels)| {
            let labels = labels.clone();
            (name.clone(), LastAnswer { at: now, labels })
        };
        known.extend(hosts.map(answer));

        let mut newest: Vec<(&HostName, &LastAnswer)> = known.iter().collect();
        newest.sort_by_key(|(_, last)| std::cmp::Reverse(last.at.0));
        newest.truncate(MAX_LAST_HOSTS);
        newest.sort_by_key(|(name, _)| *name);
        let line = |(name, last): (&HostName, &LastAnswer)| {
            let line = format!("{name} {} {}", last.at.0, last.labels);
            format!("{}\n", line.trim_end())
        };
        let text: String = newest.into_iter().map(line).collect();

        cache_file::replace(path, text.as_bytes())
    }
}

/// All hosts of earlier deploys of any tree from here, in a group with `keys`, as of `now`.
pub fn remembered_hosts(
    cache: Option<&Path>,
    keys: &[GroupKey],
    now: WallTime,
) -> BTreeSet<HostName> {
    let mut all = BTreeSet::new();
    let Some(dir) = cache.map(|cache| cache.join(LAST_HOSTS_DIR)) else {
        return all;
    };

    for group in groups(keys) {
        let trees = std::fs::read_dir(dir.join(group)).into_iter().flatten();
        for tree in trees.flatten().take(MAX_REMEMBERED_TREES) {
            if let Ok(Some(text)) = read(&tree.path()) {
                all.extend(parse(&text, now).into_keys());
            }
        }
    }

    all
}

/// Names of the directories of a group with `keys`.
fn groups(keys: &[GroupKey]) -> Vec<String> {
    match keys {
        [] => vec![PLAIN_GROUP.to_string()],
        keys => keys.iter().map(GroupKey::id).collect(),
    }
}

/// Reads the lines of hosts that are not forgotten at `now`; other lines are skipped.
fn parse(text: &str, now: WallTime) -> BTreeMap<HostName, LastAnswer> {
    let oldest = now.0.saturating_sub_unsigned(FORGOTTEN_AFTER.as_secs());
    let host = |line: &str| {
        let mut words = line.split_whitespace();
        let name = HostName::new(words.next()?).ok()?;
        let at: i64 = words.next()?.parse().ok()?;
        let labels = Labels::parse_known(words.next().unwrap_or_default());
        // A clock that was ahead must not keep a host for ever.
        let at = WallTime(at.min(now.0));
        (at.0 >= oldest).then_some((name, LastAnswer { at, labels }))
    };
    text.lines()
        .take(2 * MAX_LAST_HOSTS)
        .filter_map(host)
        .collect()
}

/// Reads a file, if present.
fn read(path: &Path) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(MAX_LAST_HOSTS_BYTES).read_to_end(&mut bytes)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: WallTime = WallTime(1_800_000_000);

    fn names(all: &[&str]) -> Vec<HostName> {
        let name = |n: &&str| HostName::new(n).expect("legal");
        all.iter().map(name).collect()
    }

    fn plain(names: &[HostName]) -> impl Iterator<Item = (&HostName, &Labels)> {
        names.iter().map(|name| (name, Labels::none()))
    }

    fn load(dir: &Path, now: WallTime) -> LastHosts {
        LastHosts::load(Some(dir), &[], &TreeName::new("www").expect("legal"), now)
    }

    #[test]
    fn a_host_is_missed_until_it_is_forgotten_or_its_line_goes() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = load(dir.path(), NOW);
        assert_eq!(first.missed(&[], &names(&["web1"])), None);
        first
            .keep(plain(&names(&["web1", "web2", "db1"])), NOW)
            .expect("writable");

        let again = load(dir.path(), NOW);
        assert_eq!(again.missed(&[], &names(&["db1", "web2", "web1"])), None);
        let text = again
            .missed(&[], &names(&["web1"]))
            .expect("two are missed");
        assert!(text.starts_with("db1, web2 took part"), "{text}");

        // The missed hosts stay, and others do not make them younger.
        again.keep(plain(&names(&["web1"])), NOW).expect("writable");
        let later = WallTime(NOW.0 + FORGOTTEN_AFTER.as_secs() as i64 + 1);
        let much_later = load(dir.path(), later);
        assert_eq!(much_later.missed(&[], &[]), None);
        let path = again.path.clone().expect("a file");
        std::fs::write(path, "web1 1800000000\n").expect("writable");
        assert_eq!(load(dir.path(), NOW).matching(&[]), names(&["web1"]));
    }

    #[test]
    fn hosts_of_all_trees_of_a_group_are_remembered_together() {
        let dir = tempfile::tempdir().expect("a directory");
        for (tree, host) in [("www", "web1"), ("db", "db1")] {
            let tree = TreeName::new(tree).expect("legal");
            let hosts = LastHosts::load(Some(dir.path()), &[], &tree, NOW);
            hosts.keep(plain(&names(&[host])), NOW).expect("writable");
        }

        let known = |cache, keys: &[GroupKey]| remembered_hosts(cache, keys, NOW);
        let both: BTreeSet<HostName> = names(&["web1", "db1"]).into_iter().collect();
        assert_eq!(known(Some(dir.path()), &[]), both);
        let other = GroupKey::random().expect("random");
        assert!(known(Some(dir.path()), &[other]).is_empty() && known(None, &[]).is_empty());
    }

    #[test]
    fn a_list_of_targets_is_no_alarm() {
        let dir = tempfile::tempdir().expect("a directory");
        let hosts = load(dir.path(), NOW);
        hosts
            .keep(plain(&names(&["web1", "web2", "db1"])), NOW)
            .expect("writable");
        let hosts = load(dir.path(), NOW);
        let (web, first) = (vec!["web*".to_string()], vec!["web1".to_string()]);
        assert_eq!(hosts.matching(&[&web]), names(&["web1", "web2"]));
        assert_eq!(hosts.missed(&[&web, &first], &names(&["web1"])), None);
        assert!(hosts.missed(&[&web], &names(&["web1"])).is_some());
    }

    #[test]
    fn hosts_are_selected_by_their_labels_as_well() {
        let dir = tempfile::tempdir().expect("a directory");
        let zone = |zone: &str| Labels::parse_known(&format!("zone={zone}"));
        let (a, b) = (zone("a"), zone("b"));
        let names = names(&["web1", "web2", "web3"]);
        let hosts = names.iter().zip([&a, &b, Labels::none()]);
        load(dir.path(), NOW).keep(hosts, NOW).expect("writable");

        let selected = load(dir.path(), NOW).matching(&[&vec!["zone=b".to_string()]]);
        assert_eq!(selected, names[1..2]);
    }

    #[test]
    fn any_text_is_read_and_the_file_stays_small() {
        for text in [
            "",
            "web1",
            "web1 x\n\0\nweb 2 3",
            "-x 5\nweb1 99999999999999999999",
        ] {
            assert!(parse(text, NOW).is_empty(), "{text:?}");
        }
        assert_eq!(
            parse("web1 9223372036854775807", NOW)
                .values()
                .next()
                .map(|last| last.at),
            Some(NOW)
        );

        let dir = tempfile::tempdir().expect("a directory");
        let many: Vec<HostName> = (0..MAX_LAST_HOSTS + 5)
            .map(|n| HostName::new(&format!("host{n}")).expect("legal"))
            .collect();
        load(dir.path(), NOW)
            .keep(plain(&many), NOW)
            .expect("writable");
        assert_eq!(load(dir.path(), NOW).hosts.len(), MAX_LAST_HOSTS);
    }
}
