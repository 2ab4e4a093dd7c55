//! Chooses the release of a rollback, fetches its header and data, and checks the key.
//!
//! A new signature on an old header vouches for its content with the new key. So a release is
//! signed again only if the original signature holds and the original key is the signing key or
//! authorized here. Otherwise a rollback would sign any data found on a host's disk.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::source::{PreparedRelease, ReleaseSource};
use crate::block::BlockHash;
use crate::drive::endpoint::GroupLinks;
use crate::drive::survey;
use crate::id::{NamedHost, Serial, TreeName};
use crate::keys::{AuthorizedKeys, Namespace, PublicKey, Role, verify};
use crate::manifest::Release;
use crate::outcome::ReleaseLog;
use crate::proto::receiver::is_target;
use crate::spec::{Compress, Spec};
use crate::tree::{
    Blocks, KeptRelease, LiveTree, Nothing, StateReader, StoredRelease, StoredSource,
};
use crate::units::WallTime;
use crate::{Error, Result};

/// An earlier release to restore.
#[derive(Debug)]
pub struct EarlierRelease {
    /// The release itself.
    pub release: Release,
    /// Tree of this machine with the release, and its state; `None` if this machine has no part of
    /// it.
    pub from: Option<(PathBuf, StateReader)>,
}

impl EarlierRelease {
    /// Returns the source of nodes and blocks, and the data for the new header.
    pub fn prepare(self, compress: Compress) -> Result<(ReleaseSource, PreparedRelease)> {
        let header = self.release.header();
        let mut notes = Vec::new();
        let source: Box<dyn Blocks> = match self.from {
            Some((tree, records)) => {
                match StoredSource::open(LiveTree::At(tree), records, header.root) {
                    Ok(source) => Box::new(source),
                    Err(e) => {
                        notes.push(format!("no data from here: {e}"));
                        Box::new(Nothing)
                    }
                }
            }
            None => {
                notes.push(
                    "this machine has no data of the release: hosts that did not keep it \
                    cannot take it"
                        .into(),
                );
                Box::new(Nothing)
            }
        };

        Ok((
            ReleaseSource::of(source, compress),
            PreparedRelease::of(header, notes),
        ))
    }
}

/// Direction of a rollback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RollbackPath {
    /// Release to restore.
    pub to: Serial,
    /// Running releases, the newest first; several if hosts disagree.
    pub from: Vec<Serial>,
}

/// Chooses the release to restore: `to`, or the newest earlier one on all hosts of the current
/// release.
///
/// A release counts as running if hosts show its signature. `signed` returns the releases of a
/// serial with valid signatures: a release for some hosts is no gap on the others.
pub fn choose(
    log: &ReleaseLog,
    local: &[KeptRelease],
    to: Option<Serial>,
    signed: impl Fn(Serial) -> Result<Vec<Release>>,
) -> Result<RollbackPath> {
    let history = RollbackHistory::of(log, local);
    let from = history.running();

    if let Some(to) = to {
        return match history
            .releases
            .iter()
            .any(|release| release.serials.contains(&to))
        {
            true => Ok(RollbackPath { to, from }),
            false => Err(
                Error::refused(format!("no host that answers keeps {}@{to}", log.tree))
                    .hint(history.kept()),
            ),
        };
    }

    let to = history.previous(signed)?;
    Ok(RollbackPath { to, from })
}

/// The distinct releases of a tree, the newest first.
struct RollbackHistory<'a> {
    tree: &'a TreeName,
    releases: Vec<DistinctContent>,
    unshown: &'a [NamedHost],
}

/// All releases with one content.
struct DistinctContent {
    content: BlockHash,
    part: bool,
    /// Serials, the newest first.
    serials: Vec<Serial>,
    running: BTreeSet<String>,
    running_as: BTreeSet<Serial>,
    kept: BTreeSet<String>,
    /// Hosts with a tombstone for each; `None` if no host has one.
    buried: Option<BTreeSet<String>>,
}

/// Name of this machine's state when no host answers.
const THIS_MACHINE: &str = "this machine";

impl<'a> RollbackHistory<'a> {
    fn of(log: &'a ReleaseLog, local: &[KeptRelease]) -> Self {
        let mut history = Self {
            tree: &log.tree,
            releases: Vec::new(),
            unshown: &log.unshown,
        };

        for release in &log.releases {
            let distinct = history.add(release.content, release.serial, release.part);
            let buried: BTreeSet<String> = release.buried.iter().map(ToString::to_string).collect();
            let all = distinct.buried.get_or_insert_with(|| buried.clone());
            all.retain(|host| buried.contains(host));
            distinct
                .kept
                .extend(release.kept.iter().map(ToString::to_string));
            if !release.shown.is_empty() {
                distinct
                    .running
                    .extend(release.shown.iter().map(ToString::to_string));
                distinct.running_as.insert(release.serial);
            }
        }

        for release in local {
            let distinct = history.add(release.content, release.serial, release.part);
            if log.releases.is_empty() {
                distinct.kept.insert(THIS_MACHINE.to_string());
                distinct
                    .running
                    .extend(release.running.then(|| THIS_MACHINE.to_string()));
                distinct
                    .running_as
                    .extend(release.running.then_some(release.serial));
            }
        }

        for release in &mut history.releases {
            release
                .serials
                .sort_unstable_by_key(|&serial| Reverse(serial));
            release.serials.dedup();
        }

        history
            .releases
            .sort_by_key(|release| Reverse(release.serials.first().copied()));

        history
    }

    fn add(&mut self, content: BlockHash, serial: Serial, part: bool) -> &mut DistinctContent {
        let at = self
            .releases
            .iter()
            .position(|r| r.content == content)
            .unwrap_or_else(|| {
                let (running, running_as, kept, buried) = Default::default();
                self.releases.push(DistinctContent {
                    content,
                    part,
                    serials: Vec::new(),
                    running,
                    running_as,
                    kept,
                    buried,
                });
                self.releases.len() - 1
            });

        self.releases[at].serials.push(serial);
        &mut self.releases[at]
    }

    /// Running serials, the newest first.
    fn running(&self) -> Vec<Serial> {
        let all: BTreeSet<Serial> = self
            .releases
            .iter()
            .flat_map(|r| r.running_as.iter().copied())
            .collect();
        all.into_iter().rev().collect()
    }

    /// The newest earlier release on all hosts of the current one.
    fn previous(&self, signed: impl Fn(Serial) -> Result<Vec<Release>>) -> Result<Serial> {
        let tree = self.tree;
        let running: Vec<&DistinctContent> = self
            .releases
            .iter()
            .filter(|r| !r.running.is_empty())
            .collect();

        let present = match running.as_slice() {
            [] => {
                let why = match self.unshown.is_empty() {
                    true => format!("no host runs a release of {tree}"),
                    false => format!(
                        "no host shows the release of {tree} that it runs, with a signature that \
                        holds"
                    ),
                };
                return Err(Error::refused(why).hint(self.kept()));
            }
            [present] => *present,
            several => {
                let shown = several
                    .iter()
                    .map(|r| format!("{tree}@{} on {}", r.newest_running(), words(&r.running)));
                let shown: Vec<String> = shown.collect();
                return Err(Error::refused(format!(
                    "hosts run different releases: {}",
                    shown.join("; ")
                ))
                .hint(format!(
                    "say with --to which one all of them are to have; {}",
                    self.kept()
                )));
            }
        };

        let now = present.newest_running();

        let earlier = |release: &DistinctContent| {
            release.serials.iter().copied().find(|&serial| serial < now)
        };
        let taken_back = |r: &&DistinctContent| {
            let buried = r.buried.as_ref().filter(|buried| !buried.is_empty());
            buried.is_some_and(|buried| present.running.is_subset(buried))
        };

        let others = self
            .releases
            .iter()
            .filter(|r| r.content != present.content && !taken_back(r));
        let mut before: Vec<(Serial, &DistinctContent)> =
            others.filter_map(|r| Some((earlier(r)?, r))).collect();
        before.sort_by_key(|(serial, _)| Reverse(*serial));

        let mut agreed = None;

        for candidate in &before {
            let (serial, release) = candidate;
            let doubted = release
                .buried
                .iter()
                .flatten()
                .any(|host| present.running.contains(host));
            if present.running.is_subset(&release.kept) && !doubted {
                agreed = Some(candidate);
                break;
            }
            let lacking: BTreeSet<String> =
                present.running.difference(&release.kept).cloned().collect();
            let for_them = |release: &Release| {
                // A host with a shared name is shown with the address.
                let names = lacking
                    .iter()
                    .filter_map(|shown| shown.split(' ').next()?.parse().ok());
                names.into_iter().any(|name| is_target(release, &name))
            };
            let signed = signed(*serial)?;
            if !signed.is_empty() && (doubted || signed.iter().any(for_them)) {
                let why = if doubted {
                    "was taken back, by the word of some hosts only"
                } else {
                    "is not kept by"
                };
                let lacking = if doubted {
                    String::new()
                } else {
                    format!(" {}", words(&lacking))
                };
                return Err(Error::refused(format!(
                    "hosts disagree about the release before {tree}@{now}: {tree}@{serial} \
                    {why}{lacking}"
                ))
                .hint(format!(
                    "say with --to which one all of them are to have; {}",
                    self.kept()
                )));
            }
        }

        match agreed {
            Some((serial, release)) if release.part => Err(Error::refused(format!(
                "{tree}@{serial}, the release before {tree}@{now}, is of a part of the tree"
            ))
            .hint(format!(
                "say with --to what to put again: a part, or a release of the whole \
                tree; {}",
                self.kept()
            ))),
            Some((serial, _)) => Ok(*serial),
            None if before.is_empty() => Err(Error::refused(format!(
                "there is no release of {tree} to go back to that is older than {tree}@{now}, \
                which all hosts run"
            ))
            .hint(self.kept())),
            None => {
                let shown = before
                    .iter()
                    .map(|(serial, r)| format!("{tree}@{serial} by {}", words(&r.kept)));
                let shown: Vec<String> = shown.collect();
                Err(Error::refused(format!(
                    "no earlier release is kept by all hosts that run \
                    {tree}@{now}"
                ))
                .hint(format!("give one with --to: {}", shown.join("; "))))
            }
        }
    }

    /// Lists the available releases as a hint.
    fn kept(&self) -> String {
        let all: BTreeSet<Serial> = self
            .releases
            .iter()
            .flat_map(|r| r.serials.iter().copied())
            .collect();

        let kept = match all.is_empty() {
            true => format!("no host keeps any release of {}", self.tree),
            false => format!(
                "kept are {}",
                all.iter()
                    .map(Serial::to_string)
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        };

        format!("{kept}; `keep` in a host's configuration says how many it keeps")
    }
}

impl DistinctContent {
    fn newest_running(&self) -> Serial {
        self.running_as.last().copied().unwrap_or_default()
    }
}

/// Largest number of hosts named in one message.
const MAX_NAMED_KEEPERS: usize = 8;

fn words(hosts: &BTreeSet<String>) -> String {
    let mut names: Vec<String> = hosts.iter().take(MAX_NAMED_KEEPERS).cloned().collect();
    if hosts.len() > MAX_NAMED_KEEPERS {
        names.push(format!("{} more", hosts.len() - MAX_NAMED_KEEPERS));
    }
    names.join(", ")
}

/// Targets of a rollback: the targets of all replaced releases.
pub fn targets(replaced: &[Release]) -> Vec<String> {
    let mut all = BTreeSet::new();
    for header in replaced.iter().map(Release::header) {
        if header.targets.is_empty() {
            return Vec::new();
        }
        all.extend(header.targets.iter().cloned());
    }

    all.into_iter().collect()
}

/// Fetches the earlier release `serial` from the hosts that keep it; ignores unverifiable copies.
pub fn fetch(
    network: impl Into<GroupLinks>,
    tree: &TreeName,
    serial: Serial,
    longest: Duration,
) -> Result<StoredRelease> {
    let mut found = fetch_all(network, tree, serial, longest)?;
    match (found.pop(), found.is_empty()) {
        (Some(one), true) => Ok(one),
        (Some(_), false) => Err(Error::refused(format!(
            "hosts keep different releases under the number {tree}@{serial}"
        ))
        .hint("run the rollback on a host that keeps the right one, or deploy it")),
        (None, _) => Err(Error::refused(format!(
            "no host sent {tree}@{serial} with a signature that holds"
        ))
        .hint("see `makuo log`; deploy the release from its source")),
    }
}

/// Fetches all releases of `serial` on hosts whose copies verify.
pub fn fetch_all(
    network: impl Into<GroupLinks>,
    tree: &TreeName,
    serial: Serial,
    longest: Duration,
) -> Result<Vec<StoredRelease>> {
    let mut found: Vec<StoredRelease> = Vec::new();
    for (_, header, signature) in survey::release(network, tree, serial, longest)? {
        let Ok(release) = Release::from_bytes(&header) else {
            continue;
        };
        let whole = release.header().tree == *tree && release.header().serial == serial;
        let signed = verify(Namespace::RELEASE, release.bytes(), &signature).is_ok();
        if whole && signed && !found.iter().any(|f| f.release.id() == release.id()) {
            found.push(StoredRelease { release, signature });
        }
    }

    Ok(found)
}

/// Refuses a release unless its key is that of `signer` or authorized here.
pub fn check_key(
    earlier: &StoredRelease,
    signer: &PublicKey,
    authorized: &AuthorizedKeys,
    now: WallTime,
) -> Result<()> {
    let header = earlier.release.header();
    let shown = format!("{}@{}", header.tree, header.serial);
    let key = verify(
        Namespace::RELEASE,
        earlier.release.bytes(),
        &earlier.signature,
    )
    .map_err(|e| Error::refused(format!("the signature of {shown} does not hold: {e}")))?;

    if key == *signer {
        return Ok(());
    }

    authorized
        .allows(&key, &header.tree, Role::from(header.intent), now)
        .map_err(|_| {
            Error::refused(format!(
                "{shown} was signed by {}, which is not the key that signs now and not authorized \
            here ({})",
                key.fingerprint(),
                crate::units::printable(authorized.file().as_os_str().as_encoded_bytes())
            ))
            .hint(
                "signing it again would make it yours: name a file that lists the key with \
            --authorized-keys, or use that key",
            )
        })
}

/// A spec to send a release unchanged to `targets`, with defaults for the rest.
pub fn spec(release: &Release, targets: &[String]) -> Result<Spec> {
    let mut spec = Spec::parse("source = \".\"\n", Path::new("rollback"))?;
    spec.tree = release.header().tree.clone();
    spec.targets.hosts = targets.to_vec();
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::HostName;
    use crate::keys::{FileSigner, Signer};
    use crate::manifest::header::tests::a_header;
    use crate::manifest::{Header, Intent, ReleaseId};
    use crate::outcome::LogRelease;
    use crate::units::ByteSize;

    /// A fleet's log: serial, content, hosts that run the release, hosts that keep one.
    fn log(releases: &[(u64, &str, &str, &str)]) -> ReleaseLog {
        let hosts = |text: &str| {
            text.split_whitespace()
                .map(|n| HostName::new(n).unwrap().into())
                .collect()
        };

        let one = |&(serial, content, running, kept): &(u64, &str, &str, &str)| LogRelease {
            serial: Serial(serial),
            id: ReleaseId(BlockHash::of(&serial.to_be_bytes())),
            tombstone: None,
            created: WallTime(0),
            key: None,
            entries: 0,
            bytes: ByteSize(0),
            content: BlockHash::of(content.as_bytes()),
            part: content.starts_with("part"),
            running: hosts(running),
            shown: hosts(running),
            buried: Vec::new(),
            kept: hosts(kept),
        };

        let releases = releases.iter().map(one).collect();
        ReleaseLog {
            tree: TreeName::new("www").unwrap(),
            hosts: Vec::new(),
            silent: Vec::new(),
            unshown: Vec::new(),
            releases,
        }
    }

    /// Signs the releases of the given serials for the host `a` only, all others for all hosts.
    fn signed(narrow: &'static [u64]) -> impl Fn(Serial) -> Result<Vec<Release>> {
        |serial| {
            let targets = if narrow.contains(&serial.0) {
                vec!["a".to_string()]
            } else {
                Vec::new()
            };
            Ok(vec![
                Release::new(Header {
                    targets,
                    serial,
                    ..a_header()
                })
                .unwrap(),
            ])
        }
    }

    fn previous(releases: &[(u64, &str, &str, &str)]) -> std::result::Result<u64, String> {
        previous_of(&log(releases), &[])
    }

    fn previous_of(log: &ReleaseLog, narrow: &'static [u64]) -> std::result::Result<u64, String> {
        choose(log, &[], None, signed(narrow))
            .map(|way| way.to.0)
            .map_err(|e| format!("{e}; {}", e.hint_text().unwrap_or_default()))
    }

    #[test]
    fn the_previous_release_is_the_newest_that_all_who_run_the_present_one_had() {
        let good = (1, "good", "", "a b c");
        assert_eq!(
            previous(&[(3, "new", "a b c", "a b c"), (2, "mid", "", "a b c"), good]),
            Ok(2)
        );

        // The canary was for one host only.
        let canary = log(&[(3, "new", "a b c", "a b c"), (2, "mid", "", "a"), good]);
        assert_eq!(previous_of(&canary, &[2]), Ok(1));

        // The same content under other serials is no earlier release.
        assert_eq!(
            previous(&[
                (4, "new", "a b c", "a b c"),
                (3, "new", "", "a b"),
                (2, "new", "", "c"),
                good
            ]),
            Ok(1)
        );

        // A serial without a signed release does not exist.
        let claimed = log(&[(3, "new", "a b c", "a b c"), (2, "mid", "", "b"), good]);
        assert_eq!(
            choose(&claimed, &[], None, |_| Ok(Vec::new())).unwrap().to,
            Serial(1)
        );
        assert_eq!(
            previous(&[(4, "new", "a", "a"), (3, "new", "b c", "b c"), good]),
            Ok(1)
        );

        // An empty host gets the release that the others go back to.
        assert_eq!(
            previous(&[(3, "new", "b c", "b c"), (2, "mid", "", "b c")]),
            Ok(2)
        );

        let to = |to: u64| {
            choose(
                &log(&[(9, "new", "a", "a"), (7, "old", "", "a")]),
                &[],
                Some(Serial(to)),
                signed(&[]),
            )
        };

        assert_eq!(
            to(9).unwrap(),
            RollbackPath {
                to: Serial(9),
                from: vec![Serial(9)]
            }
        );

        let refused = to(8).unwrap_err();
        assert!(
            refused
                .hint_text()
                .is_some_and(|hint| hint.contains("7, 9")),
            "{refused}"
        );
    }

    #[test]
    fn a_rollback_without_a_clear_goal_is_refused_by_name() {
        let says = |releases: &[(u64, &str, &str, &str)], words: &[&str]| {
            let why = previous(releases).expect_err("refused");
            words
                .iter()
                .for_each(|word| assert!(why.contains(word), "{word:?} is missing in {why:?}"));
        };

        says(
            &[(3, "new", "a", "a"), (2, "mid", "b c", "a b c")],
            &["www@3 on a; www@2 on b, c", "--to"],
        );
        says(
            &[
                (3, "new", "a b", "a b"),
                (2, "mid", "", "a"),
                (1, "old", "", "b"),
            ],
            &["disagree", "www@2 is not kept by b", "--to"],
        );

        // One host alone cannot push the others further back, by claims of kept releases or of
        // tombstones.
        let good = (1, "good", "", "a b c");
        says(
            &[(3, "new", "a b c", "a b c"), (2, "mid", "", "a b"), good],
            &["www@2 is not kept by c", "--to"],
        );
        let mut lie = log(&[(3, "new", "a b c", "a b c"), (2, "mid", "", "a b c"), good]);

        lie.releases[1].buried = vec![HostName::new("c").unwrap().into()];
        let why = previous_of(&lie, &[]).expect_err("refused");
        assert!(
            why.contains("www@2 was taken back, by the word of some hosts only"),
            "{why}"
        );
        lie.releases[1].buried = ["a", "b", "c"]
            .map(|name| HostName::new(name).unwrap().into())
            .to_vec();

        assert_eq!(previous_of(&lie, &[]), Ok(1), "all of them know it");
        // A running release without a shown header is not believed.
        lie.releases[0].shown.clear();
        lie.unshown = lie.releases[0].running.clone();
        let why = previous_of(&lie, &[]).expect_err("refused");
        assert!(why.contains("no host shows the release"), "{why}");
        says(
            &[
                (3, "new", "a b", "a b"),
                (2, "part", "", "a b"),
                (1, "old", "", "a b"),
            ],
            &["www@2", "of a part", "--to"],
        );

        says(
            &[(3, "new", "a b", "a b")],
            &["no release of www to go back to", "www@3"],
        );
        says(&[], &["no host runs"]);

        // A later release is no earlier one.
        says(
            &[(5, "later", "", "a b"), (3, "new", "a b", "a b")],
            &["no release of www to go back to"],
        );
    }

    #[test]
    fn a_rollback_is_for_all_that_the_present_releases_are_for() {
        let release = |targets: &[&str]| {
            let targets = targets.iter().map(ToString::to_string).collect();
            Release::new(Header {
                targets,
                ..a_header()
            })
            .unwrap()
        };

        assert_eq!(targets(&[release(&["web*"])]), ["web*"]);
        assert_eq!(
            targets(&[release(&["web1"]), release(&["db*", "web1"])]),
            ["db*", "web1"]
        );
        assert_eq!(
            targets(&[release(&["web1"]), release(&[])]),
            Vec::<String>::new()
        );

        assert_eq!(targets(&[]), Vec::<String>::new());
    }

    #[test]
    fn what_an_unknown_key_made_is_not_signed_again() {
        let signer = |n: u8| FileSigner::from_seed([n; 32]);
        let release = Release::new(Header {
            intent: Intent::Deploy,
            ..a_header()
        })
        .unwrap();

        let signature = signer(1)
            .sign(Namespace::RELEASE, release.bytes())
            .unwrap()
            .as_bytes()
            .to_vec();

        let tree = &release.header().tree;
        let line = |role: &str, key: &FileSigner| {
            let text = format!("tree=\"{tree}\",{role} {}\n", key.public());
            AuthorizedKeys::parse(text.as_bytes(), Path::new("keys")).unwrap()
        };

        let none = || AuthorizedKeys::none(Path::new("keys"));
        let mut earlier = StoredRelease {
            release: release.clone(),
            signature,
        };

        let check = |earlier: &StoredRelease, by: u8, keys: AuthorizedKeys| {
            check_key(earlier, signer(by).public(), &keys, WallTime(5))
        };

        assert!(check(&earlier, 1, none()).is_ok());
        assert!(check(&earlier, 2, line("deploy", &signer(1))).is_ok());
        let refused = check(&earlier, 2, none()).unwrap_err();
        assert!(
            refused
                .to_string()
                .contains(&signer(1).public().fingerprint().to_string()),
            "{refused}"
        );

        // A key with only the role audit or rollback could not have deployed the release.
        for role in ["audit", "rollback"] {
            assert!(
                check(&earlier, 2, line(role, &signer(1))).is_err(),
                "{role}"
            );
        }

        earlier.signature[60] ^= 1;
        assert!(check(&earlier, 1, none()).is_err());
    }
}
