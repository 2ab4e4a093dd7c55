//! This machine by its configuration: what `makuo check` finds, the daemon, trees, repositories.

use std::path::Path;

use super::of_error;
use crate::Result;
use crate::cli::{check, store};
use crate::config::{HostConfig, TreeConfig, TreeRepository};
use crate::daemon::is_reachable;
use crate::doctor::place::judge_place;
use crate::drive::checkup;
use crate::drive::repository::{ListedTree, inventory};
use crate::keys::AuthorizedKeys;
use crate::net;
use crate::outcome::{Check, Finding, Severity};
use crate::store::{Store, StoreUrl};
use crate::units::printable_path;
use crate::watch::limits;
use crate::{Error, Kind};

/// Watches of the kernel that `makuo watch` needs for a source of usual size.
const FEW_WATCHES: u64 = 65_536;

/// Findings about this machine, whose configuration `config` stands in the file `path`.
pub(super) fn findings(path: &Path, config: &HostConfig) -> Vec<Finding> {
    if !path.exists() {
        let what = "there is no configuration here: this machine is no host";
        return vec![
            Finding::new(Check::Configuration, Severity::Ok, what),
            inotify(),
        ];
    }

    let mut findings = configuration(path, config);
    let places = checkup::places(config);
    findings.extend(places.iter().flat_map(judge_place));
    findings.extend(port(config));
    findings.extend(config.trees.iter().filter_map(|tree| {
        let repository = tree.repository.as_ref()?;
        Some(judge_repository(tree, look_at(tree, repository, config)))
    }));
    findings.push(inotify());
    findings
}

/// Findings of `makuo check`.
fn configuration(path: &Path, config: &HostConfig) -> Vec<Finding> {
    let found = check::on_this_machine(path, config);
    let errors = found.errors.iter();
    let mut findings: Vec<Finding> = errors
        .map(|error| of_error(Check::Configuration, error))
        .collect();

    let see = format!("see: makuo check {}", printable_path(path));
    let warnings = config.remarks().into_iter().chain(found.warnings);
    findings
        .extend(warnings.map(|text| {
            Finding::new(Check::Configuration, Severity::Warn, text).todo(see.clone())
        }));

    if findings.is_empty() {
        let what = "the daemon would start with the configuration here";
        findings.push(Finding::new(Check::Configuration, Severity::Ok, what));
    }
    findings
}

/// Finding about the daemon and its UDP port.
fn port(config: &HostConfig) -> Option<Finding> {
    if config.trees.is_empty() {
        return None;
    }

    let port = config.network.unicast_port;
    if is_reachable(&config.socket) {
        let what = "the daemon runs here";
        return Some(Finding::new(Check::Port, Severity::Ok, what));
    }
    if net::is_port_taken(port) {
        let what = format!("some program has UDP port {port}, and no daemon answers here");
        let todo = format!(
            "find it: ss -ulpn 'sport = :{port}'; or name another port with network.unicast_port"
        );
        return Some(Finding::new(Check::Port, Severity::Fail, what).todo(todo));
    }

    let what = "no daemon answers at the control socket here";
    let todo = "start it: systemctl start makuo (or is this user not in socket_group?)";
    Some(Finding::new(Check::Port, Severity::Warn, what).todo(todo))
}

/// Looks at the head and the releases of a tree in its repository.
fn look_at(
    tree: &TreeConfig,
    repository: &TreeRepository,
    config: &HostConfig,
) -> Result<ListedTree> {
    let options = store::options(repository.ca_file.as_deref());
    let url = StoreUrl::parse(&repository.url, Path::new("/"))?;
    let store = Store::open(&url, &options)?;
    // Unreadable keys are a finding of another check.
    let keys = AuthorizedKeys::load(&config.authorized_keys)
        .unwrap_or_else(|_| AuthorizedKeys::none(&config.authorized_keys));

    let listed = inventory(&store, Some(&tree.name), &keys)?;
    let found = listed.into_iter().next().map(|(_, found)| found);
    found.unwrap_or_else(|| Err(Error::new(Kind::Io, "the repository is empty")))
}

fn judge_repository(tree: &TreeConfig, found: Result<ListedTree>) -> Finding {
    let name = &tree.name;
    let listed = match found {
        Ok(listed) => listed,
        Err(e) => {
            let finding = of_error(Check::Repository, &e);
            let what = format!("tree {name}: {}", finding.what);
            return Finding { what, ..finding };
        }
    };

    let finding =
        |level, what: &str| Finding::new(Check::Repository, level, format!("tree {name}: {what}"));
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

fn inotify() -> Finding {
    let (name, limit) = limits::watches();
    match limit {
        Some(limit) if limit < FEW_WATCHES => {
            let what = format!("{name} is {limit}: makuo watch may need more for a large source");
            let todo = format!("sysctl {name}={FEW_WATCHES}");
            Finding::new(Check::Inotify, Severity::Warn, what).todo(todo)
        }
        Some(limit) => Finding::new(Check::Inotify, Severity::Ok, format!("{name} is {limit}")),
        None => Finding::new(
            Check::Inotify,
            Severity::Ok,
            format!("{name} is not readable"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::TreeName;
    use crate::keys::PublicKey;
    use crate::units::WallTime;

    fn tree() -> TreeConfig {
        let text = "[[tree]]\nname = \"www\"\npath = \"/var/www\"\n";
        let config = HostConfig::parse(text, Path::new("makuo.toml")).expect("legal");
        config.trees.into_iter().next().expect("one")
    }

    #[test]
    fn a_repository_is_judged_by_its_head() {
        let line =
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINdamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea ci";
        let (key, _) = PublicKey::from_openssh(line).expect("legal");
        let listed = |is_authorized, is_stale| ListedTree {
            tree: TreeName::new("www").expect("legal"),
            key: key.fingerprint(),
            is_authorized,
            valid_until: Some(WallTime(1)),
            is_stale,
            releases: Vec::new(),
        };
        let level = |found| judge_repository(&tree(), found).level;
        assert_eq!(level(Ok(listed(true, false))), Severity::Ok);
        assert_eq!(level(Ok(listed(true, true))), Severity::Fail);
        assert_eq!(level(Ok(listed(false, false))), Severity::Fail);

        let error = Error::new(Kind::Io, "no route").hint("see: ip route");
        let found = judge_repository(&tree(), Err(error));
        assert_eq!(found.todo.as_deref(), Some("see: ip route"));
        assert!(found.what.starts_with("tree www: no route"), "{found:?}");
    }
}
