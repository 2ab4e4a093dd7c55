//! Discovery: solicits until all known hosts have answered.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::hosts::Host;
use super::{
    DISCOVERY_TIMEOUT, DISCOVERY_TIMEOUT_EMPTY, FIRST_RESEND, MIN_SOLICITS, SETTLED_AFTER, Sender,
    SenderNotice, SenderPhase,
};
use crate::block::BlockHash;
use crate::id::{HostName, InstanceId};
use crate::proto::datagram_size::{min_datagram, probe_sizes};
use crate::proto::members::Table;
use crate::proto::{Dest, slot_interval};
use crate::units::Moment;
use crate::wire::Message;
use crate::wire::message::{Hello, TreeState};

/// Bound on reported hosts without proof.
const MAX_UNPROVEN_TARGETS: usize = 64;
/// Shortest interval between individual solicits to a host with unproven beacons.
const CHALLENGE_INTERVAL: Duration = Duration::from_millis(100);
/// Bound on hosts solicited individually in that interval.
const MAX_CHALLENGED: usize = 64;
/// Bound on the distinct releases and orders that hosts show.
const MAX_SHOWN_SERIALS: usize = 64;

impl Sender {
    pub(super) fn solicit_hosts(&mut self, now: Moment) {
        if self.repeat.0 <= now {
            // Probes first: a host answers with the largest probe received so far. The largest
            // usually passes, and the others are needed only if some host did not receive it.
            let most = if self.solicits == 0 { 1 } else { usize::MAX };
            probe_sizes(self.setup.datagram, self.setup.room)
                .take(most)
                .for_each(|size| self.control.probe(Dest::Group, size));
            self.solicit(Dest::Group, true);
            self.solicits += 1;
            self.solicited = now;
            self.again(now);
        }

        let waited = now.since(self.began);
        let found = self.hosts.iter().filter(|(_, host)| !host.excluded).count();
        let missing = self.missing_names();
        let enough = found > 0 && found >= self.setup.expect.count && missing.is_empty();
        let all =
            self.is_measured(now) && self.table.len() >= self.table.claimed() && self.is_quiet(now);

        // Hosts of a large fleet answer in slots, and some answers are lost.
        let turns = slot_interval(self.table.claimed() as u32) * 2;
        if (enough && (all || waited >= DISCOVERY_TIMEOUT + turns))
            || waited >= DISCOVERY_TIMEOUT_EMPTY + turns
        {
            self.phase = SenderPhase::Waiting;
            let unproven = self.unproven();
            let taken = self.hosts.iter().filter(|(_, host)| !host.excluded);
            self.notices.push_back(SenderNotice::Discovered {
                targets: self
                    .hosts
                    .iter()
                    .map(|(_, h)| (h.name.clone(), h.address))
                    .collect(),
                members: self
                    .table
                    .iter()
                    .filter(|(id, _)| Some(**id) != self.setup.without)
                    .count(),
                claims: taken.map(|(_, h)| (h.address.ip(), h.serial)).collect(),
                shown: std::mem::take(&mut self.shown).into_values().collect(),
                unproven,
                missing,
            });
        }
    }

    /// Restarts discovery at `at`, forgetting all hosts: by then they may have another release.
    pub fn discover_again(&mut self, at: Moment) {
        if self.phase != SenderPhase::Waiting {
            return;
        }
        self.hosts.clear();
        self.table = Table::default();
        (self.phase, self.solicits, self.repeat) =
            (SenderPhase::Discovering, 0, (at, FIRST_RESEND));
        (self.began, self.newest, self.solicited) = (at, at, at);
    }

    /// Returns the state of the tree that each target claims.
    pub fn target_states(&self) -> impl Iterator<Item = (InstanceId, &HostName, &TreeState)> {
        self.hosts.iter().filter_map(|(&id, host)| {
            let member = self.table.get(id)?;
            let state = member
                .hello
                .trees
                .iter()
                .find(|state| state.tree == self.setup.tree)?;
            Some((id, &host.name, state))
        })
    }

    /// Solicits answers, and a proof of the highest serial if `serial` is set. Only answers that
    /// echo the nonce count.
    pub(super) fn solicit(&mut self, dest: Dest, serial: bool) {
        let tree = serial.then(|| self.setup.tree.clone());
        self.control
            .send(dest, &Message::Solicit(Some(self.nonce), tree));
    }

    /// Records a target whose beacon carries no nonce: from a version too old for nonces, or
    /// replayed.
    pub(super) fn keep_unproven(&mut self, from: SocketAddr, hello: &Hello) {
        if hello.nonce.is_none()
            && self.is_target(hello)
            && self.unproven.len() < MAX_UNPROVEN_TARGETS
        {
            self.unproven.insert((hello.name.clone(), from.ip()));
        }
    }

    fn unproven(&mut self) -> Vec<(HostName, IpAddr)> {
        let proven = |name: &HostName| self.hosts.iter().any(|(_, host)| host.name == *name);
        std::mem::take(&mut self.unproven)
            .into_iter()
            .filter(|(name, _)| !proven(name))
            .collect()
    }

    /// Keeps the proof of a host's serial; beyond the limit only those of the highest serials.
    pub(super) fn keep_shown(&mut self, hello: &Hello) {
        let claimed = hello
            .trees
            .iter()
            .find(|t| t.tree == self.setup.tree)
            .map(|t| t.serial);
        let (Some(serial), Some(shown)) = (claimed, &hello.shown) else {
            return;
        };

        let key = (serial, BlockHash::of(&crate::manifest::node::to_vec(shown)));
        self.shown.entry(key).or_insert_with(|| shown.clone());
        if self.shown.len() > MAX_SHOWN_SERIALS {
            self.shown.pop_first();
        }
    }

    /// Returns whether further answers are unlikely: all hosts of the preceding session have
    /// answered, or no new host for a while.
    fn is_quiet(&self, now: Moment) -> bool {
        let known = self.setup.known > 0 && self.hosts.len() >= self.setup.known;
        known || now.since(self.newest) >= SETTLED_AFTER
    }

    /// Returns whether full-size datagrams reach every host, or several solicits found a smaller
    /// size. A host that received no probe at all gets twice as many solicits. The last solicit has
    /// had time for answers.
    fn is_measured(&self, now: Moment) -> bool {
        let most = self.setup.datagram;
        let full = |h: &Host| h.takes.is_some_and(|takes| usize::from(takes) >= most);
        if most < min_datagram(self.setup.room) || self.hosts.iter().all(|(_, h)| full(h)) {
            return true;
        }

        let told = self.hosts.iter().all(|(_, h)| h.takes.is_some());
        let enough = if told { MIN_SOLICITS } else { MIN_SOLICITS * 2 };
        self.solicits > enough && now.since(self.solicited) >= SETTLED_AFTER
    }

    fn missing_names(&self) -> Vec<HostName> {
        let known = |name: &&HostName| {
            !self
                .hosts
                .iter()
                .any(|(_, h)| h.name == **name && !h.excluded)
        };

        self.setup
            .expect
            .names
            .iter()
            .filter(known)
            .cloned()
            .collect()
    }

    /// Takes a beacon or an answer. Without the echoed nonce the message may be a replay: from an
    /// awaited host it causes an individual solicit and nothing else.
    pub(super) fn on_hello(
        &mut self,
        now: Moment,
        from: SocketAddr,
        source: InstanceId,
        hello: Hello,
    ) {
        if !hello.is_of(source) {
            return;
        }

        if !hello.repeats(self.nonce) {
            self.keep_unproven(from, &hello);
            let is_awaited = match self.phase {
                SenderPhase::Discovering => {
                    self.is_target(&hello) && self.hosts.get(source).is_none()
                }
                _ => self
                    .hosts
                    .awaits_beacon_from(source, &hello.name, from, self.awaited()),
            };
            if is_awaited && self.setup.without != Some(source) {
                self.challenge(now, from);
            }
            return;
        }

        self.keep_shown(&hello);
        let is_target = self.setup.without != Some(source) && self.is_target(&hello);
        if is_target && matches!(self.phase, SenderPhase::Discovering | SenderPhase::Waiting) {
            let heard = hello.heard;
            let serial = hello
                .trees
                .iter()
                .find(|t| t.tree == self.setup.tree)
                .map(|t| t.serial);
            self.hosts.add(
                now,
                source,
                hello.name.clone(),
                from,
                serial.unwrap_or_default(),
            );
            self.hosts.identify(source, hello.identity);
            self.report_other_keys();
            if let Some(host) = self.hosts.get_mut(source) {
                // The best of several answers counts: a probe may have been lost by chance.
                host.takes = host.takes.max(heard);
            }
        }

        self.on_beacon(from, source, &hello);
        if self.table.heard(now, from, source, hello, true) {
            self.newest = now;
        }
    }

    /// Solicits a single host, rate limited.
    fn challenge(&mut self, now: Moment, host: SocketAddr) {
        while self
            .challenged
            .front()
            .is_some_and(|(_, at)| now.since(*at) >= CHALLENGE_INTERVAL)
        {
            self.challenged.pop_front();
        }

        let is_new = self.challenged.iter().all(|(other, _)| *other != host);
        if is_new && self.challenged.len() < MAX_CHALLENGED {
            self.challenged.push_back((host, now));
            self.solicit(Dest::Host(host), self.phase == SenderPhase::Discovering);
        }
    }

    fn is_target(&self, hello: &Hello) -> bool {
        hello.trees.iter().any(|t| t.tree == self.setup.tree) && self.is_named(&hello.name)
    }
}
