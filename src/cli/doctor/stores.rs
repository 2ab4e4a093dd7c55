//! The repository of a tree: whether its store answers, with what head, and how its server behaves.

use std::path::Path;

use super::of_error;
use crate::Result;
use crate::cli::store;
use crate::config::{HostConfig, TreeConfig, TreeRepository};
use crate::doctor::store::judge_manners;
use crate::drive::clock;
use crate::drive::repository::{ListedTree, inventory};
use crate::id::TreeName;
use crate::keys::AuthorizedKeys;
use crate::outcome::{Check, Finding, Severity};
use crate::store::{Store, StoreUrl};
use crate::{Error, Kind};

/// Findings about the repository of a tree.
pub(super) fn findings(
    tree: &TreeConfig,
    repository: &TreeRepository,
    config: &HostConfig,
) -> Vec<Finding> {
    let name = &tree.name;
    let store = match open(repository) {
        Ok(store) => store,
        Err(e) => return vec![judge_head(name, Err(e))],
    };

    let head = judge_head(name, look_at(name, &store, config));
    let manners = judge_manners(name, store.manners(), clock::wall_seconds());
    std::iter::once(head).chain(manners).collect()
}

fn open(repository: &TreeRepository) -> Result<Store> {
    let options = store::options(repository.ca_file.as_deref());
    let url = StoreUrl::parse(&repository.url, Path::new("/"))?;
    Store::open(&url, &options)
}

/// Looks at the head and the releases of a tree in its repository.
fn look_at(tree: &TreeName, store: &Store, config: &HostConfig) -> Result<ListedTree> {
    // Unreadable keys are a finding of another check.
    let keys = AuthorizedKeys::load(&config.authorized_keys)
        .unwrap_or_else(|_| AuthorizedKeys::none(&config.authorized_keys));

    let listed = inventory(store, Some(tree), &keys)?;
    let found = listed.into_iter().next().map(|(_, found)| found);
    found.unwrap_or_else(|| Err(Error::new(Kind::Io, "the repository is empty")))
}

fn judge_head(tree: &TreeName, found: Result<ListedTree>) -> Finding {
    let listed = match found {
        Ok(listed) => listed,
        Err(e) => {
            let finding = of_error(Check::Repository, &e);
            let what = format!("tree {tree}: {}", finding.what);
            return Finding { what, ..finding };
        }
    };

    let finding =
        |level, what: &str| Finding::new(Check::Repository, level, format!("tree {tree}: {what}"));
    if !listed.is_authorized {
        return finding(
            Severity::Fail,
            "no authorized key signed the head of its repository",
        )
        .todo("add the key of the publisher to authorized_keys here");
    }
    if listed.is_stale {
        return finding(
            Severity::Fail,
            "its repository is stale: nobody signs its head any more",
        )
        .todo("publish again, or: makuo repo renew URL; is the clock here right?");
    }
    finding(
        Severity::Ok,
        "its repository answers, and its head is signed by an authorized key",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::PublicKey;
    use crate::units::WallTime;

    fn tree() -> TreeName {
        TreeName::new("www").expect("legal")
    }

    #[test]
    fn a_repository_is_judged_by_its_head() {
        let line =
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINdamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea ci";
        let (key, _) = PublicKey::from_openssh(line).expect("legal");
        let listed = |is_authorized, is_stale| ListedTree {
            tree: tree(),
            key: key.fingerprint(),
            is_authorized,
            valid_until: Some(WallTime(1)),
            is_stale,
            releases: Vec::new(),
        };
        let level = |found| judge_head(&tree(), found).level;
        assert_eq!(level(Ok(listed(true, false))), Severity::Ok);
        assert_eq!(level(Ok(listed(true, true))), Severity::Fail);
        assert_eq!(level(Ok(listed(false, false))), Severity::Fail);

        let error = Error::new(Kind::Io, "no route").hint("see: ip route");
        let found = judge_head(&tree(), Err(error));
        assert_eq!(found.todo.as_deref(), Some("see: ip route"));
        assert!(found.what.starts_with("tree www: no route"), "{found:?}");
    }
}
