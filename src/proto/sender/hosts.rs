//! The hosts of a session as known to the sender: state, address, key.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::block::BlockHash;
use crate::id::{HostName, InstanceId, NamedHost, Serial};
use crate::keys::{Identity, KnownHosts, PublicKey};
use crate::units::Moment;
use crate::wire::HostStage;
use crate::wire::message::{OrderKind, StageReport};

pub use super::host::{Asked, Beacon, Host};

/// Bound on the hosts of a session.
const MAX_SESSION_HOSTS: usize = 20_000;
/// Silence after which a host heard from another address has moved there.
const MOVED_AFTER: Duration = Duration::from_secs(2);

/// Patience with hosts that have not answered.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Tolerated silence.
    pub silent: Duration,
    /// Tolerated time without progress.
    pub stuck: Duration,
}

/// All hosts of a session.
#[derive(Debug, Default)]
pub struct Hosts {
    hosts: BTreeMap<InstanceId, Host>,
    /// Instances under each name and address, mostly one.
    named: BTreeMap<(HostName, IpAddr), Vec<InstanceId>>,
    /// Keys that names had before.
    known: KnownHosts,
    /// Exclude hosts with another key than before.
    strict: bool,
    /// Changed keys not reported yet. Each instance is reported once.
    other_keys: Vec<(InstanceId, OtherKey)>,
    reported: BTreeSet<InstanceId>,
    changed: bool,
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

impl Hosts {
    /// Creates an empty set; later hosts are checked against the known keys.
    pub fn new(known: KnownHosts, strict: bool) -> Self {
        Self {
            known,
            strict,
            ..Self::default()
        }
    }

    /// Forgets the hosts, but not the known keys.
    pub fn clear(&mut self) {
        self.hosts.clear();
        self.named.clear();
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

        self.named
            .entry((name.clone(), address.ip()))
            .or_default()
            .push(instance);
        let host = Host::new(now, name, address, serial);

        self.hosts.insert(instance, host);
    }

    /// Keys that names had before.
    pub fn known(&self) -> &KnownHosts {
        &self.known
    }

    /// Records the identity of a process. A process never changes its key, so the known keys are
    /// checked once.
    pub fn identify(&mut self, instance: InstanceId, identity: Option<Identity>) {
        let Some(host) = self
            .hosts
            .get_mut(&instance)
            .filter(|host| host.identity.is_none())
        else {
            return;
        };

        let Some(identity) = identity.filter(|identity| identity.instance() == instance) else {
            return;
        };

        host.identity = Some(identity);
        let name = host.name.clone();
        let address = host.address;

        // Without a valid key the host cannot sign anything.
        let Some(shows) = identity.public() else {
            return;
        };

        let known = self.known.of(&name);
        if known.contains(&shows) {
            return;
        }

        let beside = self
            .named
            .get(&(name.clone(), address.ip()))
            .into_iter()
            .flatten();

        let beside = beside
            .filter_map(|id| self.hosts.get(id)?.identity?.public())
            .find(|key| *key != shows);
        let before = known.first().copied();
        if let Some(before) = before.filter(|_| self.strict) {
            self.exclude(instance, shows, before);
        }

        // With both keys present, the report names both.
        let Some(had) = beside.or(before) else { return };
        if self.reported.len() < MAX_SESSION_HOSTS && self.reported.insert(instance) {
            self.other_keys.push((
                instance,
                OtherKey {
                    name,
                    address,
                    shows,
                    had,
                    both: beside.is_some(),
                },
            ));
        }
    }

    fn exclude(&mut self, instance: InstanceId, shows: PublicKey, had: PublicKey) {
        let Some(host) = self.hosts.get_mut(&instance) else {
            return;
        };
        host.excluded = true;
        host.lost = true;
        host.stuck = true;
        let shows = shows.fingerprint();
        let had = had.fingerprint();
        host.text = Some(format!("shows the host key {shows}, not {had} as before"));
        self.changed = true;
    }

    /// Returns the changed keys found since the last call.
    pub fn take_other_keys(&mut self) -> Vec<(InstanceId, OtherKey)> {
        std::mem::take(&mut self.other_keys)
    }

    /// Returns the host's display name, with the address if another host has the same name.
    pub fn shown(&self, host: &Host) -> NamedHost {
        let shared = self.at_addresses(&host.name).take(2).count() > 1;
        NamedHost {
            name: host.name.clone(),
            address: Some(host.address.ip()).filter(|_| shared),
        }
    }

    /// Forgets earlier processes of the proven host `instance`: those under the same name with the
    /// same key, or too old to have shown a key.
    fn forget_earlier(&mut self, instance: InstanceId, name: &HostName, from: SocketAddr) {
        let key = |hosts: &BTreeMap<InstanceId, Host>, id: &InstanceId| {
            hosts.get(id)?.identity.map(|i| i.key)
        };

        let own = key(&self.hosts, &instance);
        let named = (name.clone(), from.ip());
        let Some(instances) = self.named.get_mut(&named).filter(|ids| ids.len() > 1) else {
            return;
        };

        let hosts = &mut self.hosts;
        instances.retain(|id| {
            let stays = *id == instance || key(hosts, id).is_some_and(|other| Some(other) != own);
            if !stays {
                hosts.remove(id);
            }
            stays
        });
    }

    fn remove(&mut self, instance: InstanceId) {
        let Some(host) = self.hosts.remove(&instance) else {
            return;
        };

        let named = (host.name, host.address.ip());
        if let Some(instances) = self.named.get_mut(&named) {
            instances.retain(|id| *id != instance);
            if instances.is_empty() {
                self.named.remove(&named);
            }
        }

        self.changed = true;
    }

    /// Returns the instances under a name, one list for each address.
    fn at_addresses(&self, name: &HostName) -> impl Iterator<Item = &Vec<InstanceId>> {
        // The lowest of all addresses.
        let first = (name.clone(), IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        self.named
            .range(first..)
            .take_while(move |((other, _), _)| other == name)
            .map(|(_, ids)| ids)
    }

    /// Number of hosts to take a quorum of. An excluded host does not count beside the host with
    /// the known key.
    pub fn voters(&self) -> usize {
        let excluded = self.hosts.values().filter(|host| host.excluded);
        let beside_known = excluded.filter(|host| {
            let known = self.known.of(&host.name);
            let same = self
                .at_addresses(&host.name)
                .flatten()
                .filter_map(|id| self.hosts.get(id))
                .filter(|other| !other.excluded);
            same.filter_map(|other| other.identity?.public())
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

        let signed_state = Some(BlockHash::of(&state.statement(instance)));
        let known = self
            .hosts
            .get(&instance)
            .is_some_and(|host| host.signed_state == signed_state);
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
            .filter(|host| !host.excluded)?;
        if state.is_decisive(audit) {
            host.signed_state = Some(BlockHash::of(&state.statement(instance)));
            // A restarted daemon has a new instance; the old one will not answer again.
            self.forget_earlier(instance, &state.name, from);
        }

        let host = self.hosts.get_mut(&instance)?;

        host.heard = now;
        host.dropped = host.dropped.max(state.dropped.unwrap_or(0));
        if host.lost && (!host.stuck || host.has_progressed(&state)) {
            (host.lost, host.stuck, host.progress) = (false, false, now);
        }

        // Messages overtake each other, so a stage never goes back, except between mutually
        // exclusive final stages.
        let newer = state.number >= host.number || state.number == 0;
        if !newer || host.stage.is_some_and(|s| s > state.stage) {
            return Some(false);
        }

        host.number = host.number.max(state.number);
        let changed = host.stage != Some(state.stage);
        if changed || host.received != state.received {
            host.progress = now;
        }

        self.changed |= changed;
        host.stage = Some(state.stage);
        host.text = state.text;
        host.torn = state.torn == Some(true);
        host.summary = state.summary.or(host.summary);
        host.received = host.received.max(state.received);
        host.serial = host.serial.max(state.serial);

        Some(changed)
    }

    /// Returns the host with the narrowest path and its largest datagram, among hosts that reported
    /// a size.
    pub fn narrowest(&self) -> Option<(&HostName, u16)> {
        let measured = self
            .hosts
            .values()
            .filter(|h| !h.lost)
            .filter_map(|h| Some((&h.name, h.takes?)));
        measured.min_by_key(|(_, takes)| *takes)
    }

    /// Starts the session: earlier silence does not count.
    pub fn begin(&mut self, now: Moment) {
        for host in self.hosts.values_mut().filter(|h| !h.lost) {
            (host.heard, host.progress) = (now, now);
        }
    }

    /// Takes a beacon, from a host of the session or from the daemon restarted in its place.
    /// Returns the instance concerned.
    pub fn on_beacon(
        &mut self,
        instance: InstanceId,
        name: &HostName,
        from: SocketAddr,
        has: bool,
    ) -> Option<InstanceId> {
        let restarted = !self.hosts.contains_key(&instance);
        let id = if restarted {
            *self.named.get(&(name.clone(), from.ip()))?.last()?
        } else {
            instance
        };

        let host = self
            .hosts
            .get_mut(&id)
            .filter(|host| host.address.ip() == from.ip())?;
        if restarted || host.beacon.is_none_or(|b| !b.restarted) {
            host.beacon = Some(Beacon { restarted, has });
        }

        Some(id)
    }

    /// Forgets the contents of earlier beacons.
    pub fn forget_beacons(&mut self) {
        self.hosts.values_mut().for_each(|host| host.beacon = None);
    }

    /// Returns whether a beacon is of interest: from a host with a missing answer to `order` after
    /// a commit order, or from the daemon restarted in place of a host.
    pub fn awaits_beacon_from(
        &self,
        instance: InstanceId,
        name: &HostName,
        from: SocketAddr,
        order: OrderKind,
    ) -> bool {
        match self.hosts.get(&instance) {
            Some(host) => {
                host.ordered
                    && host.address.ip() == from.ip()
                    && (host.lost || !host.has_answered(order))
            }
            None => self.named.contains_key(&(name.clone(), from.ip())),
        }
    }

    /// Takes a goodbye, perhaps without an answer to `order`, and returns whether the host is now
    /// lost.
    pub fn on_bye(&mut self, instance: InstanceId, order: OrderKind) -> bool {
        let Some(host) = self.hosts.get_mut(&instance) else {
            return false;
        };
        let active = !host.lost && !host.has_answered(order);
        host.lost = host.lost || active;
        self.changed |= active;
        active
    }

    /// Gives up a host without an identity after a decisive state arrived in its name unsigned.
    /// Returns whether the host is now lost.
    pub fn drop_unsigned(&mut self, instance: InstanceId) -> bool {
        let Some(host) = self
            .hosts
            .get_mut(&instance)
            .filter(|host| host.identity.is_none() && !host.lost)
        else {
            return false;
        };

        (host.lost, host.stuck) = (true, true);
        host.text = Some("its answers are unsigned: its makuo is older than this one".into());
        self.changed = true;

        true
    }

    /// Returns whether the host has this address.
    pub fn is_at(&self, instance: InstanceId, from: SocketAddr) -> bool {
        self.hosts
            .get(&instance)
            .is_some_and(|host| host.address.ip() == from.ip())
    }

    /// Records a sign of life and the host's address, and returns whether to accept the message.
    /// While a host is heard from its own address, messages in its name from another are rejected.
    pub fn on_sign_of_life(&mut self, now: Moment, instance: InstanceId, from: SocketAddr) -> bool {
        let Some(host) = self.hosts.get_mut(&instance).filter(|host| !host.excluded) else {
            return false;
        };

        if host.address.ip() != from.ip() {
            if now.since(host.heard) < MOVED_AFTER {
                return false;
            }
            host.address = from;
        }

        host.heard = now;
        true
    }

    /// Marks hosts without an answer to `order` as lost: after too much silence, or too long
    /// without progress before being ready. Returns the newly lost hosts.
    pub fn expire(&mut self, now: Moment, patience: Patience, order: OrderKind) -> Vec<Host> {
        let is_stuck =
            |h: &Host| h.stage < Some(HostStage::Ready) && now.since(h.progress) >= patience.stuck;
        let is_silent = |h: &Host| now.since(h.heard) >= patience.silent;
        let open = self.hosts.values_mut().filter(|h| !h.has_answered(order));
        open.filter(|h| is_silent(h) || is_stuck(h))
            .map(|host| {
                (host.lost, host.stuck) = (true, !is_silent(host));
                host.clone()
            })
            .collect()
    }

    /// Marks hosts as lost that are not ready and were silent for `silence`, and returns those
    /// hosts.
    pub fn drop_silent(&mut self, now: Moment, silence: Duration) -> Vec<Host> {
        let is_silent = |h: &&mut Host| !h.is_settled(false) && now.since(h.heard) >= silence;
        let silent = self.hosts.values_mut().filter(is_silent);
        silent
            .map(|host| {
                host.lost = true;
                host.clone()
            })
            .collect()
    }

    /// Marks the ready hosts among the `chosen` as ordered to commit.
    pub fn mark_ordered(&mut self, chosen: impl Fn(&Host) -> bool) {
        self.hosts
            .values_mut()
            .filter(|h| h.is_good(false) && chosen(h))
            .for_each(|h| h.ordered = true);
    }

    /// Returns and clears the changed flag: a host has changed its stage or was found lost.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Returns the changed flag.
    pub fn has_changed(&self) -> bool {
        self.changed
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
