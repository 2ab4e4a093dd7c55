//! Discovery: solicits until all known hosts have answered.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::hosts::Host;
use super::phase::{Discovery, SenderPhase};
use super::{Sender, SenderNotice};
use crate::id::{HostName, InstanceId};
use crate::proto::datagram_size::{min_datagram, probe_sizes};
use crate::proto::members::Table;
use crate::proto::{Dest, slot_interval};
use crate::units::Moment;
use crate::wire::Message;
use crate::wire::message::{Hello, TreeState};

/// Timeout of discovery, however many hosts have answered.
const DISCOVERY_TIMEOUT: Duration = Duration::from_millis(1500);
/// Timeout of discovery without any answer, or with fewer hosts than expected.
const DISCOVERY_TIMEOUT_EMPTY: Duration = Duration::from_millis(3000);
/// Time without new hosts after which all have answered: hosts that have just started do not know
/// each other yet.
const SETTLED_AFTER: Duration = Duration::from_millis(30);
/// Solicits to send before concluding that the largest datagrams do not reach a host.
const MIN_SOLICITS: u32 = 2;

impl Sender {
    /// Sends due solicits and ends discovery once all hosts have answered.
    pub(super) fn solicit_hosts(&mut self, now: Moment, mut discovery: Discovery) {
        if discovery.resend.is_due(now) {
            // Probes first: a host answers with the largest probe received so far. The largest
            // usually passes, and the others are needed only if some host did not receive it.
            let most = if discovery.solicits == 0 {
                1
            } else {
                usize::MAX
            };
            probe_sizes(self.setup.datagram, self.setup.room)
                .take(most)
                .for_each(|size| self.control.probe(Dest::Group, size));
            self.solicit(Dest::Group, true);
            discovery.solicits += 1;
            discovery.solicited = now;
            discovery.resend.advance(now);
            self.phase = SenderPhase::Discovering(discovery);
        }

        let waited = now.since(discovery.began);
        let found = self.hosts.iter().filter(|(_, host)| !host.excluded).count();
        let missing = self.missing_names();
        let enough = found > 0 && found >= self.setup.expect.count && missing.is_empty();
        let all = self.is_measured(now, &discovery)
            && self.table.len() >= self.table.claimed()
            && self.is_quiet(now, &discovery);

        // Hosts of a large fleet answer in slots, and some answers are lost.
        let slots = slot_interval(self.table.claimed() as u32) * 2;
        let is_over = enough && (all || waited >= DISCOVERY_TIMEOUT + slots);
        if is_over || waited >= DISCOVERY_TIMEOUT_EMPTY + slots {
            self.end_discovery(missing);
        }
    }

    fn end_discovery(&mut self, missing: Vec<HostName>) {
        self.phase = SenderPhase::Waiting;
        let unproven = self.unproven();
        let shown = self.proofs.take_shown();
        let hosts = || self.hosts.iter().map(|(_, host)| host);
        let members = self.table.iter().map(|(id, _)| Some(*id));

        self.notices.push_back(SenderNotice::Discovered {
            targets: hosts().map(|h| (h.name.clone(), h.address)).collect(),
            members: members.filter(|id| *id != self.setup.without).count(),
            claims: hosts()
                .filter(|h| !h.excluded)
                .map(|h| (h.address.ip(), h.serial))
                .collect(),
            shown,
            unproven,
            missing,
        });
    }

    /// Restarts discovery at `at`, forgetting all hosts: by then they may have another release.
    pub fn discover_again(&mut self, at: Moment) {
        if !matches!(self.phase, SenderPhase::Waiting) {
            return;
        }
        self.hosts.clear();
        self.table = Table::default();
        self.phase = SenderPhase::Discovering(Discovery::new(at));
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
            .send(dest, &Message::Solicit(Some(self.proofs.nonce()), tree));
    }

    /// Records a target whose beacon carries no nonce: from a version too old for nonces, or
    /// replayed.
    fn keep_unproven(&mut self, from: SocketAddr, hello: &Hello) {
        if hello.nonce.is_none() && self.is_target(hello) {
            self.proofs.keep_unproven(&hello.name, from.ip());
        }
    }

    fn unproven(&mut self) -> Vec<(HostName, IpAddr)> {
        let proven = |name: &HostName| self.hosts.iter().any(|(_, host)| host.name == *name);
        self.proofs
            .take_unproven()
            .into_iter()
            .filter(|(name, _)| !proven(name))
            .collect()
    }

    /// Keeps the proof of a host's serial; beyond the limit only those of the highest serials.
    fn keep_shown(&mut self, hello: &Hello) {
        let claimed = hello.trees.iter().find(|t| t.tree == self.setup.tree);
        if let (Some(claimed), Some(shown)) = (claimed, &hello.shown) {
            self.proofs.keep_shown(claimed.serial, shown);
        }
    }

    /// Returns whether further answers are unlikely: all hosts of the preceding session have
    /// answered, or no new host for a while.
    fn is_quiet(&self, now: Moment, discovery: &Discovery) -> bool {
        let known = self.setup.known > 0 && self.hosts.len() >= self.setup.known;
        known || now.since(discovery.last_new_member) >= SETTLED_AFTER
    }

    /// Returns whether full-size datagrams reach every host, or several solicits found a smaller
    /// size. A host that received no probe at all gets twice as many solicits. The last solicit has
    /// had time for answers.
    fn is_measured(&self, now: Moment, discovery: &Discovery) -> bool {
        let most = self.setup.datagram;
        let full = |h: &Host| h.takes.is_some_and(|takes| usize::from(takes) >= most);
        if most < min_datagram(self.setup.room) || self.hosts.iter().all(|(_, h)| full(h)) {
            return true;
        }

        let answered = self.hosts.iter().all(|(_, h)| h.takes.is_some());
        let enough = if answered {
            MIN_SOLICITS
        } else {
            MIN_SOLICITS * 2
        };
        discovery.solicits > enough && now.since(discovery.solicited) >= SETTLED_AFTER
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

        if !hello.repeats(self.proofs.nonce()) {
            self.keep_unproven(from, &hello);
            let is_awaited = match self.phase {
                SenderPhase::Discovering(_) => {
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
        if is_target
            && matches!(
                self.phase,
                SenderPhase::Discovering(_) | SenderPhase::Waiting
            )
        {
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
        if self.table.on_hello(now, from, source, hello, true)
            && let SenderPhase::Discovering(discovery) = &mut self.phase
        {
            discovery.last_new_member = now;
        }
    }

    /// Solicits a single host, rate limited.
    fn challenge(&mut self, now: Moment, host: SocketAddr) {
        if self.proofs.may_challenge(now, host) {
            let serial = matches!(self.phase, SenderPhase::Discovering(_));
            self.solicit(Dest::Host(host), serial);
        }
    }

    fn is_target(&self, hello: &Hello) -> bool {
        hello.trees.iter().any(|t| t.tree == self.setup.tree) && self.is_named(&hello.name)
    }

    /// Time of the next solicit or possible end of discovery.
    pub(super) fn discovery_timeout(&self, discovery: &Discovery) -> Moment {
        let slots = slot_interval(self.table.claimed() as u32) * 2;
        let ends = [
            discovery.last_new_member + SETTLED_AFTER,
            discovery.solicited + SETTLED_AFTER,
            discovery.began + DISCOVERY_TIMEOUT + slots,
            discovery.began + DISCOVERY_TIMEOUT_EMPTY + slots,
        ];

        ends.into_iter()
            .filter(|&at| at > self.ticked)
            .fold(discovery.resend.due(), Moment::min)
    }
}
