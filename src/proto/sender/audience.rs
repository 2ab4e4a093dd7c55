//! Hosts around a sender: the members with an answer, the targets among them, and proofs of life.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::effects::SenderNotice;
use super::hosts::{Host, Hosts};
use super::proofs::Proofs;
use super::setup::TargetRules;
use super::unicast_group::{UnicastGroup, dests_of};
use crate::id::{HostName, InstanceId};
use crate::proto::control::Control;
use crate::proto::members::{Member, Table};
use crate::proto::{Dest, alive_interval, slot_interval};
use crate::units::Moment;
use crate::wire::Message;
use crate::wire::message::{Hello, TreeState};

/// Silence of a host after which messages are repeated to it whatever it has answered, in tenths of
/// the interval between signs of life: its process may be another one by now.
const DOUBTFUL_SILENCE: u32 = 25;

/// Members, targets and proofs of one session.
#[derive(Debug)]
pub struct Audience {
    targets: TargetRules,
    table: Table,
    proofs: Proofs,
    unicast: UnicastGroup,
    /// Hosts that asked for a release committed elsewhere.
    asking: Vec<SocketAddr>,
}

impl Audience {
    /// Creates an audience without members. With `asking` hosts, copies by unicast go only to these
    /// and to hosts that take part.
    pub fn new(targets: TargetRules, proofs: Proofs, asking: Vec<SocketAddr>) -> Self {
        Self {
            asking,
            targets,
            table: Table::default(),
            proofs,
            unicast: UnicastGroup::default(),
        }
    }

    /// Sets the addresses of the hosts that are reached by unicast, and of those that hear the
    /// multicast of this process: `None` without multicast.
    pub fn set_unicast(&mut self, apart: Vec<SocketAddr>, hearing: Option<Vec<SocketAddr>>) {
        self.unicast.set(apart, hearing);
    }

    /// Hosts that are reached by unicast.
    pub fn unicast(&self) -> &UnicastGroup {
        &self.unicast
    }

    /// Time in which all hosts with a copy of their own answer once. With multicast alone a message
    /// is repeated without waiting for it.
    pub fn repeat_wait(&self) -> Duration {
        slot_interval(self.unicast.len() as u32)
    }

    /// Destinations of a message that the hosts with `has_it` need no more: all that multicast
    /// reaches, and the others that need it.
    pub fn dests(&self, now: Moment, hosts: &Hosts, has_it: impl Fn(&Host) -> bool) -> Vec<Dest> {
        if !self.unicast.has_any() {
            return vec![Dest::Group];
        }

        let silence = alive_interval(hosts.len() as u32) * DOUBTFUL_SILENCE / 10;
        let is_there = |host: &Host| {
            let is_restarted = host.beacon.is_some_and(|beacon| beacon.restarted);
            !is_restarted && now.since(host.heard) < silence
        };

        let all = hosts.iter().map(|(_, host)| host);
        let done = all.filter(|host| has_it(host) && is_there(host));
        let mut done: BTreeSet<SocketAddr> = done.map(|host| host.address).collect();
        done.extend(self.bystanders());
        match self.addressed(hosts) {
            None => self.unicast.dests_without(&done),
            Some(addressed) => self.one_by_one(addressed.difference(&done).copied()),
        }
    }

    /// Destinations of a message to all.
    pub fn all(&self, hosts: &Hosts) -> Vec<Dest> {
        match self.addressed(hosts) {
            None => vec![Dest::Group],
            Some(addressed) => self.one_by_one(addressed.into_iter()),
        }
    }

    /// Addresses of the hosts that get messages about a release committed elsewhere: those that
    /// asked for it, and those that take part. `None` if all get them, as they do if one asked
    /// from an address that no message goes to: the roster may have it at another one.
    fn addressed(&self, hosts: &Hosts) -> Option<BTreeSet<SocketAddr>> {
        let is_unicast = self.unicast.has_any() && !self.asking.is_empty();
        if !is_unicast || !self.asking.iter().all(|at| self.unicast.reaches(*at)) {
            return None;
        }

        let part = hosts.iter().map(|(_, host)| host.address);
        let all = part.chain(self.asking.iter().copied());
        Some(all.filter(|at| self.unicast.contains(*at)).collect())
    }

    /// Destinations of a message to all that multicast reaches and to the hosts at `addresses`.
    fn one_by_one(&self, addresses: impl Iterator<Item = SocketAddr>) -> Vec<Dest> {
        let single = dests_of(addresses);
        match &single[..] {
            [Dest::Group] => single,
            _ => self.unicast.cheap().into_iter().chain(single).collect(),
        }
    }

    /// Addresses of the members that take no part.
    fn bystanders(&self) -> impl Iterator<Item = SocketAddr> {
        let members = self.table.iter();
        members
            .filter(|(id, member)| self.is_without(**id) || !self.targets.is_target(&member.hello))
            .map(|(_, member)| member.address)
    }

    /// Rules for the targets.
    pub fn targets(&self) -> &TargetRules {
        &self.targets
    }

    /// All members with an answer.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.table.iter().map(|(_, member)| member)
    }

    /// Returns whether as many hosts have answered as the members claim to exist.
    pub fn is_complete(&self) -> bool {
        self.table.len() >= self.table.claimed()
    }

    /// Returns whether the members claim that exactly the hosts with an answer exist.
    pub fn is_vouched_for(&self) -> bool {
        self.table.is_vouched_for()
    }

    /// Time in which the hosts of a large fleet answer twice, since some answers are lost.
    pub fn answer_time(&self) -> Duration {
        slot_interval(self.table.claimed() as u32) * 2
    }

    /// Returns whether `instance` is excluded from the targets under any name.
    pub fn is_without(&self, instance: InstanceId) -> bool {
        self.targets.without == Some(instance)
    }

    /// Returns whether a message with these nonces was sent after this sender's question.
    pub fn is_proven(&self, hello: &Hello) -> bool {
        hello.repeats(self.proofs.nonce())
    }

    /// Draws a new nonce: earlier messages no longer count as proof.
    pub fn renew_nonce(&mut self) {
        self.proofs.renew_nonce();
    }

    /// Forgets all members.
    pub fn forget_members(&mut self) {
        self.table = Table::default();
    }

    /// Solicits answers, and a proof of the highest serial if `serial` is set. Only answers that
    /// echo the nonce count.
    pub fn solicit(&self, control: &mut Control, dest: Dest, serial: bool) {
        let tree = serial.then(|| self.targets.tree.clone());
        control.send(dest, &Message::Solicit(Some(self.proofs.nonce()), tree));
    }

    /// Solicits a single host, rate limited.
    pub fn challenge(
        &mut self,
        now: Moment,
        control: &mut Control,
        host: SocketAddr,
        serial: bool,
    ) {
        if self.proofs.may_challenge(now, host) {
            self.solicit(control, Dest::Host(host), serial);
        }
    }

    /// Records a target whose beacon carries no nonce: from a version too old for nonces, or
    /// replayed.
    pub fn on_unproven(&mut self, from: SocketAddr, hello: &Hello) {
        if hello.nonce.is_none() && self.targets.is_target(hello) {
            self.proofs.keep_unproven(&hello.name, from.ip());
        }
    }

    /// Keeps the proof of a host's serial; beyond the limit only those of the highest serials.
    pub fn keep_shown(&mut self, hello: &Hello) {
        if let (Some(claimed), Some(shown)) = (self.targets.state_in(hello), &hello.shown) {
            self.proofs.keep_shown(claimed.serial, shown);
        }
    }

    /// Takes a proven beacon and returns whether its host is new.
    pub fn on_hello(
        &mut self,
        now: Moment,
        from: SocketAddr,
        source: InstanceId,
        hello: Hello,
    ) -> bool {
        self.table.on_hello(now, from, source, hello, true)
    }

    /// Takes a goodbye.
    pub fn on_bye(&mut self, source: InstanceId, from: SocketAddr) {
        self.table.on_bye(source, from);
    }

    /// Returns whether enough targets have answered, and all expected names.
    pub fn is_enough(&self, hosts: &Hosts) -> bool {
        let found = hosts.iter().filter(|(_, host)| !host.is_excluded()).count();
        found > 0
            && found >= self.targets.expect.count
            && self.missing_names(hosts).next().is_none()
    }

    /// Returns the expected names without an answer.
    fn missing_names(&self, hosts: &Hosts) -> impl Iterator<Item = &HostName> {
        let is_known = |name: &HostName| {
            let mut named = hosts.iter().filter(|(_, h)| h.name == *name);
            named.any(|(_, h)| !h.is_excluded())
        };

        let names = self.targets.expect.names.iter();
        names.filter(move |name| !is_known(name))
    }

    /// Returns the notice of the end of discovery, and forgets its proofs.
    pub fn discovered(&mut self, hosts: &Hosts) -> SenderNotice {
        let unproven = self.take_unproven(hosts);
        let shown = self.proofs.take_shown();
        let all = || hosts.iter().map(|(_, host)| host);
        let without = self.targets.without;
        let members = self.table.iter().filter(|(id, _)| without != Some(**id));

        SenderNotice::Discovered {
            targets: all().map(|h| (h.name.clone(), h.address)).collect(),
            members: members
                .map(|(_, m)| (m.hello.name.clone(), m.hello.labels().clone()))
                .collect(),
            claims: all()
                .filter(|h| !h.is_excluded())
                .map(|h| (h.address.ip(), h.serial))
                .collect(),
            shown,
            unproven,
            missing: self.missing_names(hosts).cloned().collect(),
        }
    }

    fn take_unproven(&mut self, hosts: &Hosts) -> Vec<(HostName, IpAddr)> {
        let is_proven = |name: &HostName| hosts.iter().any(|(_, host)| host.name == *name);
        self.proofs
            .take_unproven()
            .into_iter()
            .filter(|(name, _)| !is_proven(name))
            .collect()
    }

    /// Returns whether the targets select a host, as far as its labels are known.
    pub fn selects(&self, instance: InstanceId, name: &HostName) -> bool {
        let labels = self.table.get(instance).map(|member| member.hello.labels());
        self.targets.is_selected(name, labels)
    }

    /// The beacon of a member.
    pub fn hello_of(&self, instance: InstanceId) -> Option<&Hello> {
        Some(&self.table.get(instance)?.hello)
    }

    /// Returns the state of the tree by a member's claim.
    pub fn state_of(&self, instance: InstanceId) -> Option<&TreeState> {
        self.targets.state_in(&self.table.get(instance)?.hello)
    }
}
