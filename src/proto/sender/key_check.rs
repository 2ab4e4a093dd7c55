//! Compares the keys of hosts with the earlier keys of their names.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::host::{Host, MAX_SESSION_HOSTS};
use super::setup::KeyRules;
use crate::id::{HostName, InstanceId};
use crate::keys::{KnownHosts, PublicKey};

/// Known keys, and the hosts found with other ones.
#[derive(Debug, Default)]
pub struct KeyCheck {
    rules: KeyRules,
    /// Changed keys not reported yet. Each instance is reported once.
    other_keys: Vec<(InstanceId, OtherKey)>,
    reported: BTreeSet<InstanceId>,
}

/// A host that shows another key than its name had before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherKey {
    /// Name of the host.
    pub name: HostName,
    /// Address of the host.
    pub address: SocketAddr,
    /// Key shown now.
    pub shows: PublicKey,
    /// Key that the name had before.
    pub had: PublicKey,
    /// The former key is present too, in this session and at the same address.
    pub both: bool,
}

impl KeyCheck {
    /// Creates a check by these rules.
    pub fn new(rules: KeyRules) -> Self {
        Self {
            rules,
            ..Self::default()
        }
    }

    /// Keys that names had before.
    pub fn known(&self) -> &KnownHosts {
        &self.rules.known
    }

    /// Checks a key on its first appearance. `beside` is another key shown under the
    /// same name and address. Returns the reason to exclude the host, if any.
    pub fn check(
        &mut self,
        instance: InstanceId,
        host: &Host,
        shows: PublicKey,
        beside: Option<PublicKey>,
    ) -> Option<String> {
        let known = self.rules.known.of(&host.name);
        if known.contains(&shows) {
            return None;
        }

        let before = known.first().copied();

        // With both keys present, the report names both.
        if let Some(had) = beside.or(before)
            && self.reported.len() < MAX_SESSION_HOSTS
            && self.reported.insert(instance)
        {
            let other = OtherKey {
                name: host.name.clone(),
                address: host.address,
                shows,
                had,
                both: beside.is_some(),
            };
            self.other_keys.push((instance, other));
        }

        let before = before.filter(|_| self.rules.strict)?;
        Some(format!(
            "shows the host key {}, not {} as before",
            shows.fingerprint(),
            before.fingerprint()
        ))
    }

    /// Returns the changed keys found since the last call.
    pub fn take_other_keys(&mut self) -> Vec<(InstanceId, OtherKey)> {
        std::mem::take(&mut self.other_keys)
    }
}
