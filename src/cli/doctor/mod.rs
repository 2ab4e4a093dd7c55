//! `makuo doctor`: why makuo does not work here, or not with each host.
//!
//! `local` looks at this machine by its configuration, and `stores` at the repositories of its
//! trees, `firewall` reads rules; here are the network and its hosts.

mod firewall;
mod local;
mod stores;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::args::DoctorArgs;
use super::deploy::cache_dir;
use super::interrupt::handle_ctrl_c;
use super::network;
use crate::config::NetworkConfig;
use crate::doctor::interface::InterfaceChoice;
use crate::doctor::querier::{QUERIER_TIMEOUT, QuerierWait};
use crate::doctor::{self, LinkFacts, NetworkFacts};
use crate::drive::checkup::{self, CheckupResult, CheckupTarget};
use crate::drive::clock::{self, Clock};
use crate::drive::deploy::{Interrupt, remembered_hosts};
use crate::drive::survey;
use crate::id::HostName;
use crate::net::{self, Family, Interface};
use crate::outcome::{Check, Finding, Severity, findings_exit, ordered};
use crate::report::{Report, words};
use crate::units::{printable, printable_path};
use crate::{Error, Result};

/// Time to listen for hosts on another interface.
const ELSEWHERE_TIME: Duration = Duration::from_millis(700);

pub(super) fn run(args: &DoctorArgs, config: Option<&Path>, report: &mut Report) -> Result<u8> {
    let path = network::config_path(config);
    let host_config = network::host_config(config)?;
    report.start("looking at this machine");
    let mut findings = local::findings(&path, &host_config);

    let opened = network::for_command(&args.network, &host_config)
        .map_err(|e| (Check::GroupKey, e))
        .and_then(|network| match network::open(&network) {
            Ok(links) => Ok((links, network)),
            Err(e) => Err((failed_check(&network, &e), e)),
        });
    let hosts = match opened {
        Ok((links, network)) => {
            let target = CheckupTarget::new(args.host.as_deref(), network.unicast_port);
            let now = clock::wall_seconds();
            let known = remembered_hosts(cache_dir().as_deref(), &links.keys, now);
            let result = checkup::run(links, target, &mut |step| report.start(step))?;
            findings.extend(judged(&network, args, &result, report));
            if args.host.is_none() {
                findings.extend(missed(known, &result.heard));
            }
            result.heard.len()
        }
        Err((check, e)) => {
            findings.push(of_error(check, &e));
            0
        }
    };

    let findings = ordered(findings);
    report.findings(&findings, hosts);
    Ok(findings_exit(&findings))
}

/// Findings about hosts of earlier deploys from here that are not heard.
fn missed(known: BTreeSet<HostName>, heard: &[HostName]) -> impl Iterator<Item = Finding> {
    let missed = known.into_iter().filter(|name| !heard.contains(name));
    missed.map(|name| {
        let what = "it took part in an earlier deploy from here, and is not heard now";
        let todo = "is it up, with the daemon on this network? `makuo doctor HOST` tries its \
                    address as well";
        Finding::new(Check::Hosts, Severity::Warn, what)
            .todo(todo)
            .of(&name.into())
    })
}

/// The check that fails where the network cannot be joined: that of the keys if one is named.
fn failed_check(network: &NetworkConfig, error: &Error) -> Check {
    let text = error.to_string();
    let mut keys = network.group_keys.iter();
    match keys.any(|path| text.contains(&printable_path(path))) {
        true => Check::GroupKey,
        false => Check::Interface,
    }
}

/// A failed check, with the hint of the error.
fn of_error(check: Check, error: &Error) -> Finding {
    let finding = Finding::new(check, Severity::Fail, error.to_string());
    match error.hint_text() {
        Some(hint) => finding.todo(hint),
        None => finding,
    }
}

/// Findings about the network and its hosts.
fn judged(
    network: &NetworkConfig,
    args: &DoctorArgs,
    result: &CheckupResult,
    report: &mut Report,
) -> Vec<Finding> {
    let facts = &result.network;
    let answers = result.hosts.iter().filter(|host| host.answered).count();
    let mut findings = doctor::judge_hosts(&result.hosts, facts);
    findings.extend(doctor::membership::judge(facts));
    findings.extend(doctor::group_key::judge(&result.strangers, network.plain));
    let send_limit = net::send_buffer_limit();
    findings.extend(doctor::buffer::judge_here(facts, send_limit));
    findings.extend(scope(network));

    let all = net::list().unwrap_or_default();
    let elsewhere = match answers {
        0 if network.multicast => {
            report.start("listening on other interfaces");
            elsewhere(network, &facts.links, &all)
        }
        _ => Vec::new(),
    };
    let choice = InterfaceChoice {
        named: !network.interfaces.is_empty(),
        all,
        answers,
        elsewhere,
    };
    findings.extend(doctor::interface::judge(facts, &choice));
    findings.extend(hosts(args.host.as_deref(), result, answers));
    let ports = [network.port, network.unicast_port];
    let suspects = doctor::firewall::judge(&findings, firewall::rules, network.group, &ports);
    findings.extend(suspects);

    let kind = checkup::machine_kind(&facts.links, network.multicast, answers > 0);
    findings.extend(doctor::environment::judge(&kind));
    if network.multicast {
        let wait = match args.long {
            true => querier(facts, report),
            false => QuerierWait::NotTried,
        };
        findings.push(doctor::querier::judge(network.group, &wait));
    }

    findings
}

/// Finding about the hosts that answered.
fn hosts(only: Option<&str>, result: &CheckupResult, answers: usize) -> Option<Finding> {
    match (only, &result.silence) {
        (Some(host), _) if result.hosts.is_empty() => {
            let host = printable(host.as_bytes());
            let tried: BTreeSet<String> = result.tried.iter().map(SocketAddr::to_string).collect();
            let tried: Vec<String> = tried.into_iter().collect();
            let what = match tried.is_empty() {
                true => format!("{host} does not answer to the group, and its name has no address"),
                false => format!(
                    "{host} answers neither to the group nor at {}",
                    tried.join(", ")
                ),
            };
            let todo = "does the daemon run there (systemctl status makuo), with the same group, \
                        port and group key? `makuo members` lists the hosts that are alive";
            Some(Finding::new(Check::Hosts, Severity::Fail, what).todo(todo))
        }
        (None, Some(silence)) => {
            let finding = Finding::new(Check::Hosts, Severity::Fail, silence.error.clone());
            Some(finding.todo(silence.hint.clone()))
        }
        _ if answers > 0 => {
            let measured = result.hosts.iter().filter(|host| host.measured).count();
            let measured = match measured < result.hosts.len() {
                true => format!("; the paths to {measured} of them are measured"),
                false => String::new(),
            };
            let answers = words::plural_count(answers as u64, "host answers", "hosts answer");
            let what = format!("{answers}{measured}");
            Some(Finding::new(Check::Hosts, Severity::Ok, what))
        }
        _ => None,
    }
}

/// Findings about the TTL.
fn scope(network: &NetworkConfig) -> Option<Finding> {
    if !network.multicast {
        return None;
    }

    Some(match network.ttl_remark() {
        Some(remark) => Finding::new(Check::Scope, Severity::Warn, remark)
            .todo("leave ttl at 1 within one network, or take a group that routers forward"),
        None => {
            let what = match network.ttl {
                1 => "ttl is 1: datagrams to the group stay in this network".to_string(),
                ttl => format!("ttl is {ttl}: routers with multicast routing pass the group on"),
            };
            Finding::new(Check::Scope, Severity::Ok, what)
        }
    })
}

/// Other interfaces on which hosts answer, with their number.
fn elsewhere(
    network: &NetworkConfig,
    used: &[LinkFacts],
    all: &[Interface],
) -> Vec<(String, usize)> {
    let is_used = |interface: &Interface| {
        let mut used = used.iter();
        used.any(|link| link.interface.index == interface.index)
    };
    let family = Family::of(network.group);
    let others = all.iter().filter(|interface| {
        !is_used(interface) && !interface.loopback && interface.can_multicast(family)
    });

    let answers = |interface: &Interface| {
        let network = NetworkConfig {
            interfaces: vec![interface.name.clone()],
            ..network.clone()
        };
        let links = network::open(&network).ok()?;
        let found = survey::members(links, ELSEWHERE_TIME).ok()?.found.len();
        (found > 0).then(|| (interface.name.clone(), found))
    };
    others.filter_map(answers).collect()
}

/// Waits for a querier on the first link.
fn querier(facts: &NetworkFacts, report: &mut Report) -> QuerierWait {
    let Some(link) = facts.links.first() else {
        return QuerierWait::NotTried;
    };

    let interrupt = Interrupt::default();
    handle_ctrl_c(interrupt.clone());
    report.start("waiting for a querier, up to 130 s; Ctrl-C ends the wait");
    let clock = Clock::start();
    let began = clock.now();
    let is_over = || interrupt.is_asked() || clock.now().since(began) >= QUERIER_TIMEOUT;

    match net::wait_for_querier(&link.interface, facts.family(), is_over) {
        Ok(Some(querier)) => QuerierWait::Asked(querier),
        Ok(None) if interrupt.is_asked() => QuerierWait::Interrupted(clock.now().since(began)),
        Ok(None) => QuerierWait::Silence,
        Err(e) => QuerierWait::NotAllowed(e.to_string()),
    }
}
