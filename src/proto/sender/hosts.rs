//! The hosts of a session as known to the sender: names, keys and states.

mod presence;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::key_check::KeyCheck;
use super::name_index::NameIndex;
use super::setup::KeyRules;
use crate::id::{HostName, InstanceId, NamedHost, Serial};
use crate::keys::{Identity, KnownHosts};
use crate::units::Moment;
use crate::wire::message::StageReport;

pub use super::host::{Asked, Beacon, Contact, Host, MAX_SESSION_HOSTS};
pub use super::key_check::OtherKey;
pub use presence::Patience;

/// All hosts of a session.
#[derive(Debug, Default)]
pub struct Hosts {
    hosts: BTreeMap<InstanceId, Host>,
    names: NameIndex,
    keys: KeyCheck,
    /// Time of the last scan of all hosts.
    swept: Moment,
    /// Set when a host changes stage or is lost, until the next scan.
    changed: bool,
}

impl Hosts {
    /// Creates an empty set; later hosts are checked by `keys`.
    pub fn new(now: Moment, keys: KeyRules) -> Self {
        Self {
            keys: KeyCheck::new(keys),
            swept: now,
            ..Self::default()
        }
    }

    /// Forgets the hosts, but not the known keys.
    pub fn clear(&mut self) {
        self.hosts.clear();
        self.names.clear();
        self.changed = false;
    }

    /// Adds a target found by discovery.
    pub fn add(
        &mut self,
        now: Moment,
        instance: InstanceId,
        name: HostName,
        address: SocketAddr,
        serial: Serial,
    ) {
        if self.hosts.len() >= MAX_SESSION_HOSTS || self.hosts.contains_key(&instance) {
            return;
        }

        self.names.add(name.clone(), address.ip(), instance);
        let host = Host::new(now, name, address, serial);
        self.hosts.insert(instance, host);
    }

    /// Keys that names had before.
    pub fn known(&self) -> &KnownHosts {
        self.keys.known()
    }

    /// Records the identity of a process. A process never changes its key, so the known keys are
    /// checked once.
    pub fn identify(&mut self, instance: InstanceId, identity: Option<Identity>) {
        let (Some(host), Some(identity)) = (self.hosts.get_mut(&instance), identity) else {
            return;
        };

        if !host.identify(instance, identity) {
            return;
        }

        // Without a valid key the host cannot sign anything.
        let Some(shows) = identity.public() else {
            return;
        };

        let Some(host) = self.hosts.get(&instance) else {
            return;
        };

        let beside = self
            .names
            .at(&host.name, host.address.ip())
            .iter()
            .filter_map(|id| self.hosts.get(id)?.identity()?.public())
            .find(|key| *key != shows);
        let refusal = self.keys.check(instance, host, shows, beside);

        if let Some(why) = refusal
            && let Some(host) = self.hosts.get_mut(&instance)
        {
            host.exclude(why);
            self.changed = true;
        }
    }

    /// Returns the changed keys found since the last call.
    pub fn take_other_keys(&mut self) -> Vec<(InstanceId, OtherKey)> {
        self.keys.take_other_keys()
    }

    /// Returns the host's display name, with the address if another host has the same name.
    pub fn shown(&self, host: &Host) -> NamedHost {
        let shared = self.names.is_shared(&host.name);
        NamedHost {
            name: host.name.clone(),
            address: Some(host.address.ip()).filter(|_| shared),
        }
    }

    /// Forgets earlier processes of the proven host `instance`: those under the same name with the
    /// same key, or too old to have shown a key.
    fn forget_earlier(&mut self, instance: InstanceId, name: &HostName, from: SocketAddr) {
        if self.names.at(name, from.ip()).len() < 2 {
            return;
        }

        let hosts = &mut self.hosts;
        let key = |hosts: &BTreeMap<InstanceId, Host>, id: &InstanceId| {
            hosts.get(id)?.identity().map(|i| i.key)
        };

        let own = key(hosts, &instance);
        self.names.retain(name, from.ip(), |id| {
            let stays = *id == instance || key(hosts, id).is_some_and(|other| Some(other) != own);
            if !stays {
                hosts.remove(id);
            }
            stays
        });
    }

    fn remove(&mut self, instance: InstanceId) {
        if let Some(host) = self.hosts.remove(&instance) {
            self.names.remove(host.name, host.address.ip(), instance);
            self.changed = true;
        }
    }

    /// Number of hosts to take a quorum of. An excluded host does not count beside the host with
    /// the known key.
    pub fn voters(&self) -> usize {
        let excluded = self.hosts.values().filter(|host| host.is_excluded());
        let beside_known = excluded.filter(|host| {
            let known = self.keys.known().of(&host.name);
            let same = self
                .names
                .at_addresses(&host.name)
                .flatten()
                .filter_map(|id| self.hosts.get(id))
                .filter(|other| !other.is_excluded());
            same.filter_map(|other| other.identity()?.public())
                .any(|key| known.contains(&key))
        });
        self.hosts.len() - beside_known.count()
    }

    /// Returns whether a state is the host's own: a decisive one must carry the host's signature. A
    /// state verified before is recognized by its hash.
    fn is_own_state(&self, instance: InstanceId, state: &StageReport, audit: bool) -> bool {
        if !state.is_decisive(audit) {
            return state
                .identity
                .is_none_or(|identity| identity.instance() == instance);
        }

        let statement = state.statement(instance);
        let known = self
            .hosts
            .get(&instance)
            .is_some_and(|host| host.has_signed(&statement));
        known || state.is_signed(instance)
    }

    /// Takes a host's state, in an audit or a deploy, and returns whether the stage changed. `None`
    /// if the state is not the host's own.
    pub fn on_state(
        &mut self,
        now: Moment,
        instance: InstanceId,
        from: SocketAddr,
        state: StageReport,
        audit: bool,
    ) -> Option<bool> {
        if !self.is_own_state(instance, &state, audit) {
            return None;
        }

        // Anyone may have answered for the host under another name; the signed state carries the
        // right one.
        if state.is_decisive(audit)
            && self
                .hosts
                .get(&instance)
                .is_some_and(|host| host.name != state.name)
        {
            self.remove(instance);
        }

        self.add(now, instance, state.name.clone(), from, state.serial);
        self.identify(instance, state.identity);
        let host = self
            .hosts
            .get_mut(&instance)
            .filter(|host| !host.is_excluded())?;
        if state.is_decisive(audit) {
            host.on_signed(&state.statement(instance));
            // A restarted daemon has a new instance; the old one will not answer again.
            self.forget_earlier(instance, &state.name, from);
        }

        let changed = self.hosts.get_mut(&instance)?.on_state(now, state);
        self.changed |= changed;

        Some(changed)
    }

    /// Returns the host with the narrowest path and its largest datagram, among hosts that reported
    /// a size.
    pub fn narrowest(&self) -> Option<(&HostName, u16)> {
        let measured = self
            .hosts
            .values()
            .filter(|h| !h.is_lost())
            .filter_map(|h| Some((&h.name, h.transfer.takes?)));
        measured.min_by_key(|(_, takes)| *takes)
    }

    /// Gives up a host without an identity after a decisive state arrived in its name unsigned.
    /// Returns whether the host is now lost.
    pub fn drop_unsigned(&mut self, instance: InstanceId) -> bool {
        let Some(host) = self
            .hosts
            .get_mut(&instance)
            .filter(|host| host.identity().is_none() && !host.is_lost())
        else {
            return false;
        };

        host.give_up("its answers are unsigned: its makuo is older than this one".into());
        self.changed = true;

        true
    }

    /// Gives up a host that nothing reaches any more, and returns it. Only one that is not ready
    /// and has made no progress for `patience`.
    pub fn drop_cut_off(
        &mut self,
        now: Moment,
        instance: InstanceId,
        patience: Duration,
    ) -> Option<Host> {
        let host = self.hosts.get_mut(&instance);
        let stands = |host: &&mut Host| now.since(host.progress) >= patience;
        let host = host.filter(|host| !host.is_settled(false)).filter(stands)?;
        let why = "multicast does not reach it, and it is no peer: list it in network.peers";
        host.give_up(why.into());
        self.changed = true;

        Some(host.clone())
    }

    /// Marks the ready hosts among the `chosen` as ordered to commit.
    pub fn mark_ordered(&mut self, chosen: impl Fn(&Host) -> bool) {
        self.hosts
            .values_mut()
            .filter(|h| h.is_good(false) && chosen(h))
            .for_each(Host::on_commit_ordered);
    }

    /// Returns all instances.
    pub fn ids(&self) -> impl ExactSizeIterator<Item = InstanceId> + '_ {
        self.hosts.keys().copied()
    }

    /// Returns all hosts.
    pub fn iter(&self) -> impl Iterator<Item = (&InstanceId, &Host)> {
        self.hosts.iter()
    }

    /// Returns one host, mutably.
    pub fn get_mut(&mut self, instance: InstanceId) -> Option<&mut Host> {
        self.hosts.get_mut(&instance)
    }

    /// Returns one host.
    pub fn get(&self, instance: InstanceId) -> Option<&Host> {
        self.hosts.get(&instance)
    }

    /// Number of hosts.
    pub fn len(&self) -> usize {
        self.hosts.len()
    }

    /// Returns true without any host.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }
}

#[cfg(test)]
mod tests;
