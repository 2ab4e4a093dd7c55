//! `makuo hold` and `makuo release`: keep hosts from committing for a time, or end that.
//!
//! Without a host the daemon of this machine does it, by its control socket. Hosts elsewhere follow
//! a signed order that travels with a query, and their answers tell the result.

use std::path::Path;
use std::time::Duration;

use super::args::{HoldArgs, HoldPlaceArgs, ReleaseArgs};
use super::{deploy, network, no_host_has, sign, survey as looks};
use crate::daemon::{HoldRequest, request_hold};
use crate::drive::survey::HostAnswer;
use crate::drive::{clock, survey};
use crate::id::{HostName, TreeName, matches_host};
use crate::keys::Namespace;
use crate::outcome::{Event, ExitStatus, Observer};
use crate::report::{Report, words};
use crate::wire::hold::{HoldOrder, HoldTerms, MAX_HELD_HOSTS, SignedHold};
use crate::{Error, Result};

/// Longest hold.
const MAX_LENGTH: Duration = Duration::from_secs(crate::wire::hold::MAX_HOLD_SECONDS);

pub(super) fn hold(args: &HoldArgs, config: Option<&Path>, report: &mut Report) -> Result<u8> {
    if args.length > MAX_LENGTH {
        return Err(Error::usage("--for: a hold ends within 90 days"));
    }
    if args.why.trim().is_empty() {
        return Err(Error::usage(
            "--why: say why, for those whose deploy meets it",
        ));
    }

    let terms = HoldTerms {
        seconds: args.length.as_secs().max(1),
        by: args.by.clone().map_or_else(user, Ok)?,
        why: args.why.clone(),
    };
    carry_out(&args.place, Some(terms), config, report)
}

pub(super) fn release(
    args: &ReleaseArgs,
    config: Option<&Path>,
    report: &mut Report,
) -> Result<u8> {
    carry_out(&args.place, None, config, report)
}

/// "ops@admin"
fn user() -> Result<String> {
    let name = ["SUDO_USER", "USER", "LOGNAME"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|user| !user.is_empty()));
    let host = network::host_name()?;
    Ok(match name {
        Some(name) => format!("{name}@{host}"),
        None => host.to_string(),
    })
}

fn carry_out(
    place: &HoldPlaceArgs,
    terms: Option<HoldTerms>,
    config: Option<&Path>,
    report: &mut Report,
) -> Result<u8> {
    let done = match terms {
        Some(_) => "held",
        None => "not held any more",
    };

    if !place.hosts.is_empty() {
        return order(place, terms, done, config, report);
    }

    let socket = match &place.socket {
        Some(socket) => socket.clone(),
        None => network::host_config(config)?.socket,
    };
    let terms = terms.map(HoldTerms::cleaned).map(|terms| HoldRequest {
        seconds: terms.seconds,
        by: terms.by,
        why: terms.why,
    });
    let trees = request_hold(&socket, place.tree.as_ref(), terms).map_err(|e| {
        e.hint_else("is the daemon running on this host? --socket names its control socket")
    })?;
    let trees: Vec<String> = trees.iter().map(TreeName::to_string).collect();
    report.event(&Event::Note(format!("{}: {done}", trees.join(", "))));
    Ok(ExitStatus::Success.code())
}

/// Orders other hosts to hold, or to end a hold.
fn order(
    place: &HoldPlaceArgs,
    hold: Option<HoldTerms>,
    done: &str,
    config: Option<&Path>,
    report: &mut Report,
) -> Result<u8> {
    deploy::check_targets(&place.hosts)?;
    let network = network::resolve(&place.query.network, config)?;
    let signer = sign::signer(&sign::key_file(place.key.as_deref(), None)?)?;
    network::note_plain(&network, report);
    report.start("asking");

    let tree = place.tree.as_ref();
    let found = survey::ask(network::open(&network)?, tree, None, place.query.wait)?;
    let found = looks::answered(found, report)?.found;
    let is_named = |host: &&HostAnswer| {
        let mut patterns = place.hosts.iter();
        patterns.any(|pattern| matches_host(pattern, host.host(), Some(host.labels())))
    };
    let named = found.iter().filter(is_named);
    let mut hosts: Vec<HostName> = named.map(|host| host.host().clone()).collect();
    hosts.dedup();
    match hosts.len() {
        0 => return Err(nobody(place)),
        1..=MAX_HELD_HOSTS => {}
        _ => {
            return Err(Error::refused(format!(
                "more than {MAX_HELD_HOSTS} hosts: name fewer at a time"
            )));
        }
    }

    let order = HoldOrder {
        hosts: hosts.clone(),
        tree: place.tree.clone(),
        created: clock::since_epoch().as_millis() as u64,
        hold: hold.map(HoldTerms::cleaned),
    };
    let order = order.encode();
    let signature = signer.sign(Namespace::HOLD, &order)?.as_bytes().to_vec();
    let signed = SignedHold { order, signature };
    let answers = survey::order(network::open(&network)?, tree, signed, place.query.wait)?.found;

    let mut followed = Vec::new();
    let mut others = Vec::new();
    for answer in answers
        .iter()
        .filter(|answer| hosts.contains(answer.host()))
    {
        let name = answer.host();
        match answer.followed() {
            Some(Ok(())) => followed.push(name.clone().into()),
            Some(Err(why)) => others.push(format!("{name}: {}", words::quoted(why))),
            None if answer.has_answered() => {
                others.push(format!("{name} knows no holds: it runs an older makuo"));
            }
            None => others.push(format!("{name} did not answer")),
        }
    }

    if !followed.is_empty() {
        let text = format!("{}: {done}", words::hosts(&followed));
        report.event(&Event::Note(text));
    }
    for other in &others {
        report.event(&Event::Note(other.clone()));
    }

    let exit = match (followed.len(), others.is_empty()) {
        (0, _) => return Err(Error::refused("no host followed the order").hint(others.join("; "))),
        (_, true) => ExitStatus::Success,
        _ => ExitStatus::Mixed,
    };
    Ok(exit.code())
}

fn nobody(place: &HoldPlaceArgs) -> Error {
    match &place.tree {
        Some(tree) if place.hosts.iter().any(|glob| glob == "*") => no_host_has(tree),
        _ => Error::refused(format!(
            "no host that answers is named {}",
            place.hosts.join(" or ")
        ))
        .hint("see `makuo members`"),
    }
}
