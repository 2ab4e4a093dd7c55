//! The cases with a host that stops passing on, or is slow: all others still get the release.

use std::collections::BTreeSet;

use nix::sys::signal::Signal;

use super::{MBIT, PAYLOAD, Scale, require_time};
use crate::network::Settings;
use crate::network::cases::shaped;
use crate::network::fabric::Sent;
use crate::network::fleet::{Fleet, staged};
use crate::network::job::{LIMIT, Tool, repeat};
use crate::network::material::Material;
use crate::network::row::{Row, median};
use crate::network::timed::{Started, comes};
use crate::network::trouble::Trouble;

/// Limit of the time over that of the payload on the line.
const MOST: f64 = 1.5;
/// Rate of the fleet over that of a slow host.
const SLOWER: u32 = 10;

/// Trouble of the last host.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    /// Killed when half of the payload is sent.
    Killed,
    /// Stopped then, with its port still open.
    Stopped,
    /// On a slow line from the start.
    Slow,
}

/// Seconds until all other hosts have staged and committed the release.
#[derive(Debug, Clone, Copy)]
struct Times {
    staged: f64,
    committed: f64,
}

/// Measures a fleet while a host is killed.
pub fn relay_killed(settings: Settings) -> Vec<Row> {
    relay(
        "unicast-killed",
        "one killed midway",
        Fate::Killed,
        settings,
    )
}

/// Measures a fleet while a host is stopped.
pub fn relay_stopped(settings: Settings) -> Vec<Row> {
    relay(
        "unicast-stopped",
        "one stopped midway",
        Fate::Stopped,
        settings,
    )
}

/// Measures a fleet with a host on a line of a tenth of the rate.
pub fn relay_slow(settings: Settings) -> Vec<Row> {
    let mbit = Scale::new(MBIT, PAYLOAD, settings).mbit / SLOWER;
    let what = format!("one at {mbit} Mbit");
    relay("unicast-slow", &what, Fate::Slow, settings)
}

/// Measures the staging of all hosts but the last.
fn relay(case: &'static str, what: &str, fate: Fate, settings: Settings) -> Vec<Row> {
    let scale = Scale::new(MBIT, PAYLOAD, settings);
    let hosts = scale.hosts(10);
    let material = Material::noise(14, scale.bytes);
    let (mut done, committed) = repeat(case, settings, || {
        let (times, sent) = without_last(&material, scale, hosts, fate)?;
        Ok((times.staged, sent, times.committed))
    });

    done.tool = Tool::Unicast;
    let bound = Some(scale.bound());
    let mut row = Row::new(case, what, hosts - 1, &done, scale.bytes, bound);
    if let Some(seconds) = median(&committed) {
        row.what = format!("staged, {what}; committed after {seconds:.3} s");
    }

    require_time(&mut row, MOST);
    vec![row]
}

/// Deploys to a fleet that needs all hosts but the last, until those have the release.
fn without_last(
    material: &Material,
    scale: Scale,
    hosts: usize,
    fate: Fate,
) -> Result<(Times, Sent), Trouble> {
    let mut fleet = Fleet::new(hosts, shaped(scale.mbit, 0).unicast())?;
    let last = hosts - 1;
    if fate == Fate::Slow {
        fleet.fabric.slow_down(last, scale.mbit / SLOWER);
    }

    let source = material.path();
    let spec = format!("[commit]\nrequire = {last}\n");
    let before = fleet.fabric.sent();
    let mut deploy = fleet.start(&source, &spec, &[], LIMIT)?;
    if fate != Fate::Slow {
        wait_until_midway(&fleet, before, material.bytes)?;
    }

    match fate {
        Fate::Killed => fleet.hosts[last].kill(),
        Fate::Stopped => fleet.hosts[last].signal(Signal::SIGSTOP),
        Fate::Slow => {}
    }

    let times = follow(&fleet, &mut deploy)?;
    let sent = fleet.fabric.sent().since(before);

    // The session may wait for the last host for as long as it likes.
    deploy.interrupt();
    while deploy.next()?.is_some() {}
    drop(deploy);
    fleet.check_first(last, &source)?;

    Ok((times, sent))
}

/// Waits until half of the payload has left the sender.
fn wait_until_midway(fleet: &Fleet, before: Sent, bytes: u64) -> Result<(), Trouble> {
    let is_midway = || fleet.fabric.sent_by_interface() - before.interface > bytes / 2;
    comes(LIMIT, is_midway)
        .then_some(())
        .ok_or(Trouble::Late(LIMIT.as_secs()))
}

/// Follows a deployment until all hosts but the last have committed.
fn follow(fleet: &Fleet, deploy: &mut Started) -> Result<Times, Trouble> {
    let needed = fleet.hosts.len() - 1;
    let last = &fleet.hosts[needed].name;
    let (mut ready, mut done) = (BTreeSet::new(), BTreeSet::new());
    let mut all_ready = None;

    while let Some((at, event)) = deploy.next()? {
        let Some(host) = staged(&event).filter(|host| host != last) else {
            continue;
        };

        ready.insert(host.to_string());
        if event["state"] == "committed" {
            done.insert(host.to_string());
        }

        if ready.len() == needed {
            all_ready = all_ready.or(Some(at));
        }

        if let Some(staged) = all_ready.filter(|_| done.len() == needed) {
            let committed = at;
            return Ok(Times { staged, committed });
        }
    }

    Err(Trouble::Failed(format!(
        "ended with {} hosts staged and {} committed of {needed}",
        ready.len(),
        done.len()
    )))
}
