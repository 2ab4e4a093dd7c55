//! Messages to a sender: beacons, states, wants and reports of hosts.

use std::net::SocketAddr;

use super::phase::SenderPhase;
use super::{Sender, SenderNotice};
use crate::id::{HostName, InstanceId, Nonce, SessionId};
use crate::proto::Dest;
use crate::units::{Moment, Rate};
use crate::wire::message::{Hello, ReceiverReport, StageReport};
use crate::wire::{Datagram, Message};

/// Reason for the refusal of a host whose makuo knows no staged releases.
const CANNOT_KEEP: &str = "cannot keep a release staged: it runs an older makuo";

impl Sender {
    /// Takes a datagram.
    pub fn handle_datagram(&mut self, now: Moment, from: SocketAddr, bytes: &[u8]) {
        if let Ok(Datagram::Control(front, piece)) = Datagram::parse(bytes)
            && front.source != self.instance
            && let Some(whole) = self.reassembly.add(now, front.source, piece)
            && let Ok(message) = Message::decode(&whole)
        {
            self.on_message(now, from, front.source, message);
            self.tick(now);
        }
    }

    fn on_message(&mut self, now: Moment, from: SocketAddr, source: InstanceId, message: Message) {
        match message {
            Message::Hello(hello) => self.on_hello(now, from, source, hello),
            Message::Bye(_) => self.on_bye(from, source),
            Message::State(state)
                if state.session == self.session
                    && self.accepts_state(now, source, from, &state.name) =>
            {
                self.on_state(now, from, source, state);
            }

            Message::Want(want) if self.is_from_host(now, source, from, want.session) => {
                let number = want.number;
                self.watch_receipt(now, source, want.seen);
                if self
                    .serving
                    .on_want(now, source, want, &self.offer, &mut self.hosts)
                {
                    self.ack(source, from, number, None);
                }
            }
            Message::Nack(nack) if self.is_from_host(now, source, from, nack.session) => {
                let hosts = self.hosts.len();
                self.watch_receipt(now, source, nack.seen);
                self.reach.on_missing(now, source, &nack.missing);
                self.serving.flow_mut().on_nack(now, source, &nack, hosts);
                for (from, to) in self.serving.flow().broken_ways() {
                    self.reach.on_broken(now, from, to);
                }
            }
            Message::Report(report) if self.is_from_host(now, source, from, report.session) => {
                self.on_report(now, source, report);
            }
            Message::DriftPart(part) if self.is_from_host(now, source, from, part.session) => {
                if let Some(drift) = &mut self.drift {
                    drift.on_part(source, &part);
                }
            }
            _ => {}
        }
    }

    /// Returns whether a message belongs to this session and comes from a host's own address.
    fn is_from_host(
        &mut self,
        now: Moment,
        source: InstanceId,
        from: SocketAddr,
        session: SessionId,
    ) -> bool {
        session == self.session && self.hosts.on_sign_of_life(now, source, from)
    }

    /// Notes whether data comes to a host that asks for it.
    fn watch_receipt(&mut self, now: Moment, source: InstanceId, seen: u64) {
        let sent = self.serving.flow().stream().counter();
        self.reach.on_request(now, source, seen, sent);
    }

    /// Takes a beacon or an answer. Without the echoed nonce the message may be a replay: from an
    /// awaited host it causes an individual solicit and nothing else.
    fn on_hello(&mut self, now: Moment, from: SocketAddr, source: InstanceId, hello: Hello) {
        if !hello.is_of(source) {
            return;
        }

        if !self.audience.is_proven(&hello) {
            return self.on_unproven_hello(now, from, source, &hello);
        }

        self.audience.keep_shown(&hello);
        let is_target =
            !self.audience.is_without(source) && self.audience.targets().is_target(&hello);
        if is_target
            && matches!(
                self.phase,
                SenderPhase::Discovering(_) | SenderPhase::Waiting
            )
        {
            self.add_target(now, from, source, &hello);
        }

        self.on_beacon(from, source, &hello);
        let is_new = self.audience.on_hello(now, from, source, hello);
        if let SenderPhase::Discovering(discovery) = &mut self.phase {
            discovery.on_answer(now, is_new);
        }
    }

    fn on_unproven_hello(
        &mut self,
        now: Moment,
        from: SocketAddr,
        source: InstanceId,
        hello: &Hello,
    ) {
        self.audience.on_unproven(from, hello);
        let is_discovering = matches!(self.phase, SenderPhase::Discovering(_));
        let is_awaited = if is_discovering {
            self.audience.targets().is_target(hello) && self.hosts.get(source).is_none()
        } else {
            self.hosts
                .awaits_beacon_from(source, &hello.name, from, self.awaited())
        };

        if is_awaited && !self.audience.is_without(source) {
            self.audience
                .challenge(now, &mut self.outputs.control, from, is_discovering);
        }
    }

    /// Adds a target found by discovery.
    fn add_target(&mut self, now: Moment, from: SocketAddr, source: InstanceId, hello: &Hello) {
        let state = self.audience.targets().state_in(hello);
        let serial = state.map(|state| state.serial).unwrap_or_default();
        self.hosts
            .add(now, source, hello.name.clone(), from, serial);
        self.hosts.identify(source, hello.identity);
        self.report_other_keys();

        if let Some(host) = self.hosts.get_mut(source) {
            host.on_probed(hello.heard);
        }
    }

    /// Takes a beacon after the announcement. A restarted daemon has no part in the session.
    fn on_beacon(&mut self, from: SocketAddr, source: InstanceId, hello: &Hello) {
        let Some(release) = self.offer.release() else {
            return;
        };
        let Some(tree) = self.audience.targets().state_in(hello) else {
            return;
        };

        let has = tree.release == Some(release.id());
        let Some(id) = self.hosts.on_beacon(source, &hello.name, from, has) else {
            return;
        };

        if id != source
            && matches!(
                self.phase,
                SenderPhase::Signing(_) | SenderPhase::Ordering(_)
            )
            && self.hosts.on_bye(id, self.awaited())
        {
            self.outputs.notify_lost(self.hosts.get(id).cloned());
        }
    }

    fn on_bye(&mut self, from: SocketAddr, source: InstanceId) {
        self.audience.on_bye(source, from);
        if !self.hosts.is_at(source, from) {
            return;
        }

        self.serving.flow_mut().on_gone(source);
        if self.hosts.on_bye(source, self.awaited()) {
            self.outputs.notify_lost(self.hosts.get(source).cloned());
        }
    }

    fn on_state(&mut self, now: Moment, from: SocketAddr, source: InstanceId, state: StageReport) {
        let number = state.number;
        let nonce = state.nonce;
        let audit = self.offer.is_audit();
        let is_too_old = self.decision.needs_keepers() && state.keeps != Some(true);
        let refusal = match self.decision.commits() {
            _ if is_too_old => Some(CANNOT_KEEP.to_string()),
            true => state.held.clone(),
            false => None,
        };
        let mut taken = self.hosts.on_state(now, source, from, state, audit);
        if let (Some(changed), Some(why)) = (taken.as_mut(), refusal)
            && let Some(host) = self.hosts.get_mut(source)
        {
            *changed |= host.refuse(&why);
        }
        self.report_other_keys();

        match taken {
            // An unsigned answer is none.
            None => {
                if self.hosts.drop_unsigned(source) {
                    self.outputs.notify_lost(self.hosts.get(source).cloned());
                }
            }
            Some(changed) => {
                self.ack(source, from, number, nonce);
                if let Some(host) = self.hosts.get(source).filter(|_| changed) {
                    self.outputs.notify(SenderNotice::Host(host.clone()));
                }
            }
        }
    }

    fn on_report(&mut self, now: Moment, source: InstanceId, report: ReceiverReport) {
        if self.serving.flow_mut().on_report(now, source, report)
            && let Some(host) = self.hosts.get(source)
        {
            let rate = Rate(self.serving.flow().receivers().received(source));
            self.outputs
                .notify(SenderNotice::Slow(host.name.clone(), rate));
        }
    }

    /// Reports hosts with other keys than their names had before.
    fn report_other_keys(&mut self) {
        for (instance, other) in self.hosts.take_other_keys() {
            self.outputs.notify(SenderNotice::OtherKey(other));
            let excluded = self.hosts.get(instance).filter(|host| host.is_excluded());
            self.outputs.notify_lost(excluded.cloned());
        }
    }

    /// Acknowledges a host's message and proves that this sender is alive.
    fn ack(&mut self, source: InstanceId, from: SocketAddr, number: u32, nonce: Option<Nonce>) {
        if (number != 0 || nonce.is_some()) && source != self.instance {
            self.outputs
                .control
                .send(Dest::Host(from), &Message::Ack(self.session, number, nonce));
        }
    }

    /// Returns whether to accept a host's state: from a target, and from the host's own address.
    fn accepts_state(
        &mut self,
        now: Moment,
        source: InstanceId,
        from: SocketAddr,
        name: &HostName,
    ) -> bool {
        let known = self.hosts.get(source).is_some();
        let is_host = source != self.instance && !self.audience.is_without(source);
        is_host
            && self.audience.selects(source, name)
            && (!known || self.hosts.on_sign_of_life(now, source, from))
    }
}
