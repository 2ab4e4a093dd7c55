//! This machine by its configuration: what `makuo check` finds, the daemon, trees, repositories.

use std::path::Path;

use super::{of_error, stores};
use crate::cli::check;
use crate::config::HostConfig;
use crate::daemon::is_reachable;
use crate::doctor::place::judge_place;
use crate::drive::checkup;
use crate::net;
use crate::outcome::{Check, Finding, Severity};
use crate::units::printable_path;
use crate::watch::limits;

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
    findings.extend(config.trees.iter().flat_map(|tree| {
        let repository = tree.repository.iter();
        repository.flat_map(|repository| stores::findings(tree, repository, config))
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
