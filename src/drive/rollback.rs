//! Going back: which earlier release is put again, where its header and its data come from, and whose it must be.
//!
//! Signing a header anew makes it this key's word. So an earlier release is signed again only when its own signature
//! holds and the key that made it is the one that signs now, or one that is authorized here: else the signature of
//! whoever rolls back would stand for what anybody put on a host's disk.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::endpoint::Door;
use super::log::{self, Log};
use super::source::{Facts, Source};
use crate::id::{Serial, TreeName};
use crate::keys::{AuthorizedKeys, Namespace, PublicKey, Role, verify};
use crate::manifest::Release;
use crate::spec::{Compress, Spec};
use crate::tree::records::Records;
use crate::tree::source::{Blocks, Nothing};
use crate::tree::{KeptRelease, StoredRelease, StoredSource};
use crate::units::WallTime;
use crate::{Error, Result};

/// An earlier release that is to be put again.
#[derive(Debug)]
pub struct Earlier {
    /// The release.
    pub release: Release,
    /// The tree of this machine that keeps it, with its state; `None` when this machine has nothing of it.
    pub from: Option<(PathBuf, Records)>,
}

impl Earlier {
    /// The source of its nodes and blocks, and what the new header says.
    pub fn prepare(self, compress: Compress) -> Result<(Source, Facts)> {
        let header = self.release.header();
        let mut notes = Vec::new();
        let source: Box<dyn Blocks> = match self.from {
            Some((tree, records)) => match StoredSource::open(&tree, records, header.root) {
                Ok(source) => Box::new(source),
                Err(e) => {
                    notes.push(format!("no data from here: {e}"));
                    Box::new(Nothing)
                }
            },
            None => {
                notes.push("this machine has no data of the release: hosts that did not keep it cannot take it".into());
                Box::new(Nothing)
            }
        };
        Ok((Source::of(source, compress), Facts::of(header, notes)))
    }
}

/// The number of the release to go back to: `to`, or the newest one that is older than what most hosts run.
pub fn choose(log: &Log, local: &[KeptRelease], to: Option<Serial>) -> Result<Serial> {
    let tree = &log.tree;
    let mut known: Vec<Serial> = log.releases.iter().map(|r| r.serial).chain(local.iter().map(|r| r.serial)).collect();
    known.sort_unstable();
    known.dedup();
    let listed = || match known.as_slice() {
        [] => format!("no host keeps any release of {tree}"),
        all => format!("kept are {}", all.iter().map(Serial::to_string).collect::<Vec<_>>().join(", ")),
    };
    if let Some(to) = to {
        return match known.contains(&to) {
            true => Ok(to),
            false => Err(Error::refused(format!("no host that answers keeps {tree}@{to}"))
                .hint(format!("{}; `keep` in a host's configuration says how many it keeps", listed()))),
        };
    }
    let most = log.releases.iter().filter(|r| !r.running.is_empty()).max_by_key(|r| (r.running.len(), r.serial));
    let running = most.map(|r| r.serial).or(local.iter().find(|r| r.running).map(|r| r.serial));
    let before = running.and_then(|running| known.iter().rev().find(|&&s| s < running).copied());
    before.ok_or_else(|| {
        let what = running.map_or_else(String::new, |r| format!(" older than {tree}@{r}, which most hosts run"));
        Error::refused(format!("there is no release of {tree} to go back to{what}"))
            .hint(format!("{}; `keep` in a host's configuration says how many it keeps", listed()))
    })
}

/// The earlier release `serial` as the fleet has it: from hosts that keep it. What does not verify is left out.
pub fn fetch(door: impl Into<Door>, tree: &TreeName, serial: Serial, longest: Duration) -> Result<StoredRelease> {
    let mut found: Vec<StoredRelease> = Vec::new();
    for (_, header, signature) in log::release(door, tree, serial, longest)? {
        let Ok(release) = Release::from_bytes(&header) else { continue };
        let whole = release.header().tree == *tree && release.header().serial == serial;
        let signed = verify(Namespace::RELEASE, release.bytes(), &signature).is_ok();
        if whole && signed && !found.iter().any(|f| f.release.id() == release.id()) {
            found.push(StoredRelease { release, signature });
        }
    }
    match (found.pop(), found.is_empty()) {
        (Some(one), true) => Ok(one),
        (Some(_), false) => {
            Err(Error::refused(format!("hosts keep different releases under the number {tree}@{serial}"))
                .hint("run the rollback on a host that keeps the right one, or deploy it"))
        }
        (None, _) => Err(Error::refused(format!("no host sent {tree}@{serial} with a signature that holds"))
            .hint("see `makuo log`; deploy the release from its source")),
    }
}

/// Refuses a release that is not the word of `signer` or of a key that is authorized here.
pub fn check_key(
    earlier: &StoredRelease,
    signer: &PublicKey,
    authorized: &AuthorizedKeys,
    now: WallTime,
) -> Result<()> {
    let header = earlier.release.header();
    let shown = format!("{}@{}", header.tree, header.serial);
    let key = verify(Namespace::RELEASE, earlier.release.bytes(), &earlier.signature)
        .map_err(|e| Error::refused(format!("the signature of {shown} does not hold: {e}")))?;
    if key == *signer {
        return Ok(());
    }
    authorized.allows(&key, &header.tree, Role::from(header.intent), now).map_err(|_| {
        Error::refused(format!(
            "{shown} was signed by {}, which is not the key that signs now and not authorized here ({})",
            key.fingerprint(),
            crate::units::printable(authorized.file().as_os_str().as_encoded_bytes())
        ))
        .hint("signing it again would make it yours: name a file that lists the key with --authorized-keys, or use that key")
    })
}

/// The spec of a rollback: for whom the earlier release was, and defaults for the rest.
pub fn spec(earlier: &Release) -> Result<Spec> {
    let mut spec = Spec::parse("source = \".\"\n", Path::new("rollback"))?;
    let header = earlier.header();
    spec.tree = header.tree.clone();
    spec.targets.hosts.clone_from(&header.targets);
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use super::super::log::LogRelease;
    use super::*;
    use crate::block::BlockHash;
    use crate::id::HostName;
    use crate::keys::{FileSigner, Signer};
    use crate::manifest::header::tests::a_header;
    use crate::manifest::{Header, Intent, ReleaseId};
    use crate::units::ByteSize;

    fn log(releases: &[(u64, usize)]) -> Log {
        let one = |&(serial, running): &(u64, usize)| LogRelease {
            serial: Serial(serial),
            id: ReleaseId(BlockHash::of(&serial.to_be_bytes())),
            created: WallTime(0),
            key: None,
            entries: 0,
            bytes: ByteSize(0),
            running: (0..running).map(|n| HostName::new(&format!("web{n}")).unwrap()).collect(),
            kept: Vec::new(),
        };
        let releases = releases.iter().map(one).collect();
        Log { tree: TreeName::new("www").unwrap(), hosts: Vec::new(), silent: Vec::new(), releases }
    }

    #[test]
    fn the_previous_release_is_the_newest_before_what_most_run() {
        let previous = |releases: &[(u64, usize)]| choose(&log(releases), &[], None).map(|s| s.0).ok();
        assert_eq!(previous(&[(9, 3), (7, 0), (4, 0)]), Some(7));
        assert_eq!(previous(&[(9, 1), (7, 2), (4, 0)]), Some(4), "one host is ahead");
        assert_eq!(previous(&[(9, 1), (7, 1), (4, 0)]), Some(7), "of as many the newer");
        assert_eq!((previous(&[(9, 3)]), previous(&[])), (None, None));
        let to = |to: u64| choose(&log(&[(9, 3), (7, 0)]), &[], Some(Serial(to)));
        assert_eq!(to(9).unwrap(), Serial(9), "put again");
        let refused = to(8).unwrap_err();
        assert!(refused.hint_text().is_some_and(|hint| hint.contains("7, 9")), "{refused}");
    }

    #[test]
    fn what_an_unknown_key_made_is_not_signed_again() {
        let signer = |n: u8| FileSigner::from_seed([n; 32]);
        let release = Release::new(Header { intent: Intent::Deploy, ..a_header() }).unwrap();
        let signature = signer(1).sign(Namespace::RELEASE, release.bytes()).unwrap().as_bytes().to_vec();
        let tree = &release.header().tree;
        let line = |role: &str, key: &FileSigner| {
            let text = format!("tree=\"{tree}\",{role} {}\n", key.public());
            AuthorizedKeys::parse(text.as_bytes(), Path::new("keys")).unwrap()
        };
        let none = || AuthorizedKeys::none(Path::new("keys"));
        let mut earlier = StoredRelease { release: release.clone(), signature };
        let check = |earlier: &StoredRelease, by: u8, keys: AuthorizedKeys| {
            check_key(earlier, signer(by).public(), &keys, WallTime(5))
        };
        assert!(check(&earlier, 1, none()).is_ok());
        assert!(check(&earlier, 2, line("deploy", &signer(1))).is_ok());
        let refused = check(&earlier, 2, none()).unwrap_err();
        assert!(refused.to_string().contains(&signer(1).public().fingerprint().to_string()), "{refused}");
        // Who may only compare, or only go back, could not have put it.
        for role in ["audit", "rollback"] {
            assert!(check(&earlier, 2, line(role, &signer(1))).is_err(), "{role}");
        }
        earlier.signature[60] ^= 1;
        assert!(check(&earlier, 1, none()).is_err());
    }
}
