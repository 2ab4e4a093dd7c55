//! Hosts with beacons that do not prove presence: an old makuo without nonces, or a replay of old
//! beacons.
//!
//! Such hosts do not count, and the user is warned.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use crate::id::HostName;
use crate::wire::message::Hello;

/// Largest number of such hosts remembered.
const MAX_REMEMBERED_HOSTS: usize = 64;
/// Largest number of hosts named in one line.
const MAX_WARNED_HOSTS: usize = 8;

/// Unproven hosts among the beacons of a command.
#[derive(Debug, Default)]
pub(super) struct UnprovenHosts(BTreeSet<(HostName, IpAddr)>);

impl UnprovenHosts {
    /// Records a beacon without the nonce of the command. A makuo that repeats nonces also answers
    /// the command, so its ordinary beacons are ignored.
    pub(super) fn record(&mut self, from: SocketAddr, hello: Hello) {
        if hello.nonce.is_none() && self.0.len() < MAX_REMEMBERED_HOSTS {
            self.0.insert((hello.name, from.ip()));
        }
    }

    /// Logs the unproven hosts not `found` otherwise.
    pub(super) fn warn(self, found: impl Fn(&HostName) -> bool) {
        let rest: Vec<_> = self
            .0
            .into_iter()
            .filter(|(name, _)| !found(name))
            .collect();
        warning(&rest)
            .into_iter()
            .for_each(|text| tracing::warn!("{text}"));
    }
}

/// Warning about unproven hosts; `None` without any.
pub(super) fn warning(hosts: &[(HostName, IpAddr)]) -> Option<String> {
    let mut shown: Vec<String> = hosts
        .iter()
        .take(MAX_WARNED_HOSTS)
        .map(|(name, address)| format!("{name} ({address})"))
        .collect();
    if hosts.len() > MAX_WARNED_HOSTS {
        shown.push(format!("{} more", hosts.len() - MAX_WARNED_HOSTS));
    }

    (!shown.is_empty()).then(|| {
        format!(
            "not counted, for want of a proof of being there now: {}; their makuo is too old to \
            give one, or somebody \
             repeats what they once said",
            shown.join(", ")
        )
    })
}
