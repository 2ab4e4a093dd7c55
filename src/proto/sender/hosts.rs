//! The hosts of a session as the sender sees them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::block::BlockHash;
use crate::id::{HostName, InstanceId, NamedHost, Serial};
use crate::keys::{Identity, KnownHosts, PublicKey};
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
    /// It has been silent for too long, or has come no further.
    pub lost: bool,
    /// It is lost until it comes further, however alive it says it is.
    stuck: bool,
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
    /// What its last beacon showed since the last order was decided.
    pub beacon: Option<Beacon>,
    /// The number of the newest state that was heard.
    number: u32,
    /// Whose process it is, once it showed that.
    identity: Option<Identity>,
    /// It has no part in the session: its key is not the one that its name had before.
    pub barred: bool,
    /// The hash of the last word that the host signed.
    word: Option<BlockHash>,
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
        let done = if audit {
            HostStage::Staging
        } else {
            HostStage::Ready
        };
        self.lost || self.stage.is_some_and(|s| s >= done)
    }

    /// Whether what it says of itself is more than it said before.
    fn comes_further(&self, state: &State) -> bool {
        self.stage < Some(state.stage) || self.received < state.received
    }

    /// The key that it has signed a word with.
    pub fn key(&self) -> Option<PublicKey> {
        self.word.and(self.identity)?.public()
    }

    /// Whether it can commit, or has.
    pub fn is_good(&self, audit: bool) -> bool {
        match self.stage {
            Some(
                HostStage::Ready | HostStage::Prepared | HostStage::Checking | HostStage::Committed,
            ) => !self.lost,
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
    /// The keys that names had before.
    known: KnownHosts,
    /// Whether a host with another key has no part in the session.
    strict: bool,
    /// Hosts with other keys than their names had before, until they are told; each is told once.
    others: Vec<(InstanceId, OtherKey)>,
    told: BTreeSet<InstanceId>,
    changed: bool,
}

/// A host that shows another key than its name had before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherKey {
    /// The name.
    pub name: HostName,
    /// Where it is.
    pub address: SocketAddr,
    /// The key that it shows.
    pub shows: PublicKey,
    /// The key that the name had.
    pub had: PublicKey,
    /// Whether that one is there too, in this session and under the same address.
    pub both: bool,
}

impl Hosts {
    /// No hosts; those that come are held against what is known of their names.
    pub fn new(known: KnownHosts, strict: bool) -> Self {
        Self {
            known,
            strict,
            ..Self::default()
        }
    }

    /// Forgets the hosts, not what is known of their names.
    pub fn clear(&mut self) {
        self.hosts.clear();
        self.named.clear();
        self.changed = false;
    }

    /// A target that discovery has found.
    pub fn expect(
        &mut self,
        now: Moment,
        instance: InstanceId,
        name: HostName,
        address: SocketAddr,
        serial: Serial,
    ) {
        if self.hosts.len() >= MAX_HOSTS || self.hosts.contains_key(&instance) {
            return;
        }

        self.named
            .entry((name.clone(), address.ip()))
            .or_default()
            .push(instance);
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
            stuck: false,
            ordered: false,
            asked: (false, false),
            takes: None,
            dropped: 0,
            torn: false,
            beacon: None,
            number: 0,
            identity: None,
            barred: false,
            word: None,
        };

        self.hosts.insert(instance, host);
    }

    /// The keys that names had before.
    pub fn known(&self) -> &KnownHosts {
        &self.known
    }

    /// A host shows whose process it is. The key of a process never changes; whether the key is the one that its name had
    /// is looked at once.
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
        let (name, address) = (host.name.clone(), host.address);

        // Without a sound key it signs nothing.
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
            self.bar(instance, shows, before);
        }

        // Where two are there, both are named.
        let Some(had) = beside.or(before) else { return };
        if self.told.len() < MAX_HOSTS && self.told.insert(instance) {
            self.others.push((
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

    fn bar(&mut self, instance: InstanceId, shows: PublicKey, had: PublicKey) {
        let Some(host) = self.hosts.get_mut(&instance) else {
            return;
        };
        (host.barred, host.lost, host.stuck) = (true, true, true);
        let (shows, had) = (shows.fingerprint(), had.fingerprint());
        host.text = Some(format!("shows the host key {shows}, not {had} as before"));
        self.changed = true;
    }

    /// The hosts with other keys that were found since the last call.
    pub fn take_others(&mut self) -> Vec<(InstanceId, OtherKey)> {
        std::mem::take(&mut self.others)
    }

    /// The host as it is shown: with its address when another one has its name.
    pub fn shown(&self, host: &Host) -> NamedHost {
        let shared = self.at_addresses(&host.name).take(2).count() > 1;
        NamedHost {
            name: host.name.clone(),
            address: Some(host.address.ip()).filter(|_| shared),
        }
    }

    /// Forgets the earlier processes of the host `instance`, which has shown that it is itself: those that were there
    /// under its name with its key, or that are too old to have shown one when they answered.
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

    /// Who is there under a name, address by address.
    fn at_addresses(&self, name: &HostName) -> impl Iterator<Item = &Vec<InstanceId>> {
        // The least of all addresses.
        let first = (name.clone(), IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        self.named
            .range(first..)
            .take_while(move |((other, _), _)| other == name)
            .map(|(_, ids)| ids)
    }

    /// How many hosts a quorum is taken of: a barred one does not count beside the host that its name is known for.
    pub fn voters(&self) -> usize {
        let barred = self.hosts.values().filter(|host| host.barred);
        let beside_known = barred.filter(|host| {
            let known = self.known.of(&host.name);
            let same = self
                .at_addresses(&host.name)
                .flatten()
                .filter_map(|id| self.hosts.get(id))
                .filter(|other| !other.barred);
            same.filter_map(|other| other.identity?.public())
                .any(|key| known.contains(&key))
        });
        self.hosts.len() - beside_known.count()
    }

    /// Whether what a host says counts: as far as it decides something, the host itself has signed it. A word that was
    /// seen to be signed is known again.
    fn is_own_word(&self, instance: InstanceId, state: &State, audit: bool) -> bool {
        if !state.is_decisive(audit) {
            return state
                .identity
                .is_none_or(|identity| identity.instance() == instance);
        }

        let word = Some(BlockHash::of(&state.word(instance)));
        let known = self
            .hosts
            .get(&instance)
            .is_some_and(|host| host.word == word);
        known || state.is_signed(instance)
    }

    /// Takes a host's word about itself, in an audit or a deploy; says whether its stage changed. `None`: it is not the
    /// host's word.
    pub fn state(
        &mut self,
        now: Moment,
        instance: InstanceId,
        from: SocketAddr,
        state: State,
        audit: bool,
    ) -> Option<bool> {
        if !self.is_own_word(instance, &state, audit) {
            return None;
        }

        // Anybody may have answered for it under another name; what is signed names it.
        if state.is_decisive(audit)
            && self
                .hosts
                .get(&instance)
                .is_some_and(|host| host.name != state.name)
        {
            self.remove(instance);
        }

        self.expect(now, instance, state.name.clone(), from, state.serial);
        self.identify(instance, state.identity);
        let host = self.hosts.get_mut(&instance).filter(|host| !host.barred)?;
        if state.is_decisive(audit) {
            host.word = Some(BlockHash::of(&state.word(instance)));
            // A daemon that was restarted has a new number: its old self will not answer any more.
            self.forget_earlier(instance, &state.name, from);
        }

        let host = self.hosts.get_mut(&instance)?;

        host.heard = now;
        host.dropped = host.dropped.max(state.dropped.unwrap_or(0));
        if host.lost && (!host.stuck || host.comes_further(&state)) {
            (host.lost, host.stuck, host.progress) = (false, false, now);
        }

        // Messages overtake each other: a stage never goes back, but for the ends that exclude each other.
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

    /// The host that the smallest datagrams reach, and how large they may be, of those that said so.
    pub fn narrowest(&self) -> Option<(&HostName, u16)> {
        let told = self
            .hosts
            .values()
            .filter(|h| !h.lost)
            .filter_map(|h| Some((&h.name, h.takes?)));
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
    pub fn beacon(
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

    /// Drops what beacons showed so far.
    pub fn forget_beacons(&mut self) {
        self.hosts.values_mut().for_each(|host| host.beacon = None);
    }

    /// Whether a beacon tells something: of a host whose answer to `order` is missing once it was ordered to commit, or of
    /// the daemon that was started in the place of one.
    pub fn waits_for(
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

    /// A host left the session, perhaps without an answer to `order`; says whether it is lost by that.
    pub fn left(&mut self, instance: InstanceId, order: OrderKind) -> bool {
        let Some(host) = self.hosts.get_mut(&instance) else {
            return false;
        };
        let active = !host.lost && !host.has_answered(order);
        host.lost = host.lost || active;
        self.changed |= active;
        active
    }

    /// A word that decides something came in the name of a host that never showed who it is: it is not waited for. Says
    /// whether it is lost by that.
    pub fn distrust(&mut self, instance: InstanceId) -> bool {
        let Some(host) = self
            .hosts
            .get_mut(&instance)
            .filter(|host| host.identity.is_none() && !host.lost)
        else {
            return false;
        };

        (host.lost, host.stuck) = (true, true);
        host.text = Some("what it says is not signed: its makuo is older than this one".into());
        self.changed = true;

        true
    }

    /// Whether the host is where this comes from.
    pub fn is_at(&self, instance: InstanceId, from: SocketAddr) -> bool {
        self.hosts
            .get(&instance)
            .is_some_and(|host| host.address.ip() == from.ip())
    }

    /// A host gave a sign of life; whether it is one, and where the host is. What somebody says in its name from another
    /// address, while it speaks itself, is not to be believed.
    pub fn heard(&mut self, now: Moment, instance: InstanceId, from: SocketAddr) -> bool {
        let Some(host) = self.hosts.get_mut(&instance).filter(|host| !host.barred) else {
            return false;
        };

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
    pub fn expire(
        &mut self,
        now: Moment,
        patience: Duration,
        stuck: Duration,
        order: OrderKind,
    ) -> Vec<Host> {
        let is_stuck =
            |h: &Host| h.stage < Some(HostStage::Ready) && now.since(h.progress) >= stuck;
        let is_silent = |h: &Host| now.since(h.heard) >= patience;
        let open = self.hosts.values_mut().filter(|h| !h.has_answered(order));
        open.filter(|h| is_silent(h) || is_stuck(h))
            .map(|host| {
                (host.lost, host.stuck) = (true, !is_silent(host));
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
        self.hosts
            .values_mut()
            .filter(|h| h.is_good(false) && chosen(h))
            .for_each(|h| h.ordered = true);
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
    use crate::keys::HostKey;

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
            identity: None,
            signature: None,
            nonce: None,
        }
    }

    /// The same as the process of `key` says it, signed.
    fn signed(key: &HostKey, state: State) -> State {
        let state = State {
            identity: Some(key.identity()),
            ..state
        };

        State {
            signature: Some(key.sign(&state.word(key.instance())).into()),
            ..state
        }
    }

    #[test]
    fn nobody_speaks_for_a_host_from_elsewhere_while_it_speaks_itself() {
        let at = |host: u8| SocketAddr::from(([10, 0, 0, host], 5000));
        let after = |ms: u64| Moment(1) + Duration::from_millis(ms);
        let (mut hosts, id) = (Hosts::default(), InstanceId(1));
        hosts.expect(
            after(0),
            id,
            HostName::new("web1").expect("legal"),
            at(1),
            Serial(0),
        );

        assert!(hosts.heard(after(0), id, at(1)) && !hosts.heard(after(1000), id, at(9)));
        assert!(hosts.heard(after(1900), id, at(1)) && !hosts.heard(after(2500), id, at(9)));
        assert!(
            !hosts.heard(after(2500), InstanceId(2), at(1)),
            "nobody knows it"
        );

        // It has another address now.
        assert!(hosts.heard(after(4000), id, at(2)) && !hosts.heard(after(4100), id, at(1)));
    }

    #[test]
    fn a_daemon_that_was_restarted_takes_the_place_of_its_old_self_and_of_nobody_else() {
        let at = |host: u8| SocketAddr::from(([10, 0, 0, host], 5000));
        let mut hosts = Hosts::default();
        let (before, after, other) = (
            HostKey::new([1; 32], 1),
            HostKey::new([1; 32], 2),
            HostKey::new([2; 32], 1),
        );

        let named = [
            (before.instance(), "web1", 1),
            (InstanceId(2), "web1", 2),
            (InstanceId(3), "web2", 1),
        ];

        for (instance, name, host) in named {
            hosts.expect(
                Moment(1),
                instance,
                HostName::new(name).expect("legal"),
                at(host),
                Serial(0),
            );
        }

        let joins = |key: &HostKey, stage| State {
            identity: Some(key.identity()),
            ..state("web1", stage)
        };

        let is_there = |hosts: &Hosts, key: &HostKey| hosts.get(key.instance()).is_some();
        let mut say =
            |key: &HostKey, said: State| hosts.state(Moment(2), key.instance(), at(1), said, false);
        assert_eq!(say(&before, joins(&before, HostStage::Joined)), Some(true));

        // Another host under its name is one more, whatever it signs.
        assert_eq!(
            say(&other, signed(&other, joins(&other, HostStage::Ready))),
            Some(true)
        );

        // The old self goes when the new one has shown that it is the same host.
        assert_eq!(say(&after, joins(&after, HostStage::Joined)), Some(true));
        assert_eq!(
            say(&after, joins(&after, HostStage::Ready)),
            None,
            "not signed"
        );

        assert!(is_there(&hosts, &before));
        let mut say =
            |key: &HostKey, said: State| hosts.state(Moment(3), key.instance(), at(1), said, false);
        assert_eq!(
            say(&after, signed(&after, joins(&after, HostStage::Ready))),
            Some(true)
        );

        assert_eq!(
            say(&after, signed(&after, joins(&after, HostStage::Ready))),
            Some(false),
            "nothing new"
        );

        assert!(!is_there(&hosts, &before) && is_there(&hosts, &other) && is_there(&hosts, &after));
        assert_eq!(hosts.len(), 4);
    }

    #[test]
    fn nobody_takes_the_place_of_a_host_that_answered_and_fell_silent() {
        let (host, member) = (HostKey::new([1; 32], 1), HostKey::new([2; 32], 1));
        let (name, at) = (
            HostName::new("web1").expect("legal"),
            SocketAddr::from(([10, 0, 0, 1], 5000)),
        );

        for answered in [true, false] {
            let mut hosts = Hosts::default();
            hosts.expect(Moment(1), host.instance(), name.clone(), at, Serial(0));
            // Nobody shows another's key, and a process shows one only.
            hosts.identify(host.instance(), Some(member.identity()));
            hosts.identify(host.instance(), answered.then(|| host.identity()));
            hosts.identify(host.instance(), Some(member.identity()));
            for stage in [HostStage::Joined, HostStage::Ready, HostStage::Committed] {
                let said = signed(&member, state("web1", stage));
                assert_eq!(
                    hosts.state(Moment(2), member.instance(), at, said, false),
                    Some(true)
                );
            }
            // An answer of a makuo that shows no key tells nothing of whose it was.
            assert_eq!(hosts.get(host.instance()).is_some(), answered);
            let others = hosts.take_others();
            assert_eq!(
                others.iter().filter(|(_, other)| other.both).count(),
                usize::from(answered),
                "{others:?}"
            );
        }
    }

    #[test]
    fn a_host_has_the_name_that_it_signs_whoever_answered_for_it() {
        let host = HostKey::new([1; 32], 1);
        let name = |name: &str| HostName::new(name).expect("legal");
        let at = SocketAddr::from(([10, 0, 0, 1], 5000));
        let mut known = KnownHosts::default();
        known.insert(
            name("web3"),
            HostKey::new([3; 32], 1).identity().public().expect("sound"),
        );

        let mut hosts = Hosts::new(known, true);
        // A member answers with the number of another's process.
        hosts.expect(Moment(1), host.instance(), name("web3"), at, Serial(0));
        let said = signed(&host, state("web1", HostStage::Ready));
        assert_eq!(
            hosts.state(Moment(2), host.instance(), at, said, false),
            Some(true)
        );

        let filed = hosts.get(host.instance()).expect("there");
        assert_eq!(
            (&filed.name, filed.barred, filed.key()),
            (&name("web1"), false, host.identity().public())
        );
        assert_eq!((hosts.len(), hosts.shown(filed).address), (1, None));

        assert_eq!(hosts.take_others(), []);
    }

    #[test]
    fn a_name_with_another_key_is_told_once_and_kept_out_where_that_is_asked_for() {
        let (before, after) = (HostKey::new([1; 32], 1), HostKey::new([2; 32], 1));
        let (name, at) = (
            HostName::new("web1").expect("legal"),
            SocketAddr::from(([10, 0, 0, 1], 5000)),
        );
        let public = |key: &HostKey| key.identity().public().expect("sound");
        let mut known = KnownHosts::default();

        known.insert(name.clone(), public(&before));
        for (strict, first) in [
            (false, HostStage::Joined),
            (true, HostStage::Joined),
            (true, HostStage::Ready),
        ] {
            let mut hosts = Hosts::new(known.clone(), strict);
            let taken = (!strict).then_some(true);
            for stage in [first, HostStage::Ready, HostStage::Committed] {
                let said = signed(&after, state("web1", stage));
                let taken =
                    taken.map(|_| hosts.get(after.instance()).and_then(|h| h.stage) != Some(stage));
                assert_eq!(
                    hosts.state(Moment(2), after.instance(), at, said, false),
                    taken,
                    "{stage:?}"
                );
            }
            let other = OtherKey {
                name: name.clone(),
                address: at,
                shows: public(&after),
                had: public(&before),
                both: false,
            };
            assert_eq!(hosts.take_others(), [(after.instance(), other)]);
            let host = hosts.get(after.instance()).expect("there");
            assert_eq!(
                (host.barred, host.lost, host.is_good(false)),
                (strict, strict, !strict)
            );
            // The host itself, and one that is new, are taken. A quorum is of those.
            assert_eq!(hosts.voters(), 1);
            let said = signed(&before, state("web1", HostStage::Ready));
            assert_eq!(
                hosts.state(Moment(3), before.instance(), at, said, false),
                Some(true)
            );
            assert_eq!(
                (hosts.len(), hosts.voters()),
                (2, if strict { 1 } else { 2 })
            );
            // What is known of names stays when hosts are looked for once more, and nothing is told twice.
            hosts.clear();
            assert_eq!(hosts.len(), 0);
            hosts.expect(Moment(4), after.instance(), name.clone(), at, Serial(0));
            hosts.identify(after.instance(), Some(after.identity()));
            assert_eq!(
                hosts.get(after.instance()).map(|host| host.barred),
                Some(strict)
            );
            assert_eq!(hosts.take_others(), []);
            let said = signed(&after, state("web2", HostStage::Ready));
            let mut hosts = Hosts::new(known.clone(), strict);
            assert_eq!(
                hosts.state(Moment(3), after.instance(), at, said, false),
                Some(true)
            );
            assert_eq!(hosts.take_others(), []);
        }
    }

    #[test]
    fn hosts_that_come_no_further_hold_nobody_up_whatever_they_say() {
        let at = |host: u8| SocketAddr::from(([10, 0, 0, host], 5000));
        let after = |s: u64| Moment(1) + Duration::from_secs(s);
        let (mut hosts, patience) = (Hosts::default(), Duration::from_secs(5));
        let say = |hosts: &mut Hosts, id: u8, s: u64, number: u32, received: u64| {
            let state = State {
                number,
                received,
                ..state(&format!("web{id}"), HostStage::Diffing)
            };
            hosts.state(after(s), InstanceId(id.into()), at(id), state, false)
        };

        let mut lost = 0;
        for s in 0..60u64 {
            // Each joins when the one before is lost, and all say for ever that they are there.
            (1..=3u8)
                .filter(|id| u64::from(*id) * 10 <= s + 10)
                .for_each(|id| {
                    assert!(say(&mut hosts, id, s, s as u32, 0).is_some());
                });
            lost += hosts
                .expire(after(s), patience, patience * 4, OrderKind::Commit)
                .len();
        }

        assert!(
            lost == 3 && hosts.iter().all(|(_, host)| host.is_settled(false)),
            "{lost} lost"
        );
        say(&mut hosts, 2, 61, 70, 4096);

        assert!(
            hosts.get(InstanceId(2)).is_some_and(|host| !host.lost),
            "it came further"
        );
    }

    #[test]
    fn a_member_of_the_group_says_nothing_decisive_in_another_hosts_name() {
        let at = SocketAddr::from(([10, 0, 0, 1], 5000));
        let (host, member) = (HostKey::new([1; 32], 1), HostKey::new([2; 32], 9));
        let mut hosts = Hosts::default();
        let ready = signed(&host, state("web1", HostStage::Ready));
        assert_eq!(
            hosts.state(Moment(1), host.instance(), at, ready.clone(), false),
            Some(true)
        );

        let committed = || state("web1", HostStage::Committed);
        let forged = [
            // Without a signature, with that of another word, and with one's own, in its process or under its key.
            committed(),
            State {
                identity: Some(host.identity()),
                ..committed()
            },
            State {
                identity: ready.identity,
                signature: ready.signature,
                ..committed()
            },
            signed(&member, committed()),
            State {
                identity: Some(host.identity()),
                ..signed(&member, committed())
            },
            // Its own word, with something changed.
            State {
                text: Some("and healthy".into()),
                ..signed(&host, committed())
            },
            State {
                serial: Serial(9),
                ..signed(&host, committed())
            },
            State {
                session: SessionId(2),
                ..signed(&host, committed())
            },
            State {
                stage: HostStage::Reverted,
                ..signed(&host, committed())
            },
        ];

        for (nth, lie) in forged.into_iter().enumerate() {
            assert_eq!(
                hosts.state(Moment(2), host.instance(), at, lie, false),
                None,
                "{nth}"
            );
        }

        assert_eq!(
            hosts.get(host.instance()).and_then(|h| h.stage),
            Some(HostStage::Ready)
        );

        // An audit decides by what a comparison found.
        let found = state("web1", HostStage::Staging);
        assert_eq!(
            hosts.state(Moment(3), member.instance(), at, found.clone(), true),
            None
        );
        assert_eq!(
            hosts.state(
                Moment(3),
                member.instance(),
                at,
                signed(&member, found),
                true
            ),
            Some(true)
        );

        let truth = signed(&host, committed());
        assert_eq!(
            hosts.state(Moment(4), host.instance(), at, truth, false),
            Some(true)
        );
    }
}
