//! Discovery: solicits until all hosts have answered, as far as anybody knows of them.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::hosts::Host;
use super::{DISCOVERY, DISCOVERY_EMPTY, MEASURE, Notice, Phase, QUIET, REPEAT, Sender};
use crate::block::BlockHash;
use crate::id::{HostName, InstanceId};
use crate::proto::members::Table;
use crate::proto::path::{ladder, least};
use crate::proto::{Dest, turn};
use crate::units::Moment;
use crate::wire::Message;
use crate::wire::message::{Hello, TreeState};

/// The most hosts that are told of because they prove nothing.
const MAX_UNPROVEN: usize = 64;
/// A host whose beacons prove nothing is asked alone once in this time.
const CHALLENGE: Duration = Duration::from_millis(100);
/// The most hosts that are asked alone in that time.
const MAX_CHALLENGED: usize = 64;
/// The most different releases and orders that hosts show.
const MAX_SHOWN: usize = 64;

impl Sender {
    pub(super) fn discover(&mut self, now: Moment) {
        if self.repeat.0 <= now {
            // Probes first: a host answers with what it has heard until then. Mostly the largest passes, and the others
            // are needed only when somebody did not hear it.
            let most = if self.solicits == 0 { 1 } else { usize::MAX };
            ladder(self.setup.datagram, self.setup.room)
                .take(most)
                .for_each(|size| self.control.probe(Dest::Group, size));
            self.solicit(Dest::Group, true);
            self.solicits += 1;
            self.solicited = now;
            self.again(now);
        }

        let waited = now.since(self.began);
        let found = self.hosts.iter().filter(|(_, host)| !host.barred).count();
        let missing = self.missing_names();
        let enough = found > 0 && found >= self.setup.expect.count && missing.is_empty();
        let all =
            self.is_measured(now) && self.table.len() >= self.table.claimed() && self.is_quiet(now);

        // Hosts of a large fleet take turns, and the answers of some are lost.
        let turns = turn(self.table.claimed() as u32) * 2;
        if (enough && (all || waited >= DISCOVERY + turns)) || waited >= DISCOVERY_EMPTY + turns {
            self.phase = Phase::Waiting;
            let unproven = self.unproven();
            let taken = self.hosts.iter().filter(|(_, host)| !host.barred);
            self.notices.push_back(Notice::Discovered {
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

    /// Looks for hosts once more from `at` on, as if none had been heard: what they have may be another release by then.
    pub fn discover_again(&mut self, at: Moment) {
        if self.phase != Phase::Waiting {
            return;
        }
        self.hosts.clear();
        self.table = Table::default();
        (self.phase, self.solicits, self.repeat) = (Phase::Discovering, 0, (at, REPEAT));
        (self.began, self.newest, self.solicited) = (at, at, at);
    }

    /// What each target says that it has of the tree.
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

    /// Asks who is there, and what shows the highest serial there; only answers that repeat the nonce count.
    pub(super) fn solicit(&mut self, dest: Dest, serial: bool) {
        let tree = serial.then(|| self.setup.tree.clone());
        self.control
            .send(dest, &Message::Solicit(Some(self.nonce), tree));
    }

    /// A beacon of a target that does not show that it was made lately: of a makuo that is too old for that, or recorded.
    pub(super) fn keep_unproven(&mut self, from: SocketAddr, hello: &Hello) {
        if hello.nonce.is_none() && self.is_target(hello) && self.unproven.len() < MAX_UNPROVEN {
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

    /// Keeps what shows the serial of a host, the highest ones when there is too much of it.
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
        if self.shown.len() > MAX_SHOWN {
            self.shown.pop_first();
        }
    }

    /// Whether nobody else will answer, as far as can be told: all who took part before have, or nobody new for a while.
    fn is_quiet(&self, now: Moment) -> bool {
        let known = self.setup.known > 0 && self.hosts.len() >= self.setup.known;
        known || now.since(self.newest) >= QUIET
    }

    /// Whether datagrams of our own size reach every host, or smaller ones were all that did several times; a host that
    /// has heard none at all is asked once more often. The last solicit has had time to be answered.
    fn is_measured(&self, now: Moment) -> bool {
        let most = self.setup.datagram;
        let full = |h: &Host| h.takes.is_some_and(|takes| usize::from(takes) >= most);
        if most < least(self.setup.room) || self.hosts.iter().all(|(_, h)| full(h)) {
            return true;
        }

        let told = self.hosts.iter().all(|(_, h)| h.takes.is_some());
        let enough = if told { MEASURE } else { MEASURE * 2 };
        self.solicits > enough && now.since(self.solicited) >= QUIET
    }

    fn missing_names(&self) -> Vec<HostName> {
        let known = |name: &&HostName| {
            !self
                .hosts
                .iter()
                .any(|(_, h)| h.name == **name && !h.barred)
        };

        self.setup
            .expect
            .names
            .iter()
            .filter(known)
            .cloned()
            .collect()
    }

    /// Takes a beacon or an answer. One that does not repeat the nonce may be recorded: of a host whose word is waited
    /// for it is a reason to ask, and nothing else.
    pub(super) fn hello(
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
            let is_waited_for = match self.phase {
                Phase::Discovering => self.is_target(&hello) && self.hosts.get(source).is_none(),
                _ => self
                    .hosts
                    .waits_for(source, &hello.name, from, self.awaited()),
            };
            if is_waited_for && self.setup.without != Some(source) {
                self.challenge(now, from);
            }
            return;
        }

        self.keep_shown(&hello);
        let is_target = self.setup.without != Some(source) && self.is_target(&hello);
        if is_target && matches!(self.phase, Phase::Discovering | Phase::Waiting) {
            let heard = hello.heard;
            let serial = hello
                .trees
                .iter()
                .find(|t| t.tree == self.setup.tree)
                .map(|t| t.serial);
            self.hosts.expect(
                now,
                source,
                hello.name.clone(),
                from,
                serial.unwrap_or_default(),
            );
            self.hosts.identify(source, hello.identity);
            self.tell_other_keys();
            if let Some(host) = self.hosts.get_mut(source) {
                // Of several answers the best counts: what is missing in one may have been lost by chance.
                host.takes = host.takes.max(heard);
            }
        }

        self.beacon(from, source, &hello);
        if self.table.heard(now, from, source, hello, true) {
            self.newest = now;
        }
    }

    /// Asks a host alone whether it is there, not too often.
    fn challenge(&mut self, now: Moment, host: SocketAddr) {
        while self
            .challenged
            .front()
            .is_some_and(|(_, at)| now.since(*at) >= CHALLENGE)
        {
            self.challenged.pop_front();
        }

        let is_new = self.challenged.iter().all(|(other, _)| *other != host);
        if is_new && self.challenged.len() < MAX_CHALLENGED {
            self.challenged.push_back((host, now));
            self.solicit(Dest::Host(host), self.phase == Phase::Discovering);
        }
    }

    fn is_target(&self, hello: &Hello) -> bool {
        hello.trees.iter().any(|t| t.tree == self.setup.tree) && self.is_named(&hello.name)
    }
}
