//! Hosts that were heard and did not show that they are there now: a makuo that is too old to repeat a nonce, or somebody
//! who repeats what such a host once said. They count as nobody, and a person is told so.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use crate::id::HostName;
use crate::wire::message::Hello;

/// The most of them that are remembered.
const MAX_UNPROVEN: usize = 64;
/// The most that one line names.
const NAMED: usize = 8;

/// Those that a command heard.
#[derive(Debug, Default)]
pub(super) struct Unproven(BTreeSet<(HostName, IpAddr)>);

impl Unproven {
    /// Takes a beacon that does not repeat the nonce of the command. One of a makuo that repeats nonces is a beacon like
    /// any other: its host answers the question besides.
    pub(super) fn hear(&mut self, from: SocketAddr, hello: Hello) {
        if hello.nonce.is_none() && self.0.len() < MAX_UNPROVEN {
            self.0.insert((hello.name, from.ip()));
        }
    }

    /// Says who they are, but for those of them that were `found`.
    pub(super) fn warn(self, found: impl Fn(&HostName) -> bool) {
        let rest: Vec<_> = self
            .0
            .into_iter()
            .filter(|(name, _)| !found(name))
            .collect();
        words(&rest)
            .into_iter()
            .for_each(|text| tracing::warn!("{text}"));
    }
}

/// A line about hosts that prove nothing; none without any.
pub(super) fn words(hosts: &[(HostName, IpAddr)]) -> Option<String> {
    let mut shown: Vec<String> = hosts
        .iter()
        .take(NAMED)
        .map(|(name, address)| format!("{name} ({address})"))
        .collect();
    if hosts.len() > NAMED {
        shown.push(format!("{} more", hosts.len() - NAMED));
    }

    (!shown.is_empty()).then(|| {
        format!(
            "not counted, for want of a proof of being there now: {}; their makuo is too old to give one, or somebody \
             repeats what they once said",
            shown.join(", ")
        )
    })
}
