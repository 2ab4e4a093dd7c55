//! Measures the hosts of a group and the paths to them, for the search for the cause of a trouble.
//!
//! `prober` is a process that asks and counts, `trains` joins its datagrams, `found` the hosts that it knows. `discovery` finds
//! them, `paths` measures directions and sizes of datagrams, `bursts` losses at rising rates.
//! `local` are facts of this machine. Verdicts are up to [`crate::doctor`].

mod bursts;
mod discovery;
mod found;
mod local;
mod paths;
mod prober;
mod trains;

pub use local::{machine_kind, places};

use std::net::SocketAddr;

use self::prober::Prober;
use crate::Result;
use crate::doctor::{HostFacts, NetworkFacts};
use crate::drive::endpoint::GroupLinks;
use crate::id::HostName;
use crate::outcome::{Silence, Stranger};

/// The hosts to look at.
#[derive(Debug, Clone, Default)]
pub struct CheckupTarget {
    /// Name or address of the only host; `None` for all hosts.
    pub host: Option<String>,
    /// Addresses of that host, if its name resolves.
    pub addresses: Vec<SocketAddr>,
}

/// Measurements of a group.
#[derive(Debug)]
pub struct CheckupResult {
    /// The hosts, by name.
    pub hosts: Vec<HostFacts>,
    /// Names of all hosts that were heard, of which `hosts` are measured.
    pub heard: Vec<HostName>,
    /// This machine's part of the network.
    pub network: NetworkFacts,
    /// Peers with another group key, or none.
    pub strangers: Vec<Stranger>,
    /// Set if no host was heard at all.
    pub silence: Option<Silence>,
}

/// Measures the hosts of a group; tells `step` what it does.
pub fn run(
    network: impl Into<GroupLinks>,
    target: &CheckupTarget,
    step: &mut dyn FnMut(&str),
) -> Result<CheckupResult> {
    let mut prober = Prober::new(network)?;
    let listeners = local::listeners(prober.links());

    step("listening for hosts");
    discovery::run(&mut prober, target)?;
    let heard = prober.hosts.names();
    prober.hosts.keep_measured(target);

    step("counting datagrams in both directions");
    paths::directions(&mut prober)?;
    let links = local::link_facts(prober.links(), &listeners);
    step("searching for the largest datagram");
    paths::sizes(&mut prober)?;
    step("sending at rising rates");
    bursts::run(&mut prober, target.host.is_some())?;

    Ok(prober.end(heard, links))
}
