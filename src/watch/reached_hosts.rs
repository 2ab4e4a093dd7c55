//! Hosts of the deploys of a watch, and missing ones.

use std::collections::BTreeSet;

use crate::id::HostName;
use crate::outcome::{MemberInfo, Outcome};

/// Hosts of the deploys so far.
#[derive(Debug, Default)]
pub(super) struct ReachedHosts {
    /// Hosts that took part in any deploy.
    known: BTreeSet<HostName>,
    /// Hosts among them that do not answer, if nothing else is wrong.
    missing: Vec<HostName>,
}

impl ReachedHosts {
    /// Number of hosts of any deploy.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// Adds the hosts of a deploy. Returns the hosts missing since earlier deploys.
    pub(super) fn add(&mut self, outcome: &Outcome) -> Vec<HostName> {
        let now: BTreeSet<HostName> = outcome.hosts.iter().map(|host| host.host.clone()).collect();
        let missing = self.known.difference(&now).cloned().collect();
        self.known.extend(now);
        missing
    }

    /// Sets the missing hosts, to wait for.
    pub(super) fn wait_for(&mut self, missing: Vec<HostName>) {
        self.missing = missing;
    }

    /// Returns whether a host is missing.
    pub(super) fn is_waiting(&self) -> bool {
        !self.missing.is_empty()
    }

    /// Returns whether a missing host is among `members`.
    pub(super) fn is_back(&self, members: &[MemberInfo]) -> bool {
        members
            .iter()
            .any(|member| self.missing.contains(&member.host))
    }

    /// Forgets every host, so that a removed one is not missed.
    pub(super) fn clear(&mut self) {
        self.known.clear();
        self.missing.clear();
    }
}
