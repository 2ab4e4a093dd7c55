//! Serving a release: announcements, wants, data, scans of the hosts, and heartbeats.

use std::time::Duration;

use super::hosts::Host;
use super::phase::SenderPhase;
use super::{Sender, SenderNotice, SenderRequest};
use crate::id::InstanceId;
use crate::proto::Dest;
use crate::proto::compression::Demand;
use crate::units::Moment;
use crate::wire::message::{Announce, OrderKind, SenderStatus, WantList};
use crate::wire::{DATA_OVERHEAD, HostStage, Message, StatusPhase};

/// Interval between scans for lost hosts and for a decision, if nothing happens.
const SWEEP_INTERVAL: Duration = Duration::from_millis(20);
/// Shortest interval between two scans, for each host beyond [`SWEEP_SMALL_FLEET`].
const SWEEP_PER_HOST: Duration = Duration::from_micros(1);
/// Largest fleet that is scanned at every change of a host.
const SWEEP_SMALL_FLEET: u32 = 64;

impl Sender {
    /// Takes a host's want: manifest nodes until the host has compared, then blocks if the host
    /// lacks any. An audit serves nodes only. Returns false for wants beyond that.
    pub(super) fn on_want(&mut self, now: Moment, source: InstanceId, mut want: WantList) -> bool {
        let audit = self.is_audit();
        let (Some(offer), Some(host)) = (&self.offer, self.hosts.get_mut(source)) else {
            return false;
        };

        let root = offer.release.header().root;
        let lacks = want
            .fetch
            .or(host.summary.map(|summary| summary.fetch))
            .unwrap_or_default()
            > 0;

        let all = if lacks && !audit {
            root.nodes + root.blocks
        } else {
            root.nodes
        };

        let is_done = host.stage.is_some_and(|stage| stage >= HostStage::Ready);
        want.ranges.0.retain(|range| range.start < all);
        if want.ranges.0.is_empty() || is_done {
            return false;
        }

        let nodes = want.ranges.0.first().is_none_or(|r| r.start < root.nodes);

        if !want.more {
            host.asked.nodes = true;
            host.asked.blocks |= !nodes;
        }

        self.flow.on_want(source, &want, all);
        if !self.flow.stream().pending().is_empty() {
            self.wants.on_wants(now);
        }

        true
    }

    pub(super) fn resend_announcement(&mut self, now: Moment) {
        let SenderPhase::Serving(announced) = &mut self.phase else {
            return;
        };

        let Some(offer) = self.offer.as_ref().filter(|_| announced.resend.is_due(now)) else {
            return;
        };

        announced.resend.advance(now);

        let announce = Announce {
            session: self.session,
            sender: self.setup.name.clone(),
            header: offer.release.bytes().to_vec(),
            signature: offer.signature.clone(),
            symbol: (self.flow.stream().segment() - DATA_OVERHEAD) as u16,
            hosts: (self.hosts.len() as u32).max(self.setup.fleet),
            checksum: self.setup.checksum,
            quick: Some(true).filter(|_| self.setup.quick),
            recheck: Some(true).filter(|_| self.setup.recheck),
            grant: self.setup.grant.clone(),
            follows: self.setup.follows,
            only: self.setup.only.clone(),
            proves: Some(true),
            after: self.lowest_serial,
        };

        self.control.send(Dest::Group, &Message::Announce(announce));
    }

    /// Scans all hosts after a change or at the interval: marks silent ones as lost and chooses
    /// reporters. Returns whether a scan was due.
    pub(super) fn sweep(&mut self, now: Moment) -> bool {
        if now < self.sweep_due() {
            return false;
        }

        self.hosts.take_changed();
        self.swept = now;
        let lost = self.hosts.expire(now, self.patience(), self.awaited());
        self.notices
            .extend(lost.into_iter().map(SenderNotice::Lost));
        let slow = self.flow.receivers().slow();
        let fetching = self
            .hosts
            .iter()
            .filter(|(id, h)| !h.is_settled(false) && !slow.contains(id))
            .count();

        self.flow.set_fetching(fetching);
        if self.flow.choose_reporters(now, self.hosts.ids()) {
            self.send_status(now, self.wire_phase());
        }

        true
    }

    /// Time of the next scan: soon after a change, but in a large fleet not at every message.
    pub(super) fn sweep_due(&self) -> Moment {
        let least = SWEEP_PER_HOST * (self.hosts.len() as u32).saturating_sub(SWEEP_SMALL_FLEET);
        self.swept
            + if self.hosts.has_changed() {
                least.min(SWEEP_INTERVAL)
            } else {
                SWEEP_INTERVAL
            }
    }

    /// The order that hosts have to answer.
    pub(super) fn awaited(&self) -> OrderKind {
        if let SenderPhase::Ordering(ordering) = self.phase {
            ordering.kind
        } else {
            OrderKind::Commit
        }
    }

    /// Serves the slow hosts once all others are done.
    pub(super) fn start_second_pass(&mut self, now: Moment) {
        let slow = self.flow.receivers().slow();
        let open = |(id, h): (&InstanceId, &Host)| !h.is_settled(false) && !slow.contains(id);
        if slow.is_empty() || self.hosts.iter().any(open) {
            return;
        }

        self.flow.readmit(now);
        self.pass += 1;
        self.send_status(now, self.wire_phase());
    }

    pub(super) fn serve(&mut self, now: Moment) {
        self.flow.handle_timeout(now);
        if !self.flow.stream().pending().is_empty() {
            self.wants.on_wants(now);
        }

        if self.may_pack(now)
            && let Some((generation, ordinals)) = self.flow.stream_mut().next_to_pack()
        {
            let demand = Demand {
                rate: self.flow.rate(),
                starved: self.wants.is_starved(),
            };
            self.requests
                .push_back(SenderRequest::Pack(generation, ordinals, demand));
        }

        if self.flow.stream().pending().is_empty() {
            self.wants.on_drained();
        }

        self.heartbeat_if_due(now);
    }

    /// Returns whether the wants of all hosts about to ask are merged, or the wait is over.
    fn may_pack(&self, now: Moment) -> bool {
        // Repairs are no reason to pack: others may need the repaired blocks before they can ask.
        if self.flow.stream().is_fresh() {
            return true;
        }
        self.window_closes().is_some_and(|until| until <= now)
    }

    /// Time until which pending wants are gathered.
    fn window_closes(&self) -> Option<Moment> {
        let nodes = self.offer.as_ref()?.release.header().root.nodes;
        let first = self.flow.stream().pending().first();
        let working = self
            .hosts
            .iter()
            .filter(|(id, h)| !h.lost && !self.flow.receivers().is_slow(**id));

        self.wants.closes_at(
            self.ticked,
            first.is_some_and(|first| first < nodes),
            self.hosts.len() as u32,
            working.map(|(_, h)| h),
        )
    }

    pub(super) fn window_timeout(&self) -> Option<Moment> {
        if self.flow.stream().is_fresh() {
            return None;
        }
        self.window_closes().filter(|&until| until > self.ticked)
    }

    pub(super) fn wire_phase(&self) -> StatusPhase {
        match self.phase {
            SenderPhase::Ordering(_) | SenderPhase::Signing(_) => StatusPhase::Ordering,
            _ => StatusPhase::Serving,
        }
    }

    /// Sends the position of the stream: at even intervals during data, soon after data, then ever
    /// more rarely.
    pub(super) fn heartbeat_if_due(&mut self, now: Moment) {
        let has_data = self.flow.stream().has_data();
        if self.heartbeat.poll(now, has_data) {
            self.send_status(now, self.wire_phase());
        }
    }

    pub(super) fn send_status(&mut self, now: Moment, phase: StatusPhase) {
        self.heartbeat.on_status(now);
        let status = SenderStatus {
            session: self.session,
            phase,
            sent: self.flow.stream().sent(),
            hosts: self.hosts.len() as u32,
            counter: self.flow.stream().counter(),
            pass: self.pass,
            reporters: self.flow.receivers().reporters().to_vec(),
        };

        self.control.send(Dest::Group, &Message::Status(status));
    }
}
