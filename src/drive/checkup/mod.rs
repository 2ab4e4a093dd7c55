//! Measures the hosts of a group and the paths to them, for the search for the cause of a trouble.
//!
//! `prober` is a process that asks and counts; `trains` joins its datagrams, and `found` has the
//! hosts that it knows. `discovery` finds them, `paths` measures directions and sizes of datagrams,
//! `bursts` losses at rising rates. `local` are facts of this machine. Verdicts are up to
//! [`crate::doctor`].

mod bursts;
mod discovery;
mod found;
mod local;
mod paths;
mod prober;
mod result;
mod target;
mod trains;

pub use local::{machine_kind, places};
pub use result::CheckupResult;
pub use target::CheckupTarget;

use self::prober::Prober;
use crate::Result;
use crate::drive::endpoint::GroupLinks;

/// Measures the hosts of a group; tells `step` what it does.
pub fn run(
    network: impl Into<GroupLinks>,
    mut target: CheckupTarget,
    step: &mut dyn FnMut(&str),
) -> Result<CheckupResult> {
    let mut prober = Prober::new(network)?;
    let listeners = local::listeners(prober.links());

    step("listening for hosts");
    discovery::run(&mut prober, &target)?;
    if !prober.hosts.has_any_of(&target) && target.look_up() {
        discovery::run(&mut prober, &target)?;
    }
    let heard = prober.hosts.names();
    prober.hosts.keep_measured(&target);

    step("counting datagrams in both directions");
    paths::directions(&mut prober)?;
    let links = local::link_facts(prober.links(), &listeners);
    step("searching for the largest datagram");
    paths::sizes(&mut prober)?;
    step("sending at rising rates");
    bursts::run(&mut prober, target.host.is_some())?;

    Ok(CheckupResult {
        tried: target.addresses,
        ..prober.end(heard, links)
    })
}

#[cfg(test)]
mod tests;
