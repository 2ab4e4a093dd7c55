//! The hosts of a session as the sender sees them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::id::{HostName, InstanceId, NamedHost, Serial};
use crate::units::Moment;
use crate::wire::HostStage;
use crate::wire::message::{OrderKind, State, Summary};

/// The most hosts of one session.
const MAX_HOSTS: usize = 20_000;
/// A host that was silent for so long and is heard from another address has moved there.
const MOVED: Duration = Duration::from_secs(2);

/// One host.
#[derive(Debug, Clone)]
pub struct Host {
    /// Its name.
    pub name: HostName,
    /// Where it is.
    pub address: SocketAddr,
    /// Its last word.
    pub heard: Moment,
    /// How far it is; `None` until it has answered the announcement.
    pub stage: Option<HostStage>,
    /// Why it refused or failed, or what it waits for.
    pub text: Option<String>,
    /// What it found.
    pub summary: Option<Summary>,
    /// Bytes that it has verified.
    pub received: u64,
    /// The highest serial that it accepted.
    pub serial: Serial,
    /// When its stage or its bytes last changed.
    pub progress: Moment,
    /// It has been silent for too long.
    pub lost: bool,
    /// It was ready and was ordered to commit.
    pub ordered: bool,
    /// It has asked for manifest nodes, for blocks.
    pub asked: (bool, bool),
    /// The largest datagram that is known to reach it, in bytes; none when it did not say.
    pub takes: Option<u16>,
    /// Packets that its receive buffer lost.
    pub dropped: u64,
    /// A commit failed there and could not be undone: the tree is part new, part old.
    pub torn: bool,
    /// What its last beacon showed since the release was announced.
    pub beacon: Option<Beacon>,
    /// The number of the newest state that was heard.
    number: u32,
}

/// What a beacon shows of a host whose own word about the session is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beacon {
    /// The daemon is another one than the one that took part: it follows no order of this session any more.
    pub restarted: bool,
    /// The release is in place.
    pub has: bool,
}

impl Host {
    /// Whether it is settled before the decision: ready, out, or lost.
    pub fn is_settled(&self, audit: bool) -> bool {
        let done = if audit { HostStage::Staging } else { HostStage::Ready };
        self.lost || self.stage.is_some_and(|s| s >= done)
    }

    /// Whether it can commit, or has.
    pub fn is_good(&self, audit: bool) -> bool {
        match self.stage {
            Some(HostStage::Ready | HostStage::Prepared | HostStage::Checking | HostStage::Committed) => !self.lost,
            Some(HostStage::Staging) => audit && !self.lost,
            _ => false,
        }
    }

    /// Whether an order has had its effect, or will have none.
    pub fn has_answered(&self, order: OrderKind) -> bool {
        let done = match order {
            OrderKind::Prepare => HostStage::Prepared,
            OrderKind::Commit | OrderKind::Abort => HostStage::Committed,
            OrderKind::Revert => HostStage::Reverted,
        };
        self.lost || self.stage.is_some_and(|stage| stage >= done)
    }
}

/// All hosts of a session.
#[derive(Debug, Default)]
pub struct Hosts {
    hosts: BTreeMap<InstanceId, Host>,
    /// Who is there under a name, mostly one.
    named: BTreeMap<(HostName, IpAddr), Vec<InstanceId>>,
    changed: bool,
}

impl Hosts {
    /// A target that discovery has found.
    pub fn expect(&mut self, now: Moment, instance: InstanceId, name: HostName, address: SocketAddr, serial: Serial) {
        if self.hosts.len() >= MAX_HOSTS || self.hosts.contains_key(&instance) {
            return;
        }
        self.named.entry((name.clone(), address.ip())).or_default().push(instance);
        let host = Host {
            name,
            address,
            heard: now,
            stage: None,
            text: None,
            summary: None,
            received: 0,
            serial,
            progress: now,
            lost: false,
            ordered: false,
            asked: (false, false),
            takes: None,
            dropped: 0,
            torn: false,
            beacon: None,
            number: 0,
        };
        self.hosts.insert(instance, host);
    }

    /// The host as it is shown: with its address when another one has its name.
    pub fn shown(&self, host: &Host) -> NamedHost {
        // The least of all addresses.
        let first = (host.name.clone(), IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let same = self.named.range(first..).take_while(|((name, _), _)| *name == host.name);
        let shared = same.take(2).count() > 1;
        NamedHost { name: host.name.clone(), address: Some(host.address.ip()).filter(|_| shared) }
    }

    /// Forgets the others than `instance` that were there under its name.
    fn forget_earlier(&mut self, instance: InstanceId, name: &HostName, from: SocketAddr) {
        let key = (name.clone(), from.ip());
        let Some(instances) = self.named.get_mut(&key).filter(|i| i.iter().any(|id| *id != instance)) else { return };
        instances.iter().filter(|id| **id != instance).for_each(|id| drop(self.hosts.remove(id)));
        instances.retain(|id| *id == instance);
        if instances.is_empty() {
            self.named.remove(&key);
        }
    }

    /// Takes a host's word about itself; says whether its stage changed.
    pub fn state(&mut self, now: Moment, instance: InstanceId, from: SocketAddr, state: State) -> bool {
        // A daemon that was restarted has a new instance: its old self will not answer any more.
        self.forget_earlier(instance, &state.name, from);
        self.expect(now, instance, state.name.clone(), from, state.serial);
        let Some(host) = self.hosts.get_mut(&instance) else { return false };
        host.heard = now;
        host.dropped = host.dropped.max(state.dropped.unwrap_or(0));
        if host.lost {
            (host.lost, host.progress) = (false, now);
        }
        // Messages overtake each other: a stage never goes back, but for the ends that exclude each other.
        let newer = state.number >= host.number || state.number == 0;
        if !newer || host.stage.is_some_and(|s| s > state.stage) {
            return false;
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
        changed
    }

    /// The host that the smallest datagrams reach, and how large they may be, of those that said so.
    pub fn narrowest(&self) -> Option<(&HostName, u16)> {
        let told = self.hosts.values().filter(|h| !h.lost).filter_map(|h| Some((&h.name, h.takes?)));
        told.min_by_key(|(_, takes)| *takes)
    }

    /// The session begins now: what was heard before says nothing about who is silent in it.
    pub fn begin(&mut self, now: Moment) {
        for host in self.hosts.values_mut().filter(|h| !h.lost) {
            (host.heard, host.progress) = (now, now);
        }
    }

    /// Takes a beacon: of a host of the session, or of the daemon that was started in its place. Says which host it is
    /// about.
    pub fn beacon(&mut self, instance: InstanceId, name: &HostName, from: SocketAddr, has: bool) -> Option<InstanceId> {
        let restarted = !self.hosts.contains_key(&instance);
        let id = if restarted { *self.named.get(&(name.clone(), from.ip()))?.last()? } else { instance };
        let host = self.hosts.get_mut(&id)?;
        if restarted || host.beacon.is_none_or(|b| !b.restarted) {
            host.beacon = Some(Beacon { restarted, has });
        }
        Some(id)
    }

    /// A host left the session, perhaps without an answer to `order`; says whether it is lost by that.
    pub fn left(&mut self, instance: InstanceId, order: OrderKind) -> bool {
        let Some(host) = self.hosts.get_mut(&instance) else { return false };
        let active = !host.lost && !host.has_answered(order);
        host.lost = host.lost || active;
        self.changed |= active;
        active
    }

    /// A host gave a sign of life; whether it is one, and where the host is. What somebody says in its name from another
    /// address, while it speaks itself, is not to be believed.
    pub fn heard(&mut self, now: Moment, instance: InstanceId, from: SocketAddr) -> bool {
        let Some(host) = self.hosts.get_mut(&instance) else { return false };
        if host.address.ip() != from.ip() {
            if now.since(host.heard) < MOVED {
                return false;
            }
            host.address = from;
        }
        host.heard = now;
        true
    }

    /// Marks hosts that were silent for `patience`, or alive without any progress before they were ready for `stuck`,
    /// of those that have not answered `order`; gives those that are newly lost.
    pub fn expire(&mut self, now: Moment, patience: Duration, stuck: Duration, order: OrderKind) -> Vec<Host> {
        let silent = |h: &&mut Host| {
            let stuck = h.stage < Some(HostStage::Ready) && now.since(h.progress) >= stuck;
            !h.has_answered(order) && (now.since(h.heard) >= patience || stuck)
        };
        self.hosts
            .values_mut()
            .filter(silent)
            .map(|host| {
                host.lost = true;
                host.clone()
            })
            .collect()
    }

    /// Marks the hosts that are not ready and were silent for `silence` as lost; gives those.
    pub fn give_up(&mut self, now: Moment, silence: Duration) -> Vec<Host> {
        let is_silent = |h: &&mut Host| !h.is_settled(false) && now.since(h.heard) >= silence;
        let silent = self.hosts.values_mut().filter(is_silent);
        silent
            .map(|host| {
                host.lost = true;
                host.clone()
            })
            .collect()
    }

    /// Marks the hosts that are ready and `chosen` as ordered to commit.
    pub fn order(&mut self, chosen: impl Fn(&Host) -> bool) {
        self.hosts.values_mut().filter(|h| h.is_good(false) && chosen(h)).for_each(|h| h.ordered = true);
    }

    /// Whether a host changed its stage or was found lost since the last call.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// The same, to be asked again.
    pub fn has_changed(&self) -> bool {
        self.changed
    }

    /// Who they are.
    pub fn ids(&self) -> impl ExactSizeIterator<Item = InstanceId> + '_ {
        self.hosts.keys().copied()
    }

    /// The hosts.
    pub fn iter(&self) -> impl Iterator<Item = (&InstanceId, &Host)> {
        self.hosts.iter()
    }

    /// One host.
    pub fn get_mut(&mut self, instance: InstanceId) -> Option<&mut Host> {
        self.hosts.get_mut(&instance)
    }

    /// One host.
    pub fn get(&self, instance: InstanceId) -> Option<&Host> {
        self.hosts.get(&instance)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.hosts.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::SessionId;

    fn state(name: &str, stage: HostStage) -> State {
        State {
            session: SessionId(1),
            number: 1,
            name: HostName::new(name).expect("legal"),
            stage,
            text: None,
            summary: None,
            received: 0,
            serial: Serial(0),
            dropped: None,
            torn: None,
        }
    }

    #[test]
    fn nobody_speaks_for_a_host_from_elsewhere_while_it_speaks_itself() {
        let at = |host: u8| SocketAddr::from(([10, 0, 0, host], 5000));
        let after = |ms: u64| Moment(1) + Duration::from_millis(ms);
        let (mut hosts, id) = (Hosts::default(), InstanceId(1));
        hosts.expect(after(0), id, HostName::new("web1").expect("legal"), at(1), Serial(0));
        assert!(hosts.heard(after(0), id, at(1)) && !hosts.heard(after(1000), id, at(9)));
        assert!(hosts.heard(after(1900), id, at(1)) && !hosts.heard(after(2500), id, at(9)));
        assert!(!hosts.heard(after(2500), InstanceId(2), at(1)), "nobody knows it");
        // It has another address now.
        assert!(hosts.heard(after(4000), id, at(2)) && !hosts.heard(after(4100), id, at(1)));
    }

    #[test]
    fn a_daemon_that_was_restarted_takes_the_place_of_its_old_self_and_of_nobody_else() {
        let at = |host: u8| SocketAddr::from(([10, 0, 0, host], 5000));
        let mut hosts = Hosts::default();
        for (instance, name, host) in [(1, "web1", 1), (2, "web1", 2), (3, "web2", 1), (4, "web1", 1)] {
            hosts.expect(Moment(1), InstanceId(instance), HostName::new(name).expect("legal"), at(host), Serial(0));
        }
        assert!(hosts.state(Moment(2), InstanceId(5), at(1), state("web1", HostStage::Joined)));
        assert_eq!(hosts.ids().collect::<Vec<_>>(), [2, 3, 5].map(InstanceId));
        assert!(hosts.state(Moment(3), InstanceId(6), at(1), state("web1", HostStage::Fetching)));
        assert!(!hosts.state(Moment(3), InstanceId(6), at(1), state("web1", HostStage::Fetching)), "nothing new");
        assert_eq!(hosts.ids().collect::<Vec<_>>(), [2, 3, 6].map(InstanceId));
    }
}
